//! Why a bulk load refused a unit, or ended.

use std::io;

use super::spill::SpillError;
use crate::error::BulkStoreError;
use crate::unit::InvalidUnit;

/// Why a bulk load did not take a unit, or ended. Unless it is [`Invalid`](Self::Invalid), which is that unit's affair,
/// the load is over; and unless it is [`BulkStoreError::CommitUnknown`], the tables are as they were before it began.
///
/// ```no_run
/// use graphsink::{BulkError, BulkLoad, UnitOfWork};
///
/// # async fn run(load: &BulkLoad, unit: UnitOfWork) -> Result<(), BulkError> {
/// match load.submit(unit).await {
///     Ok(number) => println!("unit {number}"),
///     Err(BulkError::Invalid(broken)) => eprintln!("left out, {}: {broken}", broken.rule()),
///     Err(over) => return Err(over),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The unit breaks a rule. The load goes on without it.
    #[error(transparent)]
    Invalid(#[from] InvalidUnit),
    /// The database cannot be loaded, or failed.
    #[error(transparent)]
    Store(#[from] BulkStoreError),
    /// What outgrew memory could not be kept.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The load takes no more units: it has ended, or is being finished. What ended it is told by
    /// [`BulkLoad::finish`](crate::BulkLoad::finish).
    #[error("the bulk load takes no more units: `finish` says why")]
    Ended,
    /// The load was aborted, or dropped.
    #[error("the bulk load was aborted, and nothing was loaded")]
    Aborted,
    /// The load's own code panicked. Nothing was loaded, unless it was
    /// [`Committing`](crate::BulkPhase::Committing): the log tells the phase.
    #[error(
        "the bulk load panicked: report it with the panic's message; nothing was loaded, unless it was committing, \
         which its log says"
    )]
    Panicked,
    /// So many restaurants claim a `google_place_id` that others claim too that memory does not hold who has which.
    #[error(
        "more than {restaurants_max} restaurants claim a google_place_id that others claim too, and nothing was loaded: \
         look whether the input tells restaurants apart by it, or give the load more `BulkSettings::memory`"
    )]
    Contested {
        /// As many can be told apart.
        restaurants_max: usize,
    },
    /// The load's threads could not be started.
    #[error("the bulk load's threads cannot be started: look at the process's limits of threads and memory")]
    Thread(#[source] io::Error),
}

impl BulkError {
    /// Whether the same load may succeed later although nothing is mended.
    ///
    /// ```
    /// assert!(!graphsink::BulkError::Aborted.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}
