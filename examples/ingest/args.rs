//! The command line.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Parser, ValueEnum};
use graphsink::loader::Sample;
use graphsink::{BulkSettings, Timestamp, truncate};

use crate::AnyError;
use crate::progress::Extent;

/// Loads mentions of dishes at restaurants (JSON lines) into an evidence graph in PostgreSQL.
///
/// Without options it loads the repository's sample, 2,000 lines, into its own PostgreSQL server. Running it again,
/// with the same or other input, is always safe: known data stays unchanged.
#[derive(Debug, Parser)]
#[command(
    name = "ingest",
    after_long_help = "Output: progress on standard error, the summary on standard output.\n\n\
        Exit status: 0 when every line was committed; 2 when some were rejected; 1 when the run failed, was stopped \
        before the end of its input, or had units whose outcome is unknown because the database could not be used (run \
        it again).\n\n\
        Ctrl-C (or SIGTERM) stops reading, finishes what is in flight and reports; a second one quits at once. No unit is \
        ever written in part. With --bulk nothing is written then.\n\n\
        Lines: one JSON object each; see the documentation of `graphsink::loader`. Lines that follow each other with the \
        same \"unit\" are written whole or not at all; a bad line among them rejects them all."
)]
pub(crate) struct Args {
    /// A file of lines, `-` for standard input; may be repeated. gzip and zstd are recognized by their content.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Vec<PathBuf>,

    /// Loads a generated sample of this many lines [default: 2000, unless --input is given].
    #[arg(long, value_name = "LINES", conflicts_with = "input")]
    pub(crate) sample: Option<u64>,

    /// Seed of the sample; the same seed and length are the same lines everywhere.
    #[arg(long, value_name = "N", default_value_t = Sample::SEED)]
    pub(crate) seed: u64,

    /// Writes the sample to FILE (`-` for standard output) instead of loading anything.
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub(crate) write_sample: Option<PathBuf>,

    /// The database, as a libpq connection string or URL [default: the environment's `DATABASE_URL`, unless --data-dir
    /// is given; without that an embedded server].
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,

    /// The schema that holds the tables; created when missing.
    #[arg(long, value_name = "NAME", default_value = "public")]
    pub(crate) schema: String,

    /// Where the embedded server keeps its data between runs [default: graphsink-ingest in cargo's target directory].
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    pub(crate) data_dir: Option<PathBuf>,

    /// The time that recent counts, scores and activity refer to [default: the start of the run; for a sample,
    /// 2025-06-01, its reference time].
    #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
    pub(crate) as_of: Option<Timestamp>,

    #[command(flatten)]
    pub(crate) in_bulk: BulkArgs,

    /// Tasks that submit units at the same time.
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) producers: NonZeroUsize,

    /// Rows at which a transaction is full [default: the engine's].
    #[arg(long, value_name = "ROWS")]
    pub(crate) max_batch_rows: Option<usize>,

    /// Transactions at the same time [default: the engine's].
    #[arg(long, value_name = "N")]
    pub(crate) in_flight_commits: Option<usize>,

    /// Publishes metrics for Prometheus at /metrics of this address, probes at /livez and /readyz, and the data for
    /// `top --attach` at /stats; see examples/observability.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// Writes a JSON line for each rejected unit: input, line, reason and record (a unit of several lines: also all
    /// lines and records).
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,

    /// First resolves each name of the input to an entity, searching the tiers up to this one; the input is read twice
    /// for it [default: names are used as they are].
    #[arg(long, value_name = "TIER")]
    pub(crate) resolve: Option<Tier>,

    /// The policy for a name that is similar to an entity, but not enough.
    #[arg(long, value_name = "POLICY", default_value = "flag", requires = "resolve")]
    pub(crate) grey_zone: Policy,

    /// Writes a JSON line for each flagged name: the query, the decision, its confidence, and the candidates.
    #[arg(long, value_name = "FILE", requires = "resolve")]
    pub(crate) review: Option<PathBuf>,

    /// Writes a report as one HTML file: throughput, batch sizes, latencies and results of rows over time, the outcome,
    /// and the settings; no password.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Prints the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Omits the indexes that only readers need; a later run without this option builds them.
    #[arg(long)]
    pub(crate) skip_read_indexes: bool,

    /// Loads nothing, but opens psql on the database; an embedded server runs as long as psql does.
    #[arg(long, conflicts_with_all = ["input", "sample", "write_sample", "rejects", "report", "json", "resolve"])]
    pub(crate) psql: bool,
}

/// Options of bulk loads only.
#[derive(Debug, clap::Args)]
pub(crate) struct BulkArgs {
    /// Loads a history into empty tables in one transaction, with keys and indexes built at the end: several times as
    /// fast. Others cannot write meanwhile, and a run that ends early leaves the tables empty. Units take effect in the
    /// order of the input.
    #[arg(long, conflicts_with_all = ["producers", "max_batch_rows", "in_flight_commits", "metrics_address", "psql"])]
    pub(crate) bulk: bool,

    /// With --bulk, the memory for sorting, in MiB; data that exceeds it goes to files.
    #[arg(long, value_name = "MIB", default_value = "256", requires = "bulk")]
    pub(crate) memory: NonZeroUsize,

    /// With --bulk, the directory of these files [default: the system's temporary directory]. They take 0.6 to 1.3
    /// times the size of the uncompressed input, and are removed at the end; those of a killed run by the next.
    #[arg(long, value_name = "DIR", requires = "bulk")]
    pub(crate) spill_dir: Option<PathBuf>,
}

/// The last tier in which a name is searched.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Tier {
    /// Entities with that name: changes nothing, but counts the known ones.
    Exact,
    /// Also entities with the name or the original text among their aliases.
    Alias,
    /// Also entities with a similar name, or at the same address.
    Fuzzy,
}

/// The policy for a name whose best candidate is neither good enough to accept nor bad enough to reject.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Policy {
    /// A new entity is created, and the name is listed for review.
    Flag,
    /// The best candidate is accepted.
    Accept,
    /// A new entity is created.
    Create,
}

/// The source of a load.
#[derive(Debug)]
pub(crate) enum Source {
    /// Files, `-` for standard input.
    Inputs(Vec<PathBuf>),
    /// The sample of this seed and length.
    Sample { seed: u64, lines: u64 },
}

impl Args {
    /// The sample that the options describe.
    pub(crate) fn sample(&self) -> Sample {
        Sample::new(self.seed, self.sample_lines())
    }

    /// The source requested by the options.
    pub(crate) fn source(&self) -> Source {
        if self.input.is_empty() {
            Source::Sample { seed: self.seed, lines: self.sample_lines() }
        } else {
            Source::Inputs(self.input.clone())
        }
    }

    /// The database that the options or the environment name.
    pub(crate) fn database_url(&self) -> Option<String> {
        let from_environment = || env::var("DATABASE_URL").ok().filter(|_| self.data_dir.is_none());
        self.database_url.clone().or_else(from_environment).filter(|url| !url.is_empty())
    }

    /// The options shown in a report, without the database's URL: it may contain a password.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let input = match self.source() {
            Source::Sample { seed, lines } => format!("sample of {lines} lines, seed {seed}"),
            Source::Inputs(paths) => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        let server = if self.database_url().is_some() { "named by the user" } else { "embedded" };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let resolve = match self.resolve {
            Some(tier) => format!("{}, grey zone: {}", name(&tier), name(&self.grey_zone)),
            None => "no".to_owned(),
        };
        let mut settings = vec![
            ("graphsink", env!("CARGO_PKG_VERSION").to_owned()),
            ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
            ("cores", cores.to_string()),
            ("input", input),
            ("server", server.to_owned()),
            ("names resolved", resolve),
            ("read indexes", if self.skip_read_indexes { "left out" } else { "there" }.to_owned()),
        ];
        if self.in_bulk.bulk {
            settings.push(("memory of the bulk load", format!("{} MiB", self.in_bulk.memory)));
            settings.push(("files of the bulk load", self.spill_directory().display().to_string()));
        } else {
            settings.push(("producers", self.producers.to_string()));
        }
        settings
    }

    /// The settings of a bulk load.
    pub(crate) fn bulk_settings(&self) -> BulkSettings {
        let memory = self.in_bulk.memory.get().saturating_mul(1 << 20);
        let settings = BulkSettings::default().memory(memory).spill_directory(self.spill_directory());
        match self.source().plain_bytes() {
            Some(bytes) => settings.expected_input_bytes(bytes),
            None => settings,
        }
    }

    /// The directory of spilled files.
    pub(crate) fn spill_directory(&self) -> PathBuf {
        self.in_bulk.spill_dir.clone().unwrap_or_else(env::temp_dir)
    }

    fn sample_lines(&self) -> u64 {
        self.sample.unwrap_or(Sample::LINES)
    }
}

impl Source {
    /// The time that counts and scores refer to, unless an option says otherwise.
    pub(crate) fn as_of(&self) -> Timestamp {
        match self {
            Self::Inputs(_) => truncate(Utc::now()),
            Self::Sample { .. } => Sample::as_of(),
        }
    }

    /// Whether every file can be opened.
    pub(crate) fn check(&self) -> Result<(), AnyError> {
        if let Self::Inputs(paths) = self {
            for path in paths.iter().filter(|path| path.as_os_str() != "-") {
                let opened = File::open(path).and_then(|file| file.metadata());
                let metadata = opened.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                if metadata.is_dir() {
                    return Err(format!("{} is a directory", path.display()).into());
                }
            }
        }
        Ok(())
    }

    /// Bytes of text, if known: not for compressed input.
    fn plain_bytes(&self) -> Option<u64> {
        let Self::Inputs(paths) = self else { return None };
        let is_plain = |path: &PathBuf| !path.extension().is_some_and(|end| end == "gz" || end == "zst");
        match self.extent() {
            Extent::Bytes(bytes) if paths.iter().all(is_plain) => Some(bytes),
            _ => None,
        }
    }

    /// The size of the input, if known.
    pub(crate) fn extent(&self) -> Extent {
        match self {
            Self::Sample { lines, .. } => Extent::Lines(*lines),
            Self::Inputs(paths) => {
                let size =
                    |path: &PathBuf| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
                paths.iter().map(size).sum::<Option<u64>>().map_or(Extent::Unknown, Extent::Bytes)
            }
        }
    }
}

/// The name of a value on the command line.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| truncate(time.to_utc()))
        .map_err(|error| format!("{error}; expected a time such as 2024-01-10T14:20:00Z"))
}
