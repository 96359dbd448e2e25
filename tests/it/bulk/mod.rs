//! Bulk loads, through `BulkLoad` alone. What the server's side does by itself is tested in `src/store/bulk/tests`.
//!
//! - `equality`: the database and the outcomes are those of an engine with one producer, and the model's.
//! - `handle`: numbers, clones, what waits, what is reported.
//! - `ended`: what became of a load is told, also where `finish` was dropped.
//! - `faults`: whatever ends a load, the tables and the spill directory are as before.
//! - `killed`: processes and servers that are killed, restarted or full, in each phase.
//! - `memory`: what a load keeps in memory does not grow with its input.

mod ended;
mod equality;
mod faults;
mod handle;
mod killed;
mod memory;

use std::time::{Duration, Instant};

use graphsink::{BulkError, BulkLoad, BulkReport, BulkSettings, Config, Engine, UnitOfWork};
use graphsink_testing::catalog;
use tempfile::TempDir;
use tokio_postgres::Client;

pub(crate) use handle::unit;

use crate::support::{Database, PATIENCE, within};

/// So little that nearly everything is spilled, and files are merged in passes.
const TINY: usize = 8 << 10;

/// A spill directory of the test's own, and settings that name it.
fn settings(memory: usize) -> (TempDir, BulkSettings) {
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(memory).spill_directory(directory.path()).keep_outcomes(true);
    (directory, settings)
}

fn config(database: &Database) -> Config {
    database.config().lock_timeout(Duration::from_secs(5)).build().unwrap()
}

/// What lies in a spill directory.
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

/// Asks again and again, until the answer is `true`.
async fn until(client: &Client, query: &str) {
    let start = Instant::now();
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(start.elapsed() < PATIENCE, "never true: {query}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until no session of a load is left.
pub(crate) async fn until_gone(client: &Client) {
    until(
        client,
        "select not exists (select from pg_stat_activity where application_name = 'graphsink'
                            and datname = current_database())",
    )
    .await;
}

/// Waits until nothing is left in a spill directory.
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
