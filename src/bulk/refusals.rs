//! Rejected units with their reasons, kept on disk as well, because there may be any number of them.

use std::sync::Arc;

use uuid::Uuid;

use super::rows::{Fields, Malformed, PutFields};
use super::spill::{Merged, Sorted, Sorter, SpillDirectory, SpillError};
use crate::outcome::{RejectReason, Rejection};
use crate::record::Table;
use crate::unit::{ConnectionRecordName, EntityRecord, Row, Unit};

/// Why a unit is rejected: all possible errors of a valid unit in empty tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It names a row by an id, and the tables are empty.
    Missing { table: Table, row: usize, id: Uuid },
    /// Another restaurant has the Google id that this unit's row would get.
    PlaceTaken { row: usize, google_place_id: String },
}

impl Refusal {
    /// The error that the engine finds first in empty tables: it looks up connections before entities.
    pub(super) fn of_missing(unit: Unit<'_>) -> Option<Self> {
        let connection =
            unit.block().connections.iter().enumerate().find_map(|(row, connection)| match connection.name {
                ConnectionRecordName::Id(id) => Some(Self::Missing { table: Table::Connections, row, id }),
                ConnectionRecordName::Key { .. } => None,
            });
        connection.or_else(|| {
            unit.block().entities.iter().enumerate().find_map(|(row, entity)| match entity {
                EntityRecord::Id(id) => Some(Self::Missing { table: Table::Entities, row, id: *id }),
                EntityRecord::Key(..) => None,
            })
        })
    }

    /// The rejection that the engine would give.
    pub(super) fn into_rejection(self) -> Rejection {
        match self {
            Self::Missing { table, row, id } => Rejection::missing(table, row, id),
            Self::PlaceTaken { row, google_place_id } => Rejection {
                reason: RejectReason::Database,
                sqlstate: "23505".to_owned(),
                table: Some(Table::Entities.as_str().to_owned()),
                column: Some("google_place_id".to_owned()),
                constraint: Some(PLACE_KEY.to_owned()),
                row: Some(Row { table: Table::Entities, index: row }),
                message: format!("duplicate key value violates unique constraint \"{PLACE_KEY}\""),
                detail: Some(format!("Key (google_place_id)=({google_place_id}) already exists.")),
                dead_letter: None,
            },
        }
    }

    fn put(&self, record: &mut Vec<u8>) {
        match self {
            Self::Missing { table, row, id } => {
                record.put_byte(*table as u8);
                record.put_number(*row as u64);
                record.put_name(id.as_u128());
            }
            Self::PlaceTaken { row, google_place_id } => {
                record.put_byte(Table::ALL.len() as u8);
                record.put_number(*row as u64);
                record.put_text(google_place_id);
            }
        }
    }

    fn read(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let (kind, row) = (fields.byte()? as usize, fields.number()? as usize);
        match Table::ALL.get(kind) {
            Some(table) => Ok(Self::Missing { table: *table, row, id: Uuid::from_u128(fields.name()?) }),
            None => Ok(Self::PlaceTaken { row, google_place_id: fields.text()?.to_owned() }),
        }
    }
}

const PLACE_KEY: &str = "entities_google_place_id_key";

/// Logs rejected units, in any order.
#[derive(Debug)]
pub(super) struct RefusalLog {
    refusals: Sorter,
    count: u64,
    record: Vec<u8>,
}

impl RefusalLog {
    pub(super) fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self {
        Self { refusals: Sorter::new(directory, memory, 40), count: 0, record: Vec::new() }
    }

    /// Logs a rejected unit. Each unit is rejected once.
    pub(super) fn push(&mut self, unit: u64, refusal: &Refusal) -> Result<(), SpillError> {
        self.record.clear();
        self.record.put(&unit.to_be_bytes());
        refusal.put(&mut self.record);
        self.count += 1;
        self.refusals.push(&self.record)
    }

    pub(super) fn finish(self) -> Result<Refusals, SpillError> {
        Ok(Refusals { sorted: self.refusals.finish()?, count: self.count })
    }
}

/// Rejected units, in the order of their numbers.
#[derive(Debug, Clone)]
pub(super) struct Refusals {
    sorted: Sorted,
    pub(super) count: u64,
}

impl Refusals {
    /// Reads them; any number of times, as long as a copy exists.
    pub(super) fn into_reader(self, memory: usize) -> Result<RefusalReader, SpillError> {
        Ok(RefusalReader(self.sorted.into_merged(memory)?))
    }
}

/// Reads rejected units in the order of their numbers.
#[derive(Debug)]
pub(super) struct RefusalReader(Merged);

impl RefusalReader {
    pub(super) fn next(&mut self) -> Result<Option<(u64, Refusal)>, SpillError> {
        let Some(record) = self.0.next()? else { return Ok(None) };
        let mut fields = Fields(record);
        let unit = fields.int()? as u64;
        Ok(Some((unit, Refusal::read(fields)?)))
    }
}
