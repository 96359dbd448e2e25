//! Ids computed from names.

use uuid::Uuid;

use crate::record::{Table, Timestamp};
use crate::unit::{ConnectionRecordName, NameHash, Unit};

/// Computes ids from hashes of names, so that each row knows the ids of others without a join: version 7, with 94 bits of
/// the hash in place of the random ones and of part of the time. Ids are in the order of the hashes.
///
/// The times of all ids lie in the 17.5 minutes ([`SPREAD_BITS`]) before the load began. With one time for all, the first
/// eight bytes of an id, by which PostgreSQL sorts, would distinguish only 4,096 ids: an index on 1,000,000 ids then takes
/// 1.0 s instead of 0.7 (PostgreSQL 15).
///
/// The hashes have a random key for each process, so names cannot be chosen to collide. Of the rows of one
/// [cluster](clustered) two have the same other 70 bits with a probability of one in 2,000 million if they are a million,
/// and of one in 200,000 if they are a hundred million; those of clusters add up. Then the primary key cannot be built,
/// and the whole load fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// The earliest time, in milliseconds since the Unix epoch; 48 bits.
    millis: u64,
}

/// Bits of the hash that are added to the time.
const SPREAD_BITS: u32 = 20;

impl Ids {
    pub(super) fn of_load(began: Timestamp) -> Self {
        let latest = began.timestamp_millis().max(0) as u64 & 0xffff_ffff_ffff;
        Self { millis: latest.saturating_sub((1 << SPREAD_BITS) - 1) }
    }

    /// The id of the row of this name.
    pub(super) const fn id(self, name: NameHash) -> Uuid {
        let bits = name >> (128 - 74 - SPREAD_BITS);
        let (spread, high, low) = (bits >> 74, bits >> 62 & 0xfff, bits & ((1 << 62) - 1));
        Uuid::from_u128((self.millis as u128 + spread) << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low)
    }

    /// The id of a mention, by its connection's name and its own.
    pub(super) const fn mention(self, connection: NameHash, mention: NameHash) -> Uuid {
        self.id(clustered(connection, mention))
    }

    /// The id of a unit's row.
    pub(super) fn row(self, unit: Unit<'_>, table: Table, row: usize) -> Uuid {
        let name = unit.names(table)[row];
        match table {
            Table::Entities => self.id(name),
            Table::Connections => self.id(connection_name(unit, row)),
            Table::Mentions => self.mention(connection_name(unit, unit.block().mentions[row].connection.own()), name),
        }
    }
}

/// Bits of a clustered name that are those of its cluster: enough for most of a million restaurants to have their own,
/// and less than the first eight bytes of an id hold, so that these distinguish some rows of a restaurant.
const CLUSTER_BITS: u32 = 24;

/// A name whose row is near those of the same cluster in the order of names, and of ids: the connections of a restaurant,
/// with their mentions. Indexes that begin with the restaurant, or with the connection, are then built from rows that are
/// nearly sorted.
///
/// Its first bits are those of the cluster, the others the first of the name.
const fn clustered(cluster: NameHash, name: NameHash) -> NameHash {
    const REST: u32 = NameHash::BITS - CLUSTER_BITS;
    cluster >> REST << REST | name >> CLUSTER_BITS
}

/// The name of a unit's connection: [clustered] by its restaurant.
pub(super) fn connection_name(unit: Unit<'_>, connection: usize) -> NameHash {
    let ConnectionRecordName::Key { restaurant, .. } = unit.block().connections[connection].name else {
        unreachable!("units that name rows by their ids were refused");
    };
    clustered(unit.names(Table::Entities)[restaurant.own()], unit.names(Table::Connections)[connection])
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
                let before = 1_767_323_045_678 - (seconds * 1_000 + u64::from(nanos) / 1_000_000);
                prop_assert!(before < 1 << SPREAD_BITS, "{before} ms before the load");
            }
        }
    }

    #[test]
    fn ids_differ_for_names_that_differ_in_the_first_94_bits() {
        let ids = Ids::of_load("2026-01-02T03:04:05Z".parse().unwrap());
        let all: std::collections::BTreeSet<Uuid> = (0..128).map(|bit| ids.id(1 << bit)).collect();
        assert_eq!(all.len(), 94 + 1, "the other bits are left out");
    }

    #[test]
    fn names_of_one_cluster_are_neighbours_and_differ() {
        let names = [(1, 2), (1, 3), (2, 1)].map(|(cluster, name)| clustered(cluster << 104, name << 104));
        assert!(names.is_sorted_by(|left, right| left < right), "{names:x?}");
        assert_eq!(names[0], 1 << 104 | 2 << 80);
    }

    #[test]
    fn ids_of_a_load_near_the_beginning_of_unix_time_have_possible_times() {
        for began in ["1969-07-20T20:17:40Z", "1970-01-01T00:00:01Z"] {
            let ids = Ids::of_load(began.parse().unwrap());
            let made = [0, 1 << 100, u128::MAX].map(|name| ids.id(name));
            assert!(made.is_sorted_by(|left, right| left < right));
            for id in made {
                assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
                assert!(id.get_timestamp().unwrap().to_unix().0 < 1_050, "{id}");
            }
        }
    }
}
