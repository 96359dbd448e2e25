//! The results: as a table for people, as JSON for the chart and for CI.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use graphsink_benches::contestant::Contestant;
use graphsink_benches::database::Tables;
use graphsink_benches::latency::Latencies;

/// Contestants that differ in their batch size alone, under the name of the better one.
const BEST_OF: [(&str, [&str; 2]); 3] = [
    ("unnest", ["unnest_1000", "unnest_5000"]),
    ("unnest_2x", ["unnest_2x1000", "unnest_2x5000"]),
    ("sqlx_unnest", ["sqlx_unnest_1000", "sqlx_unnest_5000"]),
];

/// Mentions per second of one contestant, one number for each round.
#[derive(Debug, Default)]
struct Speeds {
    connections: usize,
    by_tables: BTreeMap<Tables, Vec<f64>>,
    notes: BTreeMap<Tables, Vec<String>>,
}

impl Speeds {
    fn add(&mut self, contestant: &dyn Contestant, tables: Tables, speed: f64, notes: Vec<String>) {
        self.connections = contestant.connections();
        self.by_tables.entry(tables).or_default().push(speed);
        self.notes.insert(tables, notes);
    }

    fn median(&self, tables: Tables) -> Option<f64> {
        let mut speeds = self.by_tables.get(&tables)?.clone();
        speeds.sort_unstable_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        Some(if speeds.len() % 2 == 1 { speeds[middle] } else { f64::midpoint(speeds[middle - 1], speeds[middle]) })
    }

    /// The slowest and the fastest round.
    fn range(&self, tables: Tables) -> Option<(f64, f64)> {
        let speeds = self.by_tables.get(&tables)?;
        let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
        Some((slowest, speeds.iter().copied().fold(0.0, f64::max)))
    }

    /// The distance from the slowest to the fastest round, as a share of the median.
    fn spread(&self, tables: Tables) -> Option<f64> {
        let (slowest, fastest) = self.range(tables)?;
        Some((fastest - slowest) / self.median(tables)?)
    }

    fn print_notes(&self, name: &str, label: &str) {
        for (tables, notes) in &self.notes {
            for note in notes {
                println!("{name} ({}{label}): {note}", tables.as_str());
            }
        }
    }
}

/// One contestant's part of the chart.
#[derive(Debug)]
pub(crate) struct Bars {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) by_tables: BTreeMap<Tables, Bar>,
}

/// Mentions per second.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) median: f64,
    pub(crate) slowest: f64,
    pub(crate) fastest: f64,
    /// The COPY limit with the same number of connections.
    pub(crate) limit: Option<f64>,
}

/// The name of the limit for this number of connections.
const fn limit(connections: usize) -> &'static str {
    if connections == 1 { "copy_limit" } else { "copy_limit_2" }
}

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order of their first measurement.
    names: Vec<&'static str>,
    speeds: BTreeMap<&'static str, Speeds>,
    /// On filled tables.
    existing: BTreeMap<&'static str, Speeds>,
    left_out: BTreeMap<&'static str, &'static str>,
    latencies: Vec<Latencies>,
}

impl Report {
    pub(crate) fn add(&mut self, contestant: &dyn Contestant, tables: Tables, speed: f64, notes: Vec<String>) {
        let name = contestant.name();
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        self.speeds.entry(name).or_default().add(contestant, tables, speed, notes);
    }

    /// The same on filled tables.
    pub(crate) fn add_existing(&mut self, contestant: &dyn Contestant, tables: Tables, speed: f64, notes: Vec<String>) {
        self.existing.entry(contestant.name()).or_default().add(contestant, tables, speed, notes);
    }

    /// Notes why a contestant was not measured on filled tables.
    pub(crate) fn leave_out(&mut self, name: &'static str, reason: &'static str) {
        self.left_out.insert(name, reason);
    }

    pub(crate) fn add_latencies(&mut self, latencies: Vec<Latencies>) {
        self.latencies.extend(latencies);
    }

    fn median(&self, name: &str, tables: Tables) -> Option<f64> {
        self.speeds.get(name)?.median(tables)
    }

    /// The chart's data for each contestant, in the order of the rounds.
    pub(crate) fn bars(&self) -> Vec<Bars> {
        let of = |name: &&'static str| {
            let speeds = &self.speeds[name];
            let bar = |tables| {
                let (slowest, fastest) = speeds.range(tables)?;
                let limit = self.median(limit(speeds.connections), tables);
                Some((tables, Bar { median: speeds.median(tables)?, slowest, fastest, limit }))
            };
            Bars {
                name,
                connections: speeds.connections,
                by_tables: Tables::BOTH.into_iter().filter_map(bar).collect(),
            }
        };
        self.names.iter().map(of).collect()
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
                let limit = limit(speeds.connections);
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
            self.speeds[name].print_notes(name, "");
        }
        self.print_existing();
        self.print_latencies();
    }

    fn print_existing(&self) {
        if self.existing.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "on filled tables",
            "tables",
            "mentions/s",
            "spread",
            "to empty",
        ]);
        for (name, speeds) in self.names.iter().filter_map(|name| Some((*name, self.existing.get(name)?))) {
            for tables in Tables::BOTH {
                let (Some(median), Some(empty)) = (speeds.median(tables), self.median(name, tables)) else { continue };
                table.add_row([
                    name.to_owned(),
                    tables.as_str().to_owned(),
                    format!("{median:.0}"),
                    format!("{:.0}%", speeds.spread(tables).unwrap_or_default() * 100.0),
                    format!("{:.2}", median / empty),
                ]);
            }
        }
        println!("\n{table}");
        for (name, reason) in &self.left_out {
            println!("{name} is not in this table: {reason}");
        }
        for (name, speeds) in &self.existing {
            speeds.print_notes(name, ", existing");
        }
    }

    fn print_latencies(&self) {
        if self.latencies.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "acknowledgement of a single unit, ms",
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

    /// `{contestant: {lean, full}}`, medians in mentions per second, and the best of [`BEST_OF`]. If filled tables were
    /// measured as well: `lean_existing` and `full_existing`.
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut contestants = serde_json::Map::new();
        for (name, speeds) in &self.speeds {
            let medians = |speeds: &Speeds, label: &str| {
                let median = |tables: Tables| {
                    Some((format!("{}{label}", tables.as_str()), speeds.median(tables)?.round().into()))
                };
                Tables::BOTH.into_iter().filter_map(median).collect::<Vec<(String, serde_json::Value)>>()
            };
            let mut all = medians(speeds, "");
            all.extend(self.existing.get(name).map(|speeds| medians(speeds, "_existing")).unwrap_or_default());
            contestants.insert((*name).to_owned(), serde_json::Value::Object(all.into_iter().collect()));
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
