//! The common part: four producers submit records, and wait for every acknowledgement.

use std::time::{Duration, Instant};

use ::graphsink::{Engine, Outcome, Timestamp};

use graphsink_benches::contestant::Result;
use graphsink_benches::database::Database;
use graphsink_benches::workload::Record;

const PRODUCERS: usize = 4;
/// A time limit that no step reaches.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// In microseconds, as PostgreSQL stores it.
pub(crate) fn now() -> Timestamp {
    ::graphsink::truncate(chrono::Utc::now())
}

/// Writes records, one in each unit. Returns the time from the first submission to the last acknowledgement.
pub(crate) async fn ingest(engine: &Engine, records: Vec<Record>) -> Result<Duration> {
    let mut parts: Vec<Vec<Record>> = (0..PRODUCERS).map(|_| Vec::new()).collect();
    for (number, record) in records.into_iter().enumerate() {
        parts[number % PRODUCERS].push(record);
    }
    let start = Instant::now();
    let producers: Vec<_> = parts.into_iter().map(|part| tokio::spawn(produce(engine.clone(), part))).collect();
    for producer in producers {
        producer.await??;
    }
    Ok(start.elapsed())
}

async fn produce(engine: Engine, records: Vec<Record>) -> Result<()> {
    let mut receipts = Vec::with_capacity(records.len());
    for record in &records {
        receipts.push(engine.submit(record.unit()).await?);
    }
    for receipt in receipts {
        match receipt.await {
            Outcome::Committed(_) => {}
            other => return Err(format!("a unit was not committed: {other:?}").into()),
        }
    }
    Ok(())
}

/// An error unless the tables have this many mentions, and the connections have counted as many.
pub(crate) async fn check(database: &Database, mentions: usize) -> Result<()> {
    let count = "select (select count(*) from mentions), (select sum(mention_count) from connections)";
    let row = database.connect().await?.query_one(count, &[]).await?;
    let found: (i64, Option<i64>) = (row.get(0), row.get(1));
    if found == (mentions as i64, Some(mentions as i64)) {
        return Ok(());
    }
    Err(format!("expected {mentions} mentions; rows and counts are {found:?}").into())
}
