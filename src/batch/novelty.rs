//! The names and connections that this engine has met, so that new ones need not be looked up.
//!
//! A Bloom filter has what epochs stated, from before each is written. What is not in it was *not met*: it is stored only
//! if another program, another engine or an earlier process wrote it. If nothing of that kind was stored of late, it is
//! taken to be new: neither looked up nor locked, but copied. A wrong guess is the race for a new row that the
//! transaction's savepoints are for: it returns there, and looks up all that it took to be new (`write.rs`).
//!
//! A folded entity has no row, but its name leads to another. So names are taken to be new only while no name leads
//! elsewhere; that is read with the generation, behind the merges' lock.
//!
//! Properties:
//! - Only speed depends on a filter, since a unique index decides.
//! - Only the first attempt of an epoch guesses: at the next one all of it has been met.
//! - What was met may be looked up in vain: if its epoch was rolled back, if it was deleted, if the filter takes it for
//!   something else. The more is met, the more is looked up.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// What all lanes of an engine have met.
#[derive(Debug)]
pub(crate) struct Novelty {
    /// By the hashes of their names.
    pub(super) entities: NoveltyFilter,
    /// By the hashes of their keys.
    pub(super) connections: NoveltyFilter,
}

impl Novelty {
    /// With a MiB for connections, of which half of the new ones are looked up when three millions were met, and half of
    /// that for names.
    pub(crate) fn new() -> Self {
        Self { entities: NoveltyFilter::new(1 << 16), connections: NoveltyFilter::new(1 << 17) }
    }
}

/// The rows of one kind; see the module's documentation.
#[derive(Debug)]
pub(super) struct NoveltyFilter {
    /// A row sets up to three bits of one word, so that it takes one access to memory.
    words: Box<[AtomicU64]>,
    /// Grows with each row that was not met and is not stored.
    balance: AtomicI32,
}

/// The rows of an epoch that were not met before. Of connections only those whose entities are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unmet {
    pub(crate) stored: u32,
    pub(crate) absent: u32,
}

impl NoveltyFilter {
    /// So many must be absent before others are taken to be new.
    const ENOUGH: i32 = 1_000;
    /// A wrong guess copies the rows of an epoch, some thousands, for nothing; to look one up costs a quarter of copying
    /// it. So if one in some ten thousand is stored, guessing gains nothing.
    const STORED: i64 = 50_000;
    /// Limit of the balance in favour of guessing.
    const MAX: i64 = 10_000;

    fn new(words: usize) -> Self {
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), balance: AtomicI32::new(0) }
    }

    /// Adds a row by its hash; returns whether it was met before.
    pub(super) fn meet(&self, hash: u64) -> bool {
        let bits = [0, 6, 12].iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63));
        let word = &self.words[(hash >> 40) as usize % self.words.len()];
        word.fetch_or(bits, Ordering::Relaxed) & bits == bits
    }

    /// Whether rows that were not met are taken to be new.
    pub(super) fn takes_unmet_as_new(&self) -> bool {
        self.balance.load(Ordering::Relaxed) >= Self::ENOUGH
    }

    /// Takes note of rows that were inserted or found.
    pub(super) fn observe(&self, Unmet { stored, absent }: Unmet) {
        let change = i64::from(absent) - Self::STORED * i64::from(stored);
        let add = |balance| (i64::from(balance) + change).clamp(-Self::STORED, Self::MAX) as i32;
        // Always succeeds: the closure returns a value.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| Some(add(balance)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_of;

    #[test]
    fn rows_are_met_once_and_few_are_taken_for_others() {
        let filter = NoveltyFilter::new(1 << 17);
        let count: u32 = 100_000;
        let taken = (0..count).filter(|row| filter.meet(hash_of(row))).count();
        assert!(taken < count as usize / 200, "{taken} were taken for others");
        assert!((0..count).all(|row| filter.meet(hash_of(&row))));
    }

    #[test]
    fn guesses_begin_when_many_were_absent_and_end_with_one_that_is_stored() {
        let filter = NoveltyFilter::new(1);
        let guesses_after = |stored, absent| {
            filter.observe(Unmet { stored, absent });
            filter.takes_unmet_as_new()
        };
        assert!(!filter.takes_unmet_as_new() && !guesses_after(0, 999) && guesses_after(0, 1));
        assert!(guesses_after(0, u32::MAX) && !guesses_after(1, 100));
        assert!(!guesses_after(0, 40_000) && guesses_after(0, 1_000));
        assert!(!guesses_after(u32::MAX, u32::MAX) && !guesses_after(0, 50_000) && guesses_after(0, 1_000));
    }
}
