//! The fate of a load can be asked for until it has been reported, also where the future of `finish` was dropped.

use std::time::Duration;

use graphsink::{BulkEnd, BulkError, BulkLoad, BulkPhase, BulkStoreError, SpillError};
use tokio::task::JoinHandle;

use super::handle::unit;
use super::{TINY, config, left_in, load, rows, settings, until};
use crate::support::{Database, within};

const ROWS: [i64; 3] = [47, 280, 300];

/// The commit of a load takes two seconds, in which the server shows that it sleeps.
const SLOW: &str = "create function dawdle() returns trigger language plpgsql as
                        $$ begin perform pg_sleep(2); return null; end $$;
                    create constraint trigger dawdle after insert on graphsink_attempts
                        deferrable initially deferred for each row execute function dawdle()";

async fn begun(database: &Database) -> (tempfile::TempDir, BulkLoad) {
    let (directory, settings) = settings(TINY);
    let load = BulkLoad::begin(config(database), settings).await.unwrap();
    for number in 0..ROWS[2] as usize {
        load.submit(unit(number)).await.unwrap();
    }
    (directory, load)
}

/// A load that waits for the answer to its commit.
async fn committing(database: &Database) -> (tempfile::TempDir, BulkLoad, JoinHandle<Result<(), BulkError>>) {
    let client = database.client().await;
    client.batch_execute(SLOW).await.unwrap();
    let (directory, load) = begun(database).await;
    let finished = load.clone();
    let finishing = tokio::spawn(async move { finished.finish().await.map(drop) });
    let sleeps = "select exists (select from pg_stat_activity where query = 'commit' and wait_event = 'PgSleep'
                                 and datname = current_database())";
    until(&client, sleeps).await;
    assert_eq!(load.progress().phase, BulkPhase::Committing);
    (directory, load, finishing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_after_the_commit_returns_the_report() {
    let database = Database::migrated().await;
    let (directory, load, finishing) = committing(&database).await;
    finishing.abort();
    assert!(finishing.await.unwrap_err().is_cancelled());
    let watched = load.clone();
    let end = within(load.abort()).await;
    let BulkEnd::Committed(report) = &end else { panic!("{end:?}") };
    assert_eq!((report.units, report.mentions.written), (300, 300));
    assert_eq!(report.outcomes().unwrap().unwrap().count(), 300, "the files of the outcomes exist as well");
    assert_eq!(rows(&database.client().await).await, ROWS);
    assert_eq!(watched.progress().phase, BulkPhase::Ended);
    assert!(matches!(within(watched.abort()).await, BulkEnd::Told), "once");
    drop(end);
    assert_eq!(left_in(&directory), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_dropped_after_the_commit_can_be_called_again() {
    let database = Database::migrated().await;
    let (_directory, load, finishing) = committing(&database).await;
    finishing.abort();
    assert!(finishing.await.unwrap_err().is_cancelled());
    assert_eq!(within(load.finish()).await.unwrap().committed, 300);
    assert_eq!(rows(&database.client().await).await, ROWS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_on_a_clone_returns_the_report_that_an_abort_does_not() {
    let database = Database::migrated().await;
    let (_directory, load, finishing) = committing(&database).await;
    assert!(matches!(load.clone().finish().await, Err(BulkError::Ended)), "one `finish` at a time");
    assert!(matches!(within(load.abort()).await, BulkEnd::Told));
    within(finishing).await.unwrap().unwrap();
    assert_eq!(rows(&database.client().await).await, ROWS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_does_not_wait_for_an_unpolled_future_of_finish() {
    let database = Database::migrated().await;
    let (_directory, load) = begun(&database).await;
    let mut finishing = Box::pin(load.clone().finish());
    let polled = tokio::time::timeout(Duration::from_millis(1), &mut finishing).await;
    assert!(polled.is_err(), "the commit takes longer");
    assert!(matches!(within(load.abort()).await, BulkEnd::Told));
    assert!(matches!(within(finishing).await, Err(BulkError::Aborted)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_of_a_failed_load_returns_the_reason() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let (_directory, load) = begun(&database).await;
    let end = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
               where application_name = 'graphsink' and datname = current_database()";
    until(&client, end).await;
    while load.submit(unit(1)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let watched = load.clone();
    let end = within(load.abort()).await;
    assert!(matches!(end, BulkEnd::Failed(BulkError::Store(BulkStoreError::Store(_)))), "{end:?}");
    assert_eq!(watched.progress().phase, BulkPhase::Ended);

    let (_directory, load) = begun(&database).await;
    let watched = load.clone();
    let end = within(load.abort()).await;
    assert!(matches!(end, BulkEnd::Aborted), "{end:?}");
    assert_eq!(watched.progress().phase, BulkPhase::Ended);
    assert_eq!(rows(&client).await, [0; 3]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_with_too_little_space_for_the_input_is_an_error_at_the_beginning() {
    let database = Database::migrated().await;
    let (directory, settings) = settings(TINY);
    let absurd = settings.clone().expected_input_bytes(1 << 60);
    let error = BulkLoad::begin(config(&database), absurd).await.unwrap_err();
    assert!(matches!(error, BulkError::Spill(SpillError::NoRoom { .. })), "{error}");
    let expected = format!("{} has ", directory.path().display());
    assert!(error.to_string().starts_with(&expected) && error.to_string().contains("make room"), "{error}");
    assert_eq!(left_in(&directory), Vec::<String>::new());
    let report = load(&database, settings.expected_input_bytes(1 << 20), (0..50).map(unit)).await.unwrap();
    assert_eq!(report.committed, 50);
}
