//! A read-only database: by a setting, and because the server is a standby.

use std::os::unix::fs::{MetadataExt, chown};
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Engine, Migrations, StartError};
use tokio_postgres::NoTls;

use super::{Storm, assert_at_rest, config, engine, migrated, server, until_so};
use crate::support::{PATIENCE, connect, seed, within};

/// `default_transaction_read_only` is only a default. The engine sets the mode itself: it continues, starts, and
/// migrates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_default_of_the_database_is_no_obstacle() {
    let seed = seed("read-only by default");
    let server = server(&[]).await;
    let url = migrated(&server, "read_only").await;
    let admin = connect(&server.url("postgres")).await;
    let engines = [engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for (on, off) in [
        ("alter system set default_transaction_read_only = on", "alter system reset default_transaction_read_only"),
        (
            "alter database read_only set default_transaction_read_only = on",
            "alter database read_only reset default_transaction_read_only",
        ),
    ] {
        admin.batch_execute(on).await.unwrap();
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
        storm.progress(60).await;
        // New sessions have the default of the database.
        let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'graphsink'";
        admin.batch_execute(terminate).await.unwrap();
        storm.progress(60).await;
        let second = engine(&url).await;
        let _ = within(second.shutdown(Duration::from_secs(10))).await;
        // In a transaction of its own, since the default forbids writing by now.
        admin.batch_execute("begin read write; commit").await.unwrap();
        admin.batch_execute("set default_transaction_read_only = off").await.unwrap();
        admin.batch_execute(off).await.unwrap();
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
    }
    storm.progress(60).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

/// Starts the stopped server as a hot standby and promotes it once `done` says so. In between all writes are refused.
async fn be_standby(server: &mut EmbeddedServer, url: &str, done: impl AsyncFnOnce()) {
    let data = server.directory().join("data");
    let signal = data.join("standby.signal");
    std::fs::write(&signal, "").unwrap();
    // Also on a server that runs as another user than this test.
    let owner = std::fs::metadata(&data).unwrap();
    chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
    let standby = async {
        let start = std::time::Instant::now();
        let (client, connection) = loop {
            if let Ok(connected) = tokio_postgres::connect(url, NoTls).await {
                break connected;
            }
            assert!(start.elapsed() < PATIENCE, "the standby lets no session in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::spawn(async move { drop(connection.await) });
        assert!(client.query_one("select pg_is_in_recovery()", &[]).await.unwrap().get::<_, bool>(0));
        done().await;
        assert!(client.query_one("select pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    };
    // The server counts as started when it is no longer a standby.
    let (restarted, ()) = within(futures::future::join(server.restart(), standby)).await;
    restarted.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_refuses_everything_until_it_is_promoted_and_no_unit_is_rejected() {
    let seed = seed("standby");
    let mut server = server(&[]).await;
    let url = migrated(&server, "standby").await;
    // The second engine is for a single unit, which would be the first to be blamed.
    let engines = [engine(&url).await, engine(&url).await];
    let storm = Storm::start(seed, &engines[..1]);
    let mut lone = Vec::new();
    for number in 0..2 {
        storm.progress(60).await;
        server.stop().await.unwrap();
        Box::pin(be_standby(&mut server, &url, async || {
            let before = engines[0].stats();
            let unit = storm.supply.unit(number);
            lone.push(engines[1].submit(unit).await.unwrap());
            let failed = engines[1].stats().failed_attempts;
            until_so("tries fail", || engines[1].stats().failed_attempts >= failed + 5).await;
            assert!(engines.iter().all(|engine| engine.stats().circuit_open));
            let stats = engines[0].stats();
            assert_eq!(stats.units_committed, before.units_committed, "a standby writes nothing");
            // A new engine, and a migration, notice it at once.
            match within(Engine::start(config(&url).build().unwrap())).await {
                Err(StartError::Store(error)) => println!("start: {error}"),
                other => panic!("expected an error of the store, got {:?}", other.map(|_| "an engine")),
            }
            assert!(within(Migrations::all().run(&config(&url).build().unwrap())).await.is_err());
        }))
        .await;
    }
    storm.progress(60).await;
    for receipt in lone {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

/// The server is restarted and promoted again and again as fast as it can be: units under way wait each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_switches_between_primary_and_standby_rejects_no_unit() {
    let seed = seed("flips");
    let mut server = server(&[]).await;
    let url = migrated(&server, "flips").await;
    let engines = [engine(&url).await, engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for _ in 0..6 {
        server.stop().await.unwrap();
        Box::pin(be_standby(&mut server, &url, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }))
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    storm.progress(60).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}
