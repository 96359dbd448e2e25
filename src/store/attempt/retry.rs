//! The reaction to a failed attempt of one or more units or merges: another attempt, two halves, or a rejection.

use std::time::Duration;

use super::backoff::backoff;
use crate::error::{ErrorClass, StoreError};
use crate::label::Reaction;

/// Number of further attempts after an error that other writers may have caused, before it counts as the unit's own
/// fault. The check of a foreign key does not wait for a parent row that another transaction is about to commit; and
/// others may insert rows faster than they are found.
const OTHERS_RETRIES: u32 = 2;
/// Number of further attempts after an unknown error, before it counts as a unit's fault.
const UNKNOWN_RETRIES: u32 = 2;

/// The history of a group's attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Attempts {
    pub(in crate::store) made: u32,
    /// Failures that other writers may have caused.
    others: u32,
    too_long: u32,
    unknown: u32,
    /// Whether all names are looked up, because a remembered id may have been invalid.
    pub(in crate::store) looks_up: bool,
}

/// The reaction to a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Next {
    RetryAfter(Duration),
    Split,
    Reject,
}

impl Next {
    pub(in crate::store) const fn reaction(self) -> Reaction {
        match self {
            Self::RetryAfter(_) => Reaction::Retry,
            Self::Split => Reaction::Split,
            Self::Reject => Reaction::Reject,
        }
    }
}

pub(in crate::store) fn after_failure(attempts: &mut Attempts, error: &StoreError, units: usize) -> Next {
    let again = Next::RetryAfter(backoff(attempts.made));
    let alone_or_split = if units == 1 { Next::Reject } else { Next::Split };
    match error.class() {
        // For systemic errors the circuit breaker, not this pause, decides when to retry.
        ErrorClass::Transient
        | ErrorClass::Reconnect
        | ErrorClass::Resource
        | ErrorClass::Configuration
        | ErrorClass::Bug => again,
        ErrorClass::TooLong => {
            attempts.too_long += 1;
            if attempts.too_long > 1 && units > 1 { Next::Split } else { again }
        }
        ErrorClass::Unknown => {
            attempts.unknown += 1;
            if attempts.unknown > UNKNOWN_RETRIES { alone_or_split } else { again }
        }
        // Rows that were left out may also have been deleted by another program.
        ErrorClass::Poison
            if error.sqlstate() == Some("23503") || error.is_race() || matches!(error, StoreError::LeftOut { .. }) =>
        {
            let is_first_missing =
                error.sqlstate() == Some("23503") && !std::mem::replace(&mut attempts.looks_up, true);
            attempts.others = if is_first_missing { 1 } else { attempts.others + 1 };
            if attempts.others > OTHERS_RETRIES { alone_or_split } else { again }
        }
        ErrorClass::Poison => alone_or_split,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::said;

    fn next(attempts: &mut Attempts, error: &StoreError) -> Reaction {
        attempts.made += 1;
        after_failure(attempts, error, 1).reaction()
    }

    /// Whatever failed before it: until then an id that was remembered may have been what led nowhere.
    #[tokio::test]
    async fn a_missing_parent_is_looked_for_twice_more_before_it_is_a_units_fault() {
        let missing = StoreError::from(said("23503").await);
        let of_others = StoreError::LeftOut { table: None, triggers: String::new() };
        for others in 0..=OTHERS_RETRIES {
            let mut attempts = Attempts::default();
            for _ in 0..others {
                assert_eq!(next(&mut attempts, &of_others), Reaction::Retry);
            }
            assert!(!attempts.looks_up);
            for _ in 0..OTHERS_RETRIES {
                assert_eq!(next(&mut attempts, &missing), Reaction::Retry);
                assert!(attempts.looks_up);
            }
            assert_eq!(next(&mut attempts, &missing), Reaction::Reject);
        }
    }
}
