//! Faults of the server and of the process: killed, restarted, out of a resource, locked, refused, altered.
//!
//! Where a fault is injected under load, the load is a [`Storm`]: producers that submit random units again and again.
//! Each unit carries a witness, an entity that no other unit names, so that the [`Ledger`] can tell for each unit
//! whether it is in the database, and compare that with its outcome. Then the whole database is compared, row by row,
//! with the model of the units that are in it.

mod altered;
mod crashes;
mod duplicates;
mod life_cycle;
mod locks;
mod processes;
mod read_only;
mod setup;
pub(crate) mod shortages;
mod sqlstates;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graphsink::server::EmbeddedServer;
use graphsink::{
    AsOf, Config, ConfigBuilder, Disposition, Engine, EntityType, Migrations, Outcome, SubmitError, UnitOfWork,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::bulk::{until, until_gone};
use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, EntitySpec, Ids, Record};
use crate::support::{PATIENCE, as_of, within};

/// The number of records of a unit, without its witness.
const RECORDS_PER_UNIT: usize = 3;
/// The number of producers of a storm. Each keeps a few units under way.
const PRODUCERS: usize = 6;
/// The number of units that a producer has under way at once.
const WINDOW: usize = 4;
/// The pause of a producer between two windows: a test lasts seconds, and the model has to recompute everything.
const PACE: Duration = Duration::from_millis(20);

// ---- servers -----------------------------------------------------------------------------------

/// A server of the test's own, which may be killed and starved.
async fn server(settings: &[(&str, &str)]) -> EmbeddedServer {
    let mut builder = EmbeddedServer::builder();
    for (name, value) in settings {
        builder = builder.setting(*name, *value);
    }
    builder.start().await.expect("PostgreSQL 14 or newer is needed for these tests")
}

/// The URL of a new database with all tables on it.
async fn migrated(server: &EmbeddedServer, name: &str) -> String {
    server.create_database(name).await.unwrap();
    let url = server.url(name);
    Migrations::all().run(&config(&url).build().unwrap()).await.unwrap();
    url
}

/// Settings of an engine with a fixed `as_of` and timeouts that keep tests short.
fn config(url: &str) -> ConfigBuilder {
    Config::builder(url).as_of(AsOf::Fixed(as_of())).connect_timeout(Duration::from_secs(2))
}

/// An engine of small epochs, so that a short storm has many of them.
async fn engine(url: &str) -> Engine {
    Engine::start(config(url).max_batch_rows(60).in_flight_commits(2).build().unwrap()).await.unwrap()
}

/// Waits until a condition holds.
async fn until_so(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- load --------------------------------------------------------------------------------------

/// The units of a storm: the same random records over and over, in numbered units.
struct Supply {
    records: Vec<Record>,
    next: AtomicUsize,
    committed: AtomicUsize,
    answered: AtomicUsize,
}

impl Supply {
    fn new(seed: u64) -> Self {
        let space = Space { restaurants: 8, dishes: 6, attributes: 3, sources: 80, threads: 12, as_of: as_of() };
        let (next, committed, answered) = Default::default();
        Self { records: generate::sample(seed, space, 1_500), next, committed, answered }
    }

    fn witness(number: usize) -> String {
        format!("witness {number}")
    }

    /// The unit of this number: some of the records, and its witness.
    fn records(&self, number: usize) -> impl Iterator<Item = Record> {
        let first = number * RECORDS_PER_UNIT;
        let own = (first..first + RECORDS_PER_UNIT).map(|index| self.records[index % self.records.len()].clone());
        let key = model::key(EntityType::DishOrCategory, &Self::witness(number));
        let witness = EntitySpec { key, by_id: false, aliases: Vec::new(), attributes: Vec::new(), place: None };
        own.chain([Record::Entity(witness)])
    }

    fn unit(&self, number: usize) -> UnitOfWork {
        model::unit(&self.records(number).collect::<Vec<_>>(), &Ids::default())
    }

    fn note(&self, outcome: &Outcome) {
        self.committed.fetch_add(usize::from(outcome.committed().is_some()), Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Load that goes on under faults of the server, until it is stopped.
struct Storm {
    supply: Arc<Supply>,
    stop: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Produced>>,
}

impl Storm {
    /// Random records with many collisions, from several producers through these engines.
    fn start(seed: u64, engines: &[Engine]) -> Self {
        let supply = Arc::new(Supply::new(seed));
        let stop = Arc::new(AtomicBool::new(false));
        let producers = (0..PRODUCERS)
            .map(|producer| {
                let (supply, stop) = (Arc::clone(&supply), Arc::clone(&stop));
                let engine = engines[producer % engines.len()].clone();
                tokio::spawn(produce(engine, supply, stop))
            })
            .collect();
        Self { supply, stop, producers }
    }

    /// Waits until this many more units are committed.
    async fn progress(&self, units: usize) {
        let goal = self.supply.committed.load(Ordering::Relaxed) + units;
        until_so("the storm goes on", || self.supply.committed.load(Ordering::Relaxed) >= goal).await;
    }

    /// Waits until this many more units have an outcome of any kind.
    async fn answers(&self, units: usize) {
        let goal = self.supply.answered.load(Ordering::Relaxed) + units;
        until_so("units get outcomes", || self.supply.answered.load(Ordering::Relaxed) >= goal).await;
    }

    /// Waits until every producer has found the engine closed.
    async fn refused(&self) {
        until_so("the producers find the engine closed", || self.producers.iter().all(JoinHandle::is_finished)).await;
    }

    /// Ends the load and waits for every outcome.
    async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger {
            supply: self.supply,
            outcomes: BTreeMap::new(),
            receipts: BTreeMap::new(),
            refused: Vec::new(),
            repeated: HashSet::new(),
        };
        for producer in self.producers {
            let Produced { outcomes, refused } = within(producer).await.unwrap();
            for (number, receipt, outcome) in outcomes {
                ledger.receipts.insert(number, receipt);
                assert!(ledger.outcomes.insert(number, outcome).is_none(), "unit {number} has two outcomes");
            }
            ledger.refused.extend(refused);
        }
        let drawn = ledger.supply.next.load(Ordering::Relaxed);
        assert_eq!(ledger.outcomes.len() + ledger.refused.len(), drawn, "every accepted unit has an outcome");
        ledger
    }
}

/// The report of a producer.
#[derive(Default)]
struct Produced {
    /// The unit's number, that of its receipt, its outcome.
    outcomes: Vec<(usize, u64, Outcome)>,
    /// The unit that was not accepted because the engine was closed.
    refused: Option<usize>,
}

async fn produce(engine: Engine, supply: Arc<Supply>, stop: Arc<AtomicBool>) -> Produced {
    let mut produced = Produced::default();
    while !stop.load(Ordering::Relaxed) && produced.refused.is_none() {
        let mut window = Vec::new();
        for _ in 0..WINDOW {
            let number = supply.next.fetch_add(1, Ordering::Relaxed);
            match engine.submit(supply.unit(number)).await {
                Ok(receipt) => window.push((number, receipt)),
                Err(SubmitError::Closed(_)) => {
                    produced.refused = Some(number);
                    break;
                }
                Err(error) => panic!("unit {number}: {error}"),
            }
        }
        for (number, receipt) in window {
            let name = receipt.number();
            let outcome = within(receipt).await;
            supply.note(&outcome);
            produced.outcomes.push((number, name, outcome));
        }
        tokio::time::sleep(PACE).await;
    }
    produced
}

/// The outcomes of a storm's units.
struct Ledger {
    supply: Arc<Supply>,
    outcomes: BTreeMap<usize, Outcome>,
    /// The numbers of the receipts, by those of the units.
    receipts: BTreeMap<usize, u64>,
    /// Units that were given back.
    refused: Vec<usize>,
    /// Units that were submitted once more.
    repeated: HashSet<usize>,
}

impl Ledger {
    fn assert_all_committed(&self) {
        assert!(self.refused.is_empty(), "{:?}", self.refused);
        for (number, outcome) in &self.outcomes {
            assert!(outcome.committed().is_some(), "unit {number}: {outcome:?}");
        }
    }

    fn unavailable(&self) -> Vec<usize> {
        let unavailable = self.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Unavailable(_)));
        unavailable.map(|(number, _)| *number).collect()
    }

    /// Submits unavailable units again; all of them must be committed now.
    async fn resubmit(&mut self, engine: &Engine) {
        for number in self.unavailable() {
            let outcome = within(engine.submit(self.supply.unit(number)).await.unwrap()).await;
            assert!(outcome.committed().is_some(), "unit {number}, submitted again: {outcome:?}");
            self.outcomes.insert(number, outcome);
            self.repeated.insert(number);
        }
    }

    /// Checks that every outcome is true, and that the database equals the units in it, row by row.
    async fn check(&self, client: &Client) {
        let query = "select name from entities where name like 'witness %'";
        let rows = client.query(query, &[]).await.unwrap();
        let witnesses: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
        for number in &self.refused {
            assert!(
                !witnesses.contains(&Supply::witness(*number)),
                "unit {number} was given back, and is in the database"
            );
        }
        let mut records = Vec::new();
        for (number, outcome) in &self.outcomes {
            let written = witnesses.contains(&Supply::witness(*number));
            match outcome {
                Outcome::Committed(committed) => {
                    assert!(written, "unit {number} is lost: {outcome:?}");
                    // No other unit names the witness: an outcome that reports it as known is from a repeated
                    // transaction.
                    let witness = committed.entities.last().map(|row| row.disposition);
                    let repeated = self.repeated.contains(number);
                    assert!(repeated || witness == Some(Disposition::Inserted), "unit {number}: {outcome:?}");
                }
                Outcome::Rejected(_) => assert!(!written, "unit {number} is in the database: {outcome:?}"),
                Outcome::Unavailable(unavailable) => {
                    assert!(!written || unavailable.commit_under_way, "unit {number} is in the database: {outcome:?}");
                }
            }
            if written {
                records.extend(self.supply.records(*number));
            }
        }
        assert_same(&model::graph(&records, as_of()), &database::read(client).await);
        assert_group_by(client, as_of()).await;
    }

    fn len(&self) -> usize {
        self.outcomes.len()
    }
}

/// Checks that nothing is left over: all room is free, no transaction is open. Ends the engines.
async fn assert_at_rest(engines: &[Engine], client: &Client) {
    for engine in engines {
        within(engine.flush()).await;
        let stats = engine.stats();
        assert_eq!((stats.rows_in_flight, stats.bytes_in_flight), (0, 0), "{stats:?}");
        let answered = stats.units_committed + stats.units_rejected + stats.units_unavailable;
        assert_eq!(stats.units_submitted, answered, "{stats:?}");
    }
    // The server notices a moment later that a client is gone.
    until(
        client,
        "select not exists (select from pg_stat_activity
                            where application_name = 'graphsink' and state like 'idle in transaction%')",
    )
    .await;
    for engine in engines {
        let report = within(engine.shutdown(Duration::from_secs(20))).await;
        assert!(report.abandoned.is_empty(), "{report:?}");
    }
}
