//! Maintenance of existing rows, on request.

use uuid::Uuid;

use super::handle::Engine;
use crate::error::{StoreError, SubmitError};
use crate::outcome::Outcome;
use crate::record::{Timestamp, truncate};
use crate::store::{DeadLetter, RefreshReport};

/// The result of submitting dead letters again.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
/// let report = engine.resubmit_dead_letters().await?;
/// println!("{} committed, {} rejected again", report.committed, report.rejected);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[must_use = "it says how many units were rejected again"]
pub struct ResubmitReport {
    /// Committed, and deleted from the dead letters.
    pub committed: u64,
    /// Rejected again; the table has the new reason.
    pub rejected: u64,
    /// Not submitted: the table's content breaks a rule or is not a unit.
    pub invalid: u64,
    /// Kept for a later call: no outcome until the deadline, or the engine closed.
    pub unavailable: u64,
}

impl Engine {
    /// Updates recent counts, scores and activity levels of all connections to `as_of`, in steps of 1,000 connections,
    /// each in its own transaction. Epochs update the connections that they touch by themselves.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
    /// let report = engine.refresh_activity(chrono::Utc::now()).await?;
    /// println!("{} of {} connections changed", report.updated, report.connections);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Fails when the database cannot be used; the steps completed until then remain.
    pub async fn refresh_activity(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        self.with_store(move |store| async move { store.refresh(truncate(as_of)).await }).await
    }

    /// Submits the units that are now in `graphsink_dead_letters` again, oldest first, and deletes each that is
    /// committed. Call it when the cause of the rejections was corrected. It may be called at any time and by several
    /// processes at once: submitting a unit twice has the same effect as submitting it once.
    ///
    /// The engine need not keep dead letters itself. If it does, a unit that is rejected again has its new reason in
    /// the table.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
    /// let report = engine.resubmit_dead_letters().await?;
    /// println!("{} committed, {} rejected again", report.committed, report.rejected);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Fails when the table cannot be read or written; units committed until then remain committed.
    pub async fn resubmit_dead_letters(&self) -> Result<ResubmitReport, StoreError> {
        let mut report = ResubmitReport::default();
        let until = self.with_store(|store| async move { store.server_time().await }).await?;
        let mut after = None;
        loop {
            let page = self.with_store(move |store| async move { store.dead_letters(after, until).await }).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = Some((last.first_rejected_at, last.id));
            let done = self.resubmit(page, &mut report).await;
            self.with_store(move |store| async move { store.delete_dead_letters(&done).await }).await?;
        }
    }

    /// Submits one page of dead letters; returns those that can be deleted.
    async fn resubmit(&self, page: Vec<DeadLetter>, report: &mut ResubmitReport) -> Vec<Uuid> {
        let mut waiting = Vec::new();
        for DeadLetter { id, unit, .. } in page {
            let Some(unit) = unit else {
                report.invalid += 1;
                continue;
            };
            match self.submit(unit).await {
                Ok(receipt) => waiting.push((id, receipt)),
                Err(SubmitError::Invalid(_)) => report.invalid += 1,
                Err(SubmitError::Full(_) | SubmitError::Closed(_)) => report.unavailable += 1,
            }
        }
        let mut done = Vec::new();
        for (id, receipt) in waiting {
            match receipt.await {
                Outcome::Committed(_) => {
                    report.committed += 1;
                    done.push(id);
                }
                Outcome::Rejected(rejection) => {
                    report.rejected += 1;
                    // The document was edited by hand: its new content is a separate dead letter.
                    if rejection.dead_letter.is_some_and(|kept| kept != id) {
                        done.push(id);
                    }
                }
                Outcome::Unavailable(_) => report.unavailable += 1,
            }
        }
        done
    }
}
