//! Effects: what the engine does to PostgreSQL.
//!
//! Knows records, units and epochs; knows nothing of actors. A row's way: [`commit`] decides what
//! to try again and what to split, [`transaction`] writes one epoch, [`fence`] finds out whether a
//! commit without an answer took place, [`statement`] holds all SQL.

mod columns;
mod commit;
mod connection;
mod error;
mod fence;
mod migrate;
mod refresh;
mod schema;
mod statement;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use bb8::{Pool, PooledConnection, RunError};

use crate::config::{AsOf, Config};
use crate::telemetry;

pub(crate) use commit::EpochObserver;
use connection::ConnectionManager;
pub use error::StoreError;
pub use migrate::{MigrationReport, Migrations};
pub use refresh::RefreshReport;
pub(crate) use transaction::Written;

/// A pool of connections, and what every transaction needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: Pool<ConnectionManager>,
    begin: Arc<str>,
    as_of: AsOf,
    statement_timeout: Duration,
    connect_timeout: Duration,
}

impl Store {
    /// Connects lazily; call it on the runtime that is to drive the connections.
    pub(crate) async fn new(config: &Config) -> Result<Self, StoreError> {
        let schema: Arc<str> = statement::quote_identifier(&config.schema).into();
        let manager = ConnectionManager::new(config.postgres.clone(), schema);
        let pool = Pool::builder()
            // One for each commit slot, one to resolve a lost commit, one for refreshes.
            .max_size(config.in_flight_commits as u32 + 2)
            .connection_timeout(config.connect_timeout)
            // A connection that died is found out by its first statement, and nothing is lost: the
            // check would cost each transaction one round trip.
            .test_on_check_out(false)
            // The engine retries itself, and knows which errors deserve it.
            .retry_connection(false)
            .error_sink(Box::new(LogErrors))
            .build(manager)
            .await?;
        Ok(Self {
            pool,
            begin: statement::begin(config.statement_timeout.as_millis(), config.lock_timeout.as_millis()).into(),
            as_of: config.as_of,
            statement_timeout: config.statement_timeout,
            connect_timeout: config.connect_timeout,
        })
    }

    async fn connection(&self) -> Result<PooledConnection<'_, ConnectionManager>, StoreError> {
        let connection = self.pool.get().await.map_err(|error| match error {
            RunError::User(error) => StoreError::Postgres(error),
            RunError::TimedOut => StoreError::NoConnection(self.connect_timeout),
        });
        let state = self.pool.state();
        telemetry::pool(state.connections, state.idle_connections);
        connection
    }
}

/// Connections fail in the background of the pool too.
#[derive(Debug, Clone, Copy)]
struct LogErrors;

impl bb8::ErrorSink<tokio_postgres::Error> for LogErrors {
    fn sink(&self, error: tokio_postgres::Error) {
        let error = StoreError::from(error);
        tracing::warn!(error = %error, "a connection of the pool failed");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<tokio_postgres::Error>> {
        Box::new(*self)
    }
}
