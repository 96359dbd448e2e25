//! Connections that this engine wrote lately, so that it can expect them to be there.

use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use std::hash::BuildHasher;

use crate::hash::HashSet;
use crate::record::ConnectionKey;
use uuid::Uuid;

/// How many hashes a generation holds; there are two, of 16 bytes or so each.
const GENERATION: usize = 64 << 10;

/// An expectation, not knowledge: what is expected and missing is inserted like any other, at the cost of a
/// second version of its row; what is there unexpectedly is locked like any other, for figures that were
/// worked out and sent in vain. So neither deletions nor other writers nor equal hashes matter.
#[derive(Debug, Default)]
pub(crate) struct Familiar {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Familiar {
    /// For each of the keys whether it is expected to be there.
    pub(crate) fn expects<'a>(&self, keys: impl Iterator<Item = &'a ConnectionKey<Uuid>>) -> Vec<bool> {
        let hashes: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |hash| generations.new.contains(hash) || generations.old.contains(hash);
        hashes.iter().map(known).collect()
    }

    /// Expects these from now on. For committed ones.
    pub(crate) fn remember<'a>(&self, keys: impl Iterator<Item = &'a ConnectionKey<Uuid>>) {
        let hashes: Vec<u64> = keys.map(|key| self.hasher.hash_one(key)).collect();
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in hashes {
            if generations.new.len() >= GENERATION {
                generations.old = std::mem::take(&mut generations.new);
            }
            generations.new.insert(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SortedSet;

    fn key(number: usize) -> ConnectionKey<Uuid> {
        let id = Uuid::from_u128(number as u128);
        ConnectionKey { restaurant: id, dish: id, dish_attributes: SortedSet::new() }
    }

    #[test]
    fn the_latest_are_expected_and_the_number_is_bounded() {
        let familiar = Familiar::default();
        let keys: Vec<_> = (0..3 * GENERATION).map(key).collect();
        familiar.remember(keys[..10].iter());
        let expected = familiar.expects(keys[..20].iter());
        assert_eq!(expected.iter().filter(|expected| **expected).count(), 10);
        assert!(expected[..10].iter().all(|expected| *expected));
        familiar.remember(keys[10..].iter());
        let expected = familiar.expects(keys.iter());
        assert!(expected[2 * GENERATION..].iter().all(|expected| *expected), "the latest");
        assert!(expected.iter().filter(|expected| **expected).count() <= 2 * GENERATION);
        assert!(!expected[0]);
    }
}
