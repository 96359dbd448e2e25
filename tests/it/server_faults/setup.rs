//! The database's set-up is wrong at the start, or changes while the engine runs: passwords, privileges, tables,
//! indexes.

use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Engine, StartError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::sqlstates::{record, unit};
use super::{Storm, assert_at_rest, config, engine, migrated, server, until, until_so};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, Record};
use crate::support::{Database, as_of, commit, connect, seed, within};

/// The URL of the same database for another role.
fn url_of_role(server: &EmbeddedServer, database: &str, role: &str, password: &str) -> String {
    format!("postgresql://{role}:{password}@127.0.0.1:{}/{database}", server.port())
}

const GRANTS: &str =
    "grant select, insert, update, delete on entities, connections, mentions, graphsink_attempts to writer;
     grant select on entity_redirects, connection_redirects, graphsink_generation to writer";

async fn create_writer(client: &Client) {
    client.batch_execute("create role writer login password 'right'").await.unwrap();
    client.batch_execute(GRANTS).await.unwrap();
}

/// The URL of a role with the rights of an engine, which owns nothing.
pub(super) async fn writer(server: &EmbeddedServer, client: &Client, database: &str) -> String {
    create_writer(client).await;
    url_of_role(server, database, "writer", "right")
}

/// The obstacle is reported at once, with its SQLSTATE, and without the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_succeed_says_why() {
    let server = server(&[]).await;
    let url = migrated(&server, "setup").await;
    let client = connect(&url).await;
    create_writer(&client).await;
    let start = async |url: String| Engine::start(config(&url).build().unwrap()).await;
    let said = async |url: String, what: &str| match within(start(url)).await {
        Err(StartError::Store(error)) => {
            let text = format!("{error} {error:?}");
            println!("{what}: {text}");
            assert!(!text.contains("s3cret") && !text.contains("right"), "{what}: {text}");
            error.sqlstate().map(str::to_owned)
        }
        other => panic!("{what}: expected an error of the store, got {:?}", other.map(|_| "an engine")),
    };
    let of = |database: &str, role: &str, password: &str| url_of_role(&server, database, role, password);
    assert_eq!(said(of("setup", "writer", "s3cret"), "wrong password").await.as_deref(), Some("28P01"));
    assert_eq!(said(of("setup", "absent", "s3cret"), "no such role").await.as_deref(), Some("28P01"));
    assert_eq!(said(of("missing", "writer", "right"), "no such database").await.as_deref(), Some("3D000"));
    client.batch_execute("revoke all on graphsink_attempts from writer").await.unwrap();
    assert_eq!(said(of("setup", "writer", "right"), "no privilege").await.as_deref(), Some("42501"));
    client.batch_execute("alter role writer connection limit 0").await.unwrap();
    assert_eq!(said(of("setup", "writer", "right"), "no connections").await.as_deref(), Some("53300"));
    client.batch_execute("alter role writer connection limit -1 nologin").await.unwrap();
    assert_eq!(said(of("setup", "writer", "right"), "may not log in").await.as_deref(), Some("28000"));
    client.batch_execute("alter role writer login").await.unwrap();
    client.batch_execute(GRANTS).await.unwrap();

    client.batch_execute("alter table connections rename to gone").await.unwrap();
    match within(start(of("setup", "writer", "right"))).await {
        Err(StartError::NotMigrated { table, .. }) => assert_eq!(table, "connections"),
        other => panic!("expected NotMigrated, got {:?}", other.map(|_| "an engine")),
    }
    client.batch_execute("alter table gone rename to connections").await.unwrap();
    let engine = start(of("setup", "writer", "right")).await.unwrap();
    let own = record("first", "fine");
    commit(&engine, unit(&own)).await;
    assert_same(&model::graph(&[own], as_of()), &database::read(&client).await);
    assert_at_rest(&[engine], &client).await;
}

/// The engine sets the properties of each transaction, so defaults of a database cost no attempt, not even when plans
/// are made anew because the tables have grown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_defaults_of_the_database_cost_no_attempt() {
    for (setting, value) in [
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_deferrable", "on"),
    ] {
        let server = server(&[]).await;
        let url = migrated(&server, "defaults").await;
        let client = connect(&url).await;
        client.batch_execute(&format!("alter database defaults set {setting} = '{value}'")).await.unwrap();
        let engine = engine(&url).await;
        let mut records: Vec<Record> = Vec::new();
        // One after the other: each is a transaction, and after a hundred rows plans are made anew.
        for number in 0..150 {
            let own = record(&format!("place {number}"), "fine");
            commit(&engine, unit(&own)).await;
            records.push(own);
        }
        assert_eq!(engine.stats().failed_attempts, 0, "{setting} = {value}");
        assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
        assert_at_rest(&[engine], &client).await;
    }
}

/// A storm while `break_it` makes the database unusable and `mend_it` repairs it.
pub(super) async fn mended(name: &str, break_it: &[&str], mend_it: &[&str]) {
    let seed = seed(name);
    let server = server(&[]).await;
    let url = migrated(&server, "mended").await;
    let client = connect(&url).await;
    create_writer(&client).await;
    let engines = [engine(&url_of_role(&server, "mended", "writer", "right")).await];
    let storm = Storm::start(seed, &engines);
    for _ in 0..2 {
        storm.progress(60).await;
        for statement in break_it {
            client.batch_execute(statement).await.unwrap();
        }
        until_so("the line stops", || engines[0].stats().circuit_open).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(engines[0].stats().units_rejected, 0, "{name}: no unit is to blame");
        for statement in mend_it {
            client.batch_execute(statement).await.unwrap();
        }
    }
    storm.progress(60).await;
    let ledger = storm.stop().await;
    println!("{name}: {} units, {} failed attempts", ledger.len(), engines[0].stats().failed_attempts);
    ledger.assert_all_committed();
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privilege_revoked_and_granted_again_only_delays_units() {
    mended(
        "privilege",
        &["revoke insert on mentions from writer"],
        &["grant insert on mentions to writer", "grant select on mentions to writer"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_renamed_and_renamed_back_only_delays_units() {
    mended(
        "table renamed",
        &["alter table mentions rename to gone"],
        // Another table of this name: prepared statements refer to the old one.
        &["begin;
           create table mentions (like gone including all);
           insert into mentions select * from gone;
           alter table mentions add foreign key (connection_id) references connections;
           grant select, insert, update, delete on mentions to writer;
           drop table gone;
           commit"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_login_for_a_while_only_delays_units() {
    mended(
        "role locked",
        &[
            "alter role writer nologin",
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'graphsink'",
        ],
        &["alter role writer login"],
    )
    .await;
}

/// Usual statements of administrators on tables in use. None of them may cost a unit, and few of them an attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_indexes_may_be_altered_under_load() {
    let seed = seed("altered");
    let server = server(&[]).await;
    let url = migrated(&server, "altered").await;
    let client = connect(&url).await;
    let engines = [engine(&url).await, engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for statement in [
        "alter table mentions add column note text",
        "alter table entities add column note text default 'none'",
        "alter table connections add column note int not null default 7",
        "analyze",
        "alter table mentions drop column note",
        "reindex database concurrently altered",
        "vacuum full mentions",
        "drop index connections_dish_or_category_id_idx",
        "create index connections_dish_or_category_id_idx on connections (dish_or_category_id)",
        "alter table mentions drop constraint mentions_connection_id_fkey",
        "alter table mentions add foreign key (connection_id) references connections",
        // The result types of prepared statements change.
        "alter table mentions alter column content_excerpt type varchar(100000)",
        "alter table mentions alter column content_excerpt type text",
        "alter table connections alter column mention_count type int4 using mention_count::int8::int4",
        // Sessions end, and with them their prepared statements.
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'graphsink'",
        "cluster connections using connections_pkey",
    ] {
        // An administrator's statement may be the victim of a deadlock, and is then repeated.
        while let Err(error) = client.batch_execute(statement).await {
            assert_eq!(error.code().map(SqlState::code), Some("40P01"), "{statement}: {error:?}");
        }
        storm.progress(40).await;
    }
    let ledger = storm.stop().await;
    let failed: u64 = engines.iter().map(|engine| engine.stats().failed_attempts).sum();
    println!("{} units, {failed} failed attempts", ledger.len());
    ledger.assert_all_committed();
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

/// The index of every mention's lookup is rebuilt while two engines write, on a table on which that takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_on_a_million_rows_may_be_rebuilt_during_two_loads() {
    let seed = seed("rebuilt");
    let server = server(&[]).await;
    let url = migrated(&server, "rebuilt").await;
    let client = connect(&url).await;
    let engines = [engine(&url).await, engine(&url).await];
    // The rows of another restaurant, which is removed before the database is compared.
    commit(&engines[0], unit(&record("a million", "fine"))).await;
    let fill = "insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                                      content_excerpt, upvotes, created_at, observed_at)
                select gen_random_uuid(), connection_id, source_type, 'fill ' || n, thread_id, source_url, subreddit, '', 1,
                       created_at, observed_at
                from mentions, generate_series(1, 1000000) as n";
    client.batch_execute(fill).await.unwrap();
    let storm = Storm::start(seed, &engines);
    storm.progress(60).await;
    for _ in 0..3 {
        // The statement may be the victim of a deadlock, and is then repeated.
        while let Err(error) = client.batch_execute("reindex index concurrently mentions_key").await {
            assert_eq!(error.code().map(SqlState::code), Some("40P01"), "{error:?}");
        }
        storm.progress(40).await;
    }
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    client
        .batch_execute(
            "delete from mentions where connection_id in
                 (select connection_id from connections c join entities e on e.entity_id = c.restaurant_id
                  where e.name = 'a million');
             delete from connections where restaurant_id in (select entity_id from entities where name = 'a million');
             delete from entities where name in ('a million', 'brisket')",
        )
        .await
        .unwrap();
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

/// Every idle session of the pool has a plan whose result type changed. No number of them is charged to a unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outdated_plans_on_many_sessions_reject_no_unit() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let config = database.config().in_flight_commits(8).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    // Eight commits wait for one table at the same time, each on a session of its own. While the dish that they share
    // is new, they would all go to one lane.
    let mut records: Vec<Record> = (0..9).map(|number| record(&format!("restaurant {number}"), "fine")).collect();
    commit(&engine, unit(&records[0])).await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table mentions in share mode").await.unwrap();
    let mut receipts = Vec::new();
    for record in &records[1..] {
        receipts.push(engine.submit(unit(record)).await.unwrap());
    }
    until(
        &client,
        "select count(*) >= 8 from pg_stat_activity
         where datname = current_database() and application_name = 'graphsink' and wait_event_type = 'Lock'",
    )
    .await;
    holder.batch_execute("commit").await.unwrap();
    for receipt in receipts {
        assert!(within(receipt).await.committed().is_some());
    }
    client.batch_execute("alter table mentions alter column content_excerpt type varchar(100000)").await.unwrap();
    let Record::Mention(mut second) = record("restaurant 1", "newer") else { unreachable!("it is a mention") };
    second.upvotes = 9;
    second.observed_at += chrono::TimeDelta::hours(1);
    let second = Record::Mention(second);
    let outcome = within(engine.submit(unit(&second)).await.unwrap()).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
    println!("{} failed attempts", engine.stats().failed_attempts);
    records.push(second);
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
    assert_at_rest(&[engine], &client).await;
}

/// A setting of the server that interrupts every long transaction fires now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_sessions_again_and_again_loses_nothing() {
    let seed = seed("sessions ended");
    let database = Database::migrated().await;
    let client = database.client().await;
    let engines = [database.small_engine(60, 3).await];
    let storm = Storm::start(seed, &engines);
    for round in 0..60 {
        // Some sessions are ended, some only lose their statement.
        let end = if round % 3 == 0 { "pg_cancel_backend" } else { "pg_terminate_backend" };
        let query = format!(
            "select {end}(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'graphsink' order by random() limit 2"
        );
        client.batch_execute(&query).await.unwrap();
        tokio::time::sleep(Duration::from_millis(round % 7 * 4)).await;
    }
    storm.progress(60).await;
    let ledger = storm.stop().await;
    println!("{} units, {} failed attempts", ledger.len(), engines[0].stats().failed_attempts);
    assert!(engines[0].stats().failed_attempts > 0, "sessions were ended under load");
    ledger.assert_all_committed();
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}
