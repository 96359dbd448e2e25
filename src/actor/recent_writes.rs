//! Recent writes of this engine, which it expects to find in the database.

use crate::hash::HashSet;

/// Capacity of each of the two sets, with about 16 bytes for each fact.
const HALF: usize = 64 << 10;

/// Facts ([`FactHash::fact`](crate::unit::FactHash::fact)) that are expected in the database. This is an expectation,
/// not knowledge: other writers, deletions, equal hashes, and units that were refused in an epoch that wrote others can
/// make it wrong. So a wrong answer may cost time and nothing else.
#[derive(Debug, Default)]
pub(super) struct RecentWrites {
    /// Facts that were written or asked for recently; the other set has facts of the time before. A full set replaces
    /// the other one.
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl RecentWrites {
    /// Whether this fact is expected. If so it stays expected for longer.
    pub(super) fn expects(&mut self, fact: u64) -> bool {
        if self.young.contains(&fact) {
            return true;
        }
        let is_old = self.old.remove(&fact);
        if is_old {
            self.remember(fact);
        }
        is_old
    }

    /// Expects this fact from now on. To be called with the facts of an epoch that wrote some of its units.
    pub(super) fn remember(&mut self, fact: u64) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_writes_are_expected_and_their_number_is_bounded() {
        let mut recent = RecentWrites::default();
        let last = 3 * HALF as u64;
        (0..10).for_each(|fact| recent.remember(fact));
        assert!((0..20).all(|fact| recent.expects(fact) == (fact < 10)));
        for fact in 10..last {
            recent.remember(fact);
            assert!(recent.young.len() + recent.old.len() <= 2 * HALF);
        }
        assert!((last - HALF as u64..last).all(|fact| recent.expects(fact)), "the latest");
        assert!(!recent.expects(0));
    }

    #[test]
    fn a_fact_that_is_asked_for_stays_expected() {
        let mut recent = RecentWrites::default();
        recent.remember(0);
        for fact in 1..5 * HALF as u64 {
            recent.remember(fact);
            assert!(recent.expects(0), "{fact}");
        }
    }
}
