//! Tests through the handle a commit whose outcome no server can be asked for. They are here because a load asks for
//! five minutes, which is too long for these tests.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::{BulkError, BulkLoad, BulkSettings};
use crate::error::BulkStoreError;
use crate::server::EmbeddedServer;
use crate::{Config, Migrations, UnitOfWork};

const PATIENCE: Duration = Duration::from_mins(1);

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_commit_is_reported_with_the_query_that_finds_it_later() {
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let url = server.url("postgres");
    let config = Config::builder(&url).connect_timeout(Duration::from_secs(1)).outcome_deadline(Duration::from_secs(1));
    let config = config.build().unwrap();
    Migrations::all().run(&config).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut settings = BulkSettings::default().memory(8 << 10).spill_directory(directory.path());
    settings.fate_wait_min = Some(Duration::from_millis(700));
    let load = BulkLoad::begin(config, settings).await.unwrap();
    // For units without mentions that table shows nothing.
    let mut unit = UnitOfWork::new();
    unit.dish("brisket").handle();
    load.submit(unit).await.unwrap();

    let client = connect(&url).await;
    for statement in ["alter system set synchronous_standby_names = 'none'", "select pg_reload_conf()"] {
        client.batch_execute(statement).await.unwrap();
    }
    let finishing = tokio::spawn(load.finish());
    let start = Instant::now();
    let waits = "select exists (select from pg_stat_activity
                                where application_name = 'graphsink' and wait_event = 'SyncRep')";
    while !client.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(start.elapsed() < PATIENCE, "it never commits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    server.crash().unwrap();
    let error = tokio::time::timeout(PATIENCE, finishing).await.unwrap().unwrap().unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    let BulkError::Store(BulkStoreError::CommitUnknown { query, attempt, .. }) = &error else { panic!("{error}") };
    assert!(query.contains(&attempt.to_string()) && error.to_string().contains(query), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no file is left");

    server.restart().await.unwrap();
    let client = connect(&url).await;
    assert!(!client.query_one(query, &[]).await.unwrap().get::<_, bool>(0), "not fenced: it was committed");
    let count = "select (select count(*) from entities), (select count(*) from mentions)";
    let row = client.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0));
}
