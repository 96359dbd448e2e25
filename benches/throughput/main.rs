//! Mentions per second and idle latency: the engine beside hand-written alternatives, and beside the limit of
//! PostgreSQL.
//!
//! ```text
//! cargo bench --bench throughput -- [--quick] [--json FILE] [--chart FILE] [--rounds N]
//!                                   [--mentions N | --data FILE] [--existing N]
//! ```
//!
//! One run measures all contestants on one server of its own (durable: fsync on, keys and foreign keys on) with one
//! workload, generated or read from a file. Each measurement starts with fresh tables and a checkpoint. Rounds
//! interleave the contestants, so that noise affects all of them alike. The results are medians, and only ratios within
//! a run are meaningful. No time is asserted; the tables of each contestant are checked, and wrong tables end the
//! bench.
//!
//! A contestant is a module with a [`Contestant`] in it, and a line in [`contestants`].

mod batch;
mod chart;
mod copy;
mod copy_limit;
mod copy_staging;
mod data;
mod existing;
mod graphsink;
mod graphsink_bulk;
mod merge;
#[cfg(feature = "orms")]
mod orms;
mod report;
mod server_cpu;
mod statements;
mod unnest;
mod values;
mod wal;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use metrics_util::debugging::Snapshotter;
use uuid::Uuid;

use graphsink_benches::contestant::{Contestant, Result};
use graphsink_benches::cpu::{self, Cpu};
use graphsink_benches::database::{Database, Tables};
use graphsink_benches::workload::{History, Workload};
use graphsink_benches::{latency, machine, per_unit, rows, workload};
use report::Report;
use wal::Wal;

/// Units are freed by other threads than those that made them: see RESULTS.md, "Memory and batch size".
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the speed of writing mentions, beside alternatives and the limit.
#[derive(Debug, Parser)]
#[command(name = "throughput")]
struct Arguments {
    /// One round of a small workload, for CI: under a minute
    #[arg(long)]
    quick: bool,
    /// Writes the medians as `{contestant: {lean, full}}`, in mentions per second
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measurements of each contestant [default: 5, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Mentions of the workload [default: 60000, quick: 10000]
    #[arg(long)]
    mentions: Option<usize>,
    /// Writes this file of the loader's format (plain, .gz or .zst) instead of a generated workload
    #[arg(long, value_name = "FILE", conflicts_with = "mentions")]
    data: Option<PathBuf>,
    /// Also measures on tables that already have this many mentions (2.5 GB of disk per million)
    #[arg(long, value_name = "MENTIONS", conflicts_with = "data")]
    existing: Option<usize>,
    /// Draws the medians as an SVG file
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Single units of each kind for the latency [default: 400, quick: 100; 0: no latency]
    #[arg(long)]
    latency_units: Option<usize>,
    /// Only these contestants (repeatable)
    #[arg(long, value_name = "CONTESTANT")]
    only: Vec<String>,
    /// Only tables without (lean) or with (full) read indexes
    #[arg(long, value_name = "lean|full")]
    tables: Option<String>,
    /// Prints seconds by statement, of the engine and (through `pg_stat_statements`) of the server; costs some speed
    #[arg(long)]
    statements: bool,
    /// A setting of the server, NAME=VALUE (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    setting: Vec<String>,
    /// The file of the server's log
    #[arg(long, value_name = "FILE")]
    server_log: Option<PathBuf>,
    /// `cargo bench` passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// The contestants, in the order of each round.
fn contestants() -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(copy_limit::CopyLimit { connections: 1, checks_late: false }),
        Box::new(copy_limit::CopyLimit { connections: 2, checks_late: false }),
        Box::new(copy_limit::CopyLimit { connections: 1, checks_late: true }),
        Box::new(copy_limit::CopyLimit { connections: 2, checks_late: true }),
        Box::new(graphsink::Graphsink { in_flight_commits: None }),
        Box::new(graphsink::Graphsink { in_flight_commits: Some(1) }),
        Box::new(graphsink_bulk::GraphsinkBulk),
        Box::new(unnest::Unnest { batch: 1_000, connections: 1 }),
        Box::new(unnest::Unnest { batch: 5_000, connections: 1 }),
        Box::new(unnest::Unnest { batch: 1_000, connections: 2 }),
        Box::new(unnest::Unnest { batch: 5_000, connections: 2 }),
        Box::new(copy_staging::CopyStaging),
        Box::new(values::Values),
        #[cfg(feature = "orms")]
        Box::new(orms::SqlxUnnest { batch: 1_000 }),
        #[cfg(feature = "orms")]
        Box::new(orms::SqlxUnnest { batch: 5_000 }),
        #[cfg(feature = "orms")]
        Box::new(orms::SeaOrm),
        #[cfg(feature = "orms")]
        Box::new(orms::DieselAsync),
        Box::new(per_unit::PerUnit { pipelined: false }),
        Box::new(per_unit::PerUnit { pipelined: true }),
    ]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Plain sessions and the producers; the engine has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(cpu::PRODUCERS)
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}

#[allow(clippy::too_many_lines)]
async fn run(arguments: &Arguments) -> Result<()> {
    let (rounds, mentions, latency_units) = if arguments.quick { (1, 10_000, 100) } else { (5, 60_000, 400) };
    let rounds = arguments.rounds.unwrap_or(rounds);
    let mentions = arguments.mentions.unwrap_or(mentions).max(1);
    let latency_units = arguments.latency_units.unwrap_or(latency_units);
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let contestants: Vec<_> = contestants().into_iter().filter(|contestant| wanted(contestant.name())).collect();
    let of_arguments = |tables: &Tables| arguments.tables.as_ref().is_none_or(|only| only == tables.as_str());
    let both: Vec<Tables> = Tables::BOTH.into_iter().filter(of_arguments).collect();
    let statements = arguments.statements.then(statements::install).transpose()?;

    let workload = Arc::new(match &arguments.data {
        Some(file) => data::read(file, now())?,
        None => Workload::generate(mentions, now()),
    });
    let mut settings = settings(&arguments.setting)?;
    if arguments.statements {
        settings.extend(statements::SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let database = Database::start(&settings, arguments.server_log.as_deref()).await?;
    let circumstances = machine::circumstances(database.version());
    println!("{circumstances}");
    let history = arguments.existing.map(|existing| Arc::new(History::new(existing, mentions, now())));
    let shape = shape(history.as_ref().map(|history| history.slice(0)).as_ref().unwrap_or(&workload));
    println!("{shape}");
    let mut report = Report::default();
    let existing = match &history {
        Some(history) => {
            let meeting = contestants.iter().filter(|contestant| contestant.meets_existing());
            let kinds = meeting.flat_map(|contestant| both.iter().map(|tables| (*tables, contestant.layout())));
            existing::prepare(&database, history, &kinds.collect()).await?
        }
        None => BTreeMap::new(),
    };
    let mut slices = 0;
    for round in 1..=rounds {
        for contestant in &contestants {
            for &tables in &both {
                // With a history each measurement writes another slice: first to empty tables, then to filled ones, in
                // which no record may be written twice.
                let workload = history.as_ref().map_or_else(
                    || Arc::clone(&workload),
                    |history| {
                        slices += 1;
                        Arc::new(history.slice(slices))
                    },
                );
                let run =
                    Run { contestant: &**contestant, workload: &workload, tables, statements: statements.as_ref() };
                let (speed, notes) = run.on_empty(&database).await?;
                println!("round {round}: {:<20} {} {speed:>9.0}/s", contestant.name(), tables.as_str());
                report.add(contestant.as_ref(), tables, speed, notes);
                if history.is_some() && !contestant.meets_existing() {
                    report.leave_out(contestant.name(), "it cannot update existing rows");
                    continue;
                }
                if let Some(existing) = existing.get(&(tables, contestant.layout())) {
                    let (speed, notes) = run.on_existing(existing).await?;
                    println!("round {round}: {:<20} {} {speed:>9.0}/s on existing", contestant.name(), tables.as_str());
                    report.add_existing(contestant.as_ref(), tables, speed, notes);
                }
            }
        }
    }
    if latency_units > 0 {
        for &tables in &both {
            report.add_latencies(latency::measure(&database, tables, &workload, latency_units).await?);
        }
    }
    report.print();
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report.json()))?;
    }
    if let Some(file) = &arguments.chart {
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        chart::draw(file, &report, &circumstances, &shape)?;
    }
    Ok(())
}

/// One measurement of one contestant.
struct Run<'a> {
    contestant: &'a dyn Contestant,
    workload: &'a Arc<Workload>,
    tables: Tables,
    statements: Option<&'a Snapshotter>,
}

impl Run<'_> {
    async fn on_empty(&self, database: &Database) -> Result<(f64, Vec<String>)> {
        database.reset(self.tables, self.contestant.layout()).await?;
        let measured = self.measure(database).await?;
        let (sample, figures) = (self.sample(), self.contestant.figures());
        database.check(self.workload, sample, figures).await.map_err(|error| self.wrong(&error))?;
        Ok(measured)
    }

    async fn on_existing(&self, database: &Database) -> Result<(f64, Vec<String>)> {
        database.settle().await?;
        // Ids are made in this process and ascend.
        let since = Uuid::now_v7();
        let measured = self.measure(database).await?;
        let (sample, figures) = (self.sample(), self.contestant.figures());
        database.check_added(self.workload, sample, figures, since).await.map_err(|error| self.wrong(&error))?;
        Ok(measured)
    }

    /// Mentions per second, and the notes.
    async fn measure(&self, database: &Database) -> Result<(f64, Vec<String>)> {
        if self.statements.is_some() {
            statements::reset(&database.connect().await?).await?;
        }
        let wal = Wal::so_far(database).await?;
        let before = (server_cpu::so_far(database.postmaster().await?), Cpu::now());
        let mut measured = self.contestant.run(database, self.workload).await?;
        // Sessions that end at this moment would be missed: they have ended, and are not yet added up.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let server = server_cpu::so_far(database.postmaster().await?).saturating_sub(before.0);
        let client = Cpu::now().since(&before.1).total();
        if let Some(statements) = self.statements {
            measured.notes.extend(statements::since_last(statements));
            measured.notes.extend(statements::of_server(&database.connect().await?).await?);
        }
        let mentions = workload::mentions(&self.workload.records[..self.sample()]);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / mentions as f64;
        measured.notes.push(format!(
            "µs per mention: {:.1} of time, {:.1} of CPU in the server, {:.1} of CPU here (preparations included)",
            micros(measured.took),
            micros(server),
            micros(client),
        ));
        measured.notes.push(Wal::so_far(database).await?.since(&wal).per(mentions));
        Ok((mentions as f64 / measured.took.as_secs_f64(), measured.notes))
    }

    fn sample(&self) -> usize {
        self.contestant.sample(self.workload.records.len())
    }

    fn wrong(&self, error: &dyn std::fmt::Display) -> String {
        format!("{} on {} tables left them wrong: {error}", self.contestant.name(), self.tables.as_str())
    }
}

/// In microseconds, as PostgreSQL stores it.
fn now() -> ::graphsink::Timestamp {
    ::graphsink::truncate(chrono::Utc::now())
}

fn settings(arguments: &[String]) -> Result<Vec<(String, String)>> {
    let parse = |setting: &String| {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| format!("--setting {setting}: expected NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    arguments.iter().map(parse).collect()
}

/// The workload in one line.
fn shape(workload: &Workload) -> String {
    let entities = rows::Entities::of(&workload.records);
    let connections = rows::connections(&workload.records, &entities, workload.as_of);
    let single = connections.iter().filter(|row| row.mentions.len() == 1).count();
    let most = connections.iter().map(|row| row.mentions.len()).max().unwrap_or(0);
    let entities_only = workload.records.len() - workload::mentions(&workload.records);
    format!(
        "{} units, {entities_only} of them of entities alone; {} connections ({}% of them with one mention, at most {most}), {} entities",
        workload.records.len(),
        connections.len(),
        single * 100 / connections.len().max(1),
        entities.rows.len(),
    )
}
