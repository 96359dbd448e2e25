//! Databases that hold millions of mentions already, one without and one with read indexes.
//!
//! They are loaded once, by COPY, and not restored between measurements: each measurement adds
//! another slice of news. The tables grow by that, for all contestants alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::EntityType;
use uuid::Uuid;

use crate::contestant::Result;
use crate::copy_limit::Parts;
use crate::database::{Database, Tables};
use crate::rows::{Entities, Key};
use crate::workload::History;

/// One for each core of a small machine.
const CONNECTIONS: usize = 2;

/// The databases, ready to be written to.
pub(crate) async fn prepare(
    database: &Database,
    history: &Arc<History>,
    both: &[Tables],
) -> Result<BTreeMap<Tables, Database>> {
    let start = Instant::now();
    let since = |what: &str| println!("{what} after {:.0} s", start.elapsed().as_secs_f64());
    let lean = database.create("existing_lean").await?;
    lean.migrate(Tables::Lean).await?;
    load(&lean, history).await?;
    since("the history was loaded");
    // Otherwise this would happen by itself, in the middle of some measurement.
    lean.connect().await?.batch_execute("vacuum (analyze)").await?;
    since("vacuumed");
    let mut prepared = BTreeMap::new();
    if both.contains(&Tables::Full) {
        let full = lean.copy("existing_full").await?;
        since("copied");
        full.migrate(Tables::Full).await?;
        full.connect().await?.batch_execute("vacuum (analyze)").await?;
        since("read indexes were made");
        prepared.insert(Tables::Full, full);
    }
    if both.contains(&Tables::Lean) {
        prepared.insert(Tables::Lean, lean);
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
        // The rows are consistent by their making, and a crash ends the bench.
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
        // While one town is sent the next one is made.
        ((), next) = futures::try_join!(parts.send(&clients), following)?;
    }
    Ok(())
}

type Encoded = (Parts, HashMap<Key, Uuid>);

/// A town, and the words that it shares with others.
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
