//! One connection: its prepared statements, and whether it may be used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bb8_postgres::PostgresConnectionManager;
use futures::future::try_join_all;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Row};
use uuid::Uuid;

use super::statement::Statement;
use crate::telemetry;

/// Makes connections for the pool.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionManager {
    inner: PostgresConnectionManager<NoTls>,
    schema: Arc<str>,
}

impl ConnectionManager {
    /// `schema` is a quoted identifier.
    pub(crate) fn new(config: tokio_postgres::Config, schema: Arc<str>) -> Self {
        Self { inner: PostgresConnectionManager::new(config, NoTls), schema }
    }
}

impl bb8::ManageConnection for ConnectionManager {
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self) -> Result<Connection, Error> {
        let client = self.inner.connect().await?;
        Ok(Connection {
            client,
            schema: Arc::clone(&self.schema),
            statements: HashMap::new(),
            settled_attempts: Vec::new(),
            in_transaction: false,
        })
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Error> {
        self.inner.is_valid(&mut connection.client).await
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.in_transaction || self.inner.has_broken(&mut connection.client)
    }
}

/// A connection of the pool.
///
/// Invariant: `in_transaction` is true from before `begin` is sent until the server confirmed
/// `commit` or `rollback`. A future that is dropped in between leaves it true, and the pool throws
/// the connection away instead of handing a half-done transaction to somebody else.
pub(crate) struct Connection {
    client: Client,
    schema: Arc<str>,
    statements: HashMap<Statement, tokio_postgres::Statement>,
    /// Attempts of this connection whose fate is known; the next transaction deletes their rows.
    pub(crate) settled_attempts: Vec<Uuid>,
    in_transaction: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("in_transaction", &self.in_transaction).finish_non_exhaustive()
    }
}

impl Connection {
    /// The schema as a quoted identifier.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The bare client, for statements outside the engine's transactions.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Prepares every statement, all at once, unless that was done.
    pub(crate) async fn prepare(&mut self) -> Result<(), Error> {
        if !self.statements.is_empty() {
            return Ok(());
        }
        let client = &self.client;
        let schema = &self.schema;
        let prepared = try_join_all(Statement::ALL.map(|statement| async move {
            let text = statement.text(schema);
            client.prepare_typed(&text, &statement.parameter_types()).await.map(|prepared| (statement, prepared))
        }))
        .await?;
        self.statements = prepared.into_iter().collect();
        Ok(())
    }

    /// Notes that a transaction is about to begin.
    pub(crate) const fn enter_transaction(&mut self) {
        self.in_transaction = true;
    }

    /// Notes that the server confirmed the transaction's end.
    pub(crate) const fn leave_transaction(&mut self) {
        self.in_transaction = false;
    }

    /// Sends statements without parameters in one message.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    /// Runs a prepared statement and reads all its rows.
    pub(crate) async fn query(
        &self,
        statement: Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let start = Instant::now();
        let rows = self.client.query(&self.statements[&statement], parameters).await;
        telemetry::statement_ran(statement.as_str(), start.elapsed());
        rows
    }

    /// Runs a prepared statement and says how many rows it touched.
    pub(crate) async fn execute(&self, statement: Statement, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let start = Instant::now();
        let touched = self.client.execute(&self.statements[&statement], parameters).await;
        telemetry::statement_ran(statement.as_str(), start.elapsed());
        touched
    }
}
