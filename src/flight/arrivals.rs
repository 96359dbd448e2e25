//! Units on their way to the supervisor: stored side by side, and announced together.
//!
//! While a lane is free the supervisor awaits each unit. Otherwise no unit is urgent: the supervisor is notified when so
//! many have arrived that they are worth a message, and looks for them when a lane becomes free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Submission;
use crate::unit::{PreparedUnit, PreparedUnits};

/// Number of rows that are stored together, and worth a message to the supervisor although no lane is free. Few in unit
/// tests.
const ROWS_TOGETHER: usize = if cfg!(test) { 6 } else { 1_024 };

/// Number of stores whose memory is kept for later units.
const SPARE_MAX: usize = 4;

/// Bytes of the texts of a store whose memory is worth keeping: several times as many as its rows usually have.
const USUAL_TEXT: usize = 1 << 20;

/// Accepted units that no supervisor has taken yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    submissions: Vec<Arc<Submission>>,
    /// Their units: stores that are full, and the last one.
    full: Vec<PreparedUnits>,
    last: PreparedUnits,
    /// Memory for later units.
    spare: Vec<PreparedUnits>,
    /// Whether the supervisor awaits each unit.
    are_awaited: bool,
    /// Whether the supervisor has been notified of these units.
    are_announced: bool,
}

impl Waiting {
    /// Ends the last store, and begins another.
    fn end_last(&mut self) {
        if self.last.is_empty() {
            return;
        }
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| if is_usual(&self.last) { self.last.room_again() } else { PreparedUnits::default() });
        self.full.push(std::mem::replace(&mut self.last, next));
    }
}

/// Whether a store has enough units.
fn is_full(units: &PreparedUnits) -> bool {
    units.rows() >= ROWS_TOGETHER || units.text_bytes() > USUAL_TEXT
}

/// Whether a store is not much larger than most.
fn is_usual(units: &PreparedUnits) -> bool {
    units.rows() <= 2 * ROWS_TOGETHER && units.text_bytes() <= USUAL_TEXT
}

impl Arrivals {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a unit; returns true if the supervisor must be notified.
    pub(super) fn push(&self, unit: PreparedUnit, submission: Arc<Submission>) -> bool {
        let unit = unit.into_store();
        let mut waiting = self.waiting();
        waiting.submissions.push(submission);
        if is_full(&unit) {
            // It is a full store by itself, and is not copied while others wait.
            waiting.end_last();
            waiting.full.push(unit);
        } else {
            waiting.last.add(&unit);
            if is_full(&waiting.last) {
                waiting.end_last();
            }
        }
        let is_due = waiting.are_awaited || !waiting.full.is_empty();
        is_due && !std::mem::replace(&mut waiting.are_announced, true)
    }

    /// Takes all units, in the order of their arrival. From now on each can be routed.
    pub(super) fn take(&self) -> Vec<Arc<Submission>> {
        let mut waiting = self.waiting();
        waiting.end_last();
        let (submissions, full) = (std::mem::take(&mut waiting.submissions), std::mem::take(&mut waiting.full));
        waiting.are_announced = false;
        drop(waiting);
        let units = full.into_iter().flat_map(PreparedUnits::share);
        for (submission, unit) in submissions.iter().zip(units) {
            submission.stored(unit);
        }
        submissions
    }

    /// Keeps the memory of units that have been stored elsewhere, unless it is unusually large.
    pub(super) fn recycle(&self, mut units: PreparedUnits) {
        if !is_usual(&units) {
            return;
        }
        units.clear();
        let mut waiting = self.waiting();
        if waiting.spare.len() < SPARE_MAX {
            waiting.spare.push(units);
        }
    }

    /// Sets whether each unit is awaited. Returns true if so and some have arrived already: the supervisor must be
    /// notified of them.
    pub(super) fn set_awaited(&self, are_awaited: bool) -> bool {
        let mut waiting = self.waiting();
        waiting.are_awaited = are_awaited;
        let are_due = are_awaited && !waiting.submissions.is_empty();
        are_due && !std::mem::replace(&mut waiting.are_announced, true)
    }
}

#[cfg(test)]
mod tests {
    use crate::flight::{Accepted, InFlight};
    use crate::unit::UnitOfWork;

    use super::super::tests::room;
    use super::*;

    /// Accepts a unit of so many rows; whether the supervisor must be notified.
    fn accept(in_flight: &InFlight, rows: usize) -> bool {
        accept_named(in_flight, rows, "dish")
    }

    fn accept_named(in_flight: &InFlight, rows: usize, name: &str) -> bool {
        let mut unit = UnitOfWork::new();
        for row in 0..rows {
            unit.dish(format!("{name} {row}"));
        }
        let Accepted { must_tell, .. } = in_flight.accept(unit, room()).unwrap();
        must_tell
    }

    #[test]
    fn units_are_announced_when_they_are_awaited_or_many() {
        let in_flight = InFlight::new(Arc::default());
        assert_eq!(
            [1, ROWS_TOGETHER - 2, 1, 1, ROWS_TOGETHER].map(|rows| accept(&in_flight, rows)),
            [false, false, true, false, false]
        );
        let arrived = in_flight.take_arrivals();
        let rows: Vec<usize> = arrived.iter().map(|submission| submission.unit().get().rows()).collect();
        assert_eq!(rows, [1, ROWS_TOGETHER - 2, 1, 1, ROWS_TOGETHER], "in the order of their arrival");
        assert!(!in_flight.await_arrivals(true), "none is waiting");
        assert_eq!([0, 1].map(|rows| accept(&in_flight, rows)), [true, false], "the first of them is announced");
        assert!(!in_flight.await_arrivals(true), "they have been announced");
        assert_eq!(in_flight.take_arrivals().len(), 2, "a unit without rows is one of them");
        assert!(!in_flight.await_arrivals(false) && !accept(&in_flight, 1));
        assert!(in_flight.await_arrivals(true) && !in_flight.await_arrivals(true) && !in_flight.await_arrivals(false));
        assert_eq!(in_flight.take_arrivals().len(), 1);
        assert!(in_flight.take_arrivals().is_empty());
        assert!(!accept(&in_flight, 1), "units are not awaited any more");
    }

    #[test]
    fn a_store_with_long_texts_is_full() {
        let in_flight = InFlight::new(Arc::default());
        let long = "x".repeat(USUAL_TEXT / 2);
        assert_eq!([1; 4].map(|rows| accept_named(&in_flight, rows, &long)), [false, true, false, false]);
        let stores = in_flight.arrivals.waiting().full.len();
        assert_eq!((stores, in_flight.take_arrivals().len()), (2, 4));
    }

    #[test]
    fn memory_of_units_that_were_gathered_is_used_again() {
        let in_flight = InFlight::new(Arc::default());
        let spare = || in_flight.arrivals.waiting().spare.len();
        for _ in 0..3 {
            accept(&in_flight, ROWS_TOGETHER / 2);
        }
        let arrived = in_flight.take_arrivals();
        let gather = |range: std::ops::Range<usize>| in_flight.gather(arrived[range].iter().map(|unit| &**unit));
        assert_eq!((gather(0..1).len(), spare()), (1, 0), "another unit is still stored there");
        assert_eq!((gather(0..2).len(), spare()), (2, 1));
        accept(&in_flight, 1);
        assert_eq!((in_flight.take_arrivals().len(), spare()), (1, 0));
        for (rows, name) in [(3 * ROWS_TOGETHER, "dish"), (ROWS_TOGETHER, &"x".repeat(USUAL_TEXT))] {
            for _ in 0..2 {
                accept_named(&in_flight, rows, name);
            }
            let large = in_flight.take_arrivals();
            in_flight.gather(large.iter().map(|unit| &**unit));
            assert_eq!(spare(), 0, "more than usual: {rows} rows");
        }
    }
}
