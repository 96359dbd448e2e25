//! Large epochs check foreign keys after their rows were copied, and before their outcome.

use graphsink::{Committed, Engine, Mention, Outcome, SourceType, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{self, assert_group_by};
use crate::known_names;
use crate::support::{Database, as_of, commit, within};

/// As many mentions as an epoch needs to be copied, and more.
const MANY: usize = 300;

/// Mentions of one restaurant's dishes: of `dish`, and of many others.
fn large_unit(dish: &str, source: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("r").handle();
    for number in 0..MANY {
        let name = if number == 0 { dish.to_owned() } else { format!("{source} {number}") };
        let dish = unit.dish(name).handle();
        let connection = unit.connection(restaurant, dish).handle();
        let mention = Mention::new(SourceType::Post, format!("{source} {number}"), "https://example.org", "f", as_of());
        unit.mention(connection, mention);
    }
    unit
}

/// The id of the dish that [`large_unit`] is given.
fn dish_of(committed: &Committed) -> Uuid {
    committed.entities[1].id
}

async fn started() -> (Database, Engine, Client) {
    let database = Database::migrated().await;
    let engine = Engine::start(database.config().in_flight_commits(1).build().unwrap()).await.unwrap();
    let client = database.client().await;
    (database, engine, client)
}

/// Loses a dish without a trace; its row is in the table `lost`.
async fn lose(client: &Client, dish: &str) {
    let deed = format!(
        "create table lost as select * from entities where name = '{dish}';
         delete from mentions; delete from connections; delete from entities where name = '{dish}'"
    );
    known_names::lose(client, &deed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_row_is_found_before_the_outcome() {
    let (_database, engine, client) = started().await;
    let old = dish_of(&commit(&engine, large_unit("soup", "a")).await);
    lose(&client, "soup").await;
    let new = dish_of(&commit(&engine, large_unit("soup", "b")).await);
    assert_ne!(new, old);
    assert_eq!((engine.stats().failed_attempts, engine.stats().units_rejected), (1, 0));
    database::read(&client).await;
    assert_group_by(&client, as_of()).await;
}

/// A trigger that brings the missing row back comes too late for a check within the statement.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked_when_all_rows_are_copied() {
    let (_database, engine, client) = started().await;
    let old = dish_of(&commit(&engine, large_unit("soup", "a")).await);
    lose(&client, "soup").await;
    client
        .batch_execute(
            "create function bring_back() returns trigger language plpgsql as
                 $$ begin insert into entities select * from lost on conflict do nothing; return null; end $$;
             create trigger bring_back after insert on connections for each statement execute function bring_back()",
        )
        .await
        .unwrap();
    assert_eq!(dish_of(&commit(&engine, large_unit("soup", "b")).await), old);
    assert_eq!(engine.stats().failed_attempts, 0);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_units_missing_row_rejects_that_unit_alone() {
    let (_database, engine, client) = started().await;
    client
        .batch_execute(
            "create function curse() returns trigger language plpgsql as $$
             begin
                 if exists (select from entities where entity_id = new.dish_or_category_id and name = 'cursed') then
                     new.restaurant_id = '00000000-0000-0000-0000-000000000000';
                 end if;
                 return new;
             end $$;
             create trigger curse before insert on connections for each row execute function curse()",
        )
        .await
        .unwrap();
    let mut receipts = Vec::new();
    for number in 0..MANY {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant("r").handle();
        let dish = unit.dish(if number == 200 { "cursed".to_owned() } else { format!("d{number}") }).handle();
        let connection = unit.connection(restaurant, dish).handle();
        let source = format!("s{number}");
        unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "f", as_of()));
        receipts.push(engine.submit(unit).await.unwrap());
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        match within(receipt).await {
            Outcome::Committed(_) => assert_ne!(number, 200),
            Outcome::Rejected(rejection) => {
                assert_eq!((number, &*rejection.sqlstate), (200, "23503"));
                assert_eq!(rejection.constraint.as_deref(), Some("connections_restaurant_id_fkey"));
            }
            Outcome::Unavailable(unavailable) => panic!("{number}: {unavailable}"),
        }
    }
    assert_group_by(&client, as_of()).await;
}

/// Keys that cannot be checked late, any more or again, cost one attempt at most.
#[tokio::test(flavor = "multi_thread")]
async fn keys_may_be_altered_while_an_engine_writes() {
    let (_database, engine, client) = started().await;
    commit(&engine, large_unit("soup", "a")).await;
    let alterations = [
        "alter table mentions alter constraint mentions_connection_id_fkey not deferrable",
        "alter table connections drop constraint connections_restaurant_id_fkey",
        "alter table connections alter constraint connections_dish_or_category_id_fkey deferrable initially deferred",
        "alter table mentions alter constraint mentions_connection_id_fkey deferrable initially immediate",
    ];
    for (number, alteration) in alterations.into_iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        for again in 0..2 {
            commit(&engine, large_unit("soup", &format!("{number} {again}"))).await;
        }
        let failed = engine.stats().failed_attempts;
        assert!(failed <= number as u64 + 1, "{alteration}: {failed} failed attempts");
    }
    assert_eq!(engine.stats().units_rejected, 0);
    assert_group_by(&client, as_of()).await;
}
