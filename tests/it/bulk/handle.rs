//! The handle: numbers, clones, waiting and reports.

use futures::FutureExt;
use graphsink::{BulkError, BulkLoad, BulkPhase, BulkStoreError, Mention, SourceType, SpillError, Table, UnitOfWork};

use super::{TINY, catalog, config, left_in, load, rows, settings, until_gone};
use crate::support::{Database, as_of, commit, within};

/// A unit with a mention of its own.
pub(crate) fn unit(number: usize) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(format!("restaurant {}", number % 40)).handle();
    let dish = unit.dish(format!("dish {}", number % 7)).handle();
    let connection = unit.connection(restaurant, dish).handle();
    let mention =
        Mention::new(SourceType::Post, format!("t3_{number}"), "https://example.org/x", "food", as_of()).upvotes(3);
    unit.mention(connection, mention.excerpt("x".repeat(200)));
    unit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_submit_at_once_and_room_for_one_unit_is_enough() {
    let database = Database::migrated().await;
    let (directory, settings) = settings(1);
    let load = BulkLoad::begin(config(&database), settings).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let load = load.clone();
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for number in 0..40 {
                    numbers.push(within(load.submit(unit(task * 40 + number))).await.unwrap());
                }
                numbers
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        let own = task.await.unwrap();
        assert!(own.is_sorted(), "numbers of one task are in its order");
        numbers.extend(own);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..320).collect::<Vec<u64>>());
    let progress = load.progress();
    assert_eq!((progress.phase, progress.units, progress.rejected), (BulkPhase::Reading, 320, 0));
    assert!(progress.spilled_bytes > 0);
    let report = within(load.finish()).await.unwrap();
    assert_eq!((report.committed, report.mentions.written), (320, 320));
    assert_eq!(rows(&database.client().await).await, [47, 280, 320]);
    let phases: Vec<&str> = report.phases.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(phases, ["reading", "sorting", "preparing", "writing", "building", "replacing", "committing"]);
    drop(report);
    assert_eq!(left_in(&directory), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_units_writes_no_rows() {
    let database = Database::migrated().await;
    let (_directory, settings) = settings(1 << 20);
    let report = load(&database, settings.keep_outcomes(false), []).await.unwrap();
    assert_eq!((report.units, report.entities.written), (0, 0));
    assert_eq!(report.rejections().unwrap().count(), 0);
    assert!(report.outcomes().unwrap().is_none(), "the outcomes were not requested");
    assert_eq!(rows(&database.client().await).await, [0; 3]);
    commit(&database.engine().await, unit(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_accept_no_units_once_one_is_finished() {
    let database = Database::migrated().await;
    let (_directory, settings) = settings(TINY);
    let load = BulkLoad::begin(config(&database), settings).await.unwrap();
    let other = load.clone();
    load.submit(unit(1)).await.unwrap();
    let _report = within(load.finish()).await.unwrap();
    assert!(matches!(other.submit(unit(2)).await, Err(BulkError::Ended)));
    assert_eq!(other.progress().phase, BulkPhase::Ended);
    assert!(matches!(within(other.clone().finish()).await, Err(BulkError::Ended)));
    within(other.abort()).await;
    assert_eq!(rows(&database.client().await).await, [2, 1, 1], "the commit stands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_submit_withdraws_only_its_own_unit() {
    let database = Database::migrated().await;
    let (_directory, settings) = settings(1);
    let load = BulkLoad::begin(config(&database), settings).await.unwrap();
    let mut accepted = 0;
    for number in 0..200 {
        // With room for one unit at a time, some of the tasks must wait.
        if let Some(taken) = load.submit(unit(number)).now_or_never() {
            assert_eq!(taken.unwrap(), accepted);
            accepted += 1;
        }
    }
    println!("{accepted} of 200 were accepted at once");
    assert!((1..200).contains(&accepted));
    let report = within(load.finish()).await.unwrap();
    assert_eq!((report.units, report.mentions.written), (accepted, accepted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_break_a_rule_are_refused_without_a_number() {
    let database = Database::migrated().await;
    let (_directory, settings) = settings(TINY);
    let load = BulkLoad::begin(config(&database), settings).await.unwrap();
    let mut blank = UnitOfWork::new();
    blank.dish(" ").handle();
    let error = load.submit(blank).await.unwrap_err();
    assert!(matches!(error, BulkError::Invalid(_)), "{error}");
    assert_eq!(load.submit(unit(1)).await.unwrap(), 0, "a refused unit takes no number");
    assert_eq!(within(load.finish()).await.unwrap().units, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn obstacles_are_named_at_the_beginning_and_nothing_is_left() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let (directory, settings) = settings(TINY);
    let engine = database.engine().await;
    commit(&engine, unit(1)).await;
    super::close(engine).await;
    let error = BulkLoad::begin(config(&database), settings.clone()).await.unwrap_err();
    let BulkError::Store(BulkStoreError::NotEmpty { tables }) = &error else { panic!("{error}") };
    assert_eq!(*tables, Table::ALL);
    assert!(!error.is_retryable());
    until_gone(&client).await;
    assert_eq!(left_in(&directory), Vec::<String>::new());
    assert_eq!(rows(&client).await, [2, 1, 1]);

    client.batch_execute("truncate entities, connections, mentions").await.unwrap();
    let veto = "create function veto() returns trigger language plpgsql as $$ begin return new; end $$;
                create trigger veto before insert on mentions for each row execute function veto()";
    client.batch_execute(veto).await.unwrap();
    let error = BulkLoad::begin(config(&database), settings.clone()).await.unwrap_err();
    assert!(error.to_string().contains("the trigger veto on mentions"), "{error}");
    client.batch_execute("drop trigger veto on mentions").await.unwrap();

    for nowhere in ["/proc", "/nowhere/at/all"] {
        let elsewhere = settings.clone().spill_directory(nowhere);
        let error = BulkLoad::begin(config(&database), elsewhere).await.unwrap_err();
        assert!(matches!(error, BulkError::Spill(SpillError::Directory { .. })), "{error}");
        assert!(error.to_string().contains(nowhere), "{error}");
    }

    // Additions that can be kept are kept.
    let additions = "create index mine on mentions (author, upvotes desc) where upvotes > 5;
                     alter table connections add constraint mine_too unique (connection_id, mention_count)";
    client.batch_execute(additions).await.unwrap();
    let before = catalog::dump(&client, "public").await;
    assert_eq!(load(&database, settings, (0..50).map(unit)).await.unwrap().committed, 50);
    catalog::assert_same_catalog("loaded", &before, &catalog::dump(&client, "public").await);
}
