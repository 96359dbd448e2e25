//! Speed by the size of batches: `max_batch_rows` from 100 to 65,536, each on fresh tables.

use ::graphsink::Engine;
use serde_json::{Value, json};

use crate::ingest::{DEADLINE, check, ingest, now};
use crate::table::{median, table};
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::workload::Workload;

const SIZES: [usize; 7] = [100, 300, 1_000, 3_000, 6_000, 16_384, 65_536];
/// The default, with which the other sizes are compared.
const DEFAULT: usize = 6_000;
/// The engine's default for rows in flight. Larger batches get room for four of them, or they would never fill.
const ROWS_IN_FLIGHT: usize = 65_536;

#[derive(Debug, Default)]
struct Size {
    speeds: Vec<f64>,
    /// The last round's mean.
    epochs: u64,
    rows_per_epoch: u64,
}

pub(crate) async fn measure(database: &Database, tables: Tables, rounds: usize, mentions: usize) -> Result<Value> {
    let workload = Workload::generate(mentions, now());
    let mut sizes: Vec<Size> = SIZES.map(|_| Size::default()).into();
    for _ in 0..rounds {
        for (rows, size) in SIZES.into_iter().zip(&mut sizes) {
            database.reset(tables, Layout::Graphsink).await?;
            let in_flight = ROWS_IN_FLIGHT.max(4 * rows);
            let config = database.config().max_batch_rows(rows).max_rows_in_flight(in_flight).build()?;
            let engine = Engine::start(config).await?;
            let took = ingest(&engine, workload.records.clone()).await?;
            let stats = engine.shutdown(DEADLINE).await.stats;
            check(database, mentions).await?;
            size.speeds.push(mentions as f64 / took.as_secs_f64());
            size.epochs = stats.epochs;
            let received = stats.entities.received + stats.connections.received + stats.mentions.received;
            size.rows_per_epoch = received / stats.epochs.max(1);
        }
    }
    let speed_of = |rows| {
        let position = SIZES.iter().position(|size| *size == rows).expect("the default is among the sizes");
        median(&sizes[position].speeds)
    };
    let default = speed_of(DEFAULT);
    let rows = SIZES.iter().zip(&sizes).map(|(rows, size)| {
        let speed = median(&size.speeds);
        [
            rows.to_string(),
            format!("{speed:.0}"),
            format!("{:.2}", speed / default),
            size.epochs.to_string(),
            size.rows_per_epoch.to_string(),
        ]
    });
    let table = table(["max_batch_rows", "mentions/s", "to default", "epochs", "rows per epoch"], rows);
    println!("\nspeed by the size of batches, {mentions} mentions each, median of {rounds} rounds\n{table}");
    let sizes = SIZES.iter().zip(&sizes).map(|(rows, size)| {
        let speed = median(&size.speeds);
        json!({ "max_batch_rows": rows, "mentions_per_second": speed, "to_default": speed / default,
                "rows_per_epoch": size.rows_per_epoch })
    });
    Ok(Value::Array(sizes.collect()))
}
