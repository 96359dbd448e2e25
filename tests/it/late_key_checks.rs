//! Large epochs check foreign keys after their rows were copied, and before their outcome.

use graphsink::{AsOf, Committed, Config, Engine, Mention, Outcome, SourceType, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{self, assert_group_by};
use crate::known_names;
use crate::proxy::{Action, At, Fault, Proxy};
use crate::support::{Database, as_of, commit, within};

/// As many mentions as an epoch needs to be copied, and more.
const MANY: usize = 150;

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
         delete from mentions m using connections c, lost l
         where m.connection_id = c.connection_id and c.dish_or_category_id = l.entity_id;
         delete from connections c using lost l where c.dish_or_category_id = l.entity_id;
         delete from entities where name = '{dish}'"
    );
    known_names::lose(client, &deed).await;
}

/// Brings the lost row back when a statement of this kind on connections has ended.
async fn bring_back_after(client: &Client, kind: &str) {
    client
        .batch_execute(&format!(
            "create function bring_back() returns trigger language plpgsql as
                 $$ begin insert into entities select * from lost on conflict do nothing; return null; end $$;
             create trigger bring_back after {kind} on connections for each statement execute function bring_back()"
        ))
        .await
        .unwrap();
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

/// For a check within the statement, or behind it, the row that comes with it would be too late.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_not_checked_while_rows_are_copied() {
    let (_database, engine, client) = started().await;
    let old = dish_of(&commit(&engine, large_unit("soup", "a")).await);
    lose(&client, "soup").await;
    bring_back_after(&client, "insert").await;
    assert_eq!(dish_of(&commit(&engine, large_unit("soup", "b")).await), old);
    assert_eq!(engine.stats().failed_attempts, 0);
    assert_group_by(&client, as_of()).await;
}

/// For a check at the commit, the row would be there in time.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked_before_connections_are_updated() {
    let (_database, engine, client) = started().await;
    let old = dish_of(&commit(&engine, large_unit("soup", "a")).await);
    lose(&client, "soup").await;
    bring_back_after(&client, "update").await;
    let mut unit = large_unit("soup", "b");
    let [restaurant, dish] = [unit.restaurant("r").handle(), unit.dish("a 1").handle()];
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, "news", "https://example.org", "f", as_of()));
    assert_ne!(dish_of(&commit(&engine, unit).await), old);
    assert_eq!((engine.stats().failed_attempts, engine.stats().units_rejected), (1, 0));
    assert_group_by(&client, as_of()).await;
}

/// Each unit is large enough for late checks by itself.
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
    for (number, dish) in ["soup", "cake", "cursed", "rice"].into_iter().enumerate() {
        receipts.push((dish, engine.submit(large_unit(dish, &number.to_string())).await.unwrap()));
    }
    for (dish, receipt) in receipts {
        match within(receipt).await {
            Outcome::Committed(_) => assert_ne!(dish, "cursed"),
            Outcome::Rejected(rejection) => {
                assert_eq!((dish, &*rejection.sqlstate), ("cursed", "23503"));
                assert_eq!(rejection.constraint.as_deref(), Some("connections_restaurant_id_fkey"));
            }
            Outcome::Unavailable(unavailable) => panic!("{dish}: {unavailable}"),
        }
    }
    assert_group_by(&client, as_of()).await;
}

/// A deletion by another program while a large transaction is held at one of its statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_during_a_large_transaction_are_seen_or_wait_for_it() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.url).await;
    let config = Config::builder(proxy.url_of(&database.url)).as_of(AsOf::Fixed(as_of())).in_flight_commits(1);
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let (client, other) = (database.client().await, database.client().await);
    client.batch_execute("set lock_timeout = '100ms'").await.unwrap();
    let (mut waited, mut done) = (0, 0);
    for number in 0..24 {
        let dish = format!("dish {number}");
        commit(&engine, large_unit(&dish, &format!("{number} before"))).await;
        proxy.on_next(Fault::at(At::Request(2 * number), Action::Hold));
        let receipt = engine.submit(large_unit(&dish, &format!("{number} now"))).await.unwrap();
        within(proxy.faults_happened(number + 1)).await;
        let deed = format!("begin; {}; commit", known_names::delete(&dish));
        if client.batch_execute(&deed).await.is_ok() {
            done += 1;
            proxy.release();
            assert!(within(receipt).await.committed().is_some());
        } else {
            client.batch_execute("rollback").await.unwrap();
            waited += 1;
            proxy.release();
            assert!(within(receipt).await.committed().is_some());
            other.batch_execute(&deed).await.unwrap();
        }
        commit(&engine, large_unit(&dish, &format!("{number} after"))).await;
        database::read(&client).await;
    }
    assert_group_by(&client, as_of()).await;
    let stats = engine.stats();
    println!("{done} deletions came first, {waited} waited; {} failed attempts", stats.failed_attempts);
    assert!(done > 5 && waited > 5, "{done} {waited}");
    assert!(stats.failed_attempts > 0, "no deletion met a foreign key: {stats:?}");
    assert_eq!(stats.units_rejected, 0);
}

/// Keys that cannot be checked late, any more or again, cost one attempt at most.
#[tokio::test(flavor = "multi_thread")]
async fn keys_may_be_altered_while_an_engine_writes() {
    let (_database, engine, client) = started().await;
    commit(&engine, large_unit("soup", "a")).await;
    let alterations = [
        (1, "alter table mentions alter constraint mentions_connection_id_fkey not deferrable"),
        (2, "alter table connections drop constraint connections_restaurant_id_fkey"),
        (
            2,
            "alter table connections alter constraint connections_dish_or_category_id_fkey deferrable initially deferred",
        ),
        (2, "alter table mentions alter constraint mentions_connection_id_fkey deferrable initially immediate"),
    ];
    for (number, (failed, alteration)) in alterations.into_iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        for again in 0..2 {
            commit(&engine, large_unit("soup", &format!("{number} {again}"))).await;
        }
        assert_eq!(engine.stats().failed_attempts, failed, "{alteration}");
        assert!(engine.health().ready, "{alteration}");
    }
    assert_eq!(engine.stats().units_rejected, 0);
    assert_group_by(&client, as_of()).await;
}
