//! Creates the tables and, as a separate step, the read indexes.
//!
//! `refinery` was chosen for SQL files in the program, a history with checksums, tokio-postgres, and a history table
//! whose name can be set.
//! `refinery` keeps the history of applied migrations, in one table for each of the two sets, so that the read indexes
//! can be postponed without delaying later changes of the tables. An advisory lock makes processes that start at the
//! same time wait for each other.

use std::time::Duration;

use tokio_postgres::Client;

use super::history_indexes;
use super::statement::quote_identifier;
use crate::config::Config;
use crate::error::StoreError;

mod tables {
    refinery::embed_migrations!("migrations/tables");
}

mod read_indexes {
    refinery::embed_migrations!("migrations/read_indexes");
}

/// The key of the advisory lock, the ASCII codes of "graphsnk" as a number.
const LOCK_KEY: i64 = 0x6772_6170_6873_6e6b;

/// How often a waiting process requests the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Which migrations to run. Running them again does nothing.
///
/// The role that runs them owns the tables. An engine needs less: `migrations/rights.sql`, in the sources of this
/// crate, grants a role exactly the rights that it needs; run it after every migration.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use graphsink::{Config, Migrations};
///
/// let config = Config::builder("postgresql://localhost/evidence").build()?;
/// Migrations::tables_only().run(&config).await?;
/// // .. load history ..
/// Migrations::all().run(&config).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Migrations {
    with_read_indexes: bool,
}

/// The applied migrations.
///
/// ```no_run
/// # async fn run(config: graphsink::Config) -> Result<(), graphsink::StoreError> {
/// let report = graphsink::Migrations::all().run(&config).await?;
/// println!("{} migrations ran: {}", report.applied.len(), report.applied.join(", "));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationReport {
    /// Names of the migrations applied now, in order, and the statements that created and dropped the indexes for long
    /// histories; empty if all had been applied before.
    pub applied: Vec<String>,
}

impl Migrations {
    /// The tables and the read indexes.
    ///
    /// ```no_run
    /// # async fn run(config: graphsink::Config) -> Result<(), graphsink::StoreError> {
    /// graphsink::Migrations::all().run(&config).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn all() -> Self {
        Self { with_read_indexes: true }
    }

    /// The tables without the read indexes, which cost more than half of the write speed: run
    /// [`all`](Self::all) later.
    ///
    /// ```no_run
    /// # async fn run(config: graphsink::Config) -> Result<(), graphsink::StoreError> {
    /// graphsink::Migrations::tables_only().run(&config).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn tables_only() -> Self {
        Self { with_read_indexes: false }
    }

    /// Creates the schema if necessary and applies the pending migrations. Needs the right to create a schema and, for
    /// the read indexes, the extension `pg_trgm` or the right to create it.
    ///
    /// # Errors
    /// Fails when the database cannot be reached, or a migration fails; each migration runs in its own transaction and
    /// leaves nothing when it fails. An index that is built concurrently may be left unfinished; the next run builds it
    /// again.
    ///
    /// ```no_run
    /// # async fn run(config: graphsink::Config) -> Result<(), graphsink::StoreError> {
    /// let report = graphsink::Migrations::all().run(&config).await?;
    /// assert!(graphsink::Migrations::all().run(&config).await?.applied.is_empty(), "again, it does nothing");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(self, config: &Config) -> Result<MigrationReport, StoreError> {
        let (mut client, connection) = connect(config).await?;
        let connection = async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = %StoreError::from(error), "the migrations' connection failed");
            }
        };
        let work = async move {
            // Building an index on a large table takes long, and so may waiting for the lock's holder.
            client
                .batch_execute(
                    "set statement_timeout = 0; set lock_timeout = 0; set default_transaction_read_only = off",
                )
                .await?;
            // Released when the connection ends, for any reason.
            lock(&client).await?;
            self.run_locked(&mut client, &config.schema).await
        };
        // Both run on this task: the caller's runtime may be unable to spawn.
        futures::future::join(work, connection).await.0
    }

    async fn run_locked(self, client: &mut Client, schema: &str) -> Result<MigrationReport, StoreError> {
        let exists = "select exists (select from pg_catalog.pg_namespace where nspname = $1)";
        let exists: bool = client.query_one(exists, &[&schema]).await?.get(0);
        let quoted = quote_identifier(schema);
        // `create schema if not exists` needs the right to create a schema even if it exists.
        let create = if exists { String::new() } else { format!("create schema {quoted};") };
        client.batch_execute(&format!("{create} set search_path = {quoted}")).await?;
        let mut applied = apply(tables::migrations::runner(), "graphsink_schema_history", client).await?;
        applied.extend(history_indexes::apply(client).await?);
        if self.with_read_indexes {
            let trigram_schema = quote_identifier(&trigram_schema(client, &quoted).await?);
            client.batch_execute(&format!("set search_path = {quoted}, {trigram_schema}")).await?;
            let runner = read_indexes::migrations::runner();
            applied.extend(apply(runner, "graphsink_read_index_history", client).await?);
        }
        Ok(MigrationReport { applied })
    }
}

/// Waits for the lock, but never within a statement: its holder may be waiting for all snapshots to end, to build an
/// index concurrently.
async fn lock(client: &Client) -> Result<(), StoreError> {
    while !client.query_one("select pg_try_advisory_lock($1)", &[&LOCK_KEY]).await?.get::<_, bool>(0) {
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(())
}

/// A connection without its own task.
async fn connect(
    config: &Config,
) -> Result<(Client, impl Future<Output = Result<(), tokio_postgres::Error>>), StoreError> {
    // Once for the socket, which the driver limits, and once for the login.
    let patience = config.connect_timeout * 2;
    let mut refused = None;
    for way in config.tls.ways(&config.postgres) {
        let connected = tokio::time::timeout(patience, way.connect(config.tls.make())).await;
        match connected.map_err(|_| StoreError::NoConnection(patience))? {
            Ok(connected) => return Ok(connected),
            Err(error) if error.as_db_error().is_some() => refused = Some(error),
            Err(error) => return Err(StoreError::connect(error)),
        }
    }
    Err(StoreError::connect(refused.expect("there is a way to connect")))
}

async fn apply(mut runner: refinery::Runner, history: &str, client: &mut Client) -> Result<Vec<String>, StoreError> {
    runner.set_migration_table_name(history);
    let report = runner.run_async(client).await.map_err(|error| StoreError::Migration(Box::new(error)))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// The schema of the extension `pg_trgm`. If the extension does not exist, it is created in `public`, or in the
/// engine's own schema (a quoted identifier) if there is no `public`.
async fn trigram_schema(client: &Client, own: &str) -> Result<String, StoreError> {
    let find = "select n.nspname::text from pg_catalog.pg_extension e
                join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm'";
    if let Some(row) = client.query_opt(find, &[]).await? {
        return Ok(row.get(0));
    }
    let public = "select exists (select from pg_catalog.pg_namespace where nspname = 'public')";
    let public: bool = client.query_one(public, &[]).await?.get(0);
    let schema = if public { "public" } else { own };
    client.batch_execute(&format!("create extension if not exists pg_trgm with schema {schema}")).await?;
    Ok(client.query_one(find, &[]).await?.get(0))
}
