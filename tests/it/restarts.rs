//! An actor that dies loses none of its units.

use std::sync::Arc;
use std::time::Duration;

use graphsink::{ActorKind, Outcome};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::support::{Database, as_of, commit, seed, within};

const ACTORS: [ActorKind; 5] = [
    ActorKind::Supervisor,
    ActorKind::EntityBatcher,
    ActorKind::ConnectionBatcher,
    ActorKind::MentionBatcher,
    ActorKind::TransactionCoordinator,
];

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_continues_after_the_death_of_each_actor() {
    let records = generate::sample(seed("deaths, one by one"), Space::tiny(as_of()), 100);
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut units = records.chunks(5).map(|records| model::unit(records, &Ids::default()));
    for (number, actor) in ACTORS.into_iter().enumerate() {
        commit(&engine, units.next().unwrap()).await;
        // Units before and after the death, some of which are with the actor when it dies.
        let before = engine.submit(units.next().unwrap()).await.unwrap();
        engine.kill_actor(actor);
        let after = engine.submit(units.next().unwrap()).await.unwrap();
        for receipt in [before, after] {
            let outcome = within(receipt).await;
            assert!(outcome.committed().is_some(), "{actor:?}: {outcome:?}");
        }
        commit(&engine, units.next().unwrap()).await;
        assert_eq!(engine.stats().actor_restarts, number as u64 + 1, "{actor:?}");
    }
    within(engine.flush()).await;
    let client = database.client().await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_under_load_lose_and_double_nothing() {
    let seed = seed("deaths under load");
    let space = Space { restaurants: 6, dishes: 6, attributes: 3, sources: 60, threads: 9, as_of: as_of() };
    let records: Arc<[_]> = generate::sample(seed, space, 3_000).into();
    let database = Database::migrated().await;
    let engine = database.small_engine(100, 3).await;
    let producers: Vec<_> = (0..8)
        .map(|producer| {
            let (engine, records) = (engine.clone(), Arc::clone(&records));
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for unit in records.chunks(4).skip(producer).step_by(8) {
                    receipts.push(engine.submit(model::unit(unit, &Ids::default())).await.unwrap());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let mut outcomes = Vec::new();
                for receipt in receipts {
                    outcomes.push(within(receipt).await);
                }
                outcomes
            })
        })
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut deaths = 0;
    while producers.iter().any(|producer| !producer.is_finished()) && deaths < 8 {
        tokio::time::sleep(Duration::from_millis(random.random_range(10..150))).await;
        engine.kill_actor(*ACTORS.choose(&mut random).unwrap());
        deaths += 1;
    }
    let mut answered = 0;
    for producer in producers {
        for outcome in within(producer).await.unwrap() {
            answered += 1;
            assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
        }
    }
    assert_eq!(answered, records.len().div_ceil(4), "each unit has one outcome");
    within(engine.flush()).await;
    let stats = engine.stats();
    println!("{deaths} deaths: {stats:?}");
    assert!(stats.actor_restarts > 0);
    assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0));
    let client = database.client().await;
    assert_same(&model::graph(records.iter(), as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}
