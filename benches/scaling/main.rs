//! The cost of a mention by the size of batches, by the size of tables and by the share of duplicates, and memory by
//! the length of the input.
//!
//! ```text
//! cargo bench --bench scaling -- [--quick] [--json FILE] [--only batch|growth|duplicates|memory|lines|bulk]...
//! ```
//!
//! All parts run on one server of its own, with the workload of the bench `throughput`. Rounds interleave the compared
//! measurements, and only ratios within a run are meaningful. No time is asserted; the tables are counted after each
//! measurement, and a wrong count ends the bench. The part `bulk` runs only on request: `--only bulk --grow-to
//! 10000000` takes 30 GB of disk.

mod batch;
mod bulk;
mod duplicates;
mod growth;
mod ingest;
mod lines;
mod memory;
mod table;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Tables};
use graphsink_benches::machine;

/// The allocator of the examples. The generator's records are freed by other threads than those that made them, which
/// fragments the memory of glibc's allocator; see `memory.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the dependence of speed and memory on the load
#[derive(Debug, Parser)]
#[command(name = "scaling")]
struct Arguments {
    /// One round of small inputs, for CI: under a minute
    #[arg(long)]
    quick: bool,
    /// Writes the results, one object for each part
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these parts (repeatable)
    #[arg(long)]
    only: Vec<Part>,
    /// Rounds of the parts `batch`, `duplicates` and `lines` [default: 3, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Mentions, or lines, of each measurement of these parts [default: 40000, quick: 5000]
    #[arg(long)]
    mentions: Option<usize>,
    /// Final mentions of the part `growth`, and of the longer input of `bulk` [default: 1000000, quick: 30000]
    #[arg(long)]
    grow_to: Option<usize>,
    /// Mentions of the shortest input of the part `memory` [default: 50000, quick: 5000]
    #[arg(long)]
    input: Option<usize>,
    /// Tables without (lean) or with (full) read indexes
    #[arg(long, value_name = "lean|full", default_value = "lean")]
    tables: String,
    /// Marks the process that does the work of this part
    #[arg(long, hide = true, requires = "input")]
    child: Option<Part>,
    /// `cargo bench` passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Speed by the size of batches
    Batch,
    /// Speed as the tables grow
    Growth,
    /// Speed by the share of mentions that are already stored
    Duplicates,
    /// Memory by the length of the input
    Memory,
    /// The time from JSON lines to units
    Lines,
    /// A bulk load by the length of the input; only on request
    Bulk,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("bench").enable_all().build()?;
    match (arguments.child, arguments.input) {
        (Some(Part::Memory), Some(mentions)) => runtime.block_on(memory::child(mentions)),
        (Some(Part::Bulk), Some(mentions)) => runtime.block_on(bulk::child(mentions)),
        _ => runtime.block_on(run(&arguments)),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let (rounds, mentions, grow_to, input) =
        if arguments.quick { (1, 5_000, 30_000, 5_000) } else { (3, 40_000, 1_000_000, 50_000) };
    let rounds = arguments.rounds.unwrap_or(rounds).max(1);
    let mentions = arguments.mentions.unwrap_or(mentions).max(100);
    let grow_to = arguments.grow_to.unwrap_or(grow_to).max(100);
    let input = arguments.input.unwrap_or(input).max(1);
    let tables = Tables::BOTH.into_iter().find(|tables| tables.as_str() == arguments.tables);
    let tables = tables.ok_or("--tables: lean or full")?;
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);

    let database = Database::start(&[], None).await?;
    println!("{}; {} tables", machine::circumstances(database.version()), tables.as_str());
    let mut results = serde_json::Map::new();
    if wanted(Part::Batch) {
        results.insert("batch".to_owned(), batch::measure(&database, tables, rounds, mentions).await?);
    }
    if wanted(Part::Duplicates) {
        results.insert("duplicates".to_owned(), duplicates::measure(&database, tables, rounds, mentions).await?);
    }
    if wanted(Part::Memory) {
        results.insert("memory".to_owned(), memory::measure(&database, tables, input).await?);
    }
    if wanted(Part::Lines) {
        results.insert("lines".to_owned(), lines::measure(mentions, rounds)?);
    }
    if wanted(Part::Growth) {
        results.insert("growth".to_owned(), growth::measure(&database, tables, grow_to).await?);
    }
    if arguments.only.contains(&Part::Bulk) {
        results.insert("bulk".to_owned(), bulk::measure(&database, tables, grow_to).await?);
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", serde_json::Value::Object(results)))?;
    }
    Ok(())
}
