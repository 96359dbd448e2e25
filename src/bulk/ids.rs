//! Ids computed from names.

use uuid::Uuid;

use crate::record::Timestamp;
use crate::unit::NameHash;

/// Computes ids from hashes of names, so that each row knows the ids of others without a join: version 7, with the time
/// at which the load began, and 74 bits of the hash in place of the random ones. Ids are in the order of the hashes.
///
/// The hashes have a random key for each process, so names cannot be chosen to collide. Among a hundred million rows
/// two have the same 74 bits with a probability of 3 in ten million. Then the primary key cannot be built, and the
/// whole load fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// Milliseconds since the Unix epoch; 48 bits.
    millis: u64,
}

impl Ids {
    pub(super) fn of_load(began: Timestamp) -> Self {
        Self { millis: began.timestamp_millis().max(0) as u64 & 0xffff_ffff_ffff }
    }

    /// The id of the row of this name.
    pub(super) const fn id(self, name: NameHash) -> Uuid {
        let bits = name >> (128 - 74);
        let (high, low) = (bits >> 62, bits & ((1 << 62) - 1));
        Uuid::from_u128((self.millis as u128) << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_sort_as_their_names_and_have_version_7(mut names in prop::collection::vec(any::<u128>(), 2..20)) {
            let ids = Ids::of_load("2026-01-02T03:04:05.678Z".parse().unwrap());
            names.sort_unstable();
            names.dedup();
            let made: Vec<Uuid> = names.iter().map(|name| ids.id(*name)).collect();
            prop_assert!(made.is_sorted_by(|left, right| left < right));
            for id in &made {
                prop_assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
                let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
                prop_assert_eq!((seconds, nanos), (1_767_323_045, 678_000_000));
            }
        }
    }

    #[test]
    fn ids_differ_for_names_that_differ_in_the_first_74_bits() {
        let ids = Ids::of_load("2026-01-02T03:04:05Z".parse().unwrap());
        let all: std::collections::BTreeSet<Uuid> = (0..128).map(|bit| ids.id(1 << bit)).collect();
        assert_eq!(all.len(), 74 + 1, "the other bits are left out");
    }
}
