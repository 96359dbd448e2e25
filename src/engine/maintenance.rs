//! What an engine does to rows that are there, when it is asked to.

use uuid::Uuid;

use super::handle::Engine;
use crate::error::{StoreError, SubmitError};
use crate::outcome::Outcome;
use crate::record::{Timestamp, truncate};
use crate::store::{DeadLetter, RefreshReport};

/// What became of the dead letters that were submitted again.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
/// let report = engine.resubmit_dead_letters().await?;
/// println!("{} committed, {} rejected again", report.committed, report.rejected);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ResubmitReport {
    /// Committed, and dead letters no more.
    pub committed: u64,
    /// Rejected once more; the table has the new reason.
    pub rejected: u64,
    /// Left alone: what the table holds breaks a rule, or is no unit.
    pub invalid: u64,
    /// Left for another time: no outcome until the deadline, or the engine closed.
    pub unavailable: u64,
}

impl Engine {
    /// Brings recent counts, scores and activity levels of all connections to `as_of`, in steps of
    /// 1,000 connections, each a transaction of its own. Epochs keep the connections that they
    /// touch up to date by themselves.
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
    /// When the database cannot be used; what was brought up to date until then stays so.
    pub async fn refresh_activity(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        self.with_store(move |store| async move { store.refresh(truncate(as_of)).await }).await
    }

    /// Submits the units in `graphsink_dead_letters` again, those that are there now, oldest first,
    /// and deletes each that is committed. Call it when the cause of the rejections was mended. It
    /// may be called at any time and by several processes at once: submitting a unit twice does what
    /// submitting it once does.
    ///
    /// The engine needs not be one that keeps dead letters itself; if it is, a unit that is rejected
    /// again has its new reason in the table.
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
    /// When the table cannot be read or written; what was committed until then stays so.
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

    /// Submits one page of dead letters; gives those that are dead letters no more.
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
                    // The document was changed by hand: its new content is a dead letter of its own.
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
