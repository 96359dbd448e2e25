//! Builds keys, indexes, statistics and foreign keys after the rows were written.

use std::time::Instant;

use super::definition::Definitions;
use super::plan::{BuildStep, Step, steps};
use super::transaction::{BulkTransaction, Phase, step_failed};
use crate::error::BulkStoreError;

impl BulkTransaction {
    /// Builds keys and indexes, gathers statistics, and checks foreign keys. Each step is reported before it begins.
    pub(crate) async fn build(&mut self, mut progress: impl FnMut(BuildStep<'_>)) -> Result<(), BulkStoreError> {
        debug_assert_eq!(self.phase, Phase::Bare);
        self.phase = Phase::Failed;
        let definitions = self.definitions.take().expect("the tables are bare, so what they had is remembered");
        let plan = steps(&definitions, self.session.schema());
        let count = plan.len();
        for (number, Step { what, table, name, sql }) in plan.iter().enumerate() {
            progress(BuildStep { number, steps: count, what: *what, table: *table, name });
            let start = Instant::now();
            let done = self.run(sql).await;
            done.map_err(|error| step_failed(&format!("{} {name}", what.doing()), error))?;
            tracing::debug!(step = what.doing(), name, took_ms = start.elapsed().as_millis() as u64, "built");
        }
        let (now, _) = Box::pin(Definitions::read(self.session.client(), &self.oids)).await?;
        let differences = definitions.differences(&now);
        if !differences.is_empty() {
            return Err(BulkStoreError::Altered { differences });
        }
        self.record_attempt().await.map_err(|error| step_failed("recording the attempt", error))?;
        self.phase = Phase::Built;
        Ok(())
    }
}
