//! Checks the plans of the engine's statements on a real server: the test behind "the cost of an epoch does not grow
//! with the tables".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

use super::statement::{self, Statement, begin, quote_identifier};
use super::{Migrations, Store};
use crate::config::Config;
use crate::server::EmbeddedServer;

/// The only index of each table that each statement may use, among all the read indexes.
fn expected() -> BTreeMap<&'static str, (&'static Statement, &'static str)> {
    [
        (&*statement::ENTITIES_BY_KEY, "entities_name_type_key entity_redirects_name_type_key entities_pkey"),
        (&*statement::ENTITIES_BY_ID, "entities_pkey entity_redirects_pkey"),
        (&*statement::CONNECTION_KEYS_BY_ID, "connections_pkey connection_redirects_pkey"),
        (&*statement::LOCK_ENTITIES, "entities_name_type_key"),
        (&*statement::GIVE_UP_PLACE_IDS, "entities_pkey"),
        (&*statement::UPDATE_ENTITIES, "entities_pkey"),
        (&*statement::LOCK_CONNECTIONS, "connections_key"),
        (&*statement::FIND_REPEATS, "connections_key mentions_key"),
        (&*statement::READ_MENTIONS, "mentions_of_long_history_by_thread_idx mentions_key"),
        (&*statement::COUNT_RECENT, "mentions_of_long_history_by_time_idx mentions_key"),
        (&*statement::UPDATE_MENTIONS, "mentions_pkey"),
        (&*statement::INDEX_HISTORIES, "mentions_key"),
        (&*statement::REREAD_THREADS, "mentions_key"),
        (&*statement::REREAD_NEWEST, "mentions_of_long_history_by_time_idx mentions_key"),
        (&*statement::REREAD_TOP, "mentions_key"),
        (&*statement::UPDATE_CONNECTIONS, "connections_pkey"),
        (&*statement::CONNECTIONS_AFTER, "connections_key"),
    ]
    .into_iter()
    .map(|(statement, indexes)| (statement.name, (statement, indexes)))
    .collect()
}

/// The plan that the engine's transaction would use.
async fn plan(client: &Client, statement: &Statement, schema: &str) -> String {
    let types: Vec<String> = statement.parameters.iter().map(|kind| kind.name().to_owned()).collect();
    let nulls = vec!["null"; types.len()].join(", ");
    let sql = format!(
        "{}; prepare p({}) as {}; explain (costs off) execute p({nulls}); rollback; deallocate p",
        begin(30_000, 10_000, 31_000),
        types.join(", "),
        statement.text(schema),
    );
    let messages = client.simple_query(&sql).await.unwrap();
    let lines = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn check_plans(client: &Client, schema: &str, state: &str) {
    for (name, (statement, indexes)) in expected() {
        let plan = plan(client, statement, schema).await;
        // From `Index Scan using .. on ..`. A table that is not in the plan has no index in it either.
        let scans: BTreeSet<&str> =
            plan.lines().filter_map(|line| line.split_once(" using ")?.1.split(' ').next()).collect();
        assert!(scans == indexes.split(' ').collect(), "{state}: {name} should use {indexes}:\n{plan}");
        // The type of an entity, hash collisions, and threads and flags of short histories are checked in the row, and
        // answers without a mention and without its thread are left out.
        let in_row = ["type)::text", "DISTINCT", "(NOT m.history_indexed)", "(NOT history_indexed)", "t.known"];
        let known = |line: &&str| in_row.iter().any(|part| line.contains(part));
        let filters = plan.lines().filter(|line| line.contains("Filter:") && !known(line));
        assert_eq!(filters.count(), 0, "{state}: {name} looks at rows that it does not want:\n{plan}");
    }
}

#[tokio::test]
async fn each_lookup_has_one_index_on_empty_and_on_filled_tables_without_statistics() {
    let given = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let server = if given.is_none() { Some(EmbeddedServer::temporary().await.unwrap()) } else { None };
    let url = given.unwrap_or_else(|| server.as_ref().unwrap().url("postgres"));
    let schema = format!("plans_{}", Uuid::now_v7().simple());
    let config = Config::builder(&url).schema(&schema).build().unwrap();
    Migrations::all().run(&config).await.unwrap();
    Store::new(&config, &Arc::default()).await.unwrap().check(&config).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let quoted = quote_identifier(&schema);
    let tables = ["entities", "connections", "mentions"];
    for table in tables {
        client.batch_execute(&format!("alter table {quoted}.{table} set (autovacuum_enabled = off)")).await.unwrap();
    }
    check_plans(&client, &quoted, "empty").await;
    // One hot restaurant, one hot connection with half of the mentions, and every mention from today.
    let fill = "set search_path = {schema};
        insert into entities (entity_id, name, type)
            select gen_random_uuid(), 'e' || i, (array['restaurant', 'dish_or_category'])[1 + i % 2]::entity_type
            from generate_series({from}, {to}) i;
        insert into connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes, is_menu_item)
            select gen_random_uuid(), (select entity_id from entities where type = 'restaurant' order by name limit 1),
                   entity_id, case when name like '%8' then array[gen_random_uuid()] else '{}' end, true
            from entities where type = 'dish_or_category' on conflict do nothing;
        insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                              created_at, observed_at)
            select gen_random_uuid(),
                   case when i % 2 = 0 then (select connection_id from connections order by 1 limit 1)
                        else (select connection_id from connections order by connection_id desc limit 1) end,
                   'post', 's' || i, 't' || i % 10, 'u', 'r', now(), now()
            from generate_series({from}, {to}) i";
    for (from, to) in [(1, 60), (61, 600), (601, 6000)] {
        let fill = fill.replace("{schema}", &quoted).replace("{from}", &from.to_string());
        client.batch_execute(&fill.replace("{to}", &to.to_string())).await.unwrap();
        check_plans(&client, &quoted, &format!("{to} rows")).await;
    }
    // Statistics without any long history, before the first ones come.
    let short = format!("update {quoted}.mentions set history_indexed = false; analyze {quoted}.mentions");
    client.batch_execute(&short).await.unwrap();
    check_plans(&client, &quoted, "no long history").await;
    let long = format!("update {quoted}.mentions set history_indexed = true where source_id < 's3'");
    client.batch_execute(&long).await.unwrap();
    check_plans(&client, &quoted, "long histories, unknown to the statistics").await;
    client.batch_execute(&format!("analyze {quoted}.entities; analyze {quoted}.connections")).await.unwrap();
    check_plans(&client, &quoted, "statistics of all tables").await;
    client.batch_execute(&format!("drop schema {quoted} cascade")).await.unwrap();
}
