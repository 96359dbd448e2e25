//! Many producers, hot keys, several engines on one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use graphsink::{Outcome, PlaceObservation, UnitOfWork};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::database::{self, assert_group_by, assert_same, check_group_by, report};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::support::{Database, as_of, seed, within};

/// The parameters of a load.
struct Load {
    space: Space,
    records: usize,
    engines: usize,
    in_flight_commits: usize,
    max_batch_rows: usize,
    producers: usize,
}

impl Load {
    /// Runs the load and compares the database with the model.
    async fn run(self, test: &str) {
        let seed = seed(test);
        let database = Database::migrated().await;
        let records: Arc<[Record]> = generate::sample(seed, self.space, self.records).into();
        let mut engines = Vec::new();
        for _ in 0..self.engines {
            engines.push(database.small_engine(self.max_batch_rows, self.in_flight_commits).await);
        }

        // Half of the records first, so that the other half can name rows by id.
        let ids = Arc::new(Ids::default());
        let (first, second) = (0..records.len() / 2, records.len() / 2..records.len());
        let watcher = Watcher::start(&database).await;
        self.produce(seed, &engines, &records, first.collect(), &ids).await;
        let ids = Arc::new(database::ids(&database.client().await).await);
        self.produce(seed + 1, &engines, &records, second.collect(), &ids).await;
        let samples = watcher.stop().await;

        let client = database.client().await;
        assert_same(&model::graph(records.iter(), as_of()), &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
        database.assert_no_deadlocks().await;
        assert!(samples > 0, "the load ended before the first sample");
        let mut committed = 0;
        for engine in &engines {
            let stats = engine.stats();
            assert_eq!((stats.units_rejected, stats.units_unavailable, stats.actor_restarts), (0, 0, 0), "{stats:?}");
            assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0), "{stats:?}");
            assert_eq!(stats.units_submitted, stats.units_committed);
            assert_eq!(stats.failed_attempts, 0, "engines cause each other no failures");
            committed += stats.epochs;
            let _ = within(engine.shutdown(Duration::from_secs(20))).await;
        }
        println!("{test}: {} records, {committed} epochs, {samples} samples under load", self.records);
    }

    /// Every producer submits its share of the records in an order of its own, some of them twice.
    async fn produce(
        &self,
        seed: u64,
        engines: &[graphsink::Engine],
        records: &Arc<[Record]>,
        mut share: Vec<usize>,
        ids: &Arc<Ids>,
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let repeated: Vec<usize> = share.iter().copied().filter(|_| random.random_bool(0.2)).collect();
        share.extend(repeated);
        share.shuffle(&mut random);
        let tasks: Vec<_> = share
            .chunks(share.len().div_ceil(self.producers))
            .enumerate()
            .map(|(producer, own)| {
                let (own, records, ids) = (own.to_vec(), Arc::clone(records), Arc::clone(ids));
                let engine = engines[producer % engines.len()].clone();
                let mut random = StdRng::seed_from_u64(seed ^ (producer as u64) << 32);
                tokio::spawn(async move {
                    let mut receipts = Vec::new();
                    let mut own = &own[..];
                    while !own.is_empty() {
                        let (unit, rest) = own.split_at(random.random_range(1..12).min(own.len()));
                        own = rest;
                        let unit = model::unit(unit.iter().map(|index| &records[*index]), &ids);
                        let receipt = engine.submit(unit).await.unwrap();
                        // Some producers wait for each outcome, some for none until the end.
                        if producer % 3 == 0 {
                            assert!(within(receipt).await.committed().is_some());
                        } else {
                            receipts.push(receipt);
                        }
                    }
                    for receipt in receipts {
                        let outcome = within(receipt).await;
                        assert!(outcome.committed().is_some(), "{outcome:?}");
                    }
                })
            })
            .collect();
        for task in tasks {
            within(task).await.unwrap();
        }
    }
}

/// Checks the metrics again and again while others write.
struct Watcher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Watcher {
    async fn start(database: &Database) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = database.client().await;
        let seen = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut samples = 0;
            while !seen.load(Ordering::Relaxed) {
                client.batch_execute("begin isolation level repeatable read read only").await.unwrap();
                let differences = check_group_by(&client, as_of()).await;
                client.batch_execute("commit").await.unwrap();
                assert!(differences.is_empty(), "{}", report("under load, metrics differ from GROUP BY", &differences));
                samples += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            samples
        });
        Self { stop, task }
    }

    /// The number of samples; panics if one of them saw a difference.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        within(self.task).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_on_hot_keys_leave_the_graph_of_the_model() {
    let space = Space { restaurants: 4, dishes: 5, attributes: 4, sources: 400, threads: 30, as_of: as_of() };
    let load = Load { space, records: 6_000, engines: 1, in_flight_commits: 4, max_batch_rows: 200, producers: 32 };
    load.run("stress, one engine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_engines_on_one_database_leave_the_graph_of_the_model() {
    let space = Space { restaurants: 30, dishes: 30, attributes: 5, sources: 200, threads: 30, as_of: as_of() };
    let load = Load { space, records: 6_000, engines: 3, in_flight_commits: 3, max_batch_rows: 120, producers: 24 };
    load.run("stress, three engines").await;
}

/// Epochs of thousands of rows, which are copied, and in which engines find connections that others just inserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_that_copy_the_same_connections_leave_the_graph_of_the_model() {
    let space = Space { restaurants: 12, dishes: 60, attributes: 3, sources: 3_000, threads: 200, as_of: as_of() };
    let load = Load { space, records: 10_000, engines: 2, in_flight_commits: 2, max_batch_rows: 3_000, producers: 48 };
    load.run("stress, large epochs").await;
}

/// All units share all rows: the worst case for locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_on_a_handful_of_rows_never_deadlock() {
    let load = Load {
        space: Space::tiny(as_of()),
        records: 3_000,
        engines: 2,
        in_flight_commits: 4,
        max_batch_rows: 40,
        producers: 16,
    };
    load.run("stress, tiny").await;
}

/// Several names claim the Google id of a restaurant at once: one name gets each id, units with another claim are
/// rejected whole, all others commit, and none deadlocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contended_place_ids_go_to_one_restaurant_each_without_deadlocks() {
    let seed = seed("stress, place ids");
    let database = Database::migrated().await;
    let mut engines = Vec::new();
    for _ in 0..2 {
        engines.push(database.small_engine(60, 3).await);
    }
    let producers: Vec<_> = (0..12)
        .map(|producer: usize| {
            let engine = engines[producer % 2].clone();
            let mut random = StdRng::seed_from_u64(seed + producer as u64);
            tokio::spawn(async move {
                let mut rejected = Vec::new();
                let mut receipts = Vec::new();
                for number in 0..60 {
                    let mut unit = UnitOfWork::new();
                    for _ in 0..2 {
                        let number = random.random_range(0..40);
                        let name = format!("restaurant {number}");
                        // Now and then the id of another restaurant.
                        let owner = if random.random_bool(0.1) { random.random_range(0..40) } else { number };
                        let id = format!("place of {owner}");
                        let observed_at = as_of() + TimeDelta::seconds(random.random_range(0..1_000_000));
                        unit.restaurant(name).place(PlaceObservation::new(observed_at).google_place_id(id));
                    }
                    let label = format!("unit {producer} {number}");
                    unit.dish(label.as_str());
                    receipts.push((label, engine.submit(unit).await.unwrap()));
                }
                for (label, receipt) in receipts {
                    match within(receipt).await {
                        Outcome::Committed(_) => {}
                        Outcome::Rejected(rejection) => {
                            assert_eq!(rejection.constraint.as_deref(), Some("entities_google_place_id_key"));
                            rejected.push(label);
                        }
                        Outcome::Unavailable(unavailable) => panic!("{label}: {unavailable}"),
                    }
                }
                rejected
            })
        })
        .collect();
    let mut rejected = Vec::new();
    for producer in producers {
        rejected.extend(within(producer).await.unwrap());
    }
    let client = database.client().await;
    let written: i64 =
        client.query_one("select count(*) from entities where type = 'dish_or_category'", &[]).await.unwrap().get(0);
    assert_eq!(written as usize, 12 * 60 - rejected.len(), "each unit is in the database or rejected");
    let query = "select count(*) from entities where name = any($1)";
    let traces: i64 = client.query_one(query, &[&rejected]).await.unwrap().get(0);
    assert_eq!(traces, 0, "nothing of a rejected unit is written");
    assert!(!rejected.is_empty() && rejected.len() < 360, "{} of 720 units were rejected", rejected.len());
    database.assert_no_deadlocks().await;
}
