//! The server's write-ahead log (WAL): counts, which noise does not affect, except for the checkpoint at the start of
//! each measurement.

use graphsink_benches::contestant::Result;
use graphsink_benches::database::Database;

/// Counts so far, or since a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wal {
    bytes: i64,
    full_pages: i64,
}

impl Wal {
    /// Of the whole server. Running sessions may not have reported their last second to the statistics.
    pub(crate) async fn so_far(database: &Database) -> Result<Self> {
        let row = database.connect().await?.query_one("select wal_bytes::int8, wal_fpi from pg_stat_wal", &[]).await?;
        Ok(Self { bytes: row.get(0), full_pages: row.get(1) })
    }

    pub(crate) const fn since(self, before: &Self) -> Self {
        Self { bytes: self.bytes - before.bytes, full_pages: self.full_pages - before.full_pages }
    }

    /// A line of the report.
    pub(crate) fn per(self, mentions: usize) -> String {
        let per_mention = |count: i64| count as f64 / mentions as f64;
        format!("WAL per mention: {:.0} bytes, {:.2} full pages", per_mention(self.bytes), per_mention(self.full_pages))
    }
}
