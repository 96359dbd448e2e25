//! The ways in which altered tables can be unfit for the engine.

use std::fmt;

/// A difference to what the migrations made that the engine cannot work with.
///
/// ```
/// let unfit = graphsink::UnfitTable::ForeignColumn { table: "mentions", column: "note".to_owned() };
/// assert!(unfit.to_string().starts_with("mentions.note is not the engine's"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnfitTable {
    /// A column is missing, or of another type.
    Column {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The type that it has to have, by PostgreSQL's internal name.
        expected: &'static str,
        /// The type that it has; nothing if it is missing.
        found: Option<String>,
    },
    /// A column that is not the engine's needs a value that only the writer of a row can give.
    ForeignColumn {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },
    /// A unique index is missing, not valid, or covers a part of the rows.
    Key {
        /// The table.
        table: &'static str,
        /// The name that the migration gave it.
        key: &'static str,
        /// Its columns.
        columns: &'static str,
    },
    /// A column of a key compares by a language's rules.
    Collation {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

impl fmt::Display for UnfitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { table, column, expected, found: Some(found) } => {
                write!(f, "{table}.{column} is of type {found} and has to be {expected}: change it back")
            }
            Self::Column { table, column, found: None, .. } => {
                write!(f, "{table}.{column} is missing: run the migrations, or undo what dropped it")
            }
            Self::ForeignColumn { table, column } => write!(
                f,
                "{table}.{column} is not the engine's, must not be null and has no default, so no row can be written: give it \
                 a default or allow null"
            ),
            Self::Key { table, key, columns } => {
                write!(f, "{table} has no valid unique index on ({columns}): make {key} again")
            }
            Self::Collation { table, column } => {
                write!(
                    f,
                    "{table}.{column} has another collation than \"C\": keys compare byte by byte, change it back"
                )
            }
        }
    }
}
