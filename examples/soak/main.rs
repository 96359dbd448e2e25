//! The soak: load on several engines under all kinds of faults, and the proof that no unit is lost, doubled or half
//! written.
//!
//! `cargo run --release --example soak -- --help` describes the options. The files beside this one:
//!
//! - `schedule` draws the faults and their times, from the seed alone; `inject` carries them out, through the tests'
//!   proxy between engines and server, and as another client of the server;
//! - `stage` is the server, `engines` are the engines, `pool` holds all records, `producer` makes units of them and
//!   submits each until its outcome is known; `merger` merges two entities now and then;
//! - `ledger` records the submitted units and their outcomes; `check` compares it with the database, continuously and
//!   row by row whenever the load has settled; `log` reads the server's log;
//! - `report` prints the result.
//!
//! The reference is the model of the tests, which is written from the contract and shares no code with the engine.
//!
//! Each unit has a mark of its own, which shows whether the unit is in the database. The other rows come from a pool
//! that is drawn up front, so that memory stays flat and the model small.
//!
//! Clock jumps are left out. The engine measures time by the monotonic clock, and uses the wall clock only for the
//! first half of random ids; moving the clock of one process needs a preloaded library.

mod args;
mod check;
mod engines;
mod inject;
mod ledger;
mod log;
mod merger;
mod pool;
mod producer;
mod report;
mod schedule;
mod stage;

use std::error::Error;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use clap::Parser;
use graphsink_testing::model::Ids;
use graphsink_testing::proxy::Proxy;
use graphsink_testing::{canonical, database, generate, model, proxy};
use tokio::task::JoinSet;
use tokio::time::Instant;

use args::Args;
use check::Checker;
use engines::Engines;
use inject::Injector;
use ledger::{Ledger, Totals};
use producer::{Load, Mischief};
use report::Report;
use schedule::{Fault, Kind, Schedule};
use stage::Stage;

/// As in the other examples: memory stays flat.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn Error + Send + Sync>;

/// Load and faults between two checkpoints.
const PERIOD: Duration = Duration::from_secs(25);
/// The number of records per minute that are submitted for the first time.
const FRESH_A_MINUTE: f64 = 4_000.0;
/// The time limit for the producers' last units.
const SETTLE: Duration = Duration::from_mins(2);

/// Memory varies with the epochs, and the allocator keeps some of it.
const MEMORY_SLACK_MIB: u64 = 64;

/// Unrequested panics, on any thread.
static PANICS: AtomicU64 = AtomicU64::new(0);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let schedule = Schedule::draw(seed, length, args.fault_rate);
    if args.print_schedule {
        print!("{schedule}");
        println!("seed {seed}, {} faults, hash {}", schedule.faults.len(), schedule.hash());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .init();
    eprintln!("seed {seed}, {} faults, hash {}", schedule.faults.len(), schedule.hash());
    count_panics();
    match run(&args, seed, length, &schedule).await {
        Ok(report) => {
            if args.json {
                println!("{}", serde_json::to_string(&report).expect("a report is JSON"));
            } else {
                report.print();
            }
            ExitCode::from(u8::from(report.violations > 0))
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, seed: u64, length: Duration, schedule: &Schedule) -> Result<Report, AnyError> {
    let started = Instant::now();
    let mut soak = Soak::open(args, seed).await?;
    let periods = (length.as_secs_f64() / PERIOD.as_secs_f64()).ceil().max(1.0) as u32;
    let mut resident_mib_first = None;
    let mut checkpoints = 0;
    while checkpoints < periods && soak.ledger.violations() == 0 {
        let times = length * checkpoints / periods..length * (checkpoints + 1) / periods;
        let said = |periods_done: u32| soak.load.pool.len() * periods_done as usize / periods as usize;
        let fresh = said(checkpoints)..said(checkpoints + 1);
        soak.period(seed ^ (u64::from(checkpoints) << 32), schedule.between(&times), times, fresh).await?;
        soak.checker.checkpoint().await?;
        checkpoints += 1;
        resident_mib_first = resident_mib_first.or_else(resident_mib);
        soak.tell(length * checkpoints / periods, length);
    }
    let resident_mib_last = resident_mib();
    if let (Some(first), Some(last)) = (resident_mib_first, resident_mib_last) {
        let flat = last <= 2 * first + MEMORY_SLACK_MIB;
        soak.ledger.check(flat, || format!("memory grew from {first} to {last} MiB"));
    }
    soak.close().await?;

    let Soak { ledger, engines, injector, checker, .. } = soak;
    let sums = engines.sums(false);
    let faults = injector.injected();
    let count = |kind: Kind| faults.get(kind.as_str()).copied().unwrap_or_default();
    Ok(Report {
        seed,
        minutes: args.minutes,
        fault_rate: args.fault_rate,
        schedule_hash: schedule.hash(),
        seconds: started.elapsed().as_secs_f64(),
        totals: ledger.totals(),
        faults_scheduled: schedule.faults.len(),
        wire_faults: injector.proxy.counts().faults,
        restarts: sums.actor_restarts,
        engine_restarts: count(Kind::RestartEngine),
        server_restarts: count(Kind::Crash) + count(Kind::Restart),
        faults,
        retries: sums.failed_attempts,
        epochs: sums.epochs,
        server_errors: checker.log.errors,
        deadlocks: checker.log.deadlocks,
        checks: ledger.checks(),
        checkpoints,
        violations: ledger.violations(),
        violation_details: ledger.violation_details(),
        resident_mib_first,
        resident_mib_last,
    })
}

/// All parts of the soak.
struct Soak {
    producers: u64,
    ledger: Arc<Ledger>,
    stage: Arc<Stage>,
    engines: Arc<Engines>,
    load: Arc<Load>,
    injector: Arc<Injector>,
    checker: Checker,
}

impl Soak {
    async fn open(args: &Args, seed: u64) -> Result<Self, AnyError> {
        // Two days after a clock change in New York, as in the tests; fixed, so that scores can be compared.
        let as_of = "2024-03-12T12:00:00Z".parse()?;
        let pool = pool::draw(seed, as_of, ((args.minutes * FRESH_A_MINUTE) as usize).max(1_000));
        let said = vec![false; pool.len()];

        let ledger = Arc::new(Ledger::default());
        let stage = Arc::new(Stage::open(as_of).await?);
        let url = stage.url().await;
        let proxy = Proxy::start(&url).await;
        let config = stage.config(&proxy.url_of(&url)).build()?;
        let engines = Arc::new(Engines::start(config, args.engines.get(), Arc::clone(&ledger)).await?);
        let mischief = Arc::new(Mischief::default());
        let always = vec![check::holder(as_of)];
        engines.pick(0).submit(model::unit(&always, &Ids::default())).await?.await.into_result()?;
        ledger.count(|totals| (totals.units, totals.submitted, totals.committed) = (1, 1, 1));

        let load = Arc::new(Load {
            pool,
            ids: RwLock::default(),
            ledger: Arc::clone(&ledger),
            engines: Arc::clone(&engines),
            mischief: Arc::clone(&mischief),
            merged: Mutex::default(),
            as_of,
        });
        let checker =
            Checker { stage: Arc::clone(&stage), load: Arc::clone(&load), log: log::Log::default(), said, always };
        let (of_stage, of_engines) = (Arc::clone(&stage), Arc::clone(&engines));
        let injector = Arc::new(Injector::new(of_stage, of_engines, proxy, mischief, Arc::clone(&ledger)));
        Ok(Self { producers: args.producers.get() as u64, ledger, stage, engines, load, injector, checker })
    }

    /// Load and faults, until both are over. The schedule's clock stops between two periods.
    async fn period(
        &self,
        seed: u64,
        faults: Vec<Fault>,
        times: Range<Duration>,
        fresh: Range<usize>,
    ) -> Result<(), AnyError> {
        let start = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let watching = check::watch(Arc::clone(&self.stage), Arc::clone(&self.load), Arc::clone(&stop));
        let watching = tokio::spawn(watching);
        let injecting = tokio::spawn(Arc::clone(&self.injector).run(faults, start, times.start));
        let mut producers = JoinSet::new();
        for producer in 0..self.producers {
            let end = start + times.end.saturating_sub(times.start);
            producers.spawn(Arc::clone(&self.load).produce(seed ^ (producer << 48), fresh.clone(), end));
        }
        let merging =
            tokio::spawn(merger::merge(Arc::clone(&self.load), seed, start + times.end.saturating_sub(times.start)));
        injecting.await?;
        check::engines_come_back(&self.load, &self.checker.always).await;
        let ended = async {
            while let Some(ended) = producers.join_next().await {
                ended?;
            }
            Ok::<_, AnyError>(())
        };
        match tokio::time::timeout(SETTLE, ended).await {
            Ok(ended) => ended?,
            Err(_) => self.ledger.violation(format!("units have no outcome {SETTLE:?} after the end")),
        }
        if tokio::time::timeout(SETTLE, merging).await.is_err() {
            self.ledger.violation(format!("a merge has no certain outcome {SETTLE:?} after the end"));
        }
        stop.store(true, Ordering::Relaxed);
        watching.await?;
        Ok(())
    }

    /// Prints a line of progress.
    fn tell(&self, done: Duration, length: Duration) {
        let Totals { submitted, committed, rejected, unavailable, .. } = self.ledger.totals();
        let faults: u64 = self.injector.injected().values().sum();
        let (checks, violations) = (self.ledger.checks(), self.ledger.violations());
        eprintln!(
            "{:4.0} of {:.0} s: {submitted} submissions, {committed} committed, {rejected} rejected, {unavailable} \
             unavailable, {faults} faults, {checks} checks, {violations} violations",
            done.as_secs_f64(),
            length.as_secs_f64(),
        );
    }

    /// Ends the engines and the server.
    async fn close(&self) -> Result<(), AnyError> {
        self.engines.end_all().await;
        self.stage.close().await?;
        let panics = PANICS.load(Ordering::Relaxed);
        self.ledger.check(panics == 0, || format!("{panics} unrequested panics"));
        Ok(())
    }
}

/// Requested panics are silent; all others are printed and counted.
fn count_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !check::text_of(panic.payload()).ends_with("dies on request") {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tell(panic);
        }
    }));
}

/// Memory of this process, where the system reports it.
fn resident_mib() -> Option<u64> {
    /// The page size of every supported system that has the file.
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some((pages * PAGE_BYTES) >> 20)
}
