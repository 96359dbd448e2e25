//! The loader's input leaves the same database whatever the number of producers, the order of the
//! lines and the number of repetitions; and that is the database that section 8 of the contract
//! says, read here without the crate's own reader.
//!
//! `GRAPHSINK_TEST_INPUT` names further files (separated by `:`) to try.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::SubsecRound;
use graphsink::loader::{Input, Sample, Units};
use graphsink::{AsOf, Engine, EntityType, SourceType, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, ConnectionKey, ConnectionSpec, EntitySpec, Graph, MentionSpec, PlaceSpec, Record, Time};
use crate::support::{Database, seed, within};

// ---- section 8, for the model ------------------------------------------------------------------

/// What a line says; nothing of one that does not say enough.
fn records(line: &str) -> Option<Vec<Record>> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let time = |value: &Value| -> Option<Time> { Some(value.as_str()?.parse::<Time>().ok()?.trunc_subsecs(6)) };
    let source = &line["source"];
    let created_at = time(&source["created_at"])?;
    let observed_at = time(&source["observed_at"]).unwrap_or(created_at);

    let entity = |entity_type, name: &str, alias: Option<String>| EntitySpec {
        key: model::key(entity_type, name),
        by_id: false,
        aliases: alias.into_iter().collect(),
        attributes: Vec::new(),
        place: None,
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let attributes: Vec<String> = list(&line["restaurant_attributes"]).iter().filter_map(text).collect();
    let dish_attributes: BTreeSet<String> =
        list(&line["dish_attributes"]).iter().filter_map(|value| text(&value["attribute"])).collect();
    let categories: Vec<String> = list(&line["categories"]).iter().filter_map(text).collect();
    let restaurant = text(&line["restaurant"]["normalized_name"])?;
    let place = line["restaurant"].get("place").filter(|place| !place.is_null()).map(|place| PlaceSpec {
        location: place["latitude"]
            .as_f64()
            .zip(place["longitude"].as_f64())
            .map(|(latitude, longitude)| ((latitude * 1e8).round() as i64, (longitude * 1e8).round() as i64)),
        address: text(&place["address"]),
        google_place_id: text(&place["google_place_id"]),
        metadata: place.get("metadata").filter(|metadata| !metadata.is_null()).cloned(),
        observed_at: time(&place["observed_at"]).unwrap_or(observed_at),
    });

    let mut records = vec![Record::Entity(EntitySpec {
        attributes,
        place,
        ..entity(EntityType::Restaurant, &restaurant, text(&line["restaurant"]["original_text"]))
    })];
    records.extend(dish_attributes.iter().map(|name| Record::Entity(entity(EntityType::DishAttribute, name, None))));
    records.extend(categories.iter().map(|name| Record::Entity(entity(EntityType::DishOrCategory, name, None))));
    let dish = &line["dish_or_category"];
    if let Some(name) = text(&dish["normalized_name"]) {
        records.push(Record::Entity(entity(EntityType::DishOrCategory, &name, text(&dish["original_text"]))));
        let key = ConnectionKey { restaurant, dish: name, dish_attributes };
        records.push(Record::Connection(ConnectionSpec {
            key: key.clone(),
            by_id: false,
            ends_by_id: false,
            categories,
            is_menu_item: line["is_menu_item"].as_bool().unwrap_or(true),
        }));
        let source_id = text(&source["id"])?;
        records.push(Record::Mention(MentionSpec {
            connection: key,
            connection_by_id: false,
            source_type: SourceType::from_label(source["type"].as_str()?)?,
            thread_id: text(&source["thread_id"]).unwrap_or_else(|| source_id.clone()),
            source_id,
            source_url: text(&source["url"])?,
            subreddit: text(&source["subreddit"])?,
            content_excerpt: text(&source["excerpt"]).unwrap_or_default(),
            author: text(&source["author"]),
            upvotes: source["upvotes"].as_i64().unwrap_or(0).try_into().ok()?,
            created_at,
            observed_at,
        }));
    }
    Some(records)
}

// ---- the loader --------------------------------------------------------------------------------

/// Lines, those of one unit together.
struct Lines {
    groups: Vec<Vec<String>>,
    as_of: Timestamp,
}

impl Lines {
    fn new(lines: impl IntoIterator<Item = String>, as_of: Timestamp) -> Self {
        let mut groups: Vec<Vec<String>> = Vec::new();
        let mut last: Option<String> = None;
        for line in lines {
            let value: Value = serde_json::from_str(&line).expect("a line is JSON");
            let unit = value["unit"].as_str().map(str::to_owned);
            match groups.last_mut() {
                Some(group) if unit.is_some() && unit == last => group.push(line),
                _ => groups.push(vec![line]),
            }
            last = unit;
        }
        Self { groups, as_of }
    }

    fn graph(&self) -> Graph {
        let records: Vec<Record> =
            self.groups.iter().flatten().flat_map(|line| records(line).expect("the line is good")).collect();
        model::graph(&records, self.as_of)
    }

    /// The lines as bytes, their units in the given order.
    fn bytes<'a>(groups: impl IntoIterator<Item = &'a Vec<String>>) -> Vec<u8> {
        groups.into_iter().flatten().flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }
}

/// Loads inputs with a number of producers; every unit must become durable.
async fn load(database: &Database, as_of: Timestamp, inputs: Vec<Vec<u8>>, producers: usize) {
    let config = database.config().as_of(AsOf::Fixed(as_of)).max_batch_rows(2_000).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let inputs = inputs
        .into_iter()
        .enumerate()
        .map(|(number, bytes)| Input::Reader { name: format!("input {number}"), reader: Box::new(Cursor::new(bytes)) });
    let units = Arc::new(Mutex::new(Units::new(inputs)));
    let producers: Vec<_> = (0..producers)
        .map(|_| {
            let (engine, units) = (engine.clone(), Arc::clone(&units));
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                loop {
                    let Some(unit) = units.lock().unwrap().next() else { break };
                    let unit = unit.unwrap().content.expect("every line is good");
                    receipts.push(engine.submit(unit).await.unwrap());
                }
                for receipt in receipts {
                    let outcome = within(receipt).await;
                    assert!(outcome.committed().is_some(), "{outcome:?}");
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
}

async fn every_way_of_loading_leaves_the_graph_of_the_model(lines: &Lines, seed: u64) {
    let expected = lines.graph();
    let straight = Lines::bytes(&lines.groups);
    let mut random = StdRng::seed_from_u64(seed);
    let mut shuffled = || {
        let mut groups: Vec<&Vec<String>> = lines.groups.iter().collect();
        groups.shuffle(&mut random);
        Lines::bytes(groups)
    };
    let ways = [
        ("as it is, one producer", vec![straight.clone()], 1),
        ("as it is, four producers", vec![straight.clone()], 4),
        ("shuffled, sixteen producers", vec![shuffled()], 16),
        ("twice, differently shuffled, four producers", vec![shuffled(), shuffled()], 4),
    ];
    for (way, inputs, producers) in ways {
        println!("{way}");
        let database = Database::migrated().await;
        load(&database, lines.as_of, inputs, producers).await;
        let client = database.client().await;
        assert_same(&expected, &database::read(&client).await);
        assert_group_by(&client, lines.as_of).await;
        database.assert_no_deadlocks().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_loading_the_sample_leaves_the_same_database() {
    let seed = seed("loader");
    let lines = Lines::new(Sample::new(Sample::SEED, Sample::LINES), Sample::as_of());
    assert!(lines.groups.iter().any(|group| group.len() > 1), "the sample has units of several lines");
    every_way_of_loading_leaves_the_graph_of_the_model(&lines, seed).await;
    let other = Lines::new(Sample::new(seed, 1_000), Sample::as_of());
    every_way_of_loading_leaves_the_graph_of_the_model(&other, seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_loading_a_given_file_leaves_the_same_database() {
    let Ok(files) = std::env::var("GRAPHSINK_TEST_INPUT") else {
        println!("skipped: GRAPHSINK_TEST_INPUT names no files");
        return;
    };
    for file in files.split(':') {
        let seed = seed(file);
        // Read by the crate's reader, which keeps the bytes of every line.
        let mut lines = Vec::new();
        for unit in Units::new([Input::File(Path::new(file).to_owned())]) {
            let kept = unit.unwrap().origin.lines;
            lines.extend(kept.into_iter().map(|line| String::from_utf8(line.record).unwrap()));
        }
        let lines = Lines::new(lines, Sample::as_of());
        every_way_of_loading_leaves_the_graph_of_the_model(&lines, seed).await;
    }
}
