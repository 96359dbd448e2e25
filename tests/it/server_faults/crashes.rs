//! A server that is killed, restarted, or gone for a while.

use std::time::Duration;

use graphsink::Outcome;
use graphsink::server::EmbeddedServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::NoTls;

use super::{Storm, assert_at_rest, config, engine, migrated, server, until};
use crate::support::{connect, seed, within};

/// Starts the server again while a client keeps connecting; returns how often it was told "in recovery" (57P03).
async fn restart_and_knock(server: &mut EmbeddedServer, url: &str) -> usize {
    let knock = async {
        let mut refused = 0;
        loop {
            match tokio_postgres::connect(url, NoTls).await {
                Ok(_) => return refused,
                Err(error) => refused += usize::from(error.code().is_some_and(|code| code.code() == "57P03")),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (restarted, refused) = within(futures::future::join(server.restart(), knock)).await;
    restarted.unwrap();
    refused
}

/// Assigns the transaction ids again that the killed server had assigned and forgotten.
async fn use_transaction_ids(url: &str) {
    let client = connect(url).await;
    let use_one = "do $$ begin for number in 1..300 loop perform pg_current_xact_id(); commit; end loop; end $$";
    client.batch_execute("set synchronous_commit = off").await.unwrap();
    client.batch_execute(use_one).await.unwrap();
}

/// The state of a commit when the server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amid {
    /// Before it is on disk: it is lost, and with it the assignment of its transaction id.
    Flush,
    /// After that: it took place, and its answer is lost. The commit waits for a standby that does not exist.
    Answer,
}

/// Kills the server when commits of the engines have reached this state.
async fn kill_amid(server: &mut EmbeddedServer, url: &str, amid: Amid) {
    if amid == Amid::Answer {
        let client = connect(url).await;
        for statement in ["alter system set synchronous_standby_names = 'absent'", "select pg_reload_conf()"] {
            client.batch_execute(statement).await.unwrap();
        }
        let waits = "select exists (select from pg_stat_activity
                                    where application_name = 'graphsink' and wait_event = 'SyncRep')";
        until(&client, waits).await;
        // For the next start of the server.
        client.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    }
    server.crash().unwrap();
}

/// A guess at the fate of a commit would be wrong here, and so would an answer by its transaction id: lost ids are
/// assigned to other transactions, which commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_a_storm_of_commits_makes_no_outcome_lie() {
    let seed = seed("server killed");
    let mut random = StdRng::seed_from_u64(seed);
    // Commits take most of the time of a transaction, so that most kills hit one.
    let mut server = server(&[("commit_delay", "40000"), ("commit_siblings", "0")]).await;
    let url = migrated(&server, "killed").await;
    let engines = [engine(&url).await, engine(&url).await];
    let storm = Storm::start(seed, &engines);
    let mut refused = 0;
    for amid in [Amid::Flush, Amid::Answer, Amid::Flush, Amid::Answer, Amid::Flush, Amid::Flush] {
        storm.progress(30).await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..40_000))).await;
        kill_amid(&mut server, &url, amid).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        refused += restart_and_knock(&mut server, &url).await;
        use_transaction_ids(&url).await;
    }
    storm.progress(30).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    let failed: u64 = engines.iter().map(|engine| engine.stats().failed_attempts).sum();
    println!("{} units, {failed} failed attempts, {refused} connections refused during recovery", ledger.len());
    assert!(failed > 0, "the server was killed under load");
    assert!(server.read_log().unwrap().contains("database system was not properly shut down"));
    assert_at_rest(&engines, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_are_invisible_to_callers() {
    let seed = seed("server restarted");
    let mut server = server(&[]).await;
    let url = migrated(&server, "restarted").await;
    let engines = [engine(&url).await, engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for _ in 0..3 {
        storm.progress(60).await;
        server.restart().await.unwrap();
    }
    storm.progress(60).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    let stats = engines.each_ref().map(graphsink::Engine::stats);
    println!(
        "{} units, {} failed attempts",
        ledger.len(),
        stats.iter().map(|stats| stats.failed_attempts).sum::<u64>()
    );
    assert!(server.read_log().unwrap().contains("terminating connection due to administrator command"), "57P01");
    assert_at_rest(&engines, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_unavailable_in_an_outage_can_be_submitted_again_and_are_written_once() {
    let seed = seed("server down");
    let mut server = server(&[]).await;
    let url = migrated(&server, "down").await;
    let config = config(&url).max_batch_rows(60).outcome_deadline(Duration::from_millis(700));
    let engine = graphsink::Engine::start(config.build().unwrap()).await.unwrap();
    let storm = Storm::start(seed, std::slice::from_ref(&engine));
    for _ in 0..3 {
        storm.progress(40).await;
        server.crash().unwrap();
        storm.answers(30).await;
        server.restart().await.unwrap();
    }
    storm.progress(40).await;
    let mut ledger = storm.stop().await;
    let unavailable = ledger.unavailable();
    println!("{} of {} units were unavailable", unavailable.len(), ledger.len());
    assert!(!unavailable.is_empty(), "the server was down for longer than the deadline");
    assert!(!ledger.outcomes.values().any(|outcome| matches!(outcome, Outcome::Rejected(_))), "no unit is to blame");
    let client = connect(&url).await;
    ledger.check(&client).await;
    ledger.resubmit(&engine).await;
    ledger.check(&client).await;
    assert_at_rest(&[engine], &client).await;
}
