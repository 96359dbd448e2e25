//! The state shared by all transactions, and the sessions that they may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bb8::PooledConnection;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::health::{Circuit, Refusals};
use super::session::{Connector, LockSampler, LockWatch, Patience, Session, SessionManager, SessionPool};
use super::statement;
use crate::batch::KnownNames;
use crate::config::{AsOf, Config};
use crate::error::StoreError;
use crate::stats::{Counters, PoolStats};

/// A pool of connections, and the state shared by all transactions.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(super) pool: SessionPool<SessionManager>,
    pub(super) connections_max: u32,
    pub(super) circuit: Arc<Circuit>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) counters: Arc<Counters>,
    pub(super) lock_watch: Arc<LockWatch>,
    /// For a session outside the pool.
    connector: Arc<Connector>,
    pub(super) begin: Arc<str>,
    /// The schema's name, as a value.
    pub(super) schema_name: Arc<str>,
    /// Whether rows may be copied, which row-level security forbids.
    pub(super) copies: Arc<AtomicBool>,
    /// Rows inserted so far, for the age of plans.
    pub(super) rows_written: Arc<AtomicU64>,
    /// Allows one refresh at a time, because commits need the connections.
    pub(super) refreshing: Arc<Semaphore>,
    pub(super) known_names: Arc<KnownNames>,
    pub(super) as_of: AsOf,
    /// Whether refused units are kept in the database.
    pub(super) dead_letters: bool,
    pub(super) patience: Patience,
    /// Transactions that take longer are logged with the times of their statements.
    pub(super) slow_transaction: Duration,
}

impl Store {
    /// Connects lazily; must be called on the runtime that will drive the connections.
    pub(crate) async fn new(config: &Config, counters: &Arc<Counters>) -> Result<Self, StoreError> {
        let schema: Arc<str> = statement::quote_identifier(&config.schema).into();
        let connector = Connector::new(config);
        let manager = SessionManager::new(connector.clone(), config.tls.clone(), schema);
        let patience = Patience::new(config);
        let timeouts = [patience.commit, config.lock_timeout, patience.silence()].map(|timeout| timeout.as_millis());
        let [statement_timeout, lock_timeout, idle_timeout] = timeouts;
        // One for each commit lane, one to resolve a lost commit, one for refreshes.
        let connections_max = config.in_flight_commits as u32 + 2;
        let pool = SessionPool::new(manager, connections_max, config.connect_timeout).await?;
        Ok(Self {
            pool,
            connections_max,
            circuit: Arc::new(Circuit::new(Arc::clone(counters))),
            refusals: Arc::default(),
            counters: Arc::clone(counters),
            lock_watch: Arc::default(),
            connector: Arc::new(connector),
            begin: statement::begin(statement_timeout, lock_timeout, idle_timeout).into(),
            schema_name: config.schema.as_str().into(),
            copies: Arc::new(AtomicBool::new(true)),
            rows_written: Arc::default(),
            refreshing: Arc::new(Semaphore::new(1)),
            known_names: Arc::new(KnownNames::new(config.known_names_max)),
            as_of: config.as_of,
            dead_letters: config.dead_letters,
            patience,
            slow_transaction: config.slow_transaction,
        })
    }

    /// How long the server may be silent.
    pub(super) fn silence(&self) -> Duration {
        self.patience.silence()
    }

    /// The statements that begin a transaction on this session.
    pub(super) fn begin(&self, session: &mut Session) -> Arc<str> {
        if !session.has_named_statements() {
            // Statements that another client prepared on this session before may have the driver's names.
            return format!("{}; deallocate all", self.begin).into();
        }
        if session.plans_are_stale(self.rows_written.load(Ordering::Relaxed)) {
            // After `begin`: before it, the statement would take a snapshot, after which the isolation level can no
            // longer be set.
            return format!("{}; discard plans", self.begin).into();
        }
        Arc::clone(&self.begin)
    }

    pub(super) async fn session(&self) -> Result<PooledConnection<'_, SessionManager>, StoreError> {
        let start = Instant::now();
        let session = self.pool.get().instrument(tracing::trace_span!("pool_wait")).await;
        self.counters.got_connection(start.elapsed());
        self.pool_stats().report();
        session.inspect(|session| session.timeline.clear())
    }

    /// Samples how long transactions wait for locks, as long as the engine lives.
    pub(crate) async fn keep_sampling_locks(self) {
        LockSampler::new(self.lock_watch, self.connector, self.patience.at_once).run().await;
    }

    /// The current state of the pool.
    pub(crate) fn pool_stats(&self) -> PoolStats {
        let state = self.pool.state();
        PoolStats { open: state.connections, idle: state.idle_connections, max: self.connections_max }
    }

    /// Since when and why the database cannot be used, if the circuit breaker is open.
    pub(crate) fn outage(&self) -> Option<(Instant, Arc<StoreError>)> {
        self.circuit.open_since()
    }
}
