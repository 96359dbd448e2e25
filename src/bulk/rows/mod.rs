//! From units to final rows: a record format for each table, and the merges of records.
//!
//! Each row of a unit becomes one record, which begins with the names by which its table is sorted: those of mentions
//! with the connection's. In sorted order all records of a row are adjacent. The merge rules are those of
//! [`record`](crate::record).
//!
//! A record carries the number of its unit only if the unit may still be rejected, or if the order of units matters.
//! Other records of the same fact are equal, so they are sorted, spilled and merged once.

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

/// A unit of a load. Numbers are assigned in the order of acceptance, from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbered<'a> {
    pub(super) number: u64,
    pub(super) unit: Unit<'a>,
    /// Whether it may still be rejected. Units are rejected for their claims of Google ids, or at once.
    pub(super) is_contingent: bool,
}

impl Numbered<'_> {
    /// The number in the form stored in records.
    const fn if_needed(self, is_needed: bool) -> u64 {
        if is_needed { self.number + 1 } else { 0 }
    }
}

/// The inputs of all merges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merging<'a> {
    pub(super) ids: Ids,
    pub(super) refused: &'a UnitSet,
    /// The time to which figures refer.
    pub(super) as_of: Timestamp,
}

impl Merging<'_> {
    /// Whether a record counts, given its stored number.
    fn counts(&self, number: u64) -> bool {
        number == 0 || !self.refused.contains(number - 1)
    }
}

/// Takes final rows of a table, in the order of their names.
pub(super) trait RowSink<T: StoredTable> {
    /// Why it accepts no more rows.
    type Error: From<SpillError>;

    fn push<'a>(&mut self, row: &'a T::Row<'a>) -> Result<(), Self::Error>;
}
