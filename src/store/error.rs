//! What can go wrong with the database, and what follows from it.

use std::fmt;
use std::sync::Arc;

use tokio_postgres::error::DbError;

use super::shape::{self, UnfitTable};

/// An error of the database or of the way to it. Its text, also in `Debug`, carries no value of a
/// row and no password; for that reason the driver's error is not given as its source.
///
/// ```
/// let error = graphsink::StoreError::NoAnswer(std::time::Duration::from_secs(31));
/// assert!(error.to_string().starts_with("no answer within 31s: the server or the network in between is silent"));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// PostgreSQL, or the connection to it, failed.
    #[error("{}", describe(.0))]
    Postgres(tokio_postgres::Error),
    /// A new connection could not be made.
    #[error("cannot connect: {}", describe_attempt(.0))]
    Connect(Arc<tokio_postgres::Error>),
    /// A session could not be made fit for a transaction: its statements could not be prepared, or
    /// no transaction could be begun. That is never the fault of a unit.
    #[error("a session cannot begin a transaction: {}", describe_session(.0))]
    Begin(tokio_postgres::Error),
    /// A value could not be sent, or one in the database could not be read.
    #[error(
        "a value could not be sent to PostgreSQL or read from it: compare the columns' types with those of the migrations"
    )]
    Value(tokio_postgres::Error),
    /// A label of an enum that this version does not know.
    #[error("{0} has a label that this version does not know: upgrade graphsink")]
    UnknownLabel(&'static str),
    /// A time that PostgreSQL cannot hold, as the time that figures refer to.
    #[error("as_of lies before what PostgreSQL's timestamptz can hold: fix a time after 4713 BC")]
    ImpossibleTime,
    /// No connection came about in time.
    #[error("no connection within {0:?}: the server cannot be reached, or all connections of the pool are in use")]
    NoConnection(std::time::Duration),
    /// The server did not answer in time.
    #[error(
        "no answer within {0:?}: the server or the network in between is silent; look at the server's load and log"
    )]
    NoAnswer(std::time::Duration),
    /// A row that was just seen is gone: another program deletes rows.
    #[error("a row vanished while it was being used: another program deletes rows, and should not while engines write")]
    VanishedRow,
    /// The tables are no longer what the migrations made, in a way that the engine cannot work with.
    #[error("a table was altered: {0}")]
    Unfit(UnfitTable),
    /// Rows that were sent were not written: a trigger or a rule left them out.
    #[error(
        "not all rows were written that were sent, and what may leave them out is: {triggers}; let triggers return the row, or raise what is wrong with it"
    )]
    LeftOut {
        /// The table, if it is the only one with such triggers.
        table: Option<String>,
        /// The triggers and rules that may have done it, with their tables.
        triggers: String,
    },
    /// One unit after another was refused for the same reason, and nothing got through in between.
    #[error("one unit after another is refused for the same reason, so it is taken to be none of theirs: {0}")]
    Repeated(Box<StoreError>),
    /// The engine's own code panicked while it wrote; nothing of it was committed.
    #[error("the engine panicked while it wrote: report it with the panic's message; nothing of it was committed")]
    Panicked,
    /// The engine was shut down.
    #[error("the engine was shut down")]
    ShutDown,
    /// A migration did not run.
    #[error("a migration failed and left nothing: mend the cause and run the migrations again")]
    Migration(#[source] Box<refinery::Error>),
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) if may_quote_a_row(error) => {
            let part = |what: &str, name: Option<&str>| name.map_or_else(String::new, |name| format!("{what}{name}"));
            let table = part(" of ", error.table());
            let (column, constraint) = (part(", column ", error.column()), part(", constraint ", error.constraint()));
            let hint = if is_of_others(error) {
                ": it is none that the engine writes, so look for a trigger, or what else was added to the tables"
            } else {
                ""
            };
            format!("PostgreSQL refused a row{table}{column}{constraint} (SQLSTATE {}){hint}", error.code().code())
        }
        Some(error) => format!("PostgreSQL: {} (SQLSTATE {})", error.message(), error.code().code()),
        None => "the connection to PostgreSQL failed".to_owned(),
    }
}

/// The tables that the engine writes.
const OWN_TABLES: [&str; 7] = [
    "entities",
    "connections",
    "mentions",
    "entity_redirects",
    "connection_redirects",
    "graphsink_attempts",
    "graphsink_dead_letters",
];

/// Whether the server speaks of a table, or a column, that the engine does not write: of one that a trigger writes, perhaps.
/// Then no unit is at fault.
fn is_of_others(error: &DbError) -> bool {
    let Some(table) = error.table() else { return false };
    if !OWN_TABLES.contains(&table) {
        return true;
    }
    // Not null violations name their column.
    error.code().code() == "23502" && error.column().is_some_and(|column| shape::is_foreign(table, column))
}

/// Before a transaction has begun no row was sent, so the server's message is about the session and may be told; unless a
/// function of the database's owner speaks.
fn describe_session(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) if error.routine() == Some("exec_stmt_raise") => {
            format!("a function of the database refused it (SQLSTATE {})", error.code().code())
        }
        Some(error) => format!("PostgreSQL: {} (SQLSTATE {})", error.message(), error.code().code()),
        None => "the connection to PostgreSQL failed".to_owned(),
    }
}

/// Whether the server's message may hold values: it refuses some, or a function of the database's owner speaks, with
/// whatever SQLSTATE that one chose.
fn may_quote_a_row(error: &DbError) -> bool {
    matches!(classify(error.code().code()), ErrorClass::Poison | ErrorClass::Unknown)
        || error.routine() == Some("exec_stmt_raise")
}

/// Before there is a connection no value has been sent, and the driver never quotes a password: it may say everything.
fn describe_attempt(error: &tokio_postgres::Error) -> String {
    if error.as_db_error().is_some() {
        return describe(error);
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl StoreError {
    /// The SQLSTATE, where PostgreSQL itself spoke.
    ///
    /// ```
    /// assert_eq!(graphsink::StoreError::ShutDown.sqlstate(), None, "PostgreSQL did not say that");
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.db().map(|error| error.code().code())
    }

    /// Whether the same work may succeed later without anybody mending anything.
    ///
    /// ```
    /// use graphsink::StoreError;
    ///
    /// assert!(StoreError::NoAnswer(std::time::Duration::from_secs(31)).is_retryable());
    /// assert!(!StoreError::ShutDown.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.class(), ErrorClass::Transient | ErrorClass::Reconnect | ErrorClass::Resource)
    }

    pub(crate) fn db(&self) -> Option<&DbError> {
        match self {
            Self::Postgres(error) | Self::Begin(error) => error.as_db_error(),
            Self::Connect(error) => error.as_db_error(),
            Self::Repeated(error) => error.db(),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::VanishedRow => ErrorClass::Transient,
            Self::NoConnection(_) | Self::NoAnswer(_) => ErrorClass::Reconnect,
            Self::Migration(_) | Self::ShutDown | Self::ImpossibleTime | Self::Unfit(_) | Self::Repeated(_) => {
                ErrorClass::Configuration
            }
            Self::UnknownLabel(_) | Self::LeftOut { .. } => ErrorClass::Poison,
            Self::Value(_) | Self::Panicked => ErrorClass::Unknown,
            Self::Postgres(_) => self.class_of_code(),
            // On a standby `begin .. read write` is 0A000, elsewhere a doubtful code: no unit is to blame.
            Self::Connect(_) | Self::Begin(_) => match self.class_of_code() {
                ErrorClass::Poison | ErrorClass::Unknown | ErrorClass::TooLong => ErrorClass::Reconnect,
                class => class,
            },
        }
    }

    /// Whether another writer inserted a connection after it was looked for: who looks again finds it. (While an index is
    /// built anew, the old one has a suffix to its name.)
    pub(crate) fn is_race(&self) -> bool {
        self.db().is_some_and(|error| {
            error.code().code() == "23505"
                && error.table() == Some("connections")
                && error.constraint().is_some_and(|name| name.starts_with("connections_key"))
        })
    }

    fn class_of_code(&self) -> ErrorClass {
        self.db().map_or(ErrorClass::Reconnect, |error| match error.routine() {
            // "cached plan must not change result type": a table was altered, and what was prepared on this connection is
            // of no use any more. So it may be on every other connection of the pool, one after the other: no number of
            // attempts makes it some unit's fault. The code alone, 0A000, has many reasons; the message is translated, the
            // name of the server's function is not.
            Some("RevalidateCachedQuery") => ErrorClass::Reconnect,
            _ => match classify(error.code().code()) {
                ErrorClass::Poison if is_of_others(error) => ErrorClass::Configuration,
                // A row that is too big for an index names its table. What names none is a limit of the server: the stop
                // before transaction ids wrap around, a full queue of notifications.
                ErrorClass::Poison if error.code().code() == "54000" && error.table().is_none() => ErrorClass::Resource,
                class => class,
            },
        })
    }

    /// Whether the database as a whole cannot be used, for this epoch and for any other: nobody can
    /// connect, the set-up is broken, a resource is used up, or the server takes no writes.
    pub(crate) fn is_systemic(&self) -> bool {
        match self.class() {
            ErrorClass::Resource | ErrorClass::Configuration => true,
            ErrorClass::Reconnect => {
                matches!(self, Self::Connect(_) | Self::NoConnection(_))
                    || matches!(self.sqlstate(), Some("25006" | "53300" | "57P03"))
                    // Not a session that was lost, or ended, before it began.
                    || matches!(self, Self::Begin(_)) && self.db().is_some() && self.class_of_code() != ErrorClass::Reconnect
            }
            _ => false,
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

/// What follows from a SQLSTATE, or from all that begin with the same characters; the longest match
/// counts. What matches nothing is [`Unknown`](ErrorClass::Unknown).
///
/// Source: PostgreSQL's appendix "Error Codes", its chapter "Serialization Failure Handling", and
/// Npgsql's `PostgresException.IsTransient`; the differences are argued in ARCHITECTURE.md.
#[rustfmt::skip]
const CLASSES: &[(&str, ErrorClass)] = &[
    ("07", ErrorClass::Bug),              // dynamic SQL error: wrong use of the protocol
    ("08", ErrorClass::Reconnect),        // connection exceptions; 08P01 is how poolers report all of theirs
    ("21000", ErrorClass::Bug),           // cardinality violation: a key twice in one statement
    ("22", ErrorClass::Poison),           // data exceptions
    ("23", ErrorClass::Poison),           // constraints
    ("25006", ErrorClass::Reconnect),     // read-only: a standby, or a primary that became one
    ("25P02", ErrorClass::Bug),           // statement in a failed transaction
    ("25P03", ErrorClass::Transient),     // idle in transaction for too long
    ("25P04", ErrorClass::Transient),     // transaction timeout
    ("26000", ErrorClass::Reconnect),     // unknown prepared statement: the session is not the one that it was
    ("27", ErrorClass::Poison),           // triggered data change
    ("28", ErrorClass::Configuration),    // wrong user or password
    ("2F", ErrorClass::Poison),           // error in an SQL function
    ("38", ErrorClass::Poison),           // error in a function, external
    ("39", ErrorClass::Poison),           // error in a function, its call
    ("3D", ErrorClass::Configuration),    // no such database
    ("3F", ErrorClass::Configuration),    // no such schema
    ("40001", ErrorClass::Transient),     // serialization failure
    ("40002", ErrorClass::Poison),        // integrity violation at the end of the transaction
    ("40003", ErrorClass::Transient),     // nobody knows; at a commit the fence is asked first
    ("40P01", ErrorClass::Transient),     // deadlock
    ("42", ErrorClass::Configuration),    // no such table, column or privilege; wrong types
    ("428C9", ErrorClass::Poison),        // a generated column was written
    ("42P02", ErrorClass::Bug),           // no such parameter
    ("42P05", ErrorClass::Reconnect),     // a prepared statement of that name is there: another client's, before a pooler
    ("44", ErrorClass::Poison),           // check option of a view
    ("53", ErrorClass::Resource),         // disk full, out of memory, a limit of the configuration
    ("53300", ErrorClass::Reconnect),     // too many connections
    ("54", ErrorClass::Poison),           // program limits: a row too big for an index
    ("55000", ErrorClass::Resource),      // not in prerequisite state: updates published without a replica identity, ..
    ("55006", ErrorClass::Transient),     // object in use
    ("55P03", ErrorClass::Transient),     // lock timeout
    ("57014", ErrorClass::TooLong),       // cancelled: our own statement timeout, or somebody's pg_cancel_backend
    ("57P01", ErrorClass::Reconnect),     // shutdown by the administrator
    ("57P02", ErrorClass::Reconnect),     // shutdown by a crash
    ("57P03", ErrorClass::Reconnect),     // cannot connect now
    ("57P05", ErrorClass::Transient),     // idle session timeout
    ("58", ErrorClass::Resource),         // I/O and other system errors
    ("P0", ErrorClass::Poison),           // raised by a trigger
    ("XX001", ErrorClass::Configuration), // corrupt data
    ("XX002", ErrorClass::Configuration), // corrupt index
    // Unknown on purpose: 0A000 (a cached plan whose result type changed, or a feature that a trigger
    // lacks), XX000 (extensions raise it for passing trouble), and whatever comes in future.
];

fn classify(code: &str) -> ErrorClass {
    let matching = CLASSES.iter().filter(|(prefix, _)| code.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map_or(ErrorClass::Unknown, |(_, class)| *class)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_codes() {
        for (codes, class) in [
            (&["40001", "40P01", "55P03"][..], ErrorClass::Transient),
            (&["XX000", "0A000", "ZZ999"], ErrorClass::Unknown),
            (&["57014"], ErrorClass::TooLong),
            (&["57P01", "57P03", "53300", "25006", "08006", "08P01", "26000", "42P05"], ErrorClass::Reconnect),
            (&["53100", "53200", "58030"], ErrorClass::Resource),
            (
                &["22001", "22021", "22P05", "23505", "23514", "23503", "54000", "P0001", "38000", "428C9"],
                ErrorClass::Poison,
            ),
            (&["28P01", "3D000", "3F000", "42P01", "42501", "42703", "XX001"], ErrorClass::Configuration),
            (&["21000", "25P02", "42P02"], ErrorClass::Bug),
        ] {
            for code in codes {
                assert_eq!(classify(code), class, "{code}");
            }
        }
    }

    #[test]
    fn the_table_is_in_order_and_says_nothing_twice() {
        assert!(CLASSES.is_sorted_by(|left, right| left.0 < right.0));
    }

    /// PostgreSQL's error as the driver reports it: a server that refuses to say anything else.
    pub(in crate::store) async fn said(code: &str) -> tokio_postgres::Error {
        use tokio::io::AsyncWriteExt;
        let (client, mut server) = tokio::io::duplex(4_096);
        let fields = format!("SERROR\0VERROR\0C{code}\0Mthe message\0Dthe secret value\0\0");
        let mut message = vec![b'E'];
        message.extend_from_slice(&(fields.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(fields.as_bytes());
        server.write_all(&message).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("somebody");
        config.connect_raw(client, tokio_postgres::NoTls).await.err().unwrap()
    }

    /// A connection that ends without a word.
    async fn silence() -> tokio_postgres::Error {
        let (client, _) = tokio::io::duplex(4_096);
        let mut config = tokio_postgres::Config::new();
        config.user("somebody");
        config.connect_raw(client, tokio_postgres::NoTls).await.err().unwrap()
    }

    #[tokio::test]
    async fn an_error_says_what_the_server_said_and_no_value_of_a_row() {
        let error = StoreError::from(said("42501").await);
        assert_eq!(error.sqlstate(), Some("42501"));
        assert_eq!(error.to_string(), "PostgreSQL: the message (SQLSTATE 42501)");
        assert_eq!(format!("{error:?}"), "StoreError(PostgreSQL: the message (SQLSTATE 42501))");
        // Messages of these may quote a row.
        assert_eq!(StoreError::from(said("23514").await).to_string(), "PostgreSQL refused a row (SQLSTATE 23514)");
        assert_eq!(StoreError::Begin(said("0A000").await).sqlstate(), Some("0A000"));
        assert_eq!(StoreError::Connect(Arc::new(said("28P01").await)).sqlstate(), Some("28P01"));
        let lost = StoreError::from(silence().await);
        assert_eq!((lost.sqlstate(), &*lost.to_string()), (None, "the connection to PostgreSQL failed"));
        assert_eq!(StoreError::VanishedRow.sqlstate(), None);
    }

    #[tokio::test]
    async fn what_follows_depends_on_when_it_was_said() {
        for (code, in_a_transaction, at_its_begin) in [
            ("40001", ErrorClass::Transient, ErrorClass::Transient),
            ("23505", ErrorClass::Poison, ErrorClass::Reconnect),
            ("0A000", ErrorClass::Unknown, ErrorClass::Reconnect),
            ("57014", ErrorClass::TooLong, ErrorClass::Reconnect),
            ("53100", ErrorClass::Resource, ErrorClass::Resource),
            ("42P01", ErrorClass::Configuration, ErrorClass::Configuration),
            ("57P01", ErrorClass::Reconnect, ErrorClass::Reconnect),
        ] {
            assert_eq!(StoreError::from(said(code).await).class(), in_a_transaction, "{code}");
            assert_eq!(StoreError::Begin(said(code).await).class(), at_its_begin, "{code}");
            assert_eq!(StoreError::Connect(Arc::new(said(code).await)).class(), at_its_begin, "{code}");
        }
        assert_eq!(StoreError::from(silence().await).class(), ErrorClass::Reconnect);
        assert_eq!(StoreError::Value(silence().await).class(), ErrorClass::Unknown);
        assert_eq!(StoreError::UnknownLabel("type").class(), ErrorClass::Poison);
        assert_eq!(StoreError::Panicked.class(), ErrorClass::Unknown);
        assert_eq!(StoreError::VanishedRow.class(), ErrorClass::Transient);
        assert_eq!(StoreError::NoAnswer(std::time::Duration::ZERO).class(), ErrorClass::Reconnect);
        assert_eq!(StoreError::ShutDown.class(), ErrorClass::Configuration);
    }

    #[tokio::test]
    async fn what_passes_by_itself_is_retryable() {
        for (code, retryable) in
            [("40P01", true), ("57P03", true), ("53200", true), ("22001", false), ("42501", false), ("XX000", false)]
        {
            assert_eq!(StoreError::from(said(code).await).is_retryable(), retryable, "{code}");
        }
    }

    #[tokio::test]
    async fn what_stands_in_everybodys_way_is_systemic() {
        let lonely = [StoreError::NoAnswer(std::time::Duration::ZERO), StoreError::VanishedRow, StoreError::Panicked];
        assert!(lonely.iter().all(|error| !error.is_systemic()));
        assert!(StoreError::NoConnection(std::time::Duration::ZERO).is_systemic());
        for (code, systemic) in [
            ("53100", true),
            ("42P01", true),
            ("25006", true),
            ("53300", true),
            ("57P03", true),
            ("57P01", false),
            ("40001", false),
            ("23505", false),
            ("57014", false),
        ] {
            assert_eq!(StoreError::from(said(code).await).is_systemic(), systemic, "{code}");
        }
        assert!(!StoreError::from(silence().await).is_systemic(), "one connection was lost");
        assert!(StoreError::Connect(Arc::new(silence().await)).is_systemic(), "nobody can connect");
        assert!(StoreError::Begin(said("0A000").await).is_systemic(), "nobody can begin");
        assert!(!StoreError::Begin(said("40001").await).is_systemic());
        assert!(!StoreError::Begin(said("57P01").await).is_systemic(), "one session was ended while it was idle");
        assert!(!StoreError::Begin(silence().await).is_systemic(), "one connection was lost while it was idle");
    }
}
