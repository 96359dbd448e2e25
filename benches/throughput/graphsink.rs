//! The engine with default settings: four producers build their units, submit them, and await every receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::graphsink::{Engine, Outcome, Receipt, Stats};
use futures::FutureExt;
use futures::future::BoxFuture;

use graphsink_benches::contestant::{Contestant, Measured, Result};
use graphsink_benches::cpu::{self, Cpu};
use graphsink_benches::database::{Database, Layout};
use graphsink_benches::workload::{self, Workload};

/// The number of tasks that submit.
const PRODUCERS: usize = 4;
/// A time limit that no run reaches.
const DEADLINE: Duration = Duration::from_mins(1);

/// The engine with this many commits in flight.
#[derive(Debug)]
pub(crate) struct Graphsink {
    pub(crate) in_flight_commits: Option<usize>,
}

impl Contestant for Graphsink {
    fn name(&self) -> &'static str {
        if self.in_flight_commits.is_none() { "graphsink" } else { "graphsink_1" }
    }

    fn connections(&self) -> usize {
        // The default is two.
        self.in_flight_commits.unwrap_or(2)
    }

    fn layout(&self) -> Layout {
        Layout::Graphsink
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        self.ingest(database, workload).boxed()
    }
}

impl Graphsink {
    async fn ingest(&self, database: &Database, workload: &Arc<Workload>) -> Result<Measured> {
        let mut config = database.config();
        if let Some(commits) = self.in_flight_commits {
            config = config.in_flight_commits(commits);
        }
        let engine = Engine::start(config.build()?).await?;
        let before = Cpu::now();
        let start = Instant::now();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| tokio::spawn(produce(engine.clone(), Arc::clone(workload), producer)))
            .collect();
        for producer in producers {
            producer.await??;
        }
        let took = start.elapsed();
        let cpu = Cpu::now().since(&before);
        let stats = engine.shutdown(DEADLINE).await.stats;
        Ok(Measured { took, notes: vec![epochs(&stats), cpu_per_mention(&cpu, workload)] })
    }
}

/// Submits every fourth record.
async fn produce(engine: Engine, workload: Arc<Workload>, producer: usize) -> Result<()> {
    let mut receipts: Vec<Receipt> = Vec::with_capacity(workload.records.len() / PRODUCERS + 1);
    for record in workload.records.iter().skip(producer).step_by(PRODUCERS) {
        receipts.push(engine.submit(record.unit()).await?);
    }
    for receipt in receipts {
        match receipt.await {
            Outcome::Committed(_) => {}
            other => return Err(format!("a unit was not committed: {other:?}").into()),
        }
    }
    Ok(())
}

fn epochs(stats: &Stats) -> String {
    let rows = stats.entities.received + stats.connections.received + stats.mentions.received;
    format!(
        "{} epochs of {} units, {} rows (largest {}); connections {} new, {} updated; failed attempts {}",
        stats.epochs,
        stats.units_committed / stats.epochs.max(1),
        rows / stats.epochs.max(1),
        stats.epoch_rows_max,
        stats.connections.inserted,
        stats.connections.updated,
        stats.failed_attempts,
    )
}

fn cpu_per_mention(cpu: &Cpu, workload: &Workload) -> String {
    let mentions = workload::mentions(&workload.records) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / mentions;
    format!(
        "CPU µs per mention: {:.1} = producers {:.1} + actors {:.1} + connections {:.1} (building units alone takes {:.1})",
        micros(cpu.total()),
        micros(cpu.of(cpu::PRODUCERS)),
        micros(cpu.of("graphsink")),
        micros(cpu.of("graphsink-sql")),
        micros(build_units(workload)),
    )
}

/// The time for building the units, without an engine.
fn build_units(workload: &Workload) -> Duration {
    let start = Instant::now();
    for record in &workload.records {
        std::hint::black_box(record.unit());
    }
    start.elapsed()
}
