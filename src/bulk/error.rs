//! Errors of a bulk load.

use std::io;

use super::spill::SpillError;
use crate::error::BulkStoreError;
use crate::unit::InvalidUnit;

/// Why a bulk load refused a unit, or ended. [`Invalid`](Self::Invalid) concerns only that unit; after any other error
/// the load has ended. The tables are then as they were before it began, except for [`BulkStoreError::CommitUnknown`].
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
    /// The unit breaks a rule. The load continues without it.
    #[error(transparent)]
    Invalid(#[from] InvalidUnit),
    /// The database cannot be loaded, or it failed.
    #[error(transparent)]
    Store(#[from] BulkStoreError),
    /// Data that exceeds memory could not be written to or read from files.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The load accepts no more units: it has ended, or is being finished.
    /// [`BulkLoad::finish`](crate::BulkLoad::finish) returns the reason.
    #[error("the bulk load accepts no more units: `finish` returns the reason")]
    Ended,
    /// The load was aborted, or dropped.
    #[error("the bulk load was aborted, and nothing was loaded")]
    Aborted,
    /// The load's own code panicked. Nothing was loaded, unless it was [`Committing`](crate::BulkPhase::Committing);
    /// the log has the phase.
    #[error(
        "the bulk load panicked: report it with the panic's message; nothing was loaded, unless it was committing, \
         which its log says"
    )]
    Panicked,
    /// Too many restaurants claim a `google_place_id` that other restaurants claim too: memory cannot hold the holder
    /// of each id.
    #[error(
        "more than {restaurants_max} restaurants claim a google_place_id that others claim too, and nothing was loaded: \
         look whether the input tells restaurants apart by it, or give the load more `BulkSettings::memory`"
    )]
    Contested {
        /// Maximum number of such restaurants.
        restaurants_max: usize,
    },
    /// The load's threads could not be started.
    #[error("the bulk load's threads cannot be started: look at the process's limits of threads and memory")]
    Thread(#[source] io::Error),
}

impl BulkError {
    /// The SQLSTATE, where PostgreSQL itself spoke.
    ///
    /// ```
    /// assert_eq!(graphsink::BulkError::Aborted.sqlstate(), None);
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Whether the same load may succeed later without a correction.
    ///
    /// ```
    /// assert!(!graphsink::BulkError::Aborted.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}
