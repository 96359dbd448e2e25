//! The common workload of all contestants: units of one mention each, with the skew of real threads.
//!
//! Shaped after `mentions.jsonl.gz`, the forum threads of the project's measurements: a restaurant for every five
//! mentions and a dish for every twenty, both by Zipf's law, 18% of the mentions with dish attributes, 10% with
//! restaurant attributes, 0.7 connections for each mention, four fifths of them with one mention only, 90 bytes of
//! excerpt, 90 of URL. No mention occurs twice: the bench `scaling` measures repeated observations.
//!
//! The random numbers are `SplitMix64`, written out: the same seed gives the same workload on every machine and with
//! every version of every crate. Ages are relative to `as_of`.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;
use graphsink::{EntityBuilder, Mention, SourceType, Timestamp, UnitOfWork};

/// An arbitrary number; another one gives another workload of the same shape.
const SEED: u64 = 0x6772_6170_6873_6e6b;
/// The number of mentions for each restaurant, and the exponent of their law (fitted to the real threads).
const MENTIONS_PER_RESTAURANT: usize = 5;
const RESTAURANT_EXPONENT: f64 = 0.65;
/// The same of dishes.
const MENTIONS_PER_DISH: usize = 20;
const DISH_EXPONENT: f64 = 0.7;
/// Most mentions are about dishes that a restaurant is known for: a short list of its own.
const KNOWN_FOR_SHARE: f64 = 0.8;
const KNOWN_FOR: usize = 8;
const KNOWN_FOR_EXPONENT: f64 = 1.2;
/// Attributes and categories are closed lists, with one law for all.
const DISH_ATTRIBUTES: usize = 64;
const RESTAURANT_ATTRIBUTES: usize = 32;
const CATEGORIES: usize = 48;
const WORD_EXPONENT: f64 = 1.0;

/// The content of one unit, in memory before the clock starts.
#[derive(Debug, Clone)]
pub struct Record {
    pub restaurant: Arc<str>,
    /// Different from the name, as is the dish's.
    pub alias: Option<Arc<str>>,
    pub restaurant_attributes: Vec<Arc<str>>,
    /// Without a dish there is neither a connection nor a mention.
    pub dish: Option<Arc<str>>,
    pub dish_alias: Option<Arc<str>>,
    pub dish_attributes: Vec<Arc<str>>,
    pub categories: Vec<Arc<str>>,
    pub is_menu_item: bool,
    pub mention: Mention,
}

impl Record {
    /// The unit that a caller of the engine builds.
    pub fn unit(&self) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        self.add_to(&mut unit);
        unit
    }

    /// Adds the rows of this record to a unit.
    pub fn add_to(&self, unit: &mut UnitOfWork) {
        let attributes: Vec<_> =
            self.restaurant_attributes.iter().map(|name| unit.restaurant_attribute(name).handle()).collect();
        let restaurant = unit.restaurant(&self.restaurant);
        let restaurant = self.alias.iter().fold(restaurant, EntityBuilder::alias).attributes(attributes).handle();
        let dish = self.dish.as_ref().map(|name| {
            let dish = unit.dish(name);
            self.dish_alias.iter().fold(dish, EntityBuilder::alias).handle()
        });
        let dish_attributes: Vec<_> =
            self.dish_attributes.iter().map(|name| unit.dish_attribute(name).handle()).collect();
        let categories: Vec<_> = self.categories.iter().map(|name| unit.dish(name).handle()).collect();
        let Some(dish) = dish else { return };
        let connection = unit.connection(restaurant, dish).menu_item(self.is_menu_item);
        let connection = connection.dish_attributes(dish_attributes).categories(categories).handle();
        unit.mention(connection, &self.mention);
    }
}

/// The records, in the order of submission.
#[derive(Debug)]
pub struct Workload {
    pub records: Vec<Record>,
    /// The time that ages are relative to: a moment ago.
    pub as_of: Timestamp,
}

/// The number of mentions in some records.
pub fn mentions(records: &[Record]) -> usize {
    records.iter().filter(|record| record.dish.is_some()).count()
}

impl Workload {
    pub fn generate(mentions: usize, as_of: Timestamp) -> Self {
        let law = Law::new(mentions);
        let mut random = Random(SEED);
        Self { records: law.records(0, mentions, as_of, &mut random, |_| (&law, None)), as_of }
    }
}

/// The stored history, and more of the same.
///
/// The history consists of towns, each with restaurants of its own and all with the same dishes and attributes. Half of
/// each slice is from existing towns, drawn by the same law: it meets most of their restaurants and many of their
/// connections, anywhere in the tables. The other half is from a new town.
pub struct History {
    town: Law,
    new_town: Law,
    towns: usize,
    as_of: Timestamp,
}

/// The maximum number of mentions of a town: few enough for memory.
const TOWN_MENTIONS: usize = 250_000;
/// Towns from this number on are those of slices.
const NEW_TOWNS: usize = 1 << 20;

impl History {
    /// A history of about this many mentions, and slices of this many.
    pub fn new(mentions: usize, slice: usize, as_of: Timestamp) -> Self {
        let towns = mentions.div_ceil(TOWN_MENTIONS).max(1);
        Self { town: Law::new((mentions / towns).max(1)), new_town: Law::new(slice), towns, as_of }
    }

    pub const fn towns(&self) -> usize {
        self.towns
    }

    /// All records of one town.
    pub fn town(&self, town: usize) -> Workload {
        let mut random = Random(SEED ^ (town as u64 + 1) << 40);
        let mentions = self.town.mentions;
        let records =
            self.town.records(town * mentions, mentions, self.as_of, &mut random, |_| (&self.town, Some(town)));
        Workload { records, as_of: self.as_of }
    }

    /// The slice of that number; no two slices have the same mention.
    pub fn slice(&self, slice: usize) -> Workload {
        let mut random = Random(SEED ^ !(slice as u64) << 40);
        let mentions = self.new_town.mentions;
        let first = self.towns * self.town.mentions + slice * mentions;
        let of_either = |random: &mut Random| match random.next() {
            odd if odd % 2 == 1 => (&self.town, Some((odd >> 32) as usize % self.towns)),
            _ => (&self.new_town, Some(NEW_TOWNS + slice)),
        };
        Workload {
            records: self.new_town.records(first, mentions, self.as_of, &mut random, of_either),
            as_of: self.as_of,
        }
    }
}

/// The frequencies for this many mentions, and the words.
struct Law {
    mentions: usize,
    restaurants: Zipf,
    dishes: Zipf,
    known_for: Zipf,
    dish_attributes: Zipf,
    restaurant_attributes: Zipf,
    categories: Zipf,
    names: Names,
}

impl Law {
    fn new(mentions: usize) -> Self {
        let restaurants = Zipf::new((mentions / MENTIONS_PER_RESTAURANT).max(1), RESTAURANT_EXPONENT);
        let dishes = Zipf::new((mentions / MENTIONS_PER_DISH).max(1), DISH_EXPONENT);
        let known_for = Zipf::new(KNOWN_FOR, KNOWN_FOR_EXPONENT);
        let dish_attributes = Zipf::new(DISH_ATTRIBUTES, WORD_EXPONENT);
        let restaurant_attributes = Zipf::new(RESTAURANT_ATTRIBUTES, WORD_EXPONENT);
        let categories = Zipf::new(CATEGORIES, WORD_EXPONENT);
        let names = Names {
            dishes: names("dish", dishes.len()),
            dish_attributes: names("tasting", dish_attributes.len()),
            restaurant_attributes: names("offering", restaurant_attributes.len()),
            categories: names("cuisine", categories.len()),
        };
        Self { mentions, restaurants, dishes, known_for, dish_attributes, restaurant_attributes, categories, names }
    }

    /// Mentions numbered from `first`; `place` gives the law and the town of each.
    fn records<'a>(
        &self,
        first: usize,
        mentions: usize,
        as_of: Timestamp,
        random: &mut Random,
        place: impl Fn(&mut Random) -> (&'a Self, Option<usize>),
    ) -> Vec<Record> {
        let mut restaurants = HashMap::new();
        let mut records = Vec::with_capacity(mentions);
        let mut thread = Thread::new(first, random);
        for number in first..first + mentions {
            if thread.left == 0 {
                thread = Thread::new(number, random);
            }
            thread.left -= 1;
            let (law, town) = place(random);
            let rank = law.restaurants.pick(random);
            let restaurant = restaurants.entry((town, rank)).or_insert_with(|| Restaurant::new(town, rank)).clone();
            records.push(self.record(law, restaurant, &thread, number, as_of, random));
        }
        records
    }

    /// One mention of a restaurant; dishes are those of `law`.
    fn record(
        &self,
        law: &Self,
        restaurant: Restaurant,
        thread: &Thread,
        number: usize,
        as_of: Timestamp,
        random: &mut Random,
    ) -> Record {
        let dish = if random.fraction() < KNOWN_FOR_SHARE {
            // The list is not stored but drawn again, from the restaurant and the position in it.
            let nth = law.known_for.pick(random);
            law.dishes.pick(&mut Random((restaurant.seed * KNOWN_FOR + nth) as u64))
        } else {
            law.dishes.pick(random)
        };
        let names = &self.names;
        Record {
            restaurant: restaurant.name,
            alias: Some(restaurant.alias),
            restaurant_attributes: words(random, 0.10, &self.restaurant_attributes, &names.restaurant_attributes),
            dish: Some(Arc::clone(&law.names.dishes[dish])),
            dish_alias: None,
            dish_attributes: words(random, 0.18, &self.dish_attributes, &names.dish_attributes),
            categories: words(random, 0.10, &self.categories, &names.categories),
            is_menu_item: true,
            mention: thread.mention(number, as_of, random),
        }
    }
}

/// Records without end, for workloads larger than memory. The laws are those of a workload of this many mentions.
pub struct Records {
    law: Law,
    as_of: Timestamp,
    random: Random,
    thread: Thread,
    number: usize,
}

impl Records {
    pub fn new(mentions: usize, as_of: Timestamp) -> Self {
        let mut random = Random(SEED);
        let thread = Thread::new(0, &mut random);
        Self { law: Law::new(mentions), as_of, random, thread, number: 0 }
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let Self { law, as_of, random, thread, number } = self;
        if thread.left == 0 {
            *thread = Thread::new(*number, random);
        }
        thread.left -= 1;
        let restaurant = Restaurant::new(None, law.restaurants.pick(random));
        let record = law.record(law, restaurant, thread, *number, *as_of, random);
        *number += 1;
        Some(record)
    }
}

#[derive(Clone)]
struct Restaurant {
    name: Arc<str>,
    alias: Arc<str>,
    /// A dish that the restaurant is known for.
    seed: usize,
}

impl Restaurant {
    fn new(town: Option<usize>, rank: usize) -> Self {
        let Some(town) = town else {
            let alias = format!("Bistro Number {rank}").into();
            return Self { name: name("bistro number", rank), alias, seed: rank };
        };
        let seed = town << 32 | rank;
        let scattered = Random(seed as u64).next() >> 48;
        let name = format!("{scattered:04x} bistro number {rank} of town {town}").into();
        Self { name, alias: format!("Bistro Number {rank} of Town {town}").into(), seed }
    }
}

struct Names {
    dishes: Vec<Arc<str>>,
    dish_attributes: Vec<Arc<str>>,
    restaurant_attributes: Vec<Arc<str>>,
    categories: Vec<Arc<str>>,
}

fn names(stem: &str, count: usize) -> Vec<Arc<str>> {
    (0..count).map(|rank| name(stem, rank)).collect()
}

/// Scattered, like real names: popular ones are no neighbours in the index on names.
fn name(stem: &str, rank: usize) -> Arc<str> {
    format!("{:04x} {stem} {rank}", Random(rank as u64).next() >> 48).into()
}

/// Mostly none; one in five of those that have a word has two.
fn words(random: &mut Random, share: f64, law: &Zipf, names: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut words = Vec::new();
    let mut share = share;
    while random.fraction() < share && words.len() < 4 {
        let word = &names[law.pick(random)];
        if !words.contains(word) {
            words.push(Arc::clone(word));
        }
        share = 0.2;
    }
    words
}

/// A discussion, shared by a few neighbouring mentions.
struct Thread {
    id: Arc<str>,
    subreddit: String,
    age_days: f64,
    left: u64,
}

impl Thread {
    fn new(number: usize, random: &mut Random) -> Self {
        // One in twenty is recent; none is so close to a limit (7 and 30 days) that the duration of the bench would
        // decide on which side it is.
        let age_days = match random.next() % 40 {
            0 => 1.0 + 5.0 * random.fraction(),
            1 => 9.0 + 20.0 * random.fraction(),
            _ => 32.0 + 4000.0 * random.fraction(),
        };
        Self {
            id: format!("t3_{number:08x}").into(),
            subreddit: format!("cityfood{}", random.next() % 12),
            age_days,
            left: 1 + random.next() % 6,
        }
    }

    fn mention(&self, number: usize, as_of: Timestamp, random: &mut Random) -> Mention {
        const TEXT: &str = "they smoke it for fourteen hours over post oak and you can taste every one of them, get \
                            there before eleven or go home hungry, and do not skip the sides because the beans are";
        let url = format!(
            "https://www.example.org/r/{}/comments/{}/where_to_eat_this_week/{number:08x}/",
            self.subreddit, self.id
        );
        let age = self.age_days + random.fraction() / 2.0;
        let created_at = as_of - TimeDelta::microseconds((age * 86_400e6) as i64);
        let excerpt = &TEXT[..20 + (random.next() % 140) as usize];
        // Most get a few votes, a few get hundreds.
        let upvotes = (1.0 / (random.fraction() + 0.002)) as i32 - 1;
        Mention::new(SourceType::Comment, format!("t1_{number:08x}"), url, self.subreddit.clone(), created_at)
            .thread(Arc::clone(&self.id))
            .excerpt(excerpt)
            .author(format!("u_{:010x}", random.next() >> 40))
            .upvotes(upvotes)
    }
}

/// Ranks by Zipf's law: rank `k` weighs `1 / k^exponent`.
struct Zipf {
    /// Cumulated weights.
    upto: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self { upto: (1..=ranks).map(add).collect() }
    }

    const fn len(&self) -> usize {
        self.upto.len()
    }

    /// A rank, from 0.
    fn pick(&self, random: &mut Random) -> usize {
        let point = random.fraction() * self.upto.last().expect("there is at least one rank");
        self.upto.partition_point(|upto| *upto <= point).min(self.upto.len() - 1)
    }
}

/// `SplitMix64` (Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
