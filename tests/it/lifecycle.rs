//! Starts, ends and migrations: in every kind of runtime, repeated, concurrently, under unusual names.

use std::time::Duration;

use chrono::TimeDelta;
use graphsink::{ActorKind, AsOf, Config, Engine, Mention, Migrations, SourceType, StartError, UnitOfWork};

use crate::database::assert_group_by;
use crate::support::{Database, as_of, commit, within};

/// A unit with one mention.
fn unit(source_id: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    let created_at = as_of() - TimeDelta::days(1);
    unit.mention(connection, Mention::new(SourceType::Comment, source_id, "https://example.org", "food", created_at));
    unit
}

async fn mentions(database: &Database) -> i64 {
    database.client().await.query_one("select count(*) from mentions", &[]).await.unwrap().get(0)
}

// ---- runtimes ----------------------------------------------------------------------------------

/// The use of an engine by any kind of program.
async fn a_program() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    commit(&engine, unit("t1")).await;
    let receipt = engine.submit(unit("t2")).await.unwrap();
    within(engine.flush()).await;
    assert!(within(receipt).await.committed().is_some());
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    assert_eq!(mentions(&database).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_starts_commits_and_ends_in_a_multi_thread_runtime() {
    a_program().await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_engine_starts_commits_and_ends_in_a_current_thread_runtime() {
    a_program().await;
}

#[test]
fn an_engine_starts_commits_and_ends_in_an_actix_system() {
    actix_rt::System::new().block_on(a_program());
}

#[test]
fn an_engine_starts_commits_and_ends_on_a_local_set() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, a_program());
}

/// Sessions are opened in advance, but nothing depends on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_starts_while_a_table_is_locked() {
    let database = Database::migrated().await;
    let mut other = database.client().await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("lock table mentions in access exclusive mode").await.unwrap();
    let engine = within(database.engine()).await;
    let receipt = engine.submit(unit("t1")).await.unwrap();
    lock.rollback().await.unwrap();
    assert!(within(receipt).await.committed().is_some());
    commit(&engine, unit("t2")).await;
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    assert_eq!(mentions(&database).await, 2);
}

#[test]
fn an_engine_outlives_the_runtime_that_started_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (database, engine) = first.block_on(async {
        let database = Database::migrated().await;
        let engine = database.engine().await;
        commit(&engine, unit("t1")).await;
        (database, engine)
    });
    drop(first);
    runtime().block_on(async {
        commit(&engine, unit("t2")).await;
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;
        assert_eq!(mentions(&database).await, 2);
    });
}

#[test]
fn the_handle_is_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + Unpin + 'static>() {}
    check::<Engine>();
    sent::<graphsink::Receipt>();
}

// ---- flush, drain, shutdown --------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn flush_returns_when_every_unit_before_it_has_its_outcome() {
    let database = Database::migrated().await;
    let engine = database.small_engine(8, 2).await;
    for round in 1..=5 {
        for number in 0..20 {
            drop(engine.submit(unit(&format!("t{round} {number}"))).await.unwrap());
        }
        within(engine.flush()).await;
        assert_eq!(mentions(&database).await, round * 20);
        assert_eq!(engine.stats().rows_in_flight, 0);
    }
    // With nothing to flush it returns too, also from many tasks at once.
    let flushes = (0..10).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.flush().await })
    });
    for flush in flushes.collect::<Vec<_>>() {
        within(flush).await.unwrap();
    }
}

/// A unit that shares new entities with transactions in two lanes goes to neither while both are at work. It is not
/// held for ever, not forgotten, and not taken twice when it is sent on, a flush comes, or an actor that had it dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_held_back_between_two_lanes_is_committed_once() {
    // One hold is longer than the supervisor's sweep, which lets no unit wait for ever; one is shorter.
    let waits = [Duration::ZERO, Duration::from_millis(700)];
    let flushes = waits.into_iter().flat_map(|held| [(held, false), (held, true)]);
    for (held, flushed, killed) in flushes.flat_map(|(held, flushed)| [(held, flushed, false), (held, flushed, true)]) {
        let database = Database::migrated().await;
        let engine = Engine::start(database.config().in_flight_commits(2).build().unwrap()).await.unwrap();
        let (client, holder) = (database.client().await, database.client().await);
        let serves = |restaurant: &str, dish: &str| {
            let mut unit = UnitOfWork::new();
            let (restaurant, dish) = (unit.restaurant(restaurant).handle(), unit.dish(dish).handle());
            unit.connection(restaurant, dish);
            unit
        };
        holder.batch_execute("begin; lock table entities in share mode").await.unwrap();
        let mut receipts = Vec::new();
        for unit in [serves("franklin", "brisket"), serves("uchi", "maki")] {
            receipts.push(engine.submit(unit).await.unwrap());
        }
        let both_wait = "select count(*) = 2 from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock'";
        within(async { while !client.query_one(both_wait, &[]).await.unwrap().get::<_, bool>(0) {} }).await;
        for unit in [serves("franklin", "maki"), serves("uchi", "brisket"), serves("lazarus", "pretzel")] {
            receipts.push(engine.submit(unit).await.unwrap());
        }
        tokio::time::sleep(held).await;
        let early = flushed.then(|| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.flush().await })
        });
        // Until the supervisor has received the flush.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if killed {
            engine.kill_actor(ActorKind::MentionBatcher);
            within(async {
                while engine.stats().actor_restarts == 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        holder.batch_execute("commit").await.unwrap();
        within(engine.flush()).await;
        if let Some(flush) = early {
            within(flush).await.unwrap();
        }
        for receipt in receipts {
            assert!(within(receipt).await.committed().is_some());
        }
        let rows = "select (select count(*) from entities), (select count(*) from connections)";
        let row = client.query_one(rows, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (6, 5));
        let stats = engine.stats();
        let received = [stats.entities.received, stats.connections.received];
        assert_eq!(
            (stats.epoch_units.sum(), received),
            (5, [10, 5]),
            "held {held:?}, flushed: {flushed}, killed: {killed}"
        );
        database.assert_no_deadlocks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_and_shutdown_return_for_repeated_and_concurrent_calls() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut receipts = Vec::new();
    for number in 0..30 {
        receipts.push(engine.submit(unit(&format!("t{number}"))).await.unwrap());
    }
    within(futures::future::join(engine.drain(), engine.drain())).await;
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some(), "units accepted before are committed");
    }
    let deadline = Duration::from_secs(20);
    let _ = within(futures::future::join(engine.shutdown(deadline), engine.shutdown(deadline))).await;
    let _ = within(engine.shutdown(deadline)).await;
    within(engine.drain()).await;
    within(engine.flush()).await;
    assert_eq!(mentions(&database).await, 30);
    no_session_is_left(&database).await;
}

/// The engine's sessions end with it; the server may notice a moment later.
async fn no_session_is_left(database: &Database) {
    let client = database.client().await;
    let query = "select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = 'graphsink'";
    let mut sessions = 0_i64;
    for _ in 0..100 {
        sessions = client.query_one(query, &[]).await.unwrap().get(0);
        if sessions == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sessions} sessions are still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_unwritten_units_their_outcome() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    commit(&engine, unit("t1")).await;
    let blocker = database.client().await;
    blocker.batch_execute("begin; update connections set last_updated = now()").await.unwrap();
    let receipt = engine.submit(unit("t2")).await.unwrap();
    let _ = within(engine.shutdown(Duration::from_millis(300))).await;
    let outcome = within(receipt).await;
    blocker.batch_execute("rollback").await.unwrap();
    match outcome {
        graphsink::Outcome::Unavailable(unavailable) => {
            assert!(
                !unavailable.commit_under_way,
                "the unit waited for a lock, and no COMMIT was sent: {unavailable:?}"
            );
            // The unit is not written, and never will be.
            no_session_is_left(&database).await;
            assert_eq!(mentions(&database).await, 1);
        }
        other => panic!("the row was locked all the time, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_commits_accepted_units() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let clone = engine.clone();
    let mut receipts = Vec::new();
    for number in 0..30 {
        receipts.push(clone.submit(unit(&format!("t{number}"))).await.unwrap());
    }
    drop((engine, clone));
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some());
    }
    assert_eq!(mentions(&database).await, 30);
    no_session_is_left(&database).await;
}

// ---- several engines ---------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_live_in_one_process_on_two_databases() {
    let (left, right) = (Database::migrated().await, Database::migrated().await);
    let (engine_left, engine_right) = (left.engine().await, right.engine().await);
    commit(&engine_left, unit("t1")).await;
    commit(&engine_right, unit("t1")).await;
    let _ = within(engine_left.shutdown(Duration::from_secs(20))).await;
    commit(&engine_right, unit("t2")).await;
    assert_eq!((mentions(&left).await, mentions(&right).await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_continues_the_database_of_another() {
    let database = Database::migrated().await;
    let mut ids = Vec::new();
    for round in 0..3 {
        let engine = database.engine().await;
        let committed = commit(&engine, unit("t")).await;
        ids.push((committed.entities[0].id, committed.connections[0].id, committed.mentions[0].id));
        commit(&engine, unit(&format!("t{round}"))).await;
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(mentions(&database).await, 4);
    assert_group_by(&database.client().await, as_of()).await;
}

// ---- migrations --------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_run_once() {
    let database = Database::empty().await;
    let runs = (0..6).map(|number| {
        let config = database.config().build().unwrap();
        let migrations = if number % 3 == 0 { Migrations::tables_only() } else { Migrations::all() };
        tokio::spawn(async move { migrations.run(&config).await })
    });
    let mut applied = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        applied.extend(within(run).await.unwrap().unwrap().applied);
    }
    let distinct: std::collections::BTreeSet<&String> = applied.iter().collect();
    assert!(!applied.is_empty() && distinct.len() == applied.len(), "each ran once: {applied:?}");

    let again = Migrations::all().run(&database.config().build().unwrap()).await.unwrap();
    assert!(again.applied.is_empty(), "{:?}", again.applied);
    commit(&database.engine().await, unit("t1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_indexes_can_be_migrated_while_an_engine_runs() {
    let database = Database::empty().await;
    let config = database.config().build().unwrap();
    Migrations::tables_only().run(&config).await.unwrap();
    let engine = database.engine().await;
    commit(&engine, unit("t1")).await;
    let client = database.client().await;
    let indexes = async || -> i64 {
        let query = "select count(*) from pg_indexes where schemaname = 'public' and indexname like '%trgm%'";
        client.query_one(query, &[]).await.unwrap().get(0)
    };
    assert_eq!(indexes().await, 0);
    // While the engine runs.
    Migrations::all().run(&config).await.unwrap();
    assert_eq!(indexes().await, 2);
    commit(&engine, unit("t2")).await;
    assert_eq!(mentions(&database).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_those_of_the_contract() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let columns = client
        .query(
            "select table_name || '.' || column_name || ' ' || udt_name ||
                    coalesce('(' || character_maximum_length || ')', '') ||
                    case when udt_name = 'numeric' then '(' || numeric_precision || ',' || numeric_scale || ')' else '' end
             from information_schema.columns
             where table_schema = 'public' and table_name in ('entities', 'connections', 'mentions')",
            &[],
        )
        .await
        .unwrap();
    let mut columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
    columns.sort();
    let mut expected: Vec<String> = [
        (
            "entities",
            "entity_id uuid, name varchar(255), type entity_type, aliases _text, restaurant_attributes _uuid,
          restaurant_quality_score numeric(10,4), latitude numeric(10,8), longitude numeric(11,8), address varchar(500),
          google_place_id varchar(255), restaurant_metadata jsonb, place_observed_at timestamptz,
          last_updated timestamptz, created_at timestamptz",
        ),
        (
            "connections",
            "connection_id uuid, restaurant_id uuid, dish_or_category_id uuid, categories _uuid,
          dish_attributes _uuid, is_menu_item bool, mention_count int4, total_upvotes int8, source_diversity int4,
          recent_mention_count int4, last_mentioned_at timestamptz, activity_level activity_level, top_mentions jsonb,
          dish_quality_score numeric(10,4), last_updated timestamptz, created_at timestamptz, history_indexed bool",
        ),
        (
            "mentions",
            "mention_id uuid, connection_id uuid, source_type mention_source, source_id varchar(255),
          thread_id varchar(255), source_url varchar(500), subreddit varchar(100), content_excerpt text,
          author varchar(255), upvotes int4, created_at timestamptz, observed_at timestamptz, processed_at timestamptz,
          history_indexed bool",
        ),
    ]
    .iter()
    .flat_map(|(table, columns)| {
        // The comma within "(10,4)" has no blank after it.
        columns.split(", ").flat_map(|part| part.split(",\n")).map(move |column| format!("{table}.{}", column.trim()))
    })
    .collect();
    expected.sort();
    assert_eq!(columns, expected);

    let labels = client
        .query(
            "select t.typname || ': ' || string_agg(e.enumlabel, ', ' order by e.enumsortorder)
             from pg_enum e join pg_type t on t.oid = e.enumtypid group by t.typname order by t.typname",
            &[],
        )
        .await
        .unwrap();
    let labels: Vec<String> = labels.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        labels,
        [
            "activity_level: trending, active, normal",
            "entity_type: restaurant, dish_or_category, dish_attribute, restaurant_attribute",
            "mention_source: post, comment",
        ]
    );

    for refused in [
        "insert into entities (entity_id, name, type, address) values (gen_random_uuid(), 'd', 'dish_or_category', 'x')",
        "insert into entities (entity_id, name, type, latitude) values (gen_random_uuid(), 'r', 'restaurant', 1)",
        "insert into entities (entity_id, name, type, latitude, longitude)
         values (gen_random_uuid(), 'r', 'restaurant', 90.1, 1)",
        "insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
         values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), true)",
        "insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                               created_at, observed_at)
         values (gen_random_uuid(), gen_random_uuid(), 'post', 's', 't', 'u', 'r', now(), now())",
    ] {
        assert!(client.batch_execute(refused).await.is_err(), "the database accepts {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schemas_of_one_database_are_independent_whatever_their_names() {
    for schema in ["evidence", "Evidence \"2\"", "sch'ema; -- $1 é"] {
        let database = Database::empty().await.with_schema(schema);
        let config = database.config().build().unwrap();
        Migrations::tables_only().run(&config).await.unwrap();
        Migrations::all().run(&config).await.unwrap();
        let engine = database.engine().await;
        commit(&engine, unit("t1")).await;
        commit(&engine, unit("t1")).await;
        within(engine.refresh_activity(as_of() + TimeDelta::days(40))).await.unwrap();
        assert_eq!(mentions(&database).await, 1);
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;

        let client = database.client().await;
        let strangers: i64 =
            client.query_one("select count(*) from pg_tables where schemaname = 'public'", &[]).await.unwrap().get(0);
        assert_eq!(strangers, 0, "only extensions have objects in public");

        let other = database.with_schema("other");
        Migrations::all().run(&other.config().build().unwrap()).await.unwrap();
        commit(&other.engine().await, unit("t2")).await;
        assert_eq!(mentions(&other).await, 1);
    }
}

// ---- faults are reported at the start -----------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tables_is_an_error_at_the_start() {
    let database = Database::empty().await;
    match Engine::start(database.config().build().unwrap()).await {
        Err(StartError::NotMigrated { schema, .. }) => assert_eq!(schema, "public"),
        other => panic!("expected NotMigrated, got {:?}", other.map(|_| "an engine")),
    }
    Migrations::tables_only().run(&database.config().build().unwrap()).await.unwrap();
    database.client().await.batch_execute("drop table mentions").await.unwrap();
    match Engine::start(database.config().build().unwrap()).await {
        Err(StartError::NotMigrated { table, .. }) => assert_eq!(table, "mentions"),
        other => panic!("expected NotMigrated, got {:?}", other.map(|_| "an engine")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_server_or_database_is_an_error_at_the_start() {
    let timeout = Duration::from_secs(2);
    // No server listens at port 1.
    let unreachable = Config::builder("postgresql://graphsink@127.0.0.1:1/x").connect_timeout(timeout).build().unwrap();
    assert!(matches!(within(Engine::start(unreachable)).await, Err(StartError::Store(_))));
    let database = Database::empty().await;
    let missing = database.url_of("no_such_database");
    let missing = Config::builder(missing).connect_timeout(timeout).build().unwrap();
    match within(Engine::start(missing)).await {
        Err(StartError::Store(error)) => assert_eq!(error.sqlstate(), Some("3D000"), "{error:?}"),
        other => panic!("expected an error of the store, got {:?}", other.map(|_| "an engine")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_database_do_not_affect_the_engine() {
    let database = Database::migrated().await;
    let client = database.client().await;
    commit(&database.engine().await, unit("t")).await;
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '300ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '300ms'",
        "search_path = 'pg_catalog'",
        "enable_indexscan = off",
        "plan_cache_mode = 'force_custom_plan'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
    ] {
        client.batch_execute(&format!("alter database {} set {setting}", database.name)).await.unwrap();
    }
    let engine = database.engine().await;
    // The engine's own timeouts apply: it waits that long for a row that another session holds.
    client.batch_execute("begin; update connections set last_updated = now()").await.unwrap();
    let receipt = engine.submit(unit("t0")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.batch_execute("commit").await.unwrap();
    assert!(within(receipt).await.committed().is_some());
    for number in 1..20 {
        let mut unit = unit(&format!("é {number}"));
        unit.restaurant("franklin bbq").alias(format!("Fränklin \\ {number}"));
        commit(&engine, unit).await;
    }
    assert_eq!(engine.stats().failed_attempts, 0);
    let count: i64 = client.query_one("select count(*) from mentions", &[]).await.unwrap().get(0);
    assert_eq!(count, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_is_the_present_time_by_default() {
    let database = Database::migrated().await;
    let engine = Engine::start(database.config().as_of(AsOf::Clock).build().unwrap()).await.unwrap();
    let now = chrono::Utc::now();
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    for (id, days) in [("fresh", 1), ("old", 40)] {
        let created_at = now - TimeDelta::days(days);
        unit.mention(
            connection,
            Mention::new(SourceType::Post, id, "https://example.org", "food", created_at).upvotes(100),
        );
    }
    commit(&engine, unit).await;
    let client = database.client().await;
    let row = client
        .query_one(
            "select recent_mention_count, activity_level::text, (top_mentions -> 0 ->> 'score')::float8 from connections",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (1, "active"));
    let expected = 100.0 * (-1.0_f64 / 60.0).exp();
    assert!((row.get::<_, f64>(2) - expected).abs() < 0.01);
}
