//! The result of a load.

use std::time::Duration;

use super::error::BulkError;
use super::outcomes::{BulkOutcomes, BulkRejections};
use super::progress::BulkPhase;
use super::refusals::Refusals;
use super::spill::{SpillError, Spool};

/// The result of a [`BulkLoad`](crate::BulkLoad), all of which is durable. The files of rejections and outcomes exist
/// as long as this value.
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
#[must_use = "it says how many units were rejected"]
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
    /// Bytes written to the spill directory, including merges of many files.
    pub spilled_bytes: u64,
    /// The time of each phase, in order.
    pub phases: Vec<(BulkPhase, Duration)>,
    pub(super) refusals: Refusals,
    pub(super) outcomes: Option<Spool>,
    /// Bytes for reading files.
    pub(super) memory: usize,
}

/// The result of a load that was [aborted](crate::BulkLoad::abort), possibly too late.
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
    /// The commit had already been sent: everything was loaded.
    Committed(Box<BulkReport>),
    /// It had failed for another reason: the tables are as they were, unless the error is
    /// [`BulkStoreError::CommitUnknown`](crate::BulkStoreError::CommitUnknown).
    Failed(BulkError),
    /// A clone is being or was finished, and its caller gets the result.
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
    /// Rows as submitted, in committed units.
    pub received: u64,
    /// Rows as written: each database row once.
    pub written: u64,
}

impl BulkRows {
    /// Number of submitted rows that were coalesced with another version of the same row.
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
    /// The rejected units with their numbers and reasons, in the order of submission. May be called any number of
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

    /// The outcome of every unit, with its number, in the order of submission. Every row of a committed unit is
    /// reported as inserted, because one transaction inserted all of them. `None` unless
    /// [`BulkSettings::keep_outcomes`](crate::BulkSettings::keep_outcomes) was set. May be called any number of times.
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
