//! Records of entities.

use std::sync::Arc;

use super::fields::{Fields, Malformed, PutFields};
use super::{Merging, Numbered, RowSink};
use crate::batch::EntityWrite;
use crate::bulk::spill::{Merged, SpillError};
use crate::record::{Coordinate, EntityFacts, EntityKey, EntityType, Merge, Place, Table};
use crate::store::Entities;
use crate::unit::{EntityRecord, NameHash};

/// Writes the record of one of a unit's entities, which is named by its key.
pub(in crate::bulk) fn put_entity(record: &mut Vec<u8>, numbered: Numbered<'_>, entity: usize) {
    let Numbered { unit, is_contingent, .. } = numbered;
    let EntityRecord::Key(entity_type, name) = unit.block().entities[entity] else {
        unreachable!("units that name rows by their ids were refused");
    };
    let names = unit.names(Table::Entities);
    let place = unit.place_of(entity);
    record.put_name(names[entity]);
    // For places the order of units matters: it determines which restaurant had a Google id first.
    record.put_number(numbered.if_needed(is_contingent || place.is_some()));
    record.put_byte(entity_type as u8);
    record.put_text(unit.block().text(name));
    record.put_names(unit.block().attributes_of(entity).map(|attribute| names[attribute]));
    record.put_number(unit.block().aliases_of(entity).count() as u64);
    unit.block().aliases_of(entity).for_each(|alias| record.put_text(alias));
    if let Some(place) = place {
        record.put_number(entity as u64);
        put_place(record, place);
    }
}

/// Writes an observed place of a restaurant.
pub(in crate::bulk) fn put_place(record: &mut Vec<u8>, place: &Place) {
    record.put_time(place.observed_at);
    record.put_byte(u8::from(place.location.is_some()));
    if let Some((latitude, longitude)) = place.location {
        record.put_int(latitude.units());
        record.put_int(longitude.units());
    }
    record.put_maybe_text(place.address.as_deref());
    record.put_maybe_text(place.google_place_id.as_deref());
    record.put_maybe_text(place.metadata.as_ref().map(ToString::to_string).as_deref());
}

/// The content of an entity's record.
#[derive(Debug, Clone, Copy)]
pub(in crate::bulk) struct Entity<'a> {
    pub(in crate::bulk) name: NameHash,
    /// The number of its unit plus one; 0 if the unit does not matter.
    pub(in crate::bulk) number: u64,
    kind: EntityType,
    text: &'a str,
    rest: Fields<'a>,
}

/// A unit's place of a restaurant.
#[derive(Debug)]
pub(in crate::bulk) struct Placed {
    /// The row's position among the entities of its unit.
    pub(in crate::bulk) row: u64,
    pub(in crate::bulk) place: Place,
}

impl<'a> Entity<'a> {
    pub(in crate::bulk) fn read(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(record);
        let (name, number) = (fields.name()?, fields.number()?);
        let kind = *EntityType::ALL.get(fields.byte()? as usize).ok_or(Malformed)?;
        Ok(Self { name, number, kind, text: fields.text()?, rest: fields })
    }

    /// Adds its facts other than the key to `facts`.
    fn read_facts(self, ids: super::Ids, facts: &mut EntityFacts<uuid::Uuid>) -> Result<(), Malformed> {
        let mut fields = self.rest;
        for attribute in fields.names()? {
            facts.restaurant_attributes.insert(ids.id(attribute));
        }
        for _ in 0..fields.number()? {
            facts.merge_aliases([fields.text()?]);
        }
        let placed = read_placed(fields)?;
        facts.merge(EntityFacts { place: placed.map(|placed| Arc::new(placed.place)), ..EntityFacts::default() });
        Ok(())
    }

    /// Its place, if there is one.
    pub(in crate::bulk) fn placed(self) -> Result<Option<Placed>, Malformed> {
        let mut fields = self.rest;
        drop(fields.names()?);
        for _ in 0..fields.number()? {
            fields.text()?;
        }
        read_placed(fields)
    }
}

/// Reads the end of a record.
fn read_placed(mut fields: Fields<'_>) -> Result<Option<Placed>, Malformed> {
    if fields.rest().is_empty() {
        return Ok(None);
    }
    let row = fields.number()?;
    let observed_at = fields.time()?;
    let location = match fields.byte()? {
        0 => None,
        _ => Some((Coordinate::from_units(fields.int()?), Coordinate::from_units(fields.int()?))),
    };
    let address = fields.maybe_text()?.map(str::to_owned);
    let google_place_id = fields.maybe_text()?.map(str::to_owned);
    let metadata = fields.maybe_text()?.map(serde_json::from_str).transpose().map_err(|_| Malformed)?;
    Ok(Some(Placed { row, place: Place { location, address, google_place_id, metadata, observed_at } }))
}

/// Makes final rows of sorted records.
pub(in crate::bulk) fn merge_entities<S: RowSink<Entities>>(
    mut records: Merged,
    merging: Merging<'_>,
    rows: &mut S,
) -> Result<(), S::Error> {
    let mut current: Option<(NameHash, EntityKey, EntityFacts<uuid::Uuid>)> = None;
    let mut finish = |current: Option<(NameHash, EntityKey, EntityFacts<uuid::Uuid>)>| match current {
        Some((name, key, facts)) => rows.push(&EntityWrite::of_stored(merging.ids.id(name), key, facts)),
        None => Ok(()),
    };
    while let Some(record) = records.next()? {
        let entity = Entity::read(record).map_err(SpillError::from)?;
        if !merging.counts(entity.number) {
            continue;
        }
        if current.as_ref().is_none_or(|(name, ..)| *name != entity.name) {
            let key = EntityKey::new(entity.kind, entity.text);
            finish(current.replace((entity.name, key, EntityFacts::default())))?;
        }
        if let Some((_, _, facts)) = &mut current {
            entity.read_facts(merging.ids, facts).map_err(SpillError::from)?;
        }
    }
    finish(current)
}
