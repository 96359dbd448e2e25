//! Random records over small key spaces, so that they collide: hot keys, equal times, negative votes, and threads and
//! times of writing that change with a new observation.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use graphsink::{EntityType, SourceType};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use super::model::{ConnectionKey, ConnectionSpec, EntityKey, EntitySpec, MentionSpec, PlaceSpec, Record, Time};

/// The number of different values of each kind. Fewer values collide more.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    pub restaurants: usize,
    pub dishes: usize,
    pub attributes: usize,
    pub sources: usize,
    pub threads: usize,
    pub as_of: Time,
}

impl Space {
    /// So few that every record shares keys with others.
    pub fn tiny(as_of: Time) -> Self {
        Self { restaurants: 3, dishes: 3, attributes: 3, sources: 9, threads: 4, as_of }
    }
}

/// The seed of a test's random numbers: `GRAPHSINK_TEST_SEED`, or a random one. It is printed, so that a failure can be
/// reproduced.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("GRAPHSINK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("GRAPHSINK_TEST_SEED is a number"),
        Err(_) => rand::random::<u32>().into(),
    };
    println!("{test}: GRAPHSINK_TEST_SEED={seed}");
    seed
}

/// A runner that draws the same values for the same seed. `GRAPHSINK_TEST_CASES` overrides `cases`. Nothing is written
/// to disk.
pub fn runner(seed: u64, cases: u32) -> TestRunner {
    let cases = std::env::var("GRAPHSINK_TEST_CASES").map_or(cases, |cases| cases.parse().expect("a number"));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// `count` records without a property around them.
pub fn sample(seed: u64, space: Space, count: usize) -> Vec<Record> {
    let mut runner = runner(seed, 1);
    let strategy = record(space);
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("nothing is filtered").current()).collect()
}

/// Names that collate differently in most locales than by code point.
fn names(prefix: &'static str, count: usize) -> impl Strategy<Value = String> + Clone {
    (0..count).prop_map(move |number| match number % 5 {
        0 => format!("{prefix} {number}"),
        1 => format!("{}{number}", prefix.to_uppercase()),
        2 => format!("é{prefix}{number}"),
        3 => format!("-{prefix}{number}"),
        _ => format!("{prefix}😀{number}"),
    })
}

fn restaurants(space: Space) -> impl Strategy<Value = String> + Clone {
    names("kitchen", space.restaurants)
}

fn dishes(space: Space) -> impl Strategy<Value = String> + Clone {
    names("dish", space.dishes)
}

/// The same words name attributes of dishes and of restaurants.
fn attributes(space: Space) -> impl Strategy<Value = String> + Clone {
    names("italian", space.attributes)
}

/// Two entities that may exist; now and then the same one, and now and then two of different types.
pub fn two_entities(space: Space) -> impl Strategy<Value = (EntityKey, EntityKey)> {
    let key = |entity_type| move |name| EntityKey { entity_type, name };
    let types = [
        (restaurants(space).boxed(), EntityType::Restaurant),
        (dishes(space).boxed(), EntityType::DishOrCategory),
        (attributes(space).boxed(), EntityType::DishAttribute),
        (attributes(space).boxed(), EntityType::RestaurantAttribute),
    ];
    let of_type = |(names, entity_type): (BoxedStrategy<String>, EntityType)| names.prop_map(key(entity_type));
    let same = types.clone().map(|own| (of_type(own.clone()), of_type(own)).boxed());
    let of_two_types = (of_type(types[2].clone()), of_type(types[3].clone())).boxed();
    let [restaurants, dishes, dish_attributes, restaurant_attributes] = same;
    prop_oneof![
        4 => restaurants, 4 => dishes, 3 => dish_attributes, 3 => restaurant_attributes, 1 => of_two_types
    ]
}

pub fn record(space: Space) -> impl Strategy<Value = Record> {
    prop_oneof![
        2 => entity(space).prop_map(Record::Entity),
        2 => connection(space).prop_map(Record::Connection),
        6 => mention(space).prop_map(Record::Mention),
    ]
}

fn entity(space: Space) -> impl Strategy<Value = EntitySpec> {
    let restaurant = (restaurants(space), vec(attributes(space), 0..3), option::of(place(space))).prop_map(
        |(name, attributes, place)| {
            // Google's ids are unique among restaurants, so each restaurant has its own.
            let place = place.map(|mut place| {
                place.google_place_id = place.google_place_id.map(|id| format!("{name} {id}"));
                place
            });
            (EntityKey { entity_type: EntityType::Restaurant, name }, attributes, place)
        },
    );
    let other = prop_oneof![
        dishes(space).prop_map(|name| EntityKey { entity_type: EntityType::DishOrCategory, name }),
        attributes(space).prop_map(|name| EntityKey { entity_type: EntityType::DishAttribute, name }),
        attributes(space).prop_map(|name| EntityKey { entity_type: EntityType::RestaurantAttribute, name }),
    ];
    let entity = prop_oneof![3 => restaurant, 1 => other.prop_map(|key| (key, Vec::new(), None))];
    let aliases = vec(select(vec!["a", "B", "é", "z", "Z", "a b", "😀", "own name"]), 0..3);
    (entity, aliases, any::<bool>()).prop_map(|((key, attributes, place), aliases, by_id)| {
        let alias = |alias: &str| if alias == "own name" { key.name.clone() } else { alias.to_owned() };
        let aliases = aliases.into_iter().map(alias).collect();
        EntitySpec { key, by_id, aliases, attributes, place }
    })
}

pub fn place(space: Space) -> impl Strategy<Value = PlaceSpec> {
    let location = option::of(select(vec![
        (3_027_000_000, -9_773_000_000),
        (3_027_000_001, -9_773_000_000),
        (-1, 1),
        (0, 0),
        (9_000_000_000, 18_000_000_000),
    ]));
    let address = option::of(select(vec!["900 E 11th St", "Ärger \"quoted\" \\ \t", ""]).prop_map(str::to_owned));
    let google_place_id = option::of(select(vec!["g1", "g2"]).prop_map(str::to_owned));
    (location, address, google_place_id, option::of(metadata()), 0_i64..2).prop_map(
        move |(location, address, google_place_id, metadata, hours)| PlaceSpec {
            location,
            address,
            google_place_id,
            metadata,
            observed_at: space.as_of + TimeDelta::hours(hours),
        },
    )
}

fn metadata() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"b": 1, "a": [1, {"z": null, "y": true}], "A": "x"}),
        json!({"a": 1.5}),
        json!({"a": 10_000_001}),
        json!({"a": 1e16}),
        json!({"a": -5.843_334_799_490_125e17}),
        json!({"a": 1e300}),
        json!({"a": 0.1}),
        json!({"a": 1.0}),
        json!({"a": 1}),
        json!({"é": "\u{1}\u{7f}😀"}),
    ])
}

pub fn connection_key(space: Space) -> impl Strategy<Value = ConnectionKey> {
    (restaurants(space), dishes(space), btree_set(attributes(space), 0..3)).prop_map(
        |(restaurant, dish, dish_attributes): (_, _, BTreeSet<String>)| ConnectionKey {
            restaurant,
            dish,
            dish_attributes,
        },
    )
}

/// In most cases one of a few hot connections.
fn hot_connection_key(space: Space) -> impl Strategy<Value = ConnectionKey> {
    let hot = Space { restaurants: 1, dishes: space.dishes.min(2), attributes: 0, ..space };
    let hot_key = (restaurants(hot), dishes(hot)).prop_map(|(restaurant, dish)| ConnectionKey {
        restaurant,
        dish,
        dish_attributes: BTreeSet::new(),
    });
    prop_oneof![3 => hot_key, 1 => connection_key(space)]
}

fn connection(space: Space) -> impl Strategy<Value = ConnectionSpec> {
    (connection_key(space), any::<bool>(), any::<bool>(), vec(dishes(space), 0..3), any::<bool>()).prop_map(
        |(key, by_id, ends_by_id, categories, is_menu_item)| ConnectionSpec {
            key,
            by_id,
            ends_by_id,
            categories,
            is_menu_item,
        },
    )
}

/// Ages around the limits of "recent" and "active", with an hour more or less, which matters to code that counts
/// calendar days across a clock change.
pub fn ages() -> impl Strategy<Value = TimeDelta> {
    let (day, hour, tick) = (TimeDelta::days, TimeDelta::hours(1), TimeDelta::microseconds(1));
    let mut edges = vec![TimeDelta::zero(), tick, -tick, -day(1), -day(40), day(1), day(60), day(400)];
    for edge in [day(7), day(30)] {
        edges.extend([edge, edge + tick, edge - tick, edge + hour, edge - hour]);
    }
    prop_oneof![
        2 => select(edges),
        1 => (0_i64..90 * 86_400_000_000).prop_map(TimeDelta::microseconds),
        1 => (0_i64..4).prop_map(day),
    ]
}

pub fn votes() -> impl Strategy<Value = i32> {
    prop_oneof![
        8 => select(vec![-7, -1, 0, 0, 1, 2, 3, 5, 8]),
        2 => -100..1000_i32,
        1 => select(vec![i32::MIN, i32::MAX, -i32::MAX]),
    ]
}

pub fn mention(space: Space) -> impl Strategy<Value = MentionSpec> {
    let key = (hot_connection_key(space), any::<bool>(), any::<bool>(), 0..space.sources);
    let times = (ages(), 0_u8..4, 0_i64..3);
    let texts = (
        0..space.threads,
        select(vec!["https://example.org/a", "https://example.org/B", "é"]),
        select(vec!["austinfood", "Food"]),
        select(vec!["", "a", "B", "é", "z", "the \"brisket\" \\ at\nnoon 😀"]),
        option::of(select(vec!["", "someone", "Zoe"])),
    );
    (key, times, texts, votes()).prop_map(
        move |((connection, connection_by_id, is_post, source), (age, observed, days), texts, upvotes)| {
            let (thread, source_url, subreddit, content_excerpt, author) = texts;
            let created_at = space.as_of - age;
            // Most observations have one of three times, so that they tie; all are later than `created_at`.
            let observed_at = match observed {
                0 => created_at + TimeDelta::days(days),
                _ => space.as_of + TimeDelta::days(50 + days),
            };
            // As in real threads, the type follows from the id, with some exceptions.
            let comment = source % 3 != 0 || (is_post && source % 4 == 0);
            MentionSpec {
                connection,
                connection_by_id,
                source_type: if comment { SourceType::Comment } else { SourceType::Post },
                source_id: if source % 2 == 0 { format!("t{source}") } else { format!("T{source}") },
                thread_id: format!("thread {thread}"),
                source_url: source_url.to_owned(),
                subreddit: subreddit.to_owned(),
                content_excerpt: content_excerpt.to_owned(),
                author: author.map(str::to_owned),
                upvotes,
                created_at,
                observed_at,
            }
        },
    )
}
