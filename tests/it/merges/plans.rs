//! A merge reads a handful of rows for any kind of entity: the time for which all engines wait must not grow with the
//! tables.

use std::collections::BTreeMap;
use std::time::Duration;

use graphsink::{EntityKey, EntityType, MergeOutcome};
use tokio_postgres::Client;

use super::merge_one;
use crate::support::{Database, within};

const ROWS: i64 = 20_000;

/// Tables without statistics. A handful of rows refers to each pair to be merged.
const FILL: &str = "
    insert into entities (entity_id, name, type)
        select gen_random_uuid(), k.type || ' ' || i, k.type::entity_type
        from generate_series(1, $rows) i,
             unnest(array['restaurant', 'dish_or_category', 'dish_attribute', 'restaurant_attribute']) as k(type);
    update entities e set restaurant_attributes = array[a.entity_id]
        from entities a where a.name = 'restaurant_attribute ' || (split_part(e.name, ' ', 2)::int / 5 + 1)
                          and e.type = 'restaurant' and a.type = 'restaurant_attribute';
    insert into connections (connection_id, restaurant_id, dish_or_category_id, categories, dish_attributes, is_menu_item)
        select gen_random_uuid(), r.entity_id, d.entity_id, array[d.entity_id], array[a.entity_id], true
        from generate_series(1, $rows) i
        join entities r on r.name = 'restaurant ' || (i / 5 + 1) and r.type = 'restaurant'
        join entities d on d.name = 'dish_or_category ' || i and d.type = 'dish_or_category'
        join entities a on a.name = 'dish_attribute ' || (i / 5 + 1) and a.type = 'dish_attribute';
    insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit, created_at,
                          observed_at)
        select gen_random_uuid(), connection_id, 'post', connection_id::text, 't', 'u', 'r', now(), now() from connections";

/// The numbers of rows and index entries read so far, by table and index.
async fn read(client: &Client) -> BTreeMap<String, i64> {
    let query = "select relname::text, coalesce(seq_tup_read, 0) from pg_stat_user_tables
                 where relname in ('entities', 'connections', 'mentions')
                 union all
                 select indexrelname::text, coalesce(idx_tup_read, 0) from pg_stat_user_indexes
                 where relname in ('entities', 'connections', 'mentions')";
    client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until the server's statistics are complete: counts of other sessions arrive when these end.
async fn deleted(client: &Client, entities: i64) {
    let query = "select n_tup_del from pg_stat_user_tables where relname = 'entities'";
    while client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) < entities {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_reads_little_more_than_the_rows_that_name_the_merged_entity() {
    let database = Database::migrated().await;
    let client = database.client().await;
    for table in ["entities", "connections", "mentions"] {
        client.batch_execute(&format!("alter table {table} set (autovacuum_enabled = off)")).await.unwrap();
    }
    client.batch_execute(&FILL.replace("$rows", &ROWS.to_string())).await.unwrap();
    let engine = database.engine().await;
    let named = |entity_type: EntityType, number: u32| EntityKey::new(entity_type, format!("{entity_type} {number}"));
    let kinds = EntityType::ALL;
    // Reads of an engine's start are left out.
    within(engine.shutdown(Duration::from_secs(20))).await;
    let before = read(&client).await;

    let engine = database.engine().await;
    for kind in kinds {
        let outcome = merge_one(&engine, named(kind, 100), named(kind, 200)).await;
        assert!(matches!(outcome, MergeOutcome::Merged { .. }), "{kind}: {outcome:?}");
    }
    within(engine.shutdown(Duration::from_secs(20))).await;
    within(deleted(&client, kinds.len() as i64)).await;
    for (name, count) in read(&client).await {
        // Some hundreds of rows refer to the merged entities; each kind of entity has 20,000.
        let count = count - before[&name];
        assert!(count < ROWS / 20, "{count} rows read by way of {name}");
    }
    let left: i64 = client.query_one("select count(*) from mentions", &[]).await.unwrap().get(0);
    assert_eq!(left, ROWS, "no two mentions are the same, so all of them remain");
}
