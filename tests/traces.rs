//! A slow acknowledgement leads to the statement that it waited for: by span ids, and by the log.
//!
//! A program of its own, because spans are collected from the whole process; tests run one at a time.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use graphsink::{Engine, Mention, Outcome, SourceType, UnitOfWork};
use graphsink_examples::traces::recorder;
use graphsink_examples::traces::slowest::Slowest;
use graphsink_testing::support::{self, Database, as_of, within};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::MutexGuard;
use tokio_postgres::Client;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// A mark in every text of a unit.
const VALUE: &str = "value-mark";
/// How long the test holds a row. The engine logs transactions that take half as long as slow.
const HELD: Duration = Duration::from_millis(300);

/// The log of the process at level warn.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Log and spans of the process, for one test at a time.
struct Told {
    provider: SdkTracerProvider,
    spans: InMemorySpanExporter,
    log: Log,
    _turn: MutexGuard<'static, ()>,
}

impl Told {
    async fn alone() -> Self {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        static INSTALLED: OnceLock<(SdkTracerProvider, InMemorySpanExporter, Log)> = OnceLock::new();
        let turn = TURN.lock().await;
        let (provider, spans, log) = INSTALLED
            .get_or_init(|| {
                let (provider, spans) = recorder::provider(false);
                let log = Log::default();
                let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(log.clone());
                let text = text.with_filter(LevelFilter::WARN);
                tracing_subscriber::registry().with(recorder::layer(&provider)).with(text).init();
                (provider, spans, log)
            })
            .clone();
        let told = Self { provider, spans, log, _turn: turn };
        told.forget();
        told
    }

    /// The log so far.
    fn forget(&self) {
        self.spans.reset();
        self.log.0.lock().unwrap().clear();
    }

    /// All spans that ended, which are all spans of an engine that was shut down.
    fn spans(&self) -> Vec<SpanData> {
        self.provider.force_flush().unwrap();
        self.spans.get_finished_spans().unwrap()
    }

    /// The lines with these words.
    fn log(&self, words: &str) -> Vec<String> {
        let log = self.log.0.lock().unwrap();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

fn unit(number: u32) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(format!("{VALUE} {number}")).alias(format!("{VALUE} alias")).handle();
    let dish = unit.dish(format!("{VALUE} dish")).handle();
    let connection = unit.connection(restaurant, dish).handle();
    let source = format!("{VALUE} {number}");
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", VALUE, as_of()));
    unit
}

/// The milliseconds that a log line gives for a statement.
fn milliseconds(line: &str, statement: &str) -> f64 {
    let (_, rest) = line.split_once(&format!(" {statement} ")).unwrap_or_else(|| panic!("no {statement} in {line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Commits units one after the other. Then another session holds the connection of the first while both are submitted
/// again.
async fn wait_for_a_row(engine: &Engine, client: &mut Client, told: &Told) -> [Outcome; 2] {
    for number in [1, 2] {
        support::commit(engine, unit(number)).await;
    }
    told.forget();
    let lock = client.transaction().await.unwrap();
    let row = "select from connections join entities on entity_id = restaurant_id where name = $1 for update";
    assert_eq!(lock.execute(row, &[&format!("{VALUE} 1")]).await.unwrap(), 1);
    let again = |number| {
        // A new mention, so that the row has to be locked.
        let mut unit = unit(number);
        let restaurant = unit.restaurant(format!("{VALUE} {number}")).handle();
        let dish = unit.dish(format!("{VALUE} dish")).handle();
        let connection = unit.connection(restaurant, dish).handle();
        unit.mention(connection, Mention::new(SourceType::Post, format!("{VALUE} again {number}"), "u", "r", as_of()));
        unit
    };
    let first = engine.submit(again(1)).await.unwrap();
    // The second unit is submitted when the first one's transaction already waits, and so gets an epoch of its own.
    within(async {
        let waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while lock.query(waiting, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let second = engine.submit(again(2)).await.unwrap();
    tokio::time::sleep(HELD).await;
    lock.commit().await.unwrap();
    [within(first).await, within(second).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_acknowledgement_leads_to_the_statement_that_it_waited_for() {
    for lanes in [1, 2] {
        let told = Told::alone().await;
        let database = Database::migrated().await;
        let mut client = database.client().await;
        let config = database.config().in_flight_commits(lanes).slow_transaction(HELD / 2).build().unwrap();
        let engine = Engine::start(config).await.unwrap();
        let outcomes = wait_for_a_row(&engine, &mut client, &told).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
        within(engine.shutdown(Duration::from_secs(20))).await;

        let spans = told.spans();
        let slowest = Slowest::find(&spans).unwrap();
        let step = slowest.step().unwrap();
        assert_eq!(step.name, "lock_connections", "{slowest}");
        // Not before the row was free; and the rest of the wait is not part of that statement.
        assert!(step.took > HELD / 2 && step.took <= slowest.took(), "{slowest}");
        let text = slowest.to_string();
        assert!(text.contains("its own") && text.contains("unit ") && text.contains("commit"), "{text}");
        // The epoch's span follows from its units, also for readers of exported spans.
        let links: Vec<_> = spans
            .iter()
            .filter(|span| span.name == "epoch")
            .flat_map(|span| &span.links.links)
            .map(|link| link.span_context.span_id())
            .collect();
        let number = |span: &SpanData| {
            let number = span.attributes.iter().find(|attribute| attribute.key.as_str() == "number");
            number.unwrap().value.as_str().into_owned()
        };
        // The third and the fourth epoch of this engine.
        let units = spans.iter().filter(|span| span.name == "unit" && ["3", "4"].contains(&&*number(span)));
        let linked: Vec<_> = units.map(|unit| links.contains(&unit.span_context.span_id())).collect();
        assert_eq!(linked, [true, true]);
        assert!(spans.iter().filter(|span| span.name == "batch").count() >= 3, "one for each table");
        assert!(!format!("{spans:?}").contains(VALUE), "a span shows a value");

        let slow = told.log("slow transaction");
        let [line] = &slow[..] else { panic!("one slow transaction, not {slow:?}") };
        for words in ["end=\"committed\"", "entities=", "connections=", "mentions=2", "units=1", "attempt=", "epoch="] {
            // Two lanes with one unit each; or one lane, where the second unit had to wait for the next epoch.
            assert!(line.contains(words), "{words}: {line}");
        }
        let waited = milliseconds(line, "lock_connections");
        assert!(waited > HELD.as_secs_f64() * 500.0, "{line}");
        assert!(milliseconds(line, "commit") < waited && !line.contains(VALUE), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_failed_transaction_is_logged_and_its_unit_names_the_last_attempt() {
    let told = Told::alone().await;
    let database = Database::migrated().await;
    let mut client = database.client().await;
    let config = database.config().in_flight_commits(1).lock_timeout(HELD / 3).slow_transaction(HELD / 6);
    let engine = Engine::start(config.build().unwrap()).await.unwrap();
    let outcomes = wait_for_a_row(&engine, &mut client, &told).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
    within(engine.shutdown(Duration::from_secs(20))).await;

    let failed: Vec<_> =
        told.log("slow transaction").into_iter().filter(|line| line.contains("end=\"failed\"")).collect();
    assert!(!failed.is_empty());
    for line in &failed {
        assert!(milliseconds(line, "lock_connections") > HELD.as_secs_f64() * 160.0, "{line}");
        assert!(line.contains(" ms (error)") && !line.contains(VALUE), "{line}");
    }
    let spans = told.spans();
    let attempts = |span: &SpanData| -> Vec<String> {
        let said = span.attributes.iter().filter(|attribute| attribute.key.as_str() == "attempt");
        said.map(|attribute| attribute.value.as_str().into_owned()).collect()
    };
    let transactions: Vec<_> = spans.iter().filter(|span| span.name == "transaction").flat_map(attempts).collect();
    let most = spans.iter().filter(|span| span.name == "unit").map(attempts).max_by_key(Vec::len).unwrap();
    assert!(most.len() > failed.len() && most.iter().all(|attempt| transactions.contains(attempt)), "{most:?}");
    // The step before a rollback is the failed one.
    let slowest = Slowest::find(&spans).unwrap();
    assert!(slowest.to_string().contains("rollback"), "{slowest}");
}
