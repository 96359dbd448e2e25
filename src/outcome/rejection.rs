//! Units that the database refused.

use std::fmt;

use uuid::Uuid;

use crate::record::{EntityType, Table};
use crate::unit::{Field, Row};

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
/// and `message` and `detail`, may quote the row. [`Outcome`](crate::Outcome) has an example.
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
