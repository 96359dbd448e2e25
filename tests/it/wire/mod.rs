//! Faults between the engine and the server, most of them made by `proxy`.
//!
//! Every unit of these tests names a dish of its own, its marker. A unit is in the database if its marker is, and the
//! transaction that wrote the unit reports the marker as *inserted*. A commit that was lost and repeated although it
//! had taken place would report it as "unchanged".

mod cancelled;
mod commit;
mod cuts;
mod fence;
mod pgbouncer;
mod pooler;
mod silence;

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use graphsink::{
    AsOf, Config, ConfigBuilder, Disposition, Engine, EntityType, Outcome, Receipt, Unavailable, UnitOfWork,
};
use tokio_postgres::Client;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, EntitySpec, Ids, Record};
use crate::proxy::Proxy;
use crate::support::{Database, as_of, connect, within};

/// An engine, and the proxy between it and its database.
struct Rig {
    /// A client that does not go through the proxy.
    url: String,
    proxy: Proxy,
    engine: Engine,
}

impl Rig {
    /// A rig with a database of its own. The engine has short timeouts.
    async fn start(settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        Self::at(Database::migrated().await.url, settings).await
    }

    async fn at(url: String, settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let proxy = Proxy::start(&url).await;
        let config = Config::builder(proxy.url_of(&url))
            .as_of(AsOf::Fixed(as_of()))
            .statement_timeout(Duration::from_secs(1))
            .lock_timeout(Duration::from_millis(1500))
            .connect_timeout(Duration::from_secs(2))
            .outcome_deadline(Duration::from_secs(45));
        let engine = Engine::start(settings(config).build().unwrap()).await.unwrap();
        Self { url, proxy, engine }
    }

    /// A session that does not go through the proxy.
    async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

/// Submitted units, with their outcomes.
#[derive(Default)]
struct Journal {
    entries: Vec<Entry>,
}

struct Entry {
    records: Vec<Record>,
    waiting: Option<Receipt>,
    told: Vec<Outcome>,
    /// The number of times it was accepted without its outcome being awaited.
    unheard: usize,
}

impl Entry {
    /// The reason why its fate is unknown, if that was its last outcome.
    fn unavailable(&self) -> Option<&Unavailable> {
        match self.told.last() {
            Some(Outcome::Unavailable(unavailable)) => Some(unavailable),
            _ => None,
        }
    }

    fn unit(&self) -> UnitOfWork {
        model::unit(&self.records, &Ids::default())
    }
}

fn marker(number: usize) -> String {
    format!("unit {number}")
}

impl Journal {
    /// Records a unit of these records; returns its number.
    fn note(&mut self, records: &[Record]) -> usize {
        let number = self.entries.len();
        let key = model::key(EntityType::DishOrCategory, &marker(number));
        let mark = EntitySpec { key, by_id: false, aliases: Vec::new(), attributes: Vec::new(), place: None };
        // Last, so that it is the last entity of the unit.
        let records = records.iter().cloned().chain([Record::Entity(mark)]).collect();
        self.entries.push(Entry { records, waiting: None, told: Vec::new(), unheard: 0 });
        number
    }

    /// Submits a unit of these records; returns its number.
    async fn submit(&mut self, engine: &Engine, records: &[Record]) -> usize {
        let number = self.note(records);
        self.submit_again(engine, number).await;
        number
    }

    /// Submits a unit that has its outcome once more.
    async fn submit_again(&mut self, engine: &Engine, number: usize) {
        let entry = &mut self.entries[number];
        assert!(entry.waiting.is_none(), "the unit has no outcome yet");
        entry.waiting = Some(within(engine.submit(entry.unit())).await.unwrap());
    }

    /// Waits for the outcome of every unit.
    async fn hear(&mut self) {
        for entry in &mut self.entries {
            if let Some(receipt) = entry.waiting.take() {
                entry.told.push(within(receipt).await);
            }
        }
    }

    /// Submits a unit and waits for its outcome.
    async fn tell(&mut self, engine: &Engine, records: &[Record]) -> Outcome {
        let number = self.submit(engine, records).await;
        self.hear().await;
        self.entries[number].told[0].clone()
    }

    /// The units among these that are in the database.
    async fn present(&self, client: &Client, units: Range<usize>) -> HashSet<usize> {
        let markers: Vec<String> = units.map(marker).collect();
        let query = "select name from entities where type = 'dish_or_category' and name = any($1)";
        let rows = client.query(query, &[&markers]).await.unwrap();
        rows.iter().map(|row| row.get::<_, &str>(0).trim_start_matches("unit ").parse().unwrap()).collect()
    }

    /// Every unit so far.
    fn all(&self) -> Range<usize> {
        0..self.entries.len()
    }

    /// Compares the outcomes of these units with the database; returns the units that are in it.
    async fn check_outcomes(&self, client: &Client, units: Range<usize>) -> HashSet<usize> {
        let present = self.present(client, units.clone()).await;
        for number in units {
            let (entry, there) = (&self.entries[number], present.contains(&number));
            match entry.told.last() {
                Some(Outcome::Committed(committed)) => {
                    assert!(there, "unit {number} was reported committed and is missing");
                    let mark = committed.entities.last().unwrap().disposition;
                    if entry.told.len() == 1 {
                        assert_eq!(mark, Disposition::Inserted, "unit {number} was committed by another transaction");
                    }
                }
                Some(Outcome::Rejected(rejection)) => panic!("unit {number} is good and was rejected: {rejection}"),
                Some(Outcome::Unavailable(unavailable)) => {
                    let nothing = !unavailable.commit_under_way && entry.told.len() == 1;
                    assert!(!(nothing && there), "unit {number} is in the database: {unavailable}");
                }
                None => assert_eq!(there, entry.unheard > 0, "unit {number} is in the database: {there}"),
            }
        }
        present
    }

    fn all_committed(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.told.last(), Some(Outcome::Committed(_))))
    }

    /// The end of every test: all outcomes are known and true, the database equals the model, and nothing is left over
    /// in the engine or in the server.
    async fn settle(&mut self, rig: &Rig) {
        self.hear().await;
        within(rig.engine.flush()).await;
        self.settle_database(rig).await;
        let stats = rig.engine.stats();
        assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0), "{stats:?}");
        let accepted = self.entries.iter().map(|entry| entry.told.len() + entry.unheard).sum::<usize>() as u64;
        let answered = stats.units_committed + stats.units_rejected + stats.units_unavailable;
        assert_eq!((stats.units_submitted, answered), (accepted, accepted), "{stats:?}");
    }

    async fn settle_database(&self, rig: &Rig) {
        let client = rig.client().await;
        // Before the comparison: cut or held transactions may still end, or be in their commit.
        let open = "select count(*) from pg_stat_activity
                    where datname = current_database() and backend_type = 'client backend'
                      and pid <> pg_backend_pid() and xact_start is not null";
        until("no transaction is left open", async || client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0)
            .await;
        let present = self.check_outcomes(&client, self.all()).await;
        let written = self.all().filter(|number| present.contains(number));
        let records: Vec<&Record> = written.flat_map(|number| &self.entries[number].records).collect();
        assert_same(&model::graph(records.iter().copied(), as_of()), &database::read(&client).await);
        assert_group_by(&client, as_of()).await;
        let counts = rig.proxy.counts();
        assert_eq!(counts.commits_rolled_back, 0, "the engine committed a failed transaction: {counts:?}");
    }
}

/// Records over few keys.
fn records(seed: u64, count: usize) -> Vec<Record> {
    let space = Space { restaurants: 6, dishes: 5, attributes: 3, sources: 60, threads: 9, as_of: as_of() };
    generate::sample(seed, space, count)
}

/// Waits until a condition holds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
