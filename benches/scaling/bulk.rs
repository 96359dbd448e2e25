//! A bulk load by the length of the input: speed, memory, and spilled bytes. A tenth of the mentions, then all of them.
//!
//! Each length runs in a process of its own, with only the load and one producer that makes each record when it submits
//! it. The records' laws grow with the length, as a longer history has more restaurants: their memory is reported as
//! "before". The clock runs from the first unit to the end of the commit.

use std::time::Instant;

use ::graphsink::{BulkLoad, BulkSettings, Config};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ingest::now;
use crate::memory::{URL, mebibytes, status, told_by_child};
use crate::table::table;
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, SCHEMA, Tables};
use graphsink_benches::workload::Records;

/// The report of the process. Memory is in kilobytes.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    before: u64,
    most: u64,
    seconds: f64,
    spilled_bytes: u64,
    phases: Vec<(String, f64)>,
}

pub(crate) async fn measure(database: &Database, tables: Tables, grow_to: usize) -> Result<Value> {
    let mut results = Vec::new();
    for mentions in [grow_to.div_ceil(10), grow_to] {
        database.reset(tables, Layout::Graphsink).await?;
        let told: Told = told_by_child(database, "bulk", mentions).await?;
        results.push((mentions, told));
    }
    let speed = |(mentions, told): &(usize, Told)| *mentions as f64 / told.seconds;
    let ratio = speed(&results[1]) / speed(&results[0]);
    let rows = results.iter().map(|result| {
        let (mentions, told) = result;
        [
            mentions.to_string(),
            format!("{:.0}", speed(result)),
            format!("{:.0}", mebibytes(told.before)),
            format!("{:.0}", mebibytes(told.most)),
            format!("{}", told.spilled_bytes >> 20),
            told.phases.iter().map(|(phase, took)| format!("{phase} {took:.1}")).collect::<Vec<_>>().join(", "),
        ]
    });
    let headers = ["mentions", "mentions/s", "MiB before", "MiB at most", "MiB spilled", "seconds"];
    println!("\nbulk load by the length of the input\n{}\nthe longer to the shorter: {ratio:.2}", table(headers, rows));
    let results = results.iter().map(|result| {
        let (mentions, told) = result;
        json!({ "mentions": mentions, "mentions_per_second": speed(result), "before_mib": mebibytes(told.before),
                "most_mib": mebibytes(told.most), "spilled_bytes": told.spilled_bytes, "phases": told.phases })
    });
    Ok(json!({ "longer_to_shorter": ratio, "lengths": results.collect::<Vec<_>>() }))
}

/// The process of the load.
pub(crate) async fn child(mentions: usize) -> Result<()> {
    let config = Config::builder(std::env::var(URL)?).schema(SCHEMA).build()?;
    let mut records = Records::new(mentions, now()).take(mentions);
    let before = status("VmRSS")?;
    let load = BulkLoad::begin(config, BulkSettings::default()).await?;
    let start = Instant::now();
    let producer = load.clone();
    // In a task, because the thread that blocks on the runtime is not one of its workers.
    let producing: tokio::task::JoinHandle<Result<()>> = tokio::spawn(async move {
        for record in &mut records {
            producer.submit(record.unit()).await?;
        }
        Ok(())
    });
    producing.await??;
    let report = load.finish().await?;
    let seconds = start.elapsed().as_secs_f64();
    let phases = report.phases.iter().map(|(phase, took)| (phase.as_str().to_owned(), took.as_secs_f64())).collect();
    let most = status("VmHWM")?;
    let told = Told { before, most, seconds, spilled_bytes: report.spilled_bytes, phases };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}
