//! Sets of unit numbers.

use crate::hash::HashMap;

/// A set of unit numbers: the rejected units, which are few, or most of a stretch of the input.
#[derive(Debug, Default)]
pub(in crate::bulk) struct UnitSet {
    /// Pages of bits, by the common part of their numbers.
    pages: HashMap<u64, Box<Page>>,
}

type Page = [u64; 64];

/// Number of bits in a page.
const NUMBERS: u64 = 64 * 64;

impl UnitSet {
    pub(in crate::bulk) fn insert(&mut self, unit: u64) {
        let (word, bit) = Self::place(unit);
        self.pages.entry(unit / NUMBERS).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
    }

    pub(in crate::bulk) fn contains(&self, unit: u64) -> bool {
        let (word, bit) = Self::place(unit);
        self.pages.get(&(unit / NUMBERS)).is_some_and(|page| page[word] & bit != 0)
    }

    pub(in crate::bulk) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    const fn place(unit: u64) -> (usize, u64) {
        let within = unit % NUMBERS;
        ((within / 64) as usize, 1 << (within % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_units_contains_exactly_the_inserted_ones(
            units in prop::collection::btree_set(prop_oneof![0..200_u64, 4000..9000_u64, any::<u64>()], 0..60),
        ) {
            let mut set = UnitSet::default();
            for unit in &units {
                set.insert(*unit);
            }
            let near: BTreeSet<u64> = units.iter().flat_map(|unit| [*unit, unit ^ 1, unit ^ 4096, unit ^ 64]).collect();
            for unit in near {
                prop_assert_eq!(set.contains(unit), units.contains(&unit));
            }
        }
    }
}
