//! Statistics of an engine: totals and distributions, as a snapshot at any time and for the program's metrics.
//!
//! `counters` has all counters: atomic additions, one per unit for units and one per epoch for rows. `distribution`
//! keeps latencies and sizes, `hot_connections` the connections that are named most.

mod counters;
mod distribution;
mod hot_connections;

use serde::{Deserialize, Serialize};

pub(crate) use counters::Counters;
pub use distribution::{Distribution, Latency};
pub use hot_connections::HotConnection;

use crate::record::Timestamp;
use crate::telemetry;

/// An engine's totals since its start, and its state now. Implements serde's traits, so that a program can publish it
/// as JSON: see [`Engine::stats`](crate::Engine::stats).
///
/// The numbers are read one by one, not under a lock, so they may be inconsistent by the events that occur during the
/// read.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let stats = engine.stats();
/// println!("{} of {} units committed", stats.units_committed, stats.units_submitted);
/// println!("p99 {:?}", stats.acknowledgement.quantile(0.99));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Rows, as received, of committed transactions.
    pub epoch_rows: Distribution,
    /// Units of committed transactions.
    pub epoch_units: Distribution,
    /// Epochs that a transaction is writing now.
    pub epochs_writing: u64,
    /// Sealed epochs that are waiting for a free lane now.
    pub epochs_waiting: u64,
    /// Transactions of units or merges that failed and were retried, split, or ended in a rejection.
    pub failed_attempts: u64,
    /// The failed transactions that were retried unchanged.
    pub retries: u64,
    /// The failed transactions that were split into halves.
    pub splits: u64,
    /// Actors that died and were restarted.
    pub actor_restarts: u64,
    /// How often the circuit breaker opened: the database could not be used, and all units had to wait.
    pub circuit_openings: u64,
    /// Whether the circuit breaker is open now.
    pub circuit_open: bool,
    /// Rejected units that were kept in `graphsink_dead_letters`.
    pub dead_letters: u64,
    /// Names of entities in committed transactions that were known from earlier ones, together with all facts stated
    /// about them.
    pub known_names_hits: u64,
    /// Names that were looked up or inserted.
    pub known_names_misses: u64,
    /// Rows accepted and not yet answered, now.
    pub rows_in_flight: u64,
    /// Bytes accepted and not yet answered, now.
    pub bytes_in_flight: u64,
    /// Units: time from acceptance to outcome, whatever the outcome.
    pub acknowledgement: Latency,
    /// Units: time that `submit` waited for admission.
    pub admission_wait: Latency,
    /// Epochs: time that sealed epochs waited for their lane.
    pub lane_wait: Latency,
    /// Transactions: time that they waited for a connection.
    pub pool_wait: Latency,
    /// Transactions of units, merges and refreshes, committed or not: time that they waited for locks of other
    /// sessions, which is mostly zero. It is measured on the server; waits of less than about 20 ms may be missed.
    pub lock_wait: Latency,
    /// Committed transactions: time from getting the connection to the commit, both included.
    pub commit: Latency,
    /// The state of the connection pool now.
    pub pool: PoolStats,
    /// When the last transaction was committed.
    pub last_commit_at: Option<Timestamp>,
    /// The connections that units named most often recently: at most ten, hottest first. An estimate.
    pub hot_connections: Vec<HotConnection>,
}

impl Stats {
    /// Units accepted and not yet answered.
    ///
    /// ```
    /// assert_eq!(graphsink::Stats::default().units_in_flight(), 0);
    /// ```
    #[must_use]
    pub const fn units_in_flight(&self) -> u64 {
        self.units_submitted.saturating_sub(self.units_committed + self.units_rejected + self.units_unavailable)
    }
}

/// Totals of one table in committed transactions.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let mentions = engine.stats().mentions;
/// println!("{} new, {} newer, {} known", mentions.inserted, mentions.updated, mentions.unchanged);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableStats {
    /// Rows as submitted.
    pub received: u64,
    /// Rows of the database that were inserted.
    pub inserted: u64,
    /// Rows of the database that were updated.
    pub updated: u64,
    /// Rows of the database that already had these values.
    pub unchanged: u64,
    /// Coalesced rows of each batch.
    pub batch_rows: Distribution,
}

impl TableStats {
    /// Number of rows saved by coalescing.
    ///
    /// ```
    /// assert_eq!(graphsink::TableStats::default().coalesced(), 0);
    /// ```
    #[must_use]
    pub const fn coalesced(&self) -> u64 {
        self.received.saturating_sub(self.inserted + self.updated + self.unchanged)
    }
}

/// State of the connection pool.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let pool = engine.stats().pool;
/// println!("{} of {} connections are in use", pool.in_use(), pool.max);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolStats {
    /// Open sessions.
    pub open: u32,
    /// Open sessions that are not in use.
    pub idle: u32,
    /// Maximum number of open sessions.
    pub max: u32,
}

impl PoolStats {
    /// Open sessions that are in use.
    ///
    /// ```
    /// assert_eq!(graphsink::PoolStats::default().in_use(), 0);
    /// ```
    #[must_use]
    pub const fn in_use(&self) -> u32 {
        self.open.saturating_sub(self.idle)
    }

    /// Reports the figures to the program's recorder.
    pub(crate) fn report(self) {
        for (state, connections) in [("open", self.open), ("idle", self.idle), ("max", self.max)] {
            telemetry::engine::pool_connections(state).set(f64::from(connections));
        }
    }
}
