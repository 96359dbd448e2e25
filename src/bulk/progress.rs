//! The progress of a load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::spill::SpillState;
use crate::record::Table;

/// The phase of a load.
///
/// ```
/// use graphsink::BulkPhase;
///
/// assert_eq!(BulkPhase::Building.as_str(), "building");
/// assert!(BulkPhase::Reading < BulkPhase::Writing, "in this order");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BulkPhase {
    /// Accepts units, sorts and spills them.
    Reading,
    /// Sorts the remaining data, and finds the units to be rejected for their claims of Google ids.
    Sorting,
    /// Determines where rows are written. If in the tables themselves: waits for their readers, and drops keys and
    /// indexes.
    Preparing,
    /// Writes rows.
    Writing,
    /// Builds keys and indexes, gathers statistics, and checks foreign keys.
    Building,
    /// If rows were written to new tables: waits for readers of the empty ones, replaces these, and checks foreign keys
    /// to and from other tables.
    Replacing,
    /// Commits.
    Committing,
    /// Has ended.
    Ended,
}

impl BulkPhase {
    /// Its name.
    ///
    /// ```
    /// assert_eq!(graphsink::BulkPhase::Reading.as_str(), "reading");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Sorting => "sorting",
            Self::Preparing => "preparing",
            Self::Writing => "writing",
            Self::Building => "building",
            Self::Replacing => "replacing",
            Self::Committing => "committing",
            Self::Ended => "ended",
        }
    }
}

/// The progress of a [`BulkLoad`](crate::BulkLoad). The numbers are read one by one, not under a lock.
///
/// ```no_run
/// # fn show(load: &graphsink::BulkLoad) {
/// let progress = load.progress();
/// let left = progress.remaining().map_or_else(String::new, |left| format!(", {} s left of it", left.as_secs()));
/// println!("{} {} ({} of {}){left}", progress.phase.as_str(), progress.step, progress.done, progress.total);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkProgress {
    /// The current phase.
    pub phase: BulkPhase,
    /// Time since the phase began.
    pub elapsed: Duration,
    /// The current step: the table being written, the index being built, the sessions being waited for. May be empty.
    pub step: String,
    /// Completed part of the phase: records while rows are written, steps while keys are built, otherwise 0.
    pub done: u64,
    /// Total work of the phase; 0 if unknown.
    pub total: u64,
    /// Units accepted.
    pub units: u64,
    /// Units rejected so far.
    pub rejected: u64,
    /// Rows of all tables, as submitted.
    pub rows_received: u64,
    /// Rows of all tables that were sent to the server.
    pub rows_written: u64,
    /// Bytes spilled so far.
    pub spilled_bytes: u64,
}

impl BulkProgress {
    /// Estimated time for the rest of the phase at its pace so far, if known.
    ///
    /// ```no_run
    /// # fn show(load: &graphsink::BulkLoad) {
    /// if let Some(left) = load.progress().remaining() {
    ///     println!("{} s", left.as_secs());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        (self.total > 0 && self.done > 0).then(|| self.elapsed.mul_f64(left as f64 / self.done as f64))
    }
}

/// The counters of a load.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) units: AtomicU64,
    pub(super) rejected: AtomicU64,
    /// Rows as submitted, by table.
    pub(super) received: [AtomicU64; 3],
    /// Rows as sent to the server, by table.
    pub(super) written: [Arc<AtomicU64>; 3],
    /// Records that were merged.
    pub(super) merged: Arc<AtomicU64>,
    pub(super) to_merge: AtomicU64,
    spilled: Arc<SpillState>,
    phases: Mutex<Phases>,
}

/// Phases with their start times.
#[derive(Debug)]
struct Phases {
    now: BulkPhase,
    since: Instant,
    step: String,
    steps_done: u64,
    steps: u64,
    past: Vec<(BulkPhase, Duration)>,
}

impl Counters {
    pub(super) fn new(spilled: Arc<SpillState>) -> Self {
        let phases = Phases {
            now: BulkPhase::Reading,
            since: Instant::now(),
            step: String::new(),
            steps_done: 0,
            steps: 0,
            past: Vec::new(),
        };
        Self {
            units: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            received: Default::default(),
            written: Default::default(),
            merged: Arc::default(),
            to_merge: AtomicU64::new(0),
            spilled,
            phases: Mutex::new(phases),
        }
    }

    fn phases(&self) -> MutexGuard<'_, Phases> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next phase.
    pub(super) fn enter(&self, phase: BulkPhase) {
        let mut phases = self.phases();
        let (before, took) = (phases.now, phases.since.elapsed());
        if before == phase {
            return;
        }
        tracing::info!(phase = phase.as_str(), before = before.as_str(), took_s = took.as_secs_f64(), "bulk load");
        phases.past.push((before, took));
        (phases.now, phases.since) = (phase, Instant::now());
        phases.step.clear();
        (phases.steps_done, phases.steps) = (0, 0);
    }

    /// Begins a step of the phase.
    pub(super) fn step(&self, step: String, done: usize, of: usize) {
        let mut phases = self.phases();
        (phases.step, phases.steps_done, phases.steps) = (step, done as u64, of as u64);
    }

    /// The time of each past phase, without the current one.
    pub(super) fn past(&self) -> Vec<(BulkPhase, Duration)> {
        self.phases().past.clone()
    }

    pub(super) fn received(&self, table: Table) -> u64 {
        self.received[table as usize].load(Ordering::Relaxed)
    }

    pub(super) fn written(&self, table: Table) -> u64 {
        self.written[table as usize].load(Ordering::Relaxed)
    }

    pub(super) fn spilled_bytes(&self) -> u64 {
        self.spilled.bytes_written()
    }

    pub(super) fn progress(&self) -> BulkProgress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let phases = self.phases();
        let (done, total) = match phases.now {
            BulkPhase::Writing => (read(&self.merged), read(&self.to_merge)),
            _ => (phases.steps_done, phases.steps),
        };
        BulkProgress {
            phase: phases.now,
            elapsed: phases.since.elapsed(),
            step: phases.step.clone(),
            done,
            total,
            units: read(&self.units),
            rejected: read(&self.rejected),
            rows_received: Table::ALL.map(|table| self.received(table)).iter().sum(),
            rows_written: Table::ALL.map(|table| self.written(table)).iter().sum(),
            spilled_bytes: self.spilled_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_is_timed_and_begins_without_a_step() {
        let counters = Counters::new(Arc::default());
        counters.to_merge.store(10, Ordering::Relaxed);
        assert_eq!((counters.progress().phase, counters.progress().total), (BulkPhase::Reading, 0));
        counters.enter(BulkPhase::Writing);
        counters.enter(BulkPhase::Writing);
        counters.step("mentions".to_owned(), 0, 0);
        counters.merged.store(4, Ordering::Relaxed);
        let progress = counters.progress();
        assert_eq!((&*progress.step, progress.done, progress.total), ("mentions", 4, 10));
        counters.enter(BulkPhase::Building);
        let progress = counters.progress();
        assert_eq!((&*progress.step, progress.done, progress.total, progress.remaining()), ("", 0, 0, None));
        counters.step("index a".to_owned(), 1, 4);
        assert_eq!((counters.progress().done, counters.progress().total), (1, 4));
        let past: Vec<BulkPhase> = counters.past().iter().map(|(phase, _)| *phase).collect();
        assert_eq!(past, [BulkPhase::Reading, BulkPhase::Writing]);
    }

    #[test]
    fn the_remaining_time_follows_from_the_pace() {
        let counters = Counters::new(Arc::default());
        let progress = BulkProgress { elapsed: Duration::from_secs(3), done: 1, total: 4, ..counters.progress() };
        assert_eq!(progress.remaining(), Some(Duration::from_secs(9)));
        assert_eq!(BulkProgress { done: 0, ..progress }.remaining(), None);
    }
}
