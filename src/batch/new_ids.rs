//! Ids of new rows, many at a time.

use uuid::{Builder, Uuid};

/// UUIDs of version 7, each greater than the previous one: neighbours in the order of the rows are neighbours in
/// indexes.
///
/// The first is generated normally. Each later one is greater by a step that is drawn once (RFC 9562, section 6.2,
/// method 2): an epoch has thousands of new rows, and generating each id separately would need the clock, a lock and a
/// generator every time. So two ids of an epoch reveal the others: an id names a row, and is not a secret.
#[derive(Debug)]
pub(super) struct NewIds {
    /// Milliseconds and the random bits after them, as one number.
    next: u128,
    step: u128,
}

impl NewIds {
    /// Bits after the milliseconds, without those of version and variant.
    const RANDOM: u32 = 74;
    /// The number of these bits after the variant.
    const BEHIND_VARIANT: u32 = 62;

    pub(super) fn new() -> Self {
        let first = Uuid::now_v7().as_u128();
        let (millis, before, behind) = (first >> 80, first >> 64 & 0xfff, first & Self::mask(Self::BEHIND_VARIANT));
        let step = u128::from(Uuid::now_v7().as_u128() as u32) + 1;
        Self { next: millis << Self::RANDOM | before << Self::BEHIND_VARIANT | behind, step }
    }

    pub(super) fn draw(&mut self) -> Uuid {
        let millis = (self.next >> Self::RANDOM) as u64;
        // Version and variant are set in the bits that are left free for them.
        let before = self.next >> Self::BEHIND_VARIANT & 0xfff;
        let random = before << 64 | self.next & Self::mask(Self::BEHIND_VARIANT);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random.to_be_bytes()[6..]);
        self.next += self.step;
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    const fn mask(bits: u32) -> u128 {
        (1 << bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(mut ids: NewIds, number: usize) -> Vec<Uuid> {
        (0..number).map(|_| ids.draw()).collect()
    }

    proptest! {
        #[test]
        fn ids_ascend_and_are_of_version_7(millis in 0..1_u128 << 47, random in 0..1_u128 << 74, step in 1..=1_u128 << 32) {
            let ids = drawn(NewIds { next: millis << NewIds::RANDOM | random, step }, 100);
            prop_assert!(ids.is_sorted_by(|left, right| left < right));
            prop_assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn ids_begin_at_the_present_time() {
        let before = Uuid::now_v7();
        let own = drawn(NewIds::new(), 3);
        assert!(before < own[0], "{before} {own:?}");
        let millis = |id: &Uuid| id.as_u128() >> 80;
        assert!(own.iter().all(|id| millis(id) - millis(&before) < 60_000), "{before} {own:?}");
    }

    #[test]
    fn sequences_of_ids_that_begin_at_the_same_time_are_disjoint() {
        let ids: std::collections::HashSet<Uuid> = (0..100).flat_map(|_| drawn(NewIds::new(), 100)).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
