//! Connections that other writers insert after the engine looked for them.

use graphsink::{Disposition, Mention, SourceType, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::assert_group_by;
use crate::support::{Database, as_of, within};

/// A unit with one connection and one mention for each dish.
fn unit(dishes: usize) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin").handle();
    for number in 0..dishes {
        let dish = unit.dish(dish(number)).handle();
        let connection = unit.connection(restaurant, dish).handle();
        let url = format!("https://example.org/{number}");
        unit.mention(connection, Mention::new(SourceType::Post, format!("t{number}"), url, "s", as_of()));
    }
    unit
}

fn dish(number: usize) -> String {
    format!("dish {number}")
}

/// Another program's transaction, with a connection that nobody else sees yet.
async fn insert(database: &Database, dish: &str) -> (Client, Uuid) {
    let client = database.client().await;
    client.batch_execute("begin").await.unwrap();
    let insert = "insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
                  select gen_random_uuid(), r.entity_id, d.entity_id, false
                  from entities r, entities d where r.name = 'franklin' and d.name = $1
                  returning connection_id";
    let id = client.query_one(insert, &[&dish]).await.unwrap().get(0);
    (client, id)
}

/// `ends`: what becomes of the other transactions, one after the other. Each has one connection of the unit.
async fn meet(dishes: usize, ends: &[&str]) {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut entities = UnitOfWork::new();
    entities.restaurant("franklin");
    for number in 0..dishes {
        entities.dish(dish(number));
    }
    assert!(within(engine.submit(entities).await.unwrap()).await.committed().is_some());
    let mut others = Vec::new();
    for (number, end) in ends.iter().enumerate() {
        let (client, id) = insert(&database, &dish(number)).await;
        others.push((client, id, *end));
    }

    let receipt = engine.submit(unit(dishes)).await.unwrap();
    let client = database.client().await;
    let waits = "select count(*) = 1 from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'";
    // In the order in which the engine meets them, which is that of random ids: as often as it waits, whoever it waits for.
    for _ in ends {
        within(async { while !client.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {} }).await;
        let blocker = "select unnest(pg_blocking_pids(pid)) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let blocker: i32 = client.query_one(blocker, &[]).await.unwrap().get(0);
        for (other, _, end) in &others {
            let pid: i32 = other.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
            if pid == blocker {
                other.batch_execute(end).await.unwrap();
            }
        }
    }
    let outcome = within(receipt).await;
    let committed = outcome.committed().unwrap_or_else(|| panic!("{outcome:?}"));
    for (number, row) in committed.connections.iter().enumerate() {
        match others.get(number) {
            Some((_, id, "commit")) => assert_eq!((row.id, row.disposition), (*id, Disposition::Updated), "{number}"),
            other => {
                assert_eq!(row.disposition, Disposition::Inserted, "{number}");
                assert!(other.is_none_or(|(_, id, _)| *id != row.id), "{number}");
            }
        }
    }
    assert!(committed.mentions.iter().all(|row| row.disposition == Disposition::Inserted));
    assert_eq!(committed.mentions.len(), dishes);
    assert_eq!(
        engine.stats().failed_attempts,
        0,
        "it goes back a step, no more: {:?} {dishes} {ends:?}",
        engine.stats()
    );
    let rows = "select (select count(*) from connections where mention_count = 1), (select count(*) from mentions)";
    let row = client.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (dishes as i64, dishes as i64));
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_somebody_else_inserts_meanwhile_is_found() {
    // One is inserted, three hundred are copied.
    for dishes in [1, 300] {
        meet(dishes, &["commit"]).await;
        meet(dishes, &["rollback"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_often_as_it_happens() {
    for dishes in [20, 300] {
        meet(dishes, &["commit", "rollback", "commit", "commit"]).await;
    }
}
