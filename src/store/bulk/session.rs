//! A session of a bulk load: how its transactions begin, and whether the server is at work for it.

use std::time::Duration;

use bb8::ManageConnection;
use tokio_postgres::{Client, Statement};

use super::super::session::{Connector, Patience, Session, SessionManager, answer};
use super::super::statement::quote_identifier;
use crate::config::Config;
use crate::error::{BulkStoreError, StoreError};

/// How often the server checks whether the load is still connected while it works for it. Without this it would
/// continue to build an index behind locks, for hours. Not every system supports it: there the server notices when the
/// statement ends.
const CHECK_CONNECTION: &str = "set local client_connection_check_interval = '5s'";

/// Opens the sessions of a load.
#[derive(Debug, Clone)]
pub(super) struct LoadSessions {
    pub(super) manager: SessionManager,
    /// Whether a session stays with the load between transactions, so that it keeps prepared statements.
    keeps_statements: bool,
    pub(super) patience: Patience,
    lock_timeout: Duration,
}

impl LoadSessions {
    pub(super) fn new(config: &Config) -> Self {
        let connector = Connector::new(config);
        let schema = quote_identifier(&config.schema).as_str().into();
        Self {
            manager: SessionManager::new(connector, config.tls.clone(), schema),
            keeps_statements: config.prepared_statements,
            patience: Patience::new(config),
            lock_timeout: config.lock_timeout,
        }
    }

    pub(super) async fn open(&self) -> Result<LoadSession, StoreError> {
        let session = Box::pin(self.manager.connect()).await?;
        Ok(LoadSession { session, settings: self.clone(), can_check_connection: true, is_busy: false })
    }
}

/// A session. Dropped while the server is executing a statement, it cancels that statement: the session itself ends with
/// its connection, but not before the statement, which may run for hours.
pub(super) struct LoadSession {
    session: Session,
    settings: LoadSessions,
    can_check_connection: bool,
    pub(super) is_busy: bool,
}

impl LoadSession {
    pub(super) const fn client(&self) -> &Client {
        self.session.client()
    }

    /// The schema as a quoted identifier.
    pub(super) fn schema(&self) -> &str {
        self.session.schema()
    }

    pub(super) const fn merge_lock(&self) -> i64 {
        self.session.merge_lock()
    }

    /// Time limit for short operations of the server.
    pub(super) fn patience(&self) -> Duration {
        self.settings.patience.silence()
    }

    /// Begins a transaction, which no timeout of the server, the database or the role may end. It leaves a savepoint
    /// `optional`, for [`Self::prepare`].
    pub(super) async fn begin(&mut self) -> Result<(), BulkStoreError> {
        // The transaction timeout exists since PostgreSQL 17.
        let mut begin = format!(
            "begin isolation level read committed read write;
             set local statement_timeout = 0;
             set local lock_timeout = {};
             set local idle_in_transaction_session_timeout = 0;
             set local tcp_keepalives_idle = 60;
             set local tcp_keepalives_interval = 10;
             set local tcp_keepalives_count = 6;
             select pg_catalog.set_config(name, '0', true) from pg_catalog.pg_settings where name = 'transaction_timeout'",
            self.settings.lock_timeout.as_millis()
        );
        if !self.settings.keeps_statements {
            begin += "; deallocate all";
        }
        if let Err(error) = answer(self.patience(), self.run(&begin)).await? {
            return Err(if self.is_standby().await { BulkStoreError::Standby } else { into_begin(error).into() });
        }
        self.run("savepoint optional").await?;
        if self.can_check_connection && self.run(CHECK_CONNECTION).await.is_err() {
            self.can_check_connection = false;
            self.run("rollback to savepoint optional").await?;
        }
        Ok(self.run("release savepoint optional").await?)
    }

    /// Called when no writing transaction could begin.
    async fn is_standby(&self) -> bool {
        let find = self.client().query_typed_one("select pg_catalog.pg_is_in_recovery()", &[]);
        matches!(answer(self.patience(), find).await, Ok(Ok(row)) if row.try_get(0).unwrap_or(false))
    }

    /// Prepares statements without parameters, in a transaction.
    ///
    /// Statements that another client prepared on this session, before a pooler passed it on, may have the driver's
    /// names. They are deallocated only in that case: a pooler that keeps track of names would miss its own statements.
    pub(super) async fn prepare(&mut self, texts: &[String]) -> Result<Vec<Statement>, StoreError> {
        self.run("savepoint optional").await?;
        let prepared = match answer(self.patience(), prepare_all(self.client(), texts)).await? {
            Err(error) if error.sqlstate() == Some("42P05") => {
                tracing::debug!("statements of another client are deallocated");
                let forget = "rollback to savepoint optional; deallocate all";
                answer(self.patience(), self.client().batch_execute(forget)).await??;
                answer(self.patience(), prepare_all(self.client(), texts)).await??
            }
            prepared => prepared?,
        };
        self.run("release savepoint optional").await?;
        Ok(prepared)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        self.is_busy = true;
        let done = self.client().batch_execute(sql).await;
        self.is_busy = false;
        Ok(done?)
    }

    /// Cancels the statement under way, if there is one.
    pub(super) fn cancel(&self) {
        if self.is_busy && tokio::runtime::Handle::try_current().is_ok() {
            self.session.cancel();
        }
    }
}

impl Drop for LoadSession {
    fn drop(&mut self) {
        self.cancel();
    }
}

async fn prepare_all(client: &Client, texts: &[String]) -> Result<Vec<Statement>, StoreError> {
    let mut statements = Vec::new();
    for text in texts {
        statements.push(client.prepare_typed(text, &[]).await?);
    }
    Ok(statements)
}

/// Converts an error of `begin`, which is about the session.
fn into_begin(error: StoreError) -> StoreError {
    match error {
        StoreError::Postgres(error) => StoreError::Begin(error),
        error => error,
    }
}
