//! The dashboard and the alert rules query existing series: every query parses, and every series that it names is in a
//! scrape of a real run.

use std::collections::BTreeSet;

use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::names::documented;
use crate::run::run;
use crate::scrape::Scrape;

const DASHBOARD: &str = include_str!("../../examples/observability/dashboard.json");
const ALERTS: &str = include_str!("../../examples/observability/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../examples/observability/alerts_test.yml");
const README: &str = include_str!("../../examples/observability/README.md");

/// The selectors of a query.
#[derive(Default)]
struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        match expr {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}

/// Checks a query; returns the metrics that it selects.
fn check(query: &str, scrape: &Scrape) -> BTreeSet<String> {
    // Values that Grafana substitutes.
    let query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
    let parsed = parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut selectors = Selectors::default();
    let Ok(_) = walk_expr(&mut selectors, &parsed);
    assert!(!selectors.0.is_empty(), "{query} selects no series");
    let metric = |selector: VectorSelector| {
        let name = selector.name.expect("a metric's name");
        let fits = |series: &&crate::scrape::Series| {
            series.name == name
                && selector.matchers.matchers.iter().all(|matcher| {
                    // Labels that Prometheus adds to every series.
                    if matches!(&*matcher.name, "job" | "instance") {
                        return true;
                    }
                    let value = series.labels.get(&matcher.name).map_or("", String::as_str);
                    assert!(series.labels.contains_key(&matcher.name), "{name} has no label {}: {query}", matcher.name);
                    match &matcher.op {
                        MatchOp::Equal => matcher.value == value,
                        MatchOp::NotEqual => matcher.value != value,
                        MatchOp::Re(pattern) => pattern.is_match(value),
                        MatchOp::NotRe(pattern) => !pattern.is_match(value),
                    }
                })
        };
        assert!(
            scrape.series.iter().any(|series| fits(&series)),
            "no series fits {name} {:?}: {query}",
            selector.matchers
        );
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        histogram.filter(|name| scrape.metrics.contains_key(*name)).unwrap_or(&name).to_owned()
    };
    let metrics: BTreeSet<String> = selectors.0.into_iter().map(metric).collect();
    // Labels in `by`, except for those of Prometheus.
    for labels in query.split(" by (").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        for label in labels.split(", ").filter(|label| !matches!(*label, "job" | "instance" | "le")) {
            let known = metrics.iter().any(|metric| scrape.metrics[metric].labels.contains(label));
            assert!(known, "no label {label}: {query}");
        }
    }
    metrics
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_every_metric_and_nothing_else() {
    let scrape = &run().await.scrape;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut shown, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with the id of {title}");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            shown.append(&mut check(target["expr"].as_str().unwrap(), scrape));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["datasource", "job", "instance"]));
    let only_one: Vec<_> = shown.symmetric_difference(&documented().into_keys().collect()).cloned().collect();
    assert!(only_one.is_empty(), "shown and not documented, or the reverse: {only_one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alert_rules_name_existing_series_and_say_what_to_do() {
    let scrape = &run().await.scrape;
    let rules: Value = serde_saphyr::from_str(ALERTS).unwrap();
    let mut alerts = Vec::new();
    let mut watched = BTreeSet::new();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        watched.append(&mut check(rule["expr"].as_str().unwrap(), scrape));
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{alert}");
        let text = |name: &str| rule["annotations"][name].as_str().unwrap_or_else(|| panic!("{alert} has no {name}"));
        assert!(text("summary").contains("$labels.instance"), "{alert}");
        // Metrics in the description exist as well.
        for word in text("description").split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let known = scrape.metrics.contains_key(word) || word == "graphsink_dead_letters";
            assert!(!word.starts_with("graphsink_") || known, "{alert} mentions {word}");
        }
        assert!(ALERTS_TEST.contains(alert), "{alert} has no unit test");
        assert!(README.contains(&format!("`{alert}`")), "{alert} is not in the README");
        alerts.push(alert);
    }
    assert_eq!(README.matches("`Graphsink").count(), alerts.len());
    for metric in [
        "graphsink_rows_in_flight",
        "graphsink_units_total",
        "graphsink_retries_total",
        "graphsink_admission_wait_seconds",
        "graphsink_actor_restarts_total",
        "graphsink_pool_wait_seconds",
        "graphsink_lock_wait_seconds",
        "graphsink_circuit_open",
    ] {
        assert!(watched.contains(metric), "no dashboard watches {metric}");
    }
}
