//! The obstacles that keep a bulk load from the tables, and the errors that end it there.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use super::engine::StartError;
use super::store::StoreError;
use crate::record::Table;

/// Why a bulk load cannot write, or did not. In each case but [`CommitUnknown`](Self::CommitUnknown) the tables are as
/// they were before it began.
///
/// ```
/// use graphsink::{BulkStoreError, Table};
///
/// let error = BulkStoreError::NotEmpty { tables: vec![Table::Mentions] };
/// assert!(error.to_string().starts_with("not empty: mentions"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkStoreError {
    /// The database is not fit for an engine either.
    #[error(transparent)]
    Start(#[from] StartError),
    /// PostgreSQL, or the connection to it, failed.
    #[error("the bulk load's session failed: {0}; the tables are as before")]
    Store(#[from] StoreError),
    /// The server takes no writes.
    #[error("the server is a standby and takes no writes: connect to its primary")]
    Standby,
    /// Some table has rows.
    #[error("not empty: {}; load with an engine, or into a schema of its own", list(.tables))]
    NotEmpty {
        /// The tables that have rows.
        tables: Vec<Table>,
    },
    /// Keys and indexes are made again, which only an owner can do.
    #[error(
        "{table} belongs to {owner}, and this role has not its rights: load as {owner}, or as a role that inherits its rights"
    )]
    NotOwner {
        /// The first such table.
        table: Table,
        /// Its owner.
        owner: String,
    },
    /// A right that owners have unless it was taken from them.
    #[error("the role lacks the right to {}: grant it", .missing.join(", "))]
    Rights {
        /// The missing rights, each with the object's name.
        missing: Vec<String>,
    },
    /// Something was added to the tables that the load can neither keep nor make again.
    #[error("the tables have what a bulk load cannot keep: {}", list(.0))]
    Obstacles(Vec<BulkObstacle>),
    /// Other sessions use the tables.
    #[error(
        "waited {waited:?} for {what} and others still hold it ({holders}): end these sessions, or let them end, and try again"
    )]
    Locked {
        /// The lock that was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// Sessions that hold it, as far as the role may know.
        holders: String,
    },
    /// A step was refused or interrupted.
    #[error("{step}: {source}; nothing was loaded")]
    Step {
        /// The step that failed.
        step: String,
        /// Its error.
        source: StoreError,
    },
    /// An object that was made again differs from the one before, or an object came during the load that it cannot
    /// keep. Nothing was committed.
    #[error("the tables would not have become what they were: {}; nothing was loaded", .differences.join("; "))]
    Altered {
        /// The differences, each with the object's name.
        differences: Vec<String>,
    },
    /// An earlier step failed, so there is nothing to commit.
    #[error("an earlier step of the load failed, so nothing was loaded")]
    Unsound,
    /// The connection broke when the commit had been sent, and the server could not be asked in time what became of it.
    /// The tables themselves do not tell: units may have no mentions, and engines that waited write at once.
    #[error(
        "whether the load {attempt} was committed could not be found out ({source}): when the server is back and the \
         load's session is gone, run {query}; a row that is not fenced says that all was loaded, a fenced one or none that \
         nothing was; ask within two days: engines then delete the row"
    )]
    CommitUnknown {
        /// Names the load's transaction in `graphsink_attempts`.
        attempt: Uuid,
        /// Finds out what became of it, for two days: then engines delete the row.
        query: String,
        /// Why the commit got no answer.
        source: StoreError,
    },
}

impl BulkStoreError {
    /// The SQLSTATE, where PostgreSQL itself spoke.
    ///
    /// ```
    /// assert_eq!(graphsink::BulkStoreError::Standby.sqlstate(), None);
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Start(error) => error.sqlstate(),
            Self::Store(source) | Self::Step { source, .. } | Self::CommitUnknown { source, .. } => source.sqlstate(),
            _ => None,
        }
    }

    /// Whether the same load may succeed later although nothing is mended.
    ///
    /// ```
    /// assert!(!graphsink::BulkStoreError::Standby.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Start(error) => error.is_retryable(),
            Self::Store(error) | Self::Step { source: error, .. } => error.is_retryable(),
            Self::Locked { .. } => true,
            _ => false,
        }
    }
}

/// Something that was added to the tables, and what to do about it.
///
/// ```
/// let rule = graphsink::BulkObstacle::Rule { table: graphsink::Table::Mentions, rule: "copies".to_owned() };
/// assert!(rule.to_string().starts_with("the rule copies on mentions"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkObstacle {
    /// A trigger that fires for inserted rows or when a table is truncated. It would see rows while there are no
    /// indexes.
    Trigger {
        /// The table.
        table: Table,
        /// The trigger.
        trigger: String,
    },
    /// A rule on insertions, which `copy` passes by.
    Rule {
        /// The table.
        table: Table,
        /// The rule.
        rule: String,
    },
    /// Row-level security is in force for this role.
    RowSecurity {
        /// The table.
        table: Table,
    },
    /// The table is partitioned, a partition, has children or parents, or is no table at all.
    Inheritance {
        /// The table.
        table: Table,
    },
    /// An index that is not valid: a build that was cut off.
    InvalidIndex {
        /// The index.
        index: String,
    },
    /// An index in a tablespace where this role may create nothing.
    Tablespace {
        /// The index.
        index: String,
        /// The tablespace.
        tablespace: String,
    },
    /// A key that no statement makes again with all that it has.
    Key {
        /// The constraint.
        key: String,
    },
    /// A foreign key between one of the tables and another table, which this role cannot make again as it is.
    ForeignKey {
        /// The table that has it, with its schema.
        table: String,
        /// The foreign key.
        foreign_key: String,
        /// Why not.
        reason: &'static str,
    },
    /// An object that depends on a key or an index, which therefore cannot be dropped for a while.
    Dependent {
        /// The object, in PostgreSQL's words.
        object: String,
        /// The key or index, in PostgreSQL's words.
        on: String,
    },
}

impl fmt::Display for BulkObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger { table, trigger } => write!(
                f,
                "the trigger {trigger} on {table} fires on insert or truncate (disable it for the load: \
                 alter table {table} disable trigger {trigger})"
            ),
            Self::Rule { table, rule } => {
                write!(f, "the rule {rule} on {table} changes what insertions do (drop or disable it for the load)")
            }
            Self::RowSecurity { table } => {
                write!(f, "row-level security of {table} is in force for this role (load as a role that it is not for)")
            }
            Self::Inheritance { table } => {
                write!(f, "{table} is partitioned or part of an inheritance tree (load with an engine)")
            }
            Self::InvalidIndex { index } => write!(f, "the index {index} is not valid (drop it, or reindex it)"),
            Self::Tablespace { index, tablespace } => {
                write!(f, "the index {index} lies in the tablespace {tablespace} (grant create on that to this role)")
            }
            Self::Key { key } => write!(f, "the key {key} cannot be made again as it is (drop it for the load)"),
            Self::ForeignKey { table, foreign_key, reason } => {
                write!(f, "the foreign key {foreign_key} of {table}: {reason} (drop it for the load)")
            }
            Self::Dependent { object, on } => write!(f, "{object} depends on {on} (drop it for the load)"),
        }
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_names_itself_and_its_remedy() {
        let [table, name] = [Table::Mentions, Table::Entities];
        let text = || "x".to_owned();
        let obstacles = [
            BulkObstacle::Trigger { table, trigger: text() },
            BulkObstacle::Rule { table, rule: text() },
            BulkObstacle::RowSecurity { table },
            BulkObstacle::Inheritance { table: name },
            BulkObstacle::InvalidIndex { index: text() },
            BulkObstacle::Tablespace { index: text(), tablespace: text() },
            BulkObstacle::Key { key: text() },
            BulkObstacle::ForeignKey { table: text(), foreign_key: text(), reason: "why" },
            BulkObstacle::Dependent { object: text(), on: text() },
        ];
        for obstacle in &obstacles {
            let said = obstacle.to_string();
            assert!(
                said.contains('(') && (said.contains('x') || said.contains("entities") || said.contains("mentions"))
            );
        }
        let all = BulkStoreError::Obstacles(obstacles.to_vec()).to_string();
        assert_eq!(all.matches(" (").count(), obstacles.len(), "{all}");
    }

    #[tokio::test]
    async fn transient_obstacles_are_retryable() {
        use crate::error::said;
        for (code, retryable) in [("57P01", true), ("53100", true), ("23505", false), ("42501", false)] {
            let source = || said(code);
            assert_eq!(BulkStoreError::from(StoreError::from(source().await)).is_retryable(), retryable, "{code}");
            let step = BulkStoreError::Step { step: "copying".into(), source: source().await.into() };
            assert_eq!((step.sqlstate(), step.is_retryable()), (Some(code), retryable));
            let start = BulkStoreError::from(StartError::from(StoreError::from(source().await)));
            assert_eq!((start.sqlstate(), start.is_retryable()), (Some(code), retryable));
        }
        let holders = String::new();
        assert!(BulkStoreError::Locked { what: "x", waited: Duration::ZERO, holders }.is_retryable());
        assert!(!BulkStoreError::Unsound.is_retryable());
    }
}
