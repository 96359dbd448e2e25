//! How long an acknowledgement takes, from an idle engine to a saturated one.
//!
//! ```text
//! cargo bench --bench latency -- [--quick] [--json FILE] [--rounds N] [--tables lean|full]
//! ```
//!
//! Each round starts with fresh tables, finds the rate of an engine that never waits for units, and then offers shares
//! of that rate in an open loop (see [`load`]). A load is thus a share of the machine's capacity a moment before, and
//! only ratios are meaningful. Latencies of all rounds are put together; the ratio of half load to idle is the median
//! of the rounds.
//!
//! Beside it: a single unit and a hand-written transaction with the fewest round trips, in turns, as in the bench
//! `throughput`; and the generator alone at the highest load, to show its own part of the latencies.
//!
//! No time is asserted; every unit must be committed and be in the tables.

mod load;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::graphsink::{Engine, Outcome, Receipt, Timestamp};
use clap::Parser;

use graphsink_benches::contestant::Result;
use graphsink_benches::cpu::Cpu;
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::workload::{Record, Records, Workload};
use graphsink_benches::{cpu, latency, machine};
use load::Arrivals;
use report::{Generator, Report, Step};

/// As in the bench `throughput`, so that the benches measure the same program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures acknowledgements from idle to saturation.
#[derive(Debug, Parser)]
#[command(name = "latency")]
struct Arguments {
    /// One short round, for CI: under half a minute
    #[arg(long)]
    quick: bool,
    /// Writes the results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds, each with fresh tables [default: 3, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each load [default: 5, quick: 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Units for finding the saturating rate [default: 60000, quick: 10000]
    #[arg(long)]
    saturating_units: Option<usize>,
    /// Single units of each kind beside the hand-written transaction [default: 400, quick: 100; 0: none]
    #[arg(long)]
    lone_units: Option<usize>,
    /// Tables without (lean) or with (full) read indexes
    #[arg(long, value_name = "lean|full", default_value = "lean")]
    tables: String,
    /// `cargo bench` passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Loads, as shares of the saturating rate.
const LOADS: [f64; 5] = [0.10, 0.25, 0.50, 0.75, 0.90];
/// Units that do not meet: an acknowledgement takes a few milliseconds.
const IDLE: Arrivals = Arrivals::Every(Duration::from_millis(10));
/// The Zipf laws are those of this many mentions, more than a round offers.
const UNIVERSE: usize = 500_000;
/// The number of tasks that saturate the engine.
const PRODUCERS: usize = 4;
/// A time limit that no step reaches.
const DEADLINE: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(cpu::PRODUCERS)
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let (rounds, seconds, saturating, lone) =
        if arguments.quick { (1, 1.0, 10_000, 100) } else { (3, 5.0, 60_000, 400) };
    let rounds = arguments.rounds.unwrap_or(rounds).max(1);
    let seconds = arguments.seconds.unwrap_or(seconds).max(0.1);
    let saturating = arguments.saturating_units.unwrap_or(saturating).max(1);
    let lone = arguments.lone_units.unwrap_or(lone);
    let tables = Tables::BOTH.into_iter().find(|tables| tables.as_str() == arguments.tables);
    let tables = tables.ok_or("--tables: lean or full")?;

    let database = Database::start(&[], None).await?;
    println!("{}; {} tables", machine::circumstances(database.version()), tables.as_str());
    let mut report = Report::new(tables);
    for round in 1..=rounds {
        let mut records = Records::new(UNIVERSE, now());
        database.reset(tables, Layout::Graphsink).await?;
        let engine = Engine::start(database.config().build()?).await?;
        let rate = saturate(&engine, records.by_ref().take(saturating).collect()).await?;
        report.saturation.push(rate);
        println!("round {round}: saturated at {rate:.0} units/s");
        let idle = std::iter::once((None, IDLE));
        let loads = LOADS.into_iter().map(|share| (Some(share), Arrivals::Poisson(share * rate)));
        for (step, (share, arrivals)) in idle.chain(loads).enumerate() {
            let units = (arrivals.rate() * seconds).ceil() as usize;
            let (submitter, runtime) = (engine.clone(), tokio::runtime::Handle::current());
            let records = records.by_ref().take(units).collect();
            let measured = load::offer(records, arrivals, move |unit| {
                // The generator's thread may block, as callers of a full engine do.
                let receipt = runtime.block_on(submitter.submit(unit))?;
                Ok(committed(receipt))
            })
            .await?;
            let measured = Step { share, arrivals, measured };
            println!("round {round}: {}", measured.line());
            report.add(step, measured);
        }
        let stats = engine.shutdown(DEADLINE).await.stats;
        check(&database, stats.units_committed).await?;
    }
    report.generator = Some(generator_alone(&report, seconds).await?);
    if lone > 0 {
        let workload = Workload::generate(lone, now());
        report.lone = latency::measure(&database, tables, &workload, lone).await?;
    }
    report.print();
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    Ok(())
}

/// In microseconds, as PostgreSQL stores it.
fn now() -> Timestamp {
    ::graphsink::truncate(chrono::Utc::now())
}

/// Units per second that the engine commits while there is always another one to submit.
async fn saturate(engine: &Engine, records: Vec<Record>) -> Result<f64> {
    let units = records.len();
    let mut parts: Vec<Vec<Record>> = (0..PRODUCERS).map(|_| Vec::new()).collect();
    for (number, record) in records.into_iter().enumerate() {
        parts[number % PRODUCERS].push(record);
    }
    let start = Instant::now();
    let producers: Vec<_> = parts.into_iter().map(|part| tokio::spawn(produce(engine.clone(), part))).collect();
    for producer in producers {
        producer.await??;
    }
    Ok(units as f64 / start.elapsed().as_secs_f64())
}

async fn produce(engine: Engine, records: Vec<Record>) -> Result<()> {
    let mut receipts = Vec::with_capacity(records.len());
    for record in &records {
        receipts.push(engine.submit(record.unit()).await?);
    }
    for receipt in receipts {
        committed(receipt).await?;
    }
    Ok(())
}

async fn committed(receipt: Receipt) -> Result<()> {
    match receipt.await {
        Outcome::Committed(_) => Ok(()),
        other => Err(format!("a unit was not committed: {other:?}").into()),
    }
}

/// Checks that each unit added one mention.
async fn check(database: &Database, units: u64) -> Result<()> {
    let row = database.connect().await?.query_one("select count(*) from mentions", &[]).await?;
    let mentions: i64 = row.get(0);
    if mentions == units as i64 {
        return Ok(());
    }
    Err(format!("{units} units were committed, and there are {mentions} mentions").into())
}

/// The highest load without an engine: every unit is dropped and acknowledged at once. Delays and CPU time of this run
/// are the generator's own.
async fn generator_alone(report: &Report, seconds: f64) -> Result<Generator> {
    let arrivals = Arrivals::Poisson(LOADS[LOADS.len() - 1] * report.saturating_rate());
    let units = (arrivals.rate() * seconds).ceil() as usize;
    let records = Records::new(UNIVERSE, now()).take(units).collect();
    let before = Cpu::now();
    let measured = load::offer(records, arrivals, |unit| {
        drop(unit);
        Ok(futures::future::ready(Ok(())))
    })
    .await?;
    let cpu = Cpu::now().since(&before).total();
    Ok(Generator { step: Step { share: None, arrivals, measured }, cpu_per_unit: cpu / units.max(1) as u32 })
}
