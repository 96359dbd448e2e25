//! Commits whose answer is lost or misleading.

use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Config, Migrations, UnavailableCause};
use tokio_postgres::Client;

use super::{Journal, Rig, records, until};
use crate::generate::{self, Space};
use crate::model::Record;
use crate::proxy::{Action, At, Fault};
use crate::support::{as_of, seed, within};

/// The server process of the session that waits for a standby in its commit.
async fn waiting_for_standby(client: &Client) -> i32 {
    let query = "select pid from pg_stat_activity where wait_event = 'SyncRep'";
    let mut pid = None;
    until("a commit waits for a standby", async || {
        pid = client.query_opt(query, &[]).await.unwrap().map(|row| row.get(0));
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

/// The server has committed and waits for a standby that does not exist when its session is ended, its wait is
/// cancelled, or the engine times out: in all three cases the row exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_found_committed() {
    let records = records(seed("waiting for a standby"), 30);
    let server = EmbeddedServer::builder()
        .setting("synchronous_standby_names", "absent")
        .setting("synchronous_commit", "local")
        .start()
        .await
        .unwrap();
    let url = server.url("postgres");
    Migrations::all().run(&Config::builder(&url).build().unwrap()).await.unwrap();
    let patient = Rig::at(url.clone(), |config| config.statement_timeout(Duration::from_secs(40))).await;
    let client = patient.client().await;
    // Only transactions of units wait; the fence's do not.
    client
        .batch_execute(
            "create function wait_for_standby() returns trigger language plpgsql as $$
             begin
                 perform set_config('synchronous_commit', 'on', true);
                 return new;
             end $$;
             create trigger wait_for_standby before insert on entities for each row
                 when (new.name like 'unit %') execute function wait_for_standby()",
        )
        .await
        .unwrap();

    let mut journal = Journal::default();
    for (function, fences) in [("pg_terminate_backend", 1), ("pg_cancel_backend", 1)] {
        journal.submit(&patient.engine, &records[journal.entries.len() * 10..][..10]).await;
        let session = waiting_for_standby(&client).await;
        client.execute(&format!("select {function}($1)"), &[&session]).await.unwrap();
        journal.hear().await;
        assert!(journal.all_committed());
        // A wait that is cancelled ends with an ordinary answer.
        assert_eq!(patient.proxy.counts().fences, fences, "{function}");
    }
    journal.settle(&patient).await;

    let hasty = Rig::at(url, |config| config).await;
    journal.submit(&hasty.engine, &records[20..]).await;
    let session = waiting_for_standby(&client).await;
    // The fence waits for the session, which still counts as active.
    until("the fence waits", async || hasty.proxy.counts().fences > 0).await;
    client.execute("select pg_cancel_backend($1)", &[&session]).await.unwrap();
    journal.hear().await;
    assert!(journal.all_committed());
    journal.check_outcomes(&client, journal.all()).await;
    assert_eq!(hasty.engine.stats().failed_attempts, 0, "nothing was repeated");
}

/// The server ends a session in the middle of its commit, before the commit took place.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_session_ended_before_it_is_repeated() {
    let records = records(seed("a session ended at its commit"), 20);
    let rig = Rig::start(|config| config).await;
    let client = rig.client().await;
    // A sequence keeps its value, also when the transaction is rolled back.
    client
        .batch_execute(
            "create sequence commits;
             create function end_first_session() returns trigger language plpgsql as $$
             begin
                 if nextval('commits') = 1 then
                     perform pg_terminate_backend(pg_backend_pid());
                     perform pg_sleep(10);
                 end if;
                 return null;
             end $$;
             create constraint trigger end_first_session after insert on entities deferrable initially deferred
                 for each row when (new.name like 'unit %') execute function end_first_session()",
        )
        .await
        .unwrap();
    let mut journal = Journal::default();
    let outcome = journal.tell(&rig.engine, &records).await;
    assert!(outcome.committed().is_some(), "{outcome:?}");
    let counts = rig.proxy.counts();
    assert_eq!((counts.transactions, counts.fences), (2, 1), "{counts:?}");
    journal.settle(&rig).await;
}

/// The commit is lost, and the server cannot be asked before the deadline. In both cases the engine reports that it
/// does not know, and the same unit may be submitted again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_fate_cannot_be_asked_for_is_unknown() {
    let records = records(seed("unknown until the deadline"), 60);
    let rig = Rig::start(|config| config.in_flight_commits(1).outcome_deadline(Duration::from_secs(1))).await;
    let client = rig.client().await;
    let mut journal = Journal::default();
    for (round, (fault, took_place)) in
        [(Fault::CUT_BEFORE_COMMIT, false), (Fault::CUT_AFTER_COMMIT, true), (Fault::CUT_AFTER_ANSWER, true)]
            .into_iter()
            .enumerate()
    {
        let own = &records[round * 20..][..20];
        // The pool has one session, and gets no other.
        assert!(journal.tell(&rig.engine, &own[..5]).await.committed().is_some());
        rig.proxy.refuse(true);
        rig.proxy.on_next(fault);
        let lost = journal.submit(&rig.engine, &own[5..15]).await;
        within(rig.proxy.faults_happened(round + 1)).await;
        let behind = journal.submit(&rig.engine, &own[15..]).await;
        journal.hear().await;

        let unavailable = journal.entries[lost].unavailable().expect("the fence cannot be asked");
        assert!(unavailable.commit_under_way, "{fault:?}: {unavailable}");
        assert_eq!(unavailable.attempts, 1, "{fault:?}: {unavailable}");
        assert!(matches!(unavailable.cause, UnavailableCause::Database(_)), "{fault:?}: {unavailable}");
        // A unit whose commit was never sent is certainly not written.
        let unavailable = journal.entries[behind].unavailable().expect("no connection");
        assert!(!unavailable.commit_under_way, "{fault:?}: {unavailable}");
        let present = journal.check_outcomes(&client, journal.all()).await;
        assert_eq!(present.contains(&lost), took_place, "{fault:?}");
        assert!(!present.contains(&behind), "{fault:?}");

        rig.proxy.refuse(false);
        for number in [lost, behind] {
            // The first attempt may find the circuit still open.
            until("the server is reached again", async || {
                journal.submit_again(&rig.engine, number).await;
                journal.hear().await;
                journal.entries[number].unavailable().is_none()
            })
            .await;
        }
        assert!(journal.all_committed());
    }
    journal.settle(&rig).await;
}

/// tokio-postgres reports success if the server answers `commit` with `ROLLBACK`. The engine must notice the failure
/// before, for each statement that may fail, whether or not its own answer shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_is_noticed_at_every_statement_and_never_committed() {
    /// More messages than a transaction of this test has.
    const MESSAGES: usize = 70;
    let seed = seed("statements that fail");
    let rig = Rig::start(|config| config.in_flight_commits(16).max_batch_rows(1)).await;
    let space = Space { restaurants: 400, dishes: 50, attributes: 40, sources: 4_000, threads: 50, as_of: as_of() };
    let records = generate::sample(seed, space, 20 * MESSAGES + 160);
    let (known, records) = records.split_at(160);
    let mut journal = Journal::default();
    // Existing rows, so that there are rows to lock, to read and to update.
    assert!(journal.tell(&rig.engine, known).await.committed().is_some());
    // Only entities, whose statements are the last ones of such a transaction. About one record in six is one.
    let entities: Vec<_> = records.iter().filter(|record| matches!(record, Record::Entity(_))).collect();
    for message in 0..MESSAGES {
        let mixed = [&known[message * 2..][..2], &records[message * 6..][..4]].concat();
        let entities: Vec<_> = entities[message..][..3].iter().map(|record| (*record).clone()).collect();
        let forged = Action::Error { severity: "ERROR", code: "25P02" };
        for (own, action) in [(&mixed, Action::SecretAbort), (&entities, Action::SecretAbort), (&mixed, forged)] {
            rig.proxy.on_next(Fault::at(At::Request(message), action));
            journal.submit(&rig.engine, own).await;
        }
    }
    journal.hear().await;
    assert!(journal.all_committed());
    let counts = rig.proxy.counts();
    println!("{counts:?}");
    // Faults that were missed lie behind the last statement of every transaction.
    assert_eq!(counts.done(), 3 * MESSAGES);
    let aborts = counts.faults["request: secret abort"];
    assert!(aborts >= 30, "only {aborts} statements were found to fail");
    assert!(counts.faults["request: 25P02"] >= 20, "{counts:?}");
    let failed = rig.engine.stats().failed_attempts as usize;
    assert!(failed >= aborts, "{failed} transactions failed");
    journal.settle(&rig).await;
}

/// Answers to a commit that do not tell its fate: errors of a pooler, and errors that say so.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_place_of_a_commits_answer_is_believed_only_where_it_proves_a_rollback() {
    let records = records(seed("errors at commit"), 200);
    let mut records = records.chunks(10);
    let rig = Rig::start(|config| config).await;
    let mut journal = Journal::default();
    // The server rolls back and says so, or a session ends before its commit took place.
    for (severity, code, fences) in [
        ("ERROR", "40001", 0),
        ("ERROR", "40P01", 0),
        ("ERROR", "40003", 1),
        ("ERROR", "08007", 1),
        ("FATAL", "57P01", 1),
        ("FATAL", "08P01", 1),
        ("PANIC", "XX000", 1),
    ] {
        let before = rig.proxy.counts();
        rig.proxy.on_next(Fault::at(At::Commit, Action::Error { severity, code }));
        let outcome = journal.tell(&rig.engine, records.next().unwrap()).await;
        assert!(outcome.committed().is_some(), "{severity} {code}: {outcome:?}");
        let after = rig.proxy.counts();
        assert_eq!(after.transactions - before.transactions, 2, "{severity} {code}: it had to be repeated");
        assert_eq!(after.fences - before.fences, fences, "{severity} {code}");
    }
    // The commit took place, and the connection ends with an error nevertheless.
    for (severity, code) in [("FATAL", "57P01"), ("FATAL", "08P01"), ("PANIC", "XX000")] {
        let before = rig.proxy.counts();
        rig.proxy.on_next(Fault::at(At::CommitAnswer, Action::Error { severity, code }));
        let outcome = journal.tell(&rig.engine, records.next().unwrap()).await;
        assert!(outcome.committed().is_some(), "{severity} {code}: {outcome:?}");
        let after = rig.proxy.counts();
        assert_eq!(after.transactions - before.transactions, 1, "{severity} {code}: nothing had to be repeated");
        assert_eq!(after.fences - before.fences, 1, "{severity} {code}");
    }
    journal.settle(&rig).await;
}
