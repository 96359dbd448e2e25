//! Bulk loads, through `BulkLoad` only. The server's side alone is tested in `src/store/bulk/tests`.
//!
//! - `equality`: the database and the outcomes equal those of an engine with one producer, and those of the model.
//! - `handle`: numbers, clones, waiting and reports.
//! - `ended`: the fate of a load is reported, also where `finish` was dropped.
//! - `faults`: after any end of a load, the tables and the spill directory are as before.
//! - `killed`: processes and servers that are killed, restarted or full, in each phase.
//! - `memory`: the memory of a load does not grow with its input.
//! - `catalog` dumps the server's catalog of a schema, and waits for the server.

mod ended;
mod equality;
mod faults;
mod handle;
mod killed;
mod memory;

use std::time::{Duration, Instant};

use graphsink::{BulkError, BulkLoad, BulkPhase, BulkReport, BulkSettings, Config, Engine, UnitOfWork};
use graphsink_testing::catalog;
use tempfile::TempDir;
use tokio_postgres::Client;

pub(crate) use catalog::{until, until_gone};
pub(crate) use handle::unit;

use crate::support::{Database, PATIENCE, within};

/// So little memory that nearly everything is spilled, and files are merged in passes.
const TINY: usize = 8 << 10;

/// A spill directory of the test, and settings that name it.
fn settings(memory: usize) -> (TempDir, BulkSettings) {
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(memory).spill_directory(directory.path()).keep_outcomes(true);
    (directory, settings)
}

fn config(database: &Database) -> Config {
    database.config().lock_timeout(Duration::from_secs(5)).build().unwrap()
}

/// Where a load writes its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In new tables, which replace the empty ones.
    ShadowTables,
    InPlace,
}

impl Way {
    const BOTH: [Self; 2] = [Self::ShadowTables, Self::InPlace];

    /// Makes the loads of a database take this way.
    async fn prepare(self, client: &Client) {
        if self == Self::InPlace {
            client.batch_execute("create view of_mentions as select mention_id from mentions").await.unwrap();
        }
    }

    /// The phase that waits for readers.
    fn waits(self) -> BulkPhase {
        match self {
            Self::ShadowTables => BulkPhase::Replacing,
            Self::InPlace => BulkPhase::Preparing,
        }
    }
}

/// The names in a spill directory.
fn left_in(directory: &TempDir) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    std::fs::read_dir(directory.path()).unwrap().map(name).collect()
}

/// Loads units, all of which must be valid.
async fn load(
    database: &Database,
    settings: BulkSettings,
    units: impl IntoIterator<Item = UnitOfWork>,
) -> Result<BulkReport, BulkError> {
    let load = BulkLoad::begin(config(database), settings).await?;
    for (number, unit) in (0..).zip(units) {
        assert_eq!(within(load.submit(unit)).await?, number);
    }
    within(load.finish()).await
}

/// Waits until a spill directory is empty.
async fn until_removed(directory: &TempDir) {
    let start = Instant::now();
    while !left_in(directory).is_empty() {
        assert!(start.elapsed() < PATIENCE, "left: {:?}", left_in(directory));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn rows(client: &Client) -> [i64; 3] {
    let count = "select (select count(*) from entities), (select count(*) from connections),
                        (select count(*) from mentions)";
    let row = client.query_one(count, &[]).await.unwrap();
    [row.get(0), row.get(1), row.get(2)]
}

async fn close(engine: Engine) {
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
}
