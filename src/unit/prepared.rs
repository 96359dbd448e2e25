//! Units in the engine's form: validated, with the hash of each row's name.

use std::sync::Arc;

use serde_json::Value;

use super::block::{Block, BlockEnd, ConnectionRecordName, EntityRecord, UnitRows, part};
use super::labels::Labels;
use super::names;
use super::names::{NameHash, name_hash};
use super::{Field, PlaceObservation, Row, UnitOfWork};
use crate::hash::hash_of;
use crate::record::{Coordinate, EntityType, Place, Table, canonical, truncate};

/// Validated units: their rows one after the other in one block.
///
/// What is used together is in neighbouring memory, which is allocated in large pieces: first all units on their way to
/// the supervisor, [`added`](Self::add) by the tasks that submit them, then those that an epoch absorbs together or that
/// are held together, which are [`gathered`](Self::gather).
#[derive(Debug, Default)]
pub(crate) struct PreparedUnits {
    block: Block,
    /// Hashes of the names of all rows: for each unit of entities, connections, mentions.
    hashes: Vec<NameHash>,
    /// Observed places, with the position of their entity in the unit; at most one for each entity.
    places: Vec<(u32, Arc<Place>)>,
    /// Uses of entities that are named by id, whose type only the database knows.
    typed_uses: Vec<TypedUse>,
    units: Vec<UnitEnd>,
    /// Whether they stay here: they were gathered, and take exactly as much memory as they need.
    are_gathered: bool,
}

/// What follows the rows of a unit.
#[derive(Debug)]
struct UnitEnd {
    at: End,
    /// Labels of rows, for the outcome.
    temp_ids: Option<Arc<Labels>>,
    /// Distinguishes this unit's handles from those of others.
    nonce: u64,
}

/// How far a unit reaches in each list.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    block: BlockEnd,
    places: u32,
    typed_uses: u32,
}

/// A unit that is not yet stored beside others.
#[derive(Debug)]
pub(crate) struct PreparedUnit(PreparedUnits);

/// One of [`PreparedUnits`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit<'a> {
    units: &'a PreparedUnits,
    place: usize,
}

/// One of [`PreparedUnits`], which it keeps.
#[derive(Debug, Clone)]
pub(crate) struct SharedUnit {
    units: Arc<PreparedUnits>,
    place: u32,
}

/// One fact about an entity: its existence, or something that belongs to it. Both are hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FactHash {
    /// The entity.
    pub(crate) entity: u64,
    /// The fact about this entity.
    pub(crate) fact: u64,
}

/// A use of an entity, named by id, where a certain type is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypedUse {
    /// Index of the entity in the unit.
    pub(crate) entity: u32,
    /// The required type.
    pub(crate) expected: EntityType,
    /// The row that uses it.
    pub(crate) row: Row,
    /// The column in which it is used.
    pub(crate) field: Field,
}

impl UnitOfWork {
    /// Approximate memory, in bytes, that the unit occupies while it is in flight.
    pub(crate) fn bytes(&self) -> usize {
        /// Records, hashes, map entries and the transaction's data for a row.
        const ROW_OVERHEAD: usize = 256;
        /// A link of a row.
        const LINK_OVERHEAD: usize = 48;
        let places = self.places.iter().map(|(_, place)| {
            let metadata = place.metadata.as_ref().map_or(0, json_bytes);
            let texts = [&place.address, &place.google_place_id];
            texts.into_iter().flatten().map(String::len).sum::<usize>() + metadata
        });
        let links = self.block.entity_links.len() + self.block.connection_links.len();
        self.rows() * ROW_OVERHEAD
            + self.block.text_bytes()
            + links * LINK_OVERHEAD
            + places.sum::<usize>()
            + self.temp_ids.bytes()
    }

    /// Turns a unit that passed [`validate`](Self::validate) into the engine's form.
    ///
    /// # Panics
    /// Panics if the unit was not validated.
    pub(crate) fn prepare(self) -> PreparedUnit {
        let Self { mut block, places, temp_ids, nonce, .. } = self;
        block.sort_links();
        let (hashes, typed_uses) = (hashes(block.view()), typed_uses(block.view(), &places));
        let places = prepare_places(places);
        let at = End { block: block.end(), places: places.len() as u32, typed_uses: typed_uses.len() as u32 };
        let temp_ids = (!temp_ids.is_empty()).then(|| Arc::new(temp_ids));
        let units = vec![UnitEnd { at, temp_ids, nonce }];
        PreparedUnit(PreparedUnits { block, hashes, places, typed_uses, units, are_gathered: false })
    }
}

impl PreparedUnit {
    /// The unit in memory of its own, which it keeps.
    pub(crate) fn share(self) -> SharedUnit {
        SharedUnit { units: Arc::new(self.into_store()), place: 0 }
    }

    /// The unit as a store that has no other.
    pub(crate) fn into_store(mut self) -> PreparedUnits {
        self.0.block.shrink_text();
        self.0
    }

    #[inline]
    pub(crate) fn get(&self) -> Unit<'_> {
        Unit { units: &self.0, place: 0 }
    }
}

impl SharedUnit {
    /// The store of this unit, if this was its last use.
    pub(crate) fn into_store(self) -> Option<PreparedUnits> {
        Arc::into_inner(self.units)
    }

    #[inline]
    pub(crate) fn get(&self) -> Unit<'_> {
        Unit { units: &self.units, place: self.place as usize }
    }
}

impl End {
    /// The end of units up to `self`, followed by the one from `start` to `end`.
    const fn then(self, start: Self, end: Self) -> Self {
        Self {
            block: self.block.then(start.block, end.block),
            places: self.places + (end.places - start.places),
            typed_uses: self.typed_uses + (end.typed_uses - start.typed_uses),
        }
    }
}

impl PreparedUnits {
    fn with_room(units: usize, end: End) -> Self {
        Self {
            block: Block::with_room(end.block),
            hashes: Vec::with_capacity(end.block.rows()),
            places: Vec::with_capacity(end.places as usize),
            typed_uses: Vec::with_capacity(end.typed_uses as usize),
            units: Vec::with_capacity(units),
            are_gathered: false,
        }
    }

    /// Stores other units behind its own.
    pub(crate) fn add(&mut self, others: &Self) {
        (0..others.units.len()).for_each(|place| self.push(Unit { units: others, place }));
    }

    /// Room for as many units again.
    pub(crate) fn room_again(&self) -> Self {
        Self::with_room(self.units.len(), self.end())
    }

    /// Removes all units, and keeps their memory.
    pub(crate) fn clear(&mut self) {
        let Self { block, hashes, places, typed_uses, units, are_gathered: _ } = self;
        block.clear();
        hashes.clear();
        places.clear();
        typed_uses.clear();
        units.clear();
    }

    /// Whether there is no unit.
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Number of rows of all tables.
    pub(crate) fn rows(&self) -> usize {
        self.block.rows()
    }

    /// Total bytes of all texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.block.text_bytes()
    }

    /// Each of the units, in their order.
    pub(crate) fn share(self) -> impl Iterator<Item = SharedUnit> {
        let all = Arc::new(self);
        (0..all.units.len() as u32).map(move |place| SharedUnit { units: Arc::clone(&all), place })
    }

    /// The same units side by side, in exactly as much memory as they take. Those that were gathered before stay where
    /// they are, and so does a single unit that has memory of its own.
    pub(crate) fn gather(units: &[SharedUnit]) -> Vec<SharedUnit> {
        let stays = |unit: &SharedUnit| unit.units.are_gathered || units.len() == 1 && unit.units.units.len() == 1;
        if units.iter().all(stays) {
            return units.to_vec();
        }
        let moving = || units.iter().filter(|unit| !stays(unit)).map(SharedUnit::get);
        let (mut count, mut end) = (0, End::default());
        for unit in moving() {
            (count, end) = (count + 1, end.then(unit.start(), unit.end().at));
        }
        let mut gathered = Self::with_room(count, end);
        gathered.are_gathered = true;
        moving().for_each(|unit| gathered.push(unit));
        let mut gathered = gathered.share();
        units.iter().filter_map(|unit| if stays(unit) { Some(unit.clone()) } else { gathered.next() }).collect()
    }

    fn push(&mut self, unit: Unit<'_>) {
        let (start, UnitEnd { at: end, temp_ids, nonce }) = (unit.start(), unit.end());
        let at = self.end().then(start, *end);
        self.block.append(&unit.units.block, start.block, end.block);
        self.hashes.extend_from_slice(unit.hashes());
        self.places.extend_from_slice(unit.places());
        self.typed_uses.extend_from_slice(unit.typed_uses());
        self.units.push(UnitEnd { at, temp_ids: temp_ids.clone(), nonce: *nonce });
    }

    fn end(&self) -> End {
        self.units.last().map(|unit| unit.at).unwrap_or_default()
    }
}

impl<'a> Unit<'a> {
    #[inline]
    fn end(self) -> &'a UnitEnd {
        &self.units.units[self.place]
    }

    #[inline]
    fn start(self) -> End {
        self.place.checked_sub(1).map(|before| self.units.units[before].at).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn block(self) -> UnitRows<'a> {
        self.units.block.part(self.start().block, self.end().at.block)
    }

    /// Number of rows of all tables.
    pub(crate) fn rows(self) -> usize {
        self.end().at.block.rows() - self.start().block.rows()
    }

    fn hashes(self) -> &'a [NameHash] {
        &self.units.hashes[self.start().block.rows()..self.end().at.block.rows()]
    }

    /// The hashes of the names of a table's rows, in the order of the unit.
    #[inline]
    pub(crate) fn names(self, table: Table) -> &'a [NameHash] {
        let (block, hashes) = (self.block(), self.hashes());
        let (entities, connections) = (block.entities.len(), block.connections.len());
        match table {
            Table::Entities => &hashes[..entities],
            Table::Connections => &hashes[entities..entities + connections],
            Table::Mentions => &hashes[entities + connections..],
        }
    }

    fn places(self) -> &'a [(u32, Arc<Place>)] {
        part(&self.units.places, self.start().places, self.end().at.places)
    }

    /// See [`TypedUse`].
    pub(crate) fn typed_uses(self) -> &'a [TypedUse] {
        part(&self.units.typed_uses, self.start().typed_uses, self.end().at.typed_uses)
    }

    /// Labels of rows, for the outcome.
    pub(crate) fn temp_ids(self) -> Option<&'a Arc<Labels>> {
        self.end().temp_ids.as_ref()
    }

    /// Distinguishes this unit's handles from those of others.
    pub(crate) fn nonce(self) -> u64 {
        self.end().nonce
    }

    /// The place that the unit states for an entity.
    pub(crate) fn place_of(self, entity: usize) -> Option<&'a Arc<Place>> {
        let places = self.places();
        let place = places.binary_search_by_key(&(entity as u32), |(entity, _)| *entity).ok()?;
        Some(&places[place].1)
    }

    /// Whether the unit states nothing about entities but their existence.
    pub(crate) fn says_only_existence(self) -> bool {
        self.block().entity_links.is_empty() && self.places().is_empty()
    }

    /// Whether the unit states more about an entity than its existence.
    pub(crate) fn says_of(self, entity: usize) -> bool {
        self.block().links_of(Table::Entities, entity).next().is_some() || self.place_of(entity).is_some()
    }

    /// Calls `tell` with hashes of the facts that the unit states about an entity, its aliases and attributes: a cache
    /// that knows these facts to be in the row saves the lookup. Returns false if the unit also states a place, which
    /// no hash stands for.
    pub(crate) fn stated_of(self, entity: usize, mut tell: impl FnMut(NameHash)) -> bool {
        let entities = self.names(Table::Entities);
        for alias in self.block().aliases_of(entity) {
            tell(name_hash(|hasher| {
                names::part(hasher, &(2_u8, entities[entity]));
                names::part(hasher, &alias);
            }));
        }
        for attribute in self.block().attributes_of(entity) {
            tell(name_hash(|hasher| names::part(hasher, &(3_u8, entities[entity], entities[attribute]))));
        }
        self.place_of(entity).is_none()
    }

    /// Units with the same value probably touch the same connections: a hash of the first connection's restaurant, or of
    /// the first entity.
    pub(crate) fn affinity(self) -> u64 {
        let entities = self.names(Table::Entities);
        let first = match self.block().connections.first().map(|connection| connection.name) {
            Some(ConnectionRecordName::Key { restaurant, .. }) => Some(&entities[restaurant.own()]),
            Some(ConnectionRecordName::Id(_)) => self.names(Table::Connections).first(),
            None => entities.first(),
        };
        first.map_or(0, |hash| *hash as u64)
    }

    /// Hashes of the facts about entities, entity by entity. A place has no hash: it belongs to a
    /// restaurant, and units of one restaurant share their affinity anyway.
    pub(crate) fn fact_hashes(self) -> impl Iterator<Item = FactHash> + 'a {
        let entities = self.names(Table::Entities);
        self.block().entities.iter().zip(entities).enumerate().flat_map(move |(place, (record, hash))| {
            let entity = *hash as u64;
            // An entity that is named by its id exists already.
            let is_there = matches!(record, EntityRecord::Key(..)).then_some(entity);
            let facts = is_there.into_iter().chain(self.belongings_of(place));
            facts.map(move |fact| FactHash { entity, fact })
        })
    }

    fn belongings_of(self, place: usize) -> impl Iterator<Item = u64> + 'a {
        let entities = self.names(Table::Entities);
        let entity = entities[place] as u64;
        let aliases = self.block().aliases_of(place).map(move |alias| hash_of(&(entity, alias)));
        let attributes = self.block().attributes_of(place);
        aliases.chain(attributes.map(move |attribute| hash_of(&(entity, entities[attribute] as u64))))
    }
}

/// The hashes of all names.
fn hashes(block: UnitRows<'_>) -> Vec<NameHash> {
    let rows = block.entities.len() + block.connections.len() + block.mentions.len();
    let mut hashes = Vec::with_capacity(rows);
    for entity in block.entities {
        hashes.push(name_hash(|hasher| match entity {
            EntityRecord::Key(entity_type, name) => {
                names::part(hasher, &(true, *entity_type));
                names::part(hasher, &block.text(*name));
            }
            EntityRecord::Id(id) => names::part(hasher, &(false, id)),
        }));
    }
    for (place, connection) in block.connections.iter().enumerate() {
        let hash = name_hash(|hasher| match connection.name {
            ConnectionRecordName::Key { restaurant, dish } => {
                names::part(hasher, &(true, hashes[restaurant.own()], hashes[dish.own()]));
                // Sorted and without duplicates, as a set.
                let mut attributes: Vec<NameHash> =
                    block.dish_attributes_of(place).map(|attribute| hashes[attribute]).collect();
                attributes.sort_unstable();
                attributes.dedup();
                names::part(hasher, &attributes);
            }
            ConnectionRecordName::Id(id) => names::part(hasher, &(false, id)),
        });
        hashes.push(hash);
    }
    for record in block.mentions {
        let connection = hashes[block.entities.len() + record.connection.own()];
        let mention = block.texts.mention(record);
        hashes.push(name_hash(|hasher| names::part(hasher, &(connection, mention.source_type, mention.source_id))));
    }
    hashes
}

/// Approximate bytes of a value as JSON text. It uses an explicit stack: this runs before the depth is checked, the
/// caller determines the depth, and the thread's stack is limited.
fn json_bytes(value: &Value) -> usize {
    let mut bytes = 0;
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        // Brackets or quotes, and a comma.
        bytes += 3 + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => text.len(),
            Value::Array(items) => {
                open.extend(items);
                0
            }
            Value::Object(map) => {
                open.extend(map.values());
                map.keys().map(|key| key.len() + 3).sum()
            }
        };
    }
    bytes
}

fn prepare_place(observation: PlaceObservation) -> Place {
    let location = observation.latitude.zip(observation.longitude).map(|(latitude, longitude)| {
        let latitude = Coordinate::latitude(latitude).expect("validated: a latitude in range");
        let longitude = Coordinate::longitude(longitude).expect("validated: a longitude in range");
        (latitude, longitude)
    });
    let mut metadata = observation.metadata;
    if let Some(value) = &mut metadata {
        canonical(value);
    }
    Place {
        location,
        address: observation.address,
        google_place_id: observation.google_place_id,
        metadata,
        observed_at: truncate(observation.observed_at),
    }
}

/// The newest place of each entity.
fn prepare_places(places: Vec<(u32, PlaceObservation)>) -> Vec<(u32, Arc<Place>)> {
    let mut prepared: Vec<_> =
        places.into_iter().map(|(entity, place)| (entity, Arc::new(prepare_place(place)))).collect();
    prepared.sort_by(|(left, left_place), (right, right_place)| {
        left.cmp(right).then_with(|| right_place.precedence(left_place))
    });
    prepared.dedup_by_key(|(entity, _)| *entity);
    prepared
}

fn typed_uses(block: UnitRows<'_>, places: &[(u32, PlaceObservation)]) -> Vec<TypedUse> {
    let mut uses = Vec::new();
    if !block.entities.iter().any(|entity| matches!(entity, EntityRecord::Id(_))) {
        return uses;
    }
    let mut add = |entity: usize, expected, row, field| {
        if matches!(block.entities[entity], EntityRecord::Id(_)) {
            uses.push(TypedUse { entity: entity as u32, expected, row, field });
        }
    };
    for index in 0..block.entities.len() {
        let row = Row { table: Table::Entities, index };
        if places.iter().any(|(entity, _)| *entity as usize == index) {
            add(index, EntityType::Restaurant, row, Field::PlaceObservedAt);
        }
        for attribute in block.attributes_of(index) {
            add(index, EntityType::Restaurant, row, Field::RestaurantAttributes);
            add(attribute, EntityType::RestaurantAttribute, row, Field::RestaurantAttributes);
        }
    }
    for (index, connection) in block.connections.iter().enumerate() {
        let row = Row { table: Table::Connections, index };
        if let ConnectionRecordName::Key { restaurant, dish } = connection.name {
            add(restaurant.own(), EntityType::Restaurant, row, Field::Restaurant);
            add(dish.own(), EntityType::DishOrCategory, row, Field::DishOrCategory);
            for attribute in block.dish_attributes_of(index) {
                add(attribute, EntityType::DishAttribute, row, Field::DishAttributes);
            }
        }
        for category in block.categories_of(index) {
            add(category, EntityType::DishOrCategory, row, Field::Categories);
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Mention, SourceType};

    /// The facts of a unit with one dish; all of them are about that entity.
    fn said_of_brisket(aliases: &[&str]) -> Vec<FactHash> {
        let mut unit = UnitOfWork::new();
        aliases.iter().fold(unit.dish("brisket"), |dish, alias| dish.alias(*alias)).handle();
        let said = unit.prepare().share().get().fact_hashes().collect::<Vec<_>>();
        assert!(said.iter().all(|one| one.entity == said[0].entity));
        said
    }

    #[test]
    fn each_alias_of_an_entity_is_a_fact_of_its_own() {
        let [mention] = said_of_brisket(&[])[..] else { panic!("its existence is the only fact") };
        let twice = said_of_brisket(&["the brisket", "Brisket!"]);
        assert_eq!((twice.len(), twice[0]), (3, mention));
        assert_eq!(said_of_brisket(&["brisket", "the brisket"]).len(), 2, "its own name is not an alias");
        let mut other = UnitOfWork::new();
        other.dish("ribs").alias("the brisket").handle();
        let other = other.prepare().share().get().fact_hashes().collect::<Vec<_>>();
        assert!(
            other.iter().all(|one| twice.iter().all(|said| one.fact != said.fact)),
            "the same alias of another entity is another fact"
        );
    }

    /// A unit with something in every list, and more of it with each number.
    fn unit_with(number: usize) -> SharedUnit {
        let mut unit = UnitOfWork::new();
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        for row in 0..number {
            let attribute = unit.restaurant_attribute(format!("patio {row}")).temp_id(format!("p{row}")).handle();
            let place = PlaceObservation::new(at).address(format!("{number} Main St"));
            let restaurant = unit.restaurant(format!("r {number} {row}")).alias("r").attribute(attribute).place(place);
            let restaurant = restaurant.handle();
            let dish = unit.existing_entity(uuid::Uuid::from_u128(row as u128 + 1)).handle();
            let (spicy, soup) = (unit.dish_attribute("spicy").handle(), unit.dish("soup").handle());
            let connection = unit.connection(restaurant, dish).dish_attributes([spicy]).categories([soup]).handle();
            let mention = Mention::new(SourceType::Post, format!("t{row}"), "u", "food", at);
            unit.mention(connection, mention.excerpt(format!("excerpt {row}")));
        }
        unit.dish("pie").handle();
        unit.validate(1_000).unwrap();
        unit.prepare().share()
    }

    /// Everything that a unit consists of.
    fn content(unit: &SharedUnit) -> impl PartialEq + std::fmt::Debug {
        let unit = unit.get();
        let facts: Vec<FactHash> = unit.fact_hashes().collect();
        let labels = unit.temp_ids().map(|labels| format!("{labels:?}"));
        let names = Table::ALL.map(|table| unit.names(table).to_vec());
        (
            unit.document(),
            names,
            facts,
            labels,
            (unit.typed_uses().to_vec(), unit.nonce(), unit.rows(), unit.affinity()),
        )
    }

    #[test]
    fn units_are_the_same_after_they_are_gathered() {
        // Also some with little, and several times.
        let units: Vec<SharedUnit> = [2, 0, 1, 3, 0, 2, 1].map(unit_with).into();
        let gathered = PreparedUnits::gather(&units);
        let again = PreparedUnits::gather(&[gathered[5].clone(), units[2].clone(), gathered[0].clone()]);
        assert!([0, 2].iter().all(|unit| Arc::ptr_eq(&again[*unit].units, &gathered[0].units)), "these stay there");
        let all = gathered.iter().zip(&units).chain(again.iter().zip([&units[5], &units[2], &units[0]]));
        let mut count = 0;
        for (one, original) in all {
            assert_eq!(content(one), content(original));
            count += 1;
        }
        assert_eq!(count, 10);
        assert!(gathered.iter().all(|one| Arc::ptr_eq(&one.units, &gathered[0].units)), "they are in one block");
    }

    #[test]
    fn an_entity_named_by_id_has_only_the_added_facts() {
        let mut unit = UnitOfWork::new();
        let patio = unit.restaurant_attribute("patio").handle();
        unit.existing_entity(uuid::Uuid::from_u128(7)).alias("Franklin's").attribute(patio).handle();
        unit.existing_entity(uuid::Uuid::from_u128(8)).handle();
        let said = unit.prepare().share().get().fact_hashes().collect::<Vec<_>>();
        assert_eq!(said.len(), 3);
        assert!(said[0].entity != said[1].entity && said[1].entity == said[2].entity && said[1].fact != said[2].fact);
    }
}
