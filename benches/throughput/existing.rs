//! Databases with millions of mentions: without and with read indexes, with graphsink's tables and with the contract's,
//! as requested.
//!
//! They are loaded once, by COPY, and not restored between measurements: each measurement adds another slice of new
//! records. The tables grow by that, for all contestants alike.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::EntityType;
use uuid::Uuid;

use crate::copy_limit::Parts;
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::rows::{Entities, Key};
use graphsink_benches::workload::History;

/// One loading task for each core of a small machine.
const CONNECTIONS: usize = 2;

/// Names one of the databases.
pub(crate) type Kind = (Tables, Layout);

/// The databases, ready to be written to.
pub(crate) async fn prepare(
    database: &Database,
    history: &Arc<History>,
    kinds: &BTreeSet<Kind>,
) -> Result<BTreeMap<Kind, Database>> {
    let start = Instant::now();
    let since = |what: &str| println!("{what} after {:.0} s", start.elapsed().as_secs_f64());
    let mut prepared = BTreeMap::new();
    for layout in [Layout::Contract, Layout::Graphsink] {
        let wanted = |tables| kinds.contains(&(tables, layout));
        if !Tables::BOTH.into_iter().any(wanted) {
            continue;
        }
        let name = |tables: Tables| format!("existing_{}_{layout:?}", tables.as_str()).to_lowercase();
        let lean = database.create(&name(Tables::Lean)).await?;
        lean.make_tables(Tables::Lean, layout).await?;
        load(&lean, history).await?;
        since("a history was loaded");
        // Otherwise autovacuum would do this during a measurement.
        lean.connect().await?.batch_execute("vacuum (analyze)").await?;
        since("vacuumed");
        if wanted(Tables::Full) {
            // If only full tables are measured, the lean ones become them.
            let full = if wanted(Tables::Lean) { lean.copy(&name(Tables::Full)).await? } else { lean.clone() };
            full.make_tables(Tables::Full, layout).await?;
            full.connect().await?.batch_execute("vacuum (analyze)").await?;
            since("read indexes were made");
            prepared.insert((Tables::Full, layout), full);
        }
        if wanted(Tables::Lean) {
            prepared.insert((Tables::Lean, layout), lean);
        }
    }
    for database in prepared.values() {
        let row = database.connect().await?.query_one(SIZE, &[]).await?;
        let (mentions, size): (i64, String) = (row.get(0), row.get(1));
        println!("{} holds about {mentions} mentions, {size}", database.name());
    }
    database.settle().await?;
    Ok(prepared)
}

const SIZE: &str = "
    select reltuples::int8, pg_size_pretty(pg_database_size(current_database()))
    from pg_class where oid = 'mentions'::regclass";

async fn load(database: &Database, history: &Arc<History>) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = database.connect().await?;
        // The rows are consistent by construction, and a crash ends the bench.
        client.batch_execute("set session_replication_role = replica; set synchronous_commit = off").await?;
        clients.push(client);
    }
    let mut known = HashMap::new();
    let mut next = Some(encode(history, 0, HashMap::new()).await?);
    let mut town = 0;
    while let Some((parts, words)) = next {
        known.extend(words);
        town += 1;
        let following = async {
            if town == history.towns() {
                return Ok(None);
            }
            encode(history, town, known.clone()).await.map(Some)
        };
        // While one town is sent the next one is generated.
        ((), next) = futures::try_join!(parts.send(&clients, false), following)?;
    }
    Ok(())
}

type Encoded = (Parts, HashMap<Key, Uuid>);

/// A town, and the words that it shares with other towns.
async fn encode(history: &Arc<History>, town: usize, known: HashMap<Key, Uuid>) -> Result<Encoded> {
    let history = Arc::clone(history);
    let encode = move || {
        let workload = history.town(town);
        let entities = Entities::beside(&workload.records, known);
        let parts = Parts::encode(&workload, &entities, CONNECTIONS);
        let words = entities.rows.iter().filter(|row| row.key.0 != EntityType::Restaurant);
        (parts, words.map(|row| (row.key.clone(), row.id)).collect())
    };
    Ok(tokio::task::spawn_blocking(encode).await?)
}
