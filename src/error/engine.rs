//! Errors of the handle.

use std::fmt;

use super::store::StoreError;
use super::unfit::UnfitTable;
use crate::unit::{InvalidUnit, UnitOfWork};

/// Why a unit was not accepted. Where the unit is not to blame it is given back.
///
/// ```no_run
/// use graphsink::SubmitError;
///
/// # fn run(engine: &graphsink::Engine, unit: graphsink::UnitOfWork, later: &mut Vec<graphsink::UnitOfWork>) {
/// match engine.try_submit(unit) {
///     Ok(receipt) => drop(receipt), // accepted; its outcome is not awaited
///     Err(SubmitError::Full(unit) | SubmitError::Closed(unit)) => later.push(*unit),
///     Err(SubmitError::Invalid(broken)) => eprintln!("{}: {broken}", broken.rule()),
///     Err(other) => eprintln!("{other}"),
/// }
/// # }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The unit breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidUnit),
    /// `try_submit` found no room; `submit` waits instead.
    #[error("the engine is full: wait, or use `submit`, which waits")]
    Full(Box<UnitOfWork>),
    /// The engine is draining, was shut down, or failed.
    #[error(
        "the engine accepts no more units (`Engine::health` says why): submit this one, which is given back, to a new engine"
    )]
    Closed(Box<UnitOfWork>),
}

impl SubmitError {
    /// The unit, where it is given back: unless it is invalid itself.
    ///
    /// ```no_run
    /// # fn run(engine: &graphsink::Engine, unit: graphsink::UnitOfWork, later: &mut Vec<graphsink::UnitOfWork>) {
    /// if let Err(refused) = engine.try_submit(unit) {
    ///     later.extend(refused.into_unit());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn into_unit(self) -> Option<UnitOfWork> {
        match self {
            Self::Full(unit) | Self::Closed(unit) => Some(*unit),
            Self::Invalid(_) => None,
        }
    }
}

/// Without the unit: row contents do not belong in logs.
impl fmt::Debug for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => f.debug_tuple("Invalid").field(invalid).finish(),
            Self::Full(_) => f.write_str("Full"),
            Self::Closed(_) => f.write_str("Closed"),
        }
    }
}

/// Why an engine did not start.
///
/// ```no_run
/// use graphsink::{Config, Engine, Migrations, StartError};
///
/// # async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = match Engine::start(config.clone()).await {
///     Err(StartError::NotMigrated { .. }) => {
///         Migrations::all().run(&config).await?;
///         Engine::start(config).await?
///     }
///     started => started?,
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be reached, or is not fit for use.
    #[error("the database cannot be used: check the connection string, that the server runs, and the role's rights")]
    Store(#[from] StoreError),
    /// A table is missing from the schema.
    #[error("schema {schema} has no table {table}: run `Migrations::all().run(&config)` first")]
    NotMigrated {
        /// The configured schema.
        schema: String,
        /// The first table that is missing.
        table: &'static str,
    },
    /// A table is not what the migrations made, in a way that the engine cannot work with.
    #[error("schema {schema} cannot be used: {unfit}")]
    Unfit {
        /// The configured schema.
        schema: String,
        /// The difference.
        unfit: UnfitTable,
    },
    /// The server is older than PostgreSQL 14.
    #[error("the server is PostgreSQL {version}, graphsink needs 14 or newer: upgrade it, or connect to another")]
    ServerTooOld {
        /// Its major version.
        version: i32,
    },
    /// The database's encoding is not UTF-8.
    #[error(
        "the database is encoded in {encoding}, graphsink needs UTF8: use one made by `create database .. encoding 'UTF8' template template0`"
    )]
    Encoding {
        /// `server_encoding`.
        encoding: String,
    },
    /// The engine's thread could not be started.
    #[error("the engine's thread cannot be started: look at the process's limits of threads and memory")]
    Thread(#[from] std::io::Error),
}

impl StartError {
    /// The SQLSTATE, where PostgreSQL itself refused.
    ///
    /// ```
    /// use graphsink::{StartError, StoreError};
    ///
    /// assert_eq!(StartError::Store(StoreError::ShutDown).sqlstate(), None, "PostgreSQL did not say that");
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Whether a later start may succeed although nothing is mended.
    ///
    /// ```
    /// use graphsink::StartError;
    ///
    /// assert!(!StartError::ServerTooOld { version: 13 }.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::said;

    #[test]
    fn a_refused_submission_gives_the_unit_back() {
        let unit = || Box::new(UnitOfWork::new());
        assert!(SubmitError::Full(unit()).into_unit().is_some());
        assert!(SubmitError::Closed(unit()).into_unit().is_some());
        assert!(SubmitError::Invalid(UnitOfWork::new().validate(1).unwrap_err()).into_unit().is_none());
    }

    #[tokio::test]
    async fn a_start_is_retryable_if_the_server_may_come_up_by_itself() {
        let starting_up = StartError::from(StoreError::connect(said("57P03").await));
        assert_eq!((starting_up.sqlstate(), starting_up.is_retryable()), (Some("57P03"), true));
        let wrong_password = StartError::from(StoreError::connect(said("28P01").await));
        assert_eq!((wrong_password.sqlstate(), wrong_password.is_retryable()), (Some("28P01"), false));
        let old = StartError::ServerTooOld { version: 13 };
        assert_eq!((old.sqlstate(), old.is_retryable()), (None, false));
    }
}
