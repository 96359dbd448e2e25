//! Speed as the tables grow, slice by slice, with one engine that runs throughout.
//!
//! The records of a slice are made before its clock starts. As the tables fill, more mentions belong to existing
//! connections, whose cost differs from that of new ones; so the share of new connections is reported beside the speed.
//! Autovacuum and checkpoints run as in any database. Single slices scatter therefore, and the ratio is that of the
//! last fifth to the first.

use ::graphsink::Engine;
use serde_json::{Value, json};

use crate::ingest::{DEADLINE, check, ingest, now};
use crate::table::{median, table};
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::workload::{Record, Records};

/// Small enough for memory, and at least ten slices.
const SLICE_MAX: usize = 100_000;

#[derive(Debug)]
struct Slice {
    mentions: usize,
    speed: f64,
    /// Of a hundred mentions.
    new_connections: f64,
}

pub(crate) async fn measure(database: &Database, tables: Tables, grow_to: usize) -> Result<Value> {
    let slice = SLICE_MAX.min(grow_to.div_ceil(10));
    let mut records = Records::new(grow_to, now()).take(grow_to);
    database.reset(tables, Layout::Graphsink).await?;
    let engine = Engine::start(database.config().build()?).await?;
    let mut slices = Vec::new();
    let (mut mentions, mut connections) = (0, 0);
    loop {
        let part: Vec<Record> = records.by_ref().take(slice).collect();
        if part.is_empty() {
            break;
        }
        let size = part.len();
        let took = ingest(&engine, part).await?;
        mentions += size;
        let inserted = engine.stats().connections.inserted;
        slices.push(Slice {
            mentions,
            speed: size as f64 / took.as_secs_f64(),
            new_connections: (inserted - connections) as f64 * 100.0 / size as f64,
        });
        connections = inserted;
    }
    engine.shutdown(DEADLINE).await;
    check(database, grow_to).await?;
    let fifth = slices.len().div_ceil(5);
    let speed = |slices: &[Slice]| median(&slices.iter().map(|slice| slice.speed).collect::<Vec<_>>());
    let ratio = speed(&slices[slices.len() - fifth..]) / speed(&slices[..fifth]);
    // Ten lines for any number of slices.
    let each = slices.len().div_ceil(10);
    let rows = slices.chunks(each).map(|slices| {
        let last = &slices[slices.len() - 1];
        [last.mentions.to_string(), format!("{:.0}", speed(slices)), format!("{:.0}%", last.new_connections)]
    });
    let table = table(["tables grown to", "mentions/s", "new connections per mention"], rows);
    println!("\nspeed as the tables grow to {grow_to} mentions\n{table}\nthe last fifth to the first: {ratio:.2}");
    let slices = slices.iter().map(|slice| {
        json!({ "mentions": slice.mentions, "mentions_per_second": slice.speed,
                "new_connections_percent": slice.new_connections })
    });
    Ok(json!({ "last_fifth_to_first": ratio, "slices": slices.collect::<Vec<_>>() }))
}
