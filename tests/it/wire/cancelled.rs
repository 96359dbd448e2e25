//! Futures that are dropped at every await, by callers and by the engine's own end.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FutureExt;
use graphsink::{Engine, Outcome, Receipt, SubmitError, UnitOfWork};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Journal, Rig, records, until};
use crate::model::{EntitySpec, Record, key};
use crate::proxy::{Action, At, Fault};
use crate::support::{seed, within};

const ROWS_MAX: usize = 200;
const BYTES_MAX: usize = 100_000;

/// An engine with little room and long timeouts.
async fn small_rig() -> Rig {
    Rig::start(|config| {
        config
            .max_unit_rows(ROWS_MAX)
            .max_rows_in_flight(ROWS_MAX)
            .max_bytes_in_flight(BYTES_MAX)
            .statement_timeout(Duration::from_secs(40))
    })
    .await
}

fn dish(name: &str, aliases: Vec<String>) -> Record {
    let key = key(graphsink::EntityType::DishOrCategory, name);
    Record::Entity(EntitySpec { key, by_id: false, aliases, attributes: Vec::new(), place: None })
}

/// With its marker the unit takes up all room for rows.
fn all_rows() -> Vec<Record> {
    (1..ROWS_MAX).map(|number| dish(&format!("dish {number}"), Vec::new())).collect()
}

/// The unit takes up all room for bytes, and few rows.
fn all_bytes() -> Vec<Record> {
    let alias = |number| format!("{number:0>200}");
    let aliases = |first| (0..200).map(|number| alias(first + number)).collect();
    (0..3).map(|number| dish(&format!("large dish {number}"), aliases(200 * number))).collect()
}

impl Journal {
    /// Submits a unit without waiting for room, and leaves it in its commit until the proxy releases it.
    async fn occupy(&mut self, rig: &Rig, records: &[Record]) {
        let happened = rig.proxy.counts().done();
        rig.proxy.on_next(Fault::HOLD_COMMIT);
        let number = self.note(records);
        self.entries[number].waiting = Some(rig.engine.try_submit(self.entries[number].unit()).unwrap());
        within(rig.proxy.faults_happened(happened + 1)).await;
    }

    /// Checks that all room is free: a unit that needs all of it is accepted at once.
    async fn assert_room(&mut self, rig: &Rig) {
        for records in [all_rows(), all_bytes()] {
            within(rig.engine.flush()).await;
            let number = self.note(&records);
            self.entries[number].waiting = Some(rig.engine.try_submit(self.entries[number].unit()).unwrap());
            self.hear().await;
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    future.poll_unpin(&mut Context::from_waker(futures::task::noop_waker_ref()))
}

/// A submission is dropped before its first poll, while it waits for rows, while it holds rows and waits for bytes, and
/// after it was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_submission_dropped_at_any_point_is_whole_or_absent() {
    let seed = seed("dropped submissions");
    let rig = small_rig().await;
    let mut journal = Journal::default();
    for polls in 0..=3 {
        journal.occupy(&rig, &all_rows()).await;
        let number = journal.note(&records(seed + polls, 4));
        let unit = journal.entries[number].unit();
        let engine = rig.engine.clone();
        let mut submission = Box::pin(engine.submit(unit));
        if polls >= 1 {
            assert!(poll(&mut submission).is_pending(), "there is no room for rows");
        }
        rig.proxy.release();
        journal.hear().await;
        // The waiting submission holds its rows now; the remaining ones suffice for this unit.
        journal.occupy(&rig, &all_bytes()).await;
        if polls >= 2 {
            assert!(poll(&mut submission).is_pending(), "there is no room for bytes");
        }
        rig.proxy.release();
        journal.hear().await;
        if polls >= 3 {
            let Poll::Ready(Ok(receipt)) = poll(&mut submission) else { panic!("there is room") };
            drop(receipt);
            journal.entries[number].unheard += 1;
        }
        drop(submission);
        journal.assert_room(&rig).await;
    }
    journal.settle(&rig).await;
}

/// Receipts are dropped at once, during the unit's commit, after it, and after a poll at each of these times. The unit
/// is committed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_dropped_at_any_point_changes_nothing() {
    let seed = seed("dropped receipts");
    let rig = small_rig().await;
    let mut journal = Journal::default();
    for drop_at in 0..4 {
        for look in [false, true] {
            let happened = rig.proxy.counts().done();
            rig.proxy.on_next(Fault::HOLD_COMMIT);
            let number = journal.note(&records(seed + drop_at, 4));
            let receipt = within(rig.engine.submit(journal.entries[number].unit())).await.unwrap();
            journal.entries[number].unheard += 1;
            let mut receipt = Some(receipt);
            let mut step = |now: u64| {
                if look && let Some(receipt) = &mut receipt {
                    assert!(poll(receipt).is_pending(), "its commit is held");
                }
                if now == drop_at {
                    receipt = None;
                }
            };
            step(0);
            within(rig.proxy.faults_happened(happened + 1)).await;
            step(1);
            step(2);
            rig.proxy.release();
            within(rig.engine.flush()).await;
            drop(receipt);
        }
    }
    journal.assert_room(&rig).await;
    journal.settle(&rig).await;
}

/// The result of an attempt to submit a unit.
enum Try {
    /// The caller gave up, or found no room.
    NotAccepted,
    Unheard,
    Told(Outcome),
}

/// Many callers give up at random moments, with submissions and with receipts, over a connection that is cut now and
/// then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_leave_no_room_taken() {
    const CALLERS: usize = 12;
    let seed = seed("callers without patience");
    let rig = small_rig().await;
    let mut random = StdRng::seed_from_u64(seed);
    rig.proxy
        .plan((0..40).map(|_| random.random_bool(0.3).then(|| Fault::random_cut(&mut random))).collect::<Vec<_>>());
    let mut journal = Journal::default();
    let units: Vec<_> = records(seed, 12 * 40 * 4).chunks(4).map(|own| journal.note(own)).collect();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let own = units.iter().skip(caller).step_by(CALLERS);
            let own: Vec<_> = own.map(|number| (*number, journal.entries[*number].unit())).collect();
            let (engine, random) = (rig.engine.clone(), StdRng::seed_from_u64(seed + 1 + caller as u64));
            tokio::spawn(lose_patience(engine, own, random))
        })
        .collect();
    for caller in callers {
        for (number, tried) in within(caller).await.unwrap() {
            let entry = &mut journal.entries[number];
            match tried {
                Try::NotAccepted => {}
                Try::Unheard => entry.unheard += 1,
                Try::Told(outcome) => entry.told.push(outcome),
            }
        }
    }
    within(rig.engine.flush()).await;
    journal.assert_room(&rig).await;
    let accepted = journal.entries.iter().filter(|entry| entry.unheard + entry.told.len() > 0).count();
    println!("{accepted} of {} units were accepted", journal.entries.len());
    assert!(accepted > 20 && accepted < journal.entries.len() - 20, "none or all of the callers gave up");
    journal.settle(&rig).await;
}

async fn lose_patience(engine: Engine, units: Vec<(usize, UnitOfWork)>, mut random: StdRng) -> Vec<(usize, Try)> {
    let mut tries = Vec::new();
    for (number, unit) in units {
        let mut patience = || Duration::from_micros(random.random_range(0..6_000));
        let receipt: Result<Receipt, ()> = if number % 4 == 0 {
            engine.try_submit(unit).map_err(|error| assert!(matches!(error, SubmitError::Full(_)), "{error}"))
        } else {
            let submitted = tokio::time::timeout(patience(), engine.submit(unit)).await;
            submitted.map(Result::unwrap).map_err(drop)
        };
        let became = match receipt {
            Err(()) => Try::NotAccepted,
            Ok(receipt) if number % 3 == 0 => within(receipt).map(Try::Told).await,
            Ok(receipt) => tokio::time::timeout(patience(), receipt).await.map_or(Try::Unheard, Try::Told),
        };
        tries.push((number, became));
    }
    tries
}

/// The futures of a start, a flush and a shutdown are dropped.
#[tokio::test(flavor = "multi_thread")]
async fn futures_of_start_flush_and_shutdown_may_be_dropped() {
    let seed = seed("dropped calls");
    let rig = small_rig().await;
    let client = rig.client().await;
    let config = rig.engine.config().clone();
    for _ in 0..3 {
        let mut start = Box::pin(Engine::start(config.clone()));
        assert!(poll(&mut start).is_pending());
    }
    let others = "select count(*) from pg_stat_activity
                  where datname = current_database() and application_name = 'graphsink'";
    let mut journal = Journal::default();
    journal.occupy(&rig, &records(seed, 4)).await;
    let mut flush = Box::pin(rig.engine.flush());
    assert!(poll(&mut flush).is_pending(), "a commit is held");
    drop(flush);
    let mut shutdown = Box::pin(rig.engine.shutdown(Duration::from_secs(40)));
    assert!(poll(&mut shutdown).is_pending(), "a commit is held");
    drop(shutdown);
    assert!(matches!(rig.engine.try_submit(journal.entries[0].unit()), Err(SubmitError::Closed(_))));
    rig.proxy.release();
    let report = within(rig.engine.shutdown(Duration::from_secs(40))).await;
    assert!(report.abandoned.is_empty());
    journal.hear().await;
    assert!(journal.all_committed());
    until("all engines are gone", async || client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) == 0).await;
    journal.settle_database(&rig).await;
}

/// The engine ends while a transaction waits for any of its answers. The unit's outcome says so, and whether a commit
/// was under way; messages that still reach the server do not contradict it.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_at_any_point_of_a_transaction_reports_true_outcomes() {
    let seed = seed("ends in a transaction");
    let mut places = vec![(At::Commit, true), (At::CommitAnswer, true)];
    places.extend((0..30).step_by(3).flat_map(|number| [(At::Request(number), false), (At::Answer(number), false)]));
    let first = Rig::start(|config| config).await;
    let mut journal = Journal::default();
    for (round, (at, commit)) in places.into_iter().enumerate() {
        let rig = Rig::at(first.url.clone(), |config| config).await;
        rig.proxy.on_next(Fault::at(at, Action::Hold));
        let number = journal.submit(&rig.engine, &records(seed + round as u64, 25)).await;
        within(rig.proxy.faults_happened(1)).await;
        let report = within(rig.engine.shutdown(Duration::ZERO)).await;
        assert_eq!(report.abandoned, [1], "{at:?}");
        assert_eq!((report.stats.units_unavailable, report.stats.rows_in_flight), (1, 0), "{at:?}");
        journal.hear().await;
        let unavailable = journal.entries[number].unavailable().expect("the engine ended first");
        assert_eq!(unavailable.commit_under_way, commit, "{at:?}: {unavailable}");
        rig.proxy.release();
        journal.settle_database(&rig).await;
        // A commit that was under way took place, although the engine has ended.
        let present = journal.present(&first.client().await, number..number + 1).await;
        assert_eq!(present.contains(&number), commit, "{at:?}");
        journal.submit_again(&first.engine, number).await;
        journal.hear().await;
    }
    assert!(journal.all_committed());
    journal.settle_database(&first).await;
}
