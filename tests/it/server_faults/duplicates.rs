//! The same unit several times: at the same time, in one batch, through two engines, again after its outcome.

use graphsink::{Committed, CommittedRow, Disposition, Engine};

use super::sqlstates::{Gate, record, unit};
use super::{Storm, assert_at_rest, engine, migrated, server};
use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::support::{Database, as_of, connect, seed, within};

fn rows(committed: &Committed) -> impl Iterator<Item = &CommittedRow> {
    [&committed.entities, &committed.connections, &committed.mentions].into_iter().flatten()
}

fn ids(committed: &Committed) -> Vec<uuid::Uuid> {
    rows(committed).map(|row| row.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_twice_in_one_batch_is_written_once_with_two_equal_outcomes() {
    let database = Database::migrated().await;
    let engine = database.small_engine(100_000, 1).await;
    let (gate, waiting) = Gate::close(&database, &engine).await;
    let own = record("franklin bbq", "fine");
    let mut receipts = Vec::new();
    for _ in 0..5 {
        receipts.push(engine.submit(unit(&own)).await.unwrap());
    }
    let epochs = engine.stats().epochs;
    gate.open().await;
    assert!(within(waiting).await.committed().is_some());
    let mut told = Vec::new();
    for receipt in receipts {
        told.push(within(receipt).await.into_result().unwrap());
    }
    assert!(told.iter().all(|committed| ids(committed) == ids(&told[0])));
    assert!(told.iter().flat_map(rows).all(|row| row.disposition == Disposition::Inserted));
    assert_eq!(engine.stats().epochs, epochs + 2, "the epoch of the gate, and one for all five units");
    assert_eq!(engine.stats().mentions.inserted, 1);
    let again = within(engine.submit(unit(&own)).await.unwrap()).await.into_result().unwrap();
    assert_eq!(ids(&again), ids(&told[0]));
    assert!(rows(&again).all(|row| row.disposition == Disposition::Unchanged), "{again:?}");
    let client = database.client().await;
    assert_same(&model::graph(&[own, Gate::record()], as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// In any order, one of the transactions inserts each row, and all report the same ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_through_several_engines_at_once_is_written_once() {
    let database = Database::migrated().await;
    let engines = [database.small_engine(8, 3).await, database.small_engine(8, 3).await];
    let mut records = Vec::new();
    for number in 0..40 {
        let own = record(&format!("restaurant {number}"), "fine");
        let submit = |engine: &Engine| {
            let (engine, unit) = (engine.clone(), unit(&own));
            tokio::spawn(async move { engine.submit(unit).await.unwrap().await.into_result().unwrap() })
        };
        let racing = [submit(&engines[0]), submit(&engines[1]), submit(&engines[0]), submit(&engines[1])];
        let mut told = Vec::new();
        for task in racing {
            told.push(within(task).await.unwrap());
        }
        assert!(told.iter().all(|committed| ids(committed) == ids(&told[0])), "{told:?}");
        records.push(own);
    }
    let inserted: u64 = engines.iter().map(|engine| engine.stats().mentions.inserted).sum();
    assert_eq!(inserted, 40, "each mention was inserted by one transaction");
    let client = database.client().await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
    assert_at_rest(&engines, &client).await;
}

/// Submitting everything again, through another engine and in other units, changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_repeated_through_another_engine_changes_nothing() {
    let seed = seed("said again");
    let server = server(&[]).await;
    let url = migrated(&server, "again").await;
    let first = engine(&url).await;
    let storm = Storm::start(seed, std::slice::from_ref(&first));
    storm.progress(300).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    let before = client.query("select mention_id, xmin::text from mentions order by 1", &[]).await.unwrap();

    let second = engine(&url).await;
    let records: Vec<Record> = (0..ledger.len()).flat_map(|number| ledger.supply.records(number)).collect();
    let mut receipts = Vec::new();
    for chunk in records.rchunks(7) {
        receipts.push(second.submit(model::unit(chunk, &Ids::default())).await.unwrap());
    }
    for receipt in receipts {
        let committed = within(receipt).await.into_result().unwrap();
        assert!(rows(&committed).all(|row| row.disposition == Disposition::Unchanged), "{committed:?}");
    }
    let after = client.query("select mention_id, xmin::text from mentions order by 1", &[]).await.unwrap();
    let text = |rows: &[tokio_postgres::Row]| {
        rows.iter().map(|row| (row.get::<_, uuid::Uuid>(0), row.get::<_, String>(1))).collect::<Vec<_>>()
    };
    assert_eq!(text(&before), text(&after), "not a row has a new version");
    ledger.check(&client).await;
    assert_at_rest(&[first, second], &client).await;
}

/// Several engines submit the same records at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_history_through_several_engines_at_once_is_written_once() {
    let seed = seed("said at once");
    let database = Database::migrated().await;
    let records = generate::sample(seed, Space::tiny(as_of()), 400);
    let mut engines = Vec::new();
    let mut tasks = Vec::new();
    for size in [3, 4, 7] {
        let engine = database.small_engine(50, 2).await;
        engines.push(engine.clone());
        let units: Vec<_> = records.chunks(size).map(|chunk| model::unit(chunk, &Ids::default())).collect();
        tasks.push(tokio::spawn(async move {
            let mut receipts = Vec::new();
            for unit in units {
                receipts.push(engine.submit(unit).await.unwrap());
            }
            for receipt in receipts {
                let outcome = within(receipt).await;
                assert!(outcome.committed().is_some(), "{outcome:?}");
            }
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    let client = database.client().await;
    let graph = database::read(&client).await;
    let inserted: u64 = engines.iter().map(|engine| engine.stats().mentions.inserted).sum();
    assert_eq!(inserted as usize, graph.mentions.len());
    assert_same(&model::graph(&records, as_of()), &graph);
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
    assert_at_rest(&engines, &client).await;
}
