//! The open loop: units arrive at their time, whether or not earlier ones have been acknowledged.
//!
//! Every unit has an intended arrival, drawn before the load starts. Its latency counts from then. A stall therefore
//! counts for every unit that should have arrived meanwhile (no coordinated omission), and a generator that falls
//! behind makes the engine look worse, never better. The delay of the generator is measured too.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::graphsink::UnitOfWork;
use hdrhistogram::Histogram;

use graphsink_benches::contestant::Result;
use graphsink_benches::workload::{Random, Record};

/// The time between the start and the first arrival.
const LEAD: Duration = Duration::from_millis(10);
/// An arbitrary number: the same arrivals in every round and with every version.
const SEED: u64 = 0x6f70_656e_206c_6f6f;

/// The arrivals of units.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// So far apart that units do not meet.
    Every(Duration),
    /// At random, at this average rate per second.
    Poisson(f64),
}

impl Arrivals {
    /// Units per second.
    pub(crate) fn rate(self) -> f64 {
        match self {
            Self::Every(gap) => 1.0 / gap.as_secs_f64(),
            Self::Poisson(rate) => rate,
        }
    }

    /// Intended arrivals, from the start.
    fn times(self) -> impl Iterator<Item = Duration> {
        let mut random = Random(SEED);
        let mut at = LEAD;
        std::iter::repeat_with(move || {
            let this = at;
            at += match self {
                Self::Every(gap) => gap,
                // Exponential gaps; 0 is left out because it has no logarithm.
                Self::Poisson(rate) => Duration::from_secs_f64(-(1.0 - random.fraction()).ln() / rate),
            };
            this
        })
    }
}

/// The result of a load. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// From the intended arrival to the acknowledgement.
    pub(crate) latencies: Histogram<u64>,
    /// From the intended arrival to the moment when the generator began to submit the unit.
    pub(crate) late: Histogram<u64>,
    /// From the first arrival to the last acknowledgement.
    pub(crate) took: Duration,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self { latencies: histogram(), late: histogram(), took: Duration::ZERO }
    }

    /// Adds another round of the same load.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latencies += &other.latencies;
        self.late += &other.late;
        self.took += other.took;
    }

    /// Acknowledgements per second; below the offered rate if the load exceeds the engine's capacity.
    pub(crate) fn acknowledged(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Up to two minutes, longer than the engine lets a unit wait. The size is fixed, so that the histogram never grows
/// during a measurement.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(120_000_000_000, 3).expect("a legal maximum and a legal precision")
}

/// Offers records to `submit`, which waits until the unit is accepted and returns a future that resolves when it is
/// acknowledged.
///
/// Runs on a thread of its own, which sleeps until an arrival is due: a timer of a runtime would be late by up to a
/// millisecond. Units are built in the pauses, so building delays none unless the generator is at its limit.
pub(crate) async fn offer<A>(
    records: Vec<Record>,
    arrivals: Arrivals,
    submit: impl Fn(UnitOfWork) -> Result<A> + Send + 'static,
) -> Result<Measured>
where
    A: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let acknowledged = Arc::new(Mutex::new(Acknowledged { latencies: histogram(), last: Instant::now(), error: None }));
    let collector = Arc::clone(&acknowledged);
    let (done, generated) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(GENERATOR.to_owned()).spawn(move || {
        // The receiver is gone only when the bench has ended.
        let _ = done.send(generate(&records, arrivals, &submit, &runtime, &collector));
    })?;
    let (start, late, waiting) = generated.await??;
    for task in waiting {
        task.await?;
    }
    let acknowledged = lock(&acknowledged);
    if let Some(error) = &acknowledged.error {
        return Err(error.clone().into());
    }
    let took = acknowledged.last.saturating_duration_since(start + LEAD);
    Ok(Measured { latencies: acknowledged.latencies.clone(), late, took })
}

/// The name of the generator's thread.
pub(crate) const GENERATOR: &str = "bench-load";

struct Acknowledged {
    latencies: Histogram<u64>,
    last: Instant,
    error: Option<String>,
}

fn lock(acknowledged: &Mutex<Acknowledged>) -> MutexGuard<'_, Acknowledged> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
}

type Generated = (Instant, Histogram<u64>, Vec<tokio::task::JoinHandle<()>>);

fn generate<A>(
    records: &[Record],
    arrivals: Arrivals,
    submit: impl Fn(UnitOfWork) -> Result<A>,
    runtime: &tokio::runtime::Handle,
    acknowledged: &Arc<Mutex<Acknowledged>>,
) -> Result<Generated>
where
    A: Future<Output = Result<()>> + Send + 'static,
{
    let mut late = histogram();
    let mut waiting = Vec::with_capacity(records.len());
    let start = Instant::now();
    for (record, due) in records.iter().zip(arrivals.times()) {
        let unit = record.unit();
        let due = start + due;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        late.saturating_record(nanos(due.elapsed()));
        let acknowledgement = submit(unit)?;
        let collector = Arc::clone(acknowledged);
        waiting.push(runtime.spawn(async move {
            let answer = acknowledgement.await;
            // Before the lock: waiting for it is not part of the latency.
            let now = Instant::now();
            let mut collector = lock(&collector);
            collector.latencies.saturating_record(nanos(now.saturating_duration_since(due)));
            collector.last = collector.last.max(now);
            if let Err(error) = answer {
                collector.error = Some(error.to_string());
            }
        }));
    }
    Ok((start, late, waiting))
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
