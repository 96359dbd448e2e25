//! Effects: what the engine does to PostgreSQL.
//!
//! Knows records, units and epochs; knows nothing of actors. A row's way: [`commit`] has groups of units attempted and
//! splits them, as [`retry`] says, [`attempt`] runs one transaction, [`transaction`] writes an epoch in it, [`ending`]
//! commits it, [`fence`] finds out whether a commit without an answer took place, [`circuit`] stops the line while the
//! database cannot be used, [`dead_letter`] keeps what was refused, [`fold`] makes one entity of two, [`statement`] holds
//! all other SQL, [`timeline`] remembers what a transaction's statements took.

mod attempt;
mod backoff;
mod blackhole;
mod check;
mod circuit;
mod commit;
mod dead_letter;
mod ending;
mod error;
mod fence;
mod fold;
mod history_indexes;
mod migrate;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod plans;
mod pool;
mod prepared;
mod refresh;
mod refusals;
mod retry;
mod session;
mod shape;
mod statement;
mod table;
mod time;
mod timeline;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bb8::PooledConnection;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::batch::{Epoch, KnownNames};
use crate::config::{AsOf, Config};
use crate::stats::{Counters, PoolStats};

pub(crate) use blackhole::Blackhole;
use circuit::Circuit;
pub(crate) use commit::EpochObserver;
pub(crate) use dead_letter::DeadLetter;
pub use error::StoreError;
pub use migrate::{MigrationReport, Migrations};
pub(crate) use pool::Connector;
#[cfg(not(feature = "resolver"))]
use pool::SessionPool;
#[cfg(feature = "resolver")]
pub(crate) use pool::SessionPool;
#[cfg(feature = "resolver")]
pub(crate) use prepared::{Prepared, StatementNames};
pub use refresh::RefreshReport;
use refusals::Refusals;
use session::{Session, SessionManager};
pub use shape::UnfitTable;
#[cfg(feature = "resolver")]
pub(crate) use statement::quote_identifier;

/// A pool of connections, and what every transaction needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: SessionPool<SessionManager>,
    connections_max: u32,
    circuit: Arc<Circuit>,
    refusals: Arc<Refusals>,
    counters: Arc<Counters>,
    begin: Arc<str>,
    /// The schema's name, as a value.
    schema_name: Arc<str>,
    /// Whether rows may be copied, which row-level security forbids.
    copies: Arc<AtomicBool>,
    /// Rows inserted so far, for the age of plans.
    rows_written: Arc<AtomicU64>,
    /// One refresh at a time: commits need the connections.
    refreshing: Arc<Semaphore>,
    known_names: Arc<KnownNames>,
    as_of: AsOf,
    /// Whether refused units are kept in the database.
    dead_letters: bool,
    statement_timeout: Duration,
    connect_timeout: Duration,
    /// A transaction that takes longer is logged with what its statements took.
    slow_transaction: Duration,
}

/// What a statement may take beyond its `statement_timeout` before the server counts as silent.
const NETWORK: Duration = Duration::from_secs(1);

/// How long the server may keep silent: every statement ends at its timeout. The server's idle-in-transaction
/// timeout is set to the same value.
fn silence(statement_timeout: Duration) -> Duration {
    statement_timeout + NETWORK
}

/// Waits for an answer, but no longer than `patience`.
async fn answer<T>(patience: Duration, answer: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(patience, answer).await.map_err(|_| StoreError::NoAnswer(patience))
}

/// Where epochs are written.
#[derive(Debug)]
pub(crate) enum Destination {
    Database(Store),
    /// Nowhere.
    Blackhole(Blackhole),
}

impl Destination {
    /// Commits an epoch, or what is good of it, and tells `observer` the outcome of each unit.
    pub(crate) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        match self {
            Self::Database(store) => store.commit(epoch, deadline, observer).await,
            Self::Blackhole(blackhole) => blackhole.commit(epoch, observer).await,
        }
    }
}

impl Store {
    /// Connects lazily; call it on the runtime that is to drive the connections.
    pub(crate) async fn new(config: &Config, counters: &Arc<Counters>) -> Result<Self, StoreError> {
        let schema: Arc<str> = statement::quote_identifier(&config.schema).into();
        let manager = SessionManager::new(Connector::new(config), config.tls.clone(), schema);
        let timeouts = [config.statement_timeout, config.lock_timeout, silence(config.statement_timeout)]
            .map(|timeout| timeout.as_millis());
        let [statement_timeout, lock_timeout, idle_timeout] = timeouts;
        // One for each commit slot, one to resolve a lost commit, one for refreshes.
        let connections_max = config.in_flight_commits as u32 + 2;
        let pool = SessionPool::new(manager, connections_max, config.connect_timeout).await?;
        Ok(Self {
            pool,
            connections_max,
            circuit: Arc::new(Circuit::new(Arc::clone(counters))),
            refusals: Arc::default(),
            counters: Arc::clone(counters),
            begin: statement::begin(statement_timeout, lock_timeout, idle_timeout).into(),
            schema_name: config.schema.as_str().into(),
            copies: Arc::new(AtomicBool::new(true)),
            rows_written: Arc::default(),
            refreshing: Arc::new(Semaphore::new(1)),
            known_names: Arc::new(KnownNames::new(config.known_names_max)),
            as_of: config.as_of,
            dead_letters: config.dead_letters,
            statement_timeout: config.statement_timeout,
            connect_timeout: config.connect_timeout,
            slow_transaction: config.slow_transaction,
        })
    }

    /// See [`silence`].
    fn silence(&self) -> Duration {
        silence(self.statement_timeout)
    }

    /// What opens a transaction on this session.
    fn begin(&self, session: &mut Session) -> Arc<str> {
        if !session.has_named_statements() {
            // What another client prepared on this session, before it got here, may have the driver's names.
            return format!("{}; deallocate all", self.begin).into();
        }
        if session.plans_are_stale(self.rows_written.load(Ordering::Relaxed)) {
            // Behind `begin`: before it, it would take a snapshot, after which the isolation level can no longer be set.
            return format!("{}; discard plans", self.begin).into();
        }
        Arc::clone(&self.begin)
    }

    async fn session(&self) -> Result<PooledConnection<'_, SessionManager>, StoreError> {
        let start = Instant::now();
        let session = self.pool.get().instrument(tracing::trace_span!("pool_wait")).await;
        self.counters.got_connection(start.elapsed());
        self.pool_stats().report();
        session.inspect(|session| session.timeline.clear())
    }

    /// The connections, now.
    pub(crate) fn pool_stats(&self) -> PoolStats {
        let state = self.pool.state();
        PoolStats { open: state.connections, idle: state.idle_connections, max: self.connections_max }
    }

    /// Since when the database as a whole cannot be used, and why, if that is so.
    pub(crate) fn outage(&self) -> Option<(Instant, Arc<StoreError>)> {
        self.circuit.open_since()
    }
}
