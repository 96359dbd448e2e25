//! The results: as tables for people, as JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::load::{Arrivals, Measured};
use graphsink_benches::database::Tables;
use graphsink_benches::latency::Latencies;

/// The load that is compared with an idle engine.
const HALF: f64 = 0.5;
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// One load in one round, or in all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The share of the saturating rate; none: idle.
    pub(crate) share: Option<f64>,
    pub(crate) arrivals: Arrivals,
    pub(crate) measured: Measured,
}

impl Step {
    fn name(&self) -> String {
        self.share.map_or_else(|| "idle".to_owned(), |share| format!("{:.0}%", share * 100.0))
    }

    fn p99(&self) -> f64 {
        millis(&self.measured.latencies, 0.99)
    }

    /// The step in one line.
    pub(crate) fn line(&self) -> String {
        let latencies = &self.measured.latencies;
        let [p50, p99, p999] = QUANTILES.map(|(_, share)| millis(latencies, share));
        format!(
            "{:>4}: offered {:.0}/s, acknowledged {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms",
            self.name(),
            self.arrivals.rate(),
            self.measured.acknowledged(),
        )
    }
}

/// The generator without an engine.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) step: Step,
    /// Building the unit, waiting for its time and recording its acknowledgement.
    pub(crate) cpu_per_unit: Duration,
}

/// All results.
#[derive(Debug)]
pub(crate) struct Report {
    tables: Tables,
    /// Units per second, one number for each round.
    pub(crate) saturation: Vec<f64>,
    /// The rounds of each load.
    steps: Vec<Vec<Step>>,
    pub(crate) generator: Option<Generator>,
    pub(crate) lone: Vec<Latencies>,
}

impl Report {
    pub(crate) const fn new(tables: Tables) -> Self {
        Self { tables, saturation: Vec::new(), steps: Vec::new(), generator: None, lone: Vec::new() }
    }

    /// Adds a round of a load.
    pub(crate) fn add(&mut self, load: usize, step: Step) {
        if self.steps.len() <= load {
            self.steps.resize_with(load + 1, Vec::new);
        }
        self.steps[load].push(step);
    }

    /// The median of the rounds.
    pub(crate) fn saturating_rate(&self) -> f64 {
        median(&self.saturation)
    }

    /// The ratio of half load's p99 to the idle one, in each round.
    fn ratios(&self) -> Vec<f64> {
        let load = |share| self.steps.iter().find(|rounds| rounds.iter().all(|step| step.share == share));
        let (Some(idle), Some(half)) = (load(None), load(Some(HALF))) else { return Vec::new() };
        idle.iter().zip(half).map(|(idle, half)| half.p99() / idle.p99()).collect()
    }

    /// All rounds of each load as one.
    fn totals(&self) -> impl Iterator<Item = (Step, f64)> {
        self.steps.iter().filter_map(|rounds| {
            let mut total = rounds.first()?.clone();
            total.measured = Measured::new();
            for step in rounds {
                total.measured.add(&step.measured);
            }
            let offered = rounds.iter().map(|step| step.arrivals.rate()).sum::<f64>() / rounds.len() as f64;
            Some((total, offered))
        })
    }

    /// Prints everything.
    pub(crate) fn print(&self) {
        let headers =
            ["load", "offered/s", "acked/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "units", "late p99 ms"];
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(headers);
        for (step, offered) in self.totals() {
            let latencies = &step.measured.latencies;
            table.add_row([
                step.name(),
                format!("{offered:.0}"),
                format!("{:.0}", step.measured.acknowledged()),
                format!("{:.2}", millis(latencies, 0.5)),
                format!("{:.2}", millis(latencies, 0.99)),
                format!("{:.2}", millis(latencies, 0.999)),
                format!("{:.2}", latencies.max() as f64 / 1e6),
                latencies.len().to_string(),
                format!("{:.2}", millis(&step.measured.late, 0.99)),
            ]);
        }
        for column in 1..headers.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\nfrom the intended arrival to the acknowledgement, {} tables\n{table}", self.tables.as_str());
        let ratios = self.ratios();
        if !ratios.is_empty() {
            let rounds: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.1}")).collect();
            let median = median(&ratios);
            println!("p99 at half of the saturating rate, to idle: {median:.1} (rounds: {})", rounds.join(", "));
        }
        if let Some(Generator { step, cpu_per_unit }) = &self.generator {
            println!(
                "the generator alone, {:.0} units/s: p50 {:.3} ms, p99 {:.3} ms; late p99 {:.3} ms; CPU {:.1} µs per unit",
                step.arrivals.rate(),
                millis(&step.measured.latencies, 0.5),
                step.p99(),
                millis(&step.measured.late, 0.99),
                cpu_per_unit.as_secs_f64() * 1e6,
            );
        }
        for lone in &self.lone {
            let quantile = |times, share| Latencies::quantile(times, share).as_secs_f64() * 1e3;
            let [ours, ours_99] = [0.5, 0.99].map(|share| quantile(&lone.engine, share));
            let [theirs, theirs_99] = [0.5, 0.99].map(|share| quantile(&lone.by_hand, share));
            println!(
                "a single unit, {}: p50 {ours:.2} ms, by hand {theirs:.2} ms, ratio {:.2}; \
                 p99 {ours_99:.2} ms, {theirs_99:.2} ms, {:.2}",
                lone.unit,
                ours / theirs,
                ours_99 / theirs_99,
            );
        }
    }

    /// Rates are in units per second, times in milliseconds.
    pub(crate) fn json(&self) -> Value {
        let loads = self.totals().map(|(step, offered)| {
            let mut load = json!({
                "load": step.share.map_or_else(|| "idle".into(), Value::from),
                "offered": offered,
                "acknowledged": step.measured.acknowledged(),
                "units": step.measured.latencies.len(),
                "late_p99": millis(&step.measured.late, 0.99),
            });
            for (name, share) in QUANTILES {
                load[name] = millis(&step.measured.latencies, share).into();
            }
            load
        });
        let lone = self.lone.iter().map(|lone| {
            let quantile = |times, share| Latencies::quantile(times, share).as_secs_f64() * 1e3;
            let (ours, theirs) = (quantile(&lone.engine, 0.5), quantile(&lone.by_hand, 0.5));
            json!({ "unit": lone.unit, "engine_p50": ours, "by_hand_p50": theirs, "ratio_p50": ours / theirs })
        });
        let ratios = self.ratios();
        let ratio = (!ratios.is_empty()).then(|| median(&ratios));
        json!({
            "tables": self.tables.as_str(),
            "saturating_rate": self.saturating_rate(),
            "loads": loads.collect::<Vec<_>>(),
            "p99_half_to_idle": ratio,
            "generator": self.generator.as_ref().map(|generator| json!({
                "late_p99": millis(&generator.step.measured.late, 0.99),
                "cpu_us_per_unit": generator.cpu_per_unit.as_secs_f64() * 1e6,
            })),
            "lone_unit": lone.collect::<Vec<_>>(),
        })
    }
}

fn millis(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e6
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
