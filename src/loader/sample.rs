//! The sample: generated lines of the loader's format with the skew of real discussion threads.
//!
//! A few restaurants and dishes get most of the mentions (Zipf, exponent 1), most connections occur once. Lines come
//! thread by thread; some threads are one unit. About every seventh thread is a repeated observation of an earlier one,
//! with changed upvotes. There are places, attributes, categories, lines without a dish, comments about two dishes,
//! negative upvotes, and threads young enough that some connections are trending or active at the time to which figures
//! refer.
//!
//! The same seed and length give the same bytes on every platform and with every version of every dependency: the
//! random numbers are `SplitMix64`, implemented below, and no floating-point functions are used. A thread is determined
//! by the seed and its number, so that it can be observed again without being stored: memory does not grow with the
//! length.

mod words;

use std::fmt::Write as _;
use std::io::{self, Read};

use chrono::{SecondsFormat, TimeZone, Utc};
use serde_json::{Value, json};

use crate::record::{Timestamp, canonical};
use words::{AUTHORS, CITIES, DISH_ATTRIBUTES, DISHES, FIRSTS, KINDS, REMARKS, RESTAURANT_ATTRIBUTES, STREETS, WAYS};

/// Iterates over the lines of a sample, without line feeds. [`Sample::into_reader`] returns bytes.
///
/// ```
/// use graphsink::loader::{Line, Sample};
///
/// let lines: Vec<String> = Sample::new(7, 100).collect();
/// assert_eq!(lines, Sample::new(7, 100).collect::<Vec<_>>(), "the same seed, the same lines");
/// assert!(lines.iter().all(|line| Line::parse(line.as_bytes()).is_ok()));
/// ```
#[derive(Debug, Clone)]
pub struct Sample {
    seed: u64,
    lines_max: u64,
    /// Number of lines returned so far.
    lines: u64,
    world: World,
    random: SplitMix64,
    /// Number of threads begun; each number is a thread.
    threads: u64,
    thread: Option<Thread>,
}

impl Sample {
    /// Number of lines of the repository's sample.
    pub const LINES: u64 = 2_000;
    /// Seed of the repository's sample.
    pub const SEED: u64 = 1;
    /// 2025-06-01T00:00:00Z in seconds of the Unix epoch.
    const AS_OF_SECONDS: i64 = 1_748_736_000;

    /// A sample with this number of lines; the number of restaurants and dishes grows with it.
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// use graphsink::loader::Sample;
    ///
    /// let mut lines = String::new();
    /// Sample::new(7, 3).into_reader().read_to_string(&mut lines)?;
    /// assert_eq!(lines.lines().count(), 3);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn new(seed: u64, lines: u64) -> Self {
        Self {
            seed,
            lines_max: lines,
            lines: 0,
            world: World::new(lines),
            random: SplitMix64::new(seed),
            threads: 0,
            thread: None,
        }
    }

    /// The reference time of the sample: nothing in it is younger, and its threads are trending or active relative to
    /// this time.
    ///
    /// # Panics
    /// Never: it is a constant.
    ///
    /// ```
    /// assert_eq!(graphsink::loader::Sample::as_of().to_rfc3339(), "2025-06-01T00:00:00+00:00");
    /// ```
    #[must_use]
    pub fn as_of() -> Timestamp {
        Utc.timestamp_opt(Self::AS_OF_SECONDS, 0).single().expect("a time in range")
    }

    /// The sample as a stream of bytes.
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// use graphsink::loader::Sample;
    ///
    /// let mut lines = String::new();
    /// Sample::new(7, 2).into_reader().read_to_string(&mut lines)?;
    /// assert!(lines.ends_with("}\n"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_reader(self) -> impl Read + Send + use<> {
        SampleReader { sample: self, line: Vec::new(), given: 0 }
    }

    /// A new thread, or (in about one of seven cases) one of the last thousand, observed again.
    fn next_thread(&mut self) -> Thread {
        if self.threads > 3 && self.random.one_in(7) {
            let number = self.threads - 1 - self.random.below(self.threads.min(1_000));
            let observation = 1 + self.random.below(3);
            return Thread::new(self.seed, number, observation);
        }
        self.threads += 1;
        Thread::new(self.seed, self.threads - 1, 0)
    }
}

impl Iterator for Sample {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.lines == self.lines_max {
            return None;
        }
        self.lines += 1;
        loop {
            if let Some(mut line) = self.thread.as_mut().and_then(|thread| thread.next_line(self.lines, &self.world)) {
                // The same order of fields even if another crate enables serde_json's `preserve_order`.
                canonical(&mut line);
                return Some(line.to_string());
            }
            self.thread = Some(self.next_thread());
        }
    }
}

struct SampleReader {
    sample: Sample,
    line: Vec<u8>,
    given: usize,
}

impl Read for SampleReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.line.len() {
            self.line = self.sample.next().map_or_else(Vec::new, |line| (line + "\n").into_bytes());
            self.given = 0;
        }
        let count = buffer.len().min(self.line.len() - self.given);
        buffer[..count].copy_from_slice(&self.line[self.given..][..count]);
        self.given += count;
        Ok(count)
    }
}

/// The restaurants and dishes of the sample.
#[derive(Debug, Clone)]
struct World {
    restaurants: Zipf,
    dishes: Zipf,
}

impl World {
    fn new(lines: u64) -> Self {
        // The upper bounds keep the tables below a megabyte, the lower ones make a small sample varied.
        Self {
            restaurants: Zipf::new((lines / 8).clamp(40, 60_000)),
            dishes: Zipf::new((lines / 12).clamp(30, 6_000).min(dish_names())),
        }
    }
}

/// One observation of one thread, line by line.
#[derive(Debug, Clone)]
struct Thread {
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
    fn new(seed: u64, number: u64, observation: u64) -> Self {
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

    fn next_line(&mut self, line: u64, world: &World) -> Option<Value> {
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

fn rfc3339(seconds: i64) -> String {
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
fn restaurant_name(restaurant: u64) -> String {
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
fn dish_name(dish: u64) -> (String, &'static str) {
    let (name, category) = DISHES[(dish % DISHES.len() as u64) as usize];
    match dish / DISHES.len() as u64 {
        0 => (name.to_owned(), category),
        way => (format!("{} {name}", pick(&WAYS, way - 1)), category),
    }
}

const fn dish_names() -> u64 {
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

/// Ranks with a probability proportional to 1 / (rank + 2), computed with integers only.
#[derive(Debug, Clone)]
struct Zipf {
    /// Sum of the weights up to and including each rank.
    sums: Vec<u64>,
}

impl Zipf {
    fn new(ranks: u64) -> Self {
        let mut sum = 0;
        let sums = (0..ranks).map(|rank| {
            sum += (1 << 40) / (rank + 2);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, random: &mut SplitMix64) -> u64 {
        let point = random.below(*self.sums.last().expect("at least one rank"));
        self.sums.partition_point(|sum| *sum <= point) as u64
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): eight lines, one fixed algorithm. A generator of the `rand` crate may
/// give other numbers in another version.
#[derive(Debug, Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1. The bias of at most `bound` / 2^64 does not matter here.
    const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    const fn below_i64(&mut self, bound: i64) -> i64 {
        self.below(bound as u64) as i64
    }

    const fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    /// A position in a list, more often near the front.
    fn skewed(&mut self, length: usize) -> usize {
        let bound = 1 + self.below(length as u64);
        self.below(bound) as usize
    }

    /// Votes: most get few, some get thousands, one in twelve comments is voted down.
    fn upvotes(&mut self, post: bool) -> i64 {
        if self.one_in(if post { 40 } else { 12 }) {
            return -self.below_i64(30);
        }
        let magnitude = self.below(if post { 12 } else { 9 });
        self.below_i64(2 << magnitude) + 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::loader::{Input, Units};
    use crate::record::{ActivityLevel, ConnectionMetrics, Mention, SourceType};
    use uuid::Uuid;

    fn repository_sample() -> Vec<Value> {
        Sample::new(Sample::SEED, Sample::LINES).map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    fn text<'a>(line: &'a Value, pointer: &str) -> &'a str {
        line.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    #[test]
    fn the_random_numbers_are_those_of_the_reference_implementation() {
        let mut random = SplitMix64::new(1_234_567);
        let drawn = [(); 3].map(|()| random.next());
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_seed_gives_the_same_bytes_everywhere() {
        // FNV-1a. A change of the sample changes this hash; another platform or another version of a dependency must
        // not.
        let digest = Sample::new(Sample::SEED, Sample::LINES)
            .flat_map(|line| (line + "\n").into_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(format!("{digest:016x}"), "1edf3123074ff5e2");
        assert_ne!(Sample::new(1, 10).last(), Sample::new(2, 10).last());
    }

    #[test]
    fn every_line_is_valid() {
        for seed in 0..20 {
            let reader = Box::new(Sample::new(seed, 1_000).into_reader());
            let mut lines = 0;
            for unit in Units::new([Input::Reader { name: "sample".to_owned(), reader }]) {
                let unit = unit.unwrap();
                lines += unit.origin.lines.len();
                unit.content.unwrap().validate(10_000).unwrap();
            }
            assert_eq!(lines, 1_000);
        }
    }

    #[test]
    fn the_sample_has_everything_that_real_threads_have() {
        let lines = repository_sample();
        let share =
            |pointer: &str| lines.iter().filter(|line| line.pointer(pointer).is_some()).count() * 100 / lines.len();
        for (pointer, least) in [
            ("/unit", 10),
            ("/restaurant/place", 10),
            ("/restaurant/original_text", 50),
            ("/restaurant_attributes", 15),
            ("/dish_attributes", 15),
            ("/categories", 20),
            ("/source/author", 50),
        ] {
            assert!(
                (least..90).contains(&share(pointer)) || pointer == "/source/author",
                "{pointer}: {}",
                share(pointer)
            );
        }
        assert!((70..95).contains(&share("/dish_or_category")), "most lines have a dish, but not all");
        assert!(lines.iter().any(|line| line["source"]["upvotes"].as_i64().unwrap() < 0));
        assert!(lines.iter().any(|line| line["is_menu_item"] == false));
        let as_of = rfc3339(Sample::AS_OF_SECONDS);
        assert!(lines.iter().all(|line| text(line, "/source/observed_at") <= as_of.as_str()));
        let names: HashSet<String> = (0..60_000).map(restaurant_name).collect();
        assert_eq!(names.len(), 60_000);
        let dishes: HashSet<String> = (0..dish_names()).map(|dish| dish_name(dish).0).collect();
        assert_eq!(dishes.len() as u64, dish_names());
    }

    #[test]
    fn mentions_are_skewed_and_some_are_observed_again() {
        let lines = repository_sample();
        let mut connections: HashMap<_, HashMap<_, Mention>> = HashMap::new();
        let mut observed_again = 0;
        for line in lines.iter().filter(|line| line.get("dish_or_category").is_some()) {
            let key = ["/restaurant/normalized_name", "/dish_or_category/normalized_name"].map(|name| text(line, name));
            let key = (key, line["dish_attributes"].to_string());
            let source = text(line, "/source/id");
            let mention = Mention::new(
                if source.starts_with("t3") { SourceType::Post } else { SourceType::Comment },
                source,
                "",
                "",
                text(line, "/source/created_at").parse().unwrap(),
            );
            let upvotes = line["source"]["upvotes"].as_i64().unwrap() as i32;
            let observed_at = text(line, "/source/observed_at").parse().unwrap();
            let mention = mention.upvotes(upvotes).thread(text(line, "/source/thread_id")).observed_at(observed_at);
            let before = connections.entry(key).or_default().insert(source.to_owned(), mention.clone());
            observed_again += usize::from(before.is_some_and(|before| before.observed_at != mention.observed_at));
        }
        assert!(observed_again > 100, "{observed_again} mentions were observed again");
        let once = connections.values().filter(|mentions| mentions.len() == 1).count();
        assert!((60..95).contains(&(once * 100 / connections.len())), "{once} of {} occur once", connections.len());
        let most = connections.values().map(HashMap::len).max().unwrap();
        assert!(most > 8, "the most popular connection has {most} mentions");
        let mut levels: HashMap<_, usize> = HashMap::new();
        for mentions in connections.values() {
            let mentions = mentions.values().map(|mention| (Uuid::nil(), mention));
            let metrics = ConnectionMetrics::from_mentions(mentions, Sample::as_of());
            *levels.entry(metrics.activity_level).or_default() += 1;
        }
        for level in [ActivityLevel::Trending, ActivityLevel::Active, ActivityLevel::Normal] {
            assert!(levels.get(&level).is_some_and(|count| *count >= 3), "{levels:?}");
        }
    }

    #[test]
    fn the_memory_of_a_sample_does_not_grow_with_its_length() {
        let mut long = Sample::new(7, 50_000);
        let memory = |sample: &Sample| sample.world.restaurants.sums.len() + sample.world.dishes.sums.len();
        let before = memory(&long);
        assert_eq!(long.by_ref().count(), 50_000);
        assert_eq!(memory(&long), before);
        assert!(memory(&Sample::new(7, 1 << 40)) < 100_000);
    }
}
