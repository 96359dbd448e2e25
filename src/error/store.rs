//! Errors of the database, and the class of each.

use std::fmt;

use tokio_postgres::error::DbError;

use super::class::{ErrorClass, classify};
use super::driver::DriverError;
use super::own::is_about_foreign;
use super::unfit::UnfitTable;
use crate::record::UnknownLabel;

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
    #[error("{}", describe(.0.get()))]
    Postgres(DriverError),
    /// A new connection could not be made.
    #[error("cannot connect: {}", describe_attempt(.0.get()))]
    Connect(DriverError),
    /// A session could not be made fit for a transaction: its statements could not be prepared, or
    /// no transaction could be begun. That is never the fault of a unit.
    #[error("a session cannot begin a transaction: {}", describe_session(.0.get()))]
    Begin(DriverError),
    /// A value could not be sent, or one in the database could not be read.
    #[error(
        "a value could not be sent to PostgreSQL or read from it: compare the columns' types with those of the migrations"
    )]
    Value(DriverError),
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
    /// The foreign keys are no longer those that were known; now the new ones are.
    #[error("foreign keys were altered while they were in use: the next attempt goes by what they are now")]
    KeysAltered,
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
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
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
            let hint = if is_about_foreign(error) {
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

/// For the crate's own `?`, at some 200 places. It cannot be private, because an `impl` has no visibility: hence hidden.
/// No promise, since it goes with the version of the driver.
#[doc(hidden)]
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(DriverError::new(error))
    }
}

impl From<UnknownLabel> for StoreError {
    fn from(unknown: UnknownLabel) -> Self {
        Self::UnknownLabel(unknown.of)
    }
}

impl StoreError {
    pub(crate) fn connect(error: tokio_postgres::Error) -> Self {
        Self::Connect(DriverError::new(error))
    }

    pub(crate) fn begin(error: tokio_postgres::Error) -> Self {
        Self::Begin(DriverError::new(error))
    }

    /// The SQLSTATE, where PostgreSQL itself spoke.
    ///
    /// ```
    /// assert_eq!(graphsink::StoreError::ShutDown.sqlstate(), None, "PostgreSQL did not say that");
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.db().map(|error| error.code().code())
    }

    /// Whether the same work may succeed later although nothing is mended.
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
            Self::Postgres(error) | Self::Begin(error) | Self::Connect(error) => error.get().as_db_error(),
            Self::Repeated(error) => error.db(),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::VanishedRow | Self::KeysAltered => ErrorClass::Transient,
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

    /// Whether an entity or a connection that was to be inserted is there: the next lookup finds it.
    /// (While an index is built anew, the old one has a suffix to its name.)
    pub(crate) fn is_race(&self) -> bool {
        self.db().is_some_and(|error| {
            let key = match error.table() {
                Some("entities") => "entities_name_type_key",
                Some("connections") => "connections_key",
                _ => return false,
            };
            error.code().code() == "23505" && error.constraint().is_some_and(|name| name.starts_with(key))
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
                ErrorClass::Poison if is_about_foreign(error) => ErrorClass::Configuration,
                // A row that is too big for an index names its table. What names none is a limit of the server: the stop
                // before transaction ids wrap around, a full queue of notifications.
                ErrorClass::Poison if error.code().code() == "54000" && error.table().is_none() => ErrorClass::Resource,
                class => class,
            },
        })
    }

    /// Whether the database as a whole cannot be used, for this epoch and for any other: no connection can
    /// be made, the set-up is broken, a resource is used up, or the server takes no writes.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// PostgreSQL's error as the driver reports it, from a server that answers only with errors.
    pub(crate) async fn said(code: &str) -> tokio_postgres::Error {
        use tokio::io::AsyncWriteExt;
        let (client, mut server) = tokio::io::duplex(4_096);
        let fields = format!("SERROR\0VERROR\0C{code}\0Mthe message\0Dthe secret value\0\0");
        let mut message = vec![b'E'];
        message.extend_from_slice(&(fields.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(fields.as_bytes());
        server.write_all(&message).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("app");
        config.connect_raw(client, tokio_postgres::NoTls).await.err().unwrap()
    }

    /// A connection that ends without an answer.
    async fn silence() -> tokio_postgres::Error {
        let (client, _) = tokio::io::duplex(4_096);
        let mut config = tokio_postgres::Config::new();
        config.user("app");
        config.connect_raw(client, tokio_postgres::NoTls).await.err().unwrap()
    }

    #[tokio::test]
    async fn errors_quote_the_server_but_no_value_of_a_row() {
        let error = StoreError::from(said("42501").await);
        assert_eq!(error.sqlstate(), Some("42501"));
        assert_eq!(error.to_string(), "PostgreSQL: the message (SQLSTATE 42501)");
        assert_eq!(format!("{error:?}"), "StoreError(PostgreSQL: the message (SQLSTATE 42501))");
        // Messages of this class may quote a row.
        assert_eq!(StoreError::from(said("23514").await).to_string(), "PostgreSQL refused a row (SQLSTATE 23514)");
        assert_eq!(StoreError::begin(said("0A000").await).sqlstate(), Some("0A000"));
        assert_eq!(StoreError::connect(said("28P01").await).sqlstate(), Some("28P01"));
        let lost = StoreError::from(silence().await);
        assert_eq!((lost.sqlstate(), &*lost.to_string()), (None, "the connection to PostgreSQL failed"));
        assert_eq!(StoreError::VanishedRow.sqlstate(), None);
    }

    #[tokio::test]
    async fn the_class_of_an_error_depends_on_the_step_it_came_from() {
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
            assert_eq!(StoreError::begin(said(code).await).class(), at_its_begin, "{code}");
            assert_eq!(StoreError::connect(said(code).await).class(), at_its_begin, "{code}");
        }
        assert_eq!(StoreError::from(silence().await).class(), ErrorClass::Reconnect);
        assert_eq!(StoreError::Value(DriverError::new(silence().await)).class(), ErrorClass::Unknown);
        assert_eq!(StoreError::UnknownLabel("type").class(), ErrorClass::Poison);
        assert_eq!(StoreError::Panicked.class(), ErrorClass::Unknown);
        assert_eq!(StoreError::VanishedRow.class(), ErrorClass::Transient);
        assert_eq!(StoreError::NoAnswer(std::time::Duration::ZERO).class(), ErrorClass::Reconnect);
        assert_eq!(StoreError::ShutDown.class(), ErrorClass::Configuration);
    }

    #[tokio::test]
    async fn transient_errors_are_retryable() {
        for (code, retryable) in
            [("40P01", true), ("57P03", true), ("53200", true), ("22001", false), ("42501", false), ("XX000", false)]
        {
            assert_eq!(StoreError::from(said(code).await).is_retryable(), retryable, "{code}");
        }
    }

    #[tokio::test]
    async fn errors_that_would_hit_every_unit_are_systemic() {
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
        assert!(StoreError::connect(silence().await).is_systemic(), "no connection can be made");
        assert!(StoreError::begin(said("0A000").await).is_systemic(), "no transaction can begin");
        assert!(!StoreError::begin(said("40001").await).is_systemic());
        assert!(!StoreError::begin(said("57P01").await).is_systemic(), "one session was ended while it was idle");
        assert!(!StoreError::begin(silence().await).is_systemic(), "one connection was lost while it was idle");
    }
}
