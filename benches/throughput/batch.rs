//! The common preparation of a batch in all hand-written pipelines: each entity once, each connection once with the
//! figures of the batch's mentions, all in key order.
//!
//! Entities are written in two steps, because those of the second step refer to some of the first: first the words,
//! which have only a type and a name; then the entities with aliases or attributes, mostly restaurants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ::graphsink::{EntityType, Timestamp};
use uuid::Uuid;

use graphsink_benches::metrics::ConnectionMetrics;
pub(crate) use graphsink_benches::rows::Connection;
use graphsink_benches::workload::Record;

/// An entity's type and name.
pub(crate) type Word<'a> = (&'static str, &'a str);
/// The ids that the database returned.
pub(crate) type Ids<'a> = HashMap<Word<'a>, Uuid>;

/// Aliases, and names of restaurant attributes.
#[derive(Debug, Default)]
pub(crate) struct Description<'a> {
    pub(crate) aliases: BTreeSet<&'a str>,
    pub(crate) attributes: BTreeSet<&'a str>,
}

/// A batch's entities in key order.
#[derive(Debug, Default)]
pub(crate) struct Words<'a> {
    pub(crate) plain: BTreeSet<Word<'a>>,
    /// The entities that have aliases or attributes.
    pub(crate) described: BTreeMap<Word<'a>, Description<'a>>,
}

impl<'a> Words<'a> {
    pub(crate) fn of(batch: &'a [Record]) -> Self {
        let mut words = Self::default();
        for record in batch {
            let restaurant = words.described.entry((EntityType::Restaurant.as_str(), &record.restaurant)).or_default();
            restaurant.aliases.extend(record.alias.as_deref());
            restaurant.attributes.extend(record.restaurant_attributes.iter().map(|name| &**name));
            if let (Some(dish), Some(alias)) = (&record.dish, &record.dish_alias) {
                let dish = words.described.entry((EntityType::DishOrCategory.as_str(), dish)).or_default();
                dish.aliases.insert(alias);
            }
            let dishes = record.dish.iter().chain(&record.categories);
            words.plain.extend(dishes.map(|name| (EntityType::DishOrCategory.as_str(), &**name)));
            words.plain.extend(record.dish_attributes.iter().map(|name| (EntityType::DishAttribute.as_str(), &**name)));
            words.plain.extend(
                record.restaurant_attributes.iter().map(|name| (EntityType::RestaurantAttribute.as_str(), &**name)),
            );
        }
        words.plain.retain(|word| !words.described.contains_key(word));
        words
    }
}

impl Description<'_> {
    pub(crate) fn attribute_ids(&self, ids: &Ids<'_>) -> BTreeSet<Uuid> {
        self.attributes.iter().map(|name| ids[&(EntityType::RestaurantAttribute.as_str(), *name)]).collect()
    }
}

/// A batch's connections in key order; the batch has no mention twice.
pub(crate) fn connections<'a>(batch: &'a [Record], ids: &Ids<'a>, as_of: Timestamp) -> Vec<Connection<'a>> {
    let mut groups: HashMap<(Uuid, Uuid, Vec<Uuid>), Connection<'a>> = HashMap::new();
    for record in batch {
        let Some(dish) = record.dish.as_deref() else { continue };
        let id = |of: EntityType, name: &'a str| ids[&(of.as_str(), name)];
        let attributes: BTreeSet<Uuid> =
            record.dish_attributes.iter().map(|name| id(EntityType::DishAttribute, name)).collect();
        let restaurant = id(EntityType::Restaurant, &record.restaurant);
        let dish = id(EntityType::DishOrCategory, dish);
        let key = (restaurant, dish, attributes.into_iter().collect());
        let group = groups.entry(key).or_insert_with_key(|key| Connection::new(restaurant, dish, key.2.clone()));
        group.categories.extend(record.categories.iter().map(|name| id(EntityType::DishOrCategory, name)));
        group.is_menu_item |= record.is_menu_item;
        group.mentions.push((Uuid::now_v7(), record));
    }
    let mut connections: Vec<_> = groups.into_iter().collect();
    connections.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let with_metrics = |(_, mut connection): (_, Connection<'a>)| {
        let mentions = connection.mentions.iter().map(|(id, record)| (*id, &record.mention));
        connection.metrics = ConnectionMetrics::from_mentions(mentions, as_of);
        connection
    };
    connections.into_iter().map(with_metrics).collect()
}

/// A list of texts in the text form of a `text[]`.
pub(crate) fn text_array<'a>(texts: impl IntoIterator<Item = &'a &'a str>) -> String {
    let quoted = |text: &&str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("{{{}}}", texts.join(","))
}
