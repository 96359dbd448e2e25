//! A naive sequential model of the contract's data rules, written from that text alone.
//!
//! It keeps every submitted record and computes the whole graph from scratch, with only the plain enums of the crate.
//! It must be simple, because the engine is not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use graphsink::{ConnectionHandle, EntityHandle, EntityType, Mention, PlaceObservation, SourceType, UnitOfWork};
use serde_json::Value;
use uuid::Uuid;

pub type Time = DateTime<Utc>;

/// An entity by its natural key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    pub entity_type: EntityType,
    pub name: String,
}

pub fn key(entity_type: EntityType, name: &str) -> EntityKey {
    EntityKey { entity_type, name: name.to_owned() }
}

/// A connection by its natural key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    pub restaurant: String,
    pub dish: String,
    pub dish_attributes: BTreeSet<String>,
}

/// A mention by its natural key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MentionKey {
    pub connection: ConnectionKey,
    pub source_type: SourceType,
    pub source_id: String,
}

/// One statement of a caller.
#[derive(Debug, Clone)]
pub enum Record {
    Entity(EntitySpec),
    Connection(ConnectionSpec),
    Mention(MentionSpec),
}

/// `by_id`: the unit names it by its id, if the id is known by then.
#[derive(Debug, Clone)]
pub struct EntitySpec {
    pub key: EntityKey,
    pub by_id: bool,
    pub aliases: Vec<String>,
    pub attributes: Vec<String>,
    pub place: Option<PlaceSpec>,
}

/// Degrees in units of 1e-8, so that the model does not round.
#[derive(Debug, Clone)]
pub struct PlaceSpec {
    pub location: Option<(i64, i64)>,
    pub address: Option<String>,
    pub google_place_id: Option<String>,
    pub metadata: Option<Value>,
    pub observed_at: Time,
}

#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    pub key: ConnectionKey,
    pub by_id: bool,
    /// The unit names the ends, the dish attributes and the categories by their ids.
    pub ends_by_id: bool,
    pub categories: Vec<String>,
    pub is_menu_item: bool,
}

#[derive(Debug, Clone)]
pub struct MentionSpec {
    pub connection: ConnectionKey,
    pub connection_by_id: bool,
    pub source_type: SourceType,
    pub source_id: String,
    pub thread_id: String,
    pub source_url: String,
    pub subreddit: String,
    pub content_excerpt: String,
    pub author: Option<String>,
    pub upvotes: i32,
    pub created_at: Time,
    pub observed_at: Time,
}

/// The whole logical database: natural keys in place of ids, without quality scores and *_updated.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub entities: BTreeMap<EntityKey, EntityRow>,
    pub connections: BTreeMap<ConnectionKey, ConnectionRow>,
    pub mentions: BTreeMap<MentionKey, MentionRow>,
}

#[derive(Debug, Clone, Default)]
pub struct EntityRow {
    /// In stored order: by code point.
    pub aliases: Vec<String>,
    pub restaurant_attributes: BTreeSet<String>,
    pub place: Option<PlaceRow>,
}

#[derive(Debug, Clone)]
pub struct PlaceRow {
    pub latitude: Option<String>,
    pub longitude: Option<String>,
    pub address: Option<String>,
    pub google_place_id: Option<String>,
    pub metadata: Option<Value>,
    pub observed_at: Time,
}

#[derive(Debug, Clone)]
pub struct ConnectionRow {
    pub categories: BTreeSet<String>,
    pub is_menu_item: bool,
    pub metrics: Metrics,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    pub mention_count: i64,
    pub total_upvotes: i64,
    pub source_diversity: i64,
    pub recent_mention_count: i64,
    pub last_mentioned_at: Option<Time>,
    pub activity_level: String,
    pub top_mentions: Vec<TopRow>,
}

#[derive(Debug, Clone)]
pub struct TopRow {
    pub source_type: SourceType,
    pub source_id: String,
    pub score: f64,
    pub upvotes: i32,
    pub content_excerpt: String,
    pub source_url: String,
    pub created_at: Time,
}

#[derive(Debug, Clone)]
pub struct MentionRow {
    pub thread_id: String,
    pub source_url: String,
    pub subreddit: String,
    pub content_excerpt: String,
    pub author: Option<String>,
    pub upvotes: i32,
    pub created_at: Time,
    pub observed_at: Time,
}

/// The graph that these records leave, in any order.
pub fn graph<'a>(records: impl IntoIterator<Item = &'a Record> + Clone, as_of: Time) -> Graph {
    let mut graph = Graph::default();
    let mut places: HashMap<EntityKey, Vec<&PlaceSpec>> = HashMap::new();
    for record in records.clone() {
        match record {
            Record::Entity(entity) => {
                let row = graph.entities.entry(entity.key.clone()).or_default();
                row.aliases.extend(entity.aliases.iter().filter(|alias| **alias != entity.key.name).cloned());
                row.restaurant_attributes.extend(entity.attributes.iter().cloned());
                for attribute in &entity.attributes {
                    graph.entities.entry(key(EntityType::RestaurantAttribute, attribute)).or_default();
                }
                places.entry(entity.key.clone()).or_default().extend(&entity.place);
            }
            Record::Connection(connection) => {
                let row = graph.connection(&connection.key);
                row.categories.extend(connection.categories.iter().cloned());
                row.is_menu_item |= connection.is_menu_item;
                for category in &connection.categories {
                    graph.entities.entry(key(EntityType::DishOrCategory, category)).or_default();
                }
            }
            Record::Mention(mention) => {
                graph.connection(&mention.connection);
            }
        }
    }
    for (key, row) in &mut graph.entities {
        row.aliases.sort();
        row.aliases.dedup();
        let newest = places.get(key).into_iter().flatten().max_by_key(|place| place.precedence());
        row.place = newest.map(|place| place.row());
    }

    let mut observations: BTreeMap<MentionKey, Vec<&MentionSpec>> = BTreeMap::new();
    for record in records {
        if let Record::Mention(mention) = record {
            observations.entry(mention.key()).or_default().push(mention);
        }
    }
    for (key, observations) in observations {
        let winner = observations.into_iter().max_by_key(|mention| mention.precedence()).expect("at least one");
        graph.mentions.insert(key, winner.row());
    }

    let mut by_connection: HashMap<&ConnectionKey, Vec<_>> = HashMap::new();
    for (key, row) in &graph.mentions {
        by_connection.entry(&key.connection).or_default().push((key.source_type, key.source_id.as_str(), row));
    }
    for (key, row) in &mut graph.connections {
        row.metrics = metrics(by_connection.remove(key).into_iter().flatten(), as_of);
    }
    graph
}

/// The metrics of a connection with exactly these mentions.
pub fn metrics<'a>(mentions: impl Iterator<Item = (SourceType, &'a str, &'a MentionRow)>, as_of: Time) -> Metrics {
    let mentions: Vec<_> = mentions.collect();
    let recent = |time: Time, days| time <= as_of && time >= as_of - TimeDelta::days(days);
    let last_mentioned_at = mentions.iter().map(|(_, _, row)| row.created_at).max();

    let mut top_mentions: Vec<TopRow> = mentions
        .iter()
        .map(|(source_type, source_id, row)| TopRow {
            source_type: *source_type,
            source_id: (*source_id).to_owned(),
            score: score(row.upvotes, row.created_at, as_of),
            upvotes: row.upvotes,
            content_excerpt: row.content_excerpt.clone(),
            source_url: row.source_url.clone(),
            created_at: row.created_at,
        })
        .collect();
    top_mentions.sort_by(|left, right| {
        let by_score = right.score.partial_cmp(&left.score).expect("no NaN");
        by_score
            .then(right.created_at.cmp(&left.created_at))
            .then(left.source_id.cmp(&right.source_id))
            .then(left.source_type.cmp(&right.source_type))
    });
    top_mentions.truncate(5);

    let activity_level = if top_mentions.len() >= 3 && top_mentions.iter().all(|top| recent(top.created_at, 30)) {
        "trending"
    } else if last_mentioned_at.is_some_and(|time| recent(time, 7)) {
        "active"
    } else {
        "normal"
    };
    let threads: BTreeSet<&str> = mentions.iter().map(|(_, _, row)| row.thread_id.as_str()).collect();
    Metrics {
        mention_count: mentions.len() as i64,
        total_upvotes: mentions.iter().map(|(_, _, row)| i64::from(row.upvotes)).sum(),
        source_diversity: threads.len() as i64,
        recent_mention_count: mentions.iter().filter(|(_, _, row)| recent(row.created_at, 30)).count() as i64,
        last_mentioned_at,
        activity_level: activity_level.to_owned(),
        top_mentions,
    }
}

fn score(upvotes: i32, created_at: Time, as_of: Time) -> f64 {
    // Otherwise NaN, for a mention far in the future.
    if upvotes == 0 {
        return 0.0;
    }
    let micros = as_of.timestamp_micros() - created_at.timestamp_micros();
    f64::from(upvotes) * (-(micros as f64 / 86_400e6) / 60.0).exp()
}

impl Graph {
    /// The connection, which exists from now on, as do its ends and dish attributes.
    fn connection(&mut self, key: &ConnectionKey) -> &mut ConnectionRow {
        for entity in key.entities() {
            self.entities.entry(entity).or_default();
        }
        self.connections.entry(key.clone()).or_insert_with(|| ConnectionRow {
            categories: BTreeSet::new(),
            is_menu_item: false,
            metrics: metrics(std::iter::empty(), DateTime::UNIX_EPOCH),
        })
    }
}

impl ConnectionKey {
    fn entities(&self) -> Vec<EntityKey> {
        let mut entities =
            vec![key(EntityType::Restaurant, &self.restaurant), key(EntityType::DishOrCategory, &self.dish)];
        entities.extend(self.dish_attributes.iter().map(|name| key(EntityType::DishAttribute, name)));
        entities
    }
}

impl PlaceSpec {
    /// The newest; at equal times the greater serialized value.
    pub fn precedence(&self) -> impl Ord + use<> {
        (self.observed_at, self.serialized())
    }

    /// The value as one canonical JSON text: keys sorted, coordinates as text with eight decimals.
    fn serialized(&self) -> String {
        let text = |text: &Option<String>| text.as_ref().map_or("null".to_owned(), |text| quoted(text));
        let degrees = |units: Option<i64>| units.map_or("null".to_owned(), |units| quoted(&degrees(units)));
        format!(
            r#"{{"address":{},"google_place_id":{},"latitude":{},"longitude":{},"metadata":{}}}"#,
            text(&self.address),
            text(&self.google_place_id),
            degrees(self.location.map(|location| location.0)),
            degrees(self.location.map(|location| location.1)),
            self.metadata.as_ref().map_or("null".to_owned(), canonical),
        )
    }

    fn row(&self) -> PlaceRow {
        PlaceRow {
            latitude: self.location.map(|location| degrees(location.0)),
            longitude: self.location.map(|location| degrees(location.1)),
            address: self.address.clone(),
            google_place_id: self.google_place_id.clone(),
            metadata: self.metadata.as_ref().map(|value| canonical(value).parse().expect("JSON")),
            observed_at: self.observed_at,
        }
    }

    pub fn observation(&self) -> PlaceObservation {
        PlaceObservation {
            latitude: self.location.map(|location| location.0 as f64 / 1e8),
            longitude: self.location.map(|location| location.1 as f64 / 1e8),
            address: self.address.clone(),
            google_place_id: self.google_place_id.clone(),
            metadata: self.metadata.clone(),
            observed_at: self.observed_at,
        }
    }
}

fn degrees(units: i64) -> String {
    let sign = if units < 0 { "-" } else { "" };
    format!("{sign}{}.{:08}", units.abs() / 100_000_000, units.abs() % 100_000_000)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

/// JSON with sorted keys, no blanks, and numbers as `jsonb` returns them.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let members: Vec<String> =
                sorted.iter().map(|(key, value)| format!("{}:{}", quoted(key), canonical(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        // jsonb keeps decimals: no negative zero, and all digits of large whole numbers.
        Value::Number(number) if number.as_f64() == Some(0.0) && number.is_f64() => "0.0".to_owned(),
        Value::Number(number) if number.as_f64().is_some_and(|float| float.abs() >= 1e16) => {
            let digits = if number.is_f64() { format!("{:.0}", number.as_f64().unwrap()) } else { number.to_string() };
            digits.parse::<Value>().expect("JSON").to_string()
        }
        other => other.to_string(),
    }
}

impl MentionSpec {
    pub fn key(&self) -> MentionKey {
        MentionKey {
            connection: self.connection.clone(),
            source_type: self.source_type,
            source_id: self.source_id.clone(),
        }
    }

    /// The newest `observed_at`, then the higher upvotes, then the greater excerpt, then the other columns, so that the
    /// order is total.
    pub fn precedence(&self) -> impl Ord + '_ {
        (
            (self.observed_at, self.upvotes, &self.content_excerpt),
            (self.created_at, &self.thread_id, &self.source_url, &self.subreddit, &self.author),
        )
    }

    pub fn row(&self) -> MentionRow {
        MentionRow {
            thread_id: self.thread_id.clone(),
            source_url: self.source_url.clone(),
            subreddit: self.subreddit.clone(),
            content_excerpt: self.content_excerpt.clone(),
            author: self.author.clone(),
            upvotes: self.upvotes,
            created_at: self.created_at,
            observed_at: self.observed_at,
        }
    }

    pub fn mention(&self) -> Mention {
        let mut mention = Mention::new(
            self.source_type,
            self.source_id.as_str(),
            self.source_url.as_str(),
            self.subreddit.as_str(),
            self.created_at,
        )
        .thread(self.thread_id.as_str())
        .excerpt(self.content_excerpt.as_str())
        .upvotes(self.upvotes)
        .observed_at(self.observed_at);
        mention.author.clone_from(&self.author);
        mention
    }
}

/// Ids that are known by natural key.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    pub entities: HashMap<EntityKey, Uuid>,
    pub connections: HashMap<ConnectionKey, Uuid>,
}

/// A unit with exactly these records. An entity that is merely referenced is named once and by its key; every record is
/// a row of its own, so that one key often occurs many times in a unit.
pub fn unit<'a>(records: impl IntoIterator<Item = &'a Record>, ids: &Ids) -> UnitOfWork {
    let mut writer = Writer { unit: UnitOfWork::new(), ids, entities: HashMap::new(), connections: HashMap::new() };
    for record in records {
        match record {
            Record::Entity(entity) => writer.entity(entity),
            Record::Connection(connection) => writer.connection(connection),
            Record::Mention(mention) => writer.mention(mention),
        }
    }
    writer.unit
}

struct Writer<'a> {
    unit: UnitOfWork,
    ids: &'a Ids,
    entities: HashMap<EntityKey, EntityHandle>,
    connections: HashMap<ConnectionKey, ConnectionHandle>,
}

impl Writer<'_> {
    /// A handle of an entity that is merely referenced.
    fn reference(&mut self, key: &EntityKey, by_id: bool) -> EntityHandle {
        if by_id && let Some(id) = self.ids.entities.get(key) {
            return self.unit.existing_entity(*id).handle();
        }
        let unit = &mut self.unit;
        let new = || unit.entity(key.entity_type, key.name.as_str()).handle();
        *self.entities.entry(key.clone()).or_insert_with(new)
    }

    fn entity(&mut self, spec: &EntitySpec) {
        let attributes: Vec<EntityHandle> = spec
            .attributes
            .iter()
            .map(|name| self.reference(&key(EntityType::RestaurantAttribute, name), spec.by_id))
            .collect();
        let known = self.ids.entities.get(&spec.key).filter(|_| spec.by_id);
        let builder = match known {
            Some(id) => self.unit.existing_entity(*id),
            None => self.unit.entity(spec.key.entity_type, spec.key.name.as_str()),
        };
        let mut builder = builder.aliases(&spec.aliases).attributes(attributes);
        if let Some(place) = &spec.place {
            builder = builder.place(place.observation());
        }
        let handle = builder.handle();
        self.entities.insert(spec.key.clone(), handle);
    }

    fn connection(&mut self, spec: &ConnectionSpec) {
        let categories: Vec<EntityHandle> = spec
            .categories
            .iter()
            .map(|name| self.reference(&key(EntityType::DishOrCategory, name), spec.ends_by_id))
            .collect();
        let handle = self.connection_row(&spec.key, spec.by_id, spec.ends_by_id, &categories, spec.is_menu_item);
        self.connections.insert(spec.key.clone(), handle);
    }

    fn mention(&mut self, spec: &MentionSpec) {
        let known = self.ids.connections.get(&spec.connection).filter(|_| spec.connection_by_id);
        if let Some(id) = known {
            self.unit.mention(*id, spec.mention());
            return;
        }
        let handle = match self.connections.get(&spec.connection) {
            Some(handle) => *handle,
            None => self.connection_row(&spec.connection, false, spec.connection_by_id, &[], false),
        };
        self.connections.insert(spec.connection.clone(), handle);
        self.unit.mention(handle, spec.mention());
    }

    fn connection_row(
        &mut self,
        key: &ConnectionKey,
        by_id: bool,
        ends_by_id: bool,
        categories: &[EntityHandle],
        is_menu_item: bool,
    ) -> ConnectionHandle {
        let known = self.ids.connections.get(key).copied().filter(|_| by_id);
        let builder = if let Some(id) = known {
            self.unit.existing_connection(id).menu_item(is_menu_item)
        } else {
            let ends: Vec<EntityHandle> =
                key.entities().iter().map(|entity| self.reference(entity, ends_by_id)).collect();
            let builder = self.unit.connection(ends[0], ends[1]).menu_item(is_menu_item);
            builder.dish_attributes(ends[2..].iter().copied())
        };
        builder.categories(categories.iter().copied()).handle()
    }
}
