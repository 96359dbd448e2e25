//! All counters: for snapshots, and for the metrics recorder that the program installed.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;

use super::distribution::Recorder;
use super::hot_connections::HotConnections;
use super::{Stats, TableStats};
use crate::batch::{LearnedNames, Written};
use crate::label::{ActorKind, Disposition, EpochState, OutcomeKind, Reaction};
use crate::outcome::CommittedRow;
use crate::record::Table;
use crate::telemetry::{engine as metric, sqlstate_label};

/// The totals. No lock is taken per row.
///
/// They are not a part of the table of metrics: a total and a metric of one event differ in shape (an array by label
/// here, a handle for each label there) and in where they may be touched (see
/// [`report_settled`](Counters::report_settled)). A total that is forgotten in [`snapshot`](Counters::snapshot) is an
/// error or a warning of the compiler.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    submitted: AtomicU64,
    committed: AtomicU64,
    rejected: AtomicU64,
    unavailable: AtomicU64,
    /// Locked once per epoch, so that a snapshot contains all rows of an epoch or none.
    tables: Mutex<[TableTotals; 3]>,
    batch_rows: [Recorder; 3],
    epochs: AtomicU64,
    epoch_rows_max: AtomicU64,
    epoch_rows: Recorder,
    epoch_units: Recorder,
    epochs_by_state: [AtomicU64; 2],
    failures: [AtomicU64; 3],
    actor_restarts: [AtomicU64; 5],
    circuit_openings: AtomicU64,
    circuit_open: AtomicBool,
    dead_letters: AtomicU64,
    /// Numbers of known and of unknown names.
    known_names: [AtomicU64; 2],
    rows_in_flight: AtomicU64,
    bytes_in_flight: AtomicU64,
    acknowledgement: Recorder,
    admission_wait: Recorder,
    lane_wait: Recorder,
    pool_wait: Recorder,
    lock_wait: Recorder,
    commit: Recorder,
    /// Microseconds since 1970; 0 before the first.
    last_commit_at: AtomicI64,
    /// Locked once per epoch.
    hot_connections: Mutex<HotConnections>,
}

#[derive(Debug, Clone, Copy, Default)]
struct TableTotals {
    received: u64,
    by_disposition: [u64; 3],
}

impl TableTotals {
    /// Rows as written: coalesced rows count once.
    fn rows(&self) -> u64 {
        self.by_disposition.iter().sum()
    }

    fn add(&mut self, more: &Self) {
        self.received += more.received;
        for (total, more) in self.by_disposition.iter_mut().zip(more.by_disposition) {
            *total += more;
        }
    }
}

/// Counts an epoch as being in its state until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct InState<'a> {
    counters: &'a Counters,
    state: EpochState,
}

impl Drop for InState<'_> {
    fn drop(&mut self) {
        let left = self.counters.epochs_by_state[self.state as usize].fetch_sub(1, Ordering::Relaxed) - 1;
        metric::epochs_in_flight(self.state.as_str()).set(left as f64);
    }
}

fn add(total: &AtomicU64, more: u64) {
    total.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn accepted(&self, rows: usize, bytes: usize) {
        add(&self.submitted, 1);
        let rows = self.rows_in_flight.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        let bytes = self.bytes_in_flight.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        metric::rows_in_flight().set(rows as f64);
        metric::bytes_in_flight().set(bytes as f64);
    }

    /// Counts settled units: their rows, their bytes, their outcomes and the time since each was accepted.
    pub(crate) fn settled(&self, units: impl Iterator<Item = (OutcomeKind, Duration)>, (rows, bytes): (usize, usize)) {
        for (outcome, took) in units {
            self.acknowledgement.record_duration(took);
            match outcome {
                OutcomeKind::Committed => add(&self.committed, 1),
                OutcomeKind::Rejected => add(&self.rejected, 1),
                OutcomeKind::Unavailable => add(&self.unavailable, 1),
            }
        }
        self.rows_in_flight.fetch_sub(rows as u64, Ordering::Relaxed);
        self.bytes_in_flight.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Reports outcomes to the program's recorder. Separate from [`settled`](Self::settled), because a recorder is the
    /// program's code and may panic.
    pub(crate) fn report_settled(&self, units: &(impl Iterator<Item = (OutcomeKind, Duration)> + Clone)) {
        metric::rows_in_flight().set(self.rows_in_flight.load(Ordering::Relaxed) as f64);
        metric::bytes_in_flight().set(self.bytes_in_flight.load(Ordering::Relaxed) as f64);
        for outcome in OutcomeKind::ALL {
            let mut times = units.clone().filter(|(kind, _)| *kind == outcome).peekable();
            if times.peek().is_none() {
                continue;
            }
            let acknowledgement = metric::acknowledgement_seconds(outcome.as_str());
            let count = times.map(|(_, took)| acknowledgement.record(took)).count();
            metric::units(outcome.as_str()).increment(count as u64);
        }
    }

    /// Records how long a unit waited for admission.
    pub(crate) fn admitted(&self, waited: Duration) {
        self.admission_wait.record_duration(waited);
        metric::admission_wait_seconds().record(waited);
    }

    /// Records how long an epoch waited for its lane.
    pub(crate) fn got_lane(&self, waited: Duration) {
        self.lane_wait.record_duration(waited);
        metric::lane_wait_seconds().record(waited);
    }

    /// Records how long a transaction waited for a connection.
    pub(crate) fn got_connection(&self, waited: Duration) {
        self.pool_wait.record_duration(waited);
        metric::pool_wait_seconds().record(waited);
    }

    /// Records how long a transaction waited for locks.
    pub(crate) fn waited_for_locks(&self, waited: Duration) {
        self.lock_wait.record_duration(waited);
        // The program's recorder may panic, while the transaction may be committed and its units not yet told.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| metric::lock_wait_seconds().record(waited)));
    }

    /// Counts an epoch as being in a state until the returned guard is dropped.
    pub(crate) fn epoch_is(&self, state: EpochState) -> InState<'_> {
        let now = self.epochs_by_state[state as usize].fetch_add(1, Ordering::Relaxed) + 1;
        metric::epochs_in_flight(state.as_str()).set(now as f64);
        InState { counters: self, state }
    }

    /// Counts how often units of a committed epoch named each connection: `slots` has its place among `connections` as
    /// often as units named it.
    pub(crate) fn named(&self, slots: &[u32], connections: &[CommittedRow]) {
        let mut named: Vec<_> = connections.iter().map(|row| (0, row.id)).collect();
        for slot in slots {
            named[*slot as usize].0 += 1;
        }
        self.hot_connections.lock().unwrap_or_else(PoisonError::into_inner).absorb(named, Instant::now());
    }

    /// Counts a committed transaction.
    pub(crate) fn epoch_committed(
        &self,
        units: usize,
        received: [(Table, usize); 3],
        written: &Written,
        took: Duration,
    ) {
        let mut by_table = [TableTotals::default(); 3];
        for (table, received) in received {
            by_table[table as usize].received = received as u64;
        }
        for (table, disposition) in &written.dispositions {
            by_table[*table as usize].by_disposition[*disposition as usize] += 1;
        }
        for (totals, epoch) in self.table_totals().iter_mut().zip(&by_table) {
            totals.add(epoch);
        }
        let rows_of_epoch = by_table.iter().map(|epoch| epoch.received).sum();
        for (recorder, epoch) in self.batch_rows.iter().zip(&by_table) {
            recorder.record(epoch.rows());
        }
        let LearnedNames { hits, misses, .. } = written.learned;
        for (total, more) in self.known_names.iter().zip([hits, misses]) {
            add(total, more as u64);
        }
        add(&self.epochs, 1);
        self.epoch_rows.record(rows_of_epoch);
        self.epoch_rows_max.fetch_max(rows_of_epoch, Ordering::Relaxed);
        self.epoch_units.record(units as u64);
        self.commit.record_duration(took);
        let now = chrono::Utc::now();
        self.last_commit_at.store(now.timestamp_micros(), Ordering::Relaxed);
        // The program's recorder may panic or read the statistics: everything is counted by now, and no lock is held.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
            metric::last_commit_timestamp().set(now.timestamp_micros() as f64 / 1e6);
            metric::commit_seconds().record(took);
            metric::epoch_units().record(units as f64);
            metric::known_names("hit").increment(hits as u64);
            metric::known_names("miss").increment(misses as u64);
            for table in Table::ALL {
                report_rows(table, &by_table[table as usize]);
            }
        }));
    }

    fn table_totals(&self) -> MutexGuard<'_, [TableTotals; 3]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failed transaction and the reaction to it.
    pub(crate) fn attempt_failed(&self, reaction: Reaction, sqlstate: Option<&str>) {
        add(&self.failures[reaction as usize], 1);
        metric::retries(sqlstate_label(sqlstate), reaction.as_str()).increment(1);
    }

    pub(crate) fn actor_restarted(&self, actor: ActorKind) {
        add(&self.actor_restarts[actor as usize], 1);
        metric::actor_restarts(actor.as_str()).increment(1);
    }

    /// How often an actor was restarted.
    pub(crate) fn restarts_of(&self, actor: ActorKind) -> u64 {
        self.actor_restarts[actor as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn circuit_opened(&self, sqlstate: Option<&str>) {
        add(&self.circuit_openings, 1);
        self.circuit_open.store(true, Ordering::Relaxed);
        metric::circuit_open().set(1.0);
        metric::circuit_openings(sqlstate_label(sqlstate)).increment(1);
    }

    pub(crate) fn circuit_closed(&self) {
        self.circuit_open.store(false, Ordering::Relaxed);
        metric::circuit_open().set(0.0);
    }

    pub(crate) fn dead_letters_kept(&self, units: usize) {
        add(&self.dead_letters, units as u64);
        metric::dead_letters().increment(units as u64);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let tables = *self.table_totals();
        let table = |table: Table| {
            let TableTotals { received, by_disposition } = tables[table as usize];
            TableStats {
                received,
                inserted: by_disposition[Disposition::Inserted as usize],
                updated: by_disposition[Disposition::Updated as usize],
                unchanged: by_disposition[Disposition::Unchanged as usize],
                batch_rows: self.batch_rows[table as usize].snapshot(),
            }
        };
        Stats {
            units_submitted: get(&self.submitted),
            units_committed: get(&self.committed),
            units_rejected: get(&self.rejected),
            units_unavailable: get(&self.unavailable),
            entities: table(Table::Entities),
            connections: table(Table::Connections),
            mentions: table(Table::Mentions),
            epochs: get(&self.epochs),
            epoch_rows_max: get(&self.epoch_rows_max),
            epoch_rows: self.epoch_rows.snapshot(),
            epoch_units: self.epoch_units.snapshot(),
            epochs_writing: get(&self.epochs_by_state[EpochState::Writing as usize]),
            epochs_waiting: get(&self.epochs_by_state[EpochState::Waiting as usize]),
            failed_attempts: self.failures.iter().map(get).sum(),
            retries: get(&self.failures[Reaction::Retry as usize]),
            splits: get(&self.failures[Reaction::Split as usize]),
            actor_restarts: self.actor_restarts.iter().map(get).sum(),
            circuit_openings: get(&self.circuit_openings),
            circuit_open: self.circuit_open.load(Ordering::Relaxed),
            dead_letters: get(&self.dead_letters),
            known_names_hits: get(&self.known_names[0]),
            known_names_misses: get(&self.known_names[1]),
            rows_in_flight: get(&self.rows_in_flight),
            bytes_in_flight: get(&self.bytes_in_flight),
            acknowledgement: self.acknowledgement.latency(),
            admission_wait: self.admission_wait.latency(),
            lane_wait: self.lane_wait.latency(),
            pool_wait: self.pool_wait.latency(),
            lock_wait: self.lock_wait.latency(),
            commit: self.commit.latency(),
            // Filled in by the store.
            pool: super::PoolStats::default(),
            last_commit_at: Some(self.last_commit_at.load(Ordering::Relaxed))
                .filter(|micros| *micros > 0)
                .and_then(DateTime::from_timestamp_micros),
            hot_connections: self
                .hot_connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .hottest(Instant::now()),
        }
    }
}

/// Reports the metrics of an epoch's rows of one table.
fn report_rows(table: Table, epoch: &TableTotals) {
    let (name, rows) = (table.as_str(), epoch.rows());
    metric::rows_received(name).increment(epoch.received);
    for disposition in Disposition::ALL {
        metric::rows(name, disposition.as_str()).increment(epoch.by_disposition[disposition as usize]);
    }
    metric::batch_rows(name).record(rows as f64);
    metric::rows_coalesced(name).increment(epoch.received.saturating_sub(rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_all_rows_of_an_epoch_or_none() {
        const EPOCHS: u64 = 2_000;
        let counters = Counters::default();
        let epoch = || {
            let received = Table::ALL.map(|table| (table, 3));
            let rows = Table::ALL.map(|table| [(table, Disposition::Inserted), (table, Disposition::Unchanged)]);
            let dispositions = rows.as_flattened().to_vec();
            let written = Written { dispositions, ..Written::default() };
            counters.epoch_committed(1, received, &written, Duration::ZERO);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..EPOCHS).for_each(|_| epoch()));
            let mut seen = 0;
            while seen < EPOCHS {
                let stats = counters.snapshot();
                seen = stats.entities.inserted;
                for table in [&stats.entities, &stats.connections, &stats.mentions] {
                    let counted = [table.received, table.inserted, table.updated, table.unchanged, table.coalesced()];
                    assert_eq!(counted, [3 * seen, seen, 0, seen, seen]);
                }
            }
        });
    }
}
