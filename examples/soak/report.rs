//! The ledger, for a person or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::ledger::Totals;

/// A line below the header and no other.
const HEADER_LINE: &str = "     ──            ";
/// Width of a line if no terminal defines it.
const WIDTH: u16 = 120;

/// The results of a run. With `--json` its fields are a contract.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) fault_rate: f64,
    pub(crate) schedule_hash: String,
    /// With checks.
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) totals: Totals,
    /// Faults that took place, by kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) faults_scheduled: usize,
    /// The part of the faults that the proxy applied to single messages.
    pub(crate) wire_faults: BTreeMap<String, usize>,
    /// Actors that died and were started again.
    pub(crate) restarts: u64,
    /// Engines that were ended and replaced.
    pub(crate) engine_restarts: u64,
    pub(crate) server_restarts: u64,
    /// Transactions that failed and were retried, split, or ended in a rejection.
    pub(crate) retries: u64,
    /// Transactions that were committed.
    pub(crate) epochs: u64,
    /// Errors of the engines' sessions in the server's log, by SQLSTATE.
    pub(crate) server_errors: BTreeMap<String, u64>,
    /// Deadlocks with other clients; any other deadlock is a violation.
    pub(crate) deadlocks: u64,
    pub(crate) checks: u64,
    pub(crate) checkpoints: u32,
    pub(crate) violations: u64,
    pub(crate) violation_details: Vec<String>,
    /// Memory of this process after the first and the last checkpoint, where the system reports it.
    pub(crate) resident_mib_first: Option<u64>,
    pub(crate) resident_mib_last: Option<u64>,
}

impl Report {
    /// The results as text.
    pub(crate) fn print(&self) {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string");
        line(format!(
            "\nSeed {}, {} minutes ({:.0} s with checks), {} faults a second, schedule {}\n",
            self.seed, self.minutes, self.seconds, self.fault_rate, self.schedule_hash
        ));
        line(format!("{}\n", self.units()));
        line(format!("{}\n", self.events()));
        line(format!("{}\n", counts("fault", self.faults.iter().map(|(kind, count)| (*kind, *count)))));
        if !self.server_errors.is_empty() {
            let errors = self.server_errors.iter().map(|(code, count)| (code.as_str(), *count));
            line(format!("{}\n", counts("SQLSTATE", errors)));
        }
        line(format!("{} checks, {} violations", self.checks, self.violations));
        for detail in &self.violation_details {
            line(format!("  - {detail}"));
        }
        print!("{text}");
    }

    fn units(&self) -> Table {
        let Totals { units, submitted, resubmitted, committed, rejected, unavailable, .. } = self.totals;
        counts(
            "units",
            [
                ("drawn", units),
                ("submissions accepted", submitted),
                ("resubmissions", resubmitted),
                ("committed", committed),
                ("rejected", rejected),
                ("unavailable", unavailable),
                ("receipts dropped", self.totals.receipts_dropped),
                ("submits cancelled", self.totals.submits_cancelled),
                ("submits to a closed engine", self.totals.closed),
                ("entities merged", self.totals.merged),
                ("merges without a certain outcome", self.totals.merges_unavailable),
            ]
            .into_iter(),
        )
    }

    fn events(&self) -> Table {
        counts(
            "events",
            [
                ("transactions committed", self.epochs),
                ("transactions retried, split or rejected", self.retries),
                ("actors restarted", self.restarts),
                ("engines restarted", self.engine_restarts),
                ("servers restarted", self.server_restarts),
                ("deadlocks with other clients", self.deadlocks),
                ("MiB of memory after the first checkpoint", self.resident_mib_first.unwrap_or_default()),
                ("MiB of memory after the last", self.resident_mib_last.unwrap_or_default()),
            ]
            .into_iter(),
        )
    }
}

fn counts<'a>(title: &str, rows: impl Iterator<Item = (&'a str, u64)>) -> Table {
    let mut table = Table::new();
    table.load_preset(HEADER_LINE).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table.set_header([title, "count"]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (name, count) in rows {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    table
}
