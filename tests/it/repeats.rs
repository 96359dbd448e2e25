//! Mentions that are delivered again: connections about which nothing new is stated are neither locked nor written, and
//! what other programs did to their facts, mentions and best mention is noticed.

use graphsink::{Committed, Disposition, Engine, Mention, SourceType, UnitOfWork};
use tokio_postgres::Client;

use crate::database::assert_group_by;
use crate::lock_waits::until_waiting;
use crate::support::{Database, as_of, commit, within};

/// A mention or two at each of several restaurants, of different ages.
fn thread(restaurants: &[&str], more: Option<&str>) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let dish = unit.dish("pie").handle();
    for restaurant in restaurants {
        let at = unit.restaurant(*restaurant).handle();
        let connection = unit.connection(at, dish).category(dish).handle();
        let ages = match *restaurant {
            "new" => &[0, 20][..],
            "mixed" => &[20, 90],
            _ => &[90, 100],
        };
        for age in ages {
            let created_at = as_of() - chrono::TimeDelta::days(*age);
            let mention = Mention::new(SourceType::Post, format!("m{age}"), "https://example.org", "s", created_at);
            unit.mention(connection, mention.thread("t").upvotes(*age as i32 + 1));
        }
        if let Some(source) = more {
            unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "s", as_of()));
        }
    }
    unit
}

const ALL: [&str; 3] = ["new", "mixed", "old"];

/// Commits the thread often enough that the engine expects repeats; returns the last outcome.
async fn repeat(engine: &Engine) -> Committed {
    commit(engine, thread(&ALL, None)).await;
    commit(engine, thread(&ALL, None)).await;
    commit(engine, thread(&ALL, None)).await
}

fn all(committed: &Committed, wanted: Disposition) -> bool {
    committed.connections.iter().chain(&committed.mentions).all(|row| row.disposition == wanted)
}

async fn hold(holder: &Client) {
    holder.batch_execute("begin; select from connections for update; select from mentions for update").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_mentions_wait_for_no_lock_and_new_ones_do() {
    let database = Database::migrated().await;
    let engine = database.small_engine(1_000, 1).await;
    let (holder, client) = (database.client().await, database.client().await);
    let first = repeat(&engine).await;
    assert!(all(&first, Disposition::Unchanged), "{first:?}");
    hold(&holder).await;
    let again = commit(&engine, thread(&ALL, None)).await;
    assert_eq!((&again.connections, &again.mentions), (&first.connections, &first.mentions));
    let receipt = engine.submit(thread(&["new"], Some("another"))).await.unwrap();
    until_waiting(&client, 1).await;
    holder.batch_execute("commit").await.unwrap();
    let outcome = within(receipt).await;
    let changed = outcome.committed().unwrap();
    assert_eq!(changed.connections[0].disposition, Disposition::Updated);
    let written: Vec<Disposition> = changed.mentions.iter().map(|row| row.disposition).collect();
    assert_eq!(written, [Disposition::Unchanged, Disposition::Unchanged, Disposition::Inserted]);
    assert_group_by(&client, as_of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_do_to_repeated_mentions_is_noticed() {
    let database = Database::migrated().await;
    let (engine, client) = (database.small_engine(1_000, 1).await, database.client().await);
    let nothing = Vec::new();
    // The engine expects repeats.
    repeat(&engine).await;
    hold(&client).await;
    commit(&engine, thread(&ALL, None)).await;
    client.batch_execute("commit").await.unwrap();
    // What is changed, and the connections that are written then; each has the figures of its mentions afterwards.
    for (change, written) in [
        ("select", nothing.clone()),
        ("update connections set dish_quality_score = 1, last_updated = now()", nothing),
        ("update connections set recent_mention_count = 3 where recent_mention_count = 0", vec![2]),
        ("update connections set activity_level = 'normal' where recent_mention_count = 2", vec![0]),
        ("update connections set top_mentions = '\"unreadable\"'", vec![0, 1, 2]),
        (
            "update connections set top_mentions = '[{\"score\": {}, \"upvotes\": 1e99, \"created_at\": 7}]'",
            vec![0, 1, 2],
        ),
        ("update connections set top_mentions = '{\"0\": {\"score\": 1}}' where recent_mention_count = 0", vec![2]),
        ("update connections set categories = '{}' where recent_mention_count = 2", vec![0]),
        ("update mentions set observed_at = created_at, upvotes = upvotes - 1 where source_id = 'm100'", vec![]),
    ] {
        repeat(&engine).await;
        client.batch_execute(change).await.unwrap();
        let committed = commit(&engine, thread(&ALL, None)).await;
        let updated = (0..).zip(&committed.connections).filter(|(_, row)| row.disposition == Disposition::Updated);
        let updated: Vec<usize> = updated.map(|(place, _)| place).collect();
        if change.starts_with("update mentions") {
            assert_eq!(updated, [2], "the stored observation has fewer upvotes than the one that is repeated");
        } else {
            assert_eq!(updated, written, "{change}");
            assert_group_by(&client, as_of()).await;
        }
    }
    // Deleted rows are written again.
    for (delete, connections) in [
        ("delete from mentions; delete from connections", Disposition::Inserted),
        (
            "delete from mentions; update connections set mention_count = 0, total_upvotes = 0, source_diversity = 0,
          recent_mention_count = 0, last_mentioned_at = null, activity_level = 'normal', top_mentions = '[]'",
            Disposition::Updated,
        ),
    ] {
        repeat(&engine).await;
        client.batch_execute(delete).await.unwrap();
        let committed = commit(&engine, thread(&ALL, None)).await;
        assert!(committed.connections.iter().all(|row| row.disposition == connections), "{committed:?}");
        assert!(committed.mentions.iter().all(|row| row.disposition == Disposition::Inserted), "{committed:?}");
        assert_group_by(&client, as_of()).await;
    }
}

/// A trigger inserts the connection of a new restaurant before the engine does. Where all other connections are settled,
/// the first attempt has no savepoint to return to, and the second one looks up all connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_a_trigger_inserts_beside_repeated_ones_is_used() {
    let database = Database::migrated().await;
    let (engine, client) = (database.small_engine(1_000, 1).await, database.client().await);
    repeat(&engine).await;
    let trigger = "create function connect() returns trigger language plpgsql as $$ begin
            insert into connections (connection_id, restaurant_id, dish_or_category_id, is_menu_item)
            select gen_random_uuid(), new.entity_id, d.entity_id, true from entities d where d.name = 'pie';
            return null; end $$;
        create trigger connect after insert on entities for each row when (new.name = 'triggered')
            execute function connect()";
    client.batch_execute(trigger).await.unwrap();
    let mut unit = thread(&ALL, None);
    let (restaurant, dish) = (unit.restaurant("triggered").handle(), unit.dish("pie").handle());
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, "m", "https://example.org", "s", as_of()));
    let committed = commit(&engine, unit).await;
    assert_eq!(committed.connections[3].disposition, Disposition::Updated, "{committed:?}");
    assert_eq!(engine.stats().retries, 1);
    assert_group_by(&client, as_of()).await;
}
