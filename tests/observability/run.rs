//! One run with all events, scraped at its end and shared by all tests.

use std::net::SocketAddr;
use std::time::Duration;

use graphsink::resolve::{Query, Resolver, ResolverSettings};
use graphsink::{
    ActorKind, AsOf, Config, Engine, EntityKey, EntityMerge, EntityType, Mention, MergeOutcome, Outcome,
    PlaceObservation, SourceType, SubmitError, UnitOfWork,
};
use tokio::sync::OnceCell;

use crate::endpoint::{Endpoint, Report, install_recorder};
use crate::proxy::{Action, At, Fault, Proxy};
use crate::scrape::Scrape;
use crate::support::{Database, as_of, commit, within};

/// How long another program holds the lock that a transaction waits for: shorter than the lock timeout.
const HELD: Duration = Duration::from_millis(500);

/// The observations of the run.
pub(crate) struct Run {
    pub(crate) scrape: Scrape,
    /// The content of `/stats` at the same time.
    pub(crate) report: Report,
    /// Status and reasons of `/livez` and `/readyz`: while all is well, in an outage, and after the end.
    pub(crate) probes: Vec<[(u16, Vec<String>); 2]>,
}

pub(crate) async fn run() -> &'static Run {
    static RUN: OnceCell<Run> = OnceCell::const_new();
    RUN.get_or_init(observe).await
}

/// For tests with an engine of their own: the recorder records every engine of the process, and the run compares its
/// figures with those of one engine.
pub(crate) async fn after_the_run() {
    run().await;
}

fn unit(restaurant: &str, source: &str, google_place_id: Option<&str>) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let mut builder = unit.restaurant(restaurant);
    if let Some(id) = google_place_id {
        builder = builder.place(PlaceObservation::new(as_of()).google_place_id(id));
    }
    let restaurant = builder.handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    unit
}

/// A request like that of a scraper or a kubelet; off the runtime, because ureq blocks.
async fn get(address: SocketAddr, path: &'static str) -> (u16, String) {
    let get = move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(format!("http://{address}{path}")).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    };
    within(tokio::task::spawn_blocking(get)).await.unwrap()
}

async fn probe(address: SocketAddr) -> [(u16, Vec<String>); 2] {
    let ask = async |path| {
        let (status, body) = get(address, path).await;
        (status, serde_json::from_str::<graphsink::Health>(&body).unwrap().reasons)
    };
    [ask("/livez").await, ask("/readyz").await]
}

/// Submits all units at once, so that they share epochs.
async fn outcomes(engine: &Engine, units: impl Iterator<Item = UnitOfWork>) -> Vec<Outcome> {
    let mut receipts = Vec::new();
    for unit in units {
        receipts.push(within(engine.submit(unit)).await.unwrap());
    }
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(within(receipt).await);
    }
    outcomes
}

/// A transaction waits for a lock of another program.
async fn wait_for_another_program(engine: &Engine, database: &Database) {
    let holder = database.client().await;
    holder.batch_execute("begin; select from connections for update").await.unwrap();
    let receipt = engine.submit(unit("owner", "t2", None)).await.unwrap();
    within(async {
        let waiting = "select from pg_locks where not granted";
        while holder.execute(waiting, &[]).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    tokio::time::sleep(HELD).await;
    holder.batch_execute("commit").await.unwrap();
    assert!(within(receipt).await.committed().is_some());
}

async fn observe() -> Run {
    let metrics = install_recorder().unwrap();
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url))
        .as_of(AsOf::Fixed(as_of()))
        .dead_letters(true)
        .max_unit_rows(40)
        .max_batch_rows(200)
        .max_rows_in_flight(800)
        .statement_timeout(Duration::from_secs(2))
        .lock_timeout(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(1))
        .outcome_deadline(Duration::from_secs(4));
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let endpoint = Endpoint::serve(([127, 0, 0, 1], 0).into(), engine.clone(), metrics).await.unwrap();
    let address = endpoint.address();
    let mut probes = vec![probe(address).await];

    // A load that fills batches and has to wait for room: rows that are new, known, changed, or named twice.
    let load = (0..2_000).map(|number| unit(&format!("place {}", number % 50), &format!("t{}", number % 1_500), None));
    assert!(outcomes(&engine, load).await.iter().all(|outcome| outcome.committed().is_some()));
    // A flush that finds units waiting for a lane. A lane may come free first, so it is repeated until it was seen.
    within(async {
        for number in 0.. {
            let mut receipts = Vec::new();
            for source in 0..4 {
                receipts.push(engine.submit(unit("flushed", &format!("t{number} {source}"), None)).await.unwrap());
            }
            engine.flush().await;
            for receipt in receipts {
                assert!(receipt.await.committed().is_some());
            }
            let scrape = Scrape::parse(&get(address, "/metrics").await.1);
            if scrape.sum("graphsink_epochs_sealed_total", &[("reason", "flush")]) > 0.0 {
                break;
            }
        }
    })
    .await;
    // A unit that breaks a rule, and some that the database rejects, each among good ones.
    assert!(matches!(engine.submit(unit("", "t1", None)).await, Err(SubmitError::Invalid(_))));
    commit(&engine, unit("owner", "t1", Some("taken"))).await;
    let thieves =
        (0..120).map(|number| unit(&format!("thief {}", number % 60), "t1", (number % 40 == 7).then_some("taken")));
    let refused =
        outcomes(&engine, thieves).await.iter().filter(|outcome| matches!(outcome, Outcome::Rejected(_))).count();
    assert!(refused > 0);
    // A transaction that fails and is retried.
    proxy.on_next(Fault::at(At::Request(3), Action::Error { severity: "ERROR", code: "40001" }));
    commit(&engine, unit("retried", "t1", None)).await;
    wait_for_another_program(&engine, &database).await;
    // An actor that dies.
    engine.kill_actor(ActorKind::ConnectionBatcher);
    within(async {
        while engine.stats().actor_restarts == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Names that are known, unknown, and remembered.
    let resolver = Resolver::attach(&engine, ResolverSettings::default()).await.unwrap();
    for _ in 0..2 {
        let names = ["owner", "an unknown name"].map(|name| Query::new(EntityType::Restaurant, name));
        resolver.resolve(&names).await.unwrap();
    }
    // Two restaurants that are merged, twice, and a merge with a restaurant that does not exist.
    let restaurant = |name: &str| EntityKey::new(EntityType::Restaurant, name);
    let merge = |from, into| EntityMerge::new(restaurant(from), restaurant(into));
    let pairs = vec![merge("retried", "flushed"), merge("retried", "flushed"), merge("no such place", "flushed")];
    let merges = within(engine.merge(pairs)).await;
    let outcomes: Vec<_> = merges.iter().map(MergeOutcome::as_str).collect();
    assert_eq!(outcomes, ["merged", "already_merged", "rejected"], "{merges:?}");
    // An outage that outlasts the deadline.
    proxy.refuse(true);
    proxy.cut_all();
    let receipt = engine.submit(unit("unavailable", "t1", None)).await.unwrap();
    within(async {
        while engine.health().ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    probes.push(probe(address).await);
    // Its time begins in the outage, and may end before the circuit breaker lets it fail once.
    let merge = engine.merge(vec![merge("owner", "flushed")]);
    let (outcome, merges) = within(async { tokio::join!(receipt, merge) }).await;
    assert!(matches!(outcome, Outcome::Unavailable(_)) && matches!(merges[0], MergeOutcome::Unavailable(_)));
    proxy.refuse(false);
    commit(&engine, unit("after", "t1", None)).await;
    within(engine.flush()).await;

    // The metrics of a unit follow right after its outcome.
    let (scrape, report) = within(async {
        loop {
            let scrape = Scrape::parse(&get(address, "/metrics").await.1);
            let report: Report = serde_json::from_str(&get(address, "/stats").await.1).unwrap();
            if scrape.sum("graphsink_units_total", &[]) as u64 == report.stats.units_submitted {
                return (scrape, report);
            }
        }
    })
    .await;
    within(engine.shutdown(Duration::from_secs(20))).await;
    probes.push(probe(address).await);
    Run { scrape, report, probes }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_distinguish_an_outage_from_the_end_of_the_engine() {
    let run = run().await;
    let statuses: Vec<_> = run.probes.iter().map(|probe| probe.each_ref().map(|(status, _)| *status)).collect();
    assert_eq!(statuses, [[200, 200], [200, 503], [200, 503]], "{:?}", run.probes);
    assert!(run.probes[1][1].1[0].starts_with("the database cannot be used: "), "{:?}", run.probes);
    assert_eq!(run.probes[2][1].1, ["the engine was shut down"]);
}

/// Metrics and `Stats` count the same events separately.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_stats_agree() {
    let Run { scrape, report, .. } = run().await;
    let stats = &report.stats;
    let sum = |name: &str, labels: &[(&str, &str)]| scrape.sum(name, labels) as u64;
    for (outcome, units) in [
        ("committed", stats.units_committed),
        ("rejected", stats.units_rejected),
        ("unavailable", stats.units_unavailable),
    ] {
        assert_eq!(sum("graphsink_units_total", &[("outcome", outcome)]), units, "{outcome}");
        assert!(units > 0, "{outcome}");
    }
    let tables = [("entities", &stats.entities), ("connections", &stats.connections), ("mentions", &stats.mentions)];
    for (table, rows) in tables {
        for (disposition, rows) in
            [("inserted", rows.inserted), ("updated", rows.updated), ("unchanged", rows.unchanged)]
        {
            let labels = [("table", table), ("disposition", disposition)];
            assert_eq!(sum("graphsink_rows_total", &labels), rows, "{labels:?}");
        }
        let label = [("table", table)];
        assert_eq!(sum("graphsink_rows_received_total", &label), rows.received);
        assert_eq!(sum("graphsink_rows_coalesced_total", &label), rows.coalesced());
        assert_eq!(sum("graphsink_batch_rows_count", &label), rows.batch_rows.count());
        assert_eq!(sum("graphsink_batch_rows_sum", &label), rows.batch_rows.sum());
    }
    for (name, count) in [
        ("graphsink_commit_seconds_count", stats.epochs),
        ("graphsink_epoch_units_count", stats.epoch_units.count()),
        ("graphsink_epoch_units_sum", stats.epoch_units.sum()),
        ("graphsink_acknowledgement_seconds_count", stats.acknowledgement.count()),
        ("graphsink_admission_wait_seconds_count", stats.admission_wait.count()),
        ("graphsink_lane_wait_seconds_count", stats.lane_wait.count()),
        ("graphsink_pool_wait_seconds_count", stats.pool_wait.count()),
        ("graphsink_lock_wait_seconds_count", stats.lock_wait.count()),
        ("graphsink_retries_total", stats.failed_attempts),
        ("graphsink_circuit_openings_total", stats.circuit_openings),
        ("graphsink_dead_letters_total", stats.dead_letters),
        ("graphsink_actor_restarts_total", stats.actor_restarts),
        ("graphsink_rows_in_flight_max", report.health.backlog.rows_max),
    ] {
        assert_eq!(sum(name, &[]), count, "{name}");
        assert!(count > 0, "{name}");
    }
    for (result, names) in [("hit", stats.known_names_hits), ("miss", stats.known_names_misses)] {
        assert_eq!(sum("graphsink_known_names_total", &[("result", result)]), names, "{result}");
        assert!(names > 0, "{result}");
    }
    for (reaction, count) in [("retry", stats.retries), ("split", stats.splits)] {
        assert_eq!(sum("graphsink_retries_total", &[("reaction", reaction)]), count, "{reaction}");
        assert!(count > 0, "{reaction}");
    }
    for name in [
        "graphsink_rows_in_flight",
        "graphsink_bytes_in_flight",
        "graphsink_epochs_in_flight",
        "graphsink_circuit_open",
    ] {
        assert_eq!(sum(name, &[]), 0, "{name}");
    }
    let waited = stats.lock_wait.microseconds().sum() as f64 / 1e6;
    let scraped = scrape.sum("graphsink_lock_wait_seconds_sum", &[]);
    // Fractions of a microsecond are not counted.
    assert!((scraped - waited).abs() < 1e-6 * stats.lock_wait.count() as f64, "{scraped} for {waited}");
    assert!(stats.lock_wait.max() >= HELD, "{:?}", stats.lock_wait);
    let committed_at = stats.last_commit_at.unwrap().timestamp_micros() as f64 / 1e6;
    assert!((scrape.sum("graphsink_last_commit_timestamp_seconds", &[]) - committed_at).abs() < 1e-3);
}
