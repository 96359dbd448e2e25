//! The engine's sessions: how a transaction gets one, begins on it, and is watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bb8::PooledConnection;
use futures::future::join_all;
use tracing::Instrument;

use super::lock_wait::{LockSampler, LockWatch, Watched};
use super::{Connector, Patience, Session, SessionManager, SessionPool};
use crate::config::Config;
use crate::error::StoreError;
use crate::stats::{Counters, PoolStats};
use crate::store::statement;

/// How long the engine's start waits for sessions: a table may be locked, and a pooler may have no connection.
const OPENED_WITHIN: Duration = Duration::from_secs(1);

/// A pool of sessions, and the settings with which transactions begin on them.
#[derive(Debug)]
pub(in crate::store) struct Sessions {
    pool: SessionPool<SessionManager>,
    max: u32,
    begin: Arc<str>,
    patience: Patience,
    counters: Arc<Counters>,
    lock_watch: Arc<LockWatch>,
    /// For a session outside the pool.
    connector: Arc<Connector>,
    /// Rows inserted so far, for the age of plans.
    rows_written: AtomicU64,
}

impl Sessions {
    /// Connects lazily; must be called on the runtime that will drive the connections.
    pub(in crate::store) async fn new(config: &Config, counters: &Arc<Counters>) -> Result<Self, StoreError> {
        let connector = Connector::new(config);
        let schema = statement::quote_identifier(&config.schema).into();
        let manager = SessionManager::new(connector.clone(), config.tls.clone(), schema);
        let patience = Patience::new(config);
        let [statement_timeout, lock_timeout, idle_timeout] =
            [patience.commit, config.lock_timeout, patience.silence()].map(|timeout| timeout.as_millis());
        // One for each commit lane, one to resolve a lost commit, one for refreshes.
        let max = config.in_flight_commits as u32 + 2;
        Ok(Self {
            pool: SessionPool::new(manager, max, config.connect_timeout).await?,
            max,
            begin: statement::begin(statement_timeout, lock_timeout, idle_timeout).into(),
            patience,
            counters: Arc::clone(counters),
            lock_watch: Arc::default(),
            connector: Arc::new(connector),
            rows_written: AtomicU64::new(0),
        })
    }

    /// How long to wait for answers.
    pub(in crate::store) const fn patience(&self) -> Patience {
        self.patience
    }

    /// Takes a session of the pool, until it is dropped.
    pub(in crate::store) async fn get(&self) -> Result<PooledConnection<'_, SessionManager>, StoreError> {
        let start = Instant::now();
        let session = self.pool.get().instrument(tracing::trace_span!("pool_wait")).await;
        self.counters.got_connection(start.elapsed());
        self.stats().report();
        session.inspect(|session| session.timeline.clear())
    }

    /// Opens sessions for so many transactions at once, so that the first ones find them with their statements prepared.
    /// What fails, or takes long, is left to these transactions.
    pub(in crate::store) async fn open(&self, count: usize) {
        let opened = async {
            let sessions = join_all((0..count).map(|_| self.pool.get())).await;
            join_all(sessions.into_iter().map(async |session| {
                let mut session = session?;
                let prepare = async |session: &mut Session| session.prepare().await.map_err(StoreError::begin);
                let prepared = session.transaction(prepare).await;
                prepared.inspect_err(|error| session.notice(error))
            }))
            .await
        };
        // A session whose statements take longer is closed.
        for error in tokio::time::timeout(OPENED_WITHIN, opened).await.into_iter().flatten().filter_map(Result::err) {
            tracing::debug!(%error, "a session could not be opened in advance");
        }
    }

    /// The statements that begin a transaction without prepared statements.
    pub(in crate::store) fn begin_unprepared(&self) -> &str {
        &self.begin
    }

    /// The statements that begin a transaction on this session.
    pub(in crate::store) fn begin(&self, session: &mut Session) -> Arc<str> {
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

    /// Notes inserted rows.
    pub(in crate::store) fn inserted(&self, rows: usize) {
        self.rows_written.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Watches a transaction that begins on a session for waits for locks, until the result is dropped.
    pub(in crate::store) fn watch(&self, session: &Session) -> Watched<'_> {
        self.lock_watch.watch(&session.lock_waits)
    }

    /// How long a transaction waited for locks until now; counts it.
    pub(in crate::store) fn waited(&self, transaction: &Watched<'_>) -> Duration {
        let waited = transaction.waited();
        self.counters.waited_for_locks(waited);
        waited
    }

    /// Samples how long transactions wait for locks, as long as the engine lives.
    pub(in crate::store) async fn keep_sampling_locks(&self) {
        let (watch, connector) = (Arc::clone(&self.lock_watch), Arc::clone(&self.connector));
        LockSampler::new(watch, connector, self.patience.at_once).run().await;
    }

    /// The current state of the pool.
    pub(in crate::store) fn stats(&self) -> PoolStats {
        let state = self.pool.state();
        PoolStats { open: state.connections, idle: state.idle_connections, max: self.max }
    }
}
