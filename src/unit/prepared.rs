//! A unit as the engine works with it: valid, with names in place of handles.

use std::sync::Arc;

use serde_json::Value;

use super::draft::{ConnectionDraft, ConnectionDraftName, EntityDraft, OwnRow};
use super::{Field, PlaceObservation, Row, UnitOfWork};
use crate::hash::hash_of;
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionName, Coordinate, EntityFacts, EntityName, EntityType, Mention,
    MentionName, Merge, Place, Table, canonical, truncate,
};

/// A validated unit. Cheap to share: batchers clone names and `Arc`s out of it.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Entities in the order of the unit.
    pub(crate) entities: Vec<(EntityName, EntityFacts<EntityName>)>,
    /// Connections in the order of the unit.
    pub(crate) connections: Vec<(ConnectionName, ConnectionFacts<EntityName>)>,
    /// Mentions in the order of the unit.
    pub(crate) mentions: Vec<(MentionName, Arc<Mention>)>,
    /// Uses of entities that are named by id, whose type only the database knows.
    pub(crate) typed_uses: Vec<TypedUse>,
    /// Labels of rows, for the outcome.
    pub(crate) temp_ids: Vec<(String, Row)>,
    /// Tells this unit's handles from others.
    pub(crate) nonce: u64,
    /// Units with the same value probably touch the same connections: a hash of the restaurant.
    pub(crate) affinity: u64,
    /// What it says of entities, entity by entity.
    pub(crate) fact_hashes: Vec<FactHash>,
}

/// One thing that is said of an entity: that it is there, or that something belongs to it. Both as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FactHash {
    /// The entity.
    pub(crate) entity: u64,
    /// What is said, of this entity.
    pub(crate) fact: u64,
}

/// An entity named by id is used where a certain type belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypedUse {
    /// Index of the entity in the unit.
    pub(crate) entity: u32,
    /// What it must be.
    pub(crate) expected: EntityType,
    /// The row that uses it.
    pub(crate) row: Row,
    /// The column it is used in.
    pub(crate) field: Field,
}

impl UnitOfWork {
    /// Memory that the unit holds while it is in flight, in bytes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        /// Structs, map entries and allocator overhead of one row.
        const ROW_OVERHEAD: usize = 256;
        /// A name that a row refers to, and one text of a list.
        const REFERENCE_OVERHEAD: usize = 48;
        let entities = self.entities.iter().map(|entity| {
            let name = if let EntityName::Key(key) = &entity.name { key.name.len() } else { 0 };
            let aliases: usize = entity.aliases.iter().map(|alias| alias.len()).sum();
            let places = entity.places.iter().map(|place| {
                let metadata = place.metadata.as_ref().map_or(0, json_bytes);
                let texts = [&place.address, &place.google_place_id];
                texts.into_iter().flatten().map(String::len).sum::<usize>() + metadata
            });
            let references = (entity.aliases.len() + entity.attributes.len()) * REFERENCE_OVERHEAD;
            name + aliases + places.sum::<usize>() + references
        });
        let mentions = self.mentions.iter().map(|draft| {
            let mention = &draft.mention;
            mention.source_id.len()
                + mention.thread_id.len()
                + mention.source_url.len()
                + mention.subreddit.len()
                + mention.content_excerpt.len()
                + mention.author.as_ref().map_or(0, String::len)
        });
        let connections = self.connections.iter().map(|connection| {
            let attributes = match &connection.name {
                ConnectionDraftName::Key { dish_attributes, .. } => dish_attributes.len(),
                ConnectionDraftName::Id(_) => 0,
            };
            (attributes + connection.categories.len()) * REFERENCE_OVERHEAD
        });
        let labels: usize = self.temp_ids.iter().map(|(label, _)| label.len() + REFERENCE_OVERHEAD).sum();
        let texts = entities.sum::<usize>() + connections.sum::<usize>() + mentions.sum::<usize>();
        self.rows() * ROW_OVERHEAD + texts + labels
    }

    /// Turns a unit that passed [`validate`](Self::validate) into what the engine works with.
    ///
    /// # Panics
    /// When the unit was not validated.
    pub(crate) fn prepare(self) -> Unit {
        let names: Vec<EntityName> = self.entities.iter().map(|entity| entity.name.clone()).collect();
        let typed_uses = typed_uses(&self);
        let entities: Vec<_> = self.entities.into_iter().map(|draft| prepare_entity(draft, &names)).collect();
        let connections: Vec<_> = self.connections.into_iter().map(|draft| prepare_connection(draft, &names)).collect();
        let mentions = self
            .mentions
            .into_iter()
            .map(|draft| {
                let connection = draft.connection.expect("validated: a mention stands on a connection") as usize;
                let name = MentionName {
                    connection: connections[connection].0.clone(),
                    source_type: draft.mention.source_type,
                    source_id: Arc::clone(&draft.mention.source_id),
                };
                (name, Arc::new(draft.mention))
            })
            .collect();
        let affinity = affinity(&entities, &connections);
        let facts = entities.iter().flat_map(|(name, facts)| fact_hashes(name, facts)).collect();
        Unit {
            affinity,
            fact_hashes: facts,
            entities,
            connections,
            mentions,
            typed_uses,
            temp_ids: self.temp_ids,
            nonce: self.nonce,
        }
    }
}

impl Unit {
    /// Number of rows of all tables.
    pub(crate) fn rows(&self) -> usize {
        self.entities.len() + self.connections.len() + self.mentions.len()
    }
}

/// Bytes of a value as JSON text, roughly. With a stack of its own: this is asked before the depth is
/// checked, which is the caller's to choose, as the thread's stack is not.
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

/// What a unit says of one entity. Of a place that is the place of a restaurant, and restaurants have their affinity.
fn fact_hashes(name: &EntityName, facts: &EntityFacts<EntityName>) -> impl Iterator<Item = FactHash> {
    let entity = hash_of(name);
    // Whoever names an entity by its id says that it is there already.
    let is_there = matches!(name, EntityName::Key(_)).then_some(entity);
    let aliases = facts.aliases.as_slice().iter().map(move |alias| hash_of(&(entity, alias)));
    let attributes = facts.restaurant_attributes.as_slice().iter().map(move |attribute| hash_of(&(entity, attribute)));
    is_there.into_iter().chain(aliases).chain(attributes).map(move |fact| FactHash { entity, fact })
}

/// A hash of the first connection's restaurant, or of the first entity.
fn affinity(
    entities: &[(EntityName, EntityFacts<EntityName>)],
    connections: &[(ConnectionName, ConnectionFacts<EntityName>)],
) -> u64 {
    match (connections.first(), entities.first()) {
        (Some((ConnectionName::Key(key), _)), _) => hash_of(&key.restaurant),
        (Some((ConnectionName::Id(id), _)), _) => hash_of(id),
        (None, Some((name, _))) => hash_of(name),
        (None, None) => 0,
    }
}

fn own(row: OwnRow) -> usize {
    row.expect("validated: no handle of another unit") as usize
}

fn prepare_entity(draft: EntityDraft, names: &[EntityName]) -> (EntityName, EntityFacts<EntityName>) {
    let mut facts = EntityFacts {
        aliases: draft.aliases.into_iter().collect(),
        restaurant_attributes: draft.attributes.into_iter().map(|row| names[own(row)].clone()).collect(),
        place: None,
    };
    for place in draft.places {
        let place = Some(Arc::new(prepare_place(place)));
        facts.merge(EntityFacts { place, ..EntityFacts::default() });
    }
    if let EntityName::Key(key) = &draft.name {
        facts.aliases.remove::<str>(&key.name);
    }
    (draft.name, facts)
}

fn prepare_connection(draft: ConnectionDraft, names: &[EntityName]) -> (ConnectionName, ConnectionFacts<EntityName>) {
    let name = match draft.name {
        ConnectionDraftName::Key { restaurant, dish, dish_attributes } => {
            ConnectionName::Key(Arc::new(ConnectionKey {
                restaurant: names[own(restaurant)].clone(),
                dish: names[own(dish)].clone(),
                dish_attributes: dish_attributes.into_iter().map(|row| names[own(row)].clone()).collect(),
            }))
        }
        ConnectionDraftName::Id(id) => ConnectionName::Id(id),
    };
    let categories = draft.categories.into_iter().map(|row| names[own(row)].clone()).collect();
    (name, ConnectionFacts { categories, is_menu_item: draft.is_menu_item })
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

fn typed_uses(unit: &UnitOfWork) -> Vec<TypedUse> {
    let mut uses = Vec::new();
    let mut add = |entity: OwnRow, expected, row, field| {
        let entity = own(entity);
        if matches!(unit.entities[entity].name, EntityName::Id(_)) {
            uses.push(TypedUse { entity: entity as u32, expected, row, field });
        }
    };
    for (index, entity) in unit.entities.iter().enumerate() {
        let row = Row { table: Table::Entities, index };
        if !entity.places.is_empty() {
            add(Some(index as u32), EntityType::Restaurant, row, Field::PlaceObservedAt);
        }
        for attribute in &entity.attributes {
            add(Some(index as u32), EntityType::Restaurant, row, Field::RestaurantAttributes);
            add(*attribute, EntityType::RestaurantAttribute, row, Field::RestaurantAttributes);
        }
    }
    for (index, connection) in unit.connections.iter().enumerate() {
        let row = Row { table: Table::Connections, index };
        if let ConnectionDraftName::Key { restaurant, dish, dish_attributes } = &connection.name {
            add(*restaurant, EntityType::Restaurant, row, Field::Restaurant);
            add(*dish, EntityType::DishOrCategory, row, Field::DishOrCategory);
            for attribute in dish_attributes {
                add(*attribute, EntityType::DishAttribute, row, Field::DishAttributes);
            }
        }
        for category in &connection.categories {
            add(*category, EntityType::DishOrCategory, row, Field::Categories);
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units of one dish each: what is said of it, of one entity all.
    fn said_of_brisket(aliases: &[&str]) -> Vec<FactHash> {
        let mut unit = UnitOfWork::new();
        aliases.iter().fold(unit.dish("brisket"), |dish, alias| dish.alias(*alias)).handle();
        let said = unit.prepare().fact_hashes;
        assert!(said.iter().all(|one| one.entity == said[0].entity));
        said
    }

    #[test]
    fn each_alias_is_one_more_thing_that_is_said_of_an_entity() {
        let [mention] = said_of_brisket(&[])[..] else { panic!("it is there, and that is all") };
        let twice = said_of_brisket(&["the brisket", "Brisket!"]);
        assert_eq!((twice.len(), twice[0]), (3, mention));
        assert_eq!(said_of_brisket(&["brisket", "the brisket"]).len(), 2, "its own name is no alias");
        let mut other = UnitOfWork::new();
        other.dish("ribs").alias("the brisket").handle();
        let other = other.prepare().fact_hashes;
        assert!(
            other.iter().all(|one| twice.iter().all(|said| one.fact != said.fact)),
            "the same of another is something else"
        );
    }

    #[test]
    fn of_an_entity_named_by_its_id_only_what_is_added_is_said() {
        let mut unit = UnitOfWork::new();
        let patio = unit.restaurant_attribute("patio").handle();
        unit.existing_entity(uuid::Uuid::from_u128(7)).alias("Franklin's").attribute(patio).handle();
        unit.existing_entity(uuid::Uuid::from_u128(8)).handle();
        let said = unit.prepare().fact_hashes;
        assert_eq!(said.len(), 3);
        assert!(said[0].entity != said[1].entity && said[1].entity == said[2].entity && said[1].fact != said[2].fact);
    }
}
