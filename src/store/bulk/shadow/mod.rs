//! Shadow tables: a bulk load by several sessions at once.
//!
//! A transaction belongs to one session, and a session to one core of the server, except while it builds a B-tree. So
//! rows are written to new tables beside the loaded ones, and their indexes built, by several sessions in transactions
//! of their own. In one last transaction, that of the load, the new tables take the place of the empty ones.
//!
//! 1. [`BulkTransaction::shadow_tables`](super::BulkTransaction::shadow_tables) determines whether everything on the
//!    tables can be carried over ([`suitable`]); otherwise, or if there are no further sessions, the load writes in
//!    place.
//! 2. [`ShadowTables::copy`] creates a table and copies its rows in one transaction, so that they are frozen.
//! 3. [`ShadowTables::build`] builds indexes and gathers statistics, each in a transaction.
//! 4. [`BulkTransaction::replace_tables`](super::BulkTransaction::replace_tables) waits for readers, drops the empty
//!    tables, renames the new ones, recreates what belongs to a table ([`carried`]), and checks the foreign keys.
//!
//! Properties:
//! - Only the last transaction changes what others see, and the load's lock keeps writers out until it ends. Its commit
//!   is as durable as the server's settings demand, and with it all that was written before: the log is written in
//!   order. Earlier commits do not wait for the disk.
//! - Shadow tables have a name and a comment of their own ([`MARK`]). A load that fails drops them; those of a killed one
//!   are dropped when the next one begins, under the lock that excludes a load under way.
//! - Work is shared by order of arrival: copies first, since indexes follow from them. A session that is free takes the
//!   next step, whichever table it is for.

mod carried;
mod replace;
mod suitable;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use futures::future::try_join_all;
use tokio::sync::Semaphore;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::copy::{CopyError, text};
use super::definition::Definitions;
use super::memory;
use super::plan::{BuildStep, BuildWhat};
use super::session::{LoadSession, LoadSessions};
use super::transaction::{BulkTransaction, TransactionSettings, step_failed};
use crate::error::{BulkStoreError, StoreError};
use crate::record::Table;

/// The number of sessions that write. More would need a server with more cores to be of use, and connections for others
/// are few.
const SESSIONS: usize = 2;

/// The comment by which shadow tables are known.
const MARK: &str = "graphsink: rows of a bulk load that has not ended";

/// The names of shadow tables that were left by a load ($1 is the schema, $2 the comment).
const LEFT: &str = "
    select pg_catalog.format('%I.%I', n.nspname, c.relname)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relname in ('graphsink_bulk_entities', 'graphsink_bulk_connections',
                                           'graphsink_bulk_mentions')
      and c.relkind = 'r' and pg_catalog.obj_description(c.oid, 'pg_class') = $2
      and pg_catalog.pg_has_role(c.relowner, 'usage')";

/// Tables beside those of the load, and the sessions that fill them.
pub(crate) struct ShadowTables {
    definitions: Definitions,
    /// Quoted.
    schema: String,
    /// The storage parameters of each table, as a list; in the order of [`Table::ALL`].
    options: Vec<String>,
    /// Sessions that have nothing to do.
    free: Mutex<Vec<LoadSession>>,
    /// Their number, for those that wait.
    count: Semaphore,
    settings: TransactionSettings,
    /// Steps of building that have begun.
    begun: AtomicUsize,
}

impl std::fmt::Debug for ShadowTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowTables").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// The name of a shadow table.
fn name(table: Table) -> String {
    format!("graphsink_bulk_{table}")
}

/// The name of the shadow of an index, by its number among the definitions.
fn index_name(number: usize) -> String {
    format!("graphsink_bulk_index_{number}")
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
        self.tables.free.lock().expect("nothing panics with it").push(self.session);
        self.tables.count.add_permits(1);
        Ok(())
    }
}

impl ShadowTables {
    /// Opens the sessions; `None` if there are not enough.
    async fn open(
        sessions: &LoadSessions,
        definitions: Definitions,
        schema: String,
        options: Vec<String>,
        settings: TransactionSettings,
    ) -> Option<Self> {
        let opened = try_join_all((0..SESSIONS).map(|_| async {
            let mut session = sessions.open().await?;
            // A pooler may accept a session and have no connection for it.
            session.begin().await?;
            session.run("rollback").await?;
            Ok::<_, BulkStoreError>(session)
        }));
        match opened.await {
            Ok(opened) => Some(Self {
                definitions,
                schema,
                options,
                count: Semaphore::new(opened.len()),
                free: Mutex::new(opened),
                settings,
                begun: AtomicUsize::new(0),
            }),
            Err(error) => {
                tracing::debug!(%error, "a bulk load gets no further sessions, and writes with one");
                None
            }
        }
    }

    /// Waits for a session, and begins a transaction on it.
    async fn begin(&self) -> Result<Lease<'_>, BulkStoreError> {
        self.count.acquire().await.expect("never closed").forget();
        let free = self.free.lock().expect("nothing panics with it").pop();
        let mut lease = Lease { session: free.expect("as many as are counted"), tables: self };
        lease.session.begin().await?;
        // The load's own commit waits for the disk, and for standbys, on behalf of all that was written before.
        lease.session.run("set local synchronous_commit = off").await?;
        Ok(lease)
    }

    /// Creates the table and copies its rows, see [`BulkTransaction::copy`].
    pub(crate) async fn copy<E>(
        &self,
        table: Table,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, CopyError<E>> {
        let mut lease = self.begin().await.map_err(CopyError::Store)?;
        let failed = |step: &str, error| CopyError::Store(step_failed(step, error));
        let create = self.create(table);
        lease.session.run(&create).await.map_err(|error| failed(&format!("creating a table for {table}"), error))?;
        let target = format!("{}.{}", self.schema, name(table));
        let copy = text(table, true).replace(&format!("{{schema}}.{table}"), &target);
        let statement = lease.session.prepare(&[copy]).await.map_err(|error| failed("preparing to copy", error))?;
        let count = lease.session.copy(table, &statement[0], pieces, self.settings.copy_bytes_max).await?;
        lease.end().await.map_err(|error| failed(&format!("copying {table}"), error))?;
        Ok(count)
    }

    fn create(&self, table: Table) -> String {
        let (schema, shadow, options) = (&self.schema, name(table), &self.options[table as usize]);
        // Vacuum would find nothing to do, and indexes would wait for it.
        format!(
            "set local default_tablespace = '';
             create table {schema}.{shadow} (like {schema}.{table} including all excluding indexes excluding statistics)
                 with ({options});
             comment on table {schema}.{shadow} is '{MARK}'"
        )
    }

    /// Builds the indexes of a table whose rows are complete, and gathers its statistics. Each step is reported before
    /// it begins.
    pub(crate) async fn build(
        &self,
        table: Table,
        progress: &(impl Fn(BuildStep<'_>) + Sync),
    ) -> Result<(), BulkStoreError> {
        let mut indexes: Vec<_> = self.definitions.indexes.iter().enumerate().collect();
        indexes.retain(|(_, index)| index.table == table);
        // Keys first, because a row that they refuse ends the load.
        indexes.sort_by_key(|(_, index)| !index.is_unique);
        let shadow = format!("{}.{}", self.schema, name(table));
        let builds = indexes.into_iter().map(|(number, index)| {
            let sql = index.make_elsewhere(&index_name(number), &shadow);
            async move { self.step(BuildWhat::Index, table, &index.name, &sql, progress).await }
        });
        try_join_all(builds).await?;
        self.step(BuildWhat::Statistics, table, table.as_str(), &format!("analyze {shadow}"), progress).await
    }

    /// The number of steps of all calls of [`Self::build`].
    fn steps(&self) -> usize {
        self.definitions.indexes.len() + Table::ALL.len()
    }

    async fn step(
        &self,
        what: BuildWhat,
        table: Table,
        name: &str,
        sql: &str,
        progress: &(impl Fn(BuildStep<'_>) + Sync),
    ) -> Result<(), BulkStoreError> {
        let mut lease = self.begin().await?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        progress(BuildStep { number, steps: self.steps(), what, table: Some(table), name });
        let start = Instant::now();
        let build = async {
            let bound = self.settings.server_memory_max / SESSIONS as u64;
            Box::pin(memory::provide(lease.session.client(), bound)).await?;
            lease.session.run(sql).await?;
            lease.end().await
        };
        build.await.map_err(|error| step_failed(&format!("{} {name}", what.doing()), error))?;
        tracing::debug!(step = what.doing(), name, took_ms = start.elapsed().as_millis() as u64, "built");
        Ok(())
    }
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
        let schema = self.session.schema().to_owned();
        let tables = Box::pin(ShadowTables::open(&self.sessions, definitions, schema, options, self.settings)).await;
        self.has_shadow_tables = tables.is_some();
        Ok(tables)
    }

    /// The definitions of keys and indexes, and the reasons to write in place.
    pub(super) async fn reasons_against_shadow_tables(&mut self) -> Result<(Definitions, Vec<String>), BulkStoreError> {
        let definitions = self.defined().await?;
        let mut reasons = suitable::reasons(self.session.client(), &self.oids).await?;
        reasons.extend(definitions.bound_to_their_tables());
        Ok((definitions, reasons))
    }

    /// Whether a load has left shadow tables behind. Called under the lock on the tables, which excludes loads under way.
    pub(super) async fn has_shadow_tables_of_others(&self) -> Result<bool, StoreError> {
        Ok(!left(self.session.client(), &self.schema_name).await?.is_empty())
    }

    /// Drops shadow tables that a load left behind, by another session: the load's must get no transaction id before
    /// its end, and may have ended. If this load does not hold the lock on the tables, that session takes it, because it
    /// would disturb another load.
    pub(super) async fn drop_shadow_tables(&self, holds_lock: bool) -> Result<(), BulkStoreError> {
        let mut session = self.sessions.open().await?;
        session.begin().await?;
        if !holds_lock {
            session.run(&format!("lock table {} in exclusive mode", self.tables())).await?;
        }
        let left = left(session.client(), &self.schema_name).await?;
        if !left.is_empty() {
            let tables = left.join(", ");
            tracing::info!(tables, "dropping the tables of an unfinished bulk load");
            session.run(&format!("drop table {tables}")).await?;
        }
        Ok(session.run("commit").await?)
    }

    /// Called when the transaction has ended without its rows.
    pub(super) async fn clean_up(&self) {
        if self.has_shadow_tables
            && let Err(error) = Box::pin(self.drop_shadow_tables(false)).await
        {
            tracing::warn!(%error, "the tables of a bulk load that failed remain until the next load begins");
        }
    }
}

/// See [`LEFT`].
async fn left(client: &Client, schema: &str) -> Result<Vec<String>, StoreError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&MARK, Type::TEXT)];
    let rows = client.query_typed(LEFT, &parameters).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
