//! The summary of a run, as text or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use graphsink::{BulkPhase, BulkReport, Stats, TableStats, Timestamp};
use serde::Serialize;

use crate::AnyError;
use crate::database::{Database, Strong};
use crate::feed::{End, Fed};
use crate::names::Resolved;
use crate::number::grouped;
use crate::tally::Reason;

/// A line below the header and no other.
const HEADER_LINE: &str = "     ──            ";
/// Width of a line if no terminal defines it.
const WIDTH: u16 = 120;

/// The summary. With `--json` its fields are a contract.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    mode: Mode,
    /// Lines read, blank ones apart.
    lines: u64,
    units: u64,
    committed: u64,
    rejected: u64,
    unavailable: u64,
    /// From the first submit to the last outcome, which in a bulk load comes after the last index; with `--resolve`
    /// this includes the time for that.
    seconds: f64,
    /// Mentions of committed units, including repeated ones.
    mentions_per_second: f64,
    rows_per_second: f64,
    /// Whether the input was read to its end.
    complete: bool,
    error: Option<String>,
    as_of: Timestamp,
    schema: String,
    entities: Rows,
    connections: Rows,
    mentions: Rows,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<Resolved>,
    transactions: u64,
    rows_per_transaction_mean: f64,
    rows_per_transaction_max: u64,
    /// Transactions that failed and were retried, split, or ended in a rejection.
    failed_attempts: u64,
    actor_restarts: u64,
    /// `None` in bulk, where everything is acknowledged at the end.
    acknowledgement_ms: Option<Latency>,
    lock_wait_ms: Option<LockWait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bulk: Option<Bulk>,
    rejected_by_reason: BTreeMap<String, Reason>,
    first_unavailable: Option<String>,
    strongest: Vec<Strong>,
}

/// How a load was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Online,
    Bulk,
}

/// Figures of bulk loads only.
#[derive(Debug, Serialize)]
struct Bulk {
    /// Seconds, by phase.
    phases: Vec<(BulkPhase, f64)>,
    spilled_bytes: u64,
}

/// The results of one table's rows.
#[derive(Debug, Clone, Copy, Serialize)]
struct Rows {
    received: u64,
    inserted: u64,
    updated: u64,
    unchanged: u64,
    /// Received together with another version of the same row, and written once.
    coalesced: u64,
}

/// From a unit's acceptance to its outcome, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// How long transactions waited for locks, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct LockWait {
    sum: f64,
    max: f64,
}

impl Rows {
    fn new(stats: &TableStats) -> Self {
        let TableStats { received, inserted, updated, unchanged, .. } = *stats;
        Self { received, inserted, updated, unchanged, coalesced: stats.coalesced() }
    }
}

impl Latency {
    fn new(latency: &graphsink::Latency) -> Self {
        let at = |share| latency.quantile(share).as_secs_f64() * 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: latency.max().as_secs_f64() * 1e3 }
    }
}

impl LockWait {
    fn new(waits: &graphsink::Latency) -> Self {
        let micros = waits.microseconds();
        Self { sum: micros.sum() as f64 / 1e3, max: micros.max() as f64 / 1e3 }
    }
}

impl Summary {
    pub(crate) fn new(
        fed: Fed,
        stats: &Stats,
        as_of: Timestamp,
        schema: &str,
        resolved: Option<Resolved>,
        strongest: Result<Vec<Strong>, AnyError>,
    ) -> Self {
        let Fed { tally, end } = fed;
        let (complete, mut error) = match end {
            End::Exhausted => (true, None),
            End::Stopped => (false, None),
            End::Unreadable(error) => (false, Some(crate::with_causes(&error))),
            End::Failed(error) => (false, Some(crate::with_causes(&*error))),
        };
        let strongest = strongest.unwrap_or_else(|failure| {
            let failure = format!("the strongest connections cannot be read: {}", crate::with_causes(&*failure));
            error.get_or_insert(failure);
            Vec::new()
        });
        let seconds = tally.elapsed().as_secs_f64() + resolved.map_or(0.0, |resolved| resolved.seconds);
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let rows = stats.entities.received + stats.connections.received + stats.mentions.received;
        Self {
            mode: Mode::Online,
            lines: tally.lines,
            units: tally.units,
            committed: tally.committed,
            rejected: tally.rejected,
            unavailable: tally.unavailable,
            seconds,
            mentions_per_second: per_second(stats.mentions.received),
            rows_per_second: per_second(rows),
            complete,
            error,
            as_of,
            schema: schema.to_owned(),
            entities: Rows::new(&stats.entities),
            connections: Rows::new(&stats.connections),
            mentions: Rows::new(&stats.mentions),
            resolved,
            transactions: stats.epochs,
            rows_per_transaction_mean: if stats.epochs > 0 { rows as f64 / stats.epochs as f64 } else { 0.0 },
            rows_per_transaction_max: stats.epoch_rows_max,
            failed_attempts: stats.failed_attempts,
            actor_restarts: stats.actor_restarts,
            acknowledgement_ms: Some(Latency::new(&stats.acknowledgement)),
            lock_wait_ms: Some(LockWait::new(&stats.lock_wait)),
            bulk: None,
            rejected_by_reason: tally.reasons,
            first_unavailable: tally.first_unavailable,
            strongest,
        }
    }

    /// Of a bulk load, which has committed if there is a report.
    pub(crate) fn in_bulk(self, report: Option<&BulkReport>) -> Self {
        let bulk = report.map(|report| Bulk {
            phases: report.phases.iter().map(|(phase, took)| (*phase, took.as_secs_f64())).collect(),
            spilled_bytes: report.spilled_bytes,
        });
        Self { mode: Mode::Bulk, acknowledgement_ms: None, lock_wait_ms: None, bulk, ..self }
    }

    /// 0 when every line was committed, 2 when some were rejected, 1 when the run failed.
    pub(crate) fn exit_status(&self) -> u8 {
        if self.error.is_some() || !self.complete || self.unavailable > 0 {
            1
        } else if self.rejected > 0 {
            2
        } else {
            0
        }
    }

    /// Prints it as text.
    pub(crate) fn print(&self, database: &Database) -> Result<(), AnyError> {
        let mut text = String::new();
        writeln!(
            text,
            "\n{} lines, {} units in {}: {} committed, {} rejected, {} unavailable",
            grouped(self.lines),
            grouped(self.units),
            duration(self.seconds),
            grouped(self.committed),
            grouped(self.rejected),
            grouped(self.unavailable),
        )?;
        if let Some(error) = &self.error {
            writeln!(text, "The run failed: {error}")?;
        } else if !self.complete && self.mode == Mode::Bulk {
            writeln!(text, "Stopped before all was committed, so nothing was loaded.")?;
        } else if !self.complete {
            writeln!(
                text,
                "Stopped before the end of the input. Run it again to load the rest; known rows stay unchanged."
            )?;
        }
        if let Some(first) = &self.first_unavailable {
            writeln!(text, "Some outcomes are unknown, the first is that of {first}. Running it again is safe.")?;
        }
        writeln!(text, "\n{}", self.rows_table())?;
        if let Some(resolved) = &self.resolved {
            writeln!(text, "\n{}", resolved.table())?;
        }
        writeln!(text, "\n{}", self.figures())?;
        if !self.rejected_by_reason.is_empty() {
            writeln!(text, "\nRejected\n{}", self.rejected_table())?;
        }
        if !self.strongest.is_empty() {
            writeln!(text, "\nThe ten strongest connections, by upvotes\n{}", self.strongest_table())?;
        }
        writeln!(text, "\nTo inspect it: {}", database.psql_hint())?;
        print!("{text}");
        Ok(())
    }

    fn rows_table(&self) -> Table {
        let mut table = table(&["", "received", "inserted", "updated", "unchanged", "coalesced"], &[1, 2, 3, 4, 5]);
        let tables = [("entities", self.entities), ("connections", self.connections), ("mentions", self.mentions)];
        for (name, rows) in tables {
            let counts = [rows.received, rows.inserted, rows.updated, rows.unchanged, rows.coalesced];
            table.add_row(std::iter::once(name.to_owned()).chain(counts.map(grouped)));
        }
        table
    }

    fn figures(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.add_row([
            "Throughput",
            &format!(
                "{} mentions/s, {} rows/s",
                grouped(self.mentions_per_second as u64),
                grouped(self.rows_per_second as u64)
            ),
        ]);
        table.add_row([
            "Transactions",
            &format!(
                "{}, of {} rows on average and {} at most; {} failed attempts",
                grouped(self.transactions),
                grouped(self.rows_per_transaction_mean.round() as u64),
                grouped(self.rows_per_transaction_max),
                grouped(self.failed_attempts)
            ),
        ]);
        if let Some(Latency { p50, p90, p99, max }) = self.acknowledgement_ms {
            let within = format!("half within {p50:.1} ms, 90% {p90:.1} ms, 99% {p99:.1} ms, all {max:.1} ms");
            table.add_row(["Acknowledgement", &within]);
        }
        if let Some(LockWait { sum, max }) = self.lock_wait_ms {
            table.add_row(["Waits for locks", &format!("{sum:.1} ms together, {max:.1} ms at most")]);
        }
        if let Some(Bulk { phases, spilled_bytes }) = &self.bulk {
            let phases = phases.iter().map(|(phase, took)| format!("{} {}", phase.as_str(), duration(*took)));
            table.add_row(["Phases", &phases.collect::<Vec<_>>().join(", ")]);
            table.add_row(["Files", &format!("{} MiB written", grouped(spilled_bytes >> 20))]);
        }
        table.add_row(["As of", &self.as_of.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)]);
        table
    }

    fn rejected_table(&self) -> Table {
        let mut table = table(&["reason", "units", "first example"], &[1]);
        for (rule, reason) in &self.rejected_by_reason {
            table.add_row([rule.clone(), grouped(reason.units), reason.first.clone()]);
        }
        table
    }

    fn strongest_table(&self) -> Table {
        let mut table =
            table(&["restaurant", "dish", "upvotes", "mentions", "threads", "best score", "activity"], &[2, 3, 4, 5]);
        for strong in &self.strongest {
            let dish = if strong.dish_attributes.is_empty() {
                strong.dish.clone()
            } else {
                format!("{} ({})", strong.dish, strong.dish_attributes.join(", "))
            };
            table.add_row([
                strong.restaurant.clone(),
                dish,
                signed(strong.total_upvotes),
                grouped(u64::from(strong.mentions.unsigned_abs())),
                grouped(u64::from(strong.threads.unsigned_abs())),
                strong.best_score.map_or_else(String::new, |score| format!("{score:.1}")),
                strong.activity_level.clone(),
            ]);
        }
        table
    }
}

pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(HEADER_LINE).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table.set_header(header);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

fn duration(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}
