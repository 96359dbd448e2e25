//! Units of hostile content as plain data: everything that a caller can state through the public interface, including
//! what no caller should. [`UnitSpec::build`] makes a unit of it.

use chrono::{DateTime, TimeDelta};
use graphsink::limits::METADATA_DEPTH_MAX;
use graphsink::{ConnectionRef, EntityRef, EntityType, Mention, PlaceObservation, SourceType, Timestamp, UnitOfWork};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::rules::is_blank;

/// Rows that exist before any unit: two entities of each type, in the order of the types, and one connection of the
/// first restaurant and the first dish.
#[derive(Debug, Clone)]
pub struct World {
    pub entities: Vec<Uuid>,
    pub connection: Uuid,
}

impl World {
    pub const ENTITIES: usize = 8;

    /// Ids of missing rows, for laws that need no database.
    pub fn imagined() -> Self {
        Self { entities: (1..=Self::ENTITIES as u128).map(Uuid::from_u128).collect(), connection: Uuid::from_u128(99) }
    }

    pub fn type_of(known: usize) -> EntityType {
        EntityType::ALL[known / 2]
    }

    pub fn name_of(known: usize) -> String {
        format!("known {known}")
    }
}

/// The id of an entity, or the id to use in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntityId {
    Known(usize),
    Missing(u8),
    /// The id of the known connection.
    OfConnection,
}

/// The id of a connection, or the id to use in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionId {
    Known,
    Missing(u8),
    /// The id of a known entity.
    OfEntity,
}

#[derive(Debug, Clone)]
pub enum Name {
    Key(EntityType, String),
    Id(EntityId),
}

/// How a row refers to an entity.
#[derive(Debug, Clone, Copy)]
pub enum Ref {
    /// Position in [`UnitSpec::entities`].
    Row(usize),
    Id(EntityId),
    /// A handle of another unit.
    Foreign,
}

#[derive(Debug, Clone)]
pub struct UnitSpec {
    pub entities: Vec<EntitySpec>,
    pub connections: Vec<ConnectionSpec>,
    pub mentions: Vec<MentionSpec>,
}

#[derive(Debug, Clone)]
pub struct EntitySpec {
    pub name: Name,
    pub aliases: Vec<String>,
    pub attributes: Vec<Ref>,
    pub places: Vec<PlaceSpec>,
    pub temp_id: Option<String>,
}

#[derive(Debug, Clone)]
pub struct PlaceSpec {
    pub latitude: Option<Degrees>,
    pub longitude: Option<Degrees>,
    pub address: Option<String>,
    pub google_place_id: Option<String>,
    pub metadata: Option<Value>,
    pub observed_at: Timestamp,
}

/// An angle in degrees, with the expected value of its column in units of 1e-8, computed by hand.
#[derive(Debug, Clone, Copy)]
pub struct Degrees {
    pub given: f64,
    pub stored: i64,
}

#[derive(Debug, Clone)]
pub enum ConnectionName {
    Key { restaurant: Ref, dish: Ref },
    Id(ConnectionId),
}

#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    pub name: ConnectionName,
    pub dish_attributes: Vec<Ref>,
    pub categories: Vec<Ref>,
    pub menu_item: Option<bool>,
}

/// The parent of a mention.
#[derive(Debug, Clone, Copy)]
pub enum On {
    /// Position in [`UnitSpec::connections`].
    Row(usize),
    Id(ConnectionId),
    /// A handle of another unit.
    Foreign,
}

#[derive(Debug, Clone)]
pub struct MentionSpec {
    pub on: On,
    pub mention: Mention,
    pub temp_id: Option<String>,
}

// ---- building through the public API -------------------------------------------------------------

impl UnitSpec {
    #[allow(clippy::too_many_lines)]
    pub fn build(&self, world: &World) -> UnitOfWork {
        let mut other = UnitOfWork::new();
        let foreign_entity = other.restaurant("elsewhere").handle();
        let foreign_connection = other.connection(foreign_entity, foreign_entity).handle();

        let mut unit = UnitOfWork::new();
        let entity_id = |id: EntityId| match id {
            EntityId::Known(known) => world.entities[known],
            EntityId::Missing(number) => missing(number),
            EntityId::OfConnection => world.connection,
        };
        let connection_id = |id: ConnectionId| match id {
            ConnectionId::Known => world.connection,
            ConnectionId::Missing(number) => missing(number),
            ConnectionId::OfEntity => world.entities[0],
        };
        let mut entities = Vec::new();
        let reference = |entities: &[graphsink::EntityHandle], reference: Ref| match reference {
            Ref::Row(row) => EntityRef::Handle(entities[row]),
            Ref::Id(id) => EntityRef::Id(entity_id(id)),
            Ref::Foreign => EntityRef::Handle(foreign_entity),
        };
        for spec in &self.entities {
            let mut builder = match &spec.name {
                Name::Key(entity_type, name) => unit.entity(*entity_type, name.as_str()),
                Name::Id(id) => unit.existing_entity(entity_id(*id)),
            };
            for alias in &spec.aliases {
                builder = builder.alias(alias.as_str());
            }
            for attribute in &spec.attributes {
                builder = builder.attribute(reference(&entities, *attribute));
            }
            for place in &spec.places {
                builder = builder.place(place.observation());
            }
            if let Some(temp_id) = &spec.temp_id {
                builder = builder.temp_id(temp_id.as_str());
            }
            entities.push(builder.handle());
        }
        let mut connections = Vec::new();
        for spec in &self.connections {
            let mut builder = match spec.name {
                ConnectionName::Key { restaurant, dish } => {
                    unit.connection(reference(&entities, restaurant), reference(&entities, dish))
                }
                ConnectionName::Id(id) => unit.existing_connection(connection_id(id)),
            };
            for attribute in &spec.dish_attributes {
                builder = builder.dish_attribute(reference(&entities, *attribute));
            }
            for category in &spec.categories {
                builder = builder.category(reference(&entities, *category));
            }
            if let Some(menu_item) = spec.menu_item {
                builder = builder.menu_item(menu_item);
            }
            connections.push(builder.handle());
        }
        for spec in &self.mentions {
            let on = match spec.on {
                On::Row(row) => ConnectionRef::Handle(connections[row]),
                On::Id(id) => ConnectionRef::Id(connection_id(id)),
                On::Foreign => ConnectionRef::Handle(foreign_connection),
            };
            match &spec.temp_id {
                Some(temp_id) => unit.mention_with_temp_id(on, spec.mention.clone(), temp_id.as_str()),
                None => unit.mention(on, spec.mention.clone()),
            };
        }
        unit
    }

    /// The type of the entity that a reference leads to, if the unit itself states it.
    pub fn type_of(&self, reference: Ref) -> Option<EntityType> {
        match reference {
            Ref::Row(row) => match &self.entities[row].name {
                Name::Key(entity_type, _) => Some(*entity_type),
                Name::Id(_) => None,
            },
            Ref::Id(_) | Ref::Foreign => None,
        }
    }

    /// The id that a reference uses.
    pub fn id_of(&self, reference: Ref) -> Option<EntityId> {
        match reference {
            Ref::Row(row) => match self.entities[row].name {
                Name::Id(id) => Some(id),
                Name::Key(..) => None,
            },
            Ref::Id(id) => Some(id),
            Ref::Foreign => None,
        }
    }

    /// Every use of an entity, with the required type, or none where any type is valid.
    pub fn uses(&self) -> Vec<(Ref, Option<EntityType>)> {
        let mut uses = Vec::new();
        for (row, entity) in self.entities.iter().enumerate() {
            let facts = !entity.attributes.is_empty() || !entity.places.is_empty();
            uses.push((Ref::Row(row), facts.then_some(EntityType::Restaurant)));
            uses.extend(entity.attributes.iter().map(|used| (*used, Some(EntityType::RestaurantAttribute))));
        }
        for connection in &self.connections {
            if let ConnectionName::Key { restaurant, dish } = connection.name {
                uses.extend([(restaurant, Some(EntityType::Restaurant)), (dish, Some(EntityType::DishOrCategory))]);
            }
            uses.extend(connection.dish_attributes.iter().map(|used| (*used, Some(EntityType::DishAttribute))));
            uses.extend(connection.categories.iter().map(|used| (*used, Some(EntityType::DishOrCategory))));
        }
        uses
    }

    /// Every connection that is named by an id.
    pub fn connection_ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let rows = self.connections.iter().filter_map(|connection| match connection.name {
            ConnectionName::Id(id) => Some(id),
            ConnectionName::Key { .. } => None,
        });
        let mentions = self.mentions.iter().filter_map(|mention| match mention.on {
            On::Id(id) => Some(id),
            On::Row(_) | On::Foreign => None,
        });
        rows.chain(mentions)
    }
}

fn missing(number: u8) -> Uuid {
    Uuid::from_u128(0xdead_0000 + u128::from(number))
}

impl PlaceSpec {
    fn observation(&self) -> PlaceObservation {
        PlaceObservation {
            latitude: self.latitude.map(|degrees| degrees.given),
            longitude: self.longitude.map(|degrees| degrees.given),
            address: self.address.clone(),
            google_place_id: self.google_place_id.clone(),
            metadata: self.metadata.clone(),
            observed_at: self.observed_at,
        }
    }
}

// ---- values ------------------------------------------------------------------------------------

/// What the generator draws.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    /// The probable number of values in a thousand that break a rule.
    pub invalid: u32,
    /// The number of ids in a thousand that lead to nothing or to an entity of another type.
    pub misleading: u32,
    /// Whether times are near the ends of the range; otherwise they are within a century of `as_of`.
    pub all_times: bool,
    pub as_of: Timestamp,
}

fn mostly<T: std::fmt::Debug>(
    per_mille: u32,
    good: impl Strategy<Value = T>,
    bad: impl Strategy<Value = T>,
) -> impl Strategy<Value = T> {
    prop_oneof![1_000 - per_mille => good, per_mille => bad]
}

/// Texts that some programs misinterpret.
const PIECES: [&str; 32] = [
    "a",
    "A",
    " a",
    "a ",
    "é",
    "e\u{301}",
    "\u{301}",
    "ß",
    "İ",
    "ﬁ",
    "\u{200b}",
    "\u{200d}",
    "\u{202e}live\u{202c}",
    "\u{feff}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "😀",
    "👩‍👩‍👧",
    "NULL",
    "\\N",
    "\\.",
    "{a,\"b\"}",
    "'; drop table entities; --",
    "%s$1:x",
    "\"\\\t\r\n",
    "\\u0000",
    "-0",
];

/// A text of 1 to `limit` characters without NUL.
fn text(limit: usize) -> impl Strategy<Value = String> {
    let long = select(vec!['a', 'é', '😀', '\u{301}', '\u{200b}', '\\', '"']);
    prop_oneof![
        8 => select(PIECES.to_vec()).prop_map(str::to_owned),
        3 => vec(select(PIECES.to_vec()), 1..6).prop_map(|pieces| pieces.concat()),
        2 => vec(any::<char>(), 1..30).prop_map(|chars| chars.into_iter().collect()),
        1 => (long, 0_usize..2).prop_map(move |(char, less)| char.to_string().repeat(limit - less)),
    ]
    .prop_map(move |text: String| text.chars().filter(|char| *char != '\0').take(limit).collect())
    .prop_map(|text: String| if text.is_empty() { "x".to_owned() } else { text })
}

/// A text that is not blank.
fn name(limit: usize) -> impl Strategy<Value = String> {
    text(limit).prop_map(|text| if is_blank(&text) { "x".to_owned() } else { text })
}

fn bad_text(limit: usize) -> impl Strategy<Value = String> {
    let long = |char: char| char.to_string().repeat(limit + 1);
    select(vec![
        String::new(),
        " ".to_owned(),
        "\u{3000}\t\n".to_owned(),
        "\u{200b}".to_owned(),
        "\u{2060}\u{feff}\u{3164}".to_owned(),
        "\0".to_owned(),
        "a\0b".to_owned(),
        long('a'),
        long('😀'),
        long(' '),
    ])
}

/// The earliest second of `timestamptz`: 24 November 4714 BC.
pub fn earliest() -> Timestamp {
    chrono::NaiveDate::from_ymd_opt(-4713, 11, 24).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc()
}

fn time(odds: Odds) -> impl Strategy<Value = Timestamp> {
    let leap_second = DateTime::from_timestamp(1_483_228_799, 1_500_000_001).unwrap();
    let tick = TimeDelta::microseconds(1);
    let as_of = odds.as_of;
    let near = prop_oneof![
        3 => (-90 * 365_i64 * 86_400..90 * 365 * 86_400, 0..1_000_000_000_i64).prop_map(move |(seconds, nanos)| {
            as_of - TimeDelta::seconds(seconds) - TimeDelta::nanoseconds(nanos)
        }),
        2 => (0..40_i64 * 86_400).prop_map(move |seconds| as_of - TimeDelta::seconds(seconds)),
        1 => select(vec![as_of, as_of + TimeDelta::nanoseconds(999), leap_second, DateTime::UNIX_EPOCH - tick / 2]),
    ];
    let ends = select(vec![
        earliest(),
        earliest() + tick,
        earliest() + TimeDelta::nanoseconds(1),
        DateTime::<chrono::Utc>::MAX_UTC,
        DateTime::<chrono::Utc>::MAX_UTC - TimeDelta::days(365),
        "+10000-01-01T00:00:00Z".parse().unwrap(),
        "0000-01-01T00:00:00Z".parse().unwrap(),
        "-0001-12-31T23:59:59.999999Z".parse().unwrap(),
        "1000-01-01T00:00:00Z".parse().unwrap(),
        "3000-01-01T00:00:00Z".parse().unwrap(),
    ]);
    let out = select(vec![
        earliest() - TimeDelta::nanoseconds(1),
        earliest() - tick,
        earliest() - TimeDelta::days(1),
        DateTime::<chrono::Utc>::MIN_UTC,
    ]);
    let inside = if odds.all_times { prop_oneof![1 => near, 3 => ends].boxed() } else { near.boxed() };
    mostly(odds.invalid, inside, out)
}

fn degrees(odds: Odds, limit: i64) -> impl Strategy<Value = Degrees> {
    let whole = limit * 100_000_000;
    let by_hand = move |(given, stored)| Degrees { given, stored };
    let good = prop_oneof![
        1 => (-whole..=whole).prop_map(|units| Degrees { given: units as f64 / 1e8, stored: units }),
        1 => select(vec![
            (0.0, 0),
            (-0.0, 0),
            (limit as f64, whole),
            (-limit as f64, -whole),
            (5e-9, 1),
            (-5e-9, -1),
            (4.999e-9, 0),
            (5e-324, 0),
            (-f64::MIN_POSITIVE, 0),
            (30.123_456_785, 3_012_345_679),
            (-30.123_456_785, -3_012_345_679),
            (1.005, 100_500_000),
            (89.999_999_995, 9_000_000_000),
            (0.1 + 0.2, 30_000_000),
        ])
        .prop_map(by_hand),
    ];
    let beyond = limit as f64 + 1e-8;
    let bad = select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY, f64::MAX, f64::MIN, beyond, -beyond, 1e16]);
    mostly(odds.invalid, good, bad.prop_map(|given| Degrees { given, stored: 0 }))
}

/// An object around an object (or a list), of `depth` levels in all.
fn nested(depth: usize, lists: bool) -> Value {
    (1..depth).fold(json!({}), |inner, level| {
        // The outermost must be an object.
        if lists && level + 1 < depth { json!([inner]) } else { json!({ "a": inner }) }
    })
}

fn metadata(odds: Odds) -> impl Strategy<Value = Value> {
    let number = select(vec![
        json!(0),
        json!(-0.0),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e16),
        json!(-1e16),
        json!(1e308),
        json!(f64::MAX),
        json!(f64::MIN),
        json!(f64::MIN_POSITIVE),
        json!(5e-324),
        json!(0.1),
        json!(1.0),
        json!(1e15),
        json!(1.844_674_407_370_955_2e19),
        json!(9_007_199_254_740_993_u64),
    ]);
    let leaf = prop_oneof![
        3 => number,
        2 => text(300).prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| if number.is_finite() { json!(number) } else { Value::Null }),
        1 => select(vec![Value::Null, json!(true), json!([]), json!({}), json!("")]),
    ];
    let object = |members: Vec<(String, Value)>| Value::Object(members.into_iter().collect::<Map<_, _>>());
    let key = || prop_oneof![9 => text(40), 1 => Just(String::new())];
    let tree = leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), vec((key(), inner), 0..4).prop_map(object),]
    });
    let good = prop_oneof![
        9 => vec((key(), tree), 0..4).prop_map(object),
        1 => any::<bool>().prop_map(|lists| nested(METADATA_DEPTH_MAX, lists)),
        1 => select(vec!["a", "😀", "\\"]).prop_map(|text| json!({ "long": text.repeat(5_000) })),
    ];
    let bad = select(vec![
        Value::Null,
        json!([]),
        json!([{}]),
        json!("{}"),
        json!(1),
        json!({"a\0": 1}),
        json!({"a": "\0"}),
        json!({"a": [{"b": {"\0": 1}}]}),
        json!({"a": [[["x\0"]]]}),
        nested(METADATA_DEPTH_MAX + 1, false),
        nested(METADATA_DEPTH_MAX + 1, true),
        nested(300, true),
    ]);
    mostly(odds.invalid, good, bad)
}

fn place(odds: Odds) -> impl Strategy<Value = PlaceSpec> {
    let both = prop_oneof![3 => Just((true, true)), 1 => Just((false, false))];
    let one = select(vec![(true, false), (false, true)]);
    let location = (mostly(odds.invalid, both, one), degrees(odds, 90), degrees(odds, 180)).prop_map(
        |((with_latitude, with_longitude), latitude, longitude)| {
            (with_latitude.then_some(latitude), with_longitude.then_some(longitude))
        },
    );
    let address = prop_oneof![9 => text(500), 1 => Just(String::new())];
    let address = option::of(mostly(odds.invalid, address, bad_text(500)));
    let google_place_id = option::weighted(0.3, mostly(odds.invalid, name(255), bad_text(255)));
    (location, address, google_place_id, option::of(metadata(odds)), time(odds)).prop_map(
        |((latitude, longitude), address, google_place_id, metadata, observed_at)| PlaceSpec {
            latitude,
            longitude,
            address,
            google_place_id,
            metadata,
            observed_at,
        },
    )
}

fn mention(odds: Odds) -> impl Strategy<Value = Mention> {
    let required = |limit| mostly(odds.invalid, text(limit), bad_text(limit));
    let optional =
        |limit| prop_oneof![9 => mostly(odds.invalid, text(limit), bad_text(limit)), 1 => Just(String::new())];
    let upvotes = prop_oneof![3 => -9..100_i32, 1 => select(vec![i32::MIN, i32::MAX, 0, -1]), 1 => any::<i32>()];
    let texts =
        (required(255), required(255), required(500), required(100), optional(8_000), option::of(optional(255)));
    let in_order = prop::bool::weighted(1.0 - f64::from(odds.invalid) / 1_000.0);
    (any::<bool>(), texts, upvotes, (time(odds), time(odds)), in_order).prop_map(
        |(post, (source_id, thread_id, source_url, subreddit, excerpt, author), upvotes, (one, two), in_order)| {
            let (created_at, observed_at) = if in_order { (one.min(two), one.max(two)) } else { (one, two) };
            let source_type = if post { SourceType::Post } else { SourceType::Comment };
            let mut mention = Mention::new(source_type, source_id, source_url, subreddit, created_at)
                .thread(thread_id)
                .excerpt(excerpt)
                .upvotes(upvotes)
                .observed_at(observed_at);
            mention.author = author;
            mention
        },
    )
}

// ---- units -------------------------------------------------------------------------------------

/// A reference before the rows are known.
#[derive(Debug, Clone, Copy)]
enum Draw {
    /// A row of the required type, or a known entity of that type.
    Right(Index),
    RightId(bool),
    AnyRow(Index),
    AnyId(usize),
    Missing(u8),
    Connection,
    Foreign,
}

impl Draw {
    fn reference(self, expected: EntityType, rows: &[EntitySpec]) -> Ref {
        let known = |number: usize| {
            let of_type = EntityType::ALL.iter().position(|entity_type| *entity_type == expected).unwrap();
            Ref::Id(EntityId::Known(of_type * 2 + number))
        };
        match self {
            Self::Right(index) => {
                let right = |spec: &EntitySpec| match spec.name {
                    Name::Key(entity_type, _) => entity_type == expected,
                    Name::Id(EntityId::Known(known)) => World::type_of(known) == expected,
                    Name::Id(_) => false,
                };
                let right: Vec<usize> = (0..rows.len()).filter(|row| right(&rows[*row])).collect();
                if right.is_empty() { known(0) } else { Ref::Row(*index.get(&right)) }
            }
            Self::RightId(second) => known(second.into()),
            Self::AnyRow(index) if !rows.is_empty() => Ref::Row(index.index(rows.len())),
            Self::AnyRow(_) => known(1),
            Self::AnyId(known) => Ref::Id(EntityId::Known(known)),
            Self::Missing(number) => Ref::Id(EntityId::Missing(number)),
            Self::Connection => Ref::Id(EntityId::OfConnection),
            Self::Foreign => Ref::Foreign,
        }
    }
}

fn draw(odds: Odds) -> impl Strategy<Value = Draw> {
    let right = prop_oneof![
        4 => any::<Index>().prop_map(Draw::Right),
        1 => any::<bool>().prop_map(Draw::RightId),
    ];
    let misleading = prop_oneof![
        2 => (0..World::ENTITIES).prop_map(Draw::AnyId),
        2 => any::<u8>().prop_map(Draw::Missing),
        1 => Just(Draw::Connection),
    ];
    let invalid = prop_oneof![any::<Index>().prop_map(Draw::AnyRow), Just(Draw::Foreign)];
    mostly(odds.invalid, mostly(odds.misleading, right, misleading), invalid)
}

fn entity_name(odds: Odds) -> impl Strategy<Value = Name> {
    let entity_type = prop_oneof![
        3 => Just(EntityType::Restaurant),
        2 => Just(EntityType::DishOrCategory),
        1 => Just(EntityType::DishAttribute),
        1 => Just(EntityType::RestaurantAttribute),
    ];
    let key = (entity_type, mostly(odds.invalid, name(255), bad_text(255)));
    let misleading = prop_oneof![any::<u8>().prop_map(EntityId::Missing), Just(EntityId::OfConnection)];
    prop_oneof![
        5 => key.prop_map(|(entity_type, name)| Name::Key(entity_type, name)),
        1 => mostly(odds.misleading, (0..World::ENTITIES).prop_map(EntityId::Known), misleading).prop_map(Name::Id),
    ]
}

#[derive(Debug, Clone)]
struct EntityDraw {
    name: Name,
    aliases: Vec<String>,
    attributes: Vec<Draw>,
    places: Vec<PlaceSpec>,
    temp_id: Option<String>,
    /// Whether attributes and a place remain on an entity that is not a restaurant.
    misplaced: bool,
}

fn entity(odds: Odds) -> impl Strategy<Value = EntityDraw> {
    (
        entity_name(odds),
        vec(mostly(odds.invalid, name(255), bad_text(255)), 0..4),
        vec(draw(odds), 0..3),
        vec(place(odds), 0..3),
        option::weighted(0.2, text(20)),
        prop::bool::weighted(f64::from(odds.invalid) / 1_000.0),
    )
        .prop_map(|(name, aliases, attributes, places, temp_id, misplaced)| EntityDraw {
            name,
            aliases,
            attributes,
            places,
            temp_id,
            misplaced,
        })
}

#[derive(Debug, Clone)]
struct ConnectionDraw {
    id: Option<ConnectionId>,
    restaurant: Draw,
    dish: Draw,
    dish_attributes: Vec<Draw>,
    categories: Vec<Draw>,
    menu_item: Option<bool>,
    /// Whether dish attributes remain on a connection that is named by its id.
    misplaced: bool,
}

fn connection_id(odds: Odds) -> impl Strategy<Value = ConnectionId> {
    let misleading = prop_oneof![any::<u8>().prop_map(ConnectionId::Missing), Just(ConnectionId::OfEntity)];
    mostly(odds.misleading, Just(ConnectionId::Known), misleading)
}

fn connection(odds: Odds) -> impl Strategy<Value = ConnectionDraw> {
    let ends = (draw(odds), draw(odds), vec(draw(odds), 0..4), vec(draw(odds), 0..3));
    let misplaced = prop::bool::weighted(f64::from(odds.invalid) / 1_000.0);
    (option::weighted(0.15, connection_id(odds)), ends, any::<Option<bool>>(), misplaced).prop_map(
        |(id, (restaurant, dish, dish_attributes, categories), menu_item, misplaced)| ConnectionDraw {
            id,
            restaurant,
            dish,
            dish_attributes,
            categories,
            menu_item,
            misplaced,
        },
    )
}

#[derive(Debug, Clone, Copy)]
enum OnDraw {
    Row(Index),
    Id(ConnectionId),
    Foreign,
}

/// A unit of a few rows; now and then one with a connection of the maximum number of dish attributes, or one more.
pub fn unit(odds: Odds) -> impl Strategy<Value = UnitSpec> {
    let on = prop_oneof![
        5 => any::<Index>().prop_map(OnDraw::Row),
        1 => connection_id(odds).prop_map(OnDraw::Id),
    ];
    let on = mostly(odds.invalid, on, Just(OnDraw::Foreign));
    let mentions = vec((on, mention(odds), option::weighted(0.2, text(20))), 0..4);
    let crowd = option::weighted(0.02, mostly(odds.invalid.max(100), Just(100_usize), Just(101)));
    (vec(entity(odds), 0..5), vec(connection(odds), 0..3), mentions, crowd).prop_map(
        |(entities, connections, mentions, crowd)| {
            let mut unit = UnitSpec { entities: Vec::new(), connections: Vec::new(), mentions: Vec::new() };
            for draw in entities {
                unit.push_entity(draw);
            }
            for draw in connections {
                unit.push_connection(&draw);
            }
            if let Some(crowd) = crowd {
                unit.push_crowd(crowd);
            }
            for (on, mention, temp_id) in mentions {
                let on = match on {
                    OnDraw::Row(index) if !unit.connections.is_empty() => On::Row(index.index(unit.connections.len())),
                    OnDraw::Row(_) => On::Id(ConnectionId::Known),
                    OnDraw::Id(id) => On::Id(id),
                    OnDraw::Foreign => On::Foreign,
                };
                unit.mentions.push(MentionSpec { on, mention, temp_id });
            }
            unit
        },
    )
}

impl UnitSpec {
    fn push_entity(&mut self, draw: EntityDraw) {
        let restaurant = match draw.name {
            Name::Key(entity_type, _) => entity_type == EntityType::Restaurant,
            Name::Id(EntityId::Known(known)) => World::type_of(known) == EntityType::Restaurant,
            Name::Id(_) => true,
        };
        let keeps = restaurant || draw.misplaced;
        let attributes = draw.attributes.iter().filter(|_| keeps);
        let attributes =
            attributes.map(|draw| draw.reference(EntityType::RestaurantAttribute, &self.entities)).collect();
        let places = if keeps { draw.places } else { Vec::new() };
        let EntityDraw { name, aliases, temp_id, .. } = draw;
        self.entities.push(EntitySpec { name, aliases, attributes, places, temp_id });
    }

    fn push_connection(&mut self, draw: &ConnectionDraw) {
        let reference = |draw: &Draw, entity_type| draw.reference(entity_type, &self.entities);
        let name = match draw.id {
            Some(id) => ConnectionName::Id(id),
            None => ConnectionName::Key {
                restaurant: reference(&draw.restaurant, EntityType::Restaurant),
                dish: reference(&draw.dish, EntityType::DishOrCategory),
            },
        };
        let keeps = draw.id.is_none() || draw.misplaced;
        let attributes = draw.dish_attributes.iter().filter(|_| keeps);
        let dish_attributes = attributes.map(|draw| reference(draw, EntityType::DishAttribute)).collect();
        let categories = draw.categories.iter().map(|draw| reference(draw, EntityType::DishOrCategory)).collect();
        self.connections.push(ConnectionSpec { name, dish_attributes, categories, menu_item: draw.menu_item });
    }

    /// A connection with this many dish attributes, each named twice.
    fn push_crowd(&mut self, count: usize) {
        let first = self.entities.len();
        for number in 0..count * 2 {
            let name = Name::Key(EntityType::DishAttribute, format!("attribute {}", number % count));
            let spec =
                EntitySpec { name, aliases: Vec::new(), attributes: Vec::new(), places: Vec::new(), temp_id: None };
            self.entities.push(spec);
        }
        self.connections.push(ConnectionSpec {
            name: ConnectionName::Key { restaurant: Ref::Id(EntityId::Known(1)), dish: Ref::Id(EntityId::Known(3)) },
            dish_attributes: (first..self.entities.len()).map(Ref::Row).collect(),
            categories: Vec::new(),
            menu_item: None,
        });
    }
}
