//! How a bulk load gets the tables: empty, at first beside readers, then alone.

use std::time::{Duration, Instant};

use super::definition::Definitions;
use super::inspection::{filled, publishes_truncate};
use super::lock::{holders, is_blocked};
use super::memory;
use super::shadow::Names;
use super::transaction::{BulkTransaction, Phase};
use crate::error::BulkStoreError;

/// Minimum wait of one attempt to get exclusive access, whatever `lock_timeout` is. Each attempt blocks later readers.
const TRY_MIN: Duration = Duration::from_millis(1_500);
/// The first pause between two attempts, in which readers proceed. It doubles with each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause: one in ten of the later readers waits, for the duration of an attempt.
const PAUSE_MAX: Duration = Duration::from_secs(20);

impl BulkTransaction {
    /// Takes the merges' lock exclusively, as merges do, then locks the tables, parents before children like all
    /// writers.
    pub(super) async fn take(&mut self) -> Result<(), BulkStoreError> {
        let take = format!(
            "select pg_catalog.pg_advisory_xact_lock({}); lock table {} in exclusive mode",
            self.session.merge_lock(),
            self.tables()
        );
        let start = Instant::now();
        match self.run(&take).await {
            Err(error) if is_blocked(&error) => {
                let waited = start.elapsed();
                self.run("rollback").await?;
                self.phase = Phase::Over;
                let holders = self.holders(false).await;
                Err(BulkStoreError::Locked { what: "the tables", waited, holders })
            }
            taken => Ok(taken?),
        }
    }

    /// Looks for rows before requesting any lock that other sessions would wait behind: tables in use are seldom empty.
    pub(super) async fn look(&mut self) -> Result<(), BulkStoreError> {
        self.run("savepoint look").await?;
        match self.expect_empty().await {
            // A lock that blocks readers also blocks a load, which waits for it when it locks the tables.
            Err(BulkStoreError::Store(error)) if is_blocked(&error) => {}
            looked => looked?,
        }
        Ok(self.run("rollback to savepoint look; release savepoint look").await?)
    }

    pub(super) async fn expect_empty(&mut self) -> Result<(), BulkStoreError> {
        let filled = filled(self.session.client(), self.session.schema()).await?;
        if filled.is_empty() { Ok(()) } else { Err(BulkStoreError::NotEmpty { tables: filled }) }
    }

    /// Waits for readers, records keys and indexes, drops them, and truncates the tables. If other sessions do not
    /// release their locks in time ([`BulkStoreError::Locked`]), it may be called again. After each failed attempt the
    /// holders of the tables are reported.
    pub(crate) async fn prepare_tables(&mut self, waits_for: impl FnMut(&str)) -> Result<(), BulkStoreError> {
        let definitions = self.be_alone(waits_for).await?;
        let bared = self.bare(&definitions).await;
        self.sound(bared)?;
        self.definitions = Some(definitions);
        self.phase = Phase::Bare;
        Ok(())
    }

    /// Gets exclusive access, and drops the foreign keys. Returns the definitions of all keys and indexes.
    pub(super) async fn be_alone(&mut self, mut waits_for: impl FnMut(&str)) -> Result<Definitions, BulkStoreError> {
        debug_assert_eq!(self.phase, Phase::Begun);
        let limited = self.limit_tries().await;
        self.sound(limited)?;
        let (start, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            match self.try_to_be_alone().await {
                Err(BulkStoreError::Store(error)) if is_blocked(&error) => {
                    self.run("rollback to savepoint alone; release savepoint alone").await?;
                    let holders = self.holders(true).await;
                    let waited = start.elapsed();
                    let left = self.settings.readers_wait.saturating_sub(waited);
                    if left.is_zero() {
                        return Err(BulkStoreError::Locked { what: "readers of the tables", waited, holders });
                    }
                    tracing::warn!(holders, waited_s = waited.as_secs(), "a bulk load waits for readers of the tables");
                    waits_for(&holders);
                    tokio::time::sleep(pause.min(left)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                done => return self.sound(done),
            }
        }
    }

    /// Sets a lock timeout longer than the detection of a deadlock takes; that check also cancels autovacuum.
    async fn limit_tries(&mut self) -> Result<(), BulkStoreError> {
        Ok(self
            .run(&format!(
                "select pg_catalog.set_config('lock_timeout', greatest({}, s.setting::int8 + 500)::text, true)
                 from pg_catalog.pg_settings s where s.name = 'deadlock_timeout'",
                TRY_MIN.as_millis()
            ))
            .await?)
    }

    /// Sessions that hold locks that the load waits for. Readers count only if the load wants exclusive access.
    async fn holders(&self, readers: bool) -> String {
        // Locks on other tables are needed when foreign keys are dropped.
        let others = self.others.iter().filter(|_| readers).map(|table| table.oid);
        let tables: Vec<u32> = self.oids.iter().copied().chain(others).collect();
        holders(self.session.client(), &tables, self.session.merge_lock(), readers).await
    }

    /// Tries to get all locks, including those of the tables at the other ends of foreign keys.
    async fn try_to_be_alone(&mut self) -> Result<Definitions, BulkStoreError> {
        // Shadow tables are visible to other sessions, which may hold locks on them as well.
        let shadow = self.shadow.as_ref().map_or_else(Vec::new, Names::tables);
        let tables = std::iter::once(self.tables()).chain(shadow).collect::<Vec<_>>().join(", ");
        self.run(&format!("savepoint alone; lock table {tables} in access exclusive mode")).await?;
        let definitions = self.defined().await?;
        self.run(&definitions.drop_foreign_keys()).await?;
        // Back at the top level: rows are frozen only if the same level has truncated the table.
        self.run("set local lock_timeout = 0; release savepoint alone").await?;
        Ok(definitions)
    }

    async fn bare(&mut self, definitions: &Definitions) -> Result<(), BulkStoreError> {
        // Existing rows are never truncated.
        self.expect_empty().await?;
        Box::pin(memory::provide(self.session.client(), self.settings.server_memory_max)).await?;
        let drop = definitions.drop_indexes(self.session.schema());
        self.run(&drop).await?;
        self.is_truncated = !publishes_truncate(self.session.client(), &self.schema_name).await?;
        if self.is_truncated {
            self.run(&format!("truncate {}", self.tables())).await?;
        }
        Ok(())
    }
}
