//! Values that look like SQL, like parameters, like array literals or like COPY's escapes remain values: by every way
//! into the database (arrays, COPY, JSON, dead letters) they are read back unchanged.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use graphsink::{EntityType, Migrations, Outcome, SourceType, UnitOfWork};
use serde_json::json;

use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, ConnectionKey, ConnectionSpec, EntitySpec, Ids, MentionSpec, PlaceSpec, Record, key};
use crate::support::{Database, as_of, commit, outcome, within};

const TEXTS: [&str; 14] = [
    "'; drop schema \"hostile\"\" $1\" cascade; --",
    "\"; drop table mentions; --",
    "$1 $2 $$ $a$",
    "{schema} {} {0} %s :\"role\" ?",
    "\\'; select pg_terminate_backend(pid) from pg_stat_activity; --",
    "{\"a\",NULL,b}",
    "\",\"",
    "NULL",
    "\\N",
    "\\.\n\\.",
    "\t\r\n\u{1} x",
    "\\\\x00\\u0000",
    "/* é 😀 */ \u{202e}",
    "E'\\' || (select 1)",
];

/// All rows that contain a text, in two versions, so that rows are inserted and updated.
fn records(text: &str, version: i64) -> Vec<Record> {
    let at = as_of() - TimeDelta::days(9) + TimeDelta::days(version);
    let said = format!("{text} {version}");
    let place = PlaceSpec {
        location: None,
        address: Some(said.clone()),
        google_place_id: Some(said.clone()),
        metadata: Some(json!({ said.clone(): [said.clone()] })),
        observed_at: at,
    };
    let entity = |entity_type, attributes: &[String], place| {
        let aliases = vec![said.clone()];
        Record::Entity(EntitySpec {
            key: key(entity_type, text),
            by_id: false,
            aliases,
            attributes: attributes.to_vec(),
            place,
        })
    };
    let connection = ConnectionKey {
        restaurant: text.to_owned(),
        dish: text.to_owned(),
        dish_attributes: BTreeSet::from([text.to_owned()]),
    };
    vec![
        entity(EntityType::Restaurant, std::slice::from_ref(&said), Some(place)),
        entity(EntityType::DishOrCategory, &[], None),
        Record::Connection(ConnectionSpec {
            key: connection.clone(),
            by_id: false,
            ends_by_id: false,
            categories: vec![said.clone()],
            is_menu_item: true,
        }),
        Record::Mention(MentionSpec {
            connection,
            connection_by_id: false,
            source_type: SourceType::Post,
            source_id: text.to_owned(),
            thread_id: said.clone(),
            source_url: said.clone(),
            subreddit: said.clone(),
            content_excerpt: said.clone(),
            author: Some(said.clone()),
            upvotes: 1,
            created_at: at,
            observed_at: at,
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_read_back_unchanged_from_every_column() {
    let database = Database::empty().await.with_schema("hostile\" $1");
    Migrations::all().run(&database.config().build().unwrap()).await.unwrap();
    let engine = graphsink::Engine::start(database.config().dead_letters(true).build().unwrap()).await.unwrap();
    let client = database.client().await;
    let mut all = Vec::new();
    for version in [1, 2] {
        for text in TEXTS {
            let records = records(text, version);
            commit(&engine, model::unit(&records, &Ids::default())).await;
            all.extend(records);
        }
    }
    assert_same(&model::graph(&all, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;

    // Rejected, kept as text in JSON, and submitted again when the Google id is free.
    let letters: Vec<UnitOfWork> = TEXTS
        .iter()
        .map(|text| {
            let mut unit = UnitOfWork::new();
            let place = graphsink::PlaceObservation::new(as_of()).google_place_id(format!("{text} 2"));
            let _ = unit.restaurant(format!("{text} kept")).alias(*text).place(place).handle();
            unit
        })
        .collect();
    for unit in letters {
        let Outcome::Rejected(rejection) = outcome(&engine, unit).await else { panic!("its Google id is taken") };
        assert!(rejection.dead_letter.is_some(), "{rejection:?}");
    }
    client.batch_execute("update entities set google_place_id = null").await.unwrap();
    let report = within(engine.resubmit_dead_letters()).await.unwrap();
    assert_eq!(report.committed, TEXTS.len() as u64, "{report:?}");
    let kept =
        "select name, aliases, google_place_id from entities where name like '% kept' order by name collate \"C\"";
    let found: BTreeSet<(String, Vec<String>, String)> =
        client.query(kept, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = TEXTS.iter().map(|text| (format!("{text} kept"), vec![(*text).to_owned()], format!("{text} 2")));
    assert_eq!(found, expected.collect());
}
