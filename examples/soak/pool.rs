//! The records of a run, drawn up front: a few towns, whose restaurants do not meet, so that epochs can be under way at
//! the same time. Within a town nearly all records share rows.

use std::ops::Range;

use graphsink::EntityType;
use rand::Rng;

use crate::generate::{self, Space};
use crate::model::{Record, Time};

/// Restaurants of different towns are different, dishes and attributes are the same everywhere.
const TOWNS: usize = 6;

/// `count` records, from the towns in turn.
pub(crate) fn draw(seed: u64, as_of: Time, count: usize) -> Vec<Record> {
    let space = Space { restaurants: 4, dishes: 12, attributes: 4, sources: 120, threads: 30, as_of };
    let mut pool = generate::sample(seed, space, count);
    for (number, record) in pool.iter_mut().enumerate() {
        let suffix = format!(" of town {}", number % TOWNS);
        let of_town = |name: &mut String| name.push_str(&suffix);
        match record {
            Record::Entity(entity) if entity.key.entity_type == EntityType::Restaurant => {
                of_town(&mut entity.key.name);
                // Google's ids are unique among restaurants.
                entity.place.iter_mut().flat_map(|place| &mut place.google_place_id).for_each(of_town);
            }
            Record::Entity(_) => {}
            Record::Connection(connection) => of_town(&mut connection.key.restaurant),
            Record::Mention(mention) => of_town(&mut mention.connection.restaurant),
        }
    }
    pool
}

/// Positions in the pool of the records of one unit. Most are `fresh`, the others were probably submitted before; most
/// are of one town.
pub(crate) fn unit(random: &mut impl Rng, fresh: &Range<usize>) -> Vec<usize> {
    let town = random.random_range(0..TOWNS);
    let count = random.random_range(1..=12);
    let place = |_| {
        let range = if random.random_bool(0.6) { fresh.clone() } else { 0..fresh.end };
        let place = random.random_range(range);
        let in_town = place - place % TOWNS + town;
        if random.random_bool(0.95) && in_town < fresh.end { in_town } else { place }
    };
    (0..count).map(place).collect()
}
