//! The share of pairs that are found between two guides: a lower bound for the quality that `benches/resolve` measures
//! on real guides, which are not part of the repository.
//!
//! The first guide is stored. The second one has most of the same places, each with a name and an address in another
//! usual spelling, and places of its own, in the same streets and with the same words.

use std::collections::HashSet;

use graphsink::resolve::{Decision, Resolver, ResolverSettings};
use graphsink::{Engine, PlaceObservation, UnitOfWork};

use super::{place, setup};
use crate::support::as_of;

const FIRST: [&str; 14] = [
    "golden", "blue", "red", "silver", "little", "royal", "lucky", "old", "harbor", "garden", "maple", "cedar",
    "sunset", "union",
];
const SECOND: [&str; 13] = [
    "lantern", "dragon", "door", "spoon", "anchor", "rooster", "olive", "pepper", "kettle", "orchid", "saddle",
    "magnolia", "compass",
];
const KINDS: [&str; 5] = ["cafe", "grill", "kitchen", "bistro", "tavern"];
const STREETS: [&str; 6] =
    ["Oak Street", "Elm Avenue", "East Harbor Road", "Congress Boulevard", "Second Street", "Mill Lane"];
const CITIES: [&str; 3] = ["Springfield", "Shelbyville", "Ogdenville"];

/// The number of places in the first guide, and of those that are also in the second.
const STORED: usize = 150;
const SHARED: usize = 110;
/// The number of places in the second guide only.
const ALONE: usize = 60;

/// Each name once; pairs of words repeat after 182.
fn name(number: usize) -> String {
    format!("{} {} {}", FIRST[number % 14], SECOND[number % 13], KINDS[number % 5])
}

fn address(number: usize) -> (String, &'static str) {
    (format!("{} {}", 10 + 7 * number, STREETS[number % 6]), CITIES[number % 3])
}

/// The name in another author's spelling.
fn otherwise(number: usize) -> String {
    let name = name(number);
    let words: Vec<&str> = name.split(' ').collect();
    match number % 8 {
        0 => format!("The {name}"),
        1 => name.to_uppercase(),
        2 => format!("{} {}", words[0], words[1]),
        3 => format!("{}{} {}", words[0], words[1], words[2]),
        4 => format!("{name} ({})", CITIES[number % 3]),
        // One letter is missing, or two are swapped.
        5 => format!("{} {} {}", words[0], &words[1][..words[1].len() - 1], words[2]),
        6 => {
            let mut letters: Vec<char> = words[1].chars().collect();
            let place = (1..letters.len() - 1).find(|place| letters[*place] != letters[place + 1]).unwrap();
            letters.swap(place, place + 1);
            format!("{} {} {}", words[0], letters.into_iter().collect::<String>(), words[2])
        }
        _ => format!("{} {}'s {}", words[0], words[1], words[2]),
    }
}

/// The address in another author's spelling.
fn address_otherwise(number: usize) -> (String, &'static str) {
    let (address, city) = address(number);
    let short = [("Street", "St."), ("Avenue", "Ave"), ("Road", "Rd."), ("Boulevard", "Blvd"), ("East ", "E. ")];
    (short.iter().fold(address, |address, (long, short)| address.replace(long, short)), city)
}

async fn store(engine: &Engine) -> Vec<uuid::Uuid> {
    let mut receipts = Vec::new();
    for number in 0..STORED {
        let (address, city) = address(number);
        let mut unit = UnitOfWork::new();
        unit.restaurant(name(number))
            .place(PlaceObservation::new(as_of()).address(format!("{address}, {city}")))
            .handle();
        receipts.push(engine.submit(unit).await.unwrap());
    }
    let mut ids = Vec::new();
    for receipt in receipts {
        ids.push(receipt.await.into_result().unwrap().entities[0].id);
    }
    ids
}

/// Precision, recall and their harmonic mean, of the matches that are accepted without a review.
async fn quality(resolver: &Resolver, ids: &[uuid::Uuid], with_evidence: bool) -> [f64; 3] {
    let ask = |name: String, (address, city): (String, &'static str)| {
        if with_evidence { place(&name).address(address).city(city) } else { place(&name) }
    };
    // One by one: names of one batch would help each other.
    let (mut right, mut taken) = (0, 0);
    for number in (0..SHARED).chain(STORED..STORED + ALONE) {
        let query = match number {
            // In the same streets; some differ from a stored one only in the kind of place.
            STORED.. => ask(name(number), address(number)),
            _ => ask(otherwise(number), address_otherwise(number)),
        };
        let resolution = resolver.resolve(&[query]).await.unwrap().remove(0);
        if let Decision::Existing { entity, .. } = &resolution.decision {
            taken += 1;
            right += usize::from(number < SHARED && entity.id == ids[number]);
        }
    }
    let (precision, recall) = (f64::from(right as u32) / f64::from(taken), f64::from(right as u32) / SHARED as f64);
    [precision, recall, 2.0 * precision * recall / (precision + recall)]
}

#[tokio::test]
async fn most_places_of_two_guides_are_matched_with_few_errors() {
    let names: HashSet<String> = (0..STORED + ALONE).map(name).chain((0..SHARED).map(otherwise)).collect();
    assert_eq!(names.len(), STORED + ALONE + SHARED, "no two names are equal");
    let setup = setup(ResolverSettings::default().cache_entries(0)).await;
    let ids = store(&setup.engine).await;
    let with_evidence = quality(&setup.resolver, &ids, true).await;
    let names_alone = quality(&setup.resolver, &ids, false).await;
    println!("precision, recall, F1: {with_evidence:.3?} with address and city, {names_alone:.3?} from names alone");
    assert!(with_evidence[2] >= 0.95, "{with_evidence:?}");
    assert!(names_alone[2] >= 0.85 && names_alone[0] >= 0.9, "{names_alone:?}");
}
