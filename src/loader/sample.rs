//! The sample: generated lines of the loader's format with the skew of real discussion threads.
//!
//! A few restaurants and dishes get most of the mentions (Zipf, exponent 1), most connections occur once. Lines come
//! thread by thread; some threads are one unit. About every seventh thread is a repeated observation of an earlier one,
//! with changed upvotes. There are places, attributes, categories, lines without a dish, comments about two dishes,
//! negative upvotes, and threads young enough that some connections are trending or active at the time to which figures
//! refer.
//!
//! The same seed and length give the same bytes on every platform and with every version of every dependency: the
//! random numbers are `SplitMix64`, implemented in [`random`], and no floating-point functions are used. A thread is determined
//! by the seed and its number, so that it can be observed again without being stored: memory does not grow with the
//! length.

mod random;
mod thread;
mod words;

use std::io::{self, Read};

use chrono::{TimeZone, Utc};

use crate::record::{Timestamp, canonical};
use random::{SplitMix64, Zipf};
use thread::{Thread, dish_names};

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

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::thread::{dish_name, restaurant_name, rfc3339};
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
