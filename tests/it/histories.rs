//! Long histories: when a connection's mentions get entries in their indexes, and how old databases are migrated to
//! them.

use std::ops::Range;
use std::time::Duration;

use graphsink::{
    Config, Disposition, Engine, EntityKey, EntityMerge, EntityType, Mention, MergeOutcome, Migrations, SourceType,
    StartError, UnitOfWork,
};
use tokio_postgres::Client;

use crate::database::assert_group_by;
use crate::sorted_sets;
use crate::support::{Database, as_of, commit, within};

/// The maximum number of mentions of a short history.
const SHORT: u32 = 32;

/// Mentions of one dish at a restaurant, of all ages, five in each thread.
fn mentions(restaurant: &str, numbers: Range<u32>) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let (at, dish) = (unit.restaurant(restaurant).handle(), unit.dish("pie").handle());
    let connection = unit.connection(at, dish).handle();
    for number in numbers {
        let created_at = as_of() - chrono::TimeDelta::days((number * 7 % 60).into());
        let mention = Mention::new(SourceType::Post, format!("m{number}"), "https://example.org", "s", created_at);
        unit.mention(connection, mention.thread(format!("t{}", number / 5)).upvotes(number as i32 % 9));
    }
    unit
}

/// For a restaurant's connection: whether its history is indexed, the number of mentions, and the number of indexed
/// ones.
async fn history(client: &Client, restaurant: &str) -> (bool, i64, i64) {
    let query = "select c.history_indexed, count(m), count(m) filter (where m.history_indexed)
                 from entities e join connections c on c.restaurant_id = e.entity_id
                 left join mentions m using (connection_id) where e.name = $1 and e.type = 'restaurant'
                 group by c.connection_id";
    let row = client.query_one(query, &[&restaurant]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// The core indexes of mentions, and whether they are valid.
async fn indexes(client: &Client) -> Vec<(String, bool)> {
    let query = "select c.relname::text, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
                 where i.indrelid = 'mentions'::regclass and c.relname like 'mentions_of%' order by 1";
    client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn valid(names: &[&str]) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), true)).collect()
}

const NEW: [&str; 2] = ["mentions_of_long_history_by_thread_idx", "mentions_of_long_history_by_time_idx"];
const OLD: [&str; 2] = ["mentions_of_connection_by_thread_idx", "mentions_of_connection_by_time_idx"];

/// One statement updates 512 connections at most. Here 1,066 get a new mention, which is copied; in 534 others one moves
/// as well, so that figures are read again.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_changes_more_connections_than_one_statement_updates() {
    /// Of one restaurant with many dishes; a dish and a number make a mention.
    fn mentioned(mentions: impl Iterator<Item = (u32, u32)>, days: i64) -> UnitOfWork {
        let mut unit = UnitOfWork::new();
        let restaurant = unit.restaurant("large").handle();
        for (dish, number) in mentions {
            let dish = unit.dish(format!("dish {dish}")).handle();
            let connection = unit.connection(restaurant, dish).handle();
            let at = as_of() - chrono::TimeDelta::days(90 - days);
            let mention = Mention::new(SourceType::Post, format!("m{number}"), "https://example.org", "s", at);
            let mention = mention.thread(format!("t{number} of {days}")).upvotes(number as i32);
            unit.mention(connection, mention.observed_at(as_of() + chrono::TimeDelta::days(days)));
        }
        unit
    }
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    commit(&engine, mentioned((0..1_600).flat_map(|dish| [(dish, 1), (dish, 2)]), 0)).await;
    let again = (0..1_600).flat_map(|dish| [(dish, 3), (dish, 2)].into_iter().take(if dish % 3 == 0 { 2 } else { 1 }));
    let committed = commit(&engine, mentioned(again, 1)).await;
    let updated = committed.connections.iter().filter(|row| row.disposition == Disposition::Updated);
    assert_eq!((updated.count(), engine.stats().units_committed), (2_134, 2));
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_grows_long_is_indexed_whole() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    // Histories that grow over several epochs, and one that grows in one epoch; each has known threads and recent
    // mentions.
    for (restaurant, steps) in
        [("slow", &[10, SHORT, SHORT + 1, 40, 60][..]), ("at once", &[90, 95]), ("jump", &[5, 70])]
    {
        let mut there = 0;
        for &count in steps {
            commit(&engine, mentions(restaurant, there..count)).await;
            there = count;
            let indexed = count > SHORT;
            let expected = (indexed, count.into(), if indexed { count.into() } else { 0 });
            assert_eq!(history(&client, restaurant).await, expected, "{restaurant}, {count}");
            assert_group_by(&client, as_of()).await;
        }
    }
    // In a short and in a long history, a mention moves in time and to another thread, so that both are read again.
    for (restaurant, count) in [("short", 20), ("slow", 60)] {
        commit(&engine, mentions(restaurant, 0..count)).await;
        for number in [0, 5, 9] {
            let mut unit = UnitOfWork::new();
            let (at, dish) = (unit.restaurant(restaurant).handle(), unit.dish("pie").handle());
            let connection = unit.connection(at, dish).handle();
            let created_at = as_of() - chrono::TimeDelta::days(80);
            let moved = Mention::new(SourceType::Post, format!("m{number}"), "https://example.org", "s", created_at)
                .thread("another")
                .observed_at(as_of() + chrono::TimeDelta::days(1));
            unit.mention(connection, moved);
            commit(&engine, unit).await;
            assert_group_by(&client, as_of()).await;
        }
    }
    assert_eq!(history(&client, "short").await, (false, 20, 0));
    within(engine.refresh_activity(as_of() + chrono::TimeDelta::days(20))).await.unwrap();
    assert_group_by(&client, as_of() + chrono::TimeDelta::days(20)).await;
}

/// Known mentions change in the epoch in which their history becomes long.
#[tokio::test(flavor = "multi_thread")]
async fn mentions_that_change_when_their_history_becomes_long_are_indexed() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    commit(&engine, mentions("a", 0..30)).await;
    let mut both = UnitOfWork::new();
    let (at, dish) = (both.restaurant("a").handle(), both.dish("pie").handle());
    let connection = both.connection(at, dish).handle();
    for number in 25..40 {
        let mention = Mention::new(SourceType::Post, format!("m{number}"), "https://example.org", "s", as_of());
        both.mention(connection, mention.upvotes(-3).observed_at(as_of() + chrono::TimeDelta::days(1)));
    }
    commit(&engine, both).await;
    assert_eq!(history(&client, "a").await, (true, 40, 40));
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_that_two_engines_grow_are_indexed_whole() {
    let database = Database::migrated().await;
    let engines = [database.small_engine(20, 2).await, database.small_engine(30, 2).await];
    let client = database.client().await;
    let mut receipts = Vec::new();
    for number in 0..60 {
        for (place, engine) in engines.iter().enumerate() {
            // Every third mention is submitted to both engines.
            let number = if number % 3 == 0 { number } else { number + 100 * place as u32 };
            for restaurant in ["a", "b"] {
                receipts.push(engine.submit(mentions(restaurant, number..number + 1)).await.unwrap());
            }
        }
    }
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
    for restaurant in ["a", "b"] {
        assert_eq!(history(&client, restaurant).await, (true, 100, 100));
    }
    assert_group_by(&client, as_of()).await;
    database.assert_no_deadlocks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_joined_history_of_merged_connections_is_indexed_whole() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    // Numbers of the mentions of both; some are the same mention.
    for (name, own, other, indexed) in [
        ("two short ones", 0..10, 5..20, false),
        ("two that are long together", 0..20, 15..40, true),
        ("one that is long", 0..50, 45..60, true),
        ("two long ones", 0..40, 30..90, true),
    ] {
        let count = i64::from(other.end);
        commit(&engine, mentions(name, own)).await;
        commit(&engine, mentions("other", other.clone())).await;
        let named = |name: &str| EntityKey::new(EntityType::Restaurant, name);
        let merged = within(engine.merge(vec![EntityMerge::new(named("other"), named(name))])).await.remove(0);
        assert!(matches!(merged, MergeOutcome::Merged { .. }), "{name}: {merged:?}");
        let (is_indexed, all, of_index) = history(&client, name).await;
        assert_eq!((is_indexed, all), (indexed, count), "{name}");
        assert!(!indexed || of_index == count, "{name}: {of_index} of {count}");
        assert_group_by(&client, as_of()).await;
        // Threads and times of all of them are counted.
        commit(&engine, mentions(name, other.start..other.end + 7)).await;
        assert_group_by(&client, as_of()).await;
    }
}

/// Engines of earlier versions and other programs do not set the flags.
#[tokio::test(flavor = "multi_thread")]
async fn figures_include_rows_of_engines_without_long_histories() {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    let insert =
        "insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                                        created_at, observed_at)
                  select gen_random_uuid(), c.connection_id, 'comment', 'old ' || i, 't' || i, 'u', 's', $2, $2
                  from entities e join connections c on c.restaurant_id = e.entity_id, generate_series(1, 4) i
                  where e.name = $1 and e.type = 'restaurant'";
    // An old engine's new connection claims that all of its mentions are indexed, until an engine of this version
    // writes one.
    commit(&engine, mentions("known", 0..3)).await;
    client
        .batch_execute(
            "insert into entities (entity_id, name, type) values (gen_random_uuid(), 'theirs', 'restaurant');
             insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
             select gen_random_uuid(), r.entity_id, d.entity_id, true from entities r, entities d
             where r.name = 'theirs' and d.name = 'pie'",
        )
        .await
        .unwrap();
    assert_eq!(history(&client, "theirs").await, (true, 0, 0));
    commit(&engine, mentions("theirs", 0..3)).await;
    assert_eq!(history(&client, "theirs").await, (false, 3, 0));
    // Mentions by an old engine on a connection of this version.
    let figures = "update connections c set mention_count = 7, source_diversity = 5, recent_mention_count =
                       (select count(*) from mentions m where m.connection_id = c.connection_id and created_at >= $2)
                   from entities e where c.restaurant_id = e.entity_id and e.name = $1";
    client.execute(insert, &[&"known", &as_of()]).await.unwrap();
    client.execute(figures, &[&"known", &(as_of() - chrono::TimeDelta::days(30))]).await.unwrap();
    assert_eq!(history(&client, "known").await, (false, 7, 4));
    commit(&engine, mentions("known", 3..12)).await;
    assert_eq!(history(&client, "known").await, (false, 16, 4));
    assert_group_by(&client, as_of()).await;
    // An old engine moves mentions to a long history.
    commit(&engine, mentions("long", 20..60)).await;
    commit(&engine, mentions("left", 0..3)).await;
    let moved = "update mentions set connection_id = (select c.connection_id from connections c join entities e
                     on e.entity_id = c.restaurant_id where e.name = 'long')
                 where connection_id = (select c.connection_id from connections c join entities e
                     on e.entity_id = c.restaurant_id where e.name = 'left')";
    assert_eq!(client.execute(moved, &[]).await.unwrap(), 3);
    assert_eq!(history(&client, "long").await, (true, 43, 43));
}

/// Returns a database to the state before long histories, rows included.
async fn take_back(client: &Client) {
    client.batch_execute(sorted_sets::TAKE_BACK).await.unwrap();
    client
        .batch_execute(
            "drop trigger graphsink_index_moved on mentions;
             drop function graphsink_index_moved_mention;
             alter table mentions drop column history_indexed;
             alter table connections drop column history_indexed;
             drop function graphsink_advance_generation cascade;
             drop table graphsink_generation;
             delete from graphsink_schema_history where version > 3;
             create index mentions_of_connection_by_time_idx on mentions (uuid_send(connection_id), created_at);
             create index mentions_of_connection_by_thread_idx
                 on mentions (hashtextextended(thread_id, uuid_hash_extended(connection_id, 0)))",
        )
        .await
        .unwrap();
    assert_eq!(indexes(client).await, valid(&OLD));
}

/// A database of the version before, with histories of all lengths.
async fn old_database() -> (Database, Config, Client) {
    let database = Database::migrated().await;
    let (engine, client) = (database.engine().await, database.client().await);
    for (restaurant, count) in [("one", 1), ("short", 20), ("long", 90)] {
        commit(&engine, mentions(restaurant, 0..count)).await;
    }
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    take_back(&client).await;
    let config = database.config().build().unwrap();
    (database, config, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_migrate_an_old_database_at_once() {
    let (database, config, client) = old_database().await;
    match within(Engine::start(config.clone())).await {
        Err(StartError::NotMigrated { table: "graphsink_generation", .. }) => {}
        other => panic!("expected a missing table, got {:?}", other.map(|_| "an engine")),
    }
    let runs = (0..3).map(|_| {
        let config = config.clone();
        tokio::spawn(async move { Migrations::all().run(&config).await })
    });
    let mut applied = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        applied.extend(within(run).await.unwrap().unwrap().applied);
    }
    let built = applied.iter().filter(|step| step.starts_with("create index concurrently ")).count();
    let dropped = applied.iter().filter(|step| step.starts_with("drop index concurrently ")).count();
    assert_eq!((applied.len(), built, dropped), (9, 2, 2), "{applied:?}");
    assert_eq!(indexes(&client).await, valid(&NEW));
    assert_group_by(&client, as_of()).await;

    let engine = database.engine().await;
    for (restaurant, count) in [("one", 1), ("short", 20), ("long", 90)] {
        assert_eq!(history(&client, restaurant).await, (true, count, count), "all mentions are still indexed");
        // A repetition writes nothing.
        commit(&engine, mentions(restaurant, 0..count as u32)).await;
        assert_eq!(history(&client, restaurant).await, (true, count, count));
        commit(&engine, mentions(restaurant, count as u32 - 1..count as u32 + 6)).await;
        let long = count > SHORT.into();
        assert_eq!(history(&client, restaurant).await, (long, count + 6, if long { count + 6 } else { count }));
        assert_group_by(&client, as_of()).await;
        commit(&engine, mentions(restaurant, count as u32 + 6..count as u32 + 50)).await;
        assert_eq!(history(&client, restaurant).await, (true, count + 50, count + 50));
    }
    commit(&engine, mentions("new", 0..20)).await;
    assert_eq!(history(&client, "new").await, (false, 20, 0));
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_index_build_is_repeated_while_an_engine_writes() {
    let (database, config, client) = old_database().await;
    let migrating = || {
        let config = config.clone();
        tokio::spawn(async move { Migrations::all().run(&config).await })
    };
    // A long snapshot on any table keeps an index from becoming valid.
    let reader = database.client().await;
    reader.batch_execute("begin isolation level repeatable read; select from entities").await.unwrap();
    let cut_off = migrating();
    let waiting = "select pid from pg_stat_activity
                   where datname = current_database() and query like 'create index concurrently%' and wait_event_type = 'Lock'";
    let builder: i32 = within(async {
        loop {
            if let Some(row) = client.query_opt(waiting, &[]).await.unwrap() {
                break row.get(0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The old indexes serve until then.
    let engine = database.small_engine(40, 2).await;
    commit(&engine, mentions("long", 80..100)).await;
    commit(&engine, mentions("new", 0..40)).await;
    client.execute("select pg_terminate_backend($1)", &[&builder]).await.unwrap();
    assert!(within(cut_off).await.unwrap().is_err());
    let left = indexes(&client).await;
    assert_eq!(left[..2], valid(&OLD));
    assert_eq!(left[2..], [(NEW[1].to_owned(), false)], "the index is invalid and remains");

    let again = migrating();
    let mut there = 40;
    let mut rounds = 0;
    while rounds < 5 || !again.is_finished() {
        commit(&engine, mentions("new", there..there + 3)).await;
        commit(&engine, mentions("short", there..there + 1)).await;
        (there, rounds) = (there + 3, rounds + 1);
        if rounds == 5 {
            reader.batch_execute("rollback").await.unwrap();
        }
    }
    let applied = within(again).await.unwrap().unwrap().applied;
    let steps: Vec<&str> = applied.iter().map(|step| step.split(" on ").next().unwrap()).collect();
    assert_eq!(
        steps,
        [
            format!("drop index concurrently {}", NEW[1]),
            format!("create index concurrently {}", NEW[1]),
            format!("create index concurrently {}", NEW[0]),
            format!("drop index concurrently {}", OLD[1]),
            format!("drop index concurrently {}", OLD[0]),
        ]
    );
    assert_eq!(indexes(&client).await, valid(&NEW));
    commit(&engine, mentions("long", 100..110)).await;
    assert_eq!(history(&client, "new").await, (true, there.into(), there.into()));
    assert_group_by(&client, as_of()).await;
    let stats = engine.stats();
    assert_eq!((stats.failed_attempts, stats.units_rejected), (0, 0), "{stats:?}");
    assert!(within(Migrations::all().run(&config)).await.unwrap().applied.is_empty());
}
