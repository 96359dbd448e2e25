//! Merges while several engines write, with figures checked again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graphsink::{Engine, EntityMerge, EntityType, MergeOutcome, MergeRejection};
use proptest::strategy::{Strategy, ValueTree};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::canonical::{Canonical, Expected};
use super::{dangling, named};
use crate::database::{self, assert_group_by, assert_same, check_group_by, report};
use crate::generate::{self, Space};
use crate::model::{self, EntityKey, Ids, Record};
use crate::support::{Database, as_of, seed, within};

/// Submits its share of the records in units of all sizes, some of them twice; all commit.
async fn produce(engine: Engine, records: Arc<[Record]>, mut own: Vec<usize>, ids: Arc<Ids>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let again: Vec<usize> = own.iter().copied().filter(|_| random.random_bool(0.2)).collect();
    own.extend(again);
    own.shuffle(&mut random);
    let mut own = &own[..];
    let mut receipts = Vec::new();
    while !own.is_empty() {
        let (unit, rest) = own.split_at(random.random_range(1..12).min(own.len()));
        own = rest;
        let unit = model::unit(unit.iter().map(|index| &records[*index]), &ids);
        receipts.push(engine.submit(unit).await.unwrap());
        if receipts.len() >= 16 {
            for receipt in receipts.drain(..) {
                let outcome = within(receipt).await;
                assert!(outcome.committed().is_some(), "{outcome:?}");
            }
        }
    }
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
}

/// Pairs of entities of some types, drawn at random.
fn pairs(types: [EntityType; 2], space: Space, seed: u64) -> Vec<Merge> {
    let mut runner = generate::runner(seed, 1);
    let strategy = generate::two_entities(space);
    let drawn = (0..2_000).map(|_| strategy.new_tree(&mut runner).unwrap().current());
    drawn.filter(|(from, into)| types.contains(&from.entity_type) && types.contains(&into.entity_type)).collect()
}

/// Carries these merges out, a few at a time, until `stop`; returns those that took place, in order. No other task
/// merges entities of these types.
async fn merge_on(engine: Engine, pairs: Vec<Merge>, stop: Arc<AtomicBool>) -> Vec<Merge> {
    let mut done = Vec::new();
    for chosen in pairs.chunks(2) {
        // Some entities are left for the other half of the load.
        if stop.load(Ordering::Relaxed) || done.len() >= 6 {
            break;
        }
        let asked = chosen.iter().map(|(from, into)| EntityMerge::new(named(from), named(into))).collect();
        for (pair, outcome) in chosen.iter().zip(within(engine.merge(asked)).await) {
            match outcome {
                MergeOutcome::Merged { .. } => done.push(pair.clone()),
                MergeOutcome::Rejected(MergeRejection::Database(_)) | MergeOutcome::Unavailable(_) => {
                    panic!("{pair:?}: {outcome:?}")
                }
                // The entity does not exist yet, or the merge is invalid.
                MergeOutcome::AlreadyMerged { .. } | MergeOutcome::Rejected(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done
}

type Merge = (EntityKey, EntityKey);

async fn look_at_figures(database: &Database, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let client = database.client().await;
    tokio::spawn(async move {
        let mut looks = 0;
        while !stop.load(Ordering::Relaxed) {
            client.batch_execute("begin isolation level repeatable read read only").await.unwrap();
            let mut wrong = check_group_by(&client, as_of()).await;
            wrong.extend(dangling(&client).await);
            client.batch_execute("commit").await.unwrap();
            assert!(wrong.is_empty(), "{}", report("under load", &wrong));
            looks += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        looks
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merges_while_two_engines_write_lose_and_double_nothing() {
    let seed = seed("merges under load");
    let space = Space { restaurants: 12, dishes: 12, attributes: 8, sources: 200, threads: 30, as_of: as_of() };
    let database = Database::migrated().await;
    let engines = [database.small_engine(120, 3).await, database.small_engine(60, 2).await];
    let records: Arc<[Record]> = generate::sample(seed, space, 4_000).into();
    let client = database.client().await;
    let mut canonical = Canonical::default();
    canonical.say(&records[..]);

    let watching = Arc::new(AtomicBool::new(false));
    let watcher = look_at_figures(&database, Arc::clone(&watching)).await;
    let mut ids = Ids::default();
    let mut merges = 0;
    // Twice, so that the second half names by id the rows of the first half, some of which are merged by then or later.
    for half in 0..2_usize {
        let stop = Arc::new(AtomicBool::new(false));
        let known = Arc::new(ids.clone());
        let own: Vec<usize> = (half * records.len() / 2..(half + 1) * records.len() / 2).collect();
        let producers: Vec<_> = own
            .chunks(own.len().div_ceil(8))
            .enumerate()
            .map(|(number, own)| {
                let (engine, seed) = (engines[number % 2].clone(), seed + (half * 8 + number) as u64);
                tokio::spawn(produce(engine, Arc::clone(&records), own.to_vec(), Arc::clone(&known), seed))
            })
            .collect();
        // From both engines, so that merges also meet each other.
        let restaurants = [EntityType::Restaurant, EntityType::RestaurantAttribute];
        let dishes = [EntityType::DishOrCategory, EntityType::DishAttribute];
        let merging = [(0, restaurants), (1, dishes)].map(|(engine, types)| {
            let pairs = pairs(types, space, seed + (half * 2 + engine) as u64);
            tokio::spawn(merge_on(engines[engine].clone(), pairs, Arc::clone(&stop)))
        });
        for producer in producers {
            within(producer).await.unwrap();
        }
        within(engines[half].refresh_activity(as_of())).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        for task in merging {
            for (from, into) in within(task).await.unwrap() {
                assert_eq!(canonical.merge(&from, &into), Expected::Merged, "{from:?} into {into:?}");
                merges += 1;
            }
        }
        let now = database::ids(&client).await;
        ids.entities.extend(now.entities);
        ids.connections.extend(now.connections);
    }
    watching.store(true, Ordering::Relaxed);
    let looks = within(watcher).await.unwrap();
    assert!(looks > 0 && merges > 4, "{looks} looks, {merges} merges");

    assert_same(&canonical.graph(as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_eq!(dangling(&client).await, Vec::<String>::new());
    database.assert_no_deadlocks().await;
    for engine in &engines {
        let stats = engine.stats();
        assert_eq!((stats.units_rejected, stats.units_unavailable, stats.rows_in_flight), (0, 0, 0), "{stats:?}");
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    }
    println!("{merges} merges of {} entities, {looks} looks", canonical.merged().count());
}
