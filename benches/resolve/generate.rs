//! Names like those of places and dishes: a made-up proper name or a common word, the kind of place, now and then an
//! article, a possessive or a second word. Lengths and the skew of words and trigrams are those of real ones.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const BEGINNINGS: [&str; 48] = [
    "b", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k", "kl", "kr", "l", "m",
    "n", "p", "ph", "pl", "pr", "qu", "r", "s", "sc", "sh", "sl", "sm", "sn", "sp", "st", "str", "t", "th", "tr", "v",
    "w", "wh", "y", "z", "", "", "",
];
const MIDDLES: [&str; 16] = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "ie", "oa", "oo", "ou", "y", "a", "e", "o"];
const ENDS: [&str; 32] = [
    "", "", "", "", "n", "r", "l", "s", "t", "m", "ck", "d", "g", "nd", "nt", "rt", "st", "x", "ll", "ss", "ng", "rk",
    "lm", "p", "b", "sh", "tch", "rd", "ld", "mp", "ff", "v",
];
const KINDS: [&str; 40] = [
    "restaurant",
    "cafe",
    "grill",
    "bar",
    "kitchen",
    "house",
    "pizza",
    "bistro",
    "diner",
    "tavern",
    "bakery",
    "deli",
    "sushi",
    "ramen",
    "bbq",
    "tacos",
    "taqueria",
    "noodle house",
    "steakhouse",
    "pub",
    "coffee",
    "burgers",
    "pho",
    "thai",
    "market",
    "inn",
    "eatery",
    "cantina",
    "trattoria",
    "brasserie",
    "smokehouse",
    "creamery",
    "donuts",
    "wine bar",
    "food truck",
    "curry house",
    "oyster bar",
    "dim sum",
    "chicken",
    "tea room",
];
const WORDS: [&str; 64] = [
    "golden", "blue", "red", "green", "black", "white", "silver", "old", "little", "big", "lucky", "happy", "royal",
    "garden", "river", "mountain", "ocean", "harbor", "valley", "lake", "park", "hill", "star", "moon", "sun",
    "dragon", "lotus", "bamboo", "jade", "tiger", "lion", "eagle", "horse", "bull", "fox", "owl", "rose", "olive",
    "maple", "oak", "cedar", "pepper", "salt", "honey", "ginger", "lemon", "mango", "coconut", "copper", "iron",
    "stone", "brick", "corner", "village", "station", "bridge", "mill", "barn", "door", "window", "lantern", "crown",
    "anchor", "saffron",
];
const STREETS: [&str; 12] =
    ["Oak", "Elm", "Main", "Market", "Cherry", "Lake", "Hill", "Park", "Mission", "Congress", "Lamar", "Burnet"];
const CITIES: [&str; 8] =
    ["Springfield", "Shelbyville", "Riverside", "Fairview", "Georgetown", "Franklin", "Clinton", "Salem"];

/// An entity to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) address: Option<String>,
    /// One in seven is a dish.
    pub(crate) is_dish: bool,
}

pub(crate) fn entities(count: usize, random: &mut StdRng) -> Vec<Generated> {
    let proper: Vec<String> = (0..count / 8 + 10).map(|_| proper(random)).collect();
    let mut names = HashSet::with_capacity(count);
    let mut entities = Vec::with_capacity(count);
    while entities.len() < count {
        let name = name(&proper, random);
        if !names.insert(name.clone()) {
            continue;
        }
        let is_dish = random.random_ratio(1, 7);
        let alias =
            random.random_ratio(3, 10).then(|| format!("{} #{}", name.to_uppercase(), random.random_range(1..100)));
        let address = (!is_dish && random.random_ratio(7, 10)).then(|| {
            let (street, city) = (pick(&STREETS, random), pick(&CITIES, random));
            format!("{} {street} St, {city}", random.random_range(1..9_999))
        });
        entities.push(Generated { name, alias, address, is_dish });
    }
    entities
}

fn pick<'a>(words: &[&'a str], random: &mut StdRng) -> &'a str {
    words.choose(random).copied().unwrap_or_default()
}

/// Popular words first: squared, so that a few occur often and most are rare.
fn skewed<'a, T: AsRef<str>>(words: &'a [T], random: &mut StdRng) -> &'a str {
    let place: f64 = random.random();
    words[(place * place * words.len() as f64) as usize].as_ref()
}

fn proper(random: &mut StdRng) -> String {
    let syllables = random.random_range(2..=3);
    (0..syllables).map(|_| [pick(&BEGINNINGS, random), pick(&MIDDLES, random), pick(&ENDS, random)].concat()).collect()
}

fn name(proper: &[String], random: &mut StdRng) -> String {
    let kind = skewed(&KINDS, random);
    let first = skewed(proper, random);
    match random.random_range(0..10) {
        0..=2 => format!("{first} {kind}"),
        3 => format!("{first}'s {kind}"),
        4 => format!("the {first} {}", skewed(&WORDS, random)),
        5 | 6 => format!("{} {first} {kind}", skewed(&WORDS, random)),
        7 => format!("{first} & {}", skewed(proper, random)),
        8 => format!("{first} {} {kind}", skewed(proper, random)),
        _ => format!("{} {} {first}", skewed(&WORDS, random), skewed(&WORDS, random)),
    }
}

/// A name with one typing error: a letter missing, added or changed, or two swapped.
pub(crate) fn misspelt(name: &str, random: &mut StdRng) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let place = random.random_range(0..letters.len() - 1);
    match random.random_range(0..4) {
        0 => drop(letters.remove(place)),
        1 => letters.insert(place, 'e'),
        2 => letters[place] = 'o',
        _ => letters.swap(place, place + 1),
    }
    letters.into_iter().collect()
}

/// A name that is not stored.
pub(crate) fn unknown(random: &mut StdRng) -> String {
    format!("{} {} {}", proper(random), proper(random), skewed(&KINDS, random))
}

pub(crate) fn seeded() -> StdRng {
    StdRng::seed_from_u64(20_240_110)
}
