//! Whether what is refused alone is refused for a reason of its own.
//!
//! An error's code, table and constraint say much about whose fault it is, but not all: a trigger that refuses every row
//! names none. So refusals are counted: where one unit after another is refused for the same reason and nothing gets
//! through in between, the next ones are held back until all others were attempted. If nothing got through then either, the
//! reason is taken to be none of theirs ([`StoreError::Repeated`]), and the line stops. A transaction that gets through
//! proves the opposite, and units are refused again as they come.
//!
//! What certainly is about a row's own values, such as a constraint of the migrations, never stops the line.
//!
//! The price: where two epochs, one a lane, hold nothing but units that are refused for one reason, what is behind them
//! waits until its deadline, and those units are `Unavailable` then, not rejected.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{ErrorClass, StoreError, is_own_constraint};

/// So many in a row are refused for one reason.
const IN_A_ROW_MAX: u32 = 20;
/// How long it stays proved that a reason is the units' own.
const PROVED_FOR: Duration = Duration::from_mins(1);

/// What errors have in common that have one reason. The message is none of it: it quotes values.
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

/// Whether an error is certainly about a row's own values, however often it comes: a constraint of the migrations, data that
/// its column cannot hold, or too much of it.
fn speaks_of_values(error: &StoreError) -> bool {
    let constraint = error.db().and_then(|error| error.constraint());
    constraint.is_some_and(is_own_constraint)
        || error.sqlstate().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
}

#[derive(Debug)]
struct Streak {
    reason: Reason,
    refused: u32,
    /// When the last of them was refused.
    last: Instant,
    /// When something got through in spite of it.
    proved: Option<Instant>,
}

impl Streak {
    fn is_full(&self) -> bool {
        self.refused >= IN_A_ROW_MAX && self.proved.is_none_or(|proved| proved.elapsed() > PROVED_FOR)
    }
}

/// The last refusals, of the whole engine.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<Streak>>);

impl Refusals {
    /// Whether enough units were refused for the reason of this error, and the reason may be none of theirs.
    pub(super) fn repeat(&self, error: &StoreError) -> bool {
        if speaks_of_values(error) {
            return false;
        }
        let streak = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streak.as_ref().is_some_and(|streak| streak.is_full() && streak.reason == Reason::of(error))
    }

    /// What the error of a unit turns out to be that was attempted alone, and once more after all others.
    pub(super) fn judge(&self, error: StoreError) -> StoreError {
        let could_refuse = matches!(error.class(), ErrorClass::Poison | ErrorClass::Unknown);
        if could_refuse && self.repeat(&error) { StoreError::Repeated(Box::new(error)) } else { error }
    }

    /// A unit was refused.
    pub(super) fn refused(&self, error: &StoreError) {
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

    /// A transaction that began then was committed.
    pub(super) fn got_through(&self, began: Instant) {
        let mut streak = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streak) = &mut *streak
            && began > streak.last
        {
            // It says nothing of reasons that may have come up only after it began.
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
    fn what_is_refused_again_and_again_is_no_units_fault() {
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
    fn what_gets_through_proves_the_reason_to_be_the_units_own() {
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
