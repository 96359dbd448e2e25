//! What takes part: a name, and a way to write the workload into fresh tables.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::database::{Database, Layout};
use crate::workload::Workload;

/// Whatever goes wrong ends the bench.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One way to write the workload. To add one: a module with such a type, and a line in `main.rs`.
pub trait Contestant {
    /// The name in tables and in JSON.
    fn name(&self) -> &'static str;

    /// Connections it writes over: it is compared with the COPY limit of as many.
    fn connections(&self) -> usize;

    /// Whose tables it writes to.
    fn layout(&self) -> Layout {
        Layout::Contract
    }

    /// How many records it writes; those who are slow write a part, and are scaled.
    fn sample(&self, records: usize) -> usize {
        records
    }

    /// Whether it promises every figure of a connection, or the counts alone.
    fn figures(&self) -> Figures {
        Figures::All
    }

    /// Whether it can write to restaurants and connections that are there already.
    fn meets_existing(&self) -> bool {
        true
    }

    /// Writes the first `sample` records. Preparations do not count, so it takes the time itself.
    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>>;
}

/// What of a connection's figures is compared with its mentions afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// All columns.
    All,
    /// `mention_count` and `total_upvotes`.
    Counts,
}

/// How a run went.
#[derive(Debug)]
pub struct Measured {
    pub took: Duration,
    /// Anything else that it can tell.
    pub notes: Vec<String>,
}

impl Measured {
    pub const fn new(took: Duration) -> Self {
        Self { took, notes: Vec::new() }
    }
}
