//! `refresh_activity` brings the figures that depend on time up to date.

use std::time::Duration;

use chrono::TimeDelta;
use graphsink::{Mention, SourceType, UnitOfWork};

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::support::{Database, as_of, commit, seed, within};

fn space() -> Space {
    Space { restaurants: 12, dishes: 12, attributes: 3, sources: 60, threads: 10, as_of: as_of() }
}

async fn load(engine: &graphsink::Engine, records: &[Record]) {
    for records in records.chunks(50) {
        commit(engine, model::unit(records, &Ids::default())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshing_gives_the_figures_of_the_new_time() {
    let records = generate::sample(seed("refresh"), space(), 1_500);
    let database = Database::migrated().await;
    let engine = database.engine().await;
    load(&engine, &records).await;
    let client = database.client().await;
    let connections = model::graph(&records, as_of()).connections.len() as u64;

    // Forward by hours (past a limit of "recent"), by weeks, far, and back.
    for hours in [1, 24 * 7, 24 * 24, 24 * 500, 0] {
        let now = as_of() + TimeDelta::hours(hours);
        let report = within(engine.refresh_activity(now)).await.unwrap();
        assert!(report.updated <= report.connections && report.connections <= connections, "{report:?}");
        assert_same(&model::graph(&records, now), &database::read(&client).await);
        assert_group_by(&client, now).await;
        let again = within(engine.refresh_activity(now)).await.unwrap();
        assert_eq!(again.updated, 0, "a second refresh updates nothing");
    }
    database.assert_no_deadlocks().await;
}

/// There are more connections than one step holds, and the last of them is refreshed as well as the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_updates_all_connections_in_steps_of_short_transactions() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let created_at = as_of() - TimeDelta::days(1);
    for restaurant in 0..25 {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant(format!("restaurant {restaurant}")).handle();
        for dish in 0..100 {
            let dish = unit.dish(format!("dish {dish}")).handle();
            let connection = unit.connection(restaurant, dish).handle();
            unit.mention(connection, Mention::new(SourceType::Post, "t1", "https://example.org", "food", created_at));
        }
        commit(&engine, unit).await;
    }
    // Another session has locked one of the last connections. A refresh that held all locks until its end would make
    // the first one wait as well.
    let later = as_of() + TimeDelta::days(40);
    let blocker = database.client().await;
    let last = "select connection_id from connections
                order by restaurant_id desc, dish_or_category_id desc, dish_attributes desc limit 1";
    blocker
        .batch_execute(&format!("begin; select 1 from connections where connection_id = ({last}) for update"))
        .await
        .unwrap();
    let refreshing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.refresh_activity(later).await }
    });
    let client = database.client().await;
    let refreshed = async || -> i64 {
        let query = "select count(*) from connections where activity_level = 'normal'";
        client.query_one(query, &[]).await.unwrap().get(0)
    };
    let first_steps = async {
        while refreshed().await < 1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(first_steps).await;
    assert!(refreshed().await < 2_500 && !refreshing.is_finished());
    blocker.batch_execute("rollback").await.unwrap();
    let report = within(refreshing).await.unwrap().unwrap();
    assert_eq!((report.connections, report.updated), (2_500, 2_500));
    assert_group_by(&client, later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_writes_no_row_that_is_up_to_date() {
    let records = generate::sample(seed("refresh, versions"), space(), 600);
    let database = Database::migrated().await;
    let engine = database.engine().await;
    load(&engine, &records).await;
    let client = database.client().await;
    within(engine.refresh_activity(as_of())).await.unwrap();
    let versions = "select string_agg(xmin::text, ',' order by connection_id) from connections";
    let before: String = client.query_one(versions, &[]).await.unwrap().get(0);
    within(engine.refresh_activity(as_of())).await.unwrap();
    let after: String = client.query_one(versions, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
}

/// Writers whose clock stands still, and a refresh to the same time: no figure is wrong at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_stay_right_while_a_refresh_and_writers_run() {
    let seed = seed("refresh under load");
    let records = generate::sample(seed, space(), 3_000);
    let later = as_of() + TimeDelta::days(20);
    let database = Database::migrated().await;
    let old = database.engine().await;
    load(&old, &records[..1_000]).await;

    let config = database.config().as_of(graphsink::AsOf::Fixed(later)).max_batch_rows(100).build().unwrap();
    let writer = graphsink::Engine::start(config).await.unwrap();
    let writing = tokio::spawn({
        let (writer, records) = (writer.clone(), records.clone());
        async move {
            let mut receipts = Vec::new();
            for records in records[1_000..].chunks(5) {
                receipts.push(writer.submit(model::unit(records, &Ids::default())).await.unwrap());
            }
            for receipt in receipts {
                assert!(within(receipt).await.committed().is_some());
            }
        }
    });
    let mut refreshes = 0;
    while !writing.is_finished() {
        within(old.refresh_activity(later)).await.unwrap();
        refreshes += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    within(writing).await.unwrap();
    assert!(refreshes > 0);
    within(old.refresh_activity(later)).await.unwrap();
    let client = database.client().await;
    assert_same(&model::graph(&records, later), &database::read(&client).await);
    assert_group_by(&client, later).await;
    database.assert_no_deadlocks().await;
}

/// The engine expects its written rows to exist. Where they do not, they are inserted again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_program_deleted_come_back_with_their_figures() {
    let records = generate::sample(seed("deleted connections"), space(), 1_500);
    let database = Database::migrated().await;
    let engine = database.engine().await;
    load(&engine, &records).await;
    let client = database.client().await;
    // Every second one, so that epochs have both kinds.
    client
        .batch_execute(
            "create temp table gone as
                 select connection_id from (select connection_id, row_number() over (order by connection_id) as n
                                            from connections) as c where n % 2 = 0;
             delete from mentions where connection_id in (select connection_id from gone);
             delete from connections where connection_id in (select connection_id from gone)",
        )
        .await
        .unwrap();
    let inserted = engine.stats().connections.inserted;
    load(&engine, &records).await;
    assert!(engine.stats().connections.inserted > inserted, "some rows were inserted again");
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}
