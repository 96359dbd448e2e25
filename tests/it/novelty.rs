//! Names and connections that an engine takes to be new, because none that it had not met was stored of late.

use graphsink::{
    Committed, CommittedRow, Disposition, Engine, EntityKey, EntityMerge, EntityType, Mention, MergeOutcome, Outcome,
    SourceType, UnitOfWork,
};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::assert_group_by;
use crate::support::{Database, as_of, commit, within};

/// What an engine must find absent before it guesses.
const ENOUGH: usize = 1_000;

/// A unit with a connection of this restaurant and a mention for each dish.
fn unit(restaurant: &str, dishes: &[String]) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(restaurant).handle();
    for dish in dishes {
        let dish = unit.dish(dish).alias("ours").handle();
        let connection = unit.connection(restaurant, dish).handle();
        unit.mention(connection, Mention::new(SourceType::Post, "m", "https://example.org", "s", as_of()));
    }
    unit
}

fn dishes(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}

/// An engine that guesses; each row that it tries to insert draws a number.
async fn guessing(database: &Database) -> Engine {
    let (engine, client) = (database.engine().await, database.client().await);
    let many = dishes("dish", ENOUGH);
    let mut entities = UnitOfWork::new();
    entities.restaurant("uchi");
    for dish in &many {
        entities.dish(dish);
    }
    commit(&engine, entities).await;
    commit(&engine, unit("uchi", &many)).await;
    let count = "create sequence tried;
        alter table entities add column tried bigint default nextval('tried');
        alter table connections add column tried bigint default nextval('tried')";
    client.batch_execute(count).await.unwrap();
    engine
}

/// Number of rows of entities and connections that were tried to insert since the last call.
async fn tried(client: &Client) -> i64 {
    let tried: i64 = client.query_one("select nextval('tried')", &[]).await.unwrap().get(0);
    client.batch_execute("alter sequence tried restart").await.unwrap();
    tried - 1
}

/// Another program's restaurant and dish, with a connection.
async fn insert(client: &Client, restaurant: &str, dish: &str) -> Uuid {
    let ids = [("restaurant", restaurant), ("dish_or_category", dish)].map(|(of, name)| async move {
        let insert = "with own as (insert into entities (entity_id, type, name, aliases)
                          values (gen_random_uuid(), $1::text::entity_type, $2, '{theirs}')
                          on conflict (name, type) do nothing returning entity_id)
                      select entity_id from own union all
                      select entity_id from entities where name = $2 and type::text = $1";
        client.query_one(insert, &[&of, &name]).await.unwrap().get::<_, Uuid>(0)
    });
    let [restaurant, dish] = ids;
    let insert = "insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
                  values (gen_random_uuid(), $1, $2, true) returning connection_id";
    client.query_one(insert, &[&restaurant.await, &dish.await]).await.unwrap().get(0)
}

fn inserted(rows: &[CommittedRow]) -> usize {
    rows.iter().filter(|row| row.disposition == Disposition::Inserted).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_inserted_is_used_although_it_was_taken_to_be_new() {
    // Some rows are inserted, many are copied.
    for count in [2, 300] {
        let database = Database::migrated().await;
        let (engine, client) = (guessing(&database).await, database.client().await);
        // A guess that is right: nothing is tried twice.
        tried(&client).await;
        let right = commit(&engine, unit("right", &dishes("right", count))).await;
        assert_eq!((inserted(&right.entities), inserted(&right.connections)), (count + 1, count));
        assert_eq!(tried(&client).await, 2 * count as i64 + 1);

        // All is new but the last dish.
        insert(&client, "theirs", "wrong 1").await;
        tried(&client).await;
        let wrong = commit(&engine, unit("wrong", &dishes("wrong", count))).await;
        assert_eq!(wrong.entities[2].disposition, Disposition::Updated);
        assert_eq!((inserted(&wrong.entities), inserted(&wrong.connections)), (count, count));
        assert!(tried(&client).await > 2 * count as i64, "the dish was tried in vain");
        let aliases = "select aliases from entities where name = 'wrong 1'";
        let aliases: Vec<String> = client.query_one(aliases, &[]).await.unwrap().get(0);
        assert_eq!(aliases, ["ours", "theirs"]);

        // All entities are known, all connections are new but one.
        let theirs = insert(&client, "right", "wrong 1").await;
        tried(&client).await;
        let again = commit(&engine, unit("right", &dishes("wrong", count))).await;
        assert_eq!((again.connections[1].id, again.connections[1].disposition), (theirs, Disposition::Updated));
        assert_eq!((inserted(&again.entities), inserted(&again.connections)), (0, count - 1));
        assert!(tried(&client).await >= count as i64, "the connection was tried in vain");
        // There are no more guesses.
        insert(&client, "wrong", "right 1").await;
        tried(&client).await;
        commit(&engine, unit("wrong", &dishes("right", count))).await;
        assert_eq!(tried(&client).await, count as i64 - 1);
        assert_eq!(engine.stats().failed_attempts, 0, "transactions go back to their savepoints only");
        assert_group_by(&client, as_of()).await;
        database.assert_no_deadlocks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_another_entity_is_not_taken_to_be_new() {
    let database = Database::migrated().await;
    let (engine, client) = (guessing(&database).await, database.client().await);
    insert(&client, "theirs", "folded").await;
    insert(&client, "theirs", "target").await;
    let merging = database.engine().await;
    let [folded, target] =
        ["folded", "target"].map(|name| EntityKey { entity_type: EntityType::DishOrCategory, name: name.into() });
    let merged = within(merging.merge(vec![EntityMerge::new(folded, target)])).await.remove(0);
    assert!(matches!(merged, MergeOutcome::Merged { .. }), "{merged:?}");
    tried(&client).await;
    let Committed { entities, connections, .. } = commit(&engine, unit("new", &["folded".to_owned()])).await;
    let target: Uuid =
        client.query_one("select entity_id from entities where name = 'target'", &[]).await.unwrap().get(0);
    assert_eq!((entities[1].id, entities[1].disposition), (target, Disposition::Updated));
    assert_eq!((inserted(&entities), inserted(&connections)), (1, 1));
    assert_eq!(tried(&client).await, 2);
    assert_group_by(&client, as_of()).await;
}

/// A trigger of the database's owner refuses connections that are new, and a check names that are: rows that are there
/// are not refused, although they were taken to be new.
#[tokio::test(flavor = "multi_thread")]
async fn no_unit_is_rejected_for_a_guess() {
    let database = Database::migrated().await;
    let (engine, client) = (guessing(&database).await, database.client().await);
    let theirs = insert(&client, "theirs", "known").await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'no more'; end $$;
        create trigger refuse before insert on connections for each row execute function refuse();
        alter table entities add constraint closed check (aliases <> '{ours}') not valid";
    client.batch_execute(refuse).await.unwrap();
    let committed = commit(&engine, unit("theirs", &["known".to_owned()])).await;
    let row = committed.connections[0];
    assert_eq!((row.id, row.disposition), (theirs, Disposition::Updated));
    let new_name = engine.submit(unit("theirs", &["unknown".to_owned()])).await.unwrap();
    let Outcome::Rejected(rejection) = within(new_name).await else { panic!("no such name was stored") };
    assert_eq!(&*rejection.sqlstate, "23514");
    let new_connection = engine.submit(unit("uchi", &["known".to_owned()])).await.unwrap();
    let Outcome::Rejected(rejection) = within(new_connection).await else { panic!("no such connection was stored") };
    assert_eq!(&*rejection.sqlstate, "P0001");
    assert_group_by(&client, as_of()).await;
}

/// Two engines that guess, with two lanes each, and rows that others have inserted or changed at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn engines_that_guess_at_once_do_not_deadlock() {
    let database = Database::migrated().await;
    let (one, client) = (guessing(&database).await, database.client().await);
    let other = database.engine().await;
    // Both find these absent, whichever inserts them.
    let many = dishes("more", ENOUGH);
    commit(&other, unit("other", &many)).await;
    commit(&other, unit("another", &many)).await;
    for round in 0..6 {
        let mut receipts = Vec::new();
        for (number, engine) in [&one, &other].into_iter().enumerate() {
            for part in 0..4 {
                // The same rows, in another order.
                let mut own = dishes(&format!("round {round} part {part}"), 200);
                own.rotate_left(100 * number);
                receipts.push(engine.submit(unit(&format!("restaurant {part}"), &own)).await.unwrap());
            }
        }
        client.batch_execute("update entities set aliases = aliases where name like 'round%1'").await.unwrap();
        for receipt in receipts {
            let outcome = within(receipt).await;
            assert!(outcome.committed().is_some(), "{outcome:?}");
        }
    }
    let count = "select (select count(*) from connections), (select count(*) from mentions)";
    let row = client.query_one(count, &[]).await.unwrap();
    let expected = (3 * ENOUGH + 6 * 4 * 200) as i64;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (expected, expected));
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}
