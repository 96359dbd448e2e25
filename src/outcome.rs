//! Outcomes of units: exactly one [`Outcome`] each.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::error::StoreError;
pub use crate::label::Disposition;
use crate::label::OutcomeKind;
use crate::record::{EntityType, Table};
use crate::unit::{ConnectionHandle, EntityHandle, Field, Labels, MentionHandle, Row};

/// The outcome of a unit.
///
/// ```no_run
/// use graphsink::{Outcome, Receipt, RejectReason};
///
/// # async fn run(receipt: Receipt) {
/// match receipt.await {
///     Outcome::Committed(unit) => println!("{} rows are durable", unit.entities.len() + unit.mentions.len()),
///     Outcome::Rejected(why) => match why.reason {
///         RejectReason::MissingRow { table, id } => println!("{table} has no {id}"),
///         _ => println!("{}: {:?}, {:?}", why.sqlstate, why.constraint, why.row),
///     },
///     Outcome::Unavailable(why) if why.commit_under_way => println!("perhaps written, submit it again: {why}"),
///     Outcome::Unavailable(why) => println!("not written, submit it again: {why}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub enum Outcome {
    /// Durable in PostgreSQL, whole.
    Committed(Committed),
    /// Nothing of it was written, and nothing of it will be written.
    Rejected(Rejection),
    /// The outcome could not be established until the deadline: the unit is in the database whole or not at all.
    /// Submitting it again is always safe.
    Unavailable(Unavailable),
}

/// An outcome on its way to its receipt. Nearly all outcomes are commits, so only commits are stored inline and
/// determine the size.
pub(crate) type Told = Result<Committed, Box<Outcome>>;

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Committed(committed) => Ok(committed),
            other @ (Outcome::Rejected(_) | Outcome::Unavailable(_)) => Err(Box::new(other)),
        }
    }
}

impl From<Told> for Outcome {
    fn from(told: Told) -> Self {
        told.map_or_else(|other| *other, Self::Committed)
    }
}

impl Outcome {
    /// The committed rows, or `None` for other outcomes.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// if let Some(unit) = receipt.await.committed() {
    ///     println!("{} entities are durable", unit.entities.len());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub const fn committed(&self) -> Option<&Committed> {
        match self {
            Self::Committed(committed) => Some(committed),
            Self::Rejected(_) | Self::Unavailable(_) => None,
        }
    }

    /// The outcome as a label of metrics.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// println!("{}", receipt.await.as_str()); // committed, rejected or unavailable
    /// # }
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }

    pub(crate) const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Committed(_) => OutcomeKind::Committed,
            Self::Rejected(_) => OutcomeKind::Rejected,
            Self::Unavailable(_) => OutcomeKind::Unavailable,
        }
    }

    /// Turns every outcome except a commit into an error, for `?`.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine, unit: graphsink::UnitOfWork) -> Result<(), Box<dyn std::error::Error>> {
    /// let committed = engine.submit(unit).await?.await.into_result()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_result(self) -> Result<Committed, NotCommitted> {
        match self {
            Self::Committed(committed) => Ok(committed),
            Self::Rejected(rejection) => Err(NotCommitted::Rejected(Box::new(rejection))),
            Self::Unavailable(unavailable) => Err(NotCommitted::Unavailable(unavailable)),
        }
    }
}

/// An outcome other than a commit, as an error.
///
/// ```no_run
/// use graphsink::{NotCommitted, Receipt};
///
/// # async fn run(receipt: Receipt) -> Result<(), NotCommitted> {
/// match receipt.await.into_result() {
///     Err(NotCommitted::Rejected(why)) => println!("mend it: {why}"),
///     unit => println!("{:?}", unit?.entities),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotCommitted {
    /// See [`Outcome::Rejected`].
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// See [`Outcome::Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A row of a committed unit.
///
/// ```
/// use graphsink::{CommittedRow, Disposition};
///
/// let row = CommittedRow { id: uuid::Uuid::from_u128(7), disposition: Disposition::Inserted };
/// assert_eq!(row.disposition.as_str(), "inserted");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedRow {
    /// Its id in the database.
    pub id: Uuid,
    /// The effect of the transaction on the row.
    pub disposition: Disposition,
}

/// A unit that is durable, with the id of each of its rows.
///
/// ```no_run
/// use graphsink::{Disposition, UnitOfWork};
///
/// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let mut unit = UnitOfWork::new();
/// let franklin = unit.restaurant("franklin bbq").temp_id("r1").handle();
/// let committed = engine.submit(unit).await?.await.into_result()?;
/// if let Some(row) = committed.entity(franklin) {
///     println!("{} is {}", row.id, if row.disposition == Disposition::Inserted { "new" } else { "known" });
///     assert_eq!(committed.temp_ids()["r1"], row.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Committed {
    /// Entities in the order in which the unit named them.
    pub entities: Vec<CommittedRow>,
    /// Connections in the order in which the unit named them.
    pub connections: Vec<CommittedRow>,
    /// Mentions in the order in which the unit named them.
    pub mentions: Vec<CommittedRow>,
    pub(crate) temp_ids: Option<Arc<Labels>>,
    pub(crate) nonce: u64,
}

impl Committed {
    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.entity(franklin).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn entity(&self, handle: EntityHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.entities.get(index)).copied()
    }

    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.connection(connection).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn connection(&self, handle: ConnectionHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.connections.get(index)).copied()
    }

    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.mention(mention).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn mention(&self, handle: MentionHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.mentions.get(index)).copied()
    }

    /// The id of every row that the caller labelled. If two rows have one label, the later one counts.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut unit = graphsink::UnitOfWork::new();
    /// unit.dish("brisket").temp_id("d1").handle();
    /// let committed = engine.submit(unit).await?.await.into_result()?;
    /// println!("d1 is {}", committed.temp_ids()["d1"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn temp_ids(&self) -> HashMap<&str, Uuid> {
        let labels = self.temp_ids.iter().flat_map(|labels| labels.iter());
        labels.filter_map(|(label, row)| Some((label, self.row(row)?.id))).collect()
    }

    /// The row at a position.
    ///
    /// ```
    /// use graphsink::{Committed, Row, Table};
    ///
    /// fn first_mention(committed: &Committed) -> Option<uuid::Uuid> {
    ///     committed.row(Row { table: Table::Mentions, index: 0 }).map(|row| row.id)
    /// }
    /// ```
    #[must_use]
    pub fn row(&self, row: Row) -> Option<CommittedRow> {
        let rows = match row.table {
            Table::Entities => &self.entities,
            Table::Connections => &self.connections,
            Table::Mentions => &self.mentions,
        };
        rows.get(row.index).copied()
    }
}

/// Reasons for rejecting a unit that only the database can know.
///
/// ```
/// use graphsink::{RejectReason, Rejection};
///
/// fn advice(why: &Rejection) -> &'static str {
///     match why.reason {
///         RejectReason::MissingRow { .. } => "name it by its key, or create it first",
///         RejectReason::WrongEntityType { .. } => "another entity belongs there",
///         _ => "read the SQLSTATE",
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// The unit names a row by an id that does not exist in the database.
    MissingRow {
        /// The table without such a row.
        table: Table,
        /// The id.
        id: Uuid,
    },
    /// The unit uses an entity, named by its id, where an entity of another type is required.
    WrongEntityType {
        /// The entity's id.
        id: Uuid,
        /// The column in which it is used.
        field: Field,
        /// The required type.
        expected: EntityType,
        /// The entity's type.
        found: EntityType,
    },
    /// PostgreSQL refused the unit alone, with the error named in the [`Rejection`].
    Database,
}

/// Why a unit was rejected, with SQLSTATE, table, column and constraint as far as PostgreSQL reports them. Its text,
/// and `message` and `detail`, may quote the row. [`Outcome`] has an example.
///
/// ```
/// fn log(why: &graphsink::Rejection) {
///     // Without `message` and `detail`, which may quote the row.
///     println!("{} {:?} {:?} {:?}", why.sqlstate, why.table, why.column, why.constraint);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The kind of rejection.
    pub reason: RejectReason,
    /// The SQLSTATE. For a missing row or a wrong type it is the one that PostgreSQL's own check would raise (23503,
    /// 23514), because the engine checks before it writes.
    pub sqlstate: String,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
    /// The row of the unit, if known.
    pub row: Option<Row>,
    /// The server's primary message.
    pub message: String,
    /// The server's detail. It may quote values of the row.
    pub detail: Option<String>,
    /// The unit's row in `graphsink_dead_letters`, if it was kept there: see
    /// [`ConfigBuilder::dead_letters`](crate::ConfigBuilder::dead_letters).
    pub dead_letter: Option<Uuid>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(f, "{row}: ")?;
        }
        write!(f, "{} (SQLSTATE {}", self.message, self.sqlstate)?;
        for (noun, name) in [("table", &self.table), ("column", &self.column), ("constraint", &self.constraint)] {
            if let Some(name) = name {
                write!(f, ", {noun} {name}")?;
            }
        }
        f.write_str(")")?;
        match self.dead_letter {
            Some(id) => write!(f, ", kept as dead letter {id}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

/// Why the outcome of a unit is unknown. [`Outcome`] has an example.
///
/// ```
/// fn log(why: &graphsink::Unavailable) {
///     println!("no outcome after {} tries: {}; submit the unit again", why.attempts, why.cause);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Unavailable {
    /// Whether a commit was sent whose answer never came. If false, nothing was written.
    pub commit_under_way: bool,
    /// Number of attempted transactions.
    pub attempts: u32,
    /// The last obstacle.
    pub cause: UnavailableCause,
}

/// Why there is no outcome.
///
/// ```
/// use graphsink::UnavailableCause;
///
/// assert_eq!(UnavailableCause::ShutDown.to_string(), "the engine was shut down first");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// The database could not be used until the deadline.
    Database(Arc<StoreError>),
    /// The engine was shut down before the unit's turn.
    ShutDown,
    /// The engine failed: its actors died more often than it may restart them.
    EngineFailed,
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(_) => f.write_str("the database could not be used until the deadline"),
            Self::ShutDown => f.write_str("the engine was shut down first"),
            Self::EngineFailed => f.write_str("the engine failed, start another"),
        }
    }
}

impl Unavailable {
    /// The SQLSTATE, where PostgreSQL itself stood in the way last.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// if let graphsink::Outcome::Unavailable(why) = receipt.await {
    ///     eprintln!("{why} ({})", why.sqlstate().unwrap_or("the server said nothing"));
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.cause {
            UnavailableCause::Database(error) => error.sqlstate(),
            UnavailableCause::ShutDown | UnavailableCause::EngineFailed => None,
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.commit_under_way { "a commit was under way" } else { "nothing was written" };
        write!(f, "no outcome after {} attempts, {state}: {}; trying again is always safe", self.attempts, self.cause)
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            UnavailableCause::Database(error) => Some(&**error),
            UnavailableCause::ShutDown | UnavailableCause::EngineFailed => None,
        }
    }
}
