//! The transaction of a bulk load.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::health::{check, check_shape};
use super::super::session::answer;
use super::copy::Copies;
use super::definition::{Definitions, OtherTable};
use super::inspection::{event_triggers, inspect_tables};
use super::session::{LoadSession, LoadSessions};
use super::shadow::{Names, ShadowTables};
use crate::config::Config;
use crate::error::{BulkObstacle, BulkStoreError, StoreError};
use crate::record::Table;

/// Minimum time for determining the fate of a commit: the server may have to recover first.
const FATE_WAIT_MIN: Duration = Duration::from_mins(5);

/// The limits of a bulk load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionSettings {
    /// Memory of the server for building indexes, in bytes, if `maintenance_work_mem` was not configured.
    pub(crate) server_memory_max: u64,
    /// How long to wait for readers before the tables are replaced, or rows copied in place, including the last attempt.
    pub(crate) readers_wait: Duration,
    /// Bytes after which rows go into a new statement: the driver reports no error before the end of a copy, so that
    /// all other rows would be sent after a refused one.
    pub(crate) copy_bytes_max: usize,
    /// Minimum time for determining the fate of a commit without an answer.
    pub(crate) fate_wait_min: Duration,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            server_memory_max: 1 << 30,
            readers_wait: Duration::from_hours(1),
            copy_bytes_max: 64 << 20,
            fate_wait_min: FATE_WAIT_MIN,
        }
    }
}

/// The phase of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The tables are locked, and other sessions may read them.
    Begun,
    /// The load has exclusive access to bare tables.
    Bare,
    /// Everything is recreated.
    Built,
    /// Something failed, and the transaction with it.
    Failed,
    /// The server has confirmed its end.
    Over,
}

/// The session and the transaction of a bulk load. Dropped before its end, it rolls back.
pub(crate) struct BulkTransaction {
    pub(super) session: LoadSession,
    pub(super) sessions: LoadSessions,
    /// The schema's name, as a value.
    pub(super) schema_name: String,
    /// Oids of the three tables.
    pub(super) oids: Vec<u32>,
    /// Tables at the other ends of their foreign keys.
    pub(super) others: Vec<OtherTable>,
    /// The id of the row that the fence looks for.
    pub(super) attempt: Uuid,
    pub(super) definitions: Option<Definitions>,
    /// Present once the transaction has begun.
    pub(super) copies: Option<Copies>,
    pub(super) settings: TransactionSettings,
    pub(super) fate_wait: Duration,
    pub(super) phase: Phase,
    /// Whether rows may be copied frozen.
    pub(super) is_truncated: bool,
    /// The creation of shadow tables. It is a task, and goes on if the load is dropped: its commit may be under way.
    pub(super) opening: Option<JoinHandle<Result<ShadowTables, BulkStoreError>>>,
    /// Present once shadow tables may exist.
    pub(super) shadow: Option<Names>,
}

impl fmt::Debug for BulkTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkTransaction").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl BulkTransaction {
    /// Connects, checks the requirements of a load, and locks the tables: merges and writers wait until it ends,
    /// readers see empty tables. Fails if a lock takes longer than the configured `lock_timeout`.
    pub(crate) async fn begin(config: &Config, settings: TransactionSettings) -> Result<Self, BulkStoreError> {
        let session = LoadSessions::new(config).open().await?;
        Self::begin_on(session, config, settings).await
    }

    pub(super) async fn begin_on(
        session: LoadSession,
        config: &Config,
        settings: TransactionSettings,
    ) -> Result<Self, BulkStoreError> {
        let mut load = Self {
            session,
            sessions: LoadSessions::new(config),
            schema_name: config.schema.clone(),
            oids: Vec::new(),
            others: Vec::new(),
            attempt: Uuid::now_v7(),
            definitions: None,
            copies: None,
            settings,
            fate_wait: config.outcome_deadline.max(settings.fate_wait_min),
            phase: Phase::Begun,
            is_truncated: false,
            opening: None,
            shadow: None,
        };
        load.open().await?;
        answer(load.session.patience(), Box::pin(check(load.session.client(), config))).await??;

        load.inspect().await?;
        load.look().await?;
        load.take().await?;
        load.expect_empty().await?;
        let event_triggers = answer(load.session.patience(), event_triggers(load.session.client())).await??;
        if !event_triggers.is_empty() {
            load.rehearse().await.map_err(|error| in_rehearsal(&event_triggers, error))?;
            load.open().await?;
            load.take().await?;
            load.expect_empty().await?;
        }
        load.drop_tables_left().await?;
        load.tell();
        Ok(load)
    }

    /// Drops and recreates everything on the empty tables, and rolls that back. There is no other way to know the
    /// effect of event triggers: most are harmless, and one that refuses should do so before hours of sorting. This is
    /// a separate transaction, which leaves the load without a transaction id and without the stronger lock.
    async fn rehearse(&mut self) -> Result<(), BulkStoreError> {
        let settings = self.settings;
        self.settings.readers_wait = Duration::ZERO;
        self.prepare_tables(|_| {}).await?;
        self.build(|_| {}).await?;
        self.run("rollback").await?;
        (self.settings, self.phase, self.is_truncated) = (settings, Phase::Begun, false);
        Ok(())
    }

    fn tell(&self) {
        let Self { schema_name: schema, attempt, .. } = self;
        tracing::info!(schema, %attempt, "a bulk load has taken the tables");
        if !self.others.is_empty() {
            let others: Vec<&str> = self.others.iter().map(|table| &*table.name).collect();
            tracing::warn!(
                tables = others.join(", "),
                "these have foreign keys to the tables of the bulk load, or from them, and can be neither read nor \
                 written from when its rows come until it ends"
            );
        }
    }

    /// Begins the transaction, and prepares what copies.
    async fn open(&mut self) -> Result<(), BulkStoreError> {
        self.session.begin().await?;
        self.copies = Some(Copies::prepare(&mut self.session).await?);
        Ok(())
    }

    /// Checks rights, the shape of the tables, and objects added by other programs.
    async fn inspect(&mut self) -> Result<(), BulkStoreError> {
        let shape = check_shape(self.session.client(), &self.schema_name);
        answer(self.session.patience(), Box::pin(shape)).await??;
        let (_, obstacles) = answer(self.session.patience(), self.define()).await??;
        no_obstacles(obstacles)
    }

    /// Reads the objects to be dropped and recreated, and all obstacles.
    pub(super) async fn define(&mut self) -> Result<(Definitions, Vec<BulkObstacle>), BulkStoreError> {
        let inspection = Box::pin(inspect_tables(self.session.client(), &self.schema_name)).await?;
        let (definitions, others) = Box::pin(Definitions::read(self.session.client(), &inspection.oids)).await?;
        self.oids = inspection.oids;
        self.others = definitions.other_tables();
        Ok((definitions, [inspection.obstacles, others].concat()))
    }

    /// The objects to be dropped and recreated as they are now, possibly changed since the load began.
    pub(super) async fn defined(&mut self) -> Result<Definitions, BulkStoreError> {
        let (definitions, obstacles) = self.define().await?;
        no_obstacles(obstacles)?;
        Ok(definitions)
    }

    /// Writes the row that the fence looks for. This is the last step and uses the current time, not that of the
    /// transaction's beginning: engines delete old rows, and the fence may be asked for days.
    pub(super) async fn record_attempt(&mut self) -> Result<(), StoreError> {
        let schema = self.session.schema();
        let insert =
            format!("insert into {schema}.graphsink_attempts (attempt, at) values ($1, pg_catalog.clock_timestamp())");
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&self.attempt, Type::UUID)];
        self.session.client().execute_typed(&insert, &parameters).await?;
        Ok(())
    }

    /// The server process of the load's session.
    #[cfg(test)]
    pub(crate) async fn server_process(&self) -> Result<i32, StoreError> {
        let row = self.session.client().query_typed_one("select pg_catalog.pg_backend_pid()", &[]).await?;
        Ok(row.try_get(0)?)
    }

    /// Fails once the connection, and so the load, has ended.
    pub(crate) async fn expect_alive(&self) -> Result<(), BulkStoreError> {
        if self.session.client().is_closed() {
            // The driver's error has the cause.
            self.session.client().batch_execute("").await.map_err(StoreError::from)?;
        }
        Ok(())
    }

    /// Rolls back and unlocks the tables; a statement under way is cancelled. Dropping the value does the same, without
    /// waiting for it.
    pub(crate) async fn roll_back(mut self) {
        self.end_opening().await;
        let patience = self.session.patience();
        self.session.cancel();
        if matches!(answer(patience, self.run("rollback")).await, Ok(Ok(()))) {
            self.phase = Phase::Over;
        }
        self.clean_up().await;
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        self.session.run(sql).await
    }

    /// The three tables, qualified, parents before children.
    pub(super) fn tables(&self) -> String {
        let schema = self.session.schema();
        Table::ALL.map(|table| format!("{schema}.{table}")).join(", ")
    }

    /// Marks the transaction as failed on an error.
    pub(super) fn sound<T>(&mut self, done: Result<T, BulkStoreError>) -> Result<T, BulkStoreError> {
        if done.is_err() {
            self.phase = Phase::Failed;
        }
        done
    }
}

pub(super) fn no_obstacles(obstacles: Vec<BulkObstacle>) -> Result<(), BulkStoreError> {
    if obstacles.is_empty() { Ok(()) } else { Err(BulkStoreError::Obstacles(obstacles)) }
}

/// An error of the rehearsal names the event triggers for which it was run.
fn in_rehearsal(event_triggers: &str, error: BulkStoreError) -> BulkStoreError {
    let rehearsing = format!("rehearsing what the event triggers {event_triggers} make of the load");
    match error {
        BulkStoreError::Store(source) => BulkStoreError::Step { step: rehearsing, source },
        BulkStoreError::Step { step, source } => BulkStoreError::Step { step: format!("{rehearsing}, {step}"), source },
        error => error,
    }
}

/// Converts the error of a step.
pub(super) fn step_failed(step: &str, source: StoreError) -> BulkStoreError {
    BulkStoreError::Step { step: step.to_owned(), source }
}
