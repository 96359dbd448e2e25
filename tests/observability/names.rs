//! The table of metrics in the documentation of `telemetry` lists exactly the metrics that the engine emits.

use std::collections::{BTreeMap, BTreeSet};

use crate::run::run;

const TELEMETRY: &str = include_str!("../../src/telemetry.rs");

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

/// The table, by name.
pub(crate) fn documented() -> BTreeMap<String, Documented> {
    let rows = TELEMETRY.lines().filter_map(|line| line.strip_prefix("//! | `graphsink_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, ""] = cells[..] else { panic!("four columns in {row}") };
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let documented = Documented {
            kind: kind.split(' ').next().unwrap().to_owned(),
            labels: labels.filter(|label| !label.is_empty()).collect(),
            meaning: meaning.to_owned(),
        };
        (format!("graphsink_{}", name.trim_end_matches('`')), documented)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_emitted() {
    let scrape = &run().await.scrape;
    let documented = documented();
    let ours: BTreeSet<_> = scrape.metrics.keys().filter(|name| name.starts_with("graphsink_")).collect();
    assert_eq!(ours, documented.keys().collect());
    for (name, Documented { kind, labels, meaning }) in &documented {
        let emitted = &scrape.metrics[name];
        assert_eq!((&emitted.kind, &emitted.labels), (kind, labels), "{name}");
        assert!(!meaning.is_empty() && emitted.help.len() > 5, "{name}: {emitted:?}");
        let unit = if kind == "counter" { name.ends_with("_total") } else { !name.ends_with("_total") };
        assert!(unit, "{name} is a {kind}");
    }
}

/// The run has emitted exactly the label values that the table lists.
#[tokio::test(flavor = "multi_thread")]
async fn labels_have_exactly_the_documented_values() {
    let scrape = &run().await.scrape;
    for (name, label, values) in [
        ("graphsink_units_total", "outcome", &["committed", "rejected", "unavailable"][..]),
        ("graphsink_rows_total", "disposition", &["inserted", "unchanged", "updated"]),
        ("graphsink_rows_received_total", "table", &["connections", "entities", "mentions"]),
        ("graphsink_epochs_sealed_total", "reason", &["flush", "full", "lane_free"]),
        ("graphsink_epochs_in_flight", "state", &["waiting", "writing"]),
        ("graphsink_retries_total", "reaction", &["reject", "retry", "split"]),
        ("graphsink_pool_connections", "state", &["idle", "max", "open"]),
        ("graphsink_known_names_total", "result", &["hit", "miss"]),
        ("graphsink_resolver_cache_total", "result", &["hit", "miss"]),
    ] {
        let series = scrape.series.iter().filter(|series| series.name == name);
        let seen: BTreeSet<_> = series.map(|series| &*series.labels[label]).collect();
        assert_eq!(seen, values.iter().copied().collect(), "{name}");
        for value in values {
            let row = TELEMETRY.lines().find(|line| line.contains(&format!("| `{name}` |"))).unwrap();
            let told = row.contains(value) || label == "table" || label == "disposition";
            assert!(told || (name.ends_with("in_flight") && row.contains("waiting")), "{row} does not list {value}");
        }
    }
}
