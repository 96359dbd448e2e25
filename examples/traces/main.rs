//! Shows why an acknowledgement took long: from a unit's span to the statement that it waited for.
//!
//! Another session locks one row for a moment while units are written. The example finds the slowest acknowledgement
//! among the spans of the engine and follows it: unit, epochs, transactions, statements. On standard error the engine
//! logs the same in one line: "slow transaction", with the time of each statement.
//!
//! `cargo run --release --example traces`, on an embedded server, or on `DATABASE_URL` in its own schema that is
//! dropped at the end. With `-- --print` every span is written to standard output by OpenTelemetry's exporter.

use std::error::Error;
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Config, Engine, Mention, Migrations, Outcome, SourceType, UnitOfWork};
use graphsink_examples::traces::recorder;
use graphsink_examples::traces::slowest::Slowest;
use tokio_postgres::NoTls;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

type AnyError = Box<dyn Error + Send + Sync>;

/// How long another session holds the row.
const LOCKED_FOR: Duration = Duration::from_millis(400);
/// The limit for slow transactions here.
const SLOW: Duration = Duration::from_millis(200);
const UNITS: usize = 400;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let print = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--print") => true,
        Some(other) => return Err(format!("unknown argument {other}: the only one is --print").into()),
    };
    let (provider, spans) = recorder::provider(print);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(LevelFilter::WARN);
    tracing_subscriber::registry().with(recorder::layer(&provider)).with(log).try_init()?;
    let (url, server) = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => (url, None),
        _ => {
            let server = EmbeddedServer::temporary().await?;
            (server.url("postgres"), Some(server))
        }
    };
    let schema = format!("graphsink_traces_{}", std::process::id());
    let config = Config::builder(&url).schema(&schema).slow_transaction(SLOW).build()?;
    Migrations::all().run(&config).await?;
    let engine = Engine::start(config).await?;
    // So that connections are open and statements prepared.
    submit(&engine, 0).await?;

    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    let lock = client.transaction().await?;
    let row = format!("select from {schema}.connections order by connection_id limit 1 for update");
    lock.execute(&row, &[]).await?;
    let unlock = async {
        tokio::time::sleep(LOCKED_FOR).await;
        lock.commit().await.map_err(AnyError::from)
    };
    let (submitted, unlocked) = tokio::join!(submit(&engine, 1), unlock);
    submitted?;
    unlocked?;
    engine.shutdown(Duration::from_secs(10)).await;
    client.batch_execute(&format!("drop schema {schema} cascade")).await?;
    if let Some(mut server) = server {
        server.stop().await?;
    }

    provider.force_flush()?;
    let spans = spans.get_finished_spans()?;
    let slowest = Slowest::find(&spans).ok_or("no unit was written")?;
    println!("{} spans. The slowest acknowledgement took {:.1} ms:\n", spans.len(), slowest.took().as_secs_f64() * 1e3);
    println!("{slowest}");
    let step = slowest.step().ok_or("a transaction without statements")?;
    println!("It waited for {}, because another session held a row for {} ms.", step.name, LOCKED_FOR.as_millis());
    Ok(())
}

/// Units on twenty connections, in the given round, until each has its outcome.
async fn submit(engine: &Engine, round: usize) -> Result<(), AnyError> {
    let mut receipts = Vec::new();
    for number in 0..UNITS {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant(format!("place {}", number % 20)).handle();
        let dish = unit.dish("brisket").handle();
        let connection = unit.connection(restaurant, dish).handle();
        let source = format!("t{round}_{number}");
        unit.mention(
            connection,
            Mention::new(SourceType::Post, source, "https://example.org", "food", chrono::Utc::now()),
        );
        receipts.push(engine.submit(unit).await?);
    }
    for receipt in receipts {
        if !matches!(receipt.await, Outcome::Committed(_)) {
            return Err("a unit was not committed".into());
        }
    }
    Ok(())
}
