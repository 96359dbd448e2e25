//! The acknowledgement time of a single unit, beside a hand-written transaction that sends all its statements at once.
//! Both take turns on one server, each in a database of its own: the engine with all the tables that it needs, the
//! other with the contract's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use graphsink::{Engine, Outcome};

use crate::contestant::Result;
use crate::database::{Database, Layout, Tables};
use crate::per_unit::UnitWriter;
use crate::workload::{Record, Workload};

/// Acknowledgement times of one kind of unit, in two ways.
#[derive(Debug)]
pub struct Latencies {
    pub tables: Tables,
    pub unit: &'static str,
    /// Ascending.
    pub engine: Vec<Duration>,
    /// Ascending.
    pub by_hand: Vec<Duration>,
}

impl Latencies {
    /// The time that this share of the acknowledgements did not exceed.
    pub fn quantile(times: &[Duration], share: f64) -> Duration {
        times[((times.len() - 1) as f64 * share).round() as usize]
    }
}

/// Acknowledgements one at a time: `rounds` units of new rows, and as many new mentions on connections that have some.
pub async fn measure(
    database: &Database,
    tables: Tables,
    workload: &Workload,
    rounds: usize,
) -> Result<Vec<Latencies>> {
    database.reset(tables, Layout::Graphsink).await?;
    let of_hand = database.create(&format!("by_hand_{}", tables.as_str())).await?;
    of_hand.reset(tables, Layout::Contract).await?;
    let engine = Engine::start(database.config().build()?).await?;
    let hand = UnitWriter::new(of_hand.connect().await?, true).await?;
    // Gives the tables some rows, and both contestants time to warm up.
    let with_mention = workload.records.iter().filter(|record| record.dish.is_some());
    let warm_up: Vec<&Record> = with_mention.take(rounds).collect();
    for &record in &warm_up {
        submit(&engine, record).await?;
        hand.write(&relabelled(record, "warm"), workload.as_of).await?;
    }
    let mut both = Vec::new();
    for (unit, new_rows) in [("all rows new", true), ("mention on an existing connection", false)] {
        let (mut of_engine, mut by_hand) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let record = warm_up[round % warm_up.len()];
            let (ours, theirs) = if new_rows {
                (renamed(record, &format!("engine {round}")), renamed(record, &format!("hand {round}")))
            } else {
                (relabelled(record, &format!("engine_{round}")), relabelled(record, &format!("hand_{round}")))
            };
            of_engine.push(submit(&engine, &ours).await?);
            let start = Instant::now();
            hand.write(&theirs, workload.as_of).await?;
            by_hand.push(start.elapsed());
        }
        of_engine.sort_unstable();
        by_hand.sort_unstable();
        both.push(Latencies { tables, unit, engine: of_engine, by_hand });
    }
    engine.shutdown(Duration::from_mins(1)).await;
    Ok(both)
}

async fn submit(engine: &Engine, record: &Record) -> Result<Duration> {
    let unit = record.unit();
    let start = Instant::now();
    match engine.submit(unit).await?.await {
        Outcome::Committed(_) => Ok(start.elapsed()),
        other => Err(format!("a single unit was not committed: {other:?}").into()),
    }
}

/// Another mention of the same connection.
fn relabelled(record: &Record, label: &str) -> Record {
    let mut record = record.clone();
    record.mention.source_id = format!("{}_{label}", record.mention.source_id).into();
    record
}

/// New rows only: another restaurant, dish and mention.
fn renamed(record: &Record, label: &str) -> Record {
    let mut record = relabelled(record, label);
    record.restaurant = Arc::from(format!("{} {label}", record.restaurant));
    record.dish = record.dish.map(|dish| Arc::from(format!("{dish} {label}")));
    record
}
