//! The report of a load is one well-formed file, loads nothing from elsewhere, and agrees with the engine's figures.

use std::time::Duration;

use graphsink::{Config, Engine, Mention, Outcome, PlaceObservation, SourceType, TableStats, UnitOfWork};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::load_report::Report;
use crate::recording::{Moment, Recording};
use crate::run::after_the_run;
use crate::support::{Database, as_of, within};

/// Text that breaks out of every part of the file that does not escape it.
const HOSTILE: &str = "</script><b> & \"quoted\" \u{1}";
const HOSTILE_SHOWN: &str = "</script><b> & \"quoted\" \u{fffd}";

fn unit(number: usize) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let mut restaurant = unit.restaurant(format!("place {}", number % 39));
    if number.is_multiple_of(200) {
        // One of them has the id, the others are rejected.
        restaurant = restaurant.place(PlaceObservation::new(as_of()).google_place_id("taken"));
    }
    let restaurant = restaurant.handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(
        connection,
        Mention::new(SourceType::Post, format!("t{number}"), "https://example.org", "food", as_of()),
    );
    unit
}

/// Parsed strictly: no input broke out of its place.
fn parse(html: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(html, options).unwrap_or_else(|error| panic!("{error}\n{html}"))
}

fn count(document: &roxmltree::Document<'_>, name: &str) -> usize {
    document.descendants().filter(|node| node.has_tag_name(name)).count()
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

/// The sum over time of a chart of a rate.
fn total(data: &Value, chart: &str, series: &str) -> f64 {
    let (ends, rates) = (numbers(&data["seconds"]), numbers(&data["charts"][chart][series]));
    assert_eq!(ends.len(), rates.len());
    let mut before = 0.0;
    let spans = ends.iter().map(|end| {
        let span = end.unwrap() - before;
        before = end.unwrap();
        span
    });
    spans.zip(&rates).map(|(span, rate)| span * rate.unwrap()).sum()
}

/// Another program holds a lock that the first transactions wait for.
async fn hold_mentions(database: &Database) -> JoinHandle<()> {
    let holder = database.client().await;
    holder.batch_execute("begin; lock table mentions in exclusive mode").await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(600)).await;
        holder.batch_execute("commit").await.unwrap();
    })
}

/// Submits units; returns the number of rejected ones.
async fn load(engine: &Engine) -> u64 {
    let mut receipts = Vec::new();
    for number in 0..4_000 {
        receipts.push(within(engine.submit(unit(number))).await.unwrap());
    }
    let mut rejected = 0;
    for receipt in receipts {
        rejected += u64::from(matches!(within(receipt).await, Outcome::Rejected(_)));
    }
    rejected
}

/// Numbers of a table, as in the summary.
fn rows(table: &TableStats) -> Value {
    json!({ "received": table.received, "inserted": table.inserted, "updated": table.updated,
            "unchanged": table.unchanged, "coalesced": table.coalesced() })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_of_a_load_is_well_formed_and_agrees_with_the_engine() {
    after_the_run().await;
    let database = Database::migrated().await;
    let engine = database.small_engine(300, 2).await;
    let recording = Recording::start(engine.clone());
    let held = hold_mentions(&database).await;
    let rejected = load(&engine).await;
    held.await.unwrap();
    let moments = recording.end().await;
    let stats = engine.stats();
    assert_eq!((stats.units_committed, stats.units_rejected), (4_000 - rejected, rejected));
    assert!(rejected > 0);
    let summary = json!({
        "lines": 4_000, "units": 4_000, "committed": stats.units_committed, "rejected": rejected, "unavailable": 0,
        "seconds": 1.5, "mentions_per_second": 2_666.7, "rows_per_second": 10_666.7, "complete": false, "error": HOSTILE,
        "as_of": as_of(), "transactions": stats.epochs, "acknowledgement_ms": { "p50": 1.25, "p99": 2.0 },
        "lock_wait_ms": { "sum": 1234.5, "max": 432.25 },
        "entities": rows(&stats.entities), "connections": rows(&stats.connections), "mentions": rows(&stats.mentions),
        "rejected_by_reason": { HOSTILE: { "units": rejected, "first": HOSTILE } },
    });
    let mut settings = vec![("input", HOSTILE.to_owned())];
    settings.extend(engine.config().settings());
    let html = Report { summary: &summary, settings: &settings, moments: &moments }.html();

    let document = parse(&html);
    let all = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    assert_eq!(["html", "svg", "script"].map(|name| count(&document, name)), [1, 6, 1]);
    assert!(
        document.descendants().any(|node| node.text().is_some_and(|text| text.contains("</script><b> & \"quoted\"")))
    );
    // No external resources, and no code.
    for attribute in document.descendants().flat_map(|node| node.attributes()) {
        let name = attribute.name();
        assert!(!matches!(name, "src" | "href" | "srcset") && !name.starts_with("on"), "{attribute:?}");
    }
    for foreign in ["http:", "https:", "//", "url(", "@import"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(all("script").next().unwrap().attribute("type"), Some("application/json"));
    // Every line lies within its picture.
    let paths: Vec<_> = all("path").map(|path| path.attribute("d").unwrap()).collect();
    assert_eq!(paths.len(), 2 + 4 + 3 + 2 + 1 + 1);
    for path in paths {
        let places = path.split(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
        let places: Vec<f64> = places.filter(|place| !place.is_empty()).map(|place| place.parse().unwrap()).collect();
        assert!(places.len() >= 3 && places.iter().all(|place| (0.0..=480.0).contains(place)), "{path}");
    }

    // The outcome as text.
    let cells: Vec<_> = all("td")
        .map(|cell| {
            cell.descendants().filter(roxmltree::Node::is_text).filter_map(|node| node.text()).collect::<String>()
        })
        .collect();
    let row = |name: &str| {
        let place = cells.iter().position(|cell| cell == name).unwrap_or_else(|| panic!("no row {name}"));
        cells[place + 1..].iter().map(|cell| cell.replace(',', "")).collect::<Vec<_>>()
    };
    for (name, table) in
        [("entities", &stats.entities), ("connections", &stats.connections), ("mentions", &stats.mentions)]
    {
        let numbers = [table.received, table.inserted, table.updated, table.unchanged, table.coalesced()];
        assert_eq!(row(name)[..5], numbers.map(|number| number.to_string()), "{name}");
    }
    for (name, value) in [
        ("units", 4_000),
        ("units committed", stats.units_committed),
        ("units rejected", rejected),
        ("transactions", stats.epochs),
        (HOSTILE_SHOWN, rejected),
    ] {
        assert_eq!(row(name)[0], value.to_string(), "{name}");
    }
    assert_eq!(row("transactions waited for locks, together")[0], "1234.5 ms");
    assert_eq!(row("transactions waited for locks, at most")[0], "432.2 ms");
    for (name, value) in engine.config().settings() {
        assert_eq!(row(name)[0], value, "{name}");
    }
    // The sums of the charts agree with it.
    let data: Value = serde_json::from_str(all("script").next().unwrap().text().unwrap()).unwrap();
    assert_eq!(data["summary"], summary);
    let about = |found: f64, exact: u64| {
        assert!((found - exact as f64).abs() < 1e-3 * exact as f64 + 1e-3, "{found} for {exact}");
    };
    let tables = [&stats.entities, &stats.connections, &stats.mentions];
    about(total(&data, "Throughput", "mentions"), stats.mentions.received);
    about(total(&data, "Throughput", "rows of all tables"), tables.iter().map(|table| table.received).sum());
    about(1e6 * total(&data, "Waiting for locks", "waits"), stats.lock_wait.microseconds().sum());
    assert!(stats.lock_wait.max() > Duration::from_millis(100), "{:?}", stats.lock_wait);
    let became = "Results of rows over time";
    about(total(&data, became, "inserted"), tables.iter().map(|table| table.inserted).sum());
    about(total(&data, became, "updated"), tables.iter().map(|table| table.updated).sum());
    about(total(&data, became, "unchanged"), tables.iter().map(|table| table.unchanged).sum());
    about(total(&data, became, "coalesced"), tables.iter().map(|table| table.coalesced()).sum());
    let largest =
        numbers(&data["charts"]["Rows of a transaction"]["largest"]).into_iter().flatten().fold(0.0, f64::max);
    assert_eq!(largest as u64, stats.epoch_rows.max());
    let slowest = numbers(&data["charts"]["Acknowledgement"]["p99"]).into_iter().flatten().fold(0.0, f64::max);
    let bounds = [0.99, 1.0].map(|share| stats.acknowledgement.quantile(share).as_secs_f64() * 1e3);
    assert!(slowest >= bounds[0] - 1e-9 && slowest <= bounds[1] + 1e-9, "{slowest} is not within {bounds:?}");
    within(engine.shutdown(Duration::from_secs(20))).await;
}

/// The connection string is the only secret setting, and no report contains it.
#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_in_a_report() {
    after_the_run().await;
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let told = Config::builder("postgresql://app:pa55w0rd-mark@db.invalid/evidence").build().unwrap();
    let mut settings = told.settings();
    settings.extend(engine.config().settings());
    let html = Report { summary: &json!({}), settings: &settings, moments: &[] }.html();
    assert!(
        html.contains("max_batch_rows") && !html.contains("pa55w0rd-mark") && !html.contains("db.invalid"),
        "{html}"
    );
    let real: tokio_postgres::Config = database.url.parse().unwrap();
    if let Some(password) = real.get_password() {
        assert!(!html.contains(std::str::from_utf8(password).unwrap()), "the server's password is in the report");
    }
    within(engine.shutdown(Duration::from_secs(20))).await;
}

/// An engine that did nothing, and a load too short for a sample.
#[test]
fn a_report_of_an_empty_load_is_well_formed() {
    let moment = |seconds| Moment::of(&graphsink::Stats::default(), Duration::from_secs(seconds));
    for (moments, svg) in [(vec![], 0), (vec![moment(0)], 0), (vec![moment(0), moment(2)], 6)] {
        let summary = json!({ "units": 0, "lines": 0, "complete": true });
        let html = Report { summary: &summary, settings: &[], moments: &moments }.html();
        assert_eq!(count(&parse(&html), "svg"), svg);
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}

/// A run that failed at its start, and one that was stopped in the middle.
#[test]
fn the_report_of_a_failed_run_begins_with_the_failure() {
    let summary = json!({ "complete": false, "error": HOSTILE });
    let html = Report { summary: &summary, settings: &[("input", "a.jsonl".to_owned())], moments: &[] }.html();
    let document = parse(&html);
    let loud: Vec<_> = document.descendants().filter(|node| node.attribute("class") == Some("bad")).collect();
    assert_eq!(loud[0].text().unwrap(), format!("The run failed: {HOSTILE_SHOWN}"));
    // No figures that look like a result, but the settings that help to find the cause.
    assert_eq!((count(&document, "svg"), html.contains("units committed"), html.contains("a.jsonl")), (0, false, true));
    let summary = json!({ "complete": false, "error": null, "units": 7, "lines": 7, "unavailable": 2, "first_unavailable": "a:3: x" });
    let html = Report { summary: &summary, settings: &[], moments: &[] }.html();
    assert!(
        html.contains("Stopped before the end of the input") && html.contains("the first is that of a:3: x"),
        "{html}"
    );
    assert!(!html.contains("The run failed"));
}
