//! CPU time of the engine itself for each mention: its cost outside PostgreSQL.
//!
//! ```text
//! cargo bench --bench engine_cpu -- [--quick] [--json FILE] [--rounds N] [--mentions N]
//! ```
//!
//! 1. Building the units, with criterion: the caller's cost.
//! 2. The whole engine with tables that keep nothing (`Engine::start_blackhole`), with criterion on CPU time in place
//!    of the clock: actors, admission, receipts, plans and encoding.
//! 3. The same, counting allocations.
//! 4. The whole engine with a server of its own: the process's CPU time as the kernel counts it, without the caller's
//!    cost of building the units.
//!
//! The workload is that of the bench `throughput`. Nothing here asserts a time.

mod allocations;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use criterion::Criterion;
use serde_json::Value;

use graphsink_benches::contestant::Result;
use graphsink_benches::workload::Workload;
use graphsink_benches::{cpu, machine};

/// Measures the CPU time of the engine for each mention.
#[derive(Debug, Parser)]
#[command(name = "engine_cpu")]
struct Arguments {
    /// Few samples and a small workload, for CI: under half a minute
    #[arg(long)]
    quick: bool,
    /// Writes the results, in microseconds for each mention
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds with the server [default: 5, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Mentions of each round [default: 60000, quick: 10000]
    #[arg(long)]
    mentions: Option<usize>,
    /// Only the parts that need no server
    #[arg(long)]
    no_server: bool,
    /// `cargo bench` passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Mentions of one run without a database: several epochs for each lane.
const RUN: usize = 20_000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (rounds, mentions, samples, seconds) = if arguments.quick { (1, 10_000, 10, 1) } else { (5, 60_000, 30, 4) };
    let rounds = arguments.rounds.unwrap_or(rounds).max(1);
    let mentions = arguments.mentions.unwrap_or(mentions).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(cpu::PRODUCERS)
        .enable_all()
        .build()?;
    println!("{}", machine::circumstances("not asked"));

    // criterion writes its results to files only.
    let directory = tempfile::tempdir()?;
    let mut criterion = Criterion::default()
        .output_directory(directory.path())
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(seconds));
    let run = Workload::generate(RUN, process::now());
    process::measure_without_database(&mut criterion, &runtime, &run)?;

    let (mut results, mut counts) = (serde_json::Map::new(), serde_json::Map::new());
    println!("\nµs a mention (median)");
    for name in [process::BUILD, process::BLACKHOLE] {
        let micros = median_nanos(directory.path(), name)? / 1e3 / RUN as f64;
        println!("{micros:>8.2}  {name}");
        results.insert(name.to_owned(), micros.into());
    }
    println!("\nallocations and bytes for each unit from building to outcome, and the part of building");
    for mentions in [1, 10, 100] {
        let [building, whole] = allocations::measure(&runtime, &run, mentions)?;
        println!(
            "{:>8.1} {:>8.0}  unit of {mentions} mentions ({:.1} and {:.0} for building it)",
            whole.allocations, whole.bytes, building.allocations, building.bytes,
        );
        if mentions == 1 {
            counts.insert("allocations_per_unit".to_owned(), whole.allocations.into());
            counts.insert("allocated_bytes_per_unit".to_owned(), whole.bytes.into());
        }
    }
    if !arguments.no_server {
        let whole = runtime.block_on(process::measure_with_server(rounds, mentions))?;
        println!("{whole}");
        results.insert("with a server".to_owned(), whole.json());
    }
    if let Some(file) = &arguments.json {
        counts.insert("us_per_mention".to_owned(), Value::Object(results));
        std::fs::write(file, format!("{:#}\n", Value::Object(counts)))?;
    }
    Ok(())
}

/// The median of one iteration.
fn median_nanos(directory: &Path, name: &str) -> Result<f64> {
    let file = directory.join(name).join("new").join("estimates.json");
    let estimates: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let median = estimates["median"]["point_estimate"].as_f64();
    median.ok_or_else(|| format!("{} has no median", file.display()).into())
}
