//! The outcomes of a unit: each kind, and each reason for a rejection or a refusal.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use graphsink::Disposition::{Inserted, Unchanged, Updated};
use graphsink::EntityType::{DishAttribute, DishOrCategory, Restaurant, RestaurantAttribute};
use graphsink::{
    Disposition, EntityType, Field, InvalidUnit, Mention, Outcome, PlaceObservation, RejectReason, Rejection, Row,
    SourceType, SubmitError, Table, UnitOfWork,
};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, Graph};
use crate::support::{Database, as_of, commit, outcome, within};

/// Adds a row that is named by an id.
type Build = fn(&mut UnitOfWork, Uuid);

fn mention(source_id: &str, upvotes: i32) -> Mention {
    Mention::new(SourceType::Comment, source_id, "https://example.org", "austinfood", as_of() - TimeDelta::days(1))
        .upvotes(upvotes)
}

/// A restaurant, a dish, a connection and a mention.
fn small_unit(restaurant: &str, source_id: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(restaurant).handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, mention(source_id, 1));
    unit
}

#[tokio::test]
async fn an_excerpt_of_300_megabytes_is_refused_at_once() {
    let engine = Database::migrated().await.engine().await;
    let mut unit = UnitOfWork::new();
    let (restaurant, dish) = (unit.restaurant("r").handle(), unit.dish("d").handle());
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, mention("s", 1).excerpt("x".repeat(300 << 20)));
    match engine.submit(unit).await {
        Err(SubmitError::Invalid(InvalidUnit::TooManyBytes { bytes, limit })) => assert!(bytes > limit),
        other => panic!("{other:?}"),
    }
}

fn dispositions(rows: &[graphsink::CommittedRow]) -> Vec<Disposition> {
    rows.iter().map(|row| row.disposition).collect()
}

fn rejection(outcome: Outcome) -> Rejection {
    match outcome {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
}

// ---- committed ---------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_outcome_has_the_id_and_the_disposition_of_every_row() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let first = commit(&engine, small_unit("franklin bbq", "t1")).await;
    assert_eq!(dispositions(&first.entities), [Inserted, Inserted]);
    assert_eq!(dispositions(&first.connections), [Inserted]);
    assert_eq!(dispositions(&first.mentions), [Inserted]);

    let again = commit(&engine, small_unit("franklin bbq", "t1")).await;
    assert_eq!(dispositions(&again.entities), [Unchanged, Unchanged]);
    assert_eq!(dispositions(&again.connections), [Unchanged]);
    assert_eq!(dispositions(&again.mentions), [Unchanged]);
    let ids = |committed: &graphsink::Committed| {
        [&committed.entities, &committed.connections, &committed.mentions]
            .into_iter()
            .flatten()
            .map(|row| row.id)
            .collect::<Vec<Uuid>>()
    };
    assert_eq!(ids(&first), ids(&again));

    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").alias("Franklin's").handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    let newer = unit.mention(connection, mention("t1", 5).observed_at(as_of()));
    let older = unit.mention(connection, mention("t2", 5));
    let third = commit(&engine, unit).await;
    assert_eq!(third.entity(restaurant).unwrap().disposition, Updated);
    assert_eq!(third.entity(dish).unwrap().disposition, Unchanged);
    assert_eq!(third.connection(connection).unwrap().disposition, Updated, "its metrics changed");
    assert_eq!(third.mention(newer).unwrap().disposition, Updated);
    assert_eq!(third.mention(older).unwrap().disposition, Inserted);
    assert_eq!(third.mention(newer).unwrap().id, first.mentions[0].id);

    // Older than the stored row, which already has a newer observation.
    let mut unit = UnitOfWork::new();
    let stale = unit.mention(first.connections[0].id, mention("t1", 99));
    let fourth = commit(&engine, unit).await;
    assert_eq!(fourth.mention(stale).unwrap().disposition, Unchanged);

    let client = database.client().await;
    let stored: Vec<Uuid> = client
        .query("select mention_id from mentions order by source_id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(stored, [first.mentions[0].id, third.mention(older).unwrap().id]);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_ids_lead_to_the_rows_they_label() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").temp_id("r1").handle();
    let dish = unit.dish("brisket").temp_id("d1").handle();
    let connection = unit.connection(restaurant, dish).temp_id("c1").handle();
    unit.mention_with_temp_id(connection, mention("t1", 1), "m1");
    unit.restaurant("unlabelled");
    let committed = commit(&engine, unit).await;
    let temp_ids = committed.temp_ids();
    assert_eq!(temp_ids.len(), 4);
    assert_eq!(temp_ids["r1"], committed.entity(restaurant).unwrap().id);
    assert_eq!(temp_ids["d1"], committed.entity(dish).unwrap().id);
    assert_eq!(temp_ids["c1"], committed.connection(connection).unwrap().id);
    assert_eq!(temp_ids["m1"], committed.mentions[0].id);

    let client = database.client().await;
    let name: String =
        client.query_one("select name from entities where entity_id = $1", &[&temp_ids["r1"]]).await.unwrap().get(0);
    assert_eq!(name, "franklin bbq");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_rows_named_by_id_get_new_facts() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let first = commit(&engine, small_unit("franklin bbq", "t1")).await;
    let (restaurant, dish) = (first.entities[0].id, first.entities[1].id);

    let mut unit = UnitOfWork::new();
    let patio = unit.restaurant_attribute("patio").handle();
    let smoky = unit.dish_attribute("smoky").handle();
    let place = PlaceObservation::new(as_of()).location(30.27, -97.73).google_place_id("g1").metadata(json!({"a": 1}));
    unit.existing_entity(restaurant).alias("Franklin's").alias("franklin bbq").attribute(patio).place(place);
    let same_key = unit.connection(restaurant, dish).category(dish).handle();
    let with_attribute = unit.connection(restaurant, dish).dish_attribute(smoky).menu_item(false).handle();
    unit.mention(first.connections[0].id, mention("t2", 2));
    unit.mention(with_attribute, mention("t1", 3));
    let committed = commit(&engine, unit).await;
    assert_eq!(committed.connection(same_key).unwrap().id, first.connections[0].id);
    assert_eq!(committed.connection(same_key).unwrap().disposition, Disposition::Updated);
    assert_eq!(committed.connection(with_attribute).unwrap().disposition, Disposition::Inserted);

    let client = database.client().await;
    let graph = database::read(&client).await;
    let row = &graph.entities[&model::key(EntityType::Restaurant, "franklin bbq")];
    assert_eq!(row.aliases, ["Franklin's"], "an alias that equals the name is dropped, also for a row named by id");
    assert_eq!(row.restaurant_attributes, ["patio".to_owned()].into());
    let place = row.place.as_ref().unwrap();
    assert_eq!(place.latitude.as_deref(), Some("30.27000000"));
    assert_eq!(place.longitude.as_deref(), Some("-97.73000000"));
    assert_eq!(place.google_place_id.as_deref(), Some("g1"));
    assert_eq!(place.metadata, Some(json!({"a": 1})));
    let plain = graph.connections.iter().find(|(key, _)| key.dish_attributes.is_empty()).unwrap().1;
    assert_eq!(plain.categories, ["brisket".to_owned()].into());
    assert!(plain.is_menu_item);
    assert_eq!(plain.metrics.mention_count, 2);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_row_are_one_row_within_a_unit_and_across_a_batch() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let first = commit(&engine, small_unit("franklin bbq", "t1")).await;
    let (restaurant, dish) = (first.entities[0].id, first.entities[1].id);

    let mut unit = UnitOfWork::new();
    let by_key = unit.restaurant("franklin bbq").alias("by key").handle();
    let by_id = unit.existing_entity(restaurant).alias("by id").handle();
    let dish_by_key = unit.dish("brisket").handle();
    let connections = [
        unit.connection(by_key, dish).handle(),
        unit.connection(by_id, dish_by_key).handle(),
        unit.connection(by_key, dish_by_key).handle(),
        unit.existing_connection(first.connections[0].id).handle(),
    ];
    for (number, connection) in connections.iter().enumerate() {
        // One mention that all four state, and one for each of them.
        unit.mention(*connection, mention("t2", number as i32).observed_at(as_of()));
        unit.mention(*connection, mention(&format!("own {number}"), 1));
    }
    let committed = commit(&engine, unit).await;
    assert_eq!(committed.entity(by_key), committed.entity(by_id));
    for connection in connections {
        assert_eq!(committed.connection(connection).unwrap().id, first.connections[0].id);
    }

    // Across the units of one batch: they are submitted while others are under way.
    let mut receipts = Vec::new();
    for number in 0..40 {
        let mut unit = UnitOfWork::new();
        let connection = if number % 2 == 0 {
            let restaurant = unit.existing_entity(restaurant).alias(format!("alias {number}")).handle();
            unit.connection(restaurant, dish).handle()
        } else {
            let restaurant = unit.restaurant("franklin bbq").alias(format!("alias {number}")).handle();
            let dish = unit.dish("brisket").handle();
            unit.connection(restaurant, dish).handle()
        };
        unit.mention(connection, mention("t3", number).observed_at(as_of()));
        unit.mention(connection, mention(&format!("batch {number}"), 1));
        receipts.push(engine.submit(unit).await.unwrap());
    }
    for receipt in receipts {
        let committed = within(receipt).await.into_result().unwrap();
        assert_eq!(committed.connections[0].id, first.connections[0].id);
    }

    let client = database.client().await;
    assert_eq!((count(&client, "entities").await, count(&client, "connections").await), (2, 1));
    assert_eq!(count(&client, "mentions").await, 1 + 1 + 4 + 1 + 40);
    let best: Vec<i32> = client
        .query("select upvotes from mentions where source_id in ('t2', 't3') order by source_id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(best, [3, 39], "at equal times the higher upvotes win");
    let aliases: i32 = client
        .query_one("select cardinality(aliases) from entities where entity_id = $1", &[&restaurant])
        .await
        .unwrap()
        .get(0);
    assert_eq!(aliases, 42);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_numbers_and_times_at_their_limits_are_kept() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let long = |chars: usize| "😀".repeat(chars);
    let mut deep = json!({});
    for _ in 1..graphsink::limits::METADATA_DEPTH_MAX {
        deep = json!({ "d": deep });
    }
    let mut unit = UnitOfWork::new();
    let place = PlaceObservation::new(as_of())
        .location(-90.0, 180.0)
        .address(long(500))
        .google_place_id(long(255))
        .metadata(deep.clone());
    let restaurant = unit.restaurant(long(255)).alias(format!("{}x", long(254))).place(place).handle();
    let dish = unit.dish(" leading and trailing blanks stay ").handle();
    let connection = {
        let attributes: Vec<_> =
            (0..100).map(|number| unit.dish_attribute(format!("attribute {number}")).handle()).collect();
        unit.connection(restaurant, dish).dish_attributes(attributes).handle()
    };
    let earliest = "-4713-11-24T00:00:00Z".parse().unwrap();
    let times = [
        earliest,
        "0001-01-01T00:00:00Z".parse().unwrap(),
        "1969-12-31T23:59:59.999999Z".parse().unwrap(),
        "9999-12-31T23:59:59.999999Z".parse().unwrap(),
        chrono::DateTime::<Utc>::MAX_UTC - TimeDelta::days(400),
    ];
    for (number, time) in times.into_iter().enumerate() {
        let id = format!("{number}{}", long(254));
        let mut own = Mention::new(SourceType::Post, id, long(500), long(100), time)
            .thread(long(255))
            .excerpt("\u{1}\u{feff}e\u{301} \"quoted\" \\ {} NULL \\N \u{10ffff}\n\t\r")
            .author(long(255))
            .upvotes(if number % 2 == 0 { i32::MAX } else { i32::MIN })
            .observed_at(time);
        own.author = if number == 0 { None } else { own.author };
        unit.mention(connection, own);
    }
    commit(&engine, unit.clone()).await;
    let repeated = commit(&engine, unit).await;
    let all = [&repeated.entities, &repeated.connections, &repeated.mentions].into_iter().flatten();
    assert!(all.into_iter().all(|row| row.disposition == Disposition::Unchanged), "{repeated:?}");

    let client = database.client().await;
    let graph = database::read(&client).await;
    let row = graph.entities.get(&model::key(EntityType::Restaurant, &long(255))).unwrap();
    assert_eq!(row.place.as_ref().unwrap().metadata, Some(deep));
    assert_eq!(row.place.as_ref().unwrap().address, Some(long(500)));
    let connection = graph.connections.values().next().unwrap();
    assert_eq!(connection.metrics.total_upvotes, 3 * i64::from(i32::MAX) + 2 * i64::from(i32::MIN));
    assert_eq!(connection.metrics.top_mentions.len(), 5);
    let created: Vec<_> = graph.mentions.values().map(|row| row.created_at).collect();
    assert!(times.iter().all(|time| created.contains(&graphsink::truncate(*time))), "{created:?}");
}

// ---- rejected ----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_does_not_exist_rejects_the_unit_alone() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let id = Uuid::now_v7();
    let cases: [(Table, Build); 6] = [
        (Table::Entities, |unit, id| {
            unit.existing_entity(id);
        }),
        (Table::Entities, |unit, id| {
            unit.existing_entity(id).alias("other");
        }),
        (Table::Entities, |unit, id| {
            let dish = unit.dish("brisket").handle();
            unit.connection(id, dish);
        }),
        (Table::Entities, |unit, id| {
            unit.restaurant("uchi").attribute(id);
        }),
        (Table::Connections, |unit, id| {
            unit.existing_connection(id);
        }),
        (Table::Connections, |unit, id| {
            unit.mention(id, mention("t1", 1));
        }),
    ];
    for (table, build) in cases {
        let mut unit = UnitOfWork::new();
        unit.restaurant("never written");
        build(&mut unit, id);
        let rejection = rejection(outcome(&engine, unit).await);
        assert_eq!(rejection.reason, RejectReason::MissingRow { table, id });
        assert_eq!(rejection.sqlstate, "23503");
        assert_eq!(rejection.table.as_deref(), Some(table.as_str()));
        let row = rejection.row.expect("the row is known");
        assert_eq!(row.table, table, "the row of the unit that carries the id");
    }
    let client = database.client().await;
    assert_eq!(count(&client, "entities").await, 0, "nothing of a rejected unit is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_the_wrong_type_rejects_the_unit() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").handle();
    let dish = unit.dish("brisket").handle();
    let committed = commit(&engine, unit).await;
    let (restaurant, dish) = (committed.entity(restaurant).unwrap().id, committed.entity(dish).unwrap().id);

    let check = async |build: fn(&mut UnitOfWork, Uuid, Uuid), id, field, expected, found| {
        let mut unit = UnitOfWork::new();
        unit.restaurant("never written");
        build(&mut unit, restaurant, dish);
        let rejection = rejection(outcome(&engine, unit).await);
        assert_eq!(rejection.reason, RejectReason::WrongEntityType { id, field, expected, found });
        assert_eq!(rejection.sqlstate, "23514");
    };
    let swapped = |unit: &mut UnitOfWork, _, dish: Uuid| {
        unit.connection(dish, dish);
    };
    check(swapped, dish, Field::Restaurant, Restaurant, DishOrCategory).await;
    let swapped = |unit: &mut UnitOfWork, restaurant: Uuid, _| {
        unit.connection(restaurant, restaurant);
    };
    check(swapped, restaurant, Field::DishOrCategory, DishOrCategory, Restaurant).await;
    let attribute = |unit: &mut UnitOfWork, restaurant: Uuid, dish: Uuid| {
        unit.connection(restaurant, dish).dish_attribute(dish);
    };
    check(attribute, dish, Field::DishAttributes, DishAttribute, DishOrCategory).await;
    let category = |unit: &mut UnitOfWork, restaurant: Uuid, dish: Uuid| {
        {
            unit.connection(restaurant, dish).category(restaurant);
        };
    };
    check(category, restaurant, Field::Categories, DishOrCategory, Restaurant).await;
    let attribute = |unit: &mut UnitOfWork, _, dish: Uuid| {
        unit.restaurant("uchi").attribute(dish);
    };
    check(attribute, dish, Field::RestaurantAttributes, RestaurantAttribute, DishOrCategory).await;
    let place = |unit: &mut UnitOfWork, _, dish: Uuid| {
        {
            unit.existing_entity(dish).place(PlaceObservation::new(as_of()).address("here"));
        };
    };
    check(place, dish, Field::PlaceObservedAt, Restaurant, DishOrCategory).await;

    let client = database.client().await;
    assert_eq!((count(&client, "entities").await, count(&client, "connections").await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_id_of_another_restaurant_rejects_that_unit_and_spares_its_neighbours() {
    let database = Database::migrated().await;
    // Batches of many units, so that the rejected ones have neighbours.
    let engine = database.small_engine(1_000, 1).await;
    let with_place = |name: &str, google: &str| {
        let mut unit = small_unit(name, name);
        unit.restaurant(name).place(PlaceObservation::new(as_of()).google_place_id(google));
        unit
    };
    commit(&engine, with_place("holder", "taken")).await;

    let mut receipts = Vec::new();
    for number in 0..60 {
        let name = format!("restaurant {number}");
        let google = if number % 20 == 7 { "taken".to_owned() } else { name.clone() };
        receipts.push(engine.submit(with_place(&name, &google)).await.unwrap());
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        let outcome = within(receipt).await;
        if number % 20 != 7 {
            assert!(outcome.committed().is_some(), "unit {number} is a neighbour: {outcome:?}");
            continue;
        }
        let rejection = rejection(outcome);
        assert_eq!(rejection.reason, RejectReason::Database);
        assert_eq!(rejection.sqlstate, "23505");
        assert_eq!(rejection.table.as_deref(), Some("entities"));
        assert_eq!(rejection.constraint.as_deref(), Some("entities_google_place_id_key"));
        assert_eq!(rejection.row.map(|row| row.table), Some(Table::Entities));
    }
    let client = database.client().await;
    assert_eq!(count(&client, "entities where type = 'restaurant'").await, 1 + 57);
    assert_eq!(count(&client, "mentions").await, 1 + 57);
    assert_group_by(&client, as_of()).await;

    // Two units of one batch claim an id that is free: one of them gets it.
    let receipts = [engine.submit(with_place("a", "new")).await, engine.submit(with_place("b", "new")).await];
    let mut committed = 0;
    for receipt in receipts {
        committed += usize::from(within(receipt.unwrap()).await.committed().is_some());
    }
    assert_eq!(committed, 1);
}

/// The id moves from one restaurant to the other; no third one is involved.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_id_may_move_from_one_restaurant_to_another_within_a_unit() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let observed = |hours, google: Option<&str>| PlaceObservation {
        google_place_id: google.map(str::to_owned),
        ..PlaceObservation::new(as_of() + TimeDelta::hours(hours))
    };
    let mut unit = UnitOfWork::new();
    unit.restaurant("m").place(observed(0, Some("g")));
    commit(&engine, unit).await;
    // Names on either side of the holder's, known and new, so that each order of writing occurs.
    let mut holder = "m";
    for (hours, next) in (1..).zip(["a", "z", "a", "z", "m", "a", "n"]) {
        let mut unit = UnitOfWork::new();
        unit.restaurant(holder).place(observed(hours, None));
        unit.restaurant(next).place(observed(hours, Some("g")));
        commit(&engine, unit).await;
        holder = next;
    }
    let client = database.client().await;
    let query = "select name from entities where google_place_id = 'g'";
    let name: String = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(name, "n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_constraint_rejects_its_unit_by_name_and_spares_the_neighbours() {
    let database = Database::migrated().await;
    let client = database.client().await;
    // A rule that graphsink does not know, such as an administrator may add.
    client
        .batch_execute("alter table mentions add constraint no_spam check (content_excerpt <> 'spam')")
        .await
        .unwrap();
    let engine = database.small_engine(1_000, 1).await;
    let mut receipts = Vec::new();
    for number in 0..40 {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant(format!("restaurant {number}")).handle();
        let dish = unit.dish("brisket").handle();
        let connection = unit.connection(restaurant, dish).handle();
        unit.mention(connection, mention("fine", 1));
        let excerpt = if number % 10 == 3 { "spam" } else { "ham" };
        unit.mention(connection, mention("t1", 1).excerpt(excerpt));
        receipts.push(engine.submit(unit).await.unwrap());
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        let outcome = within(receipt).await;
        if number % 10 == 3 {
            let rejection = rejection(outcome);
            assert_eq!(rejection.reason, RejectReason::Database);
            assert_eq!(rejection.sqlstate, "23514");
            assert_eq!(rejection.table.as_deref(), Some("mentions"));
            assert_eq!(rejection.constraint.as_deref(), Some("no_spam"));
        } else {
            assert!(outcome.committed().is_some(), "unit {number} is a neighbour: {outcome:?}");
        }
    }
    assert_eq!(count(&client, "entities where type = 'restaurant'").await, 36);
    assert_eq!(count(&client, "mentions").await, 72);
    assert_group_by(&client, as_of()).await;
}

/// Rejections of every kind within one batch, each of its own unit, the first and the last among them.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_all_kinds_in_one_batch_spare_their_neighbours() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client
        .batch_execute("alter table mentions add constraint no_spam check (content_excerpt <> 'spam')")
        .await
        .unwrap();
    let engine = database.small_engine(10_000, 1).await;
    let mut unit = small_unit("holder", "t0");
    unit.restaurant("holder").place(PlaceObservation::new(as_of()).google_place_id("taken"));
    let holder = commit(&engine, unit).await;
    let (dish, connection) = (holder.entities[1].id, holder.connections[0].id);

    // The row that all units change is locked, so that they gather in few batches.
    client.batch_execute("begin; update connections set last_updated = now()").await.unwrap();
    let missing = Uuid::now_v7();
    let mut receipts = Vec::new();
    for number in 0..60 {
        let mut unit = small_unit(&format!("restaurant {number}"), "t1");
        unit.mention(connection, mention(&format!("t{number}"), 1));
        match number % 12 {
            0 => {
                unit.existing_connection(missing);
            }
            1 => {
                unit.existing_entity(missing);
            }
            3 => {
                unit.connection(dish, dish);
            }
            6 => {
                unit.restaurant("thief").place(PlaceObservation::new(as_of()).google_place_id("taken"));
            }
            11 => {
                unit.mention(connection, mention("spam", 1).excerpt("spam"));
            }
            _ => {}
        }
        receipts.push(engine.submit(unit).await.unwrap());
    }
    client.batch_execute("commit").await.unwrap();
    for (number, receipt) in receipts.into_iter().enumerate() {
        let outcome = within(receipt).await;
        let expected = match number % 12 {
            0 => RejectReason::MissingRow { table: Table::Connections, id: missing },
            1 => RejectReason::MissingRow { table: Table::Entities, id: missing },
            3 => RejectReason::WrongEntityType {
                id: dish,
                field: Field::Restaurant,
                expected: Restaurant,
                found: DishOrCategory,
            },
            6 | 11 => RejectReason::Database,
            _ => {
                assert!(outcome.committed().is_some(), "unit {number} is a neighbour: {outcome:?}");
                continue;
            }
        };
        assert_eq!(rejection(outcome).reason, expected, "unit {number}");
    }
    let stats = engine.stats();
    assert_eq!((stats.units_committed, stats.units_rejected), (1 + 35, 25));
    assert_eq!(count(&client, "entities where type = 'restaurant'").await, 1 + 35);
    assert_eq!(count(&client, "mentions").await, 1 + 35 * 2);
    assert_group_by(&client, as_of()).await;
}

// ---- not accepted ------------------------------------------------------------------------------

const FIRST_ENTITY: Row = Row { table: Table::Entities, index: 0 };
const FIRST_CONNECTION: Row = Row { table: Table::Connections, index: 0 };
const FIRST_MENTION: Row = Row { table: Table::Mentions, index: 0 };

/// Every rule on units: a unit that breaks it, and the expected error.
fn invalid_units() -> Vec<(UnitOfWork, InvalidUnit)> {
    fn entity(build: impl FnOnce(&mut UnitOfWork)) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        build(&mut unit);
        unit
    }
    fn place(place: PlaceObservation) -> UnitOfWork {
        entity(|unit| {
            unit.restaurant("r").place(place);
        })
    }
    fn with_mention(change: impl FnOnce(&mut Mention)) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant("r").handle();
        let dish = unit.dish("d").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let mut own = mention("t1", 1);
        change(&mut own);
        unit.mention(connection, own);
        unit
    }
    fn connection(build: impl FnOnce(&mut UnitOfWork)) -> UnitOfWork {
        entity(build)
    }
    let long = |chars: usize| "é".repeat(chars);
    let observation = || PlaceObservation::new(as_of());
    let too_long = |row, field, limit| InvalidUnit::TextTooLong { row, field, chars: limit + 1, limit };
    let nul = |row, field| InvalidUnit::NulCharacter { row, field };
    let nested = |depth: usize| {
        let mut value = json!({});
        for level in 1..depth {
            value = if level % 2 == 0 || level + 1 == depth { json!({ "d": value }) } else { json!([value]) };
        }
        value
    };
    let before_postgres = || "-4713-11-23T23:59:59Z".parse().unwrap();
    let (e, c, m) = (FIRST_ENTITY, FIRST_CONNECTION, FIRST_MENTION);
    let mut other = UnitOfWork::new();
    let foreign_restaurant = other.restaurant("r").handle();
    let foreign_dish = other.dish("d").handle();
    let foreign_attribute = other.dish_attribute("a").handle();
    let foreign_connection = other.connection(foreign_restaurant, foreign_dish).handle();

    vec![
        (UnitOfWork::new(), InvalidUnit::NoRows),
        (
            entity(|unit| {
                for number in 0..51 {
                    unit.dish(format!("d{number}"));
                }
            }),
            InvalidUnit::TooManyRows { rows: 51, limit: 50 },
        ),
        (
            entity(|unit| {
                unit.dish("");
            }),
            InvalidUnit::BlankName { row: e },
        ),
        (
            entity(|unit| {
                unit.dish(" \t\u{a0}");
            }),
            InvalidUnit::BlankName { row: e },
        ),
        (
            entity(|unit| {
                unit.dish("d").alias("");
            }),
            InvalidUnit::BlankAlias { row: e },
        ),
        (
            entity(|unit| {
                unit.dish("d").alias("a").alias(" \n");
            }),
            InvalidUnit::BlankAlias { row: e },
        ),
        (
            entity(|unit| {
                unit.dish(long(256));
            }),
            too_long(e, Field::Name, 255),
        ),
        (
            entity(|unit| {
                unit.dish("d").alias(long(256));
            }),
            too_long(e, Field::Alias, 255),
        ),
        (
            entity(|unit| {
                unit.dish("a\0b");
            }),
            nul(e, Field::Name),
        ),
        (
            entity(|unit| {
                unit.dish("d").alias("a\0b");
            }),
            nul(e, Field::Alias),
        ),
        (place(observation().address(long(501))), too_long(e, Field::Address, 500)),
        (place(observation().address("\0")), nul(e, Field::Address)),
        (place(observation().google_place_id(long(256))), too_long(e, Field::GooglePlaceId, 255)),
        (place(observation().google_place_id("g\0")), nul(e, Field::GooglePlaceId)),
        (
            place(observation().location(90.000_001, 0.0)),
            InvalidUnit::CoordinateOutOfRange { row: e, field: Field::Latitude, limit: 90 },
        ),
        (
            place(observation().location(0.0, -180.1)),
            InvalidUnit::CoordinateOutOfRange { row: e, field: Field::Longitude, limit: 180 },
        ),
        (
            place(observation().location(f64::NAN, 0.0)),
            InvalidUnit::CoordinateNotFinite { row: e, field: Field::Latitude },
        ),
        (
            place(observation().location(0.0, f64::INFINITY)),
            InvalidUnit::CoordinateNotFinite { row: e, field: Field::Longitude },
        ),
        (place(PlaceObservation { latitude: Some(1.0), ..observation() }), InvalidUnit::LocationIncomplete { row: e }),
        (place(PlaceObservation { longitude: Some(1.0), ..observation() }), InvalidUnit::LocationIncomplete { row: e }),
        (place(observation().metadata(json!([1]))), InvalidUnit::MetadataNotObject { row: e }),
        (place(observation().metadata(Value::Null)), InvalidUnit::MetadataNotObject { row: e }),
        (place(observation().metadata(nested(65))), InvalidUnit::MetadataTooDeep { row: e, limit: 64 }),
        (place(observation().metadata(json!({"a": ["b\0"]}))), nul(e, Field::RestaurantMetadata)),
        (place(observation().metadata(json!({"a": {"b\0": 1}}))), nul(e, Field::RestaurantMetadata)),
        (
            place(PlaceObservation::new(before_postgres())),
            InvalidUnit::TimeOutOfRange { row: e, field: Field::PlaceObservedAt },
        ),
        (
            entity(|unit| {
                unit.dish("d").place(PlaceObservation::new(as_of()));
            }),
            InvalidUnit::PlaceOnNonRestaurant { row: e, entity_type: DishOrCategory },
        ),
        (
            entity(|unit| {
                let patio = unit.restaurant_attribute("patio").handle();
                unit.dish("d").attribute(patio);
            }),
            InvalidUnit::AttributesOnNonRestaurant {
                row: Row { table: Table::Entities, index: 1 },
                entity_type: DishOrCategory,
            },
        ),
        (
            entity(|unit| {
                let smoky = unit.dish_attribute("smoky").handle();
                unit.restaurant("r").attribute(smoky);
            }),
            InvalidUnit::WrongEntityType {
                row: Row { table: Table::Entities, index: 1 },
                field: Field::RestaurantAttributes,
                expected: RestaurantAttribute,
                found: DishAttribute,
            },
        ),
        (
            connection(|unit| {
                let dish = unit.dish("d").handle();
                unit.connection(dish, dish);
            }),
            InvalidUnit::WrongEntityType {
                row: c,
                field: Field::Restaurant,
                expected: Restaurant,
                found: DishOrCategory,
            },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                unit.connection(restaurant, restaurant);
            }),
            InvalidUnit::WrongEntityType {
                row: c,
                field: Field::DishOrCategory,
                expected: DishOrCategory,
                found: Restaurant,
            },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                let dish = unit.dish("d").handle();
                unit.connection(restaurant, dish).dish_attribute(dish);
            }),
            InvalidUnit::WrongEntityType {
                row: c,
                field: Field::DishAttributes,
                expected: DishAttribute,
                found: DishOrCategory,
            },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                let dish = unit.dish("d").handle();
                unit.connection(restaurant, dish).category(restaurant);
            }),
            InvalidUnit::WrongEntityType {
                row: c,
                field: Field::Categories,
                expected: DishOrCategory,
                found: Restaurant,
            },
        ),
        (
            connection(|unit| {
                let dish = unit.dish("d").handle();
                unit.connection(foreign_restaurant, dish);
            }),
            InvalidUnit::ForeignHandle { row: c, field: Field::Restaurant },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                unit.connection(restaurant, foreign_dish);
            }),
            InvalidUnit::ForeignHandle { row: c, field: Field::DishOrCategory },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                let dish = unit.dish("d").handle();
                unit.connection(restaurant, dish).dish_attribute(foreign_attribute);
            }),
            InvalidUnit::ForeignHandle { row: c, field: Field::DishAttributes },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                let dish = unit.dish("d").handle();
                unit.connection(restaurant, dish).category(foreign_dish);
            }),
            InvalidUnit::ForeignHandle { row: c, field: Field::Categories },
        ),
        (
            entity(|unit| {
                unit.restaurant("r").attribute(foreign_attribute);
            }),
            InvalidUnit::ForeignHandle { row: e, field: Field::RestaurantAttributes },
        ),
        (
            connection(|unit| {
                let restaurant = unit.restaurant("r").handle();
                let dish = unit.dish("d").handle();
                unit.connection(restaurant, dish).dish_attributes((0..101).map(|_| Uuid::now_v7()));
            }),
            // The limit of rows is reached first; see `a_hundred_and_one_dish_attributes_are_too_many`.
            InvalidUnit::TooManyRows { rows: 104, limit: 50 },
        ),
        (
            entity(|unit| {
                unit.mention(foreign_connection, mention("t1", 1));
            }),
            InvalidUnit::MentionWithoutConnection { row: m },
        ),
        (with_mention(|own| own.source_id = "".into()), InvalidUnit::EmptyText { row: m, field: Field::SourceId }),
        (with_mention(|own| own.thread_id = "".into()), InvalidUnit::EmptyText { row: m, field: Field::ThreadId }),
        (
            with_mention(|own| own.source_url = String::new()),
            InvalidUnit::EmptyText { row: m, field: Field::SourceUrl },
        ),
        (with_mention(|own| own.subreddit = String::new()), InvalidUnit::EmptyText { row: m, field: Field::Subreddit }),
        (with_mention(|own| own.source_id = long(256).into()), too_long(m, Field::SourceId, 255)),
        (with_mention(|own| own.thread_id = long(256).into()), too_long(m, Field::ThreadId, 255)),
        (with_mention(|own| own.source_url = long(501)), too_long(m, Field::SourceUrl, 500)),
        (with_mention(|own| own.subreddit = long(101)), too_long(m, Field::Subreddit, 100)),
        (with_mention(|own| own.author = Some(long(256))), too_long(m, Field::Author, 255)),
        (with_mention(|own| own.source_id = "\0".into()), nul(m, Field::SourceId)),
        (with_mention(|own| own.thread_id = "\0".into()), nul(m, Field::ThreadId)),
        (with_mention(|own| own.source_url = "\0".into()), nul(m, Field::SourceUrl)),
        (with_mention(|own| own.subreddit = "\0".into()), nul(m, Field::Subreddit)),
        (with_mention(|own| own.content_excerpt = "a\0".into()), nul(m, Field::ContentExcerpt)),
        (with_mention(|own| own.author = Some("\0".into())), nul(m, Field::Author)),
        (
            with_mention(|own| own.created_at = before_postgres()),
            InvalidUnit::TimeOutOfRange { row: m, field: Field::CreatedAt },
        ),
        (
            with_mention(|own| (own.created_at, own.observed_at) = (before_postgres(), before_postgres())),
            InvalidUnit::TimeOutOfRange { row: m, field: Field::CreatedAt },
        ),
        (
            with_mention(|own| own.observed_at = own.created_at - TimeDelta::microseconds(1)),
            InvalidUnit::ObservedBeforeCreated { row: m },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_breaks_a_rule_is_refused_with_the_name_of_the_rule() {
    let database = Database::migrated().await;
    let config = database.config().max_unit_rows(50).build().unwrap();
    let engine = graphsink::Engine::start(config).await.unwrap();
    let mut rules = std::collections::BTreeSet::new();
    for (unit, expected) in invalid_units() {
        rules.insert(expected.rule());
        assert_eq!(unit.validate(50), Err(expected.clone()));
        match engine.submit(unit.clone()).await {
            Err(SubmitError::Invalid(invalid)) => assert_eq!(invalid, expected),
            other => panic!("submit: {expected:?} expected, got {other:?}"),
        }
        match engine.try_submit(unit) {
            Err(SubmitError::Invalid(invalid)) => assert_eq!(invalid, expected),
            other => panic!("try_submit: {expected:?} expected, got {other:?}"),
        }
    }
    let all = 20;
    assert_eq!(rules.len(), all - 1, "every rule but too_many_dish_attributes: {rules:?}");

    let client = database.client().await;
    assert_eq!(count(&client, "entities").await, 0);
    let stats = engine.stats();
    assert_eq!((stats.units_submitted, stats.rows_in_flight, stats.bytes_in_flight), (0, 0, 0));
}

#[test]
fn a_hundred_and_one_dish_attributes_are_too_many() {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("r").handle();
    let dish = unit.dish("d").handle();
    let attributes: Vec<_> = (0..101).map(|number| unit.dish_attribute(format!("a{number}")).handle()).collect();
    unit.connection(restaurant, dish).dish_attributes(attributes.iter().chain(&attributes[..50]).copied());
    let expected = InvalidUnit::TooManyDishAttributes { row: FIRST_CONNECTION, count: 101, limit: 100 };
    assert_eq!(unit.validate(1_000), Err(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_engine_gives_a_unit_back_or_makes_its_caller_wait() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let config = database.config().max_unit_rows(8).max_rows_in_flight(8).in_flight_commits(1).build().unwrap();
    let engine = graphsink::Engine::start(config).await.unwrap();
    commit(&engine, small_unit("franklin bbq", "t0")).await;

    // A foreign transaction holds the row that the next epoch must update: no room is returned.
    let blocker = database.client().await;
    blocker.batch_execute("begin; update connections set last_updated = now()").await.unwrap();
    let first = engine.submit(small_unit("franklin bbq", "t1")).await.unwrap();
    let second = engine.submit(small_unit("franklin bbq", "t2")).await.unwrap();
    let refused = match engine.try_submit(small_unit("franklin bbq", "t3")) {
        Err(SubmitError::Full(unit)) => *unit,
        other => panic!("8 rows of 8 are in flight, got {other:?}"),
    };
    assert_eq!(refused.rows(), 4, "the unit comes back whole");
    assert_eq!(engine.stats().rows_in_flight, 8);
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.submit(refused).await.unwrap().await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "submit waits while the engine is full");

    blocker.batch_execute("commit").await.unwrap();
    for receipt in [first, second] {
        assert!(within(receipt).await.committed().is_some());
    }
    assert!(within(waiting).await.unwrap().committed().is_some(), "and goes on when there is room");
    within(engine.flush()).await;
    assert_eq!((engine.stats().rows_in_flight, engine.stats().bytes_in_flight), (0, 0), "all room comes back");
    assert_eq!(count(&client, "mentions").await, 4);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_engine_gives_the_unit_back() {
    let database = Database::migrated().await;
    let check = |result: Result<graphsink::Receipt, SubmitError>| match result {
        Err(SubmitError::Closed(unit)) => assert_eq!(unit.rows(), 4),
        other => panic!("expected Closed, got {other:?}"),
    };
    let engine = database.engine().await;
    commit(&engine, small_unit("franklin bbq", "t1")).await;
    within(engine.drain()).await;
    check(engine.submit(small_unit("franklin bbq", "t2")).await);
    check(engine.try_submit(small_unit("franklin bbq", "t2")));
    let _ = within(engine.shutdown(Duration::from_secs(10))).await;
    check(engine.submit(small_unit("franklin bbq", "t2")).await);
    check(engine.clone().try_submit(small_unit("franklin bbq", "t2")));
    let client = database.client().await;
    assert_eq!(count(&client, "mentions").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_committed_if_receipts_are_dropped_or_sent_to_other_threads() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    for number in 0..20 {
        drop(engine.submit(small_unit("franklin bbq", &format!("t{number}"))).await.unwrap());
    }
    let receipt = engine.submit(small_unit("franklin bbq", "sent away")).await.unwrap();
    let other_thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(receipt)
    });
    let outcome = tokio::task::spawn_blocking(|| other_thread.join().unwrap());
    assert!(within(outcome).await.unwrap().committed().is_some());
    within(engine.flush()).await;
    let client = database.client().await;
    assert_eq!(count(&client, "mentions").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_of_another_unit_find_nothing_in_an_outcome() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let mut other = UnitOfWork::new();
    let restaurant = other.restaurant("r").handle();
    let dish = other.dish("d").handle();
    let connection = other.connection(restaurant, dish).handle();
    let foreign = other.mention(connection, mention("t1", 1));
    let committed = commit(&engine, small_unit("franklin bbq", "t1")).await;
    assert_eq!(committed.entity(restaurant), None);
    assert_eq!(committed.connection(connection), None);
    assert_eq!(committed.mention(foreign), None);
    assert_eq!(committed.row(FIRST_MENTION), Some(committed.mentions[0]));
    assert_eq!(committed.row(Row { table: Table::Mentions, index: 1 }), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn merely_referenced_entities_are_neither_updated_nor_locked() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    commit(&engine, small_unit("franklin bbq", "t1")).await;
    let client = database.client().await;
    let versions = "select name, xmin::text from entities order by name";
    let before = client.query(versions, &[]).await.unwrap();

    // Another session is about to change the dish. A lock taken by a reference would wait for it.
    let holder = database.client().await;
    holder.batch_execute("begin; update entities set last_updated = now() where name = 'brisket'").await.unwrap();
    let committed = tokio::time::timeout(Duration::from_secs(8), outcome(&engine, small_unit("franklin bbq", "t2")));
    assert!(committed.await.expect("a reference does not wait").committed().is_some());
    let new_connection = tokio::time::timeout(Duration::from_secs(8), outcome(&engine, small_unit("uchi", "t3")));
    assert!(new_connection.await.expect("a foreign key's share lock does not wait").committed().is_some());
    holder.batch_execute("rollback").await.unwrap();

    let after = client.query("select name, xmin::text from entities where name <> 'uchi' order by name", &[]);
    let text = |rows: &[tokio_postgres::Row]| {
        rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).collect::<Vec<_>>()
    };
    assert_eq!(text(&before), text(&after.await.unwrap()), "no new row version of what was merely referenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_equals_the_model_of_no_records() {
    let database = Database::migrated().await;
    let client = database.client().await;
    assert_same(&Graph::default(), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}
