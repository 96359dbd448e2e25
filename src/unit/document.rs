//! A unit as a JSON document: the format of dead letters.
//!
//! ```json
//! {"entities":    [{"type": "restaurant", "name": "franklin bbq", "aliases": ["Franklin's"], "restaurant_attributes": [1],
//!                   "place": {"latitude": 30.27, "longitude": -97.73, "address": "..", "google_place_id": "..",
//!                             "metadata": {}, "observed_at": "2024-01-10T14:20:00Z"}},
//!                  {"type": "restaurant_attribute", "name": "patio"},
//!                  {"id": "0190b5c6-..."}],
//!  "connections": [{"restaurant": 0, "dish": 2, "dish_attributes": [], "categories": [], "is_menu_item": true}],
//!  "mentions":    [{"connection": 0, "source_type": "comment", "source_id": "t1_abc", ..}]}
//! ```
//!
//! Rows refer to others by position. Absent fields are empty. The same unit gives the same document, even after it was
//! read back from `jsonb`; labels (`temp_id`) are omitted.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::block::{ConnectionRecord, ConnectionRecordName, EntityRecord, MentionRecord};
use super::names::NameHash;
use super::prepared::Unit;
use super::{EntityHandle, PlaceObservation, UnitOfWork};
use crate::record::{EntityType, Mention, MentionRef, Place, SourceType, Table, Timestamp};

/// The namespace of dead letters' ids, chosen at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1b_2ac0_54f7_4b0e_9d3c_8f10_22e6_a7b4);

/// A unit, for serialization as JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitDocument {
    entities: Vec<EntityDocument>,
    #[serde(default)]
    connections: Vec<ConnectionDocument>,
    #[serde(default)]
    mentions: Vec<MentionDocument>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    entity_type: Option<EntityType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restaurant_attributes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<PlaceDocument>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    longitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    google_place_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    observed_at: Timestamp,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restaurant: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dish: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dish_attributes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    categories: Vec<usize>,
    is_menu_item: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MentionDocument {
    connection: usize,
    source_type: SourceType,
    source_id: Arc<str>,
    thread_id: Arc<str>,
    source_url: String,
    subreddit: String,
    #[serde(default)]
    content_excerpt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    upvotes: i32,
    created_at: Timestamp,
    observed_at: Timestamp,
}

/// Why a document is not a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("entity {0} has neither an id alone nor a type and a name alone")]
    EntityName(usize),
    #[error("connection {0} has neither an id alone nor a restaurant and a dish")]
    ConnectionName(usize),
    #[error("a row refers to row {0}, which does not exist")]
    Reference(usize),
}

/// The position of each name: of a row that occurs more than once, the first.
fn positions(names: &[NameHash]) -> HashMap<NameHash, usize> {
    let mut positions = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        positions.entry(*name).or_insert(index);
    }
    positions
}

impl<'a> Unit<'a> {
    /// The unit as a document.
    pub(crate) fn document(self) -> UnitDocument {
        let names = [Table::Entities, Table::Connections].map(|table| self.names(table));
        let [entities, connections] = names.map(positions);
        let first = |place: usize| entities[&names[0][place]];
        // Sorted by name, without duplicates.
        let all = |places: &mut dyn Iterator<Item = usize>| {
            let mut distinct: Vec<usize> = places.map(first).collect();
            distinct.sort_unstable_by_key(|place| self.entity_name(*place));
            distinct.dedup();
            distinct
        };
        let connection = |(place, record): (usize, &ConnectionRecord)| {
            let (id, key) = match record.name {
                ConnectionRecordName::Id(id) => (Some(id), None),
                ConnectionRecordName::Key { restaurant, dish } => (None, Some((restaurant, dish))),
            };
            ConnectionDocument {
                id,
                restaurant: key.map(|(restaurant, _)| first(restaurant.own())),
                dish: key.map(|(_, dish)| first(dish.own())),
                dish_attributes: all(&mut self.block().dish_attributes_of(place)),
                categories: all(&mut self.block().categories_of(place)),
                is_menu_item: record.is_menu_item,
            }
        };
        let mention = |(place, record): (usize, &MentionRecord)| {
            let connection = connections[&names[1][record.connection.own()]];
            mention_document(connection, self.block().mention(place))
        };
        UnitDocument {
            entities: (0..self.block().entities.len())
                .map(|place| self.entity_document(place, all(&mut self.block().attributes_of(place))))
                .collect(),
            connections: self.block().connections.iter().enumerate().map(connection).collect(),
            mentions: self.block().mentions.iter().enumerate().map(mention).collect(),
        }
    }

    fn entity_name(self, place: usize) -> (Option<Uuid>, Option<(EntityType, &'a str)>) {
        match self.block().entities[place] {
            EntityRecord::Key(entity_type, name) => (None, Some((entity_type, self.block().text(name)))),
            EntityRecord::Id(id) => (Some(id), None),
        }
    }

    fn entity_document(self, place: usize, restaurant_attributes: Vec<usize>) -> EntityDocument {
        let (id, key) = self.entity_name(place);
        EntityDocument {
            id,
            entity_type: key.map(|(entity_type, _)| entity_type),
            name: key.map(|(_, name)| name.into()),
            aliases: self.block().aliases_of(place).map(Arc::from).collect(),
            restaurant_attributes,
            place: self.place_of(place).map(|place| place_document(place)),
        }
    }
}

fn place_document(place: &Place) -> PlaceDocument {
    // The shortest decimal, which reads back as the same coordinate.
    let degrees = |units: i64| units as f64 / 1e8;
    PlaceDocument {
        latitude: place.location.map(|(latitude, _)| degrees(latitude.units())),
        longitude: place.location.map(|(_, longitude)| degrees(longitude.units())),
        address: place.address.clone(),
        google_place_id: place.google_place_id.clone(),
        metadata: place.metadata.clone(),
        observed_at: place.observed_at,
    }
}

fn mention_document(connection: usize, mention: MentionRef<'_>) -> MentionDocument {
    MentionDocument {
        connection,
        source_type: mention.source_type,
        source_id: mention.source_id.into(),
        thread_id: mention.thread_id.into(),
        source_url: mention.source_url.to_owned(),
        subreddit: mention.subreddit.to_owned(),
        content_excerpt: mention.content_excerpt.to_owned(),
        author: mention.author.map(str::to_owned),
        upvotes: mention.upvotes,
        created_at: mention.created_at,
        observed_at: mention.observed_at,
    }
}

impl UnitDocument {
    /// The document as text, and an id that is the same for the same text.
    pub(crate) fn text_and_id(&self) -> Result<(String, Uuid), serde_json::Error> {
        let text = serde_json::to_string(self)?;
        let id = Uuid::new_v5(&NAMESPACE, text.as_bytes());
        Ok((text, id))
    }

    /// Converts the document back to a unit, which is not validated.
    pub(crate) fn into_unit(self) -> Result<UnitOfWork, DocumentError> {
        let mut unit = UnitOfWork::new();
        let mut handles: Vec<EntityHandle> = Vec::with_capacity(self.entities.len());
        for (index, entity) in self.entities.iter().enumerate() {
            handles.push(match (entity.id, entity.entity_type, &entity.name) {
                (Some(id), None, None) => unit.existing_entity(id).handle(),
                (None, Some(entity_type), Some(name)) => unit.entity(entity_type, name).handle(),
                _ => return Err(DocumentError::EntityName(index)),
            });
        }
        let handle = |index: usize| handles.get(index).copied().ok_or(DocumentError::Reference(index));
        let all = |indexes: Vec<usize>| indexes.into_iter().map(handle).collect::<Result<Vec<_>, _>>();
        for (entity, own) in self.entities.into_iter().zip(&handles) {
            let builder = unit.again(*own).aliases(entity.aliases).attributes(all(entity.restaurant_attributes)?);
            if let Some(place) = entity.place {
                builder.place(place.into_observation());
            }
        }
        let mut connections = Vec::with_capacity(self.connections.len());
        for (index, connection) in self.connections.into_iter().enumerate() {
            let builder = match (connection.id, connection.restaurant, connection.dish) {
                (Some(id), None, None) => unit.existing_connection(id),
                (None, Some(restaurant), Some(dish)) => unit.connection(handle(restaurant)?, handle(dish)?),
                _ => return Err(DocumentError::ConnectionName(index)),
            };
            let builder =
                builder.dish_attributes(all(connection.dish_attributes)?).categories(all(connection.categories)?);
            connections.push(builder.menu_item(connection.is_menu_item).handle());
        }
        for mention in self.mentions {
            let connection =
                *connections.get(mention.connection).ok_or(DocumentError::Reference(mention.connection))?;
            unit.mention(connection, mention.into_mention());
        }
        Ok(unit)
    }
}

impl PlaceDocument {
    fn into_observation(self) -> PlaceObservation {
        PlaceObservation {
            latitude: self.latitude,
            longitude: self.longitude,
            address: self.address,
            google_place_id: self.google_place_id,
            metadata: self.metadata,
            observed_at: self.observed_at,
        }
    }
}

impl MentionDocument {
    fn into_mention(self) -> Mention {
        Mention {
            source_type: self.source_type,
            source_id: self.source_id,
            thread_id: self.thread_id,
            source_url: self.source_url,
            subreddit: self.subreddit,
            content_excerpt: self.content_excerpt,
            author: self.author,
            upvotes: self.upvotes,
            created_at: self.created_at,
            observed_at: self.observed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// A unit with every field set.
    fn unit() -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let patio = unit.restaurant_attribute("patio").handle();
        let place = PlaceObservation::new(at("2024-01-10T14:20:00.123456Z"))
            .location(-30.123_456_78, 179.999_999_99)
            .address("900 E 11th St")
            .google_place_id("g1")
            .metadata(json!({"z": 1e300, "a": [0.1, -0.0, 18_446_744_073_709_551_615_u64], "é\u{1F600}": null}));
        let known = Uuid::from_u128(7);
        let restaurant = unit.restaurant("Franklin").alias("b").alias("a").attribute(patio).attribute(known);
        let restaurant = restaurant.place(place).temp_id("r1").handle();
        let dish = unit.dish("brisket").handle();
        let smoky = unit.dish_attribute("smoky").handle();
        let connection = unit.connection(restaurant, dish).dish_attribute(smoky).category(Uuid::from_u128(9));
        let connection = connection.menu_item(false).handle();
        let mention =
            Mention::new(SourceType::Comment, "t1", "https://example.org", "food", at("2024-01-10T14:20:00Z"));
        unit.mention(connection, mention.clone().thread("t3").excerpt("so \"good\"").author("me").upvotes(-3));
        unit.mention(Uuid::from_u128(11), mention);
        unit
    }

    #[test]
    fn a_unit_read_from_its_document_equals_the_original() {
        let unit = unit();
        unit.validate(100).unwrap();
        let prepared = unit.prepare().share();
        let prepared = prepared.get();
        let (text, id) = prepared.document().text_and_id().unwrap();
        // Through a value with sorted keys, as `jsonb` stores it.
        let value: Value = serde_json::from_str(&text).unwrap();
        let read: UnitDocument = serde_json::from_value(value).unwrap();
        let again = read.into_unit().unwrap();
        again.validate(100).unwrap();
        let again = again.prepare().share();
        let again = again.get();
        for table in Table::ALL {
            assert_eq!(again.names(table), prepared.names(table));
        }
        assert_eq!(again.document(), prepared.document());
        assert_eq!(again.document().text_and_id().unwrap(), (text, id));
    }

    #[test]
    fn a_broken_document_is_refused() {
        let refused = |value: Value| serde_json::from_value::<UnitDocument>(value).unwrap().into_unit().unwrap_err();
        assert_eq!(refused(json!({"entities": [{"name": "x"}]})), DocumentError::EntityName(0));
        let both = json!({"entities": [{"id": Uuid::nil(), "type": "restaurant", "name": "x"}]});
        assert_eq!(refused(both), DocumentError::EntityName(0));
        let dangling = json!({"entities": [{"type": "restaurant", "name": "x", "restaurant_attributes": [1]}]});
        assert_eq!(refused(dangling), DocumentError::Reference(1));
        let headless = json!({"entities": [], "connections": [{"restaurant": 0, "is_menu_item": true}]});
        assert_eq!(refused(headless), DocumentError::ConnectionName(0));
        assert!(serde_json::from_value::<UnitDocument>(json!({"entities": [], "unknown": 1})).is_err());
    }
}
