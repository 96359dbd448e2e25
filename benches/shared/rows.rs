//! Records to rows of the three tables, coalesced in memory: given to the COPY limit, and done by a hand-written
//! pipeline for each of its batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use graphsink::{EntityType, Timestamp};
use uuid::Uuid;

use crate::metrics::ConnectionMetrics;
use crate::workload::Record;

/// An entity's key.
pub type Key = (EntityType, Arc<str>);

/// Entities by key, in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct Entities {
    pub rows: Vec<Entity>,
    index: HashMap<Key, usize>,
    /// Ids of entities that the tables already have.
    known: HashMap<Key, Uuid>,
}

#[derive(Debug)]
pub struct Entity {
    pub id: Uuid,
    /// Whether the tables already have it.
    pub is_known: bool,
    pub key: Key,
    pub aliases: BTreeSet<Arc<str>>,
    /// Names of restaurant attributes.
    pub attributes: BTreeSet<Arc<str>>,
}

impl Entities {
    pub fn of(records: &[Record]) -> Self {
        Self::beside(records, HashMap::new())
    }

    /// Existing entities keep their ids.
    pub fn beside(records: &[Record], known: HashMap<Key, Uuid>) -> Self {
        let mut entities = Self { known, ..Self::default() };
        for record in records {
            for attribute in &record.restaurant_attributes {
                entities.row(EntityType::RestaurantAttribute, attribute);
            }
            let restaurant = entities.row(EntityType::Restaurant, &record.restaurant);
            restaurant.aliases.extend(record.alias.iter().cloned());
            restaurant.attributes.extend(record.restaurant_attributes.iter().cloned());
            if let Some(dish) = &record.dish {
                entities.row(EntityType::DishOrCategory, dish).aliases.extend(record.dish_alias.iter().cloned());
            }
            for attribute in &record.dish_attributes {
                entities.row(EntityType::DishAttribute, attribute);
            }
            for category in &record.categories {
                entities.row(EntityType::DishOrCategory, category);
            }
        }
        entities
    }

    fn row(&mut self, entity_type: EntityType, name: &Arc<str>) -> &mut Entity {
        let key = (entity_type, Arc::clone(name));
        let index = *self.index.entry(key).or_insert_with_key(|key| {
            let (aliases, attributes) = (BTreeSet::new(), BTreeSet::new());
            let known = self.known.get(key).copied();
            let (id, is_known) = (known.unwrap_or_else(Uuid::now_v7), known.is_some());
            self.rows.push(Entity { id, is_known, key: key.clone(), aliases, attributes });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// The id of a key.
    pub fn id(&self, entity_type: EntityType, name: &Arc<str>) -> Uuid {
        self.rows[self.index[&(entity_type, Arc::clone(name))]].id
    }

    /// The ids of some keys of one type, as a sorted set.
    pub fn ids<'a>(&self, entity_type: EntityType, names: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<Uuid> {
        let ids: BTreeSet<Uuid> = names.into_iter().map(|name| self.id(entity_type, name)).collect();
        ids.into_iter().collect()
    }
}

/// A connection with the figures of its mentions among the records.
#[derive(Debug)]
pub struct Connection<'a> {
    /// Its id, unless the tables have it already.
    pub id: Uuid,
    pub restaurant: Uuid,
    pub dish: Uuid,
    /// Sorted, without duplicates.
    pub dish_attributes: Vec<Uuid>,
    pub categories: BTreeSet<Uuid>,
    pub is_menu_item: bool,
    pub metrics: ConnectionMetrics<'a>,
    /// Its mentions: their ids and their records.
    pub mentions: Vec<(Uuid, &'a Record)>,
}

impl Connection<'_> {
    /// A new connection without mentions.
    pub fn new(restaurant: Uuid, dish: Uuid, dish_attributes: Vec<Uuid>) -> Self {
        Self {
            id: Uuid::now_v7(),
            restaurant,
            dish,
            dish_attributes,
            categories: BTreeSet::new(),
            is_menu_item: false,
            metrics: ConnectionMetrics::default(),
            mentions: Vec::new(),
        }
    }
}

/// Connections in the order of their first occurrence. No two records are the same mention.
pub fn connections<'a>(records: &'a [Record], entities: &Entities, as_of: Timestamp) -> Vec<Connection<'a>> {
    let mut rows: Vec<Connection<'a>> = Vec::new();
    let mut index: HashMap<(Uuid, Uuid, Vec<Uuid>), usize> = HashMap::new();
    for record in records {
        let Some(dish) = &record.dish else { continue };
        let restaurant = entities.id(EntityType::Restaurant, &record.restaurant);
        let dish = entities.id(EntityType::DishOrCategory, dish);
        let dish_attributes = entities.ids(EntityType::DishAttribute, &record.dish_attributes);
        let index = *index.entry((restaurant, dish, dish_attributes)).or_insert_with_key(|key| {
            rows.push(Connection::new(restaurant, dish, key.2.clone()));
            rows.len() - 1
        });
        rows[index].categories.extend(entities.ids(EntityType::DishOrCategory, &record.categories));
        rows[index].is_menu_item |= record.is_menu_item;
        rows[index].mentions.push((Uuid::now_v7(), record));
    }
    for row in &mut rows {
        let mentions = row.mentions.iter().map(|(id, record)| (*id, &record.mention));
        row.metrics = ConnectionMetrics::from_mentions(mentions, as_of);
    }
    rows
}

/// The best mentions in the text form of the column.
pub fn top_mentions(metrics: &ConnectionMetrics<'_>) -> String {
    serde_json::to_string(&metrics.top_mentions).expect("texts, numbers and times are always JSON")
}

/// Ids in the text form of a `uuid[]`.
pub fn uuid_array<'a>(ids: impl IntoIterator<Item = &'a Uuid>) -> String {
    let ids: Vec<String> = ids.into_iter().map(Uuid::to_string).collect();
    format!("{{{}}}", ids.join(","))
}
