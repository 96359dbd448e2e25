//! The names and connections that this engine has met, so that new ones need not be looked up.
//!
//! A Bloom filter has what epochs stated, from before each is written. What is not in it was *not met*: it is stored only
//! if another program, another engine or an earlier process wrote it. If nothing of that kind was stored of late, it is
//! taken to be new: neither looked up nor locked, but copied. A wrong guess is the race for a new row that the
//! transaction's savepoints are for: it returns there, and looks up all that it took to be new (`write.rs`).
//!
//! A folded entity has no row, but its name leads to another. So names are taken to be new only while no name leads
//! elsewhere; that is read by a statement behind the merges' lock, and only if there is a generation (`known_names.rs`).
//!
//! Properties:
//! - Only speed depends on a filter: a unique index decides. If the server refuses the rows for another reason (a trigger,
//!   a check of the database's owner), all is looked up, too, so no unit is rejected for a guess.
//! - Only the first attempt of a whole epoch guesses.
//! - A guess may wait for a transaction that has changed the row, where a lookup would not. Then the next ones are looked
//!   up.
//! - What was met may be looked up in vain: if its epoch was rolled back, if it was deleted, if the filter takes it for
//!   something else. The more is met, the more is looked up.

use std::sync::atomic::{AtomicU64, Ordering};

use super::balance::Balance;
use super::rows::FoundByKey;
use super::tables::KeyLookup;
use crate::hash::HashMap;

/// What all lanes of an engine have met.
#[derive(Debug)]
pub(crate) struct Novelty {
    /// By the hashes of their names.
    pub(super) entities: NoveltyFilter,
    /// By the hashes of their keys.
    pub(super) connections: NoveltyFilter,
}

impl Novelty {
    /// A MiB for connections: a third of the new ones are looked up once three million were met, half of them at four and
    /// a half, nearly all at ten. Half a MiB for names, with half of these numbers.
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
    balance: Balance,
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
    const STORED: i32 = 50_000;
    /// Limit of the balance in favour of guessing.
    const MAX: i32 = 10_000;

    fn new(words: usize) -> Self {
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), balance: Balance::default() }
    }

    /// Adds a row by its hash; returns whether it was met before.
    pub(super) fn meet(&self, hash: u64) -> bool {
        let bits = [0, 6, 12].iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63));
        let word = &self.words[(hash >> 40) as usize % self.words.len()];
        word.fetch_or(bits, Ordering::Relaxed) & bits == bits
    }

    /// Whether rows that were not met are taken to be new.
    pub(super) fn takes_unmet_as_new(&self) -> bool {
        self.balance.get() >= Self::ENOUGH
    }

    /// Takes note of rows that were inserted or found.
    pub(super) fn observe(&self, Unmet { stored, absent }: Unmet) {
        let change = i64::from(absent) - i64::from(Self::STORED) * i64::from(stored);
        self.balance.add(change, -Self::STORED, Self::MAX);
    }
}

/// The names of an epoch that were taken to be new, and what became of that.
#[derive(Debug, Default)]
pub(super) struct GuessedNames<'e> {
    names: Vec<KeyLookup<'e>>,
    /// What is known by now of names that were not met.
    known: Unmet,
    /// Whether all names have been looked up after all.
    are_settled: bool,
}

impl<'e> GuessedNames<'e> {
    /// These names are taken to be new.
    pub(super) fn new(names: Vec<KeyLookup<'e>>) -> Self {
        Self { names, ..Self::default() }
    }

    /// These names that were not met have been looked up; `in_vain`: though they were to be taken as new.
    pub(super) fn looked_up(unmet: &[KeyLookup<'_>], found: &HashMap<u32, FoundByKey>, in_vain: bool) -> Self {
        let stored = unmet.iter().filter(|name| found.contains_key(&name.slot)).count() as u32;
        let known = Unmet { stored: stored + u32::from(in_vain), absent: unmet.len() as u32 - stored };
        Self { known, ..Self::default() }
    }

    /// Whether some are taken to be new.
    pub(super) fn are_open(&self) -> bool {
        !self.names.is_empty() && !self.are_settled
    }

    /// All new names were looked up, and these were found.
    pub(super) fn settle<'n>(&mut self, found: impl Iterator<Item = &'n KeyLookup<'n>>) {
        let is_guess = |found: &KeyLookup<'_>| {
            self.names.iter().any(|own| own.entity_type == found.entity_type && own.name == found.name)
        };
        self.known.stored += found.filter(|found| is_guess(found)).count() as u32;
        self.are_settled = true;
    }

    /// The insertion failed, perhaps because it waited for a row that is there.
    pub(super) fn failed(&mut self) {
        self.known.stored += u32::from(self.are_open());
    }

    /// What is known in the end.
    pub(super) fn outcome(&self) -> Unmet {
        let Unmet { stored, absent } = self.known;
        Unmet { stored, absent: absent + (self.names.len() as u32).saturating_sub(stored) }
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
