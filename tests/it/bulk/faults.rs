//! Whatever ends a load before its commit is sent, the tables and the spill directory are as before.

use std::time::{Duration, Instant};

use graphsink::{BulkError, BulkLoad, BulkPhase, BulkSettings, BulkStoreError};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::handle::unit;
use super::{TINY, Way, catalog, close, config, left_in, load, rows, settings, until, until_gone, until_removed};
use crate::support::{Database, PATIENCE, commit, within};

/// Units of a load that takes long enough to be ended in each of its phases.
pub(super) const UNITS: usize = 400;
/// What a whole load leaves.
pub(super) const ROWS: [i64; 3] = [47, 280, UNITS as i64];
pub(super) const TRUNCATE: &str = "truncate entities, connections, mentions";

async fn begun(database: &Database, settings: &BulkSettings) -> BulkLoad {
    let load = BulkLoad::begin(config(database), settings.clone()).await.unwrap();
    for number in 0..UNITS {
        load.submit(unit(number)).await.unwrap();
    }
    load
}

/// Tables that are empty, with their catalog.
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

    /// Panics unless an engine writes, and then a load works.
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
    assert_eq!(left_in(&before.directory), Vec::<String>::new(), "gone when it is told");
    before.assert_as_before("aborted at once").await;
    let load = begun(&before.database, &before.settings).await;
    let other = load.clone();
    within(load.abort()).await;
    assert_eq!(left_in(&before.directory), Vec::<String>::new());
    assert!(matches!(other.submit(unit(1)).await, Err(BulkError::Ended)));
    assert!(matches!(within(other.finish()).await, Err(BulkError::Aborted)), "which says why");
    before.assert_as_before("aborted amid units").await;
    let load = begun(&before.database, &before.settings).await;
    drop(load.clone());
    assert_eq!(load.submit(unit(1)).await.unwrap(), UNITS as u64, "one of two clones is left");
    drop(load);
    before.assert_as_before("dropped").await;

    // A clone that aborts ends what another finishes, which is told why.
    let load = begun(&before.database, &before.settings).await;
    before.run("begin; lock table mentions in access share mode").await;
    let other = load.clone();
    let finishing = tokio::spawn(load.finish());
    while other.progress().phase < BulkPhase::Preparing {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    within(other.abort()).await;
    assert_eq!(left_in(&before.directory), Vec::<String>::new(), "gone when it is told");
    assert!(matches!(within(finishing).await.unwrap(), Err(BulkError::Aborted)));
    before.run("rollback").await;
    before.assert_as_before("aborted by a clone").await;
    before.assert_usable().await;
}

/// A session of a load waits for a lock.
const WAITS: &str = "select exists (select from pg_stat_activity where application_name = 'graphsink'
                     and datname = current_database() and wait_event_type = 'Lock')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_is_dropped_leaves_all_as_before() {
    let before = Before::new().await;
    // It waits for this, and would for ten minutes. Not by the client that looks at sessions: it would see them as
    // they were when its transaction began.
    let other = before.database.client().await;
    other.batch_execute("begin; lock table mentions in share mode").await.unwrap();
    let config = before.database.config().lock_timeout(Duration::from_mins(10)).build().unwrap();
    for millis in [0, 1, 5, 20, 200] {
        let beginning = BulkLoad::begin(config.clone(), before.settings.clone());
        let begun = tokio::time::timeout(Duration::from_millis(millis), beginning).await;
        assert!(begun.is_err(), "the tables are locked");
    }
    // It waits for the lock when it is dropped.
    let mut beginning = Box::pin(BulkLoad::begin(config, before.settings.clone()));
    tokio::select! {
        begun = &mut beginning => panic!("{begun:?}"),
        () = until(&before.client, WAITS) => {}
    }
    drop(beginning);
    // The lock is still held, and its timeout is far: they were cancelled.
    until_gone(&before.client).await;
    other.batch_execute("rollback").await.unwrap();
    before.assert_as_before("dropped while it began").await;
    before.assert_usable().await;
}

/// Dropped as soon as it is in a phase, and a bit later. A phase that is over too soon to be seen is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_that_is_dropped_in_any_phase_leaves_all_as_before_or_all_loaded() {
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
            drop(within(finishing).await);
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

/// A reader costs time, not what was sorted: it is waited for, and others come and go meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_waited_for_and_named_while_others_read() {
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
    // Several tries: between them another reader gets through, and each names the one that stays.
    for _ in 0..3 {
        while !watched.progress().step.contains(&format!("process {pid}")) {
            assert!(!finishing.is_finished(), "it goes on, or has given up");
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
async fn a_session_that_is_lost_ends_the_load_before_its_units_end() {
    let before = Before::new().await;
    let load = begun(&before.database, &before.settings).await;
    let end = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
               where application_name = 'graphsink' and datname = current_database()";
    until(&before.client, end).await;
    let start = Instant::now();
    while load.submit(unit(1)).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "it goes on without a session");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = within(load.finish()).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(_)) && error.is_retryable(), "{error}");
    before.assert_as_before("terminated").await;
    before.assert_usable().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spilled_files_that_are_taken_away_or_changed_end_the_load() {
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
async fn a_constraint_of_others_that_a_row_breaks_is_named() {
    let before = Before::new().await;
    before.run("create unique index one_each on mentions (upvotes)").await;
    let load = begun(&before.database, &before.settings).await;
    let error = within(load.finish()).await.unwrap_err();
    assert!(error.to_string().contains("one_each"), "{error}");
    before.run("drop index one_each").await;
    before.assert_as_before("a constraint").await;
    before.assert_usable().await;
}

// ---- others at the same time -----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_load_is_told_of_the_first_and_harms_nothing() {
    let before = Before::new().await;
    let first = begun(&before.database, &before.settings).await;
    let at_once = || before.database.config().lock_timeout(Duration::from_millis(300)).build().unwrap();
    let error = BulkLoad::begin(at_once(), before.settings.clone()).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(BulkStoreError::Locked { .. })) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("graphsink"), "{error}");
    // One that waits finds rows.
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
async fn what_comes_in_the_way_while_units_are_read_is_named_at_the_end() {
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
