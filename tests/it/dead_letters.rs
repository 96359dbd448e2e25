//! Rejected units are kept, and submitted again once the cause is gone.

use chrono::TimeDelta;
use graphsink::{
    Engine, Mention, Outcome, PlaceObservation, Rejection, ResubmitReport, SourceType, StartError, UnitOfWork,
};
use tokio_postgres::Client;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::support::{Database, as_of, commit, outcome, seed, within};

async fn engine(database: &Database) -> Engine {
    Engine::start(database.config().dead_letters(true).build().unwrap()).await.unwrap()
}

async fn rejected(engine: &Engine, unit: UnitOfWork) -> Rejection {
    match outcome(engine, unit).await {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// A restaurant with a Google id and one mention.
fn unit(restaurant: &str, google_place_id: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let place = PlaceObservation::new(as_of()).google_place_id(google_place_id);
    let place = place.location(30.27, -97.73).metadata(serde_json::json!({"kind": "bbq", "n": 1e300}));
    let patio = unit.restaurant_attribute("patio").handle();
    let restaurant = unit.restaurant(restaurant).alias("other").attribute(patio).place(place).handle();
    let dish = unit.dish("brisket").handle();
    let smoky = unit.dish_attribute("smoky").handle();
    let connection = unit.connection(restaurant, dish).dish_attribute(smoky).menu_item(false).handle();
    let mention = Mention::new(SourceType::Post, "p1", "https://example.org", "food", as_of() - TimeDelta::days(3));
    unit.mention(connection, mention.thread("t").excerpt("good").author("me").upvotes(4));
    unit
}

async fn kept(client: &Client) -> i64 {
    client.query_one("select count(*) from graphsink_dead_letters", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_rejected_unit_is_kept_with_its_reason_and_committed_once_the_cause_is_gone() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(&database).await, database.client().await);
    commit(&engine, unit("first", "g1")).await;
    let rejection = rejected(&engine, unit("second", "g1")).await;
    let id = rejection.dead_letter.expect("a rejected unit is kept before its outcome is reported");

    let row = client.query_one("select * from graphsink_dead_letters", &[]).await.unwrap();
    assert_eq!(row.get::<_, uuid::Uuid>("dead_letter_id"), id);
    assert_eq!(row.get::<_, &str>("reason"), "database");
    assert_eq!(row.get::<_, &str>("sqlstate"), "23505");
    assert_eq!(row.get::<_, &str>("constraint_name"), "entities_google_place_id_key");
    assert_eq!((row.get::<_, &str>("row_table"), row.get::<_, i32>("row_index")), ("entities", 1));
    let name = "select unit -> 'entities' -> 1 ->> 'name' from graphsink_dead_letters";
    assert_eq!(client.query_one(name, &[]).await.unwrap().get::<_, &str>(0), "second");

    // Rejected again, the unit is the same dead letter.
    assert_eq!(rejected(&engine, unit("second", "g1")).await.dead_letter, Some(id));
    let again = within(engine.resubmit_dead_letters()).await.unwrap();
    assert_eq!(again, ResubmitReport { rejected: 1, ..ResubmitReport::default() });
    assert_eq!(kept(&client).await, 1);

    client.execute("update entities set google_place_id = null where name = 'first'", &[]).await.unwrap();
    let mended = within(engine.resubmit_dead_letters()).await.unwrap();
    assert_eq!(mended, ResubmitReport { committed: 1, ..ResubmitReport::default() });
    assert_eq!(kept(&client).await, 0);

    // The result equals that of a first submission: the same unit once more changes nothing.
    let unchanged = commit(&engine, unit("second", "g1")).await;
    let rows = unchanged.entities.iter().chain(&unchanged.connections).chain(&unchanged.mentions);
    assert!(rows.into_iter().all(|row| row.disposition == graphsink::Disposition::Unchanged), "{unchanged:?}");
    assert_group_by(&client, as_of()).await;
}

/// Rejects every unit that names a restaurant of a list, then removes the cause: the committed units and the kept ones
/// together are the submitted ones.
#[tokio::test]
async fn every_unit_is_in_the_tables_or_in_the_dead_letters() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(&database).await, database.client().await);
    let trigger = "
        create function refuse() returns trigger language plpgsql as $$
        begin
            if new.name like '%1' then raise exception 'no' using errcode = '23514'; end if;
            return new;
        end $$;
        create trigger refuse before insert on entities for each row when (new.type = 'restaurant')
            execute function refuse()";
    client.batch_execute(trigger).await.unwrap();
    let seed = seed("dead letters");
    let space = Space { restaurants: 12, dishes: 5, attributes: 3, sources: 40, threads: 9, as_of: as_of() };
    let records = generate::sample(seed, space, 600);
    let mut receipts = Vec::new();
    for records in records.chunks(3) {
        receipts.push(engine.submit(model::unit(records, &Ids::default())).await.unwrap());
    }
    let mut rejections = std::collections::BTreeSet::new();
    for receipt in receipts {
        match within(receipt).await {
            Outcome::Committed(_) => {}
            Outcome::Rejected(rejection) => drop(rejections.insert(rejection.dead_letter.expect("kept"))),
            Outcome::Unavailable(unavailable) => panic!("{unavailable}"),
        }
    }
    assert!(!rejections.is_empty());
    assert_eq!(kept(&client).await, rejections.len() as i64);
    assert!(engine.stats().dead_letters >= rejections.len() as u64);

    client.batch_execute("drop trigger refuse on entities").await.unwrap();
    let report = within(engine.resubmit_dead_letters()).await.unwrap();
    assert_eq!(report, ResubmitReport { committed: rejections.len() as u64, ..ResubmitReport::default() });
    assert_eq!(kept(&client).await, 0);
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test]
async fn a_changed_document_of_a_dead_letter_is_validated_like_any_unit() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(&database).await, database.client().await);
    commit(&engine, unit("first", "g1")).await;
    for number in 0..3 {
        rejected(&engine, unit(&format!("other {number}"), "g1")).await;
    }
    let change = |set: &'static str, name: &'static str| {
        let update =
            format!("update graphsink_dead_letters set unit = {set} where unit -> 'entities' -> 1 ->> 'name' = $1");
        let client = &client;
        async move { assert_eq!(client.execute(&update, &[&name]).await.unwrap(), 1) }
    };
    change("'{\"entities\": 7}'", "other 0").await;
    change("jsonb_set(unit, '{entities,1,name}', '\"  \"')", "other 1").await;
    change("unit #- '{entities,1,place,google_place_id}'", "other 2").await;
    let report = within(engine.resubmit_dead_letters()).await.unwrap();
    assert_eq!(report, ResubmitReport { committed: 1, invalid: 2, ..ResubmitReport::default() });
    assert_eq!(kept(&client).await, 2, "dead letters that cannot be submitted stay in the table");
    let names = "select count(*) from entities where name = 'other 2' and google_place_id is null";
    assert_eq!(client.query_one(names, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn an_engine_keeps_dead_letters_only_if_configured_to() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    commit(&engine, unit("first", "g1")).await;
    assert_eq!(rejected(&engine, unit("second", "g1")).await.dead_letter, None);
    assert_eq!(kept(&client).await, 0);
    assert_eq!(within(engine.resubmit_dead_letters()).await.unwrap(), ResubmitReport::default());
}

#[tokio::test]
async fn a_rejection_is_reported_even_if_it_cannot_be_kept() {
    let database = Database::migrated().await;
    let (engine, client) = (engine(&database).await, database.client().await);
    commit(&engine, unit("first", "g1")).await;
    client.batch_execute("alter table graphsink_dead_letters add check (message = '')").await.unwrap();
    assert_eq!(rejected(&engine, unit("second", "g1")).await.dead_letter, None);
    client.batch_execute("drop table graphsink_dead_letters").await.unwrap();
    assert_eq!(rejected(&engine, unit("second", "g1")).await.dead_letter, None);
    commit(&engine, unit("third", "g3")).await;
    assert_eq!(engine.stats().circuit_openings, 0, "a fault of that table does not open the circuit breaker");
    let started = Engine::start(database.config().dead_letters(true).build().unwrap()).await;
    let missing = matches!(started, Err(StartError::NotMigrated { table: "graphsink_dead_letters", .. }));
    assert!(missing, "an engine that keeps dead letters requires their table");
}
