//! What a load has done.

use std::time::Duration;

use super::error::BulkError;
use super::outcomes::{BulkOutcomes, BulkRejections};
use super::progress::BulkPhase;
use super::refusals::Refusals;
use super::spill::{SpillError, Spool};

/// What a [`BulkLoad`](crate::BulkLoad) has done, all of which is durable. Files of rejections and outcomes are there
/// as long as it is.
///
/// ```no_run
/// # async fn run(load: graphsink::BulkLoad) -> Result<(), graphsink::BulkError> {
/// let report = load.finish().await?;
/// println!("{} units committed, {} mentions", report.committed, report.mentions.written);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct BulkReport {
    /// Units that were accepted.
    pub units: u64,
    /// Units that were committed.
    pub committed: u64,
    /// Units that were rejected.
    pub rejected: u64,
    /// Rows of `entities`.
    pub entities: BulkRows,
    /// Rows of `connections`.
    pub connections: BulkRows,
    /// Rows of `mentions`.
    pub mentions: BulkRows,
    /// Bytes that were written to the spill directory, merges of many files included.
    pub spilled_bytes: u64,
    /// How long each phase took, in their order.
    pub phases: Vec<(BulkPhase, Duration)>,
    pub(super) refusals: Refusals,
    pub(super) outcomes: Option<Spool>,
    /// Bytes for what is read of files at once.
    pub(super) memory: usize,
}

/// What became of a load that was [aborted](crate::BulkLoad::abort), which may have come too late.
///
/// ```no_run
/// use graphsink::BulkEnd;
///
/// # async fn run(load: graphsink::BulkLoad) -> Result<(), graphsink::BulkError> {
/// match load.abort().await {
///     BulkEnd::Aborted => println!("nothing was loaded"),
///     BulkEnd::Committed(report) => println!("{} units were loaded", report.committed),
///     BulkEnd::Failed(error) => return Err(error),
///     _ => println!("another clone knows"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BulkEnd {
    /// Nothing was loaded, and the tables are as they were.
    Aborted,
    /// The commit had been sent: all was loaded.
    Committed(Box<BulkReport>),
    /// It had failed for another reason: the tables are as they were, unless that is
    /// [`BulkStoreError::CommitUnknown`](crate::BulkStoreError::CommitUnknown).
    Failed(BulkError),
    /// A clone is being finished, or was: what became of the load is told there.
    Told,
}

/// Rows of one table.
///
/// ```
/// let rows = graphsink::BulkRows { received: 5, written: 2 };
/// assert_eq!(rows.coalesced(), 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BulkRows {
    /// As submitted, in units that were committed.
    pub received: u64,
    /// As written: one for all that was said of a row.
    pub written: u64,
}

impl BulkRows {
    /// Those that were received together with another version of the same row, and written once.
    ///
    /// ```
    /// assert_eq!(graphsink::BulkRows { received: 5, written: 5 }.coalesced(), 0);
    /// ```
    #[must_use]
    pub const fn coalesced(self) -> u64 {
        self.received.saturating_sub(self.written)
    }
}

impl BulkReport {
    /// The rejected units with their numbers and reasons, in the order of submission. May be asked for any number of
    /// times.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// ```no_run
    /// # fn show(report: &graphsink::BulkReport) -> Result<(), graphsink::SpillError> {
    /// for rejected in report.rejections()? {
    ///     let (number, why) = rejected?;
    ///     println!("unit {number}: {why}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rejections(&self) -> Result<BulkRejections, SpillError> {
        Ok(BulkRejections(Some(self.refusals.clone().into_reader(self.memory)?)))
    }

    /// What became of every unit, with its number, in the order of submission. Every row of a committed unit is told as
    /// inserted, as all of them were by one transaction. Nothing unless
    /// [`BulkSettings::keep_outcomes`](crate::BulkSettings::keep_outcomes) was asked for. May be asked for any number
    /// of times.
    ///
    /// # Errors
    /// If the files cannot be read.
    ///
    /// ```no_run
    /// # fn show(report: &graphsink::BulkReport) -> Result<(), graphsink::SpillError> {
    /// for told in report.outcomes()?.into_iter().flatten() {
    ///     let (number, outcome) = told?;
    ///     if let Some(committed) = outcome.committed() {
    ///         println!("unit {number}: {:?}", committed.temp_ids());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn outcomes(&self) -> Result<Option<BulkOutcomes>, SpillError> {
        let Some(log) = &self.outcomes else { return Ok(None) };
        let refusals = self.refusals.clone().into_reader(self.memory)?;
        BulkOutcomes::new(log.clone().into_reader(), refusals).map(Some)
    }
}
