//! Connections that other writers insert after the engine looked for them.

use graphsink::{Disposition, Mention, Outcome, SourceType, UnitOfWork};
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

/// Another program's transaction, with a connection that is not visible to others yet.
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

/// `ends`: whether the other transactions commit, one after the other. Each has one connection of the unit.
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
    let mut at_work = Vec::new();
    for (other, _, end) in &others {
        let pid: i32 = other.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        at_work.push((pid, other, *end));
    }
    // In the order in which the engine meets them, which is that of random ids.
    let meeting = async {
        while !at_work.is_empty() {
            let blockers = "select distinct unnest(pg_blocking_pids(pid)) from pg_stat_activity
                        where datname = current_database() and wait_event_type = 'Lock'";
            let rows = client.query(blockers, &[]).await.unwrap();
            let blockers: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
            let Some(place) = at_work.iter().position(|(pid, ..)| blockers.contains(pid)) else { continue };
            let (_, other, end) = at_work.swap_remove(place);
            other.batch_execute(end).await.unwrap();
        }
    };
    within(meeting).await;
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
        "the transaction goes back to its savepoint only: {:?} {dishes} {ends:?}",
        engine.stats()
    );
    let rows = "select (select count(*) from connections where mention_count = 1), (select count(*) from mentions)";
    let row = client.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (dishes as i64, dishes as i64));
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_another_writer_inserts_meanwhile_is_used() {
    // One connection is inserted, three hundred are copied.
    for dishes in [1, 300] {
        meet(dishes, &["commit"]).await;
        meet(dishes, &["rollback"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_connections_inserted_by_other_writers_one_after_another_are_used() {
    for dishes in [20, 300] {
        meet(dishes, &["commit", "rollback", "commit", "commit"]).await;
    }
}

/// A trigger turns the inserted connection into another one, which always exists already.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_connection_always_conflicts_is_rejected_alone() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    assert!(within(engine.submit(unit(2)).await.unwrap()).await.committed().is_some());
    let client = database.client().await;
    let rewrite = "create function rewrite() returns trigger language plpgsql as $$ begin
                       if (select name from entities where entity_id = new.dish_or_category_id) = 'dish 2' then
                           select entity_id into new.dish_or_category_id from entities where name = 'dish 1';
                       end if;
                       return new;
                   end $$;
                   create trigger rewrite before insert on connections for each row execute function rewrite()";
    client.batch_execute(rewrite).await.unwrap();
    let mut other = UnitOfWork::new();
    let (restaurant, dish) = (other.restaurant("uchi").handle(), other.dish("maki").handle());
    other.connection(restaurant, dish);
    let refused = engine.submit(unit(3)).await.unwrap();
    let taken = engine.submit(other).await.unwrap();
    assert!(within(taken).await.committed().is_some(), "no other unit is rejected");
    let outcome = within(refused).await;
    let Outcome::Rejected(rejection) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&*rejection.sqlstate, rejection.constraint.as_deref()), ("23505", Some("connections_key")));
}

/// A trigger of the database's owner creates a connection for each new restaurant, in the transaction that inserts it.
/// The engine does not look for such a connection, because no other transaction can have created it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_a_trigger_inserts_is_used_or_rejected_without_a_wait() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    within(engine.submit(unit(1)).await.unwrap()).await.committed().unwrap();
    client
        .batch_execute(
            "create function make() returns trigger language plpgsql as $$ begin
                 insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
                 select gen_random_uuid(), new.entity_id, entity_id, false from entities where name = 'dish 0';
                 return null; end $$;
             create trigger make after insert on entities for each row when (new.type = 'restaurant')
                 execute function make()",
        )
        .await
        .unwrap();
    // Beside a connection that is looked for there is a savepoint to go back to.
    let mut both = unit(1);
    let (new, known) = (both.restaurant("snow's").handle(), both.dish(dish(0)).handle());
    both.connection(new, known).handle();
    let outcome = within(engine.submit(both).await.unwrap()).await;
    let committed = outcome.committed().unwrap_or_else(|| panic!("{outcome:?}"));
    assert_eq!(committed.connections[1].disposition, Disposition::Updated);
    assert_group_by(&client, as_of()).await;

    let mut alone = UnitOfWork::new();
    let (new, known) = (alone.restaurant("micklethwait").handle(), alone.dish(dish(0)).handle());
    alone.connection(new, known).handle();
    match within(engine.submit(alone).await.unwrap()).await {
        Outcome::Rejected(rejection) => assert_eq!(rejection.sqlstate, "23505"),
        other => panic!("{other:?}"),
    }
}
