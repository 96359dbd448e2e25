//! Shadow tables: a bulk load by several sessions at once.
//!
//! A transaction belongs to one session, and a session to one core of the server, except while it builds a B-tree. So
//! rows are written to new tables beside the loaded ones, and their indexes built, by several sessions in transactions
//! of their own. In one last transaction, that of the load, the new tables take the place of the empty ones.
//!
//! 1. [`BulkTransaction::shadow_tables`](super::BulkTransaction::shadow_tables) determines whether everything on the
//!    tables can be carried over ([`suitable`]); otherwise, or if there are no further sessions, the load writes in
//!    place.
//!    It also creates them.
//! 2. [`ShadowTables::copy`] truncates a table and copies its rows in one transaction, so that they are frozen.
//! 3. [`ShadowTables::build`] builds indexes, gathers statistics, and checks foreign keys among the three tables
//!    ([`foreign_keys`]), each in a transaction.
//! 4. [`BulkTransaction::replace_tables`](super::BulkTransaction::replace_tables) waits for readers, drops the empty
//!    tables, renames the new ones, recreates what belongs to a table ([`carried`]), and creates the foreign keys that
//!    remain, above all those to and from other tables.
//!
//! Properties:
//! - Only the last transaction changes what others see, and the load's lock keeps writers out until it ends. Its commit
//!   is as durable as the server's settings demand, and with it all that was written before: the log is written in
//!   order. Earlier commits do not wait for it.
//! - Shadow tables have names of their load ([`Names`]) and a comment by which they are known ([`MARK`]). A load that fails
//!   drops them if it can; otherwise, and after a kill, the next load does, under the lock that excludes a load under way.
//! - A session that is free takes the next step, whichever table it is for ([`turns`]): copies first, since indexes
//!   follow from them, then indexes, those of small tables last, and then foreign keys, so that all sessions end at
//!   nearly the same time.

mod carried;
mod foreign_keys;
mod replace;
mod suitable;
mod turns;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use futures::future::try_join_all;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::copy::{CopyError, text};
use super::definition::{Definitions, Index};
use super::memory;
use super::plan::{BuildStep, BuildWhat, Step};
use super::session::{LoadSession, LoadSessions};
use super::transaction::{BulkTransaction, Phase, TransactionSettings, step_failed};
use crate::error::{BulkStoreError, StoreError};
use crate::record::Table;
use foreign_keys::PendingForeignKeys;
use turns::{Priority, Turns};

/// The number of sessions that write. More would need a server with more cores to be of use, and connections for others
/// are few.
const SESSIONS: usize = 2;

/// The comment by which shadow tables are known.
const MARK: &str = "graphsink: rows of a bulk load that has not ended";

/// The names of shadow tables that were left by a load ($1 is the schema, $2 the comment), in the order in which they are
/// locked to create foreign keys.
const LEFT: &str = "
    select pg_catalog.format('%I.%I', n.nspname, c.relname)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1 and pg_catalog.starts_with(c.relname, 'graphsink_bulk_')
      and c.relkind = 'r' and pg_catalog.obj_description(c.oid, 'pg_class') = $2
      and pg_catalog.pg_has_role(c.relowner, 'usage')
    order by c.oid";

/// The load's own commit waits for the disk, and for standbys, on behalf of all that was written before.
const ASYNCHRONOUS: &str = "set local synchronous_commit = off";

/// Divides the processes that build one index among the sessions. `memory.rs` has measured how many are of use.
fn share_processes() -> String {
    format!(
        "select pg_catalog.set_config('max_parallel_maintenance_workers', (s.setting::int4 / {SESSIONS})::text, true)
         from pg_catalog.pg_settings s where s.name = 'max_parallel_maintenance_workers'"
    )
}

/// Time limit for removing shadow tables after a failure.
const CLEAN_UP_MAX: Duration = Duration::from_mins(1);
/// The pause between two attempts, in which writers that waited behind the first proceed.
const CLEAN_UP_PAUSE: Duration = Duration::from_millis(100);

/// Tables beside those of the load, and the sessions that fill them.
pub(crate) struct ShadowTables {
    definitions: Definitions,
    names: Names,
    sessions: Turns<LoadSession>,
    pending: Mutex<PendingForeignKeys>,
    /// The number of steps of all calls of [`Self::build`].
    steps: usize,
    settings: TransactionSettings,
    /// Steps of building that have begun.
    begun: AtomicUsize,
}

impl std::fmt::Debug for ShadowTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowTables").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// The names of shadow tables and their indexes. Each load has its own: the sessions of one that failed may still be at
/// work when the next begins.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Quoted.
    schema: String,
    load: String,
}

impl Names {
    fn new(schema: &str, attempt: Uuid) -> Self {
        // Its random end: the beginning is the time.
        let load = attempt.simple().to_string().split_off(24);
        Self { schema: schema.to_owned(), load }
    }

    fn table(&self, table: Table) -> String {
        format!("graphsink_bulk_{table}_{}", self.load)
    }

    fn qualified(&self, table: Table) -> String {
        format!("{}.{}", self.schema, self.table(table))
    }

    /// The shadow of an index, by its number among the definitions.
    fn index(&self, number: usize) -> String {
        format!("graphsink_bulk_{}_{number}", self.load)
    }

    /// The tables, qualified.
    pub(super) fn tables(&self) -> Vec<String> {
        Table::ALL.map(|table| self.qualified(table)).to_vec()
    }
}

/// A session at work. Without [`Lease::end`] it is not used again: others then wait in vain, until the error that lost it
/// ends the load.
struct Lease<'a> {
    session: LoadSession,
    tables: &'a ShadowTables,
}

impl Lease<'_> {
    /// Commits, and passes the session on.
    async fn end(mut self) -> Result<(), StoreError> {
        self.session.run("commit").await?;
        self.tables.sessions.give(self.session);
        Ok(())
    }
}

impl ShadowTables {
    /// Opens the sessions and creates the tables, in one short transaction: later, a statement of others that waits for
    /// the load's lock would be waited for. `options` are the storage parameters of each table.
    async fn open(
        sessions: LoadSessions,
        definitions: Definitions,
        names: Names,
        options: Vec<String>,
        settings: TransactionSettings,
    ) -> Result<Self, BulkStoreError> {
        let opened = try_join_all((0..SESSIONS).map(|_| async {
            let mut session = sessions.open().await?;
            // A pooler may accept a session and have no connection for it.
            session.begin().await?;
            session.run(ASYNCHRONOUS).await?;
            Ok::<_, BulkStoreError>(session)
        }));
        let mut opened = opened.await?;
        for (table, options) in Table::ALL.into_iter().zip(&options) {
            opened[0].run(&create(&names, table, options)).await?;
        }
        // The tables last: without the sessions they are of no use.
        for session in opened.iter_mut().rev() {
            session.run("commit").await?;
        }
        let (sessions, pending) = (Turns::new(opened), Mutex::new(PendingForeignKeys::new(&definitions)));
        let steps = definitions.indexes.len() + Table::ALL.len() + foreign_keys::checks(&definitions);
        Ok(Self { definitions, names, sessions, pending, steps, settings, begun: AtomicUsize::new(0) })
    }

    /// Waits for a session, and begins a transaction on it.
    async fn begin(&self, priority: Priority) -> Result<Lease<'_>, BulkStoreError> {
        let mut lease = Lease { session: self.sessions.take(priority).await, tables: self };
        lease.session.begin().await?;
        // A vacuum of the whole database may hold the table for long.
        lease.session.run(&format!("{ASYNCHRONOUS}; set local lock_timeout = 0")).await?;
        Ok(lease)
    }

    /// Copies the rows of a table, see [`BulkTransaction::copy`].
    pub(crate) async fn copy<E>(
        &self,
        table: Table,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, CopyError<E>> {
        let mut lease = self.begin(Priority::Copy).await.map_err(CopyError::Store)?;
        let failed = |step: &str, error| CopyError::Store(step_failed(step, error));
        let target = self.names.qualified(table);
        let copy = text(table, true).replace(&format!("{{schema}}.{table}"), &target);
        let statement = lease.session.prepare(&[copy]).await.map_err(|error| failed("preparing to copy", error))?;
        // So that rows may be frozen.
        lease.session.run(&format!("truncate {target}")).await.map_err(|error| failed("preparing to copy", error))?;
        let count = lease.session.copy(table, &statement[0], pieces, self.settings.copy_bytes_max).await?;
        lease.end().await.map_err(|error| failed(&format!("copying {table}"), error))?;
        Ok(count)
    }

    /// Builds the indexes of a table whose rows are complete, gathers its statistics, and checks foreign keys if it was
    /// the last table for which these waited. Each step is reported before it begins.
    pub(crate) async fn build(
        &self,
        table: Table,
        progress: &(impl Fn(BuildStep<'_>) + Sync),
    ) -> Result<(), BulkStoreError> {
        let mut indexes: Vec<_> = self.definitions.indexes.iter().enumerate().collect();
        indexes.retain(|(_, index)| index.table == table);
        let shadow = &self.names.qualified(table);
        let make = |(number, index): (usize, &Index)| {
            let (sql, name) = (index.make_elsewhere(&self.names.index(number), shadow), index.name.clone());
            self.step(Step { what: BuildWhat::Index, table: Some(table), name, sql }, progress)
        };
        // Keys first, because a row that they refuse ends the load; and one after the other, because a foreign key
        // refers to the oldest index that is suitable. Which keys are deferrable, and so unsuitable, is not known to the
        // server before they are complete.
        let (mut unique, others): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|(_, index)| index.is_unique);
        unique.sort_by_key(|(_, index)| index.is_deferrable());
        for index in unique {
            make(index).await?;
        }
        try_join_all(others.into_iter().map(make)).await?;
        let (name, sql) = (table.to_string(), format!("analyze {shadow}"));
        self.step(Step { what: BuildWhat::Statistics, table: Some(table), name, sql }, progress).await?;
        self.add_foreign_keys(table, progress).await
    }

    /// A step without a table is for a foreign key.
    async fn step(&self, step: Step, progress: &(impl Fn(BuildStep<'_>) + Sync)) -> Result<(), BulkStoreError> {
        let Step { what, table, name, sql } = &step;
        let mut lease = self.begin(table.map_or(Priority::ForeignKeys, Priority::Build)).await?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        progress(BuildStep { number, steps: self.steps, what: *what, table: *table, name });
        let start = Instant::now();
        let build = async {
            let bound = self.settings.server_memory_max / SESSIONS as u64;
            Box::pin(memory::provide(lease.session.client(), bound)).await?;
            lease.session.run(&share_processes()).await?;
            lease.session.run(sql).await?;
            lease.end().await
        };
        build.await.map_err(|error| step_failed(&format!("{} {name}", what.doing()), error))?;
        tracing::debug!(step = what.doing(), name, took_ms = start.elapsed().as_millis() as u64, "built");
        Ok(())
    }
}

fn create(names: &Names, table: Table, options: &str) -> String {
    let (schema, shadow) = (&names.schema, names.qualified(table));
    format!(
        "set local default_tablespace = '';
         create table {shadow} (like {schema}.{table} including all excluding indexes excluding statistics)
             with ({options});
         comment on table {shadow} is '{MARK}'"
    )
}

impl BulkTransaction {
    /// Tables beside those of the load, if all that belongs to its tables can be carried over to them.
    pub(crate) async fn shadow_tables(&mut self) -> Result<Option<ShadowTables>, BulkStoreError> {
        let (definitions, reasons) = self.reasons_against_shadow_tables().await?;
        if !reasons.is_empty() {
            tracing::debug!(reasons = reasons.join("; "), "a bulk load writes in place");
            return Ok(None);
        }
        let options = suitable::options(self.session.client(), &self.oids).await?;
        let names = Names::new(self.session.schema(), self.attempt);
        self.shadow = Some(names.clone());
        let opening = ShadowTables::open(self.sessions.clone(), definitions, names, options, self.settings);
        let opened = self.opening.insert(tokio::spawn(opening)).await;
        self.opening = None;
        match opened.map_err(|_| BulkStoreError::Unsound)? {
            Ok(tables) => Ok(Some(tables)),
            Err(error) => {
                tracing::debug!(%error, "a bulk load cannot create further tables or open sessions: it writes in place");
                self.shadow = None;
                // Their commit may have succeeded although its answer was lost.
                self.drop_tables_left().await?;
                Ok(None)
            }
        }
    }

    /// Waits until the creation of shadow tables has ended. Called before the lock on the tables is released: afterwards
    /// another load would begin before these tables exist, and the removal of what is left would have to wait for it.
    pub(super) async fn end_opening(&mut self) {
        if let Some(opening) = self.opening.take()
            && tokio::time::timeout(CLEAN_UP_MAX, opening).await.is_err()
        {
            tracing::warn!("the creation of tables for a bulk load has not ended in time");
        }
    }

    /// The definitions of keys and indexes, and the reasons to write in place.
    pub(super) async fn reasons_against_shadow_tables(&mut self) -> Result<(Definitions, Vec<String>), BulkStoreError> {
        let definitions = self.defined().await?;
        let mut reasons = suitable::reasons(self.session.client(), &self.oids).await?;
        reasons.extend(definitions.bound_to_their_tables());
        Ok((definitions, reasons))
    }

    /// Drops shadow tables that were left behind. Called under the lock on the tables, which excludes other loads under way.
    /// A failure costs disk space alone.
    pub(super) async fn drop_tables_left(&self) -> Result<(), StoreError> {
        if left(self.session.client(), &self.schema_name).await?.is_empty() {
            return Ok(());
        }
        let dropping = async {
            // The load's own session gets no transaction id before its end.
            let mut session = self.sessions.open().await?;
            session.begin().await?;
            drop_left(&mut session, &self.schema_name).await?;
            Ok::<_, BulkStoreError>(session.run("commit").await?)
        };
        tell(tokio::time::timeout(CLEAN_UP_MAX, Box::pin(dropping)).await);
        Ok(())
    }

    /// Called when the transaction has ended without its rows: drops its shadow tables.
    pub(super) async fn clean_up(&mut self) {
        if self.shadow.is_none() {
            return;
        }
        let lock = format!("lock table {} in exclusive mode", self.tables());
        let dropping = async {
            // Its own session, unless that is lost: others may be no longer available.
            let mut other = None;
            let session = if self.phase == Phase::Over && !self.session.client().is_closed() {
                &mut self.session
            } else {
                other.insert(self.sessions.open().await?)
            };
            // The request that cancelled the load's last statement may come as late as this, a session that checks a
            // foreign key locks the table that refers first, and one that was cancelled may hold its locks for longer
            // than the load's lock timeout.
            let mut has_failed = false;
            loop {
                let attempt = async {
                    if has_failed {
                        session.run("rollback").await?;
                    }
                    drop_under_lock(session, &lock, &self.schema_name).await
                };
                match attempt.await {
                    Err(error) if matches!(error.sqlstate(), Some("57014" | "40P01" | "55P03")) => has_failed = true,
                    dropped => return dropped,
                }
                tokio::time::sleep(CLEAN_UP_PAUSE).await;
            }
        };
        tell(tokio::time::timeout(CLEAN_UP_MAX, Box::pin(dropping)).await);
    }
}

/// The lock keeps the tables of a load under way.
async fn drop_under_lock(session: &mut LoadSession, lock: &str, schema: &str) -> Result<(), BulkStoreError> {
    session.begin().await?;
    session.run(lock).await?;
    drop_left(session, schema).await?;
    Ok(session.run("commit").await?)
}

async fn drop_left(session: &mut LoadSession, schema: &str) -> Result<(), StoreError> {
    let left = left(session.client(), schema).await?;
    if left.is_empty() {
        return Ok(());
    }
    let tables = left.join(", ");
    tracing::info!(tables, "dropping the tables of an unfinished bulk load");
    session.run(&format!("drop table {tables}")).await
}

/// Reports tables that remain.
fn tell(dropped: Result<Result<(), BulkStoreError>, tokio::time::error::Elapsed>) {
    match dropped {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "tables of an unfinished bulk load remain until another one begins"),
        Err(_) => {
            tracing::warn!("tables of an unfinished bulk load remain until another one begins: no answer in time");
        }
    }
}

/// See [`LEFT`].
async fn left(client: &Client, schema: &str) -> Result<Vec<String>, StoreError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&MARK, Type::TEXT)];
    let rows = client.query_typed(LEFT, &parameters).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
