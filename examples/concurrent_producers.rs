//! Many tasks, one engine, live counters.
//!
//! Each task submits mentions of the same few connections, the hardest case for writers that share
//! rows, and every mention is observed twice by two different tasks. At the end the counters and the
//! metrics of every connection are checked against the rows in the database.
//!
//! `cargo run --release --example concurrent_producers`, on an embedded server, or on `DATABASE_URL` in its own schema
//! that is dropped at the end.

use std::error::Error;
use std::time::{Duration, Instant};

use graphsink::server::EmbeddedServer;
use graphsink::{Config, Engine, Mention, Migrations, SourceType, Stats, Timestamp, UnitOfWork};
use tokio::task::JoinSet;
use tokio::time;
use tokio_postgres::NoTls;

type AnyError = Box<dyn Error + Send + Sync>;

/// Even, because producers observe the same mentions in pairs.
const PRODUCERS: usize = 64;
const UNITS_PER_PRODUCER: usize = 400;
/// Number of receipts that a producer keeps pending before it awaits them.
const RECEIPTS_MAX: usize = 50;
const RESTAURANTS: usize = 8;
const DISHES: usize = 5;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let (url, server) = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => (url, None),
        _ => {
            let server = EmbeddedServer::temporary().await?;
            (server.url("postgres"), Some(server))
        }
    };
    let schema = format!("graphsink_producers_{}", std::process::id());
    let config = Config::builder(&url).schema(&schema).build()?;
    Migrations::all().run(&config).await?;
    let engine = Engine::start(config).await?;

    let started = Instant::now();
    let counters = tokio::spawn(count(engine.clone(), started));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(produce(engine.clone(), producer));
    }
    while let Some(finished) = producers.join_next().await {
        finished??;
    }
    counters.abort();
    let stats = engine.stats();
    print(&stats, started);
    engine.shutdown(Duration::from_secs(10)).await;

    let checked = check(&url, &schema, &stats).await;
    if let Some(mut server) = server {
        server.stop().await?;
    }
    checked
}

/// One task: submits its units, and waits for their receipts a few at a time.
async fn produce(engine: Engine, producer: usize) -> Result<(), AnyError> {
    let mut receipts = Vec::new();
    for number in 0..UNITS_PER_PRODUCER {
        receipts.push(engine.submit(unit(producer, number)).await?);
        if receipts.len() == RECEIPTS_MAX {
            for receipt in receipts.drain(..) {
                receipt.await.into_result()?;
            }
        }
    }
    for receipt in receipts {
        receipt.await.into_result()?;
    }
    Ok(())
}

/// A mention of one of the few connections. Producers 2n and 2n + 1 observe the same mentions, the
/// second one later and with more upvotes.
fn unit(producer: usize, number: usize) -> UnitOfWork {
    let mention = producer / 2 * UNITS_PER_PRODUCER + number;
    let written: Timestamp = "2025-05-01T12:00:00Z".parse().expect("a time");
    let written = written + Duration::from_secs(mention as u64);
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(format!("restaurant {}", mention % RESTAURANTS)).handle();
    let dish = unit.dish(format!("dish {}", mention / RESTAURANTS % DISHES)).handle();
    let connection = unit.connection(restaurant, dish).handle();
    let id = format!("t1_{mention}");
    let link = format!("https://forum.example/{id}");
    let observed = written + Duration::from_secs(60 * (1 + producer as u64 % 2));
    let mention = Mention::new(SourceType::Comment, id, link, "austinfood", written)
        .thread(format!("t3_{}", mention / 20))
        .upvotes(1 + (producer % 2) as i32)
        .observed_at(observed);
    unit.mention(connection, mention);
    unit
}

/// Prints the engine's counters while the producers work.
async fn count(engine: Engine, started: Instant) {
    let mut period = time::interval(Duration::from_millis(200));
    loop {
        period.tick().await;
        print(&engine.stats(), started);
    }
}

fn print(stats: &Stats, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seconds:5.1} s  {:>6} of {:>6} units committed in {:>4} transactions  {:>6} rows in flight  {:>6.0} units/s",
        stats.units_committed,
        stats.units_submitted,
        stats.epochs,
        stats.rows_in_flight,
        stats.units_committed as f64 / seconds,
    );
}

/// Compares counters, rows and metrics, and drops the schema.
async fn check(url: &str, schema: &str, stats: &Stats) -> Result<(), AnyError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&format!("set search_path to {schema}")).await?;
    let row = client
        .query_one(
            "select (select count(*) from connections),
                    (select count(*) from mentions),
                    (select count(*) from mentions where upvotes <> 2),
                    (select count(*)
                     from connections c
                     join (select connection_id, count(*) as mentions, sum(upvotes) as upvotes,
                                  count(distinct thread_id) as threads, max(created_at) as newest
                           from mentions group by connection_id) m using (connection_id)
                     where (c.mention_count, c.total_upvotes, c.source_diversity, c.last_mentioned_at)
                           is distinct from (m.mentions, m.upvotes, m.threads, m.newest))",
            &[],
        )
        .await?;
    client.batch_execute(&format!("drop schema {schema} cascade")).await?;
    let units = (PRODUCERS * UNITS_PER_PRODUCER) as u64;
    let expected = [(RESTAURANTS * DISHES) as i64, units as i64 / 2, 0, 0];
    let found: [i64; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
    println!(
        "{} connections, {} mentions, {} of them not the newest observation, {} connections whose metrics are wrong",
        found[0], found[1], found[2], found[3]
    );
    if found != expected {
        return Err(format!("expected {expected:?}").into());
    }
    let inserted = stats.mentions.inserted;
    if (stats.units_committed, stats.mentions.received, inserted) != (units, units, units / 2) {
        return Err(format!("{units} units were submitted, but the counters are {stats:?}").into());
    }
    println!("counters, rows and metrics agree");
    Ok(())
}
