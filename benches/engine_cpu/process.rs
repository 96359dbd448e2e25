//! CPU time of the whole process, with and without a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::graphsink::{Config, Engine, Outcome, Timestamp, UnitOfWork};
use criterion::Criterion;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use graphsink_benches::contestant::Result;
use graphsink_benches::cpu::{self, Cpu};
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::workload::{Record, Workload};

/// The names of the measurements without a database.
pub(crate) const BUILD: &str = "build units";
pub(crate) const BLACKHOLE: &str = "engine without a database";
/// The threads that use CPU time: of producers, actors, and commits.
const THREADS: [&str; 3] = [cpu::PRODUCERS, "graphsink", "graphsink-sql"];
/// The number of tasks that submit.
pub(crate) const PRODUCERS: usize = 4;
/// A time limit that no step reaches.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// In microseconds, as PostgreSQL stores it.
pub(crate) fn now() -> Timestamp {
    ::graphsink::truncate(chrono::Utc::now())
}

/// From `submit` to the receipt's outcome, of all threads together, without building the units.
pub(crate) fn measure_without_database(
    criterion: &mut Criterion,
    runtime: &Runtime,
    workload: &Workload,
) -> Result<()> {
    let config = Config::builder("postgresql://localhost/nowhere").build()?;
    let engine = runtime.block_on(Engine::start_blackhole(config))?;
    let (mut mentions, mut by_thread) = (0, THREADS.map(|_| Duration::ZERO));
    criterion.bench_function(BUILD, |bencher| {
        bencher.iter(|| -> Vec<UnitOfWork> { workload.records.iter().map(Record::unit).collect() });
    });
    criterion.bench_function(BLACKHOLE, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let units = workload.records.iter().map(Record::unit).collect();
                let before = cpu_so_far();
                runtime.block_on(submit_all(&engine, units)).expect("nothing can fail without a database");
                let cpu = cpu_so_far().since(&before);
                total += cpu.total();
                mentions += workload.records.len();
                for (time, thread) in by_thread.iter_mut().zip(THREADS) {
                    *time += cpu.of(thread);
                }
            }
            total
        });
    });
    let stats = runtime.block_on(engine.shutdown(DEADLINE)).stats;
    let [producers, actors, commits] = by_thread.map(|time| time.as_secs_f64() * 1e6 / mentions as f64);
    println!(
        "{} epochs of {} units; µs for each mention: producers {producers:.2}, actors {actors:.2}, commits {commits:.2}",
        stats.epochs,
        stats.units_committed / stats.epochs.max(1),
    );
    Ok(())
}

pub(crate) async fn submit_all(engine: &Engine, units: Vec<UnitOfWork>) -> Result<()> {
    let mut parts: Vec<Vec<UnitOfWork>> = (0..PRODUCERS).map(|_| Vec::new()).collect();
    for (number, unit) in units.into_iter().enumerate() {
        parts[number % PRODUCERS].push(unit);
    }
    let produce = |part: Vec<UnitOfWork>| tokio::spawn(produce(engine.clone(), part.into_iter()));
    let producers: Vec<_> = parts.into_iter().map(produce).collect();
    for producer in producers {
        producer.await??;
    }
    Ok(())
}

/// Submits units one after the other, and then waits for their outcomes.
pub(crate) async fn produce(engine: Engine, units: impl Iterator<Item = UnitOfWork>) -> Result<()> {
    let mut receipts = Vec::new();
    for unit in units {
        receipts.push(engine.submit(unit).await?);
    }
    for receipt in receipts {
        match receipt.await {
            Outcome::Committed(_) => {}
            other => return Err(format!("a unit was not committed: {other:?}").into()),
        }
    }
    Ok(())
}

/// CPU time for each mention in microseconds, medians of the rounds.
#[derive(Debug)]
pub(crate) struct Whole {
    /// User and system time of the process by the kernel's ticks, without building.
    engine: f64,
    /// The same by the scheduler's count, by thread.
    producers: f64,
    actors: f64,
    connections: f64,
    /// The part for building the units.
    building: f64,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.2}  engine with a server: user and system time of the process, less {:.2} for building units\n\
             {:>8.2}  of it producers (validating, submitting, awaiting), {:.2} actors, {:.2} connections",
            self.engine,
            self.building,
            self.producers - self.building,
            self.actors,
            self.connections,
        )
    }
}

impl Whole {
    pub(crate) fn json(&self) -> Value {
        json!({
            "engine": self.engine, "producers": self.producers - self.building, "actors": self.actors,
            "connections": self.connections, "building": self.building,
        })
    }
}

/// The engine with default settings, on fresh lean tables in each round.
pub(crate) async fn measure_with_server(rounds: usize, mentions: usize) -> Result<Whole> {
    let database = Database::start(&[], None).await?;
    let workload = Arc::new(Workload::generate(mentions, now()));
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / mentions as f64;
    let mut columns: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        database.reset(Tables::Lean, Layout::Graphsink).await?;
        let engine = Engine::start(database.config().build()?).await?;
        let building = cpu_so_far();
        for record in &workload.records {
            std::hint::black_box(record.unit());
        }
        let building = cpu_so_far().since(&building).total();
        let (threads, ticks) = (cpu_so_far(), process_time()?);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let workload = Arc::clone(&workload);
                let numbers = (producer..mentions).step_by(PRODUCERS);
                let units = numbers.map(move |number| workload.records[number].unit());
                tokio::spawn(produce(engine.clone(), units))
            })
            .collect();
        for producer in producers {
            producer.await??;
        }
        let (threads, ticks) = (cpu_so_far().since(&threads), process_time()?.saturating_sub(ticks));
        let stats = engine.shutdown(DEADLINE).await.stats;
        if stats.units_committed != mentions as u64 {
            return Err(format!("{} of {mentions} units were committed", stats.units_committed).into());
        }
        let times = [
            ticks.saturating_sub(building),
            threads.of(THREADS[0]),
            threads.of(THREADS[1]),
            threads.of(THREADS[2]),
            building,
        ];
        for (column, time) in columns.iter_mut().zip(times) {
            column.push(micros(time));
        }
    }
    let [engine, producers, actors, connections, building] = columns.map(|column| median(&column));
    Ok(Whole { engine, producers, actors, connections, building })
}

/// By thread. The kernel updates a thread's count when the thread leaves the processor, or a few milliseconds later, so
/// the reading thread sleeps first.
fn cpu_so_far() -> Cpu {
    std::thread::sleep(Duration::from_millis(1));
    Cpu::now()
}

/// User and system time of this process so far, in steps of 10 ms.
fn process_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain anything; user and system time are the 12th and 13th field after it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    // Linux has reported 100 ticks a second on every machine since 2.6, whatever its timer.
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
