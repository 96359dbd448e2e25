//! After any end of a load before its commit is sent, the tables and the spill directory are as before.

use std::time::{Duration, Instant};

use graphsink::{BulkError, BulkLoad, BulkPhase, BulkSettings, BulkStoreError};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::handle::unit;
use super::{TINY, Way, catalog, close, config, left_in, load, rows, settings, until, until_gone, until_removed};
use crate::support::{Database, PATIENCE, commit, within};

/// Enough units for a load to be interrupted in each of its phases.
pub(super) const UNITS: usize = 400;
/// The rows that a complete load leaves.
pub(super) const ROWS: [i64; 3] = [47, 280, UNITS as i64];
pub(super) const TRUNCATE: &str = "truncate entities, connections, mentions";

async fn begun(database: &Database, settings: &BulkSettings) -> BulkLoad {
    let load = BulkLoad::begin(config(database), settings.clone()).await.unwrap();
    for number in 0..UNITS {
        load.submit(unit(number)).await.unwrap();
    }
    load
}

/// Empty tables, with their catalog.
pub(super) struct Before {
    pub(super) database: Database,
    pub(super) client: Client,
    pub(super) directory: TempDir,
    pub(super) settings: BulkSettings,
    pub(super) catalog: Vec<String>,
}

impl Before {
    pub(super) async fn new() -> Self {
        let database = Database::migrated().await;
        let client = database.client().await;
        let catalog = catalog::dump(&client, "public").await;
        let (directory, settings) = settings(TINY);
        Self { database, client, directory, settings, catalog }
    }

    /// Makes loads take this way.
    pub(super) async fn take(&mut self, way: Way) {
        way.prepare(&self.client).await;
        self.catalog = catalog::dump(&self.client, "public").await;
    }

    pub(super) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    pub(super) async fn assert_same_catalog(&self, what: &str) {
        catalog::assert_same_catalog(what, &self.catalog, &catalog::dump(&self.client, "public").await);
    }

    /// Panics unless all is as before.
    pub(super) async fn assert_as_before(&self, what: &str) {
        until_gone(&self.client).await;
        until_removed(&self.directory).await;
        self.assert_same_catalog(what).await;
        assert_eq!(rows(&self.client).await, [0; 3], "{what}");
    }

    /// Panics unless an engine can write, and a load works afterwards.
    pub(super) async fn assert_usable(self) {
        let engine = self.database.engine().await;
        commit(&engine, unit(1)).await;
        close(engine).await;
        self.run(TRUNCATE).await;
        let report = load(&self.database, self.settings.clone(), (0..UNITS).map(unit)).await.unwrap();
        assert_eq!(report.committed, UNITS as u64);
        assert_eq!(rows(&self.client).await, ROWS);
        self.assert_same_catalog("loaded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_aborted_or_dropped_leaves_all_as_before() {
    let before = Before::new().await;
    within(BulkLoad::begin(config(&before.database), before.settings.clone()).await.unwrap().abort()).await;
    assert_eq!(left_in(&before.directory), Vec::<String>::new(), "the files are removed before the abort returns");
    before.assert_as_before("aborted at once").await;
    let load = begun(&before.database, &before.settings).await;
    let other = load.clone();
    within(load.abort()).await;
    assert_eq!(left_in(&before.directory), Vec::<String>::new());
    assert!(matches!(other.submit(unit(1)).await, Err(BulkError::Ended)));
    assert!(matches!(within(other.finish()).await, Err(BulkError::Aborted)), "the other clone gets the reason");
    before.assert_as_before("aborted amid units").await;
    let load = begun(&before.database, &before.settings).await;
    drop(load.clone());
    assert_eq!(load.submit(unit(1)).await.unwrap(), UNITS as u64, "the load goes on while one of its clones is left");
    drop(load);
    before.assert_as_before("dropped").await;

    // An abort by one clone ends the `finish` of another, which gets the reason.
    let load = begun(&before.database, &before.settings).await;
    before.run("begin; lock table mentions in access share mode").await;
    let other = load.clone();
    let finishing = tokio::spawn(load.finish());
    while other.progress().phase < BulkPhase::Preparing {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    within(other.abort()).await;
    assert_eq!(left_in(&before.directory), Vec::<String>::new(), "the files are removed before the abort returns");
    assert!(matches!(within(finishing).await.unwrap(), Err(BulkError::Aborted)));
    before.run("rollback").await;
    before.assert_as_before("aborted by a clone").await;
    before.assert_usable().await;
}

/// Whether a session of a load waits for a lock.
const WAITS: &str = "select exists (select from pg_stat_activity where application_name = 'graphsink'
                     and datname = current_database() and wait_event_type = 'Lock')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_beginning_leaves_all_as_before() {
    let before = Before::new().await;
    // The load would wait ten minutes for this lock. Another client holds it, because the one that looks at sessions
    // would see them as they were when its transaction began.
    let other = before.database.client().await;
    other.batch_execute("begin; lock table mentions in share mode").await.unwrap();
    let config = before.database.config().lock_timeout(Duration::from_mins(10)).build().unwrap();
    for millis in [0, 1, 5, 20, 200] {
        let beginning = BulkLoad::begin(config.clone(), before.settings.clone());
        let begun = tokio::time::timeout(Duration::from_millis(millis), beginning).await;
        assert!(begun.is_err(), "the tables are locked");
    }
    // The beginning is dropped while it waits for the lock.
    let mut beginning = Box::pin(BulkLoad::begin(config, before.settings.clone()));
    tokio::select! {
        begun = &mut beginning => panic!("{begun:?}"),
        () = until(&before.client, WAITS) => {}
    }
    drop(beginning);
    // The lock is still held, and its timeout is far away, so the sessions were cancelled.
    until_gone(&before.client).await;
    other.batch_execute("rollback").await.unwrap();
    before.assert_as_before("dropped while it began").await;
    before.assert_usable().await;
}

/// Drops `finish` as soon as the load is in a phase, or a little later. A phase that ended before it was seen is tried
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_dropped_in_any_phase_leaves_all_as_before_or_all_loaded() {
    const PHASES: [BulkPhase; 6] = [
        BulkPhase::Sorting,
        BulkPhase::Preparing,
        BulkPhase::Writing,
        BulkPhase::Building,
        BulkPhase::Replacing,
        BulkPhase::Committing,
    ];
    for way in Way::BOTH {
        let mut before = Before::new().await;
        before.take(way).await;
        let phases = PHASES.into_iter().filter(|phase| way == Way::ShadowTables || *phase != BulkPhase::Replacing);
        assert_all_or_nothing(before, phases).await;
    }
}

async fn assert_all_or_nothing(before: Before, phases: impl Iterator<Item = BulkPhase>) {
    for (phase, later) in phases.flat_map(|phase| [(phase, 0), (phase, 3)]) {
        let start = Instant::now();
        loop {
            before.run(TRUNCATE).await;
            let load = begun(&before.database, &before.settings).await;
            let watched = load.clone();
            let finishing = tokio::spawn(load.finish());
            while watched.progress().phase < phase {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(later)).await;
            let seen = watched.progress().phase;
            drop(watched);
            finishing.abort();
            let ended = within(finishing).await;
            assert!(matches!(ended, Err(_) | Ok(Ok(_))), "{seen:?}: {ended:?}");
            until_gone(&before.client).await;
            until_removed(&before.directory).await;
            let rows = rows(&before.client).await;
            assert!(rows == [0; 3] || rows == ROWS && seen >= BulkPhase::Building, "{seen:?}: {rows:?}");
            before.assert_same_catalog("dropped").await;
            if seen == phase || later > 0 {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "never seen: {phase:?}");
        }
    }
    before.run(TRUNCATE).await;
    before.assert_usable().await;
}

/// A reader costs time, but not the sorted records: the load waits for it, and other readers come and go meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_waits_for_a_reader_and_names_it_while_other_readers_get_through() {
    for way in Way::BOTH {
        let mut before = Before::new().await;
        before.take(way).await;
        assert_a_reader_is_waited_for(way, before).await;
    }
}

async fn assert_a_reader_is_waited_for(way: Way, before: Before) {
    let (reader, other) = (before.database.client().await, before.database.client().await);
    let reads = "begin; lock table mentions in access share mode";
    reader.batch_execute(reads).await.unwrap();
    let pid: i32 = reader.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let load = begun(&before.database, &before.settings).await;
    let watched = load.clone();
    let finishing = tokio::spawn(load.finish());
    // Between two attempts another reader gets through, and each attempt names the one that stays.
    for _ in 0..3 {
        while !watched.progress().step.contains(&format!("process {pid}")) {
            assert!(!finishing.is_finished(), "the load must still wait");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until(
            &before.client,
            "select exists (select from pg_locks where relation = 'entities'::regclass
                                              and mode = 'AccessExclusiveLock')",
        )
        .await;
        other.batch_execute("select from mentions").await.unwrap();
    }
    assert_eq!(watched.progress().phase, way.waits());
    reader.batch_execute("rollback").await.unwrap();
    let report = within(finishing).await.unwrap().unwrap();
    assert_eq!(report.committed, UNITS as u64);
    assert_eq!(rows(&before.client).await, ROWS);
    drop(report);

    before.run(TRUNCATE).await;
    reader.batch_execute(reads).await.unwrap();
    let settings = before.settings.clone().readers_wait(Duration::from_millis(10));
    match within(begun(&before.database, &settings).await.finish()).await {
        Err(BulkError::Store(error @ BulkStoreError::Locked { .. })) => {
            assert!(error.is_retryable() && error.to_string().contains(&format!("process {pid}")), "{error}");
        }
        other => panic!("{other:?}"),
    }
    reader.batch_execute("rollback").await.unwrap();
    before.assert_as_before("given up").await;
    before.assert_usable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_ends_the_load_while_units_are_submitted() {
    let before = Before::new().await;
    let load = begun(&before.database, &before.settings).await;
    let end = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
               where application_name = 'graphsink' and datname = current_database()";
    until(&before.client, end).await;
    let start = Instant::now();
    while load.submit(unit(1)).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "the load goes on without a session");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = within(load.finish()).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(_)) && error.is_retryable(), "{error}");
    before.assert_as_before("terminated").await;
    before.assert_usable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_or_changed_spill_files_end_the_load() {
    for (changes, what) in [(true, "is not what was written"), (false, "cannot read")] {
        let before = Before::new().await;
        let load = begun(&before.database, &before.settings).await;
        let beside = left_in(&before.directory).into_iter().map(|name| before.directory.path().join(name));
        let spilled = beside.into_iter().find(|path| path.is_dir()).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(&spilled).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 100));
        assert!(files.len() > 2, "{files:?}");
        for file in files {
            if changes {
                let mut bytes = std::fs::read(&file).unwrap();
                bytes[50] ^= 1;
                std::fs::write(&file, bytes).unwrap();
            } else {
                std::fs::remove_file(&file).unwrap();
            }
        }
        let error = within(load.finish()).await.unwrap_err();
        assert!(matches!(error, BulkError::Spill(_)) && error.to_string().contains(what), "{error}");
        before.assert_as_before("files").await;
        before.assert_usable().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_constraint_that_a_row_breaks_is_named() {
    let before = Before::new().await;
    before.run("create unique index one_each on mentions (upvotes)").await;
    let load = begun(&before.database, &before.settings).await;
    let error = within(load.finish()).await.unwrap_err();
    assert!(error.to_string().contains("one_each"), "{error}");
    before.run("drop index one_each").await;
    before.assert_as_before("a constraint").await;
    before.assert_usable().await;
}

// ---- other programs at the same time -----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_load_is_refused_naming_the_first_and_harms_nothing() {
    let before = Before::new().await;
    let first = begun(&before.database, &before.settings).await;
    let at_once = || before.database.config().lock_timeout(Duration::from_millis(300)).build().unwrap();
    let error = BulkLoad::begin(at_once(), before.settings.clone()).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(BulkStoreError::Locked { .. })) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("graphsink"), "{error}");
    // A load that waits for another finds rows.
    let patient = before.database.config().lock_timeout(Duration::from_mins(1)).build().unwrap();
    let second = tokio::spawn(BulkLoad::begin(patient, before.settings.clone()));
    until(&before.client, WAITS).await;
    assert_eq!(within(first.finish()).await.unwrap().committed, UNITS as u64);
    let error = within(second).await.unwrap().unwrap_err();
    assert!(matches!(error, BulkError::Store(BulkStoreError::NotEmpty { .. })), "{error}");
    assert_eq!(rows(&before.client).await, ROWS);
    until_removed(&before.directory).await;
    before.run(TRUNCATE).await;
    before.assert_as_before("two loads").await;
    before.assert_usable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_obstacle_that_arises_while_units_are_read_is_named_at_the_end() {
    let before = Before::new().await;
    let load = begun(&before.database, &before.settings).await;
    before.run("create view grouped as select entity_id, name from entities group by entity_id").await;
    let error = within(load.finish()).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(BulkStoreError::Obstacles(_))), "{error}");
    assert!(error.to_string().contains("view grouped depends on constraint entities_pkey"), "{error}");
    before.run("drop view grouped").await;
    before.assert_as_before("a view").await;
    before.assert_usable().await;
}
