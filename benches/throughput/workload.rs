//! The one workload that every contestant writes: units of one mention each, with the skew of real
//! threads.
//!
//! Shaped after `mentions.jsonl.gz`, the forum threads that the project was measured on: a
//! restaurant for every five mentions and a dish for every twenty, both by Zipf's law, 18% of the
//! mentions with dish attributes, 10% with restaurant attributes, 0.7 connections for a mention,
//! four fifths of them with this one only, 90 bytes of excerpt, 90 of URL. No mention occurs twice: what
//! re-observations cost is another bench.
//!
//! The random numbers are `SplitMix64`, written out: the same seed gives the same workload on every
//! machine and with every version of every crate. Ages are relative to `as_of`.

use std::sync::Arc;

use ::graphsink::{Mention, SourceType, Timestamp, UnitOfWork};
use chrono::TimeDelta;

/// Any number; another one gives another workload of the same shape.
const SEED: u64 = 0x6772_6170_6873_6e6b;
/// A restaurant for so many mentions, and how steep their law is (fitted to the real threads).
const MENTIONS_PER_RESTAURANT: usize = 5;
const RESTAURANT_EXPONENT: f64 = 0.65;
/// The same of dishes.
const MENTIONS_PER_DISH: usize = 20;
const DISH_EXPONENT: f64 = 0.7;
/// Most mentions speak of what a restaurant is known for: a short list of dishes of its own.
const KNOWN_FOR_SHARE: f64 = 0.8;
const KNOWN_FOR: usize = 8;
const KNOWN_FOR_EXPONENT: f64 = 1.2;
/// Attributes and categories are closed lists, with one law for all.
const DISH_ATTRIBUTES: usize = 64;
const RESTAURANT_ATTRIBUTES: usize = 32;
const CATEGORIES: usize = 48;
const WORD_EXPONENT: f64 = 1.0;

/// One unit's content, in memory before the clock starts.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) restaurant: Arc<str>,
    /// Other than the name, as is the dish's.
    pub(crate) alias: Option<Arc<str>>,
    pub(crate) restaurant_attributes: Vec<Arc<str>>,
    /// Without a dish there is neither connection nor mention.
    pub(crate) dish: Option<Arc<str>>,
    pub(crate) dish_alias: Option<Arc<str>>,
    pub(crate) dish_attributes: Vec<Arc<str>>,
    pub(crate) categories: Vec<Arc<str>>,
    pub(crate) is_menu_item: bool,
    pub(crate) mention: Mention,
}

impl Record {
    /// What a caller of the engine builds.
    pub(crate) fn unit(&self) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let attributes: Vec<_> = self
            .restaurant_attributes
            .iter()
            .map(|name| unit.restaurant_attribute(Arc::clone(name)).handle())
            .collect();
        let mut restaurant = unit.restaurant(Arc::clone(&self.restaurant));
        if let Some(alias) = &self.alias {
            restaurant = restaurant.alias(Arc::clone(alias));
        }
        for attribute in attributes {
            restaurant = restaurant.attribute(attribute);
        }
        let restaurant = restaurant.handle();
        let dish = self.dish.as_ref().map(|name| {
            let dish = unit.dish(Arc::clone(name));
            self.dish_alias.iter().fold(dish, |dish, alias| dish.alias(Arc::clone(alias))).handle()
        });
        let dish_attributes: Vec<_> =
            self.dish_attributes.iter().map(|name| unit.dish_attribute(Arc::clone(name)).handle()).collect();
        let categories: Vec<_> = self.categories.iter().map(|name| unit.dish(Arc::clone(name)).handle()).collect();
        let Some(dish) = dish else { return unit };
        let mut connection = unit.connection(restaurant, dish).menu_item(self.is_menu_item);
        for attribute in dish_attributes {
            connection = connection.dish_attribute(attribute);
        }
        for category in categories {
            connection = connection.category(category);
        }
        let connection = connection.handle();
        unit.mention(connection, self.mention.clone());
        unit
    }
}

/// The records, in the order in which they are submitted.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) records: Vec<Record>,
    /// The time that ages are relative to: a moment ago.
    pub(crate) as_of: Timestamp,
}

/// How many mentions some records hold.
pub(crate) fn mentions(records: &[Record]) -> usize {
    records.iter().filter(|record| record.dish.is_some()).count()
}

impl Workload {
    pub(crate) fn generate(mentions: usize, as_of: Timestamp) -> Self {
        Self { records: Records::new(mentions, as_of).take(mentions).collect(), as_of }
    }
}

/// Records without end, for workloads that are larger than memory. The laws are those of a workload
/// of so many mentions.
#[derive(Debug)]
pub(crate) struct Records {
    as_of: Timestamp,
    laws: Laws,
    names: Names,
    random: Random,
    thread: Thread,
    number: usize,
}

impl Records {
    pub(crate) fn new(mentions: usize, as_of: Timestamp) -> Self {
        let laws = Laws {
            restaurants: Zipf::new((mentions / MENTIONS_PER_RESTAURANT).max(1), RESTAURANT_EXPONENT),
            dishes: Zipf::new((mentions / MENTIONS_PER_DISH).max(1), DISH_EXPONENT),
            known_for: Zipf::new(KNOWN_FOR, KNOWN_FOR_EXPONENT),
            dish_attributes: Zipf::new(DISH_ATTRIBUTES, WORD_EXPONENT),
            restaurant_attributes: Zipf::new(RESTAURANT_ATTRIBUTES, WORD_EXPONENT),
            categories: Zipf::new(CATEGORIES, WORD_EXPONENT),
        };
        let names = Names {
            restaurants: names("bistro number", laws.restaurants.len()),
            dishes: names("dish", laws.dishes.len()),
            dish_attributes: names("tasting", laws.dish_attributes.len()),
            restaurant_attributes: names("offering", laws.restaurant_attributes.len()),
            categories: names("cuisine", laws.categories.len()),
        };
        let mut random = Random(SEED);
        let thread = Thread::new(0, &mut random);
        Self { as_of, laws, names, random, thread, number: 0 }
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let Self { as_of, laws, names, random, thread, number } = self;
        if thread.left == 0 {
            *thread = Thread::new(*number, random);
        }
        thread.left -= 1;
        let restaurant = laws.restaurants.pick(random);
        let dish = if random.fraction() < KNOWN_FOR_SHARE {
            // The list is not kept but drawn again, from the restaurant and the place in it.
            laws.dishes.pick(&mut Random((restaurant * KNOWN_FOR + laws.known_for.pick(random)) as u64))
        } else {
            laws.dishes.pick(random)
        };
        let record = Record {
            restaurant: Arc::clone(&names.restaurants[restaurant]),
            alias: Some(format!("Bistro Number {restaurant}").into()),
            restaurant_attributes: words(random, 0.10, &laws.restaurant_attributes, &names.restaurant_attributes),
            dish: Some(Arc::clone(&names.dishes[dish])),
            dish_alias: None,
            dish_attributes: words(random, 0.18, &laws.dish_attributes, &names.dish_attributes),
            categories: words(random, 0.10, &laws.categories, &names.categories),
            is_menu_item: true,
            mention: thread.mention(*number, *as_of, random),
        };
        *number += 1;
        Some(record)
    }
}

#[derive(Debug)]
struct Laws {
    restaurants: Zipf,
    dishes: Zipf,
    known_for: Zipf,
    dish_attributes: Zipf,
    restaurant_attributes: Zipf,
    categories: Zipf,
}

#[derive(Debug)]
struct Names {
    restaurants: Vec<Arc<str>>,
    dishes: Vec<Arc<str>>,
    dish_attributes: Vec<Arc<str>>,
    restaurant_attributes: Vec<Arc<str>>,
    categories: Vec<Arc<str>>,
}

fn names(stem: &str, count: usize) -> Vec<Arc<str>> {
    // Scattered, as names are: the most popular are no neighbours in the index on names.
    (0..count).map(|rank| format!("{:04x} {stem} {rank}", Random(rank as u64).next() >> 48).into()).collect()
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

/// A discussion: a few neighbouring mentions share it.
#[derive(Debug)]
struct Thread {
    id: Arc<str>,
    subreddit: String,
    age_days: f64,
    left: u64,
}

impl Thread {
    fn new(number: usize, random: &mut Random) -> Self {
        // One in twenty is recent; none so close to a limit (7 and 30 days) that the time that the
        // bench takes would decide on which side it is.
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
#[derive(Debug)]
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
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
