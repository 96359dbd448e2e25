//! The table of metrics in the documentation of `telemetry` lists exactly the metrics that the engine emits.

use std::collections::{BTreeMap, BTreeSet};

use graphsink::telemetry::{METRICS, Metric};

use crate::run::run;

/// The table, by name.
pub(crate) fn documented() -> BTreeMap<String, Metric> {
    METRICS.iter().copied().flatten().map(|metric| (metric.name.to_owned(), *metric)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_emitted() {
    let scrape = &run().await.scrape;
    let documented = documented();
    assert_eq!(documented.len(), METRICS.iter().copied().flatten().count(), "no name is in the table twice");
    let ours: BTreeSet<_> = scrape.metrics.keys().filter(|name| name.starts_with("graphsink_")).collect();
    let table: BTreeSet<_> = documented.keys().collect();
    let only_one: Vec<_> = ours.symmetric_difference(&table).collect();
    assert!(only_one.is_empty(), "emitted and not documented, or the reverse: {only_one:?}");
    for (name, metric) in &documented {
        let emitted = &scrape.metrics[name];
        assert_eq!(emitted.kind, metric.kind, "{name}");
        assert_eq!(emitted.labels, metric.labels.iter().map(|(label, _)| (*label).to_owned()).collect(), "{name}");
        assert!(emitted.help.len() > 5 && emitted.help == metric.meaning.trim(), "{name}: {emitted:?}");
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name} is a {}", metric.kind);
        assert_eq!(metric.unit.is_empty(), metric.kind == "counter", "only counters count what their names say");
    }
}

/// The run has emitted each of the label values that the table lists, and no others where it lists all.
#[tokio::test(flavor = "multi_thread")]
async fn labels_have_exactly_the_documented_values() {
    let scrape = &run().await.scrape;
    let mut wrong = Vec::new();
    for (name, metric) in documented() {
        let of_family = if metric.kind == "histogram" { format!("{name}_count") } else { name.clone() };
        for (label, values) in metric.labels {
            let series = scrape.series.iter().filter(|series| series.name == of_family);
            let seen: BTreeSet<_> = series.map(|series| &*series.labels[*label]).collect();
            let (open, listed): (BTreeSet<_>, BTreeSet<_>) = values.split(", ").partition(|value| *value == "..");
            let right = if open.is_empty() { seen == listed } else { seen.is_superset(&listed) };
            if !right {
                wrong.push(format!("{name} has {seen:?} as {label}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}
