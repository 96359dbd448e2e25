//! The bulk load with default settings: four producers build their units and submit them. The clock runs from the first
//! unit to the end of the commit, which follows the last index.

use std::sync::Arc;
use std::time::Instant;

use ::graphsink::{BulkLoad, BulkReport, BulkSettings};
use futures::FutureExt;
use futures::future::BoxFuture;

use graphsink_benches::contestant::{Contestant, Measured, Result};
use graphsink_benches::database::{Database, Layout};
use graphsink_benches::workload::Workload;

/// The number of tasks that submit.
const PRODUCERS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct GraphsinkBulk;

impl Contestant for GraphsinkBulk {
    fn name(&self) -> &'static str {
        "graphsink_bulk"
    }

    /// It has one connection, and replaces all other ways of filling the tables, so it is compared with the better
    /// limit.
    fn connections(&self) -> usize {
        2
    }

    fn layout(&self) -> Layout {
        Layout::Graphsink
    }

    fn meets_existing(&self) -> bool {
        // A bulk load requires empty tables.
        false
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        load(database, workload).boxed()
    }
}

async fn load(database: &Database, workload: &Arc<Workload>) -> Result<Measured> {
    let load = BulkLoad::begin(database.config().build()?, BulkSettings::default()).await?;
    let start = Instant::now();
    let producers: Vec<_> =
        (0..PRODUCERS).map(|producer| tokio::spawn(produce(load.clone(), Arc::clone(workload), producer))).collect();
    for producer in producers {
        producer.await??;
    }
    let report = load.finish().await?;
    let took = start.elapsed();
    if report.rejected > 0 {
        return Err(format!("{} units were rejected", report.rejected).into());
    }
    Ok(Measured { took, notes: vec![phases(&report)] })
}

/// Submits every fourth record.
async fn produce(load: BulkLoad, workload: Arc<Workload>, producer: usize) -> Result<()> {
    for record in workload.records.iter().skip(producer).step_by(PRODUCERS) {
        load.submit(record.unit()).await?;
    }
    Ok(())
}

fn phases(report: &BulkReport) -> String {
    let phases = report.phases.iter().map(|(phase, took)| format!("{} {:.2} s", phase.as_str(), took.as_secs_f64()));
    format!("{}; {} MiB spilled", phases.collect::<Vec<_>>().join(", "), report.spilled_bytes >> 20)
}
