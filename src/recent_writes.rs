//! Recent writes of this engine, which it expects to find in the database.

use std::sync::{Mutex, PoisonError};

use crate::hash::HashSet;

/// Number of hashes in a generation. There are two generations, with about 16 bytes for each hash.
const GENERATION: usize = 64 << 10;

/// Hashes ([`hash_of`](crate::hash::hash_of)) of facts that are expected in the database. This is an expectation, not
/// knowledge: other writers, deletions and equal hashes can make it wrong. So a wrong answer may cost time and nothing
/// else.
#[derive(Debug, Default)]
pub(crate) struct RecentWrites {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl RecentWrites {
    /// Returns the keys that are not expected.
    pub(crate) fn unexpected<K>(&self, keys: impl Iterator<Item = K>, hash: impl Fn(&K) -> u64, tell: impl FnMut(K)) {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        keys.filter(|key| !generations.contains(hash(key))).for_each(tell);
    }

    /// Expects these keys from now on. To be called with committed facts.
    pub(crate) fn remember(&self, keys: impl Iterator<Item = u64>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in keys {
            if generations.new.len() >= GENERATION {
                generations.old = std::mem::take(&mut generations.new);
            }
            generations.new.insert(hash);
        }
    }
}

impl Generations {
    fn contains(&self, hash: u64) -> bool {
        self.new.contains(&hash) || self.old.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected_of(recent: &RecentWrites, keys: std::ops::Range<u64>) -> Vec<bool> {
        let mut expected = vec![true; keys.clone().count()];
        recent.unexpected(keys, |key| *key, |key| expected[key as usize] = false);
        expected
    }

    #[test]
    fn recent_writes_are_expected_and_their_number_is_bounded() {
        let recent = RecentWrites::default();
        let keys = || 0..3 * GENERATION as u64;
        recent.remember(0..10);
        let expected = expected_of(&recent, 0..20);
        assert_eq!(expected.iter().filter(|expected| **expected).count(), 10);
        assert!(expected[..10].iter().all(|expected| *expected));
        recent.remember(keys().skip(10));
        let expected = expected_of(&recent, keys());
        assert!(expected[2 * GENERATION..].iter().all(|expected| *expected), "the latest");
        assert!(expected.iter().filter(|expected| **expected).count() <= 2 * GENERATION);
        assert!(!expected[0]);
    }
}
