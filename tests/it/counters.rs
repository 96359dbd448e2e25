//! `stats()` reports exactly the submitted units and rows.

use chrono::TimeDelta;
use graphsink::{Disposition, Mention, PlaceObservation, SourceType, TableStats, UnitOfWork};

use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::support::{Database, as_of, outcome, seed, within};

/// Rows of each table that a unit names, and their dispositions, by hand.
#[derive(Default)]
struct Tally {
    received: u64,
    inserted: std::collections::HashSet<uuid::Uuid>,
}

impl Tally {
    fn add(&mut self, rows: &[graphsink::CommittedRow]) {
        self.received += rows.len() as u64;
        let inserted = rows.iter().filter(|row| row.disposition == Disposition::Inserted);
        self.inserted.extend(inserted.map(|row| row.id));
    }

    fn check(&self, stats: &TableStats, stored: i64) {
        assert_eq!(stats.received, self.received, "{stats:?}");
        assert_eq!(stats.inserted, self.inserted.len() as u64, "{stats:?}");
        assert_eq!(stats.inserted, stored as u64, "{stats:?}");
        assert!(stats.inserted + stats.updated + stats.unchanged <= stats.received, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_add_up_to_the_submitted_rows() {
    let records = generate::sample(seed("stats"), Space::tiny(as_of()), 600);
    let database = Database::migrated().await;
    let engine = database.small_engine(60, 2).await;
    let mut receipts = Vec::new();
    for records in records.chunks(4) {
        receipts.push(engine.submit(model::unit(records, &Ids::default())).await.unwrap());
    }
    let (mut entities, mut connections, mut mentions) = (Tally::default(), Tally::default(), Tally::default());
    let units = receipts.len() as u64;
    for receipt in receipts {
        let committed = within(receipt).await.into_result().unwrap();
        entities.add(&committed.entities);
        connections.add(&committed.connections);
        mentions.add(&committed.mentions);
    }
    within(engine.flush()).await;
    let stats = engine.stats();
    let client = database.client().await;
    let count = async |table: &str| -> i64 {
        client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
    };
    entities.check(&stats.entities, count("entities").await);
    connections.check(&stats.connections, count("connections").await);
    mentions.check(&stats.mentions, count("mentions").await);
    assert_eq!((stats.units_submitted, stats.units_committed), (units, units));
    assert_eq!(
        (stats.units_rejected, stats.units_unavailable, stats.failed_attempts, stats.actor_restarts),
        (0, 0, 0, 0)
    );
    assert!(stats.epochs >= 1 && stats.epochs <= units, "{stats:?}");
    assert!(stats.epoch_rows_max >= 1, "{stats:?}");
    assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["mentions"]["received"], stats.mentions.received);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_units_are_counted_and_their_rows_are_not() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let unit = |name: &str| {
        let mut unit = UnitOfWork::new();
        let place = PlaceObservation::new(as_of()).google_place_id("taken");
        let restaurant = unit.restaurant(name).place(place).handle();
        let dish = unit.dish("brisket").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let created_at = as_of() - TimeDelta::days(1);
        unit.mention(connection, Mention::new(SourceType::Post, "t1", "https://example.org", "food", created_at));
        unit
    };
    for (number, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
        let committed = outcome(&engine, unit(name)).await.committed().is_some();
        assert_eq!(committed, name == "a", "unit {number}");
    }
    let stats = engine.stats();
    assert_eq!((stats.units_submitted, stats.units_committed, stats.units_rejected), (4, 2, 2));
    assert_eq!((stats.entities.received, stats.entities.inserted, stats.entities.unchanged), (4, 2, 2));
    assert_eq!((stats.connections.received, stats.connections.inserted, stats.connections.unchanged), (2, 1, 1));
    assert_eq!((stats.mentions.received, stats.mentions.inserted, stats.mentions.unchanged), (2, 1, 1));
}

/// Statements of many units about one row become one row version.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_key_are_coalesced_under_load() {
    let database = Database::migrated().await;
    let engine = database.small_engine(10_000, 1).await;
    let mut receipts = Vec::new();
    for number in 0..2_000 {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant("franklin bbq").handle();
        let dish = unit.dish("brisket").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let created_at = as_of() - TimeDelta::days(1);
        let mention = Mention::new(SourceType::Post, format!("t{number}"), "https://example.org", "food", created_at);
        unit.mention(connection, mention);
        receipts.push(engine.submit(unit).await.unwrap());
    }
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some());
    }
    let stats = engine.stats();
    let written = stats.connections.inserted + stats.connections.updated + stats.connections.unchanged;
    assert_eq!(written, stats.epochs, "one version of the connection in each epoch");
    assert!(stats.epochs < 1_000, "batches grow under load: {stats:?}");
}

/// Without named statements a copy is sent in two steps. A reread of the same connection must not come between them.
#[tokio::test(flavor = "multi_thread")]
async fn reread_figures_include_the_rows_copied_in_the_same_epoch() {
    for prepared_statements in [true, false] {
        let database = Database::migrated().await;
        let config = database.config().prepared_statements(prepared_statements).build().unwrap();
        let engine = graphsink::Engine::start(config).await.unwrap();
        let unit = |sources: std::ops::Range<usize>, hours: i64, thread: &str| {
            let mut unit = UnitOfWork::new();
            let (restaurant, dish) = (unit.restaurant("popular").handle(), unit.dish("pie").handle());
            let connection = unit.connection(restaurant, dish).handle();
            for source in sources {
                let at = as_of() - TimeDelta::hours(hours + source as i64);
                let mention = Mention::new(SourceType::Post, format!("t{source}"), "https://example.org", "food", at);
                let mention =
                    mention.thread(format!("{thread} {source}")).observed_at(as_of() - TimeDelta::hours(hours));
                unit.mention(connection, mention);
            }
            unit
        };
        assert!(outcome(&engine, unit(0..1, 2, "first")).await.committed().is_some());
        // The stored mention moves to another thread, and many new ones join that thread.
        assert!(outcome(&engine, unit(0..400, 1, "second")).await.committed().is_some());
        let client = database.client().await;
        crate::database::assert_group_by(&client, as_of()).await;
        within(engine.shutdown(std::time::Duration::from_secs(20))).await;
    }
}
