//! Latency and throughput of lookups, with nothing remembered.

use std::time::{Duration, Instant};

use graphsink::resolve::{Query, Resolver, ResolverSettings, Tier};
use graphsink::{Config, EntityType, Migrations};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::Result;
use crate::generate::{Generated, entities, misspelt, seeded, unknown};

/// The number of names in one batch of the bulk measurement.
const BULK: usize = 5_000;

/// Shares of a batch, in percent: exact names, aliases, misspelt names, names with two errors; the rest is unknown.
type Mix = (u32, u32, u32, u32);

const MIXED: Mix = (50, 20, 20, 0);
const MISSPELT: Mix = (0, 0, 100, 0);
const TWICE: Mix = (0, 0, 0, 100);

pub(crate) async fn run(url: &str, count: usize, rounds: usize) -> Result<()> {
    let mut random = seeded();
    let stored = entities(count, &mut random);
    let config = Config::builder(url).schema("speed").build()?;
    fill(url, &config, &stored).await?;
    let connect = async |deepest| {
        Resolver::connect(&config, ResolverSettings::default().deepest(deepest).cache_entries(0).connections(1)).await
    };
    let resolver = connect(Tier::Fuzzy).await?;
    println!("\nall tiers, {rounds} batches of 100 names");
    for (title, mix) in [
        ("50 exact, 20 alias, 20 misspelt, 10 unknown", MIXED),
        ("100 misspelt (one error)", MISSPELT),
        ("100 misspelt (two errors)", TWICE),
    ] {
        let (mut times, mut right, mut asked) = (Vec::new(), 0_u32, 0_u32);
        // The first few fill the server's caches.
        for round in 0..rounds + 3 {
            let batch = batch(&stored, 100, mix, &mut random);
            let queries: Vec<Query> = batch.iter().map(|(query, _)| query.clone()).collect();
            let start = Instant::now();
            let found = resolver.find(&queries).await?;
            if round >= 3 {
                times.push(start.elapsed());
            }
            for ((_, expected), found) in batch.iter().zip(found) {
                if let Some(expected) = expected {
                    asked += 1;
                    right += u32::from(found.is_some_and(|found| *found.name == **expected));
                }
            }
        }
        let recall = 100.0 * f64::from(right) / f64::from(asked);
        println!("  {title}: {}; recall {recall:.1}% of {asked} stored names", percentiles(&mut times));
    }
    println!("one name at a time, {} times", rounds * 50);
    for (title, mix) in
        [("exact", (100, 0, 0, 0)), ("alias", (0, 100, 0, 0)), ("misspelt", MISSPELT), ("unknown", (0, 0, 0, 0))]
    {
        let mut times = Vec::new();
        for (query, _) in batch(&stored, rounds * 50, mix, &mut random) {
            let start = Instant::now();
            resolver.find(&[query]).await?;
            times.push(start.elapsed());
        }
        println!("  {title}: {}", percentiles(&mut times));
    }
    let resolver = connect(Tier::Alias).await?;
    let batches: Vec<Vec<Query>> = (0..rounds.min(20))
        .map(|_| batch(&stored, BULK, (70, 25, 0, 0), &mut random).into_iter().map(|(query, _)| query).collect())
        .collect();
    let start = Instant::now();
    for queries in &batches {
        resolver.find(queries).await?;
    }
    let names = (batches.len() * BULK) as f64 / start.elapsed().as_secs_f64();
    println!(
        "exact and alias tiers only, batches of {BULK} names with 70% exact, 25% alias, 5% unknown: {names:.0} names/s"
    );
    Ok(())
}

/// Loads as a history should be loaded: tables, rows, indexes. `vacuum analyze` is explicit, in place of autovacuum.
async fn fill(url: &str, config: &Config, stored: &[Generated]) -> Result<()> {
    let start = Instant::now();
    Migrations::tables_only().run(config).await?;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("set search_path = speed; set synchronous_commit = off").await?;
    let insert = client
        .prepare(
            "insert into entities (entity_id, name, type, aliases, address, place_observed_at)
             select k.id, k.name, k.type::entity_type, array_remove(array[k.alias], null), k.address,
                    case when k.address is not null then now() end
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) as k(id, name, type, alias, address)",
        )
        .await?;
    for chunk in stored.chunks(20_000) {
        let ids: Vec<Uuid> = chunk.iter().map(|_| Uuid::now_v7()).collect();
        let names: Vec<&str> = chunk.iter().map(|entity| &*entity.name).collect();
        let types: Vec<&str> = chunk.iter().map(|entity| entity_type(entity).as_str()).collect();
        let aliases: Vec<Option<&str>> = chunk.iter().map(|entity| entity.alias.as_deref()).collect();
        let addresses: Vec<Option<&str>> = chunk.iter().map(|entity| entity.address.as_deref()).collect();
        client.execute(&insert, &[&ids, &names, &types, &aliases, &addresses]).await?;
    }
    Migrations::all().run(config).await?;
    client.batch_execute("vacuum analyze entities").await?;
    println!("\n{} entities, loaded and indexed in {:.0} s", stored.len(), start.elapsed().as_secs_f64());
    Ok(())
}

const fn entity_type(entity: &Generated) -> EntityType {
    if entity.is_dish { EntityType::DishOrCategory } else { EntityType::Restaurant }
}

/// Queries, and the name of the entity that each should find.
fn batch(stored: &[Generated], size: usize, mix: Mix, random: &mut StdRng) -> Vec<(Query, Option<String>)> {
    let (exact, alias, wrong, twice) = mix;
    (0..size)
        .map(|_| {
            loop {
                let Some(entity) = stored.choose(random) else { continue };
                let (kind, known) = (entity_type(entity), Some(entity.name.clone()));
                let dice = random.random_range(0..100);
                break if dice < exact {
                    (Query::new(kind, entity.name.as_str()), known)
                } else if dice < exact + alias {
                    let Some(alias) = &entity.alias else { continue };
                    (Query::new(kind, alias.as_str()), known)
                } else if dice < exact + alias + wrong {
                    (Query::new(kind, misspelt(&entity.name, random)), known)
                } else if dice < exact + alias + wrong + twice {
                    let once = misspelt(&entity.name, random);
                    (Query::new(kind, misspelt(&once, random)), known)
                } else {
                    (Query::new(kind, unknown(random)), None)
                };
            }
        })
        .collect()
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)].as_secs_f64() * 1e3;
    format!("median {:.2} ms, p95 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.95), at(0.99))
}
