//! Time by statement: by the engine's metric (`graphsink_statement_seconds`), and by the server's
//! (`pg_stat_statements`), which excludes round trips.

use std::fmt::Write as _;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use tokio_postgres::Client;

use graphsink_benches::contestant::Result;

/// The required settings of the server.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track_planning", "on"),
    ("pg_stat_statements.track", "top"),
];

pub(crate) fn install() -> Result<Snapshotter> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install()?;
    Ok(snapshotter)
}

/// Sums of the histograms of seconds since the last call, one line each.
pub(crate) fn since_last(snapshotter: &Snapshotter) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let DebugValue::Histogram(values) = value else { continue };
        let label = key.labels().next().map_or("", |label| label.value());
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        if values.is_empty() {
            continue;
        }
        let sum: f64 = values.iter().sum();
        let largest = values.iter().copied().fold(0.0, f64::max);
        lines.push(format!("{} {label}: {} times, sum {sum:.3}, largest {largest:.3}", key.name(), values.len()));
    }
    lines.sort();
    lines
}

/// Resets the server's statistics.
pub(crate) async fn reset(client: &Client) -> Result<()> {
    let sql = "set client_min_messages = warning; create extension if not exists pg_stat_statements schema public;
               select pg_stat_statements_reset()";
    Ok(client.batch_execute(sql).await?)
}

/// The server's statements since the last reset, the longest first.
pub(crate) async fn of_server(client: &Client) -> Result<Vec<String>> {
    let sql = "select left(regexp_replace(query, '\\s+', ' ', 'g'), 90), calls, rows,
                      total_exec_time + total_plan_time, wal_bytes::int8
               from pg_stat_statements where total_exec_time > 1 order by 4 desc limit 16";
    let line = |row: &tokio_postgres::Row| {
        let (query, calls, rows): (&str, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (milliseconds, wal): (f64, i64) = (row.get(3), row.get(4));
        let mut line = format!("server: {milliseconds:>8.0} ms, {calls} times, {rows} rows, ");
        write!(line, "{} KiB of WAL: {query}", wal / 1024).map(|()| line)
    };
    Ok(client.query(sql, &[]).await?.iter().map(line).collect::<std::result::Result<_, _>>()?)
}
