//! Errors of the handle. What becomes of an accepted unit is an [`Outcome`](crate::Outcome), not an
//! error; what PostgreSQL says is a [`StoreError`].

use std::fmt;

use crate::store::StoreError;
use crate::unit::{InvalidUnit, UnitOfWork};

/// Why a unit was not accepted. Where the unit is not to blame it is given back.
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
    #[error("the engine accepts no more units")]
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be reached, or is not fit for use.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// A table is missing from the schema.
    #[error("schema {schema} has no table {table}: run `Migrations::all().run(&config)` first")]
    NotMigrated {
        /// The configured schema.
        schema: String,
        /// The first table that is missing.
        table: &'static str,
    },
    /// The server is older than PostgreSQL 14.
    #[error("the server is PostgreSQL {version}, graphsink needs 14 or newer")]
    ServerTooOld {
        /// Its major version.
        version: i32,
    },
    /// The database's encoding is not UTF-8.
    #[error("the database is encoded in {encoding}, graphsink needs UTF8")]
    Encoding {
        /// `server_encoding`.
        encoding: String,
    },
    /// The engine's thread could not be started.
    #[error("the engine's thread cannot be started")]
    Thread(#[from] std::io::Error),
}
