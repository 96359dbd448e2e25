//! What the server wrote to its log (WAL): counts that no noise touches, but for the checkpoint that each measurement
//! begins with.

use graphsink_benches::contestant::Result;
use graphsink_benches::database::Database;

/// So far, or since some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wal {
    bytes: i64,
    full_pages: i64,
}

impl Wal {
    /// Of the whole server. Sessions that still run may not have told the statistics their last second.
    pub(crate) async fn so_far(database: &Database) -> Result<Self> {
        let row = database.connect().await?.query_one("select wal_bytes::int8, wal_fpi from pg_stat_wal", &[]).await?;
        Ok(Self { bytes: row.get(0), full_pages: row.get(1) })
    }

    pub(crate) const fn since(self, before: &Self) -> Self {
        Self { bytes: self.bytes - before.bytes, full_pages: self.full_pages - before.full_pages }
    }

    /// As a line of the report.
    pub(crate) fn per(self, mentions: usize) -> String {
        let per_mention = |count: i64| count as f64 / mentions as f64;
        format!("WAL per mention: {:.0} bytes, {:.2} full pages", per_mention(self.bytes), per_mention(self.full_pages))
    }
}
