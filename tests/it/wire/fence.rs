//! The question whether a commit took place, under the worst conditions.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Journal, Rig, records, until};
use crate::proxy::{Action, At, Fault};
use crate::support::seed;

/// Waits until the fence's insert waits for an active transaction.
async fn fence_waits(client: &Client) {
    let query = "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock' and query like '%fenced%'";
    until("the fence waits", async || client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) > 0).await;
}

/// A commit is under way for longer than the engine waits: it arrives while the fence waits for its transaction, and
/// takes place.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_late_is_found_committed() {
    let records = records(seed("a late commit"), 20);
    let rig = Rig::start(|config| config).await;
    let client = rig.client().await;
    let mut journal = Journal::default();
    rig.proxy.on_next(Fault::HOLD_COMMIT);
    journal.submit(&rig.engine, &records).await;
    fence_waits(&client).await;
    assert!(journal.present(&client, journal.all()).await.is_empty(), "the commit is held");
    rig.proxy.release();
    journal.hear().await;
    assert!(journal.all_committed());
    assert_eq!(rig.proxy.counts().transactions, 1, "nothing is repeated");
    journal.settle(&rig).await;
}

/// The transaction ends while the fence waits for it, and its commit never arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_too_late_is_found_aborted() {
    let records = records(seed("a commit too late"), 20);
    let rig = Rig::start(|config| config).await;
    let client = rig.client().await;
    let mut journal = Journal::default();
    rig.proxy.on_next(Fault::HOLD_COMMIT);
    journal.submit(&rig.engine, &records).await;
    fence_waits(&client).await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and state = 'idle in transaction'";
    client.execute(end, &[]).await.unwrap();
    journal.hear().await;
    rig.proxy.release();
    assert!(journal.all_committed());
    assert_eq!(rig.proxy.counts().transactions, 2, "it is repeated");
    journal.settle(&rig).await;
}

/// Once the fence has answered "aborted", the transaction in question can never commit: its own row is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_found_aborted_can_never_commit() {
    let records = records(seed("a transaction behind the fence"), 20);
    let rig = Rig::start(|config| config).await;
    let client = rig.client().await;
    let mut journal = Journal::default();
    rig.proxy.on_next(Fault::CUT_BEFORE_COMMIT);
    let outcome = journal.tell(&rig.engine, &records).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
    let fenced: Vec<Uuid> = client
        .query("select attempt from graphsink_attempts where fenced", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(fenced.len(), 1);
    // The first statement of the lost transaction.
    let insert = "insert into graphsink_attempts (attempt) values ($1)";
    let error = client.execute(insert, &[&fenced[0]]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    journal.settle(&rig).await;
}

/// The messages of a transaction are held, from its first write or from a place in its middle, until another
/// transaction has long committed the unit. Their late arrival changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_arrives_after_its_repetition_changes_nothing() {
    let seed = seed("held transactions");
    // In the last round far enough to hold locks that the repetition waits for.
    let held = [0, 5, 20, 30].map(async |message| {
        let rig = Rig::start(|config| config).await;
        let mut journal = Journal::default();
        rig.proxy.on_next(Fault::at(At::Request(message), Action::Hold));
        let outcome = journal.tell(&rig.engine, &records(seed, 20)).await;
        assert!(outcome.committed().is_some(), "held at {message}: {outcome:?}");
        assert_eq!(rig.proxy.counts().faults["request: hold"], 1);
        rig.proxy.release();
        journal.settle(&rig).await;
    });
    futures::future::join_all(held).await;
}

/// The fence's own session is lost at every step, also at its commit, whose answer is then unknown as well. It asks
/// again until it has an answer, and the answer is true.
#[tokio::test(flavor = "multi_thread")]
async fn the_fence_gives_true_answers_despite_faults_of_its_own() {
    let seed = seed("faults of the fence");
    let of_fence = [
        Fault::at(At::Request(0), Action::Cut),
        Fault::at(At::Request(3), Action::Cut),
        Fault::at(At::Answer(3), Action::Cut),
        Fault::at(At::Request(0), Action::SecretAbort),
        Fault::at(At::Request(3), Action::Error { severity: "ERROR", code: "55P03" }),
        Fault::at(At::Request(3), Action::Error { severity: "FATAL", code: "08P01" }),
        Fault::at(At::Commit, Action::Error { severity: "ERROR", code: "40001" }),
        Fault::CUT_BEFORE_COMMIT,
        Fault::CUT_AFTER_COMMIT,
        Fault::CUT_AFTER_ANSWER,
        Fault::SWALLOW_ANSWER,
    ];
    let one_side = async |lost: Fault, repeated: usize| {
        let records = records(seed, 10 * of_fence.len());
        // A question whose answer is lost is given up after this and twice 5 s; one whose answer arrives is not,
        // however busy the machine is.
        let rig = Rig::start(|config| config.connect_timeout(std::time::Duration::from_secs(5))).await;
        let mut journal = Journal::default();
        for (round, fault) in of_fence.into_iter().enumerate() {
            let before = rig.proxy.counts();
            rig.proxy.on_next(lost);
            // The question fails twice in a row, and then succeeds.
            rig.proxy.plan_fences([Some(fault), Some(Fault::CUT_AFTER_COMMIT)]);
            let outcome = journal.tell(&rig.engine, &records[round * 10..][..10]).await;
            assert!(outcome.committed().is_some(), "{lost:?}, {fault:?}: {outcome:?}");
            let after = rig.proxy.counts();
            assert_eq!(after.transactions - before.transactions, 1 + repeated, "{lost:?}, {fault:?}");
            assert_eq!(after.fences - before.fences, 3, "{lost:?}, {fault:?}");
        }
        journal.settle(&rig).await;
    };
    tokio::join!(one_side(Fault::CUT_BEFORE_COMMIT, 1), one_side(Fault::CUT_AFTER_COMMIT, 0));
}
