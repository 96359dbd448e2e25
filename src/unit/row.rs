//! A row of a unit, by its position.

use crate::record::Table;

/// One row of a unit: its table and its position among the unit's rows of that table, from 0, in
/// the order in which they were added.
///
/// ```
/// use graphsink::{Row, Table};
///
/// assert_eq!(Row { table: Table::Mentions, index: 2 }.to_string(), "mention 2");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The position, from 0.
    pub index: usize,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let noun = match self.table {
            Table::Entities => "entity",
            Table::Connections => "connection",
            Table::Mentions => "mention",
        };
        write!(f, "{noun} {}", self.index)
    }
}
