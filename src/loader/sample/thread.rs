//! A thread of the sample, and the lines that it gives.

use std::fmt::Write as _;

use chrono::{SecondsFormat, TimeZone, Utc};
use serde_json::{Value, json};

use super::random::SplitMix64;
use super::words::{
    AUTHORS, CITIES, DISH_ATTRIBUTES, DISHES, FIRSTS, KINDS, REMARKS, RESTAURANT_ATTRIBUTES, STREETS, WAYS,
};
use super::{Sample, World};

/// One observation of one thread, line by line.
#[derive(Debug, Clone)]
pub(super) struct Thread {
    number: u64,
    observation: u64,
    /// Draws the thread's content; the same in each observation.
    random: SplitMix64,
    /// Draws the changes of upvotes.
    change: SplitMix64,
    city: usize,
    created_at: i64,
    unit: bool,
    sources_left: u64,
    source: Option<Source>,
    sources: u64,
}

/// A post or comment, which is about one or two dishes.
#[derive(Debug, Clone)]
struct Source {
    value: Value,
    number: u64,
    dishes_left: u64,
    restaurant: u64,
    place: Option<Value>,
}

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

impl Thread {
    pub(super) fn new(seed: u64, number: u64, observation: u64) -> Self {
        let mut random = SplitMix64::new(seed ^ SplitMix64::new(number + 1).next());
        let mut change = SplitMix64::new(random.next() ^ observation);
        change.next();
        let age = match random.below(20) {
            0..=2 => 2 * HOUR + random.below_i64(6 * DAY),
            3..=8 => 6 * DAY + random.below_i64(23 * DAY),
            9..=14 => 30 * DAY + random.below_i64(335 * DAY),
            _ => 365 * DAY + random.below_i64(4 * 365 * DAY),
        };
        let sources_left = match random.below(100) {
            0..=49 => 1 + random.below(3),
            50..=84 => 4 + random.below(9),
            85..=97 => 13 + random.below(48),
            _ => 61 + random.below(120),
        };
        Self {
            number,
            observation,
            city: random.below(CITIES.len() as u64) as usize,
            created_at: Sample::AS_OF_SECONDS - age,
            unit: random.one_in(5),
            sources_left,
            source: None,
            sources: 0,
            random,
            change,
        }
    }

    pub(super) fn next_line(&mut self, line: u64, world: &World) -> Option<Value> {
        if self.source.as_ref().is_none_or(|source| source.dishes_left == 0) {
            if self.sources_left == 0 {
                return None;
            }
            self.sources_left -= 1;
            let source = self.next_source(world);
            self.source = Some(source);
        }
        let mut source = self.source.take().expect("made above");
        source.dishes_left -= 1;
        let value = self.line(line, &source, world);
        self.source = Some(source);
        Some(value)
    }

    fn next_source(&mut self, world: &World) -> Source {
        let random = &mut self.random;
        let number = self.sources;
        self.sources += 1;
        let (city, subreddit, ..) = CITIES[self.city];
        let thread_id = format!("t3_{}", base36(1_000_000 + self.number * 7));
        let post = number == 0;
        let id =
            if post { thread_id.clone() } else { format!("t1_{}", base36(10_000_000 + self.number * 200 + number)) };
        // Comments come within three days, and leave time for being observed.
        let age = Sample::AS_OF_SECONDS - self.created_at;
        let delay = if post { 0 } else { random.below_i64((age / 2).min(3 * DAY)) };
        let created_at = self.created_at + delay;
        let room = Sample::AS_OF_SECONDS - created_at;
        let first_observed = created_at + random.below_i64((room / 4).min(2 * DAY));
        let observed_at = first_observed + (room / 8).min(5 * DAY) * self.observation as i64;
        let mut upvotes = random.upvotes(post);
        for _ in 0..self.observation {
            upvotes += self.change.below_i64(upvotes.abs() / 4 + 6) - 2;
        }
        // A city's own restaurants, the most popular first.
        let restaurant = world.restaurants.draw(random) / CITIES.len() as u64 * CITIES.len() as u64 + self.city as u64;
        let author = random.below(2_000);
        let mut value = json!({
            "type": if post { "post" } else { "comment" },
            "id": id,
            "thread_id": thread_id,
            "url": format!("https://forum.example/r/{subreddit}/{thread_id}/{id}"),
            "subreddit": subreddit,
            "upvotes": upvotes,
            "created_at": rfc3339(created_at),
            "observed_at": rfc3339(observed_at),
        });
        if !random.one_in(12) {
            value["author"] = json!(format!("{}_{author}", pick(&AUTHORS, author)));
        }
        let place = random.one_in(5).then(|| place(restaurant, city, self.observation));
        let dishes_left = if random.one_in(8) { 2 } else { 1 };
        Source { value, number, dishes_left, restaurant, place }
    }

    fn line(&mut self, line: u64, source: &Source, world: &World) -> Value {
        let random = &mut self.random;
        let restaurant = source.restaurant;
        let name = restaurant_name(restaurant);
        let mut value = json!({
            "temp_id": format!("m{line}"),
            "restaurant": { "normalized_name": name, "temp_id": format!("r{restaurant}") },
            "source": source.value,
        });
        if !random.one_in(4) {
            value["restaurant"]["original_text"] = json!(spelling(&name, random.below(3)));
        }
        if let Some(place) = &source.place {
            value["restaurant"]["place"] = place.clone();
        }
        if random.one_in(4) {
            let attributes = [(); 2].map(|()| RESTAURANT_ATTRIBUTES[random.skewed(RESTAURANT_ATTRIBUTES.len())]);
            value["restaurant_attributes"] = json!(attributes[..=random.below(2) as usize]);
        }
        if self.unit {
            value["unit"] = json!(format!("thread {} seen {}", base36(1_000_000 + self.number * 7), self.observation));
        }
        // Most texts name a dish; the others praise the place.
        let dish = (!random.one_in(6)).then(|| world.dishes.draw(random));
        let said = match dish {
            Some(dish) => {
                let (dish, category) = dish_name(dish);
                let the = ["", "the ", "their "][random.below(3) as usize];
                value["dish_or_category"] = json!({ "normalized_name": dish, "original_text": format!("{the}{dish}"), "temp_id": format!("d:{dish}") });
                if random.one_in(4) {
                    let (attribute, kind) = DISH_ATTRIBUTES[random.skewed(DISH_ATTRIBUTES.len())];
                    value["dish_attributes"] = json!([{ "attribute": attribute, "type": kind }]);
                }
                if random.one_in(3) {
                    value["categories"] = json!([category]);
                }
                if random.one_in(9) {
                    value["is_menu_item"] = json!(false);
                }
                format!("{the}{dish}")
            }
            None => "everything".to_owned(),
        };
        value["general_praise"] = json!(dish.is_none());
        let (before, after) = REMARKS[random.below(REMARKS.len() as u64) as usize];
        value["source"]["excerpt"] = json!(format!("{before}{said} at {}{after}", spelling(&name, 0)));
        debug_assert!(source.number < 200, "ids of comments would meet those of the next thread");
        value
    }
}

pub(super) fn rfc3339(seconds: i64) -> String {
    let time = Utc.timestamp_opt(seconds, 0).single().expect("a time in range");
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A restaurant's place in one observation. Its location never changes.
fn place(restaurant: u64, city: &str, observation: u64) -> Value {
    let mut random = SplitMix64::new(restaurant ^ 0x706c_6163_6500);
    let (.., latitude, longitude) = CITIES[(restaurant % CITIES.len() as u64) as usize];
    // Thousandths of a degree around the centre of the city; the division is exact to the last bit on every platform.
    let mut around = |middle: i64| (middle * 1_000 + random.below_i64(160_000) - 80_000) as f64 / 1e6;
    let (latitude, longitude) = (around(latitude), around(longitude));
    let street = pick(&STREETS, random.next());
    json!({
        "latitude": latitude,
        "longitude": longitude,
        "address": format!("{} {street}, {city}", 1 + random.below(4_000)),
        "google_place_id": format!("ChIJ{:016x}", SplitMix64::new(restaurant).next()),
        "metadata": {
            "price_level": 1 + random.below(4),
            "ratings_total": 20 + random.below(900) + 10 * observation,
            "phone": format!("+1 555 {:07}", random.below(10_000_000)),
        },
    })
}

/// The name of a restaurant; distinct for each number below 600,000.
pub(super) fn restaurant_name(restaurant: u64) -> String {
    let firsts = FIRSTS.len() as u64;
    let kinds = KINDS.len() as u64;
    let (first, rest) = (restaurant % firsts, restaurant / firsts);
    // Shifted by the first word, so that the most popular restaurants are not all of one kind.
    let kind = (rest + first * 7) % kinds;
    let mut name = format!("{} {}", pick(&FIRSTS, first), pick(&KINDS, kind));
    if rest >= kinds {
        write!(name, " no {}", rest / kinds + 1).expect("a string takes everything");
    }
    name
}

/// The name of a dish and its category; the plain dishes first.
pub(super) fn dish_name(dish: u64) -> (String, &'static str) {
    let (name, category) = DISHES[(dish % DISHES.len() as u64) as usize];
    match dish / DISHES.len() as u64 {
        0 => (name.to_owned(), category),
        way => (format!("{} {name}", pick(&WAYS, way - 1)), category),
    }
}

pub(super) const fn dish_names() -> u64 {
    (DISHES.len() * (WAYS.len() + 1)) as u64
}

/// A name as authors write it.
fn spelling(name: &str, manner: u64) -> String {
    match manner {
        0 => name.split(' ').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().join(" "),
        1 => name.to_uppercase(),
        // Dropped as an alias, because it is the name.
        _ => name.to_owned(),
    }
}

fn pick<'a>(words: &[&'a str], number: u64) -> &'a str {
    words[(number % words.len() as u64) as usize]
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.reverse();
    String::from_utf8(digits).expect("ascii")
}
