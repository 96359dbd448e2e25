//! Processes and servers that are killed, restarted or full in each phase of a load.
//!
//! Phases are prolonged by SQL that sleeps (`SLOW`), by a reader of the tables, or, in processes of their own, by
//! failpoints.

use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use graphsink::server::EmbeddedServer;
use graphsink::{AsOf, BulkError, BulkLoad, BulkPhase, BulkReport, BulkSettings, Config, Engine, Migrations};
use tokio_postgres::Client;

use super::faults::{Before, ROWS, TRUNCATE, UNITS};
use super::handle::unit;
use super::{TINY, Way, catalog, close, config, left_in, rows, settings, until, until_gone, until_removed};
use crate::server_faults::shortages::Disk;
use crate::support::{as_of, commit, connect, within};

/// Rows of `slow` set how long a phase sleeps: for each written row, for each index entry, and at the commit.
const SLOW: &str = "
    create table slow (phase text primary key, seconds float8 not null);
    create function slowly(what text, x text) returns bool language plpgsql immutable
        as $$ begin perform pg_sleep((select seconds from public.slow where phase = what)); return true; end $$;
    alter table connections add constraint slow_writing check (slowly('writing', connection_id::text));
    create index slow_building on mentions (slowly('building', source_id));
    create function commit_slowly() returns trigger language plpgsql
        as $$ begin perform public.slowly('committing', ''); return null; end $$;
    create constraint trigger slow_commit after insert on graphsink_attempts deferrable initially deferred
        for each row when (not new.fenced) execute function commit_slowly();";

/// Whether a session of a load sleeps.
const ASLEEP: &str = "select exists (select from pg_stat_activity where application_name = 'graphsink'
                      and datname = current_database() and wait_event = 'PgSleep')";

/// Whether a session of a load waits for a lock.
const LOCKED: &str = "select exists (select from pg_stat_activity where application_name = 'graphsink'
                      and datname = current_database() and wait_event_type = 'Lock')";

// ---- servers -------------------------------------------------------------------------------------

fn config_of(url: &str) -> Config {
    Config::builder(url).as_of(AsOf::Fixed(as_of())).connect_timeout(Duration::from_secs(2)).build().unwrap()
}

async fn submitted(url: &str, settings: &BulkSettings) -> BulkLoad {
    let load = BulkLoad::begin(config_of(url), settings.clone()).await.unwrap();
    for number in 0..UNITS {
        load.submit(unit(number)).await.unwrap();
    }
    load
}

/// The work of the next load, independent of how the last one ended.
async fn clean_up(url: &str, settings: &BulkSettings) {
    within(BulkLoad::begin(config_of(url), settings.clone()).await.unwrap().abort()).await;
}

/// Finishes a load, and applies a fault to the server in this phase.
async fn finish_with_fault(
    load: BulkLoad,
    (phase, client): (BulkPhase, &Client),
    fault: impl AsyncFnOnce(),
) -> Result<BulkReport, BulkError> {
    let watched = load.clone();
    let waits = [BulkPhase::Preparing, BulkPhase::Replacing].contains(&phase);
    if waits {
        client.batch_execute("begin; lock table mentions in access share mode").await.unwrap();
    } else {
        let slow = format!("insert into slow values ('{}', 600)", phase.as_str());
        client.batch_execute(&slow).await.unwrap();
    }
    let finishing = tokio::spawn(load.finish());
    until(client, if waits { LOCKED } else { ASLEEP }).await;
    assert_eq!(watched.progress().phase, phase);
    drop(watched);
    fault().await;
    within(finishing).await.unwrap()
}

/// The server is killed as in a power failure, or stopped regularly; it is started again while the load is being
/// finished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_crash_or_restart_in_any_phase_leaves_all_as_before() {
    for way in Way::BOTH {
        assert_all_as_before(way).await;
    }
}

async fn assert_all_as_before(way: Way) {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let url = server.url("postgres");
    Migrations::all().run(&config_of(&url)).await.unwrap();
    connect(&url).await.batch_execute(SLOW).await.unwrap();
    way.prepare(&connect(&url).await).await;
    let catalog_before = catalog::dump(&connect(&url).await, "public").await;
    let (directory, settings) = settings(TINY);
    let phases = [BulkPhase::Reading, BulkPhase::Writing, BulkPhase::Building, way.waits(), BulkPhase::Committing];
    for (phase, crashes) in phases.into_iter().flat_map(|phase| [(phase, true), (phase, false)]) {
        let what = format!("{phase:?}, {}", if crashes { "crashed" } else { "restarted" });
        println!("{what}");
        let load = submitted(&url, &settings).await;
        let server = &mut server;
        let mut fault = async || {
            if crashes {
                server.crash().unwrap();
            } else {
                server.stop().await.unwrap();
            }
            server.restart().await.unwrap();
        };
        let client = connect(&url).await;
        let error = if phase == BulkPhase::Reading {
            fault().await;
            within(load.finish()).await.unwrap_err()
        } else {
            finish_with_fault(load, (phase, &client), fault).await.unwrap_err()
        };
        assert!(matches!(error, BulkError::Store(_)) && error.is_retryable(), "{what}: {error}");
        let client = connect(&url).await;
        client.batch_execute("delete from slow").await.unwrap();
        until_gone(&client).await;
        until_removed(&directory).await;
        assert_eq!(rows(&client).await, [0; 3], "{what}");
        clean_up(&url, &settings).await;
        catalog::assert_same_catalog(&what, &catalog_before, &catalog::dump(&client, "public").await);
        let engine = Engine::start(config_of(&url)).await.unwrap();
        commit(&engine, unit(1)).await;
        close(engine).await;
        client.batch_execute(TRUNCATE).await.unwrap();
    }
    drop(within(submitted(&url, &settings).await.finish()).await.unwrap());
    assert_eq!(rows(&connect(&url).await).await, ROWS);
}

/// The commit is on disk when the server crashes. Its fate is found once the server is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_in_a_crash_is_still_reported() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let url = server.url("postgres");
    Migrations::all().run(&config_of(&url)).await.unwrap();
    let client = connect(&url).await;
    let catalog_before = catalog::dump(&client, "public").await;
    let (_directory, settings) = settings(TINY);
    let load = submitted(&url, &settings).await;
    // The commit waits for a standby that does not exist.
    for statement in ["alter system set synchronous_standby_names = 'none'", "select pg_reload_conf()"] {
        client.batch_execute(statement).await.unwrap();
    }
    let finishing = tokio::spawn(load.finish());
    let waits = "select exists (select from pg_stat_activity
                                where application_name = 'graphsink' and wait_event = 'SyncRep')";
    until(&client, waits).await;
    client.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    server.crash().unwrap();
    server.restart().await.unwrap();
    let report = within(finishing).await.unwrap().unwrap();
    assert_eq!(report.committed, UNITS as u64);
    let client = connect(&url).await;
    assert_eq!(rows(&client).await, ROWS);
    catalog::assert_same_catalog("committed", &catalog_before, &catalog::dump(&client, "public").await);
}

/// The rows are larger than the free space of the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_ends_the_load_and_leaves_all_as_before() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let (url, disk) = Disk::of_database(&server, "full").await;
    let client = connect(&url).await;
    let catalog_before = catalog::dump(&client, "public").await;
    let (directory, settings) = settings(TINY);
    let load = submitted(&url, &settings).await;
    disk.fill().await;
    let error = within(load.finish()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BulkError::Store(_)) && error.is_retryable() && text.contains("53100"), "{text}");
    disk.free().await;
    until_gone(&client).await;
    until_removed(&directory).await;
    assert_eq!(rows(&client).await, [0; 3]);
    clean_up(&url, &settings).await;
    catalog::assert_same_catalog("full", &catalog_before, &catalog::dump(&client, "public").await);
    let engine = Engine::start(config_of(&url)).await.unwrap();
    commit(&engine, unit(1)).await;
    close(engine).await;
    client.batch_execute(TRUNCATE).await.unwrap();
    drop(within(submitted(&url, &settings).await.finish()).await.unwrap());
    assert_eq!(rows(&client).await, ROWS);
    drop(client);
    server.stop().await.unwrap();
    drop(disk);
}

// ---- processes -----------------------------------------------------------------------------------

const URL: &str = "GRAPHSINK_TEST_BULK_URL";
const DIRECTORY: &str = "GRAPHSINK_TEST_BULK_DIRECTORY";
/// The failpoint at which the child sleeps, with its action.
const SLEEPS_AT: &str = "GRAPHSINK_TEST_BULK_SLEEPS_AT";
/// The file in which a child reports its phase.
const JOURNAL: &str = "phase";

/// The child of the test below; does nothing unless that test started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let (Ok(url), Ok(directory)) = (env::var(URL), env::var(DIRECTORY)) else { return };
    if let Some((name, action)) = env::var(SLEEPS_AT).ok().as_deref().and_then(|at| at.split_once('=')) {
        fail::cfg(name, action).unwrap();
    }
    let settings = BulkSettings::default().memory(TINY).spill_directory(&directory);
    let load = BulkLoad::begin(config_of(&url), settings).await.unwrap();
    for number in 0..UNITS {
        load.submit(unit(number)).await.unwrap();
    }
    let watched = load.clone();
    tokio::spawn(async move {
        loop {
            std::fs::write(Path::new(&directory).join(JOURNAL), watched.progress().phase.as_str()).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(load.finish().await.unwrap().rejected, 0);
}

/// Starts the child and kills it in this phase.
async fn kill_while(phase: &str, sleeps_at: &str, before: &Before) {
    let directory = before.directory.path();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["bulk::killed::child_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(URL, &before.database.url)
        .env(DIRECTORY, directory)
        .env(SLEEPS_AT, sleeps_at)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    let (start, journal) = (Instant::now(), directory.join(JOURNAL));
    while std::fs::read_to_string(&journal).unwrap_or_default() != phase {
        assert!(start.elapsed() < Duration::from_secs(50), "never {phase}");
        assert!(child.try_wait().unwrap().is_none(), "the child ended before it was {phase}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&journal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_the_tables_as_before_and_the_next_start_removes_its_files() {
    for way in Way::BOTH {
        let mut before = Before::new().await;
        before.run(SLOW).await;
        before.take(way).await;
        assert_next_start_cleans_up(way, before).await;
    }
}

async fn assert_next_start_cleans_up(way: Way, before: Before) {
    let reader = before.database.client().await;
    let asleep = "sleep(600000)";
    let waits = way.waits().as_str();
    let mut phases = vec![("reading", String::new()), (waits, String::new()), ("building", String::new())];
    if fail::has_failpoints() {
        phases.push(("sorting", format!("bulk::settle={asleep}")));
        // Two of the tables are copied by then.
        phases.push(("writing", format!("bulk::merge=2*off->{asleep}")));
        phases.push(("committing", format!("bulk::commit={asleep}")));
    }
    for (phase, sleeps_at) in phases {
        println!("{phase}");
        before
            .run(if phase == "building" { "insert into slow values ('building', 1)" } else { "delete from slow" })
            .await;
        let reads = if phase == waits { "begin; lock table mentions in access share mode" } else { "" };
        reader.batch_execute(reads).await.unwrap();
        kill_while(phase, &sleeps_at, &before).await;
        reader.batch_execute("rollback").await.unwrap();
        // The server notices the lost client within seconds.
        until_gone(&before.client).await;
        assert_eq!(rows(&before.client).await, [0; 3], "killed while {phase}");
        assert_eq!(left_in(&before.directory).len(), 2, "a directory and its lock: {:?}", left_in(&before.directory));
        std::fs::write(before.directory.path().join("of another"), "").unwrap();
        let next = BulkLoad::begin(config(&before.database), before.settings.clone()).await.unwrap();
        assert_eq!(left_in(&before.directory).len(), 3, "its own two files, and another program's");
        before.assert_same_catalog(phase).await;
        within(next.abort()).await;
        assert_eq!(left_in(&before.directory), ["of another"]);
        std::fs::remove_file(before.directory.path().join("of another")).unwrap();
    }
    before.run("delete from slow").await;
    before.assert_as_before("killed").await;
    before.assert_usable().await;
}
