//! `health()` and `stats()` report the engine's state, in normal operation and under faults.

use std::time::Duration;

use graphsink::{ActorKind, AsOf, Config, Engine, EngineStatus, Health, Mention, SourceType, Stats, UnitOfWork};

use crate::proxy::Proxy;
use crate::support::{Database, as_of, commit, within};

const ACTORS: [&str; 5] =
    ["supervisor", "entity_batcher", "connection_batcher", "mention_batcher", "transaction_coordinator"];

fn unit(restaurant: &str, source: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(restaurant).handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    unit
}

/// Waits until an engine's health meets the condition.
async fn until(engine: &Engine, is_so: impl Fn(&Health) -> bool) -> Health {
    within(async {
        loop {
            let health = engine.health();
            if is_so(&health) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_is_live_and_ready_and_reports_its_figures() {
    let database = Database::migrated().await;
    let engine = database.small_engine(60, 2).await;
    let health = engine.health();
    assert!(health.live && health.ready && health.reasons.is_empty(), "{health:?}");
    assert_eq!(health.status, EngineStatus::Running);
    assert_eq!(health.actors.iter().map(|actor| &*actor.name).collect::<Vec<_>>(), ACTORS);
    assert!(health.actors.iter().all(|actor| actor.alive && actor.restarts == 0), "{health:?}");
    assert_eq!((health.database.usable, health.database.last_commit_at), (true, None));

    // Nine of ten units name the same connection.
    let hot = commit(&engine, unit("hot", "first")).await.connections[0].id;
    let mut receipts = Vec::new();
    for number in 1..200 {
        let restaurant = if number % 10 == 0 { format!("cold {number}") } else { "hot".to_owned() };
        receipts.push(engine.submit(unit(&restaurant, &format!("t{number}"))).await.unwrap());
    }
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some());
    }
    within(engine.flush()).await;
    let stats = engine.stats();
    assert_eq!((stats.acknowledgement.count(), stats.admission_wait.count()), (200, 200));
    assert_eq!((stats.commit.count(), stats.epoch_units.count()), (stats.epochs, stats.epochs));
    assert_eq!(stats.epoch_units.sum(), 200);
    assert_eq!((stats.epoch_rows.sum(), stats.lane_wait.count()), (800, stats.epochs));
    // The additional one is the start's own transaction.
    assert_eq!(stats.pool_wait.count(), stats.epochs + 2, "{stats:?}");
    for (table, rows) in [(&stats.entities, 21), (&stats.connections, 20), (&stats.mentions, 200)] {
        assert_eq!((table.batch_rows.count(), table.inserted), (stats.epochs, rows));
        assert_eq!(table.batch_rows.sum(), table.inserted + table.updated + table.unchanged);
    }
    assert!(stats.acknowledgement.quantile(0.5) >= stats.acknowledgement.quantile(0.0));
    assert!(stats.commit.max() > Duration::ZERO, "{stats:?}");
    assert_eq!(stats.pool.max, 4);
    assert!((1..=4).contains(&stats.pool.open) && stats.pool.in_use() == 0, "{:?}", stats.pool);
    assert_eq!(stats.units_in_flight(), 0);
    let hottest = stats.hot_connections[0];
    assert_eq!((hottest.connection_id, hottest.overcount), (hot, 0));
    assert!(hottest.recent_rows >= 90 && hottest.recent_rows <= 181, "halved once at most: {hottest:?}");
    assert_eq!(engine.health().database.last_commit_at, stats.last_commit_at);
    assert!(stats.last_commit_at.is_some());
    // The JSON that a probe or a monitor reads is the same.
    let json = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
    let since = stats.acknowledgement.since(&Stats::default().acknowledgement);
    assert_eq!(since, stats.acknowledgement);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_makes_an_engine_unready_but_not_dead() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url)).as_of(AsOf::Fixed(as_of()));
    let engine = Engine::start(config.connect_timeout(Duration::from_secs(2)).build().unwrap()).await.unwrap();
    commit(&engine, unit("a", "1")).await;
    proxy.refuse(true);
    proxy.cut_all();
    let receipt = engine.submit(unit("b", "2")).await.unwrap();
    let health = until(&engine, |health| !health.ready).await;
    assert!(health.live && !health.database.usable && health.database.unusable_for.is_some(), "{health:?}");
    assert!(health.reasons[0].starts_with("the database cannot be used: "), "{health:?}");
    assert_eq!((health.backlog.units, health.backlog.rows), (1, 4));
    let stats = engine.stats();
    assert_eq!((stats.circuit_open, stats.epochs_writing, stats.epochs_waiting), (true, 1, 0));
    assert!(stats.retries >= 1 && stats.failed_attempts == stats.retries, "{stats:?}");
    let json = serde_json::to_string(&health).unwrap();
    assert_eq!(serde_json::from_str::<Health>(&json).unwrap(), health);
    proxy.refuse(false);
    assert!(within(receipt).await.committed().is_some());
    let health = until(&engine, |health| health.ready).await;
    assert_eq!((health.database.usable, health.database.unusable_for), (true, None));
    within(engine.flush()).await;
    assert_eq!(engine.stats().units_in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_distinguished_from_a_failure() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    engine.kill_actor(ActorKind::MentionBatcher);
    let restarted = |health: &Health| health.actors[3].restarts == 1;
    let health = until(&engine, restarted).await;
    assert!(health.live && health.ready, "{health:?}");
    within(engine.drain()).await;
    let health = engine.health();
    assert_eq!((health.status, health.live, health.ready), (EngineStatus::Draining, true, false));
    within(engine.shutdown(Duration::from_secs(20))).await;
    let health = engine.health();
    assert_eq!((health.status, health.live, health.ready), (EngineStatus::Stopped, true, false));
    assert!(health.actors.iter().all(|actor| !actor.alive), "{health:?}");

    let engine = database.engine().await;
    let failed = within(async {
        while engine.health().status != EngineStatus::Failed {
            engine.kill_actor(ActorKind::EntityBatcher);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        engine.health()
    });
    let health = failed.await;
    assert!(!health.live && !health.ready, "{health:?}");
    assert!(health.actors[1].restarts > 20, "{health:?}");
}
