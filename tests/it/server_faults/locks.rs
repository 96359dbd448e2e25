//! Locks of other programs: in the wrong order, for too long, on all tables; and statements that take too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use graphsink::{Engine, Receipt, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use super::sqlstates::{Gate, record, unit};
use super::{Storm, assert_at_rest, config, engine, migrated, server, until, until_so};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, EntitySpec, Record};
use crate::support::{Database, as_of, commit, connect, seed, within};

/// Locks all connections one by one, against the engine's order; starts over as the victim of a deadlock.
async fn lock_in_reverse(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let all = "select connection_id from connections
                   order by restaurant_id desc, dish_or_category_id desc, dish_attributes desc limit 40";
        let ids: Vec<Uuid> = client.query(all, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        client.batch_execute("begin").await.unwrap();
        for id in ids {
            let lock = "select from connections where connection_id = $1 for update";
            if client.execute(lock, &[&id]).await.is_err() {
                break;
            }
        }
        client.batch_execute("rollback").await.unwrap();
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_never_deadlock_and_survive_a_third_writer_that_locks_in_reverse() {
    let seed = seed("deadlocks");
    let server = server(&[("deadlock_timeout", "20ms")]).await;
    let url = migrated(&server, "deadlocks").await;
    let engines = [engine(&url).await, engine(&url).await];
    let deadlocks = || server.read_log().unwrap().matches("deadlock detected").count();

    let storm = Storm::start(seed, &engines);
    storm.progress(1_000).await;
    assert_eq!(deadlocks(), 0, "the engines keep one order");
    let failed = || engines.iter().map(|engine| engine.stats().failed_attempts).sum::<u64>();
    assert_eq!(failed(), 0);

    let stop = Arc::new(AtomicBool::new(false));
    let hostile = tokio::spawn(lock_in_reverse(connect(&url).await, Arc::clone(&stop)));
    until_so("an engine is the victim of a deadlock", || failed() > 2).await;
    storm.progress(100).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = within(hostile).await.unwrap();
    let ledger = storm.stop().await;
    println!("{} units, {rounds} hostile rounds, {} deadlocks, {} retries", ledger.len(), deadlocks(), failed());
    assert!(deadlocks() > 0);
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

fn with_alias(restaurant: &str, alias: &str) -> Record {
    Record::Entity(EntitySpec {
        key: model::key(graphsink::EntityType::Restaurant, restaurant),
        by_id: false,
        aliases: vec![alias.to_owned()],
        attributes: Vec::new(),
        place: None,
    })
}

/// An engine with a lock timeout only as long as it takes to see it wait.
async fn impatient(database: &Database) -> Engine {
    let config = database.config().lock_timeout(Duration::from_millis(150)).in_flight_commits(3);
    Engine::start(config.build().unwrap()).await.unwrap()
}

async fn all_committed(receipts: Vec<Receipt>) {
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_another_program_holds_delays_only_the_units_that_touch_it() {
    for (name, lock) in [
        ("entity", "select from entities where name = 'held' for update"),
        ("connection", "select from connections for update"),
    ] {
        let database = Database::migrated().await;
        let engine = impatient(&database).await;
        let mut records = vec![with_alias("held", "first"), record("held", "first")];
        for record in &records {
            commit(&engine, unit(record)).await;
        }
        let holder = database.client().await;
        holder.batch_execute(&format!("begin; {lock}")).await.unwrap();

        let touching = if name == "entity" {
            with_alias("held", "second")
        } else {
            let Record::Mention(mut mention) = record("held", "second") else { unreachable!("it is a mention") };
            mention.source_id = "t2".to_owned();
            Record::Mention(mention)
        };
        let waiting = vec![engine.submit(unit(&touching)).await.unwrap()];
        records.push(touching);
        // Longer than the lock timeout, which fires again and again.
        let failed = engine.stats().failed_attempts;
        until_so("the lock timeout strikes", || engine.stats().failed_attempts >= failed + 3).await;
        for number in 0..30 {
            let record = record(&format!("restaurant {number}"), "fine");
            commit(&engine, unit(&record)).await;
            records.push(record);
        }
        assert_eq!(engine.stats().units_committed, 32, "{name}: only the unit that touches the row waits");
        holder.batch_execute("rollback").await.unwrap();
        all_committed(waiting).await;
        let client = database.client().await;
        assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
        assert_eq!(engine.stats().units_rejected, 0);
        assert_at_rest(&[engine], &client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_delays_all_units_and_rejects_none() {
    for table in ["entities", "connections", "mentions", "graphsink_attempts"] {
        let database = Database::migrated().await;
        let config = database.config().lock_timeout(Duration::from_millis(150)).in_flight_commits(1);
        let engine = Engine::start(config.build().unwrap()).await.unwrap();
        let first = record("first", "fine");
        commit(&engine, unit(&first)).await;
        let holder = database.client().await;
        holder.batch_execute(&format!("begin; lock table {table} in access exclusive mode")).await.unwrap();
        let mut records: Vec<Record> = (0..40).map(|number| record(&format!("restaurant {number}"), "fine")).collect();
        let mut receipts = Vec::new();
        for record in &records {
            receipts.push(engine.submit(unit(record)).await.unwrap());
        }
        until_so("the lock timeout strikes", || engine.stats().failed_attempts >= 3).await;
        assert_eq!(engine.stats().units_committed, 1, "{table}");
        holder.batch_execute("rollback").await.unwrap();
        all_committed(receipts).await;
        records.push(first);
        let client = database.client().await;
        assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
        assert_at_rest(&[engine], &client).await;
    }
}

/// A new session prepares its statements, for which it must lock the tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_locked_before_the_first_transaction_only_delays_it() {
    let database = Database::migrated().await;
    let engine = impatient(&database).await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table mentions in access exclusive mode").await.unwrap();
    let own = record("first", "fine");
    let receipt = engine.submit(unit(&own)).await.unwrap();
    let client = database.client().await;
    until(
        &client,
        "select exists (select from pg_stat_activity
                        where datname = current_database() and wait_event_type = 'Lock')",
    )
    .await;
    holder.batch_execute("rollback").await.unwrap();
    all_committed(vec![receipt]).await;
    assert_same(&model::graph(&[own], as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

/// A foreign key check takes `for key share` on its parent. That conflicts with updates of key columns only, so the
/// engine's updates must not name any, and its locks must be no stronger than `for no key update`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_of_children_and_updates_of_their_parents_never_wait_for_each_other() {
    let database = Database::migrated().await;
    let config = database.config().lock_timeout(Duration::from_secs(1)).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let mut records = vec![with_alias("parent", "first"), record("parent", "first")];
    for record in &records {
        commit(&engine, unit(record)).await;
    }
    let client = database.client().await;
    let other = database.client().await;

    // Another session adds children to every row while the engine changes these rows.
    other
        .batch_execute(
            "begin;
             insert into connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes, is_menu_item)
             select gen_random_uuid(), restaurant_id, dish_or_category_id, array[gen_random_uuid()], true
             from connections;
             insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                                   content_excerpt, upvotes, created_at, observed_at)
             select gen_random_uuid(), connection_id, 'post', 'other', 't', 'u', 's', '', 1, now(), now()
             from connections",
        )
        .await
        .unwrap();
    let Record::Mention(mut mention) = record("parent", "second") else { unreachable!("it is a mention") };
    mention.source_id = "t2".to_owned();
    let place = model::PlaceSpec {
        location: None,
        address: Some("here".to_owned()),
        google_place_id: Some("g1".to_owned()),
        metadata: None,
        observed_at: as_of(),
    };
    let Record::Entity(mut placed) = with_alias("parent", "second") else { unreachable!("it is an entity") };
    placed.place = Some(place);
    for record in [Record::Entity(placed), with_alias("brisket", "third"), Record::Mention(mention)] {
        commit(&engine, unit(&record)).await;
        records.push(record);
    }
    other.batch_execute("rollback").await.unwrap();

    // Another session changes every row as the engine does, while the engine adds children.
    other
        .batch_execute(
            "begin;
             update entities set last_updated = now();
             select from connections for no key update",
        )
        .await
        .unwrap();
    let mut unit_of_new = UnitOfWork::new();
    let (restaurant, dish) = (unit_of_new.restaurant("parent").handle(), unit_of_new.dish("new dish").handle());
    let attribute = unit_of_new.dish_attribute("smoky").handle();
    unit_of_new.connection(restaurant, dish).dish_attribute(attribute).handle();
    commit(&engine, unit_of_new).await;
    other.batch_execute("rollback").await.unwrap();
    records.push(Record::Connection(model::ConnectionSpec {
        key: model::ConnectionKey {
            restaurant: "parent".to_owned(),
            dish: "new dish".to_owned(),
            dish_attributes: ["smoky".to_owned()].into(),
        },
        by_id: false,
        ends_by_id: false,
        categories: Vec::new(),
        is_menu_item: true,
    }));

    assert_eq!(engine.stats().failed_attempts, 0, "no transaction waited for a lock");
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_too_long_is_halved_until_it_fits_the_timeout() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client
        .batch_execute(
            "create function slow() returns trigger language plpgsql as $$
             begin perform pg_sleep(0.02); return new; end $$;
             create trigger slow before insert on mentions for each row execute function slow()",
        )
        .await
        .unwrap();
    let config = config(&database.url).statement_timeout(Duration::from_millis(500)).in_flight_commits(1);
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let (gate, waiting) = Gate::close(&database, &engine).await;
    let mut records: Vec<Record> = (0..64).map(|number| record(&format!("restaurant {number}"), "fine")).collect();
    let mut receipts = vec![waiting];
    for record in &records {
        receipts.push(engine.submit(unit(record)).await.unwrap());
    }
    gate.open().await;
    all_committed(receipts).await;
    let stats = engine.stats();
    println!("{} failed attempts, {} epochs", stats.failed_attempts, stats.epochs);
    assert!(stats.failed_attempts > 0, "64 rows of 20 ms take longer than 500 ms");
    // The whole batch, its halves and perhaps its quarters, each tried twice, and the gate's own wait.
    assert!(stats.failed_attempts <= 2 * 7 + 8, "{stats:?}");
    assert_eq!(stats.units_rejected, 0);
    records.push(Gate::record());
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// The engine's own waits between sessions are no failures: many sessions, few rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_all_tables_delays_no_unit() {
    let seed = seed("reader");
    let database = Database::migrated().await;
    let engine = database.small_engine(60, 2).await;
    let reader = database.client().await;
    // The locks of a dump: a snapshot, and share locks on all tables.
    reader
        .batch_execute(
            "begin isolation level repeatable read read only;
             lock table entities, connections, mentions, graphsink_attempts in access share mode;
             select count(*) from mentions",
        )
        .await
        .unwrap();
    let storm = Storm::start(seed, std::slice::from_ref(&engine));
    storm.progress(300).await;
    let ledger = storm.stop().await;
    until(&reader, "select count(*) = 0 from mentions").await;
    reader.batch_execute("commit").await.unwrap();
    ledger.assert_all_committed();
    assert_eq!(engine.stats().failed_attempts, 0);
    let client = database.client().await;
    ledger.check(&client).await;
    assert_at_rest(&[engine], &client).await;
}
