//! The connections that this engine has met, so that new ones need not be looked up.
//!
//! A Bloom filter has the key of each connection that an epoch stated, from before the epoch is written. A connection that
//! is not in it was *not met*: it is stored only if another program, another engine or an earlier process wrote it. If
//! none of those was stored of late, they are taken to be new: neither looked up nor locked, but copied. A wrong guess
//! is the race for a new connection that the transaction's savepoint is for: it returns to there, and looks all
//! connections up (`write.rs`).
//!
//! Properties:
//! - Only speed depends on the filter, since a unique index decides.
//! - Only the first attempt of an epoch guesses: at the next one all of its connections have been met.
//! - A connection that was met may be looked up in vain: if its epoch was rolled back, if it was deleted, if the filter
//!   takes it for another. The more connections are met, the more are looked up; half of the new ones when there are
//!   about three million.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use uuid::Uuid;

use crate::hash::hash_of;
use crate::record::ConnectionKey;

/// Number of words of the filter: a MiB.
const WORDS: usize = 1 << 17;

/// See the module's documentation. Shared by all lanes of an engine.
#[derive(Debug)]
pub(crate) struct ConnectionFilter {
    /// A connection sets up to three bits of one word, so that it takes one access to memory.
    words: Box<[AtomicU64]>,
    /// Grows with each connection that was not met and is not stored.
    balance: AtomicI32,
}

/// The connections of an epoch that were not met before and whose entities are not new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unmet {
    pub(crate) stored: u32,
    pub(crate) absent: u32,
}

impl ConnectionFilter {
    /// So many must be absent before others are taken to be new.
    const ENOUGH: i32 = 1_000;
    /// A wrong guess copies the connections of an epoch, some thousands, for nothing; to look one up costs a quarter of
    /// copying it. So if one in some ten thousand is stored, guessing gains nothing.
    const STORED: i64 = 50_000;
    /// Limit of the balance in favour of guessing.
    const MAX: i64 = 10_000;

    pub(crate) fn new() -> Self {
        Self { words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(), balance: AtomicI32::new(0) }
    }

    /// Adds a connection; returns whether it was met before.
    pub(super) fn meet(&self, key: &ConnectionKey<Uuid>) -> bool {
        let hash = hash_of(key);
        let bits = [0, 6, 12].iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63));
        let word = &self.words[(hash >> 40) as usize % WORDS];
        word.fetch_or(bits, Ordering::Relaxed) & bits == bits
    }

    /// Whether connections that were not met are taken to be new.
    pub(super) fn takes_unmet_as_new(&self) -> bool {
        self.balance.load(Ordering::Relaxed) >= Self::ENOUGH
    }

    /// Takes note of connections that were inserted or found.
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
    use crate::record::SortedSet;

    #[test]
    fn connections_are_met_once_and_few_are_taken_for_others() {
        let filter = ConnectionFilter::new();
        let key = |dish: u128| ConnectionKey {
            restaurant: Uuid::from_u128(7),
            dish: Uuid::from_u128(dish),
            dish_attributes: SortedSet::new(),
        };
        let count: u32 = 100_000;
        let first = (0..count).filter(|dish| filter.meet(&key(u128::from(*dish)))).count();
        assert!(first < count as usize / 200, "{first} were taken for others");
        assert!((0..count).all(|dish| filter.meet(&key(u128::from(dish)))));
    }

    #[test]
    fn guesses_begin_when_many_were_absent_and_end_with_one_that_is_stored() {
        let filter = ConnectionFilter::new();
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
