//! The time that transactions wait for locks is reported, and measuring it disturbs nothing.

use std::time::{Duration, Instant};

use graphsink::{
    Engine, EntityKey, EntityMerge, EntityType, Latency, Mention, MergeOutcome, Outcome, Receipt, SourceType,
    UnitOfWork,
};
use tokio_postgres::Client;

use crate::support::{Database, as_of, commit, connect, within};

/// How long locks are held.
const HELD: Duration = Duration::from_millis(400);
/// The minimum of the reported wait: clocks of two processes are compared.
const TOLD_MIN: Duration = Duration::from_millis(380);
/// Statements that are answered sooner are never asked about.
const THRESHOLD: Duration = Duration::from_millis(20);

/// The sessions of the sampler, and the time of each one's last query.
const SAMPLERS: &str = "select pid, query_start::text from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid() and query like '%l.waitstart%'
                        order by pid";

fn aliased(restaurant: &str, alias: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    unit.restaurant(restaurant).alias(alias).handle();
    unit
}

fn mentioned(restaurant: &str, source: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let (restaurant, dish) = (unit.restaurant(restaurant).handle(), unit.dish("brisket").handle());
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    unit
}

/// Waits until this many of the engine's sessions wait for locks.
pub(crate) async fn until_waiting(client: &Client, sessions: i64) {
    let query = "select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = 'graphsink' and wait_event_type = 'Lock'";
    within(async {
        while client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) < sessions {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn samplers(client: &Client) -> Vec<(i32, String)> {
    client.query(SAMPLERS, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until the sampler has asked; returns its server process. The first time it has to connect first.
async fn until_sampled(client: &Client) -> i32 {
    within(async {
        loop {
            if let Some((pid, _)) = samplers(client).await.first() {
                return *pid;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

async fn committed(receipt: Receipt) {
    let outcome = within(receipt).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
}

fn total(latency: &Latency) -> Duration {
    Duration::from_micros(latency.microseconds().sum())
}

/// Submits a unit that has to wait for the holder's lock, ends the holder's transaction, and compares the reported wait
/// with the time that passed.
async fn assert_told(engine: &Engine, holder: &Client, client: &Client, unit: UnitOfWork) {
    let (before, start) = (engine.stats(), Instant::now());
    let receipt = engine.submit(unit).await.unwrap();
    until_waiting(client, 1).await;
    until_sampled(client).await;
    tokio::time::sleep(HELD).await;
    holder.batch_execute("commit").await.unwrap();
    committed(receipt).await;
    let (longest, stats) = (start.elapsed(), engine.stats());
    let waits = stats.lock_wait.since(&before.lock_wait);
    let (waited, commit) = (total(&waits), total(&stats.commit.since(&before.commit)));
    assert_eq!(waits.count(), 1);
    assert!(waited >= TOLD_MIN, "{waited:?}");
    assert!(waited < commit && commit < longest, "{waited:?} of {commit:?} of {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_lock_of_another_program_is_reported() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let (holder, client) = (database.client().await, database.client().await);
    // The first transaction of a session prepares its statements, which takes locks, too.
    holder.batch_execute("begin; lock table mentions in exclusive mode").await.unwrap();
    assert_told(&engine, &holder, &client, mentioned("held", "t1")).await;
    for (held, unit) in [
        ("select from entities where name = 'held' for update", aliased("held", "row of an entity")),
        ("select from connections for update", mentioned("held", "t2")),
        (
            "insert into entities (entity_id, name, type) values (gen_random_uuid(), 'new', 'restaurant')",
            aliased("new", "unique index"),
        ),
        ("lock table mentions in exclusive mode", mentioned("held", "t3")),
        ("lock table graphsink_attempts in exclusive mode", aliased("held", "first statement")),
    ] {
        holder.batch_execute(&format!("begin; {held}")).await.unwrap();
        assert_told(&engine, &holder, &client, unit).await;
    }
    within(engine.shutdown(Duration::from_secs(20))).await;
}

/// A first epoch waits for another program, a merge for that epoch, and a second epoch for the merge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_merges_and_of_merges_are_reported() {
    let database = Database::migrated().await;
    let engine = database.small_engine(60, 2).await;
    let (holder, client) = (database.client().await, database.client().await);
    for name in ["held", "from", "into"] {
        commit(&engine, mentioned(name, "t1")).await;
    }
    within(engine.flush()).await;
    let before = engine.stats();
    holder.batch_execute("begin; select from entities where name = 'held' for update").await.unwrap();
    let mut first = aliased("held", "second");
    // More rows than may still be under way elsewhere, so that the waiting lane is not the emptier one.
    for number in 0..20 {
        first.restaurant(format!("beside {number}"));
    }
    let first = engine.submit(first).await.unwrap();
    until_waiting(&client, 1).await;
    until_sampled(&client).await;
    let merge = tokio::spawn({
        let engine = engine.clone();
        let restaurant = |name: &str| EntityKey::new(EntityType::Restaurant, name);
        async move { engine.merge(vec![EntityMerge::new(restaurant("from"), restaurant("into"))]).await }
    });
    until_waiting(&client, 2).await;
    let second = engine.submit(aliased("another", "of its own")).await.unwrap();
    until_waiting(&client, 3).await;
    tokio::time::sleep(HELD).await;
    holder.batch_execute("commit").await.unwrap();
    committed(first).await;
    committed(second).await;
    let merges = within(merge).await.unwrap();
    assert!(matches!(merges[0], MergeOutcome::Merged { .. }), "{merges:?}");
    let waits = engine.stats().lock_wait.since(&before.lock_wait);
    let of_all = waits.microseconds().buckets();
    assert_eq!(waits.count(), 3, "{of_all:?}");
    let shortest = Duration::from_micros(of_all[0].0);
    assert!(shortest >= TOLD_MIN, "{of_all:?}");
    within(engine.shutdown(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_late_statements_asks_for_no_locks() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let client = database.client().await;
    commit(&engine, mentioned("first", "t1")).await;
    // Statements may be late on a busy machine, so this waits for two consecutive quiet rounds. In the first one the
    // question about a late statement of the round before may still arrive.
    within(async {
        let mut was_quiet = false;
        for round in 0.. {
            let (before, asked) = (engine.stats(), samplers(&client).await);
            for number in 0..10 {
                commit(&engine, mentioned(&format!("{round} {number}"), "t1")).await;
            }
            let stats = engine.stats();
            let commits = stats.commit.since(&before.commit);
            let is_quiet = commits.max() < THRESHOLD;
            if is_quiet && was_quiet {
                assert_eq!(samplers(&client).await, asked);
                let waits = stats.lock_wait.since(&before.lock_wait);
                assert_eq!((waits.count(), total(&waits)), (commits.count(), Duration::ZERO));
                break;
            }
            was_quiet = is_quiet;
        }
    })
    .await;
    within(engine.shutdown(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_without_a_lock_wait_is_asked_about_and_counts_no_wait() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let client = database.client().await;
    let slow = "create function slow() returns trigger language plpgsql as
                    $$ begin perform pg_sleep(0.4); return new; end $$;
                create trigger slow before insert on mentions for each row execute function slow()";
    client.batch_execute(slow).await.unwrap();
    commit(&engine, mentioned("slow", "t1")).await;
    let stats = engine.stats();
    assert!(stats.commit.max() >= HELD, "{:?}", stats.commit);
    assert_eq!(samplers(&client).await.len(), 1);
    assert_eq!((stats.lock_wait.count(), stats.lock_wait.max()), (1, Duration::ZERO));
    within(engine.shutdown(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sampler_replaces_a_session_that_dies() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let (holder, client) = (database.client().await, database.client().await);
    commit(&engine, mentioned("held", "t1")).await;
    holder.batch_execute("begin; select from entities where name = 'held' for update").await.unwrap();
    let receipt = engine.submit(aliased("held", "second")).await.unwrap();
    let dead = until_sampled(&client).await;
    client.execute("select pg_terminate_backend($1)", &[&dead]).await.unwrap();
    within(async { while until_sampled(&client).await == dead {} }).await;
    tokio::time::sleep(HELD).await;
    holder.batch_execute("commit").await.unwrap();
    committed(receipt).await;
    let stats = engine.stats();
    assert!(total(&stats.lock_wait) >= HELD, "{:?}", stats.lock_wait);
    assert_eq!((stats.failed_attempts, stats.circuit_openings), (0, 0));
    within(engine.shutdown(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_continues_where_the_sampler_gets_no_session() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let role = format!("{}_limited", database.name);
    let grants = format!(
        "create role {role} login password 'x' connection limit 1;
         grant all on all tables in schema public to {role}; grant all on all sequences in schema public to {role}"
    );
    client.batch_execute(&grants).await.unwrap();
    let mut server: tokio_postgres::Config = database.url.parse().unwrap();
    server.user(&role);
    let url = format!(
        "postgresql://{role}:x@{}:{}/{}",
        match &server.get_hosts()[0] {
            tokio_postgres::config::Host::Tcp(host) => host.clone(),
            tokio_postgres::config::Host::Unix(path) => path.to_str().unwrap().replace('/', "%2F"),
        },
        server.get_ports()[0],
        database.name
    );
    let config = graphsink::Config::builder(&url).in_flight_commits(1).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let holder = database.client().await;
    commit(&engine, mentioned("held", "t1")).await;
    holder.batch_execute("begin; select from entities where name = 'held' for update").await.unwrap();
    let receipt = engine.submit(aliased("held", "second")).await.unwrap();
    until_waiting(&client, 1).await;
    tokio::time::sleep(HELD).await;
    holder.batch_execute("commit").await.unwrap();
    committed(receipt).await;
    assert!(connect_fails(&url).await, "the engine has the only session of the role");
    let stats = engine.stats();
    assert_eq!((stats.lock_wait.count(), total(&stats.lock_wait)), (2, Duration::ZERO));
    assert_eq!((stats.failed_attempts, stats.circuit_openings), (0, 0));
    within(engine.shutdown(Duration::from_secs(20))).await;
    client.batch_execute(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
}

async fn connect_fails(url: &str) -> bool {
    tokio_postgres::connect(url, tokio_postgres::NoTls).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_the_sampler() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let (holder, client) = (connect(&database.url).await, database.client().await);
    commit(&engine, mentioned("held", "t1")).await;
    holder.batch_execute("begin; select from entities where name = 'held' for update").await.unwrap();
    let receipt = engine.submit(aliased("held", "second")).await.unwrap();
    until_sampled(&client).await;
    let start = Instant::now();
    let report = within(engine.shutdown(Duration::ZERO)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(report.abandoned.len(), 1);
    assert!(matches!(within(receipt).await, Outcome::Unavailable(_)));
    within(async {
        while !samplers(&client).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    holder.batch_execute("commit").await.unwrap();
}
