//! A contestant: a name, and a way to write the workload into fresh tables.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::database::{Database, Layout};
use crate::workload::Workload;

/// Any error ends the bench.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One way to write the workload. To add one: a module with such a type, and a line in `main.rs`.
pub trait Contestant {
    /// The name in tables and in JSON.
    fn name(&self) -> &'static str;

    /// The number of connections it writes over: it is compared with the COPY limit for the same number.
    fn connections(&self) -> usize;

    /// The tables that it writes to.
    fn layout(&self) -> Layout {
        Layout::Contract
    }

    /// The number of records it writes; slow contestants write a part, and are scaled.
    fn sample(&self, records: usize) -> usize {
        records
    }

    /// Whether it guarantees all figures of a connection, or the counts alone.
    fn figures(&self) -> Figures {
        Figures::All
    }

    /// Whether it can write to existing restaurants and connections.
    fn meets_existing(&self) -> bool {
        true
    }

    /// Writes the first `sample` records. Preparations do not count, so it takes the time itself.
    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>>;
}

/// The figures of a connection that are compared with its mentions afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// All columns.
    All,
    /// `mention_count` and `total_upvotes`.
    Counts,
}

/// The result of a run.
#[derive(Debug)]
pub struct Measured {
    pub took: Duration,
    /// Further observations.
    pub notes: Vec<String>,
}

impl Measured {
    pub const fn new(took: Duration) -> Self {
        Self { took, notes: Vec::new() }
    }
}
