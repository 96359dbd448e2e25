//! The errors of a pooler between the engine and the server.
//!
//! `PgBouncer` reports nearly all of its own errors with the code of a protocol violation, 08P01, as fatal ones. They
//! are faults neither of the engine nor of a unit.

use futures::future::join_all;
use graphsink::{Engine, StartError};

use super::{Journal, Rig, records, until};
use crate::proxy::{Action, At, Fault};
use crate::support::seed;

/// No server becomes free in time, or the server goes away, at any step of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_pooler_are_survived_at_every_step() {
    let seed = seed("a pooler's errors");
    let rig = Rig::start(|config| config).await;
    let error = Action::Error { severity: "FATAL", code: "08P01" };
    let mut places = vec![At::Begin, At::Commit, At::CommitAnswer];
    places.extend((0..40).step_by(4).flat_map(|number| [At::Request(number), At::Answer(number)]));
    let records = records(seed, 5 * places.len());
    let mut journal = Journal::default();
    for (own, at) in records.chunks(5).zip(&places) {
        rig.proxy.on_next(Fault::at(*at, error));
        let outcome = journal.tell(&rig.engine, own).await;
        assert!(outcome.committed().is_some(), "{at:?}: {outcome:?}");
    }
    let counts = rig.proxy.counts();
    assert_eq!((counts.done(), counts.missed), (places.len(), 0), "{counts:?}");
    journal.settle(&rig).await;
}

/// Nonsensical answers: a pooler that does not know prepared statements returns those of another client's (seen with
/// `PgBouncer` 1.18 in transaction mode). They prove nothing against a unit.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonsensical_answer_is_charged_to_no_unit() {
    let seed = seed("answers without sense");
    let mut places: Vec<At> = (0..48).map(At::Answer).collect();
    places.push(At::CommitAnswer);
    let one = async |places: &[At]| {
        let rig = Rig::start(|config| config).await;
        let records = records(seed, 5 * places.len());
        let mut journal = Journal::default();
        for (own, at) in records.chunks(5).zip(places) {
            rig.proxy.on_next(Fault::at(*at, Action::Mangle));
            let outcome = journal.tell(&rig.engine, own).await;
            assert!(outcome.committed().is_some(), "{at:?}: {outcome:?}");
        }
        assert_eq!(rig.proxy.counts().done(), places.len());
        journal.settle(&rig).await;
    };
    // Where the end of an answer is mangled, the engine waits for it in vain.
    join_all(places.chunks(7).map(one)).await;
}

/// No login succeeds for a while: the engine waits, and no unit is rejected for it.
#[tokio::test(flavor = "multi_thread")]
async fn units_wait_while_logins_fail_and_none_is_rejected() {
    let seed = seed("logins that fail");
    let rig = Rig::start(|config| config.in_flight_commits(3)).await;
    let mut journal = Journal::default();
    // A pooler without a server, too many connections, a server that starts up.
    for (round, code) in ["08P01", "53300", "57P03"].into_iter().enumerate() {
        rig.proxy.fail_logins(Some(code));
        rig.proxy.cut_all();
        let records = records(seed + round as u64, 30);
        for own in records.chunks(3) {
            journal.submit(&rig.engine, own).await;
        }
        until("the line is stopped", async || rig.engine.stats().circuit_open).await;
        rig.proxy.fail_logins(None);
        journal.hear().await;
        assert!(journal.all_committed());
        let stats = rig.engine.stats();
        assert!(stats.circuit_openings > round as u64 && !stats.circuit_open, "{code}: {stats:?}");
    }
    journal.settle(&rig).await;
}

/// An engine that cannot log in reports it at its start, with the code.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_server_behind_the_pooler_names_the_error() {
    let rig = Rig::start(|config| config).await;
    rig.proxy.fail_logins(Some("08P01"));
    let error = Engine::start(rig.engine.config().clone()).await.unwrap_err();
    let StartError::Store(error) = error else { panic!("{error}") };
    assert_eq!(error.sqlstate(), Some("08P01"));
    Journal::default().settle(&rig).await;
}
