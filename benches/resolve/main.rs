//! Quality and speed of resolving names.
//!
//! ```text
//! cargo bench --bench resolve -- [--data DIR] [--curve FILE] [--entities N] [--rounds N]
//! ```
//!
//! - **Quality** (with `--data`): the entities of one restaurant guide are stored, those of the other are queried, and
//!   a list has the pairs that are the same place. Precision, recall and F1 by threshold, from names alone and with
//!   address and city; `--curve` draws them as SVG. DIR has `er_fodors_zagat_entities.jsonl` and
//!   `er_fodors_zagat_gold.csv`.
//! - **Speed** (unless `--entities 0`): a million generated entities, with nothing remembered between batches.
//!
//! Nothing is asserted. The bench starts a durable server of its own, with PostgreSQL's defaults except for those that
//! `ServerBuilder` changes.

mod curve;
mod generate;
mod gold;
mod speed;

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use graphsink::server::EmbeddedServer;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures quality and speed of resolving names.
#[derive(Debug, Parser)]
#[command(name = "resolve")]
struct Arguments {
    /// The folder with the two guides
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Draws precision, recall and F1 by threshold
    #[arg(long, value_name = "FILE", requires = "data")]
    curve: Option<PathBuf>,
    /// Entities in the database for the measurement of speed; 0: no speed
    #[arg(long, default_value_t = 1_000_000)]
    entities: usize,
    /// Batches of each kind
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// `cargo bench` passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut server = EmbeddedServer::temporary().await?;
    println!("PostgreSQL {}", server.version());
    let url = server.url("postgres");
    if let Some(data) = &arguments.data {
        gold::run(&url, data, arguments.curve.as_deref()).await?;
    }
    if arguments.entities > 0 {
        speed::run(&url, arguments.entities, arguments.rounds).await?;
    }
    server.stop().await?;
    Ok(())
}
