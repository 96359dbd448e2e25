//! The end of an engine under load and during an outage, and the bound on its memory while nothing moves.

use std::time::Duration;

use graphsink::{ActorKind, Engine, Outcome, Receipt, SubmitError, UnavailableCause};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::sqlstates::{record, unit};
use super::{Storm, Supply, assert_at_rest, config, engine, migrated, server, until_gone, until_so};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, Record};
use crate::support::{Database, as_of, connect, seed, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_database_holds_callers_back_at_the_bound() {
    const ROWS: u64 = 40;
    let database = Database::migrated().await;
    let config = database.config().max_unit_rows(8).max_rows_in_flight(ROWS as usize).in_flight_commits(3);
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let holder = database.client().await;
    holder.batch_execute("begin; lock table entities in access exclusive mode").await.unwrap();
    let records: Vec<Record> = (0..600).map(|number| record(&format!("restaurant {number}"), "fine")).collect();
    let submitters: Vec<_> = records
        .chunks(10)
        .map(|own| {
            let (engine, own) = (engine.clone(), own.to_vec());
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for record in &own {
                    receipts.push(engine.submit(unit(record)).await.unwrap());
                }
                for receipt in receipts {
                    let outcome = within(receipt).await;
                    assert!(outcome.committed().is_some(), "{outcome:?}");
                }
            })
        })
        .collect();
    until_so("the engine is full", || engine.stats().rows_in_flight == ROWS).await;
    let mut refused = 0;
    for _ in 0..100 {
        match engine.try_submit(unit(&records[0])) {
            Err(SubmitError::Full(unit)) => {
                assert_eq!(unit.rows(), 4, "the unit is given back whole");
                refused += 1;
            }
            other => panic!("{ROWS} rows are in flight, got {other:?}"),
        }
        let stats = engine.stats();
        assert!(stats.rows_in_flight <= ROWS && stats.units_submitted == ROWS / 4, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(refused, 100);
    assert!(submitters.iter().all(|submitter| !submitter.is_finished()));
    holder.batch_execute("rollback").await.unwrap();
    while !submitters.iter().all(tokio::task::JoinHandle::is_finished) {
        let rows = engine.stats().rows_in_flight;
        assert!(rows <= ROWS, "{rows} rows in flight");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for submitter in submitters {
        submitter.await.unwrap();
    }
    let client = database.client().await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// At any time of the shutdown: the outcomes are true, the report names exactly the units whose outcome was
/// "unavailable", and a second call returns the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_reports_exactly_what_it_did_not_commit() {
    let seed = seed("shutdown under load");
    let mut random = StdRng::seed_from_u64(seed);
    let server = server(&[]).await;
    let mut abandoned = 0;
    for round in 0..8 {
        let url = migrated(&server, &format!("shutdown_{round}")).await;
        let own = engine(&url).await;
        let storm = Storm::start(seed + round, std::slice::from_ref(&own));
        storm.progress(30).await;
        // The last shutdown has all the time that it needs.
        let deadline = if round == 7 { 20_000_000 } else { random.random_range(0..8_000) };
        let (report, same) = futures::future::join(
            own.shutdown(Duration::from_micros(deadline)),
            own.shutdown(Duration::from_micros(deadline)),
        )
        .await;
        let again = within(own.shutdown(Duration::from_secs(20))).await;
        assert_eq!((&report, &report), (&same, &again));
        storm.refused().await;
        let mut ledger = storm.stop().await;
        let mut unavailable: Vec<u64> = ledger.unavailable().iter().map(|number| ledger.receipts[number]).collect();
        unavailable.sort_unstable();
        assert_eq!(report.abandoned, unavailable);
        assert!(round < 7 || unavailable.is_empty(), "there was time enough: {unavailable:?}");
        assert_eq!(report.stats.units_unavailable as usize, unavailable.len());
        assert_eq!((report.stats.rows_in_flight, report.stats.bytes_in_flight), (0, 0));
        abandoned += unavailable.len();
        let client = connect(&url).await;
        // A commit that was under way may still take place.
        until_gone(&client).await;
        ledger.check(&client).await;
        let successor = engine(&url).await;
        ledger.resubmit(&successor).await;
        ledger.check(&client).await;
        assert_at_rest(&[successor], &client).await;
    }
    println!("{abandoned} units were abandoned in 8 shutdowns");
    assert!(abandoned > 0, "some deadlines were too short");
}

/// Units whose numbers begin at `first`, submitted and not waited for.
async fn submit(engine: &Engine, supply: &Supply, first: usize, count: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for number in first..first + count {
        receipts.push(engine.submit(supply.unit(number)).await.unwrap());
    }
    receipts
}

async fn all_committed(receipts: Vec<Receipt>) {
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
}

/// One outage after the other, with each way to end an engine during one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_ends_during_an_outage_leaves_no_unit_waiting() {
    let seed = seed("end during an outage");
    let mut server = server(&[]).await;
    let url = migrated(&server, "outage").await;
    let supply = Supply::new(seed);
    let mut committed = 0..0;

    // Shut down before the server is back: all units get their outcome, are named, and are not in the database.
    let own = engine(&url).await;
    all_committed(submit(&own, &supply, 0, 20).await).await;
    committed.end = 20;
    server.crash().unwrap();
    let receipts = submit(&own, &supply, 20, 20).await;
    let report = within(own.shutdown(Duration::from_millis(300))).await;
    assert_eq!(report.abandoned, receipts.iter().map(Receipt::number).collect::<Vec<_>>());
    assert_eq!(report, within(own.shutdown(Duration::from_secs(20))).await);
    for receipt in receipts {
        match within(receipt).await {
            Outcome::Unavailable(why) => {
                assert!(!why.commit_under_way && matches!(why.cause, UnavailableCause::ShutDown), "{why:?}");
            }
            other => panic!("the server was down, got {other:?}"),
        }
    }
    assert!(matches!(own.submit(supply.unit(20)).await, Err(SubmitError::Closed(_))));
    assert!(matches!(own.try_submit(supply.unit(20)), Err(SubmitError::Closed(_))));
    server.restart().await.unwrap();

    // Drained during an outage that ends: the drain waits, and all units are committed.
    let own = engine(&url).await;
    let client = connect(&url).await;
    let check = async |client: &tokio_postgres::Client, committed: std::ops::Range<usize>| {
        let records: Vec<Record> = committed.flat_map(|number| supply.records(number)).collect();
        assert_same(&model::graph(&records, as_of()), &database::read(client).await);
        assert_group_by(client, as_of()).await;
    };
    check(&client, committed.clone()).await;
    server.crash().unwrap();
    let receipts = submit(&own, &supply, 20, 20).await;
    let drain = tokio::spawn({
        let own = own.clone();
        async move { own.drain().await }
    });
    until_so("the engine tries", || own.stats().failed_attempts > 2).await;
    assert!(!drain.is_finished());
    assert!(matches!(own.submit(supply.unit(40)).await, Err(SubmitError::Closed(_))));
    server.restart().await.unwrap();
    within(drain).await.unwrap();
    all_committed(receipts).await;
    committed.end = 40;
    let client = connect(&url).await;
    check(&client, committed.clone()).await;
    assert_at_rest(&[own], &client).await;

    // The last handle is dropped during an outage that ends: the engine finishes the accepted units.
    let own = engine(&url).await;
    all_committed(submit(&own, &supply, 40, 1).await).await;
    server.crash().unwrap();
    let receipts = submit(&own, &supply, 41, 19).await;
    drop(own);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.restart().await.unwrap();
    all_committed(receipts).await;
    committed.end = 60;
    let client = connect(&url).await;
    check(&client, committed.clone()).await;
    until_gone(&client).await;

    // The last handle is dropped during an outage that outlasts the deadline: all units get their outcome.
    let config = config(&url).outcome_deadline(Duration::from_millis(500)).build().unwrap();
    let own = Engine::start(config).await.unwrap();
    server.crash().unwrap();
    let receipts = submit(&own, &supply, 60, 20).await;
    drop(own);
    for receipt in receipts {
        match within(receipt).await {
            Outcome::Unavailable(why) => assert!(!why.commit_under_way, "{why:?}"),
            other => panic!("the server was down, got {other:?}"),
        }
    }
    server.restart().await.unwrap();
    let client = connect(&url).await;
    check(&client, committed).await;
    until_gone(&client).await;
}

/// The engine lives in none of the caller's runtimes, so the end of one of them does not end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_callers_runtime_does_not_end_the_engine() {
    let database = Database::migrated().await;
    let seed = seed("runtime dropped");
    let mut receipts = Vec::new();
    for (round, kind) in ["multi-thread", "current-thread", "actix"].into_iter().enumerate() {
        let config = database.config().max_batch_rows(40).build().unwrap();
        let own = std::thread::spawn(move || {
            let supply = Supply::new(seed);
            // The last handle is dropped with the runtime.
            let program = async move {
                let engine = Engine::start(config).await.unwrap();
                submit(&engine, &supply, round * 60, 60).await
            };
            if kind == "actix" {
                return actix_rt::System::new().block_on(async move {
                    let receipts = program.await;
                    actix_rt::System::current().stop();
                    receipts
                });
            }
            let mut runtime = match kind {
                "multi-thread" => tokio::runtime::Builder::new_multi_thread(),
                _ => tokio::runtime::Builder::new_current_thread(),
            };
            let runtime = runtime.enable_all().build().unwrap();
            let receipts = runtime.block_on(program);
            runtime.shutdown_background();
            receipts
        });
        receipts.extend(tokio::task::spawn_blocking(|| own.join().unwrap()).await.unwrap());
    }
    all_committed(receipts).await;
    let supply = Supply::new(seed);
    let records: Vec<Record> = (0..180).flat_map(|number| supply.records(number)).collect();
    let client = database.client().await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    until_gone(&client).await;
}

/// Actors that die again and again end the engine: every unit gets its outcome, no more are accepted, and no actor is
/// started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_deaths_under_load_ends_in_a_clean_stop() {
    for actor in [ActorKind::Supervisor, ActorKind::MentionBatcher, ActorKind::TransactionCoordinator] {
        let seed = seed("storm of deaths");
        let database = Database::migrated().await;
        let own = database.small_engine(60, 2).await;
        let storm = Storm::start(seed, std::slice::from_ref(&own));
        storm.progress(30).await;
        let supply = Supply::new(seed);
        let closed = async {
            // A number outside of the storm's range. If this unit is accepted it gets an outcome like any other.
            while !matches!(own.try_submit(supply.unit(1_000_000)), Err(SubmitError::Closed(_))) {
                own.kill_actor(actor);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        within(closed).await;
        storm.refused().await;
        let mut ledger = storm.stop().await;
        let restarts = own.stats().actor_restarts;
        println!("{actor:?}: {restarts} deaths, {} of {} units unavailable", ledger.unavailable().len(), ledger.len());
        for outcome in ledger.outcomes.values() {
            match outcome {
                Outcome::Committed(_) => {}
                Outcome::Unavailable(why) => assert!(matches!(why.cause, UnavailableCause::EngineFailed), "{why:?}"),
                Outcome::Rejected(why) => panic!("{why}"),
            }
        }
        own.kill_actor(actor);
        let report = within(own.shutdown(Duration::from_secs(20))).await;
        assert_eq!(own.stats().actor_restarts, restarts, "no actor is started again");
        assert_eq!((report.stats.rows_in_flight, report.stats.bytes_in_flight), (0, 0), "{report:?}");
        let client = database.client().await;
        until_gone(&client).await;
        let successor = database.small_engine(60, 2).await;
        ledger.resubmit(&successor).await;
        // The last unit may have been committed at most once.
        let knocked = within(successor.submit(supply.unit(1_000_000)).await.unwrap()).await;
        ledger.outcomes.insert(1_000_000, knocked);
        ledger.repeated.insert(1_000_000);
        ledger.check(&client).await;
        assert_at_rest(&[successor], &client).await;
    }
}
