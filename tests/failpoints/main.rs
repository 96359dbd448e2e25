//! Panics of the engine's own code at every place that could leave something half done: see `src/failpoint.rs`.
//!
//! A program of its own, because failpoints are global to a process.
//!
//! `GRAPHSINK_TEST_SEED` runs a test again as it failed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use fail::FailScenario;
use graphsink::{ActorKind, BulkError, BulkLoad, BulkPhase, BulkSettings, Engine, Outcome, SubmitError};
use graphsink_testing::database::{assert_group_by, assert_same};
use graphsink_testing::generate::Space;
use graphsink_testing::model::{Ids, Record};
use graphsink_testing::support::{Database, as_of, seed, within};
use graphsink_testing::{database, generate, model};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Mutex, MutexGuard};

/// Where actors panic, between any two steps of a handler.
const IN_ACTORS: [&str; 12] = [
    "supervisor::route",
    "supervisor::absorb",
    "supervisor::seal",
    "supervisor::sealed",
    "supervisor::finish",
    "supervisor::route_again",
    "batcher::absorb",
    "batcher::absorbed",
    "batcher::seal",
    "batcher::discard",
    "coordinator::arrive",
    "coordinator::start",
];

/// Where the task that commits an epoch panics.
const IN_COMMITS: [&str; 3] = ["store::write", "store::written", "store::committed"];

/// Where a bulk load panics: in its actors, in their work on blocking threads, and in the task that writes.
const IN_BULK_LOADS: [&str; 7] =
    ["bulk::route", "bulk::absorb", "bulk::seal", "bulk::join", "bulk::settle", "bulk::merge", "bulk::commit"];

/// One test at a time, with all failpoints off before and after it.
struct Scenario {
    _failpoints: FailScenario<'static>,
    _turn: MutexGuard<'static, ()>,
}

impl Scenario {
    async fn begin() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        static HOOK: Once = Once::new();
        let turn = TURN.lock().await;
        HOOK.call_once(count_panics);
        Self { _failpoints: FailScenario::setup(), _turn: turn }
    }
}

/// Panics of failpoints are counted and not printed.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let provoked = panic.payload_as_str().is_some_and(|text| text.starts_with("failpoint "));
        if provoked {
            PANICS.fetch_add(1, Ordering::Relaxed);
        } else {
            print(panic);
        }
    }));
}

fn records(seed: u64, count: usize) -> Arc<[Record]> {
    let space = Space { restaurants: 6, dishes: 6, attributes: 3, sources: 60, threads: 9, as_of: as_of() };
    generate::sample(seed, space, count).into()
}

/// Submits all records in small units from several tasks; returns the outcomes.
async fn load(engine: &Engine, records: &Arc<[Record]>) -> Vec<Outcome> {
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (engine, records) = (engine.clone(), Arc::clone(records));
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for unit in records.chunks(4).skip(producer).step_by(4) {
                    receipts.push(engine.submit(model::unit(unit, &Ids::default())).await.unwrap());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut outcomes = Vec::new();
                for receipt in receipts {
                    outcomes.push(within(receipt).await);
                }
                outcomes
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for producer in producers {
        outcomes.extend(within(producer).await.unwrap());
    }
    outcomes
}

async fn assert_whole(database: &Database, engine: &Engine, records: &Arc<[Record]>) {
    within(engine.flush()).await;
    let stats = engine.stats();
    assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0), "{stats:?}");
    let client = database.client().await;
    assert_same(&model::graph(records.iter(), as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}

/// Runs a load in which one failpoint after the other fires a few times, each after a random number of passes.
async fn panics_lose_and_double_nothing(test: &str, names: &[&str]) {
    let _scenario = Scenario::begin().await;
    let seed = seed(test);
    let mut random = StdRng::seed_from_u64(seed);
    let database = Database::migrated().await;
    for name in names {
        let engine = database.small_engine(60, 3).await;
        let records = records(random.random(), 240);
        let panics = PANICS.load(Ordering::Relaxed);
        if matches!(*name, "supervisor::route_again" | "batcher::discard") {
            // These are passed only after a death, so the first panics happen while another one is recovered from.
            fail::cfg(*name, "2*panic->off").unwrap();
            engine.kill_actor(ActorKind::MentionBatcher);
        } else {
            // The number of passes before the first panic, and between the first and the second.
            let (before, between) = (random.random_range(0..12), random.random_range(0..12));
            fail::cfg(*name, &format!("{before}*off->1*panic->{between}*off->1*panic->off")).unwrap();
        }
        // The number of passes depends on the number of epochs. The same load is repeated until the failpoint fired; a
        // repetition changes nothing in the tables.
        let panicked = || PANICS.load(Ordering::Relaxed) - panics;
        for loads in 1.. {
            let outcomes = load(&engine, &records).await;
            assert_eq!(outcomes.len(), records.len().div_ceil(4), "{name}: each unit has one outcome");
            for outcome in outcomes {
                assert!(outcome.committed().is_some(), "{name}: {outcome:?}");
            }
            if panicked() > 0 {
                break;
            }
            assert!(loads < 12, "{name} never fired: {:?}", engine.stats());
        }
        fail::remove(*name);
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;
        assert_whole(&database, &engine, &records).await;
        let wipe = "truncate entities, connections, mentions";
        database.client().await.batch_execute(wipe).await.unwrap();
    }
    database.assert_no_deadlocks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_that_panic_within_a_handler_lose_and_double_nothing() {
    panics_lose_and_double_nothing("panics in actors", &IN_ACTORS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_panic_are_retried_or_found_by_the_fence() {
    panics_lose_and_double_nothing("panics in commits", &IN_COMMITS).await;
}

/// All failpoints at once and at random, up to the number of deaths that an engine survives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_everywhere_lose_and_double_nothing() {
    let _scenario = Scenario::begin().await;
    let seed = seed("panics everywhere");
    let mut random = StdRng::seed_from_u64(seed);
    let database = Database::migrated().await;
    let engine = database.small_engine(60, 3).await;
    let records = records(seed, 2_000);
    let mut armed: Vec<&str> = IN_ACTORS.iter().chain(&IN_COMMITS).copied().collect();
    armed.retain(|_| random.random_bool(0.7));
    for name in &armed {
        fail::cfg(*name, &format!("{}*off->1*panic->off", random.random_range(0..60))).unwrap();
    }
    let outcomes = load(&engine, &records).await;
    for outcome in &outcomes {
        assert!(outcome.committed().is_some(), "{armed:?}: {outcome:?}");
    }
    println!("{armed:?}: {:?}", engine.stats());
    assert_whole(&database, &engine, &records).await;
}

/// A part of a load that dies has the only copy of its data: the load ends, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_load_that_panics_anywhere_loads_nothing_and_leaves_nothing() {
    let _scenario = Scenario::begin().await;
    let database = Database::migrated().await;
    let client = database.client().await;
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(8 << 10).spill_directory(directory.path());
    let records = records(seed("panics in bulk loads"), 200);
    let load = async || {
        let load = BulkLoad::begin(database.config().build().unwrap(), settings.clone()).await.unwrap();
        for unit in records.chunks(4) {
            if within(load.submit(model::unit(unit, &Ids::default()))).await.is_err() {
                break;
            }
        }
        within(load.finish()).await
    };
    for name in IN_BULK_LOADS {
        for passes in [0, 1, 2] {
            let panics = PANICS.load(Ordering::Relaxed);
            fail::cfg(name, &format!("{passes}*off->1*panic->off")).unwrap();
            let ended = load().await;
            fail::remove(name);
            if PANICS.load(Ordering::Relaxed) == panics {
                assert!(passes > 0 && ended.is_ok(), "{name} is never passed");
                client.batch_execute("truncate entities, connections, mentions").await.unwrap();
                continue;
            }
            let error = ended.unwrap_err();
            assert!(matches!(error, BulkError::Panicked), "{name}: {error}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{name}: files are left");
            assert_eq!(database::read(&client).await.entities.len(), 0, "{name}");
        }
    }
    drop(load().await.unwrap());
    assert_same(&model::graph(records.iter(), as_of()), &database::read(&client).await);
}

/// While a load sorts and merges, its session is idle, possibly for hours. A session that is lost in that time is
/// noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_load_notices_that_its_idle_session_is_lost() {
    let _scenario = Scenario::begin().await;
    let database = Database::migrated().await;
    let client = database.client().await;
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(8 << 10).spill_directory(directory.path());
    // To write there are two more sessions.
    for (name, phase, sessions) in [("bulk::settle", BulkPhase::Sorting, 1), ("bulk::merge", BulkPhase::Writing, 3)] {
        // Until the load has ended.
        fail::cfg(name, "1*pause->off").unwrap();
        let load = BulkLoad::begin(database.config().build().unwrap(), settings.clone()).await.unwrap();
        for unit in records(seed("lost sessions"), 40).chunks(4) {
            load.submit(model::unit(unit, &Ids::default())).await.unwrap();
        }
        let watched = load.clone();
        let finishing = tokio::spawn(load.finish());
        while watched.progress().phase < phase {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where application_name = 'graphsink' and datname = current_database()";
        let ended: i64 = client.query_one(end, &[]).await.unwrap().get(0);
        let error = within(finishing).await.unwrap().unwrap_err();
        assert_eq!((ended, watched.progress().phase), (sessions, BulkPhase::Ended));
        assert!(matches!(&error, BulkError::Store(lost) if lost.is_retryable()), "{name}: {error}");
        fail::remove(name);
    }
}

/// A unit that makes the engine panic whenever it is written is isolated from its neighbours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_whose_commit_always_panics_is_rejected_after_few_attempts() {
    let _scenario = Scenario::begin().await;
    let database = Database::migrated().await;
    let engine = database.engine().await;
    fail::cfg("store::written", "panic").unwrap();
    let unit = model::unit(&records(1, 4)[..], &Ids::default());
    let outcome = within(engine.submit(unit).await.unwrap()).await;
    assert!(matches!(&outcome, Outcome::Rejected(rejection) if rejection.sqlstate == "XX000"), "{outcome:?}");
    fail::remove("store::written");
    let records = records(2, 40);
    assert!(load(&engine, &records).await.iter().all(|outcome| outcome.committed().is_some()));
    assert_whole(&database, &engine, &records).await;
}

/// An actor that dies at each of its steps ends the engine, and every unit gets its outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_deaths_ends_the_engine_with_an_outcome_for_every_unit() {
    for name in ["supervisor::route", "batcher::absorbed", "coordinator::arrive"] {
        let _scenario = Scenario::begin().await;
        let database = Database::migrated().await;
        let engine = database.engine().await;
        fail::cfg(name, "panic").unwrap();
        let unit = || model::unit(&records(3, 4)[..], &Ids::default());
        let outcome = within(engine.submit(unit()).await.unwrap()).await;
        let told = matches!(&outcome, Outcome::Unavailable(unavailable) if !unavailable.commit_under_way);
        assert!(told, "{name}: {outcome:?}");
        let closed = engine.submit(unit()).await;
        assert!(matches!(closed, Err(SubmitError::Closed(_))), "{name}: {closed:?}");
        let restarts = engine.stats().actor_restarts;
        assert!((20..40).contains(&restarts), "{name}: {restarts} restarts");
        let report = within(engine.shutdown(Duration::from_secs(20))).await;
        assert_eq!(report.abandoned, Vec::<u64>::new(), "{name}: every unit had its outcome before");
        assert_eq!(engine.stats().actor_restarts, restarts, "{name}: restarts go on after the end");
        let client = database.client().await;
        let rows: i64 = client.query_one("select count(*) from entities", &[]).await.unwrap().get(0);
        assert_eq!(rows, 0, "{name}: nothing was written");
    }
}

/// An actor that hangs blocks its thread: no actor reports to the pulse, and a unit waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_with_a_hanging_actor_is_not_live_until_it_goes_on() {
    let _scenario = Scenario::begin().await;
    let database = Database::migrated().await;
    let engine = database.engine().await;
    fail::cfg("batcher::absorb", "pause").unwrap();
    let receipt = engine.submit(model::unit(&records(1, 4)[..], &Ids::default())).await.unwrap();
    let is = async |live| {
        while engine.health().live != live {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        engine.health()
    };
    let health = within(is(false)).await;
    assert!(health.reasons[0].starts_with("no sign of life from "), "{health:?}");
    assert_eq!((health.ready, health.backlog.units), (false, 1));
    fail::remove("batcher::absorb");
    assert!(within(receipt).await.committed().is_some());
    assert!(within(is(true)).await.ready);
}
