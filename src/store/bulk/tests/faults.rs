//! After any fault of the session, the server or the load, the tables are as before or complete, and an engine can
//! write.

use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Poll};

use super::*;

/// A moment of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Moment {
    Begun,
    Bare,
    Copying,
    Copied,
    Indexing,
    Built,
    Committing,
}

const MOMENTS: [Moment; 7] =
    [Moment::Begun, Moment::Bare, Moment::Copying, Moment::Copied, Moment::Indexing, Moment::Built, Moment::Committing];

/// Makes an index slow to build, and a commit slow: `slow` rows sleep.
const SLOW: &str = "
    create table slow (seconds float8 not null);
    insert into slow values (0);
    create function slowly(x text) returns text language plpgsql immutable
        as $$ begin perform pg_sleep((select seconds from public.slow)); return x; end $$;
    create index slow_index on mentions (slowly(source_id));
    create function commit_slowly() returns trigger language plpgsql
        as $$ begin perform pg_sleep((select seconds from public.slow)); return null; end $$;
    create constraint trigger commit_slowly after insert on graphsink_attempts deferrable initially deferred
        for each row when (not new.fenced) execute function commit_slowly();";

/// Whether a session of a load sleeps in one of these.
const ASLEEP: &str = "select exists (select from pg_stat_activity where application_name = 'graphsink'
                      and datname = current_database() and wait_event = 'PgSleep')";

/// Runs a load, and `fault` at that moment. The sleep begins before the fault and ends with it.
async fn load_with_fault(database: &Database, at: Moment, fault: impl AsyncFnOnce(i32)) -> Result<(), BulkStoreError> {
    let mut fault = Some(fault);
    let mut all = Vec::new();
    for table in Table::ALL {
        all.push((table, database.rows(table).await.collect::<Vec<_>>().await));
    }
    let mut load = database.begin().await?;
    let pid = load.server_process().await.unwrap();
    let mut fault_if = async |now: Moment| {
        if at == now {
            fault.take().unwrap()(pid).await;
        }
    };
    fault_if(Moment::Begun).await;
    load.prepare_tables(|_| {}).await?;
    fault_if(Moment::Bare).await;
    for (table, rows) in all {
        let (first, second) = rows.split_at(rows.len() / 2);
        let (first, second) = (first.to_vec(), second.to_vec());
        let middle = async {
            if table == Table::Connections {
                fault_if(Moment::Copying).await;
            }
            futures::stream::iter(second)
        };
        let rows = futures::stream::iter(first).chain(futures::stream::once(middle).flatten());
        match load.copy(table, rows).await {
            Ok(_) => {}
            Err(CopyError::Store(error)) => return Err(error),
            Err(CopyError::Rows(never)) => match never {},
        }
    }
    fault_if(Moment::Copied).await;
    if at == Moment::Indexing {
        database.run("update slow set seconds = 600").await;
        let both = futures::future::join(load.build(|_| {}), async {
            database.until(ASLEEP).await;
            fault_if(at).await;
        });
        both.await.0?;
    } else {
        load.build(|_| {}).await?;
    }
    fault_if(Moment::Built).await;
    if at == Moment::Committing {
        database.run("update slow set seconds = 600").await;
        let both = futures::future::join(load.commit(), async {
            database.until(ASLEEP).await;
            fault_if(at).await;
        });
        return both.await.0;
    }
    load.commit().await
}

/// Panics unless all is as before, and removes the delay.
async fn assert_as_before(database: &Database, what: &str, before: &[String]) {
    database.until_rolled_back().await;
    database.run("update slow set seconds = 0").await;
    database.assert_as_before(what, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_terminated_at_any_moment_leaves_all_as_before() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    database.run(SLOW).await;
    let before = database.catalog().await;
    for moment in MOMENTS {
        let terminate = async |pid: i32| {
            database.client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
        };
        let error = within(load_with_fault(&database, moment, terminate)).await.unwrap_err();
        assert!(error.is_retryable(), "{moment:?}: {error}");
        assert_as_before(&database, &format!("terminated {moment:?}"), &before).await;
    }
    within(database.load()).await.unwrap();
    database.assert_whole("at last", &before).await;
}

/// SIGKILL for all processes of the server, as in a power failure, then a start with recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_crash_at_any_moment_leaves_all_as_before() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let mut database = Database::with_source(&server, Migrations::all()).await;
    database.run(SLOW).await;
    let before = database.catalog().await;
    for moment in MOMENTS {
        let server = &mut server;
        let crash = async |_| {
            server.crash().unwrap();
            server.restart().await.unwrap();
        };
        let error = within(load_with_fault(&database, moment, crash)).await.unwrap_err();
        assert!(error.is_retryable(), "{moment:?}: {error}");
        database.client = connect(&database.url).await;
        assert_as_before(&database, &format!("crashed {moment:?}"), &before).await;
    }
    within(database.load()).await.unwrap();
    database.assert_whole("at last", &before).await;
}

/// Polls a load until it has been polled this many times in this phase, or has passed it, then drops it. Returns
/// nothing if it ended before.
async fn dropped(
    load: impl Future<Output = ()>,
    phase: &Cell<Option<Moment>>,
    at: Option<Moment>,
    times: usize,
) -> bool {
    let (mut load, mut polls) = (pin!(load), 0);
    std::future::poll_fn(|context: &mut Context<'_>| {
        polls += usize::from(phase.get() >= at);
        if polls > times || phase.get() > at {
            return Poll::Ready(true);
        }
        load.as_mut().poll(context).map(|()| false)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_dropped_at_any_await_leaves_all_as_before_or_all_loaded() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    database.run(SLOW).await;
    let before = database.catalog().await;
    let mut all = Vec::new();
    for table in Table::ALL {
        all.push((table, database.rows(table).await.collect::<Vec<_>>().await));
    }
    let whole = async |phase: &Cell<Option<Moment>>| {
        let mut load = database.begin().await.unwrap();
        phase.set(Some(Moment::Begun));
        load.prepare_tables(|_| {}).await.unwrap();
        for (table, rows) in all.clone() {
            phase.set(Some(Moment::Copying));
            load.copy(table, futures::stream::iter(rows)).await.unwrap();
        }
        load.build(|_| phase.set(Some(Moment::Indexing))).await.unwrap();
        phase.set(Some(Moment::Committing));
        load.commit().await.unwrap();
    };
    let (mut left_empty, mut left_whole) = (0, 0);
    for at in [None, Some(Moment::Begun), Some(Moment::Copying), Some(Moment::Indexing), Some(Moment::Committing)] {
        for times in [1, 2, 3, 5, 8, 13] {
            database.run("truncate entities, connections, mentions; delete from graphsink_attempts").await;
            let phase = Cell::new(None);
            let was_dropped = dropped(whole(&phase), &phase, at, times).await;
            let what = format!("dropped {at:?} {times}");
            database.until_rolled_back().await;
            catalog::assert_same_catalog(&what, &before, &database.catalog().await);
            // A commit may have been under way when the load was dropped.
            let loaded = "select exists (select from mentions)";
            if database.client.query_one(loaded, &[]).await.unwrap().get(0) {
                assert!(at >= Some(Moment::Indexing), "{what}");
                database.run("delete from graphsink_attempts").await;
                database.assert_loaded().await;
                left_whole += 1;
            } else {
                assert!(was_dropped, "{what}");
                database.assert_empty().await;
                left_empty += 1;
            }
        }
    }
    println!("{left_empty} loads left empty tables, {left_whole} full ones");
    assert!(left_empty >= 18, "loads dropped before their last step leave empty tables");
    database.assert_engine_writes().await;
}

/// A killed process sends nothing to the server, which is building an index.
#[test]
fn the_server_stops_working_for_a_load_whose_process_is_gone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = EmbeddedServer::temporary().await.unwrap();
        let database = Database::with_source(&server, Migrations::tables_only()).await;
        database.run(SLOW).await;
        let before = database.catalog().await;
        let mut load = {
            // The runtime that drives the connection is all that the process has.
            let process = tokio::runtime::Runtime::new().unwrap();
            let config = database.config().build().unwrap();
            let load =
                process.spawn(async move { BulkTransaction::begin(&config, TransactionSettings::default()).await });
            (load.await.unwrap().unwrap(), process)
        };
        load.0.prepare_tables(|_| {}).await.unwrap();
        database.copy(&mut load.0).await.unwrap();
        database.run("update slow set seconds = 600").await;
        let (mut load, process) = load;
        let build = tokio::spawn(async move { load.build(|_| {}).await });
        database.until(ASLEEP).await;
        // Its sockets are closed, and no cancel request is sent.
        process.shutdown_background();
        assert!(within(build).await.unwrap().is_err());
        assert_as_before(&database, "killed", &before).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_other_programs_are_awaited_up_to_the_limit_and_their_holders_named() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let other = connect(&database.url).await;
    let pid: i32 = other.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let merge_lock = database.begin().await.unwrap().session.merge_lock();
    database.until_rolled_back().await;
    for held in [
        "lock table mentions in row exclusive mode".to_owned(),
        "lock table entities in share mode".to_owned(),
        format!("select pg_advisory_xact_lock_shared({merge_lock})"),
    ] {
        other.batch_execute(&format!("begin; {held}")).await.unwrap();
        let start = Instant::now();
        let error = database.begin().await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10));
        match &error {
            BulkStoreError::Locked { holders, .. } => {
                assert!(holders.contains(&format!("process {pid}")), "{held}: {holders}");
            }
            other => panic!("{held}: {other:?}"),
        }
        assert!(error.is_retryable());
        other.batch_execute("rollback").await.unwrap();
        database.assert_as_before(&held, &before).await;
    }
    // A reader is an obstacle only when the rows are written. A short `lock_timeout` makes no difference.
    other.batch_execute("begin; select from mentions").await.unwrap();
    let settings = TransactionSettings { readers_wait: Duration::from_millis(100), ..TransactionSettings::default() };
    let config = database.config().lock_timeout(Duration::from_millis(1)).build().unwrap();
    let mut load = BulkTransaction::begin(&config, settings).await.unwrap();
    let start = Instant::now();
    match load.prepare_tables(|_| {}).await {
        Err(BulkStoreError::Locked { holders, .. }) => {
            assert!(holders.contains(&format!("process {pid}")), "{holders}");
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() >= Duration::from_millis(1_500), "the wait is longer than a deadlock check takes");
    other.batch_execute("rollback").await.unwrap();
    // Tries again, with all sorted records.
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_whole("locked for a while", &before).await;
}

/// The load holds a lock that the reader wants, and the reader holds one that the load wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_then_wants_to_write_does_not_end_the_load() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let other = connect(&database.url).await;
    other.batch_execute("begin; set local lock_timeout = '4s'; select from mentions").await.unwrap();
    let mut load = database.begin().await.unwrap();
    let writes = tokio::spawn(async move { other.batch_execute("lock table mentions in row exclusive mode").await });
    within(load.prepare_tables(|_| {})).await.unwrap();
    assert!(within(writes).await.unwrap().is_err());
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_whole("a reader", &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_wait_until_the_load_has_ended() {
    let database = Database::with_source(shared().await, Migrations::all()).await;
    let engine = Engine::start(database.config().build().unwrap()).await.unwrap();
    let mut load = database.begin().await.unwrap();
    let mut unit = UnitOfWork::new();
    unit.restaurant("restaurant 1").alias("of the engine").handle();
    let receipt = engine.submit(unit).await.unwrap();
    // Another engine starts during the load, and sees empty tables.
    let second = Engine::start(database.config().build().unwrap()).await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    assert!(matches!(within(receipt).await, Outcome::Committed(_)));
    let aliases = "select aliases::text from entities where name = 'restaurant 1'";
    let rows = database.client.query(aliases, &[]).await.unwrap();
    let aliases: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(aliases, [r#"{"alias 1","of the engine"}"#]);
    for engine in [engine, second] {
        let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    }
}

/// A load usually takes longer than a unit's deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_beside_a_load_are_unavailable_at_their_deadline() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let impatient = database.config().outcome_deadline(Duration::from_secs(2)).lock_timeout(Duration::from_millis(500));
    let engine = Engine::start(impatient.build().unwrap()).await.unwrap();
    let mut load = database.begin().await.unwrap();
    let unit = || {
        let mut unit = UnitOfWork::new();
        unit.restaurant("beside").handle();
        unit
    };
    let outcome = within(engine.submit(unit()).await.unwrap()).await;
    assert!(matches!(outcome, Outcome::Unavailable(_)), "{outcome:?}");
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    load.commit().await.unwrap();
    database.assert_loaded().await;
    // The same unit again, now that the load has ended.
    let outcome = within(engine.submit(unit()).await.unwrap()).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    catalog::assert_same_catalog("beside", &before, &database.catalog().await);
}

/// The commit is on disk and waits for a standby that does not exist.
async fn commit_without_answer(server: &EmbeddedServer, database: &Database) -> BulkTransaction {
    let mut load = database.begin().await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    database.copy(&mut load).await.unwrap();
    load.build(|_| {}).await.unwrap();
    let admin = connect(&server.url("postgres")).await;
    for statement in ["alter system set synchronous_standby_names = 'absent'", "select pg_reload_conf()"] {
        admin.batch_execute(statement).await.unwrap();
    }
    // The setting is in force when the first commit waits.
    let pid: i32 = admin.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let waits = format!("select exists (select from pg_stat_activity where pid = {pid} and wait_event = 'SyncRep')");
    let probe = async {
        loop {
            admin.batch_execute("create table probe (); drop table probe").await.unwrap();
        }
    };
    futures::future::select(pin!(probe), pin!(database.until(&waits))).await;
    load
}

const WAITS: &str = "select exists (select from pg_stat_activity
                                    where application_name = 'graphsink' and wait_event = 'SyncRep')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fate_of_a_commit_whose_answer_is_lost_is_found() {
    let server = EmbeddedServer::temporary().await.unwrap();
    let database = Database::with_source(&server, Migrations::all()).await;
    let before = database.catalog().await;
    let load = commit_without_answer(&server, &database).await;
    let (pid, attempt) = (load.server_process().await.unwrap(), load.attempt);
    let commit = tokio::spawn(load.commit());
    database.until(WAITS).await;
    // The commit is on disk, and its session ends without an answer. The commit of the fence waits for the standby as
    // well, until none is configured.
    database.client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    for statement in ["alter system reset synchronous_standby_names", "select pg_reload_conf()"] {
        database.run(statement).await;
    }
    within(commit).await.unwrap().unwrap();
    // An answer to the commit would have deleted the row, so the fence found its fate.
    let left = database.client.query("select attempt, fenced from graphsink_attempts where not fenced", &[]).await;
    let left: Vec<(uuid::Uuid, bool)> = left.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(left, [(attempt, false)]);
    database.run("delete from graphsink_attempts").await;
    database.assert_whole("found out", &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fate_of_a_commit_is_found_after_a_crash() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let mut database = Database::with_source(&server, Migrations::all()).await;
    let before = database.catalog().await;
    let load = commit_without_answer(&server, &database).await;
    let commit = tokio::spawn(load.commit());
    database.until(WAITS).await;
    database.run("alter system reset synchronous_standby_names").await;
    server.crash().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!commit.is_finished(), "the fate is not known yet");
    server.restart().await.unwrap();
    within(commit).await.unwrap().unwrap();
    database.client = connect(&database.url).await;
    database.run("delete from graphsink_attempts").await;
    database.assert_whole("found out after a crash", &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_fate_cannot_be_found_is_reported_as_unknown() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let mut database = Database::with_source(&server, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let mut load = commit_without_answer(&server, &database).await;
    load.fate_wait = Duration::from_millis(700);
    let own = load.attempt;
    let commit = tokio::spawn(load.commit());
    database.until(WAITS).await;
    database.run("alter system reset synchronous_standby_names").await;
    server.crash().unwrap();
    let error = within(commit).await.unwrap().unwrap_err();
    let BulkStoreError::CommitUnknown { attempt, query, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*attempt, own);
    let text = error.to_string();
    assert!(text.contains(query) && text.contains(&own.to_string()) && text.contains("within two days"), "{text}");
    assert_eq!(super::super::super::fence::ATTEMPTS_KEPT, Duration::from_hours(48), "two days");
    // The query in the error finds the truth, also after an engine has written.
    server.restart().await.unwrap();
    database.client = connect(&database.url).await;
    let told = database.client.query(query, &[]).await.unwrap();
    assert_eq!(told.iter().map(|row| row.get(0)).collect::<Vec<bool>>(), [false]);
    database.run("delete from graphsink_attempts").await;
    database.assert_whole("unknown, and committed", &before).await;
}

/// Years may pass between the beginning of a transaction and its commit. Its row is dated when it is written.
#[tokio::test]
async fn the_attempts_row_is_dated_when_the_rows_are_committed() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let mut load = database.begin().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    load.prepare_tables(|_| {}).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    load.build(|_| {}).await.unwrap();
    let age = "select extract(epoch from at - now())::float8 from graphsink_attempts where attempt = $1";
    let row = load.session.client().query_one(age, &[&load.attempt]).await.unwrap();
    assert!(row.get::<_, f64>(0) >= 0.1);
    load.roll_back().await;
}

#[tokio::test]
async fn a_load_whose_rows_fail_commits_nothing() {
    let database = Database::with_source(shared().await, Migrations::tables_only()).await;
    let before = database.catalog().await;
    let mut load = database.begin().await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    let rows = database.rows(Table::Entities).await.map(|row| row.map_err(|never| match never {}));
    let rows = rows.take(5).chain(futures::stream::iter([Err("the disk is full")]));
    assert!(matches!(load.copy(Table::Entities, rows).await, Err(CopyError::Rows("the disk is full"))));
    assert!(matches!(load.commit().await, Err(BulkStoreError::Unsound)));
    database.assert_as_before("no rows", &before).await;
    // Neither does a load commit bytes that are no row.
    let mut load = database.begin().await.unwrap();
    load.prepare_tables(|_| {}).await.unwrap();
    let nonsense = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"nonsense"))]);
    let error = load.copy(Table::Entities, nonsense).await.unwrap_err();
    assert!(
        matches!(&error, CopyError::Store(BulkStoreError::Step { step, .. }) if step == "copying entities"),
        "{error:?}"
    );
    drop(load);
    database.assert_as_before("nonsense", &before).await;
    database.load().await.unwrap();
    database.assert_whole("rows", &before).await;
}
