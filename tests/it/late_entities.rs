//! Entities that other writers insert after the engine looked for them.

use graphsink::{Disposition, Outcome, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::assert_group_by;
use crate::support::{Database, as_of, commit, within};

fn name(number: usize) -> String {
    format!("dish {number:04}")
}

/// Another program's transaction, with a dish that is not visible to others yet.
async fn insert(database: &Database, name: &str) -> (Client, Uuid) {
    let client = database.client().await;
    client.batch_execute("begin").await.unwrap();
    let insert = "insert into entities (entity_id, type, name, aliases)
                  values (gen_random_uuid(), 'dish_or_category', $1, '{theirs}') returning entity_id";
    let id = client.query_one(insert, &[&name]).await.unwrap().get(0);
    (client, id)
}

/// Waits until a transaction waits for that of `blocker`.
async fn is_waited_for(client: &Client, blocker: &Client) {
    let pid: i32 = blocker.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let waits = "select exists (select from pg_stat_activity
                 where datname = current_database() and $1 = any(pg_blocking_pids(pid)))";
    while !client.query_one(waits, &[&pid]).await.unwrap().get::<_, bool>(0) {}
}

/// A unit of so many new dishes, each with an alias, and of one dish that exists and gets another alias, while others
/// insert the first ones. `ends`: whether they commit.
async fn meet(dishes: usize, ends: &[&str]) {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    let mut known = UnitOfWork::new();
    known.dish("known").alias("old");
    commit(&engine, known).await;
    let mut others = Vec::new();
    for (number, end) in ends.iter().enumerate() {
        let (other, id) = insert(&database, &name(number)).await;
        others.push((other, id, *end));
    }
    let mut unit = UnitOfWork::new();
    (0..dishes).for_each(|number| _ = unit.dish(name(number)).alias("ours").handle());
    unit.dish("known").alias("new");
    let receipt = engine.submit(unit).await.unwrap();
    for (other, _, end) in &others {
        within(is_waited_for(&client, other)).await;
        other.batch_execute(end).await.unwrap();
    }
    let outcome = within(receipt).await;
    let committed = outcome.committed().unwrap_or_else(|| panic!("{outcome:?}"));
    for (number, row) in committed.entities[..dishes].iter().enumerate() {
        match others.get(number) {
            Some((_, id, "commit")) => assert_eq!((row.id, row.disposition), (*id, Disposition::Updated), "{number}"),
            other => {
                assert_eq!(row.disposition, Disposition::Inserted, "{number}");
                assert!(other.is_none_or(|(_, id, _)| *id != row.id), "{number}");
            }
        }
    }
    assert_eq!(committed.entities[dishes].disposition, Disposition::Updated);
    assert_eq!(engine.stats().failed_attempts, 0, "the transaction goes back to its savepoint only: {dishes} {ends:?}");
    let aliases = "select name, aliases from entities where aliases <> '{ours}' order by name";
    let mut expected: Vec<(String, Vec<&str>)> = (0..)
        .zip(ends)
        .filter(|(_, end)| **end == "commit")
        .map(|(number, _)| (name(number), vec!["ours", "theirs"]))
        .collect();
    expected.push(("known".to_owned(), vec!["new", "old"]));
    let rows = client.query(aliases, &[]).await.unwrap();
    let stored: Vec<(String, Vec<&str>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(stored, expected);
    let count: i64 = client.query_one("select count(*) from entities", &[]).await.unwrap().get(0);
    assert_eq!(count, dishes as i64 + 1);
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_another_writer_inserts_meanwhile_is_used() {
    // One entity is inserted, three hundred are copied.
    for dishes in [1, 300] {
        meet(dishes, &["commit"]).await;
        meet(dishes, &["rollback"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_entities_inserted_by_other_writers_one_after_another_are_used() {
    for dishes in [20, 300] {
        meet(dishes, &["commit", "rollback", "commit", "commit"]).await;
    }
}

/// A trigger turns the inserted entity into another one, which exists already: no lookup finds it by its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_entity_always_conflicts_is_rejected_alone() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    let unit = |name: &str| {
        let mut unit = UnitOfWork::new();
        unit.dish(name).handle();
        unit
    };
    commit(&engine, unit("soup")).await;
    let rewrite = "create function rewrite() returns trigger language plpgsql as $$ begin
                       if new.name = 'broth' then new.name := 'soup'; end if;
                       return new;
                   end $$;
                   create trigger rewrite before insert on entities for each row execute function rewrite()";
    client.batch_execute(rewrite).await.unwrap();
    let (refused, taken) = (engine.submit(unit("broth")).await.unwrap(), engine.submit(unit("stew")).await.unwrap());
    assert!(within(taken).await.committed().is_some(), "no other unit is rejected");
    let outcome = within(refused).await;
    let Outcome::Rejected(rejection) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&*rejection.sqlstate, rejection.constraint.as_deref()), ("23505", Some("entities_name_type_key")));
}

/// Two engines insert the same entities and change the same others, in opposite orders of submission. With one order of
/// locks one of them waits for the other, and neither for ever.
#[tokio::test(flavor = "multi_thread")]
async fn engines_that_insert_and_change_the_same_entities_do_not_deadlock() {
    let database = Database::migrated().await;
    let engines = [database.engine().await, database.engine().await];
    for round in 0..6 {
        // Alternately few, which are inserted, and many, which are copied.
        let dishes = if round % 2 == 0 { 10 } else { 200 };
        let units = [false, true].map(|reversed| {
            let mut unit = UnitOfWork::new();
            let mut numbers: Vec<usize> = (0..2 * dishes).collect();
            if reversed {
                numbers.reverse();
            }
            for number in numbers {
                // The first half was inserted two rounds before, the second half is new.
                unit.dish(format!("{dishes} {:04}", number + round / 2 * dishes)).alias(format!("{round} {reversed}"));
            }
            unit
        });
        let [first, second] = units;
        let receipts = (engines[0].submit(first).await.unwrap(), engines[1].submit(second).await.unwrap());
        let outcomes = futures::future::join(within(receipts.0), within(receipts.1)).await;
        assert!(outcomes.0.committed().is_some() && outcomes.1.committed().is_some(), "{outcomes:?}");
    }
    let lacking = "select count(*) from entities where cardinality(aliases) not in (2, 4)";
    let client = database.client().await;
    assert_eq!(client.query_one(lacking, &[]).await.unwrap().get::<_, i64>(0), 0, "each dish has every alias");
    database.assert_no_deadlocks().await;
}
