//! Rows to columns and back: the arrays that statements take, the rows that they give.
//!
//! A struct of columns is filled row by row, so that all its arrays have one length by
//! construction: `unnest` would pad the shorter ones with nulls without a word.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::StoreError;
use super::statement::{text_array, uuid_array};
use super::time::StoredTime;
use crate::batch::{
    ConnectionNode, ConnectionWrite, EntityWrite, MentionNode, StoredConnection, StoredEntity, StoredMention,
};
use crate::record::{
    ActivityLevel, ConnectionFacts, ConnectionMetrics, Coordinate, EntityFacts, EntityKey, EntityType, Mention, Place,
    SortedSet, SourceType, Timestamp, canonical,
};

/// The parameters of a statement.
pub(crate) type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// A set of ids as the text of a `uuid[]`; nothing for the empty set, which most are and which the server
/// then need not parse.
pub(super) fn uuid_set(ids: &SortedSet<Uuid>) -> Option<String> {
    (!ids.is_empty()).then(|| uuid_array(ids))
}

/// JSON text that becomes `jsonb` without being text in between.
#[derive(Debug)]
struct Json(Vec<u8>);

/// A `jsonb` in binary: the version of the format, and the text.
pub(super) fn jsonb(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = vec![1];
    serde_json::to_writer(&mut bytes, value).expect("texts, numbers and times are always JSON");
    bytes
}

impl ToSql for Json {
    fn to_sql(&self, _: &Type, buffer: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        buffer.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}

/// Columns of entities to write.
#[derive(Debug, Default)]
pub(crate) struct EntityColumns<'a> {
    ids: Vec<Uuid>,
    types: Vec<&'static str>,
    names: Vec<&'a str>,
    aliases: Vec<String>,
    attributes: Vec<String>,
    latitudes: Vec<Option<i64>>,
    longitudes: Vec<Option<i64>>,
    addresses: Vec<Option<&'a str>>,
    google_place_ids: Vec<Option<&'a str>>,
    metadata: Vec<Option<String>>,
    observed_at: Vec<Option<StoredTime>>,
}

impl<'a> EntityColumns<'a> {
    pub(crate) fn new(writes: impl IntoIterator<Item = &'a EntityWrite>) -> Self {
        let mut columns = Self::default();
        for write in writes {
            let place = write.facts.place.as_deref();
            let location = place.and_then(|place| place.location);
            columns.ids.push(write.id);
            columns.types.push(write.key.entity_type.as_str());
            columns.names.push(&write.key.name);
            columns.aliases.push(text_array(write.facts.aliases.iter().map(|alias| &**alias)));
            columns.attributes.push(uuid_array(&write.facts.restaurant_attributes));
            columns.latitudes.push(location.map(|(latitude, _)| latitude.units()));
            columns.longitudes.push(location.map(|(_, longitude)| longitude.units()));
            columns.addresses.push(place.and_then(|place| place.address.as_deref()));
            columns.google_place_ids.push(place.and_then(|place| place.google_place_id.as_deref()));
            columns.metadata.push(place.and_then(|place| place.metadata.as_ref()).map(Value::to_string));
            columns.observed_at.push(place.map(|place| StoredTime(place.observed_at)));
        }
        columns
    }

    pub(crate) fn insert(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.types,
            &self.names,
            &self.aliases,
            &self.attributes,
            &self.latitudes,
            &self.longitudes,
            &self.addresses,
            &self.metadata,
            &self.observed_at,
        ]
    }

    pub(crate) fn update(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.aliases,
            &self.attributes,
            &self.latitudes,
            &self.longitudes,
            &self.addresses,
            &self.google_place_ids,
            &self.metadata,
            &self.observed_at,
        ]
    }
}

/// Columns of entity keys to look up.
#[derive(Debug, Default)]
pub(crate) struct EntityKeyColumns<'a> {
    types: Vec<&'static str>,
    names: Vec<&'a str>,
    said: Vec<bool>,
}

impl<'a> EntityKeyColumns<'a> {
    /// `said`: whether the facts are wanted, or the id alone.
    pub(crate) fn push(&mut self, key: &'a EntityKey, said: bool) {
        self.types.push(key.entity_type.as_str());
        self.names.push(&key.name);
        self.said.push(said);
    }

    pub(crate) fn parameters(&self) -> Parameters<'_> {
        vec![&self.types, &self.names, &self.said]
    }
}

/// Columns of connections to write.
#[derive(Debug, Default)]
pub(crate) struct ConnectionColumns {
    ids: Vec<Uuid>,
    restaurants: Vec<Uuid>,
    dishes: Vec<Uuid>,
    attributes: Vec<Option<String>>,
    categories: Vec<Option<String>>,
    is_menu_item: Vec<bool>,
    mention_counts: Vec<i32>,
    total_upvotes: Vec<i64>,
    source_diversities: Vec<i32>,
    recent_mention_counts: Vec<i32>,
    last_mentioned_at: Vec<Option<StoredTime>>,
    activity_levels: Vec<&'static str>,
    top_mentions: Vec<Json>,
}

impl ConnectionColumns {
    pub(crate) fn new<'a>(
        writes: impl IntoIterator<Item = &'a ConnectionWrite<'a>>,
        connections: &[ConnectionNode],
    ) -> Self {
        let mut columns = Self::default();
        for write in writes {
            let key = &connections[write.node as usize].key;
            let metrics = &write.metrics;
            columns.ids.push(write.id);
            columns.restaurants.push(key.restaurant);
            columns.dishes.push(key.dish);
            columns.attributes.push(uuid_set(&key.dish_attributes));
            columns.categories.push(uuid_set(&write.facts.categories));
            columns.is_menu_item.push(write.facts.is_menu_item);
            columns.mention_counts.push(metrics.mention_count);
            columns.total_upvotes.push(metrics.total_upvotes);
            columns.source_diversities.push(metrics.source_diversity);
            columns.recent_mention_counts.push(metrics.recent_mention_count);
            columns.last_mentioned_at.push(metrics.last_mentioned_at.map(StoredTime));
            columns.activity_levels.push(metrics.activity_level.as_str());
            columns.top_mentions.push(Json(jsonb(&metrics.top_mentions)));
        }
        columns
    }

    pub(crate) fn insert(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.restaurants,
            &self.dishes,
            &self.attributes,
            &self.categories,
            &self.is_menu_item,
            &self.mention_counts,
            &self.total_upvotes,
            &self.source_diversities,
            &self.recent_mention_counts,
            &self.last_mentioned_at,
            &self.activity_levels,
            &self.top_mentions,
        ]
    }

    pub(crate) fn update(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.categories,
            &self.is_menu_item,
            &self.mention_counts,
            &self.total_upvotes,
            &self.source_diversities,
            &self.recent_mention_counts,
            &self.last_mentioned_at,
            &self.activity_levels,
            &self.top_mentions,
        ]
    }
}

/// Columns of connection keys to look up.
#[derive(Debug, Default)]
pub(crate) struct ConnectionKeyColumns {
    restaurants: Vec<Uuid>,
    dishes: Vec<Uuid>,
    attributes: Vec<Option<String>>,
}

impl ConnectionKeyColumns {
    pub(crate) fn new(connections: &[ConnectionNode]) -> Self {
        let mut columns = Self::default();
        for ConnectionNode { key, .. } in connections {
            columns.restaurants.push(key.restaurant);
            columns.dishes.push(key.dish);
            columns.attributes.push(uuid_set(&key.dish_attributes));
        }
        columns
    }

    pub(crate) fn parameters(&self) -> Parameters<'_> {
        vec![&self.restaurants, &self.dishes, &self.attributes]
    }
}

/// Columns of mentions to write.
#[derive(Debug, Default)]
pub(crate) struct MentionColumns<'a> {
    ids: Vec<Uuid>,
    connections: Vec<Uuid>,
    source_types: Vec<&'static str>,
    source_ids: Vec<&'a str>,
    thread_ids: Vec<&'a str>,
    source_urls: Vec<&'a str>,
    subreddits: Vec<&'a str>,
    excerpts: Vec<&'a str>,
    authors: Vec<Option<&'a str>>,
    upvotes: Vec<i32>,
    created_at: Vec<Timestamp>,
    observed_at: Vec<Timestamp>,
}

impl<'a> MentionColumns<'a> {
    pub(crate) fn new(mentions: impl IntoIterator<Item = &'a MentionNode>, connections: &[ConnectionNode]) -> Self {
        let mut columns = Self::default();
        for node in mentions {
            let mention = &*node.mention;
            columns.ids.push(node.id);
            columns.connections.push(connections[node.connection as usize].id);
            columns.source_types.push(mention.source_type.as_str());
            columns.source_ids.push(&mention.source_id);
            columns.thread_ids.push(&mention.thread_id);
            columns.source_urls.push(&mention.source_url);
            columns.subreddits.push(&mention.subreddit);
            columns.excerpts.push(&mention.content_excerpt);
            columns.authors.push(mention.author.as_deref());
            columns.upvotes.push(mention.upvotes);
            columns.created_at.push(mention.created_at);
            columns.observed_at.push(mention.observed_at);
        }
        columns
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn insert(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.connections,
            &self.source_types,
            &self.source_ids,
            &self.thread_ids,
            &self.source_urls,
            &self.subreddits,
            &self.excerpts,
            &self.authors,
            &self.upvotes,
            &self.created_at,
            &self.observed_at,
        ]
    }

    pub(crate) fn update(&self) -> Parameters<'_> {
        vec![
            &self.ids,
            &self.thread_ids,
            &self.source_urls,
            &self.subreddits,
            &self.excerpts,
            &self.authors,
            &self.upvotes,
            &self.created_at,
            &self.observed_at,
        ]
    }
}

/// The ordinal in the first column, from 0.
pub(crate) fn ordinal(row: &Row) -> Result<u32, tokio_postgres::Error> {
    // `with ordinality` counts from 1.
    row.try_get::<_, i64>(0).map(|ordinal| (ordinal - 1) as u32)
}

/// Decodes `EntitiesByKey`. `said`: whether the facts were read. The key of the answer is another one where a merge took
/// the entity of this key.
pub(crate) fn entity_by_key(row: &Row, key: &EntityKey, said: bool) -> Result<StoredEntity, tokio_postgres::Error> {
    let facts = if said { Some(entity_facts(row)?) } else { None };
    let mut key = key.clone();
    if let Some(name) = row.try_get::<_, Option<&str>>(10)? {
        key.name = name.into();
    }
    Ok(StoredEntity { id: row.try_get(1)?, key, facts })
}

/// Decodes `EntitiesById`.
pub(crate) fn entity_by_id(row: &Row) -> Result<StoredEntity, StoreError> {
    let entity_type = EntityType::from_label(row.try_get(10)?).ok_or(StoreError::UnknownLabel("entity_type"))?;
    let name: &str = row.try_get(11)?;
    let key = EntityKey { entity_type, name: name.into() };
    Ok(StoredEntity { id: row.try_get(1)?, key, facts: Some(entity_facts(row)?) })
}

fn entity_facts(row: &Row) -> Result<EntityFacts<Uuid>, tokio_postgres::Error> {
    let aliases: Vec<&str> = row.try_get(2)?;
    let attributes: Vec<Uuid> = row.try_get(3)?;
    let latitude: Option<i64> = row.try_get(4)?;
    let longitude: Option<i64> = row.try_get(5)?;
    let observed_at: Option<StoredTime> = row.try_get(9)?;
    let place = match observed_at {
        Some(StoredTime(observed_at)) => {
            let mut metadata: Option<Value> = row.try_get(8)?;
            metadata.iter_mut().for_each(canonical);
            Some(Arc::new(Place {
                location: latitude.map(Coordinate::from_units).zip(longitude.map(Coordinate::from_units)),
                address: row.try_get(6)?,
                google_place_id: row.try_get(7)?,
                metadata,
                observed_at,
            }))
        }
        None => None,
    };
    Ok(EntityFacts {
        aliases: aliases.into_iter().map(Arc::from).collect(),
        restaurant_attributes: attributes.into_iter().collect(),
        place,
    })
}

/// Decodes `LockConnections`.
pub(crate) fn stored_connection(row: &Row) -> Result<StoredConnection, StoreError> {
    let categories: Vec<Uuid> = row.try_get(2)?;
    let level: &str = row.try_get(9)?;
    let top: &str = row.try_get(10)?;
    Ok(StoredConnection {
        id: row.try_get(1)?,
        facts: ConnectionFacts { categories: categories.into_iter().collect(), is_menu_item: row.try_get(3)? },
        metrics: ConnectionMetrics {
            mention_count: row.try_get(4)?,
            total_upvotes: row.try_get(5)?,
            source_diversity: row.try_get(6)?,
            recent_mention_count: row.try_get(7)?,
            last_mentioned_at: time(row, 8)?,
            activity_level: ActivityLevel::from_label(level).ok_or(StoreError::UnknownLabel("activity_level"))?,
            // What another program wrote there and the engine cannot read counts as nothing: the
            // best mentions are then read again from the rows.
            top_mentions: serde_json::from_str(top).unwrap_or_default(),
        },
    })
}

/// Decodes a time that may be missing.
pub(crate) fn time(row: &Row, column: usize) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<StoredTime>>(column)?.map(|time| time.0))
}

/// Decodes a mention from its second column on.
pub(crate) fn stored_mention(row: &Row) -> Result<StoredMention, StoreError> {
    mention_at(row, 1)
}

/// Decodes a mention from a column on.
pub(crate) fn mention_at(row: &Row, first: usize) -> Result<StoredMention, StoreError> {
    let source_type: &str = row.try_get(first + 1)?;
    let source_id: &str = row.try_get(first + 2)?;
    let thread_id: &str = row.try_get(first + 3)?;
    Ok(StoredMention {
        id: row.try_get(first)?,
        mention: Mention {
            source_type: SourceType::from_label(source_type).ok_or(StoreError::UnknownLabel("mention_source"))?,
            source_id: source_id.into(),
            thread_id: thread_id.into(),
            source_url: row.try_get(first + 4)?,
            subreddit: row.try_get(first + 5)?,
            content_excerpt: row.try_get(first + 6)?,
            author: row.try_get(first + 7)?,
            upvotes: row.try_get(first + 8)?,
            created_at: row.try_get::<_, StoredTime>(first + 9)?.0,
            observed_at: row.try_get::<_, StoredTime>(first + 10)?.0,
        },
    })
}
