//! Tables without read indexes keep new versions of a row in the page of the row, so that no index gets an entry.

use std::collections::BTreeMap;

use graphsink::{Engine, Mention, Migrations, SourceType, UnitOfWork};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Database, as_of, commit};

/// Enough to fill many pages, by `copy`.
const CONNECTIONS: usize = 600;

/// Mentions one of `every` connections, in one epoch.
async fn mention(engine: &Engine, every: usize, source: &str) {
    let mut unit = UnitOfWork::new();
    let dish = unit.dish("pie").handle();
    for number in (0..CONNECTIONS).step_by(every) {
        let restaurant = unit.restaurant(format!("restaurant {number}")).handle();
        let connection = unit.connection(restaurant, dish).handle();
        let url = "https://example.org/a/place/to/read/it";
        let mention = Mention::new(SourceType::Post, format!("{source} {number}"), url, "food", as_of());
        unit.mention(connection, mention.excerpt("words ".repeat(30)));
    }
    commit(engine, unit).await;
}

/// The page of each connection, and its number of mentions.
async fn pages(client: &Client) -> BTreeMap<Uuid, (i64, i32)> {
    let query = "select connection_id, (ctid::text::point)[0]::int8, mention_count from connections";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_of_a_connection_stays_in_its_page() {
    let database = Database::empty().await;
    Migrations::tables_only().run(&database.config().build().unwrap()).await.unwrap();
    let (engine, client) = (database.engine().await, database.client().await);
    mention(&engine, 1, "first").await;
    let before = pages(&client).await;
    // About one connection of each page.
    mention(&engine, 20, "second").await;
    let after = pages(&client).await;
    let changed: Vec<_> = after.iter().filter(|(_, (_, mentions))| *mentions == 2).collect();
    assert_eq!((before.len(), changed.len()), (CONNECTIONS, CONNECTIONS / 20));
    let moved = changed.iter().filter(|(id, (page, _))| before[id].0 != *page).count();
    assert!(moved <= 3, "{moved} of {} went to another page", changed.len());
}
