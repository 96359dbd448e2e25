//! Running totals of an engine: for a snapshot at any time, and for the program's metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use serde::Serialize;

use crate::outcome::{Disposition, Outcome};
use crate::record::Table;
use crate::telemetry;

/// Totals since the engine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Units accepted.
    pub units_submitted: u64,
    /// Units committed.
    pub units_committed: u64,
    /// Units rejected by the database.
    pub units_rejected: u64,
    /// Units whose outcome could not be established.
    pub units_unavailable: u64,
    /// Rows of `entities`.
    pub entities: TableStats,
    /// Rows of `connections`.
    pub connections: TableStats,
    /// Rows of `mentions`.
    pub mentions: TableStats,
    /// Transactions committed.
    pub epochs: u64,
    /// Rows, as received, of the largest committed transaction.
    pub epoch_rows_max: u64,
    /// Transactions that failed and were tried again, split, or ended in a rejection.
    pub failed_attempts: u64,
    /// Actors that died and were started again.
    pub actor_restarts: u64,
    /// How often the database as a whole could not be used, so that everybody had to wait.
    pub circuit_openings: u64,
    /// Whether that is so now.
    pub circuit_open: bool,
    /// Rejected units that were kept in `graphsink_dead_letters`.
    pub dead_letters: u64,
    /// Rows accepted and not yet answered, now.
    pub rows_in_flight: u64,
    /// Bytes accepted and not yet answered, now.
    pub bytes_in_flight: u64,
}

/// Totals of one table, of committed transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TableStats {
    /// Rows as submitted.
    pub received: u64,
    /// Rows of the database that were inserted.
    pub inserted: u64,
    /// Rows of the database that were updated.
    pub updated: u64,
    /// Rows of the database that said all this already.
    pub unchanged: u64,
}

impl TableStats {
    /// Rows that coalescing saved.
    #[must_use]
    pub const fn coalesced(&self) -> u64 {
        self.received.saturating_sub(self.inserted + self.updated + self.unchanged)
    }
}

/// An outcome without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Committed,
    Rejected,
    Unavailable,
}

impl OutcomeKind {
    pub(crate) const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Committed(_) => Self::Committed,
            Outcome::Rejected(_) => Self::Rejected,
            Outcome::Unavailable(_) => Self::Unavailable,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The totals, kept without locks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    submitted: AtomicU64,
    committed: AtomicU64,
    rejected: AtomicU64,
    unavailable: AtomicU64,
    tables: [TableCounters; 3],
    epochs: AtomicU64,
    epoch_rows_max: AtomicU64,
    failed_attempts: AtomicU64,
    actor_restarts: AtomicU64,
    circuit_openings: AtomicU64,
    circuit_open: AtomicBool,
    dead_letters: AtomicU64,
    rows_in_flight: AtomicU64,
    bytes_in_flight: AtomicU64,
}

#[derive(Debug, Default)]
struct TableCounters {
    received: AtomicU64,
    by_disposition: [AtomicU64; 3],
}

fn add(total: &AtomicU64, more: u64) {
    total.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn accepted(&self, rows: usize, bytes: usize) {
        add(&self.submitted, 1);
        let rows = self.rows_in_flight.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        let bytes = self.bytes_in_flight.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        gauge!(telemetry::ROWS_IN_FLIGHT).set(rows as f64);
        gauge!(telemetry::BYTES_IN_FLIGHT).set(bytes as f64);
    }

    /// A unit that took up so many rows and bytes has its outcome.
    pub(crate) fn settled(&self, outcome: OutcomeKind, (rows, bytes): (usize, usize)) {
        match outcome {
            OutcomeKind::Committed => add(&self.committed, 1),
            OutcomeKind::Rejected => add(&self.rejected, 1),
            OutcomeKind::Unavailable => add(&self.unavailable, 1),
        }
        self.rows_in_flight.fetch_sub(rows as u64, Ordering::Relaxed);
        self.bytes_in_flight.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Tells the program's recorder of a unit's outcome. Apart from [`settled`](Self::settled),
    /// because a recorder is the program's code, and may panic.
    pub(crate) fn report_settled(&self, outcome: OutcomeKind, took: Duration) {
        gauge!(telemetry::ROWS_IN_FLIGHT).set(self.rows_in_flight.load(Ordering::Relaxed) as f64);
        gauge!(telemetry::BYTES_IN_FLIGHT).set(self.bytes_in_flight.load(Ordering::Relaxed) as f64);
        counter!(telemetry::UNITS, "outcome" => outcome.as_str()).increment(1);
        histogram!(telemetry::ACKNOWLEDGEMENT_SECONDS, "outcome" => outcome.as_str()).record(took);
    }

    /// A transaction was committed.
    pub(crate) fn epoch_committed(
        &self,
        units: usize,
        received: [(Table, usize); 3],
        dispositions: &[(Table, Disposition)],
        took: Duration,
    ) {
        add(&self.epochs, 1);
        histogram!(telemetry::COMMIT_SECONDS).record(took);
        histogram!(telemetry::EPOCH_UNITS).record(units as f64);
        let mut rows_of_epoch = 0;
        for (table, received) in received {
            let totals = &self.tables[table as usize];
            add(&totals.received, received as u64);
            counter!(telemetry::ROWS_RECEIVED, "table" => table.as_str()).increment(received as u64);
            rows_of_epoch += received as u64;
            let mut batch_rows = 0;
            for disposition in Disposition::ALL {
                let rows = dispositions.iter().filter(|row| **row == (table, disposition)).count() as u64;
                add(&totals.by_disposition[disposition as usize], rows);
                counter!(telemetry::ROWS, "table" => table.as_str(), "disposition" => disposition.as_str())
                    .increment(rows);
                batch_rows += rows;
            }
            histogram!(telemetry::BATCH_ROWS, "table" => table.as_str()).record(batch_rows as f64);
            counter!(telemetry::ROWS_COALESCED, "table" => table.as_str())
                .increment((received as u64).saturating_sub(batch_rows));
        }
        self.epoch_rows_max.fetch_max(rows_of_epoch, Ordering::Relaxed);
    }

    pub(crate) fn attempt_failed(&self) {
        add(&self.failed_attempts, 1);
    }

    pub(crate) fn actor_restarted(&self, actor: &'static str) {
        add(&self.actor_restarts, 1);
        telemetry::actor_restarted(actor);
    }

    pub(crate) fn circuit_opened(&self, sqlstate: Option<&str>) {
        add(&self.circuit_openings, 1);
        self.circuit_open.store(true, Ordering::Relaxed);
        telemetry::circuit_opened(sqlstate);
    }

    pub(crate) fn circuit_closed(&self) {
        self.circuit_open.store(false, Ordering::Relaxed);
        telemetry::circuit_closed();
    }

    pub(crate) fn dead_letters_kept(&self, units: usize) {
        add(&self.dead_letters, units as u64);
        telemetry::dead_letters_kept(units);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let table = |table: Table| {
            let totals = &self.tables[table as usize];
            TableStats {
                received: get(&totals.received),
                inserted: get(&totals.by_disposition[Disposition::Inserted as usize]),
                updated: get(&totals.by_disposition[Disposition::Updated as usize]),
                unchanged: get(&totals.by_disposition[Disposition::Unchanged as usize]),
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
            failed_attempts: get(&self.failed_attempts),
            actor_restarts: get(&self.actor_restarts),
            circuit_openings: get(&self.circuit_openings),
            circuit_open: self.circuit_open.load(Ordering::Relaxed),
            dead_letters: get(&self.dead_letters),
            rows_in_flight: get(&self.rows_in_flight),
            bytes_in_flight: get(&self.bytes_in_flight),
        }
    }
}
