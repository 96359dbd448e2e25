//! The command line.

use std::num::NonZeroUsize;

use clap::Parser;

/// Writes into a database under all kinds of faults, and proves that no unit is lost, doubled or half written.
///
/// It starts a PostgreSQL server of its own, puts a proxy in front of it, and injects faults by a schedule that follows
/// from the seed: the same seed, minutes and rate give the same schedule. The load between two faults depends on the
/// machine, so the same seed often reproduces a violation, but not always.
#[derive(Debug, Parser)]
#[command(
    name = "soak",
    after_long_help = "Output: progress on standard error, the ledger on standard output.\n\n\
        Exit status: 0 without violations, 1 with some, or when the soak itself failed.\n\n\
        RUST_LOG=graphsink=warn shows what the engines say meanwhile."
)]
pub(crate) struct Args {
    /// Minutes of load and faults, without the checks.
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0, value_parser = positive)]
    pub(crate) minutes: f64,

    /// Seed of the schedule and of the records [default: random; printed].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Average number of faults per second.
    #[arg(long, value_name = "FAULTS", default_value_t = 2.0, value_parser = positive)]
    pub(crate) fault_rate: f64,

    /// Tasks that submit units at the same time.
    #[arg(long, value_name = "N", default_value = "16")]
    pub(crate) producers: NonZeroUsize,

    /// Engines on the same database.
    #[arg(long, value_name = "N", default_value = "2")]
    pub(crate) engines: NonZeroUsize,

    /// Prints the ledger as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Prints the schedule and its hash, and ends.
    #[arg(long, conflicts_with = "json")]
    pub(crate) print_schedule: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 10_000.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}
