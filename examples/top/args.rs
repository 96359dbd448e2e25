//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Shows on a terminal what a running engine does.
///
/// Without an address it starts its own engine with a demo load.
#[derive(Debug, Parser)]
#[command(
    name = "top",
    after_long_help = "Keys: q, Esc or Ctrl-C quit; p pauses; r forgets the peaks.\n\n\
        An engine that ends or cannot be reached is asked again until it answers."
)]
pub(crate) struct Args {
    /// Address of the program that serves `/stats`, for example `http://127.0.0.1:9187`: the one given to `ingest
    /// --metrics-address` [default: its own engine, on the environment's `DATABASE_URL` or an embedded server].
    #[arg(long, value_name = "URL")]
    pub(crate) attach: Option<String>,

    /// Milliseconds between two queries.
    #[arg(long, value_name = "MS", default_value = "500", value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    interval: u64,

    /// Prints one picture as text and ends; for scripts.
    #[arg(long)]
    pub(crate) once: bool,

    /// Number of answers to wait for before printing.
    #[arg(long, value_name = "N", default_value = "2", requires = "once", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) frames: u32,

    /// Its columns and rows.
    #[arg(long, value_name = "WxH", default_value = "80x24", requires = "once", value_parser = parse_size)]
    pub(crate) size: (u16, u16),

    /// Writes it to FILE as SVG, with colours, instead of printing it.
    #[arg(long, value_name = "FILE", requires = "once")]
    pub(crate) svg: Option<PathBuf>,
}

impl Args {
    /// The time between two queries.
    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval)
    }
}

fn parse_size(text: &str) -> Result<(u16, u16), String> {
    let size = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let fits = |size: &(u16, u16)| (1..=500).contains(&size.0) && (1..=500).contains(&size.1);
    size.filter(fits).ok_or_else(|| "columns and rows, for example 120x40; at most 500 each".to_owned())
}
