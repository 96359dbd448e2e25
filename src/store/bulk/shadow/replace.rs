//! The last transaction of a load with shadow tables: they take the place of the empty ones.

use std::time::Instant;

use super::super::definition::Definitions;
use super::super::inspection::inspect_tables;
use super::super::memory;
use super::super::plan::{BuildStep, BuildWhat};
use super::super::transaction::{BulkTransaction, Phase, no_obstacles, step_failed};
use super::{ShadowTables, carried, suitable};
use crate::error::{BulkStoreError, StoreError};
use crate::record::Table;

impl BulkTransaction {
    /// Waits for readers, replaces the tables by the shadow tables, and checks the foreign keys that these do not have.
    /// Each of them is reported before it begins. After each failed attempt to get exclusive access, the holders of the
    /// tables are reported.
    pub(crate) async fn replace_tables(
        &mut self,
        shadow: ShadowTables,
        waits_for: impl FnMut(&str),
        progress: &(impl Fn(BuildStep<'_>) + Sync),
    ) -> Result<(), BulkStoreError> {
        let definitions = self.be_alone(waits_for).await?;
        self.phase = Phase::Failed;
        self.expect_empty().await?;
        let altered = |differences: Vec<String>| {
            if differences.is_empty() { Ok(()) } else { Err(BulkStoreError::Altered { differences }) }
        };
        // Others may have added objects that do not conflict with the load's first lock: views, rights.
        altered(suitable::reasons_at_the_end(self.session.client(), &self.oids).await?)?;
        altered(shadow.definitions.differences(&definitions))?;
        let carried = carried::statements(self.session.client(), &self.oids).await?;

        // For foreign keys.
        Box::pin(memory::provide(self.session.client(), self.settings.server_memory_max)).await?;
        let failed = |error: StoreError| step_failed("replacing the empty tables", error);
        for statements in [shadow.take_places(), shadow.complete_indexes(), carried.join("; ")] {
            self.run(&statements).await.map_err(failed)?;
        }
        let pending = shadow.pending.into_inner().keys;
        let steps = pending.len();
        for (number, key) in pending.iter().enumerate() {
            let what = BuildWhat::ForeignKey;
            progress(BuildStep { number, steps, what, table: None, name: &key.name });
            let start = Instant::now();
            let made = self.run(&key.make()).await;
            made.map_err(|error| step_failed(&format!("{} {}", what.doing(), key.name), error))?;
            tracing::debug!(name = key.name, took_ms = start.elapsed().as_millis() as u64, "checked");
        }
        let inspection = Box::pin(inspect_tables(self.session.client(), &self.schema_name)).await?;
        no_obstacles(inspection.obstacles)?;
        self.oids = inspection.oids;
        let (now, _) = Box::pin(Definitions::read(self.session.client(), &self.oids)).await?;
        let mut differences = definitions.differences(&now);
        let carried_now = carried::statements(self.session.client(), &self.oids).await?;
        differences.extend(carried::differences(&carried, &carried_now));
        altered(differences)?;
        self.record_attempt().await.map_err(|error| step_failed("recording the attempt", error))?;
        self.phase = Phase::Built;
        Ok(())
    }
}

impl ShadowTables {
    /// Drops the empty tables and gives their names to the shadow tables.
    fn take_places(&self) -> String {
        let schema = &self.names.schema;
        let dropped: Vec<String> = Table::ALL.iter().rev().map(|table| format!("{schema}.{table}")).collect();
        let renames = Table::ALL.map(|table| {
            let shadow = self.names.qualified(table);
            format!(
                "alter table {shadow} reset (autovacuum_enabled, toast.autovacuum_enabled);
                 alter table {shadow} rename to {table}"
            )
        });
        format!("drop table {}; {}", dropped.join(", "), renames.join("; "))
    }

    /// Gives the indexes their names, and all that they have besides their entries.
    fn complete_indexes(&self) -> String {
        let schema = &self.names.schema;
        let indexes = self.definitions.indexes.iter().enumerate().map(|(number, index)| {
            let rename = format!("alter index {schema}.{} rename to {}", self.names.index(number), index.name);
            std::iter::once(rename).chain(index.complete(schema)).collect::<Vec<_>>().join("; ")
        });
        indexes.collect::<Vec<_>>().join("; ")
    }
}
