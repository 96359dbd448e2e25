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
        /// What differs.
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
