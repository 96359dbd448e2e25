//! What can go wrong with the database, and what follows from it.

use std::fmt;
use std::sync::Arc;

use tokio_postgres::error::{DbError, SqlState};

/// An error of the database or of the way to it. Its text, also in `Debug`, carries no value of a
/// row and no password; for that reason the driver's error is not given as its source.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// PostgreSQL, or the connection to it, failed.
    #[error("{}", describe(.0))]
    Postgres(tokio_postgres::Error),
    /// A new connection could not be made.
    #[error("cannot connect: {}", describe(.0))]
    Connect(Arc<tokio_postgres::Error>),
    /// A value could not be sent, or one in the database could not be read.
    #[error("a value could not be sent to PostgreSQL or read from it")]
    Value(tokio_postgres::Error),
    /// A label of an enum that this version does not know.
    #[error("{0} has a label that this version does not know")]
    UnknownLabel(&'static str),
    /// A time that PostgreSQL cannot hold, as the time that figures refer to.
    #[error("as_of lies before what PostgreSQL's timestamptz can hold")]
    ImpossibleTime,
    /// No connection came about in time.
    #[error("no connection within {0:?}")]
    NoConnection(std::time::Duration),
    /// The server did not answer in time.
    #[error("no answer within {0:?}")]
    NoAnswer(std::time::Duration),
    /// A row that was just seen is gone: another program deletes rows.
    #[error("a row vanished while it was being used")]
    VanishedRow,
    /// The engine was shut down.
    #[error("the engine was shut down")]
    ShutDown,
    /// A migration did not run.
    #[error("a migration failed")]
    Migration(#[source] Box<refinery::Error>),
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("PostgreSQL: {} (SQLSTATE {})", error.message(), error.code().code()),
        None => "the connection to PostgreSQL failed".to_owned(),
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl StoreError {
    /// The SQLSTATE, where PostgreSQL itself spoke.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.db().map(|error| error.code().code())
    }

    /// Whether the same work may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.class(), ErrorClass::Transient | ErrorClass::Reconnect | ErrorClass::Resource)
    }

    pub(crate) fn db(&self) -> Option<&DbError> {
        match self {
            Self::Postgres(error) => error.as_db_error(),
            Self::Connect(error) => error.as_db_error(),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::VanishedRow => ErrorClass::Transient,
            Self::NoConnection(_) | Self::NoAnswer(_) => ErrorClass::Reconnect,
            Self::Migration(_) | Self::ShutDown | Self::ImpossibleTime => ErrorClass::Configuration,
            Self::Value(_) | Self::UnknownLabel(_) => ErrorClass::Poison,
            Self::Postgres(_) | Self::Connect(_) => {
                self.db().map_or(ErrorClass::Reconnect, |error| classify(error.code()))
            }
        }
    }
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ErrorClass {
    /// Same work again, in a new transaction.
    Transient,
    /// The statement took too long: again once, then in halves.
    TooLong,
    /// Same work again, on a new connection.
    Reconnect,
    /// The server lacks something: same work again, slowly.
    Resource,
    /// Some row of the transaction is refused: find its unit.
    Poison,
    /// Nobody knows: again, on a new connection, and then like [`Poison`](Self::Poison).
    Unknown,
    /// Nothing helps until somebody mends the database's set-up.
    Configuration,
    /// The engine did something that it must never do.
    Bug,
}

/// What follows from a SQLSTATE.
///
/// Source: PostgreSQL's appendix "Error Codes", its chapter "Serialization Failure Handling", and
/// Npgsql's `PostgresException.IsTransient`; the differences are argued in ARCHITECTURE.md.
pub(crate) fn classify(code: &SqlState) -> ErrorClass {
    match code.code() {
        // serialization failure, deadlock, lock timeout, idle and transaction timeouts, object in use
        "40001" | "40P01" | "55P03" | "25P03" | "25P04" | "57P05" | "55006" | "55000" => ErrorClass::Transient,
        // query cancelled: our own statement timeout, or somebody's pg_cancel_backend
        "57014" => ErrorClass::TooLong,
        // admin shutdown, crash shutdown, cannot connect now, too many connections, read-only,
        // unknown prepared statement, a pooler's own errors
        "57P01" | "57P02" | "57P03" | "53300" | "25006" | "26000" | "08P01" => ErrorClass::Reconnect,
        code if code.starts_with("08") => ErrorClass::Reconnect,
        // disk full, out of memory, configuration limit, I/O error, system error
        code if code.starts_with("53") || code.starts_with("58") => ErrorClass::Resource,
        // cardinality violation (a key twice in one statement), statement in a failed transaction,
        // wrong protocol use
        "21000" | "25P02" | "42P02" => ErrorClass::Bug,
        code if code.starts_with("07") => ErrorClass::Bug,
        // data exceptions, constraints, program limits, errors of triggers and of functions
        code if code.starts_with("22")
            || code.starts_with("23")
            || code.starts_with("44")
            || code.starts_with("54")
            || code.starts_with("38")
            || code.starts_with("39")
            || code.starts_with("2F")
            || code.starts_with("27")
            || code == "40002"
            || code.starts_with("P0")
            || code == "428C9" =>
        {
            ErrorClass::Poison
        }
        // wrong password, missing database, schema, table, column, privilege, wrong types
        code if code.starts_with("28")
            || code.starts_with("3D")
            || code.starts_with("3F")
            || code.starts_with("42") =>
        {
            ErrorClass::Configuration
        }
        // corruption
        "XX001" | "XX002" => ErrorClass::Configuration,
        // 0A000 (a cached plan whose result type changed, or a feature that a trigger lacks), XX000
        // (extensions raise it for passing trouble), and whatever comes in future
        _ => ErrorClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_codes() {
        for (codes, class) in [
            (&["40001", "40P01", "55P03"][..], ErrorClass::Transient),
            (&["XX000", "0A000", "ZZ999"], ErrorClass::Unknown),
            (&["57014"], ErrorClass::TooLong),
            (&["57P01", "57P03", "53300", "25006", "08006", "08P01", "26000"], ErrorClass::Reconnect),
            (&["53100", "53200", "58030"], ErrorClass::Resource),
            (
                &["22001", "22021", "22P05", "23505", "23514", "23503", "54000", "P0001", "38000", "428C9"],
                ErrorClass::Poison,
            ),
            (&["28P01", "3D000", "3F000", "42P01", "42501", "42703", "XX001"], ErrorClass::Configuration),
            (&["21000", "25P02", "42P02"], ErrorClass::Bug),
        ] {
            for code in codes {
                assert_eq!(classify(&SqlState::from_code(code)), class, "{code}");
            }
        }
    }
}
