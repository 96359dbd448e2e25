//! What was measured: as a table for people, as JSON for the chart and for CI.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use crate::database::Tables;
use crate::latency::Latencies;

/// Contestants that differ in their batch size alone, under the name of the better one.
const BEST_OF: [(&str, [&str; 2]); 2] =
    [("unnest", ["unnest_1000", "unnest_5000"]), ("unnest_2x", ["unnest_2x1000", "unnest_2x5000"])];

/// Mentions per second of one contestant, one number a round.
#[derive(Debug, Default)]
struct Speeds {
    connections: usize,
    by_tables: BTreeMap<Tables, Vec<f64>>,
    notes: BTreeMap<Tables, Vec<String>>,
}

impl Speeds {
    fn median(&self, tables: Tables) -> Option<f64> {
        let mut speeds = self.by_tables.get(&tables)?.clone();
        speeds.sort_unstable_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        Some(if speeds.len() % 2 == 1 { speeds[middle] } else { f64::midpoint(speeds[middle - 1], speeds[middle]) })
    }

    /// From the slowest to the fastest round, as a share of the median.
    fn spread(&self, tables: Tables) -> Option<f64> {
        let speeds = self.by_tables.get(&tables)?;
        let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
        let fastest = speeds.iter().copied().fold(0.0, f64::max);
        Some((fastest - slowest) / self.median(tables)?)
    }
}

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order of their first measurement.
    names: Vec<&'static str>,
    speeds: BTreeMap<&'static str, Speeds>,
    latencies: Vec<Latencies>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        connections: usize,
        tables: Tables,
        speed: f64,
        notes: Vec<String>,
    ) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        let speeds = self.speeds.entry(name).or_default();
        speeds.connections = connections;
        speeds.by_tables.entry(tables).or_default().push(speed);
        speeds.notes.insert(tables, notes);
    }

    pub(crate) fn add_latencies(&mut self, latencies: Vec<Latencies>) {
        self.latencies.extend(latencies);
    }

    fn median(&self, name: &str, tables: Tables) -> Option<f64> {
        self.speeds.get(name)?.median(tables)
    }

    /// Prints everything.
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "contestant",
            "conns",
            "tables",
            "mentions/s",
            "spread",
            "to COPY limit",
            "to one per unit",
        ]);
        for name in &self.names {
            let speeds = &self.speeds[name];
            for tables in Tables::BOTH {
                let Some(median) = speeds.median(tables) else { continue };
                let limit = if speeds.connections == 1 { "copy_limit" } else { "copy_limit_2" };
                let ratio = |to: &str, digits: usize| {
                    let to = self.median(to, tables);
                    to.map_or_else(String::new, |to| format!("{:.digits$}", median / to))
                };
                table.add_row([
                    (*name).to_owned(),
                    speeds.connections.to_string(),
                    tables.as_str().to_owned(),
                    format!("{median:.0}"),
                    format!("{:.0}%", speeds.spread(tables).unwrap_or_default() * 100.0),
                    ratio(limit, 2),
                    ratio("per_unit_transaction", 1),
                ]);
            }
        }
        for column in [1, 3, 4, 5, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{table}");
        for name in &self.names {
            for (tables, notes) in &self.speeds[name].notes {
                for note in notes {
                    println!("{name} ({}): {note}", tables.as_str());
                }
            }
        }
        self.print_latencies();
    }

    fn print_latencies(&self) {
        if self.latencies.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "acknowledgement of a lone unit, ms",
            "tables",
            "engine p50",
            "p99",
            "by hand p50",
            "p99",
            "ratio p50",
            "p99",
        ]);
        for latencies in &self.latencies {
            let millis = |times, share| Latencies::quantile(times, share).as_secs_f64() * 1e3;
            let [ours, ours_99] = [0.5, 0.99].map(|share| millis(&latencies.engine, share));
            let [theirs, theirs_99] = [0.5, 0.99].map(|share| millis(&latencies.by_hand, share));
            table.add_row([
                latencies.unit.to_owned(),
                latencies.tables.as_str().to_owned(),
                format!("{ours:.2}"),
                format!("{ours_99:.2}"),
                format!("{theirs:.2}"),
                format!("{theirs_99:.2}"),
                format!("{:.2}", ours / theirs),
                format!("{:.2}", ours_99 / theirs_99),
            ]);
        }
        println!("\n{table}");
    }

    /// `{contestant: {lean, full}}`, medians in mentions per second, and the best of [`BEST_OF`].
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut contestants = serde_json::Map::new();
        for (name, speeds) in &self.speeds {
            let medians = Tables::BOTH.into_iter().filter_map(|tables| {
                let median = speeds.median(tables)?.round();
                Some((tables.as_str().to_owned(), median.into()))
            });
            contestants.insert((*name).to_owned(), serde_json::Value::Object(medians.collect()));
        }
        for (name, sizes) in BEST_OF {
            let best = Tables::BOTH.into_iter().filter_map(|tables| {
                let medians = sizes.into_iter().filter_map(|size| self.median(size, tables));
                Some((tables.as_str().to_owned(), medians.max_by(f64::total_cmp)?.round().into()))
            });
            let best: serde_json::Map<_, _> = best.collect();
            if !best.is_empty() {
                contestants.insert(name.to_owned(), best.into());
            }
        }
        contestants.into()
    }
}
