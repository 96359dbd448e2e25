//! Silent networks: black holes, half-closed connections, slow answers.

use std::time::{Duration, Instant};

use futures::future::join_all;
use graphsink::{Engine, StartError};

use super::{Journal, Rig, records, until};
use crate::generate::{self, Space};
use crate::model::Record;
use crate::proxy::{Action, At, Fault};
use crate::support::{as_of, seed, within};

/// An engine with long timeouts.
async fn patient_rig() -> Rig {
    Rig::start(|config| config.statement_timeout(Duration::from_secs(40))).await
}

/// A unit whose mentions are copied, not inserted.
fn large_unit(seed: u64) -> Vec<Record> {
    let space = Space { restaurants: 3, dishes: 3, attributes: 3, sources: 5_000, threads: 50, as_of: as_of() };
    generate::sample(seed, space, 400)
}

/// At any step of a transaction neither side receives anything any more, or the client does not. No network stack
/// reports this: the engine has to notice by itself, commit the unit on another session, and find out whether the first
/// commit took place.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_falls_silent_is_noticed_at_every_step() {
    let seed = seed("silence");
    let places =
        [At::Begin, At::Request(0), At::Request(20), At::Answer(0), At::Answer(20), At::Commit, At::CommitAnswer];
    let actions = [Action::Stall, Action::HalfOpen, Action::Swallow];
    let faults = actions.iter().flat_map(|action| places.map(|at| Fault::at(at, *action)));
    let one = async |number: usize, fault: Fault| {
        let rig = Rig::start(|config| config).await;
        let mut journal = Journal::default();
        let records = records(seed + number as u64, 40);
        assert!(journal.tell(&rig.engine, &records[..20]).await.committed().is_some());
        rig.proxy.on_next(fault);
        let outcome = journal.tell(&rig.engine, &records[20..]).await;
        assert!(outcome.committed().is_some(), "{fault:?}: {outcome:?}");
        let counts = rig.proxy.counts();
        assert_eq!(counts.done(), 1, "{fault:?}: {counts:?}");
        assert!(counts.connections > 1, "{fault:?}: {counts:?}");
        let lost_in_commit = matches!(fault.at, At::Commit | At::CommitAnswer);
        assert_eq!(counts.fences > 0, lost_in_commit, "{fault:?}: {counts:?}");
        journal.settle(&rig).await;
    };
    // Each case waits for timeouts most of the time.
    join_all(faults.enumerate().map(|(number, fault)| one(number, fault))).await;
}

/// A server that accepts a connection and then stays silent does not block a start for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_fails_in_time_on_a_server_that_falls_silent() {
    let rig = Rig::start(|config| config).await;
    rig.proxy.on_next(Fault::at(At::Begin, Action::Stall));
    let error = within(Engine::start(rig.engine.config().clone())).await.unwrap_err();
    assert!(matches!(&error, StartError::Store(error) if error.is_retryable()), "{error:?}");
    Journal::default().settle(&rig).await;
}

/// A refresh goes over all connections in transactions of its own, and may repeat each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_completes_despite_sessions_that_are_cut_or_fall_silent() {
    let seed = seed("a refresh");
    let rig = Rig::start(|config| config).await;
    let mut journal = Journal::default();
    assert!(journal.tell(&rig.engine, &records(seed, 60)).await.committed().is_some());
    let faults = [
        Fault::at(At::Begin, Action::Cut),
        Fault::at(At::Answer(5), Action::Cut),
        Fault::at(At::Request(6), Action::Stall),
        Fault::CUT_BEFORE_COMMIT,
        Fault::CUT_AFTER_COMMIT,
        Fault::SWALLOW_ANSWER,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        rig.proxy.on_next(fault);
        let report = within(rig.engine.refresh_activity(as_of())).await.unwrap();
        assert!(report.connections > 0, "{fault:?}");
        assert_eq!(rig.proxy.counts().done(), number + 1, "{fault:?}");
    }
    journal.settle(&rig).await;
}

/// The network stops for all sessions until the engine has given them up, and then delivers all held messages:
/// statements and commits of transactions that were repeated meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_stops_and_goes_on_loses_and_doubles_nothing() {
    let seed = seed("a network that stops");
    let rig = Rig::start(|config| config.max_batch_rows(10).in_flight_commits(4)).await;
    let mut journal = Journal::default();
    for round in 0..3 {
        let records = records(seed + round, 60);
        for (number, own) in records.chunks(3).enumerate() {
            journal.submit(&rig.engine, own).await;
            if number == 5 {
                // While some of the units are being written, and others wait behind them.
                rig.proxy.stall(true);
            }
        }
        until("the line is stopped", async || rig.engine.stats().circuit_open).await;
        rig.proxy.stall(false);
        journal.hear().await;
        assert!(journal.all_committed());
    }
    journal.settle(&rig).await;
}

/// Sessions die while they are idle: the server's side is closed, or both are, or the client alone does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_that_die_cost_at_most_one_repetition_each() {
    let seed = seed("idle connections that die");
    let rig = Rig::start(|config| config.in_flight_commits(3)).await;
    let mut journal = Journal::default();
    for round in 0..8 {
        let records = records(seed + round, 30);
        for own in records.chunks(5) {
            journal.submit(&rig.engine, own).await;
        }
        journal.hear().await;
        // The pool connects for an epoch that waits, and continues to when the epoch got another session. A lost login
        // would be evidence about the server.
        until("no login is under way", async || rig.proxy.logins() == 0).await;
        match round {
            0..5 => rig.proxy.cut_all(),
            _ => rig.proxy.half_open_all(),
        }
    }
    assert!(journal.all_committed());
    assert_eq!(rig.engine.stats().circuit_openings, 0, "dead idle sessions are no evidence about the server");
    journal.settle(&rig).await;
}

/// A transaction that takes longer than the limit for silence, but is answered all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_that_keeps_answering_is_not_given_up() {
    let seed = seed("a slow server");
    let rig = Rig::start(|config| config).await;
    let mut journal = Journal::default();
    let records = records(seed, 60);
    // Statements are prepared before the server becomes slow.
    assert!(journal.tell(&rig.engine, &records[..30]).await.committed().is_some());
    let failed = rig.engine.stats().failed_attempts;
    rig.proxy.set_delay(Some(Duration::from_millis(40)));
    let start = Instant::now();
    let outcome = journal.tell(&rig.engine, &records[30..]).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
    assert!(start.elapsed() > Duration::from_secs(2), "too quick to show anything: {:?}", start.elapsed());
    assert_eq!(rig.engine.stats().failed_attempts, failed, "the transaction was given up");
    rig.proxy.set_delay(None);
    journal.settle(&rig).await;
}

/// Every message is delayed, on every connection, with several transactions at work.
#[tokio::test(flavor = "multi_thread")]
async fn delayed_messages_cause_no_failed_attempt_and_no_wrong_row() {
    let seed = seed("delays");
    let rig = patient_rig().await;
    rig.proxy.set_delay(Some(Duration::from_millis(2)));
    let mut journal = Journal::default();
    for own in records(seed, 120).chunks(4) {
        journal.submit(&rig.engine, own).await;
    }
    journal.hear().await;
    assert!(journal.all_committed());
    assert_eq!(rig.engine.stats().failed_attempts, 0);
    journal.settle(&rig).await;
}

/// Messages arrive byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_arrive_byte_by_byte_are_read_correctly() {
    let seed = seed("a trickle");
    let rig = patient_rig().await;
    rig.proxy.trickle(true);
    let mut journal = Journal::default();
    for own in records(seed, 30).chunks(5) {
        journal.submit(&rig.engine, own).await;
    }
    journal.submit(&rig.engine, &large_unit(seed)).await;
    journal.hear().await;
    assert!(journal.all_committed());
    journal.settle(&rig).await;
}
