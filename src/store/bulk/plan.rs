//! The order of the steps that recreate objects after the rows were written.
//!
//! The largest table comes first (connections, which were copied last, are a fraction of its size), and all steps that
//! read a table are adjacent, because its pages are then in memory. This matters if the tables are larger than the
//! memory; otherwise the order of the tables makes no difference (`memory.rs` has the figures). Statistics come before
//! foreign keys: each foreign key is checked by one join, whose plan uses them.

use super::definition::Definitions;
use crate::record::Table;

/// A building step that is about to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuildStep<'a> {
    /// From 0.
    pub(crate) number: usize,
    /// Number of steps.
    pub(crate) steps: usize,
    pub(crate) what: BuildWhat,
    /// The table that is read.
    pub(crate) table: Option<Table>,
    /// The index, the foreign key or the table, quoted if SQL requires it.
    pub(crate) name: &'a str,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildWhat {
    /// An index, and the key to which it belongs.
    Index,
    Statistics,
    ForeignKey,
}

impl BuildWhat {
    /// Its action, for errors.
    pub(super) const fn doing(self) -> &'static str {
        match self {
            Self::Index => "building the index",
            Self::Statistics => "gathering statistics of",
            Self::ForeignKey => "checking the foreign key",
        }
    }
}

/// A step, and its statements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) what: BuildWhat,
    pub(super) table: Option<Table>,
    pub(super) name: String,
    pub(super) sql: String,
}

/// The steps in their order. `schema` is quoted.
pub(super) fn steps(definitions: &Definitions, schema: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for table in Table::ALL.into_iter().rev() {
        let of_table = definitions.indexes.iter().filter(|index| index.table == table);
        let mut of_table: Vec<_> = of_table.collect();
        // Keys first, because a row that they refuse ends the load. The sort is stable: for each kind the oldest first,
        // as before.
        of_table.sort_by_key(|index| !index.is_unique);
        steps.extend(of_table.into_iter().map(|index| Step {
            what: BuildWhat::Index,
            table: Some(table),
            name: index.name.clone(),
            sql: index.make(schema),
        }));
        steps.push(Step {
            what: BuildWhat::Statistics,
            table: Some(table),
            name: table.to_string(),
            sql: format!("analyze {schema}.{table}"),
        });
    }
    steps.extend(definitions.foreign_keys.iter().map(|key| Step {
        what: BuildWhat::ForeignKey,
        table: None,
        name: key.name.clone(),
        sql: key.make(),
    }));
    steps
}
