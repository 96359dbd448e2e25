//! Google ids, each of which only one restaurant may hold: finds the units to be rejected for their claims.
//!
//! The result is that of the engine if each unit were committed separately, in the order of their numbers: a unit after
//! which two restaurants would have one id is rejected as a whole, and a newer place without the id gives it up. Only
//! facts about restaurants that claim an id claimed by others too can matter. So
//!
//! 1. all claims, sorted by id, yield the *contested* restaurants: usually there are none, and the work ends here;
//! 2. from the sorted facts about entities, the places of contested restaurants are ranked by precedence;
//! 3. these, sorted by unit, are processed unit by unit.
//!
//! All data is sorted outside of memory, except for the current holder of each id: this map contains contested
//! restaurants only, and no more of them than the load's memory can hold. More are a separate error, because the holder
//! of an id depends on all earlier units.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::error::BulkError;
use super::refusals::Refusal;
use super::rows::{Entity, Fields, Malformed, PutFields, UnitSet};
use super::spill::{Merged, Sorted, Sorter, SpillDirectory, SpillError};
use crate::hash::HashMap;
use crate::record::{Place, Table};
use crate::unit::{NameHash, Unit, name_of_text};

/// Determines which units may be rejected, given units in their order: those that claim an id which another restaurant
/// claimed before, in an earlier unit or in the same one. Without such a claim no restaurant of the unit can get an id
/// that another has. Ids that do not fit count as claimed.
#[derive(Debug)]
pub(super) struct Claimants {
    /// The restaurant that claims an id, or [`SEVERAL`](Self::SEVERAL).
    of_id: HashMap<NameHash, NameHash>,
    ids_max: usize,
}

impl Claimants {
    /// Stands for several restaurants.
    const SEVERAL: NameHash = 0;

    /// Keeps as many ids as fit into `memory` bytes.
    pub(super) fn new(memory: usize) -> Self {
        // A hash table has a power of two of buckets, of which an eighth stays free, and one more byte for each.
        let places = memory / (2 * size_of::<NameHash>() + 1);
        let ids_max = places.checked_ilog2().map_or(0, |power| (1 << power) / 8 * 7);
        let mut of_id = HashMap::default();
        of_id.reserve(ids_max);
        Self { of_id, ids_max }
    }

    /// Whether the unit, which is the next one, may be rejected for its claims.
    pub(super) fn may_refuse(&mut self, unit: Unit<'_>) -> bool {
        let mut may_refuse = false;
        for (entity, restaurant) in unit.names(Table::Entities).iter().enumerate() {
            if let Some(claimed) = claimed_by(unit, entity) {
                may_refuse |= self.is_claimed_by_another(name_of_text(claimed), *restaurant);
            }
        }
        may_refuse
    }

    /// Whether another restaurant has claimed the id.
    fn is_claimed_by_another(&mut self, id: NameHash, restaurant: NameHash) -> bool {
        let has_room = self.of_id.len() < self.ids_max;
        match self.of_id.get_mut(&id) {
            Some(claimant) if *claimant == restaurant => restaurant == Self::SEVERAL,
            Some(claimant) => {
                *claimant = Self::SEVERAL;
                true
            }
            None if has_room => {
                self.of_id.insert(id, restaurant);
                false
            }
            None => true,
        }
    }
}

/// The id that a unit claims for one of its entities.
pub(super) fn claimed_by(unit: Unit<'_>, entity: usize) -> Option<&str> {
    unit.place_of(entity).and_then(|place| place.google_place_id.as_deref())
}

/// Records the claims of units.
#[derive(Debug)]
pub(super) struct Claims {
    /// Ids, each with a restaurant that claims it.
    claims: Sorter,
    record: Vec<u8>,
}

impl Claims {
    pub(super) fn new(directory: &Arc<SpillDirectory>, memory: usize) -> Self {
        Self { claims: Sorter::new(directory, memory, 2 * size_of::<NameHash>()), record: Vec::new() }
    }

    /// Records the claim of a unit for one of its entities.
    pub(super) fn absorb(&mut self, unit: Unit<'_>, entity: usize, name: NameHash) -> Result<(), SpillError> {
        let Some(claimed) = claimed_by(unit, entity) else { return Ok(()) };
        self.record.clear();
        self.record.put_name(name_of_text(claimed));
        self.record.put_name(name);
        self.claims.push(&self.record)
    }

    pub(super) fn finish(self) -> Result<Sorted, SpillError> {
        self.claims.finish()
    }
}

/// Finds the units to be rejected. `entities`: all facts about entities. `refuse` is called for each rejected unit, in
/// order.
pub(super) fn settle(
    claims: Sorted,
    entities: &mut Sorted,
    directory: &Arc<SpillDirectory>,
    memory: usize,
    mut refuse: impl FnMut(u64, Refusal) -> Result<(), SpillError>,
) -> Result<UnitSet, BulkError> {
    let contested = contested(claims.into_merged(memory / 2)?, directory, memory / 4)?;
    let mut refused = UnitSet::default();
    if contested.count() == 0 {
        return Ok(refused);
    }
    entities.reduce_to(memory / 2)?;
    let places = places_of(
        contested.into_merged(memory / 8)?,
        entities.clone().into_merged(memory / 2)?,
        directory,
        memory / 4,
    )?;
    let ranked = ranked(places.into_merged(memory / 2)?, directory, memory / 2)?;
    let mut units = Units { steps: ranked.into_merged(memory / 2)?, ahead: None };
    let mut holders = Holders::new(memory / 2);
    while let Some((unit, steps)) = units.next()? {
        if let Err(taken) = holders.apply(&steps) {
            let row = steps.iter().filter(|step| step.claimed == taken).map(|step| step.row).min().unwrap_or_default();
            refused.insert(unit);
            refuse(unit, Refusal::PlaceTaken { row: row as usize, google_place_id: taken })?;
        }
        holders.expect_room()?;
    }
    Ok(refused)
}

/// The restaurants that claim an id claimed by others too.
fn contested(mut claims: Merged, directory: &Arc<SpillDirectory>, memory: usize) -> Result<Sorted, SpillError> {
    let mut contested = Sorter::new(directory, memory, size_of::<NameHash>());
    let mut before: Option<(NameHash, NameHash)> = None;
    while let Some(claim) = claims.next()? {
        let mut fields = Fields(claim);
        let (id, restaurant) = (fields.name()?, fields.name()?);
        if let Some((_, other)) = before.filter(|(before, _)| *before == id) {
            contested.push(&other.to_be_bytes())?;
            contested.push(&restaurant.to_be_bytes())?;
        }
        before = Some((id, restaurant));
    }
    contested.finish()
}

/// The places of contested restaurants, by restaurant and by precedence. Both inputs are in the order of the names.
fn places_of(
    mut contested: Merged,
    mut entities: Merged,
    directory: &Arc<SpillDirectory>,
    memory: usize,
) -> Result<Sorted, SpillError> {
    let mut places = Sorter::new(directory, memory, 256);
    let mut record = Vec::new();
    let mut next = next_name(&mut contested)?;
    while let Some(entity) = entities.next()? {
        let entity = Entity::read(entity)?;
        while next.is_some_and(|next| next < entity.name) {
            next = next_name(&mut contested)?;
        }
        if next != Some(entity.name) {
            continue;
        }
        let Some(own) = entity.placed()? else { continue };
        record.clear();
        record.put_name(entity.name);
        put_precedence(&mut record, &own.place);
        record.put(&(entity.number - 1).to_be_bytes());
        record.put(&own.row.to_be_bytes());
        record.put(own.place.google_place_id.unwrap_or_default().as_bytes());
        places.push(&record)?;
    }
    places.finish()
}

fn next_name(names: &mut Merged) -> Result<Option<NameHash>, SpillError> {
    let name = names.next()?.map(|name| Fields(name).name()).transpose()?;
    Ok(name)
}

/// The order of [`Place::precedence`] as an order of bytes.
fn put_precedence(record: &mut Vec<u8>, place: &Place) {
    record.put(&(place.observed_at.timestamp_micros().cast_unsigned() ^ 1 << 63).to_be_bytes());
    record.put(place.serialized().as_bytes());
    // JSON contains no zero byte, so that a text sorts before its extensions.
    record.put_byte(0);
}

/// A unit's place for a contested restaurant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    row: u64,
    restaurant: NameHash,
    /// The rank among all places of the restaurant; the greater wins. From 1.
    rank: u64,
    /// The id; empty for none.
    claimed: String,
}

/// The same places by unit, each with its rank.
fn ranked(mut places: Merged, directory: &Arc<SpillDirectory>, memory: usize) -> Result<Sorted, SpillError> {
    const UNIT_AND_ROW: usize = 16;
    let mut ranked = Sorter::new(directory, memory, 80);
    let (mut record, mut before, mut rank) = (Vec::new(), Vec::new(), 0_u64);
    while let Some(place) = places.next()? {
        let end = place.iter().skip(16 + 8).position(|byte| *byte == 0).ok_or(Malformed)? + 16 + 8 + 1;
        let (precedence, rest) = place.split_at(end);
        if before != precedence {
            // Ranks of different restaurants need not be distinguished.
            rank += 1;
            before.clear();
            before.extend_from_slice(precedence);
        }
        let (unit_and_row, claimed) = rest.split_at_checked(UNIT_AND_ROW).ok_or(Malformed)?;
        record.clear();
        record.put(unit_and_row);
        record.put(&precedence[..16]);
        record.put(&rank.to_be_bytes());
        record.put(claimed);
        ranked.push(&record)?;
    }
    ranked.finish()
}

/// Reads the places unit by unit.
struct Units {
    steps: Merged,
    ahead: Option<(u64, Step)>,
}

impl Units {
    fn next(&mut self) -> Result<Option<(u64, Vec<Step>)>, SpillError> {
        let (unit, first) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => match self.read()? {
                Some(next) => next,
                None => return Ok(None),
            },
        };
        let mut steps = vec![first];
        while let Some((other, step)) = self.read()? {
            if other != unit {
                self.ahead = Some((other, step));
                break;
            }
            steps.push(step);
        }
        Ok(Some((unit, steps)))
    }

    fn read(&mut self) -> Result<Option<(u64, Step)>, SpillError> {
        let Some(record) = self.steps.next()? else { return Ok(None) };
        let mut fields = Fields(record);
        let (unit, row) = (fields.int()? as u64, fields.int()? as u64);
        let (restaurant, rank) = (fields.name()?, fields.int()? as u64);
        let claimed = std::str::from_utf8(fields.rest()).map_err(|_| Malformed)?.to_owned();
        Ok(Some((unit, Step { row, restaurant, rank, claimed })))
    }
}

/// The current holders of contested ids.
#[derive(Debug)]
struct Holders {
    /// The winning place of each restaurant so far: its rank, and the id.
    restaurants: HashMap<NameHash, (u64, Option<NameHash>)>,
    holder: HashMap<NameHash, NameHash>,
    restaurants_max: usize,
}

impl Holders {
    /// Maximum bytes of both maps for a restaurant: just after growing they are less than half full, and during growth
    /// there are an old and a new map.
    const BYTES: usize = 300;
    /// This number is always allowed.
    const RESTAURANTS_MIN: usize = 1024;

    fn new(memory: usize) -> Self {
        let restaurants_max = (memory / Self::BYTES).max(Self::RESTAURANTS_MIN);
        Self { restaurants: HashMap::default(), holder: HashMap::default(), restaurants_max }
    }

    /// Fails once they exceed their memory.
    fn expect_room(&self) -> Result<(), BulkError> {
        if self.restaurants.len() <= self.restaurants_max {
            return Ok(());
        }
        Err(BulkError::Contested { restaurants_max: self.restaurants_max })
    }

    /// Applies a unit's places, unless two restaurants would then have one id: the error is the first such id, in the
    /// order in which the engine writes them.
    fn apply(&mut self, steps: &[Step]) -> Result<(), String> {
        let changes = self.changes(steps);
        let mut taken: HashMap<&str, NameHash> = HashMap::default();
        let mut refused: Option<&str> = None;
        for (restaurant, step) in changes.iter().filter(|(_, step)| !step.claimed.is_empty()) {
            let of_other_row = *taken.entry(&step.claimed).or_insert(*restaurant) != *restaurant;
            let holder = self.holder.get(&name_of_text(&step.claimed));
            let of_other = holder.is_some_and(|holder| holder != restaurant && !changes.contains_key(holder));
            // A holder with another id in this unit has given it up; a holder with the same id is among those that take
            // it.
            if of_other_row || of_other {
                refused = Some(refused.map_or(&*step.claimed, |before| before.min(&step.claimed)));
            }
        }
        if let Some(refused) = refused {
            return Err(refused.to_owned());
        }
        for (restaurant, step) in &changes {
            if let Some((_, Some(before))) = self.restaurants.get(restaurant) {
                self.holder.remove(before);
            }
            let claimed = (!step.claimed.is_empty()).then(|| name_of_text(&step.claimed));
            self.restaurants.insert(*restaurant, (step.rank, claimed));
        }
        for (restaurant, step) in changes.iter().filter(|(_, step)| !step.claimed.is_empty()) {
            self.holder.insert(name_of_text(&step.claimed), *restaurant);
        }
        Ok(())
    }

    /// Restaurants for which the unit's place wins against the earlier ones.
    fn changes<'s>(&self, steps: &'s [Step]) -> HashMap<NameHash, &'s Step> {
        let mut changes: HashMap<NameHash, &Step> = HashMap::default();
        for step in steps {
            if self.restaurants.get(&step.restaurant).is_some_and(|(rank, _)| *rank >= step.rank) {
                continue;
            }
            match changes.entry(step.restaurant) {
                Entry::Vacant(entry) => _ = entry.insert(step),
                Entry::Occupied(mut entry) => {
                    if entry.get().rank < step.rank {
                        entry.insert(step);
                    }
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::rows::Numbered;
    use crate::unit::{PlaceObservation, SharedUnit, UnitOfWork};

    fn unit(claims: &[(&str, &str)]) -> SharedUnit {
        let mut unit = UnitOfWork::new();
        for (restaurant, id) in claims {
            let place = PlaceObservation::new("2026-01-02T03:04:05Z".parse().unwrap());
            unit.restaurant(*restaurant).place(place.google_place_id(*id));
        }
        unit.prepare().share()
    }

    #[test]
    fn a_unit_is_contingent_once_another_restaurant_has_claimed_its_google_id() {
        let mut claimants = Claimants::new(1 << 20);
        let mut may_refuse = |claims: &[(&str, &str)]| claimants.may_refuse(unit(claims).get());
        assert!(!may_refuse(&[("a", "1"), ("b", "2")]));
        assert!(!may_refuse(&[("a", "1")]), "its own");
        assert!(!may_refuse(&[("a", "3")]), "a restaurant may change its id");
        assert!(may_refuse(&[("c", "1")]));
        assert!(may_refuse(&[("a", "1")]), "the other restaurant may have it now");
        assert!(may_refuse(&[("d", "4"), ("e", "4")]), "two claimants in one unit");
        assert!(may_refuse(&[("d", "4")]));
        assert!(!may_refuse(&[("f", "5")]));
    }

    #[test]
    fn google_ids_beyond_the_bound_count_as_claimed_and_earlier_ones_are_still_known() {
        let mut claimants = Claimants::new(33 * 8);
        assert_eq!((claimants.ids_max, Claimants::new(0).ids_max), (7, 0));
        let capacity = claimants.of_id.capacity();
        for number in 0..20 {
            let (restaurant, id) = (format!("r{number}"), number.to_string());
            assert_eq!(claimants.may_refuse(unit(&[(&restaurant, &id)]).get()), number >= 7);
            assert!(!claimants.may_refuse(unit(&[("r3", "3")]).get()), "remembered since the beginning");
        }
        assert_eq!(claimants.of_id.capacity(), capacity, "the memory does not grow");
    }

    fn settled(directory: &Arc<SpillDirectory>, restaurants: u64, memory: usize) -> Result<Vec<u64>, BulkError> {
        let mut claims = Claims::new(directory, 1 << 20);
        let mut entities = Sorter::new(directory, 1 << 20, 64);
        let mut record = Vec::new();
        for number in 0..restaurants {
            // Two restaurants each claim the same id.
            let unit = unit(&[(&format!("r{number}"), &format!("id {}", number / 2))]);
            let name = unit.get().names(Table::Entities)[0];
            claims.absorb(unit.get(), 0, name).unwrap();
            record.clear();
            crate::bulk::rows::put_entity(&mut record, Numbered { number, unit: unit.get(), is_contingent: true }, 0);
            entities.push(&record).unwrap();
        }
        let (claims, mut entities) = (claims.finish().unwrap(), entities.finish().unwrap());
        let mut refused = Vec::new();
        settle(claims, &mut entities, directory, memory, |unit, _| {
            refused.push(unit);
            Ok(())
        })?;
        Ok(refused)
    }

    #[test]
    fn too_many_contested_restaurants_for_the_memory_are_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        let odd: Vec<u64> = (0..3_000).filter(|number| number % 2 == 1).collect();
        assert_eq!(settled(&directory, 3_000, 16 << 20).unwrap(), odd);
        let error = settled(&directory, 3_000, 16 << 10).unwrap_err();
        assert!(matches!(error, BulkError::Contested { restaurants_max: 1024 }), "{error}");
        assert!(error.to_string().contains("BulkSettings::memory"), "{error}");
    }
}
