//! Names of metrics and spans.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
#![doc = table::documentation!()]
//!
//! Labels stand with their values; `..` are values that are not listed.
//!
//! | span | level | within | fields |
//! |---|---|---|---|
//! | `unit`: a unit from its acceptance; its outcome is an event in it | debug | the caller's | `number` of the receipt, `rows`, `epoch`, `attempt` of each transaction attempt |
//! | `batch`: a table's part of an epoch, when it is sealed | debug | | `epoch`, `table` |
//! | `epoch`: a commit task; it follows from the spans of its units | debug | | `number`, `lane`, `units` |
//! | `transaction`: one attempt | debug | `epoch` | `attempt`, the id in `graphsink_attempts`; `attempts` so far, `units`, coalesced rows by table; `lock_wait_ms` at its end |
//! | `merge`: a transaction of merges | debug | the caller's | `attempt`, `attempts`, `merges`; `lock_wait_ms` at its end |
//! | `lane_wait`, `circuit_wait`: before a transaction | trace | `epoch` | |
//! | `pool_wait`: waiting for a connection | trace | `transaction` | |
//! | `statement`: from its sending to its last row | trace | `transaction` | `name` |
//!
//! So a slow acknowledgement can be followed from its unit's `epoch` and `attempt` to the epoch, its transaction and
//! the statement. The example `traces` does this with OpenTelemetry.

mod table;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

pub use table::METRICS;
pub(crate) use table::engine;
#[cfg(feature = "resolver")]
pub(crate) use table::resolver;

/// An entry of the table of metrics.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The unit of the values; counters have none.
    pub unit: &'static str,
    /// Its labels with their values, separated by commas; `..` stands for values that are not listed.
    pub labels: &'static [(&'static str, &'static str)],
    /// Its meaning, one sentence.
    pub meaning: &'static str,
    /// Whether it is registered at the start, with every combination of the listed values of its labels.
    pub from_zero: bool,
}

impl Metric {
    fn describe(&self) {
        let unit = match self.unit {
            "bytes" => Unit::Bytes,
            unit if unit.starts_with("seconds") => Unit::Seconds,
            _ => Unit::Count,
        };
        let (name, meaning) = (self.name, self.meaning.trim());
        match self.kind {
            "counter" => describe_counter!(name, unit, meaning),
            "gauge" => describe_gauge!(name, unit, meaning),
            _ => describe_histogram!(name, unit, meaning),
        }
    }

    /// Registers each series of which the labels are known beforehand.
    fn begin_at_zero(&self) {
        for labels in self.label_sets() {
            match self.kind {
                "counter" => counter!(self.name, &labels).increment(0),
                "gauge" => gauge!(self.name, &labels).set(0.0),
                // A histogram at zero would have to have a value.
                _ => {}
            }
        }
    }

    /// All combinations of the listed values.
    fn label_sets(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        self.labels.iter().fold(vec![Vec::new()], |sets, (label, values)| {
            let values = values.split(", ").filter(|value| *value != "..");
            let with = |value| sets.iter().map(move |set| [set.as_slice(), &[(*label, value)]].concat());
            values.flat_map(with).collect()
        })
    }
}

/// Describes metrics to the recorder that the program installed, and registers those that begin at zero.
pub(crate) fn describe(metrics: &[Metric]) {
    for metric in metrics {
        metric.describe();
        if metric.from_zero {
            metric.begin_at_zero();
        }
    }
}

/// A SQLSTATE as a label.
pub(crate) fn sqlstate_label(sqlstate: Option<&str>) -> String {
    sqlstate.unwrap_or("none").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{ActorKind, Disposition, EpochState, OutcomeKind, Reaction};
    use crate::record::Table;

    /// The values that the table lists are those that the code can say.
    #[test]
    fn listed_values_are_those_of_the_enums() {
        let outcomes = OutcomeKind::ALL.map(OutcomeKind::as_str).join(", ");
        let reactions = Reaction::ALL.map(Reaction::as_str).join(", ");
        let tables = Table::ALL.map(Table::as_str).join(", ");
        let dispositions = Disposition::ALL.map(Disposition::as_str).join(", ");
        let states = EpochState::ALL.map(EpochState::as_str).join(", ");
        let actors = ActorKind::ALL.map(ActorKind::as_str).join(", ");
        for metric in engine::METRICS {
            for (label, values) in metric.labels {
                let expected = match (metric.name, *label) {
                    ("graphsink_units_total" | "graphsink_acknowledgement_seconds", "outcome") => &outcomes,
                    ("graphsink_epochs_in_flight", "state") => &states,
                    (_, "reaction") => &reactions,
                    (_, "table") => &tables,
                    (_, "disposition") => &dispositions,
                    (_, "actor") => &actors,
                    // Words of single files: the run that `tests/observability` scrapes says each of them.
                    _ => continue,
                };
                assert_eq!(values, expected, "{label} of {}", metric.name);
            }
        }
    }

    #[test]
    fn metrics_that_begin_at_zero_have_every_combination_of_listed_values() {
        let sets = |name| engine::METRICS.iter().find(|metric| metric.name == name).unwrap().label_sets();
        assert_eq!(sets("graphsink_dead_letters_total"), [[]]);
        assert_eq!(sets("graphsink_rows_total").len(), 9);
        let retries = ["retry", "split", "reject"].map(|reaction| [("sqlstate", "none"), ("reaction", reaction)]);
        assert_eq!(sets("graphsink_retries_total"), retries);
        assert_eq!(sets("graphsink_statement_seconds"), Vec::<Vec<_>>::new(), "its values are not known beforehand");
    }
}
