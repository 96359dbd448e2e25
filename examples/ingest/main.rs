//! The main job: loads JSON lines into the evidence graph, and reports the results.
//!
//! `cargo run --release --example ingest -- --help` describes all options. The files beside this one: `args` (the
//! command line), `database` (the database of the graph), `names` (resolution of the input's names), `feed` (from the
//! reader to the engine), `bulk` (to a bulk load) with `origins` (the origins of its units), `tally` (counts of
//! outcomes), `progress` and `summary` (output for people).
//!
//! Tests know these: `report` (a load as a page), `recording` (the report's data over time), `number`. So they are parts of
//! the library `examples/lib.rs`.

mod args;
mod bulk;
mod database;
mod feed;
mod names;
mod origins;
mod progress;
mod stop;
mod summary;
mod tally;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use graphsink::loader::{Sample, Units};
use graphsink::resolve::Resolver;
use graphsink::{AsOf, BulkLoad, Config, Engine, Migrations, Timestamp};
use graphsink_examples::ingest::number;
use graphsink_examples::ingest::recording::{Moment, Recording};
use graphsink_examples::ingest::report::Report;
use graphsink_examples::observability::endpoint::{self, Endpoint};

use args::{Args, Source};
use bulk::BulkFeed;
use database::Database;
use feed::Feed;
use names::{Replay, Review};
use origins::Origins;
use progress::{Watch, Watched};
use stop::Stop;
use summary::Summary;
use tally::Rejects;

type AnyError = Box<dyn Error + Send + Sync>;

/// Time limit for the engine to close its connections once every unit has its outcome.
const SHUTDOWN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    // clap would exit with 2, which here means that units were rejected.
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let failed = error.use_stderr();
            // Nothing can be reported if neither output is writable.
            let _ = error.print();
            return ExitCode::from(u8::from(failed));
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(io::stderr)
        .init();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, AnyError> {
    if let Some(path) = &args.write_sample {
        write_sample(args.sample(), path)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Stop::on_signals()?;
    let source = args.source();
    // Errors of files are reported before anything is started or written.
    source.check()?;
    let rejects = args.rejects.as_deref().map(Rejects::create).transpose()?;
    let review = args.review.as_deref().map(Review::create).transpose()?;
    args.report.as_deref().map(create).transpose()?;
    let mut database = match Database::open(&args).await {
        Ok(database) => database,
        Err(error) => return Err(report_failure(&args, error)),
    };
    let code = if args.psql {
        stop.ignore();
        database.run_psql()?
    } else {
        let (summary, recorded) = match load(&args, source, (rejects, review), &database, &stop).await {
            Ok(loaded) => loaded,
            Err(error) => return Err(report_failure(&args, error)),
        };
        if args.json {
            println!("{}", serde_json::to_string(&summary)?);
        } else {
            summary.print(&database)?;
        }
        if let Some(path) = &args.report {
            let summary = serde_json::to_value(&summary)?;
            let Recorded { settings, moments } = &recorded;
            write_report(path, &Report { summary: &summary, settings, moments })?;
        }
        ExitCode::from(summary.exit_status())
    };
    database.close().await?;
    Ok(code)
}

/// The data of a report besides the summary.
struct Recorded {
    settings: Vec<(&'static str, String)>,
    moments: Vec<Moment>,
}

/// The data of the run besides the options.
struct Job<'a> {
    args: &'a Args,
    source: Source,
    rejects: Option<Rejects>,
    review: Option<Review>,
    database: &'a Database,
    stop: &'a Stop,
    config: Config,
    as_of: Timestamp,
}

async fn load(
    args: &Args,
    source: Source,
    (rejects, review): (Option<Rejects>, Option<Review>),
    database: &Database,
    stop: &Stop,
) -> Result<(Summary, Recorded), AnyError> {
    let as_of = args.as_of.unwrap_or_else(|| source.as_of());
    let mut config = Config::builder(database.url()).schema(&args.schema).as_of(AsOf::Fixed(as_of));
    if let Some(rows) = args.max_batch_rows {
        config = config.max_batch_rows(rows);
    }
    if let Some(commits) = args.in_flight_commits {
        config = config.in_flight_commits(commits);
    }
    let config = config.build()?;
    let migrations = if args.skip_read_indexes { Migrations::tables_only() } else { Migrations::all() };
    migrations.run(&config).await?;
    let job = Job { args, source, rejects, review, database, stop, config, as_of };
    if args.in_bulk.bulk { job.load_in_bulk().await } else { job.load_online().await }
}

impl Job<'_> {
    async fn load_online(self) -> Result<(Summary, Recorded), AnyError> {
        let Self { args, source, rejects, review, database, stop, config, as_of } = self;
        if database.is_known_to_be_empty().await {
            eprintln!("hint: the tables are empty, and --bulk loads a history into empty tables several times as fast");
        }
        // Before the engine, so that none of its metrics are lost.
        let metrics = args.metrics_address.map(|address| Ok::<_, AnyError>((address, endpoint::install_recorder()?)));
        let metrics = metrics.transpose()?;
        let engine = Engine::start(config.clone()).await?;
        let _endpoint = match metrics {
            None => None,
            Some((address, metrics)) => {
                let serve = Endpoint::serve(address, engine.clone(), metrics).await;
                let endpoint = serve.map_err(|error| format!("--metrics-address {address}: {error}"))?;
                eprintln!("metrics: http://{}/metrics", endpoint.address());
                Some(endpoint)
            }
        };

        let extent = source.extent();
        let mut replay = Replay::new(source);
        let resolved = match args.resolver_settings() {
            Some(settings) => {
                let resolver = Resolver::attach(&engine, settings).await?;
                Some(names::resolve(resolver, config.max_unit_rows(), &mut replay, review, stop).await?)
            }
            None => None,
        };
        let units = Units::new(replay.open()?).keep_records(rejects.is_some()).unit_rows_max(config.max_unit_rows());
        let recording = args.report.is_some().then(|| Recording::start(engine.clone()));
        let watch = Watch::start(Watched::Engine(engine.clone()), units.progress(), extent);
        let (names, resolved) = resolved.unzip();
        let feed = Feed { engine: &engine, producers: args.producers.get(), names, rejects, stop };
        let outcome = feed.run(units).await;
        watch.end().await;
        let moments = match recording {
            Some(recording) => recording.end().await,
            None => Vec::new(),
        };
        let stats = engine.stats();
        engine.shutdown(SHUTDOWN).await;
        let strongest = database.strongest(&args.schema).await;
        let settings = args.settings().into_iter().chain(config.settings()).collect();
        let summary = Summary::new(outcome, &stats, as_of, &args.schema, resolved, strongest);
        Ok((summary, Recorded { settings, moments }))
    }

    async fn load_in_bulk(self) -> Result<(Summary, Recorded), AnyError> {
        let Self { args, source, rejects, review, database, stop, config, as_of } = self;
        // Before anything is read, because the tables may not be empty.
        let load = BulkLoad::begin(config.clone(), args.bulk_settings()).await?;
        let extent = source.extent();
        let mut replay = Replay::new(source);
        let prepare = async {
            let resolved = match args.resolver_settings() {
                Some(settings) => {
                    let resolver = Resolver::connect(&config, settings).await?;
                    Some(names::resolve(resolver, config.max_unit_rows(), &mut replay, review, stop).await?)
                }
                None => None,
            };
            Ok::<_, AnyError>((resolved.unzip(), Origins::create(&args.spill_directory())?, replay.open()?))
        };
        let ((names, resolved), origins, inputs) = match prepare.await {
            Ok(prepared) => prepared,
            Err(error) => {
                load.abort().await;
                return Err(error);
            }
        };
        let units = Units::new(inputs).keep_records(rejects.is_some()).unit_rows_max(config.max_unit_rows());
        let watch = Watch::start(Watched::Bulk(load.clone()), units.progress(), extent);
        let feed = BulkFeed { load, names, rejects, origins, stop };
        let (outcome, report) = feed.run(units).await;
        watch.end().await;
        let strongest = match report {
            Some(_) => database.strongest(&args.schema).await,
            None => Ok(Vec::new()),
        };
        let settings = args.settings().into_iter().chain(config.settings()).collect();
        let stats = bulk::stats(report.as_ref());
        let summary = Summary::new(outcome, &stats, as_of, &args.schema, resolved, strongest).in_bulk(report.as_ref());
        Ok((summary, Recorded { settings, moments: Vec::new() }))
    }
}

fn write_report(path: &Path, report: &Report<'_>) -> Result<(), AnyError> {
    fs::write(path, report.html()).map_err(|error| format!("{} cannot be written: {error}", path.display()).into())
}

/// A run that failed before it had a summary is reported as well, if requested.
fn report_failure(args: &Args, error: AnyError) -> AnyError {
    let Some(path) = &args.report else { return error };
    let summary = serde_json::json!({ "complete": false, "error": with_causes(&*error) });
    let report = Report { summary: &summary, settings: &args.settings(), moments: &[] };
    match write_report(path, &report) {
        Ok(()) => error,
        Err(failure) => format!("{}; and the report {failure}", with_causes(&*error)).into(),
    }
}

/// Creates a file, or empties it.
fn create(path: &Path) -> Result<File, AnyError> {
    File::create(path).map_err(|error| format!("{} cannot be written: {error}", path.display()).into())
}

fn write_sample(sample: Sample, path: &Path) -> Result<(), AnyError> {
    let raw: Box<dyn Write> = if path.as_os_str() == "-" { Box::new(io::stdout()) } else { Box::new(create(path)?) };
    let mut file = BufWriter::new(raw);
    for line in sample {
        writeln!(file, "{line}")?;
    }
    file.flush()?;
    Ok(())
}

/// An error with all its causes, on one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}
