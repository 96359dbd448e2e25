//! Resident memory by the length of the input: one, four and sixteen times.
//!
//! Each length runs in a process of its own, with only the engine and one producer that makes each record when it
//! submits it, so that no input is kept. The producer submits as fast as the engine accepts and drops the receipts: all
//! units in memory are in flight. The process reports its memory before the engine started, and its maximum (`VmHWM` of
//! Linux).
//!
//! The allocator is the one of the examples. With that of glibc the figures differ, because it returns late the memory
//! that one thread allocated and another freed.

use ::graphsink::{Config, Engine};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ingest::{DEADLINE, check, now};
use crate::table::table;
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, SCHEMA, Tables};
use graphsink_benches::workload::Records;

const LENGTHS: [usize; 3] = [1, 4, 16];
/// The laws of the records do not depend on the length: otherwise the memory of their names would.
const UNIVERSE: usize = 50_000;

/// Tells the process the URL of the server.
pub(crate) const URL: &str = "SCALING_BENCH_DATABASE_URL";

/// The report of the process, in kilobytes.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    before: u64,
    most: u64,
    committed: u64,
}

/// Runs a part of this bench in a process of its own, which writes this many mentions; returns its report.
pub(crate) async fn told_by_child<T: DeserializeOwned>(database: &Database, part: &str, mentions: usize) -> Result<T> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--child", part, "--input", &mentions.to_string()])
        // Not as an argument, which other users can see: the URL contains a password.
        .env(URL, database.url())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(format!("the process of the part {part} ended with {}", output.status).into());
    }
    let told = serde_json::from_slice(&output.stdout)?;
    check(database, mentions).await?;
    Ok(told)
}

pub(crate) async fn measure(database: &Database, tables: Tables, input: usize) -> Result<Value> {
    let mut results = Vec::new();
    for length in LENGTHS {
        database.reset(tables, Layout::Graphsink).await?;
        let mentions = input * length;
        let told: Told = told_by_child(database, "memory", mentions).await?;
        if told.committed != mentions as u64 {
            return Err(format!("{} of {mentions} units were committed", told.committed).into());
        }
        results.push((mentions, told));
    }
    let first = results[0].1.most as f64;
    let rows = results.iter().map(|(mentions, told)| {
        [
            mentions.to_string(),
            format!("{:.0}", mebibytes(told.before)),
            format!("{:.0}", mebibytes(told.most)),
            format!("{:.2}", told.most as f64 / first),
        ]
    });
    let table = table(["mentions", "MiB before the engine", "MiB at most", "to the shortest"], rows);
    println!("\nresident memory by the length of the input\n{table}");
    let results = results.iter().map(|(mentions, told)| {
        json!({ "mentions": mentions, "before_mib": mebibytes(told.before), "most_mib": mebibytes(told.most),
                "to_shortest": told.most as f64 / first })
    });
    Ok(Value::Array(results.collect()))
}

pub(crate) fn mebibytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// The process whose memory is measured.
pub(crate) async fn child(mentions: usize) -> Result<()> {
    let url = std::env::var(URL)?;
    let mut records = Records::new(UNIVERSE, now()).take(mentions);
    let before = status("VmRSS")?;
    let engine = Engine::start(Config::builder(url).schema(SCHEMA).build()?).await?;
    let producer = engine.clone();
    // In a task, because the thread that blocks on the runtime is not one of its workers.
    let producing: tokio::task::JoinHandle<Result<()>> = tokio::spawn(async move {
        for record in &mut records {
            drop(producer.submit(record.unit()).await?);
        }
        Ok(())
    });
    producing.await??;
    engine.drain().await;
    let most = status("VmHWM")?;
    let committed = engine.shutdown(DEADLINE).await.stats.units_committed;
    println!("{}", serde_json::to_string(&Told { before, most, committed })?);
    Ok(())
}

/// A line of this process's status, in kilobytes.
pub(crate) fn status(name: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("/proc/self/status has no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
