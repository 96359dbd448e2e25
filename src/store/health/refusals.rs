//! Decides whether a unit that is refused alone is refused for a reason of its own.
//!
//! An error's code, table and constraint usually show whether one unit is at fault, but not always: a trigger that
//! refuses every row names none of them. So refusals are counted: if one unit after another is refused for the same
//! reason and nothing succeeds in between, the next ones are postponed until all others were attempted. If nothing
//! succeeded then either, the reason is taken to concern all units ([`StoreError::Repeated`]), and the circuit breaker
//! opens. A transaction that succeeds proves the opposite, and units are rejected at once again.
//!
//! An error that is certainly about a row's own values, such as a constraint of the migrations, never opens the circuit
//! breaker.
//!
//! The price: where two epochs, one a lane, hold nothing but units that are refused for one reason, what is behind them
//! waits until its deadline, and those units are `Unavailable` then, not rejected.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{ErrorClass, StoreError, is_own_constraint};

/// Maximum number of consecutive refusals for one reason.
const IN_A_ROW_MAX: u32 = 20;
/// How long a success counts as proof that a reason is the units' own.
const PROVED_FOR: Duration = Duration::from_mins(1);

/// The identity of a reason. It excludes the message, which quotes values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    sqlstate: Option<String>,
    table: Option<String>,
    column: Option<String>,
    constraint: Option<String>,
}

impl Reason {
    fn of(error: &StoreError) -> Self {
        let db = error.db();
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            sqlstate: text(error.sqlstate()),
            table: text(db.and_then(|error| error.table())),
            column: text(db.and_then(|error| error.column())),
            constraint: text(db.and_then(|error| error.constraint())),
        }
    }
}

/// Whether an error is certainly about a row's own values, however often it occurs: a constraint of the migrations,
/// data that its column cannot hold, or too much of it.
fn speaks_of_values(error: &StoreError) -> bool {
    let constraint = error.db().and_then(|error| error.constraint());
    constraint.is_some_and(is_own_constraint)
        || error.sqlstate().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
}

#[derive(Debug)]
struct Streak {
    reason: Reason,
    refused: u32,
    /// Time of the last refusal.
    last: Instant,
    /// Time of the last success in spite of it.
    proved: Option<Instant>,
}

impl Streak {
    fn is_full(&self) -> bool {
        self.refused >= IN_A_ROW_MAX && self.proved.is_none_or(|proved| proved.elapsed() > PROVED_FOR)
    }
}

/// The recent refusals of the whole engine.
#[derive(Debug, Default)]
pub(in crate::store) struct Refusals(Mutex<Option<Streak>>);

impl Refusals {
    /// Whether enough units were refused for the reason of this error, and the reason may concern all units.
    pub(in crate::store) fn repeat(&self, error: &StoreError) -> bool {
        if speaks_of_values(error) {
            return false;
        }
        let streak = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streak.as_ref().is_some_and(|streak| streak.is_full() && streak.reason == Reason::of(error))
    }

    /// Classifies the error of a unit that was attempted alone, and once more after all others.
    pub(in crate::store) fn judge(&self, error: StoreError) -> StoreError {
        let could_refuse = matches!(error.class(), ErrorClass::Poison | ErrorClass::Unknown);
        if could_refuse && self.repeat(&error) { StoreError::Repeated(Box::new(error)) } else { error }
    }

    /// Notes a refused unit.
    pub(in crate::store) fn refused(&self, error: &StoreError) {
        let reason = Reason::of(error);
        let mut streak = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *streak {
            Some(streak) if streak.reason == reason => {
                streak.refused += 1;
                streak.last = Instant::now();
            }
            streak => *streak = Some(Streak { reason, refused: 1, last: Instant::now(), proved: None }),
        }
    }

    /// Notes a committed transaction that began at `began`.
    pub(in crate::store) fn got_through(&self, began: Instant) {
        let mut streak = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streak) = &mut *streak
            && began > streak.last
        {
            // It proves nothing about reasons that may have arisen after it began.
            streak.proved = streak.is_full().then(Instant::now).or(streak.proved);
            streak.refused = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(refusals: &Refusals, times: u32) {
        for _ in 0..times {
            let error = refusals.judge(StoreError::UnknownLabel("type"));
            assert!(!matches!(error, StoreError::Repeated(_)));
            refusals.refused(&error);
        }
    }

    fn is_repeated(refusals: &Refusals) -> bool {
        matches!(refusals.judge(StoreError::UnknownLabel("type")), StoreError::Repeated(_))
    }

    #[test]
    fn a_refusal_of_twenty_units_in_a_row_is_charged_to_no_unit() {
        let refusals = Refusals::default();
        let before = Instant::now();
        refuse(&refusals, IN_A_ROW_MAX);
        assert!(is_repeated(&refusals));
        let error = refusals.judge(StoreError::UnknownLabel("type"));
        assert_eq!(error.class(), ErrorClass::Configuration);
        // Others have their own classes, whatever was refused.
        assert!(matches!(refusals.judge(StoreError::VanishedRow), StoreError::VanishedRow));
        refusals.got_through(before);
        assert!(is_repeated(&refusals), "that one began before");
    }

    #[test]
    fn a_commit_after_repeated_refusals_charges_the_reason_to_the_units() {
        let refusals = Refusals::default();
        refuse(&refusals, IN_A_ROW_MAX - 1);
        refusals.got_through(Instant::now());
        refuse(&refusals, IN_A_ROW_MAX);
        assert!(is_repeated(&refusals), "that commit came before twenty were refused");
        refusals.got_through(Instant::now());
        refuse(&refusals, 5 * IN_A_ROW_MAX);
        assert!(!is_repeated(&refusals));
    }
}
