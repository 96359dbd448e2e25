//! From what units say to final rows: a format of records for each table, and what merges them.
//!
//! Each row of a unit becomes one record, which begins with the hash of its name. Sorted, all that is said of a row
//! stands together, and rows come in the order of their ids. The merge rules are those of [`record`](crate::record).
//!
//! A record carries the number of its unit only where the unit may still be refused, or where the order of units
//! matters: what others say is the same record each time, and is sorted, spilled and merged once.

mod connections;
mod entities;
mod fields;
mod figures;
mod mentions;
mod unit_set;

use crate::bulk::ids::Ids;
use crate::bulk::spill::SpillError;
use crate::record::Timestamp;
use crate::store::StoredTable;
use crate::unit::Unit;

pub(super) use connections::{merge_connections, put_connection};
pub(super) use entities::{Entity, merge_entities, put_entity, put_place};
pub(super) use fields::{Fields, Malformed, PutFields};
pub(super) use mentions::{MentionMerge, PartLimits, put_mention};
pub(super) use unit_set::UnitSet;

/// A unit of a load. Numbers are given in the order in which units are accepted, from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbered<'a> {
    pub(super) number: u64,
    pub(super) unit: &'a Unit,
    /// Whether it may still be refused. Units are refused for what they claim of Google's ids, or at once.
    pub(super) is_contingent: bool,
}

impl Numbered<'_> {
    /// The number as records carry it.
    const fn if_needed(self, is_needed: bool) -> u64 {
        if is_needed { self.number + 1 } else { 0 }
    }
}

/// What all merges need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merging<'a> {
    pub(super) ids: Ids,
    pub(super) refused: &'a UnitSet,
    /// What figures refer to.
    pub(super) as_of: Timestamp,
}

impl Merging<'_> {
    /// Whether a record counts, by the number that it carries.
    fn counts(&self, number: u64) -> bool {
        number == 0 || !self.refused.contains(number - 1)
    }
}

/// Takes final rows of a table, in the order of their ids.
pub(super) trait RowSink<T: StoredTable> {
    /// Why it takes no more.
    type Error: From<SpillError>;

    fn push<'a>(&mut self, row: &'a T::Row<'a>) -> Result<(), Self::Error>;
}
