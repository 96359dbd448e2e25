//! The units that one transaction commits, with their rows coalesced.

use std::ops::Range;

use super::Batch;
use super::coalesce::{OfTable, RowRef, TableBatch};
use crate::outcome::{CommittedRow, CommittedUnit, CommittedUnits};
use crate::record::Table;
use crate::unit::{SharedUnit, Unit};

/// Number of rows, about, whose results are kept together until the last of their units' receipts was awaited or
/// dropped; and the maximum number of units.
const RESULTS_TOGETHER: (usize, usize) = if cfg!(test) { (8, 2) } else { (2_048, 256) };

/// The table of a batch of entities.
#[derive(Debug)]
pub(crate) enum Entities {}
/// The table of a batch of connections.
#[derive(Debug)]
pub(crate) enum Connections {}
/// The table of a batch of mentions.
#[derive(Debug)]
pub(crate) enum Mentions {}

impl OfTable for Entities {
    const TABLE: Table = Table::Entities;
}

impl OfTable for Connections {
    const TABLE: Table = Table::Connections;
}

impl OfTable for Mentions {
    const TABLE: Table = Table::Mentions;
}

/// Coalesced entities.
pub(crate) type EntityBatch = Batch<Entities>;
/// Coalesced connections.
pub(crate) type ConnectionBatch = Batch<Connections>;
/// Coalesced mentions.
pub(crate) type MentionBatch = Batch<Mentions>;

/// A sealed group of units with the three batches of their rows. Every batch absorbed the units in
/// the order of `units`.
#[derive(Debug)]
pub(crate) struct Epoch {
    units: Vec<SharedUnit>,
    pub(super) entities: EntityBatch,
    pub(super) connections: ConnectionBatch,
    pub(super) mentions: MentionBatch,
    /// For each unit the first slot positions of its entities and of its connections.
    starts: Vec<(u32, u32)>,
}

impl Epoch {
    /// Coalesces units at once, as batchers do incrementally; for the parts of an epoch that has to be split.
    pub(crate) fn from_units(units: Vec<SharedUnit>) -> Self {
        let (mut entities, mut connections, mut mentions) =
            (EntityBatch::default(), ConnectionBatch::default(), MentionBatch::default());
        for unit in units.iter().map(SharedUnit::get) {
            entities.absorb_unit(unit);
            connections.absorb_unit(unit);
            mentions.absorb_unit(unit);
        }
        Self::new(units, entities, connections, mentions)
    }

    /// Joins the batches that three batchers made of the same units. `None` if a batch lacks rows, which would mean
    /// that a batcher lost some.
    pub(crate) fn join(
        units: Vec<SharedUnit>,
        entities: EntityBatch,
        connections: ConnectionBatch,
        mentions: MentionBatch,
    ) -> Option<Self> {
        let absorbed = [entities.units(), connections.units(), mentions.units()];
        let epoch = Self::new(units, entities, connections, mentions);
        let whole = Table::ALL.into_iter().zip(absorbed).all(|(table, absorbed)| {
            let expected: usize = epoch.units.iter().map(|unit| unit.get().block().rows_of(table)).sum();
            expected == epoch.slots(table).len() && absorbed == epoch.units.len()
        });
        whole.then_some(epoch)
    }

    fn new(
        units: Vec<SharedUnit>,
        entities: EntityBatch,
        connections: ConnectionBatch,
        mentions: MentionBatch,
    ) -> Self {
        let starts = units.iter().scan((0, 0), |next, unit| {
            let (start, block) = (*next, unit.get().block());
            *next = (start.0 + block.entities.len() as u32, start.1 + block.connections.len() as u32);
            Some(start)
        });
        let starts = starts.collect();
        Self { units, entities, connections, mentions, starts }
    }

    /// The units, in the order in which the batches absorbed them.
    pub(crate) fn units(&self) -> impl ExactSizeIterator<Item = Unit<'_>> {
        self.units.iter().map(SharedUnit::get)
    }

    /// The same units, to keep.
    pub(crate) fn shared_units(&self) -> &[SharedUnit] {
        &self.units
    }

    /// The unit of a row.
    pub(super) fn unit_of(&self, row: RowRef) -> Unit<'_> {
        self.units[row.unit as usize].get()
    }

    /// All rows of a table with their slots, in order of arrival.
    pub(super) fn rows(&self, table: Table) -> impl Iterator<Item = (RowRef, u32)> {
        let rows = (0..).zip(&self.units).flat_map(move |(unit, own)| {
            (0..own.get().block().rows_of(table) as u32).map(move |row| RowRef { unit, row })
        });
        rows.zip(self.slots(table).iter().copied())
    }

    /// The slot of an entity of a unit.
    pub(super) fn entity_slot(&self, unit: u32, entity: usize) -> usize {
        self.entities.slots()[self.starts[unit as usize].0 as usize + entity] as usize
    }

    /// The slot of a connection of a unit.
    pub(super) fn connection_slot(&self, unit: u32, connection: usize) -> usize {
        self.connections.slots()[self.starts[unit as usize].1 as usize + connection] as usize
    }

    /// Number of distinct names of one table.
    pub(crate) fn coalesced(&self, table: Table) -> usize {
        match table {
            Table::Entities => self.entities.len(),
            Table::Connections => self.connections.len(),
            Table::Mentions => self.mentions.len(),
        }
    }

    /// Number of received rows of one table.
    pub(crate) fn received(&self, table: Table) -> usize {
        self.slots(table).len()
    }

    /// For each unit the slots of its rows of one table.
    pub(crate) fn slots_by_unit(&self, table: Table) -> impl Iterator<Item = &[u32]> {
        let slots = self.slots(table);
        self.ranges(table).map(move |range| &slots[range])
    }

    /// The result for each unit, from the results for each slot, by table.
    pub(crate) fn committed<'a>(
        &'a self,
        rows: &'a [Vec<CommittedRow>; 3],
    ) -> impl Iterator<Item = CommittedUnit> + 'a {
        let mut slots = Table::ALL.map(|table| self.slots(table));
        let rows_of_unit = slots.iter().map(|slots| slots.len()).sum::<usize>() / self.units.len().max(1);
        let (rows_together, units_together) = RESULTS_TOGETHER;
        let together = (rows_together / rows_of_unit.max(1)).clamp(1, units_together);
        self.units.chunks(together).flat_map(move |units| {
            let rows_of = |table| units.iter().map(|unit| unit.get().block().rows_of(table)).sum();
            let mut committed = CommittedUnits::with_room(units.len(), Table::ALL.map(rows_of));
            for unit in units.iter().map(SharedUnit::get) {
                committed.add(unit, |table, results| {
                    let (own, rest) = slots[table as usize].split_at(unit.block().rows_of(table));
                    results.extend(own.iter().map(|slot| rows[table as usize][*slot as usize]));
                    slots[table as usize] = rest;
                });
            }
            committed.share()
        })
    }

    /// The slots of all rows of one table, in order of arrival.
    pub(crate) fn slots(&self, table: Table) -> &[u32] {
        match table {
            Table::Entities => self.entities.slots(),
            Table::Connections => self.connections.slots(),
            Table::Mentions => self.mentions.slots(),
        }
    }

    fn ranges(&self, table: Table) -> impl Iterator<Item = Range<usize>> {
        self.units.iter().scan(0, move |end, unit| {
            let start = *end;
            *end += unit.get().block().rows_of(table);
            Some(start..*end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Committed, Disposition};
    use crate::record::{Mention, SourceType};
    use crate::unit::UnitOfWork;
    use uuid::Uuid;

    fn unit(restaurant: &str, mentions: &[&str]) -> SharedUnit {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant(restaurant).temp_id(restaurant).handle();
        let dish = unit.dish("pie").handle();
        let connection = unit.connection(restaurant, dish).handle();
        for mention in mentions {
            let written_at = "2024-01-01T00:00:00Z".parse().unwrap();
            unit.mention(connection, Mention::new(SourceType::Post, *mention, "u", "s", written_at));
        }
        unit.prepare().share()
    }

    #[test]
    fn each_row_of_each_unit_gets_its_own_outcome() {
        let epoch = Epoch::from_units(vec![unit("a", &["1", "2"]), unit("b", &["3"]), unit("a", &["2"])]);
        let rows = |count| {
            let row = |index| CommittedRow { id: Uuid::from_u128(index), disposition: Disposition::Inserted };
            (0..count).map(row).collect::<Vec<_>>()
        };
        assert_eq!((epoch.entities.len(), epoch.connections.len(), epoch.mentions.len()), (3, 2, 3));
        assert_eq!(Table::ALL.map(|table| epoch.received(table)), [6, 3, 4]);
        let committed: Vec<Committed> = epoch.committed(&[rows(3), rows(2), rows(3)]).map(Committed::from).collect();
        let ids = |rows: &[CommittedRow]| rows.iter().map(|row| row.id.as_u128()).collect::<Vec<_>>();
        let entities: Vec<_> = committed.iter().map(|unit| ids(&unit.entities)).collect();
        let mentions: Vec<_> = committed.iter().map(|unit| ids(&unit.mentions)).collect();
        assert_eq!(entities, [[0, 1], [2, 1], [0, 1]], "a and pie are shared");
        assert_eq!(mentions, [vec![0, 1], vec![2], vec![1]], "the mention 2 is one row");
        assert_eq!(ids(&committed[2].connections), [0]);
        let labels = committed.iter().map(|unit| unit.temp_ids().into_iter().collect::<Vec<_>>());
        let [a, b] = [0, 2].map(Uuid::from_u128);
        assert_eq!(labels.collect::<Vec<_>>(), [[("a", a)], [("b", b)], [("a", a)]]);
    }

    #[test]
    fn a_unit_knows_its_own_handles_among_the_results_of_others() {
        let mut own = UnitOfWork::new();
        let handle = own.dish("soup").handle();
        let epoch = Epoch::from_units(vec![unit("a", &["1"]), own.prepare().share(), unit("b", &["2"])]);
        let rows = Table::ALL.map(|table| {
            let row = |index| CommittedRow { id: Uuid::from_u128(index), disposition: Disposition::Inserted };
            (0..epoch.coalesced(table) as u128).map(row).collect::<Vec<_>>()
        });
        let found: Vec<_> = epoch.committed(&rows).map(|unit| Committed::from(unit).entity(handle)).collect();
        assert_eq!(found, [None, Some(rows[0][2]), None]);
    }

    #[test]
    fn an_epoch_without_all_of_its_rows_is_not_joined() {
        let units = vec![unit("a", &["1"]), unit("b", &["2"])];
        let Epoch { units, entities, connections, .. } = Epoch::from_units(units);
        let mut mentions = MentionBatch::default();
        mentions.absorb_unit(units[0].get());
        assert!(Epoch::join(units.clone(), entities, connections, mentions).is_none());
        let Epoch { entities, connections, mentions, .. } = Epoch::from_units(units.clone());
        assert!(Epoch::join(units, entities, connections, mentions).is_some());
    }
}
