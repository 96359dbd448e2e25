//! The sorted records of the rows of one table.

use std::sync::Arc;

use super::claims::{Claims, claimed_by};
use super::rows::{Fields, Numbered, PutFields, UnitSet, put_connection, put_entity, put_mention, put_place};
use super::spill::{Sorted, Sorter, SpillDirectory, SpillError, Spool, SpoolWriter};
use crate::record::Table;
use crate::unit::{NameHash, name_of_bytes};

/// Sorts the rows of one table. The sorting actor is generic over it.
pub(super) trait TableRuns: Sized + Send + Unpin + 'static {
    const TABLE: Table;
    /// The sorted form of all rows.
    type Sorted: Send + 'static;

    /// `memory`: bytes for all kept data.
    fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self;

    /// Adds the rows of a unit.
    fn absorb(&mut self, unit: Numbered<'_>) -> Result<(), SpillError>;

    fn finish(self) -> Result<Self::Sorted, SpillError>;
}

/// Records of entities, and the claims of Google ids among them.
#[derive(Debug)]
pub(super) struct EntityRuns {
    entities: Sorter,
    claims: Claims,
    stated: Stated,
    /// Row counts of units that may still be rejected.
    sizes: Option<SpoolWriter>,
    directory: Arc<SpillDirectory>,
    record: Vec<u8>,
}

/// See [`EntityRuns`].
#[derive(Debug)]
pub(super) struct SortedEntities {
    pub(super) entities: Sorted,
    pub(super) claims: Sorted,
    /// The number of rows of each table for units that may be rejected, in their order.
    pub(super) sizes: Option<Spool>,
}

impl TableRuns for EntityRuns {
    const TABLE: Table = Table::Entities;
    type Sorted = SortedEntities;

    fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self {
        Self {
            entities: Sorter::new(directory, memory / 4 * 3, 64),
            claims: Claims::new(directory, memory / 8),
            stated: Stated::new(memory / 8),
            sizes: None,
            directory: Arc::clone(directory),
            record: Vec::new(),
        }
    }

    fn absorb(&mut self, numbered: Numbered<'_>) -> Result<(), SpillError> {
        let unit = numbered.unit;
        if numbered.is_contingent {
            let sizes = match &mut self.sizes {
                Some(sizes) => sizes,
                none => none.insert(SpoolWriter::create(&self.directory)?),
            };
            self.record.clear();
            put_size(&mut self.record, numbered);
            sizes.push(&self.record)?;
        }
        for (entity, name) in unit.names(Table::Entities).iter().enumerate() {
            let is_known = self.stated.are_known(numbered, entity, *name);
            // The reason names the first row of the unit that claims the id, even if an earlier unit stated the same.
            let may_be_told = numbered.is_contingent && claimed_by(unit, entity).is_some();
            if is_known && !may_be_told {
                continue;
            }
            self.record.clear();
            put_entity(&mut self.record, numbered, entity);
            self.entities.push(&self.record)?;
            self.claims.absorb(unit, entity, *name)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<SortedEntities, SpillError> {
        let sizes = self.sizes.map(SpoolWriter::finish).transpose()?;
        Ok(SortedEntities { entities: self.entities.finish()?, claims: self.claims.finish()?, sizes })
    }
}

/// Writes the number of rows of each table of a unit.
fn put_size(record: &mut Vec<u8>, Numbered { number, unit, .. }: Numbered<'_>) {
    record.put_number(number);
    for table in Table::ALL {
        record.put_number(unit.names(table).len() as u64);
    }
}

/// The number of rows of each table of the units in a set.
pub(super) fn rows_of(units: &UnitSet, sizes: Option<Spool>) -> Result<[u64; 3], SpillError> {
    let mut rows = [0; 3];
    let Some(sizes) = sizes.filter(|_| !units.is_empty()) else { return Ok(rows) };
    let (mut sizes, mut record) = (sizes.into_reader(), Vec::new());
    while sizes.next(&mut record)? {
        let mut fields = Fields(&record);
        if units.contains(fields.number()?) {
            for rows in &mut rows {
                *rows += fields.number()?;
            }
        }
    }
    Ok(rows)
}

/// Records of connections.
#[derive(Debug)]
pub(super) struct ConnectionRuns(Sorter, Vec<u8>);

/// See [`ConnectionRuns`].
#[derive(Debug)]
pub(super) struct SortedConnections(pub(super) Sorted);

impl TableRuns for ConnectionRuns {
    const TABLE: Table = Table::Connections;
    type Sorted = SortedConnections;

    fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self {
        Self(Sorter::new(directory, memory, 80), Vec::new())
    }

    fn absorb(&mut self, numbered: Numbered<'_>) -> Result<(), SpillError> {
        let Self(sorter, record) = self;
        (0..numbered.unit.block().connections.len()).try_for_each(|connection| {
            record.clear();
            put_connection(record, numbered, connection);
            sorter.push(record)
        })
    }

    fn finish(self) -> Result<SortedConnections, SpillError> {
        self.0.finish().map(SortedConnections)
    }
}

/// Records of mentions.
#[derive(Debug)]
pub(super) struct MentionRuns(Sorter, Vec<u8>);

/// See [`MentionRuns`].
#[derive(Debug)]
pub(super) struct SortedMentions(pub(super) Sorted);

impl TableRuns for MentionRuns {
    const TABLE: Table = Table::Mentions;
    type Sorted = SortedMentions;

    fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self {
        Self(Sorter::new(directory, memory, 256), Vec::new())
    }

    fn absorb(&mut self, numbered: Numbered<'_>) -> Result<(), SpillError> {
        let Self(sorter, record) = self;
        (0..numbered.unit.block().mentions.len()).try_for_each(|mention| {
            record.clear();
            put_mention(record, numbered, mention);
            sorter.push(record)
        })
    }

    fn finish(self) -> Result<SortedMentions, SpillError> {
        self.0.finish().map(SortedMentions)
    }
}

/// Recently stated facts about entities: popular dishes are named by every other unit, and one record is enough.
///
/// A direct-mapped table of hashes; a newer hash replaces an older one in the same slot. Facts of a unit that may still
/// be rejected are not remembered, because they may become void.
#[derive(Debug)]
struct Stated {
    places: Vec<NameHash>,
    record: Vec<u8>,
}

impl Stated {
    fn new(memory: usize) -> Self {
        let places = (memory / size_of::<NameHash>()).clamp(1, 1 << 17);
        // A power of two, so that a slot is some bits of the hash.
        Self { places: vec![0; 1 << places.ilog2()], record: Vec::new() }
    }

    /// Whether all facts of a unit about an entity were stated before. New facts are remembered.
    fn are_known(&mut self, numbered: Numbered<'_>, entity: usize, name: NameHash) -> bool {
        let Numbered { unit, is_contingent, .. } = numbered;
        let mut known = self.take(name, is_contingent);
        if unit.says_of(entity) {
            unit.stated_of(entity, |fact| known &= self.take(fact, is_contingent));
        }
        if let Some(place) = unit.place_of(entity) {
            self.record.clear();
            self.record.put_name(name);
            put_place(&mut self.record, place);
            known &= self.take(name_of_bytes(&self.record), is_contingent);
        }
        known
    }

    fn take(&mut self, fact: NameHash, is_contingent: bool) -> bool {
        let mask = self.places.len() - 1;
        let place = &mut self.places[fact as usize & mask];
        if *place == fact {
            return true;
        }
        if !is_contingent {
            *place = fact;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::claims::Claimants;
    use crate::unit::{PlaceObservation, UnitOfWork};

    /// Equal statements about popular restaurants are one record, also where they claim the restaurants' ids.
    #[test]
    fn repeated_claims_of_a_restaurants_own_google_id_are_one_record() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        let (mut entities, mut connections) =
            (EntityRuns::new(&directory, 1 << 20), ConnectionRuns::new(&directory, 1 << 20));
        let mut claimants = Claimants::new(1 << 20);
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        for number in 0..1_000 {
            let (mut unit, restaurant) = (UnitOfWork::new(), number % 4);
            let place = PlaceObservation::new(at).google_place_id(format!("id {restaurant}"));
            let restaurant = unit.restaurant(format!("restaurant {restaurant}")).place(place).handle();
            let dish = unit.dish("dish").handle();
            unit.connection(restaurant, dish).handle();
            let unit = unit.prepare().share();
            let is_contingent = claimants.may_refuse(unit.get());
            assert!(!is_contingent, "unit {number}");
            let numbered = Numbered { number, unit: unit.get(), is_contingent };
            entities.absorb(numbered).unwrap();
            connections.absorb(numbered).unwrap();
        }
        let entities = entities.finish().unwrap();
        assert_eq!((entities.entities.count(), entities.claims.count()), (5, 4));
        assert_eq!(connections.finish().unwrap().0.count(), 4);
        assert!(entities.sizes.is_none());
    }
}
