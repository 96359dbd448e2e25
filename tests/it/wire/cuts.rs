//! Connections that are cut again and again while many units are in flight.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Journal, Rig, records};
use crate::proxy::Fault;
use crate::support::seed;

/// The number of units in flight at once.
const WAVE: usize = 16;

/// Arms faults. Half of the transactions have none, because their pauses would take more time than they do.
fn arm(rig: &Rig, random: &mut StdRng, faults: usize, fault: impl Fn(&mut StdRng) -> Fault) {
    let mut plan = Vec::new();
    for _ in 0..faults {
        while random.random() {
            plan.push(None);
        }
        plan.push(Some(fault(random)));
    }
    rig.proxy.plan(plan);
}

/// Continues in waves until this many armed faults have happened. After each wave the outcomes of its units are
/// compared with the database.
async fn ride(rig: &Rig, journal: &mut Journal, seed: u64, faults: usize) {
    let client = rig.client().await;
    let mut waves = 0;
    while rig.proxy.counts().done() < faults {
        let records = records(seed + waves, 3 * WAVE);
        let first = journal.entries.len();
        for own in records.chunks(3) {
            journal.submit(&rig.engine, own).await;
        }
        journal.hear().await;
        journal.check_outcomes(&client, first..first + WAVE).await;
        waves += 1;
    }
    let stats = rig.engine.stats();
    println!(
        "{waves} waves, {} units, {} epochs, {} failed attempts: {:?}",
        journal.entries.len(),
        stats.epochs,
        stats.failed_attempts,
        rig.proxy.counts()
    );
}

/// 500 commits are cut off: before the server receives them, before it answers, or before its answer arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commits_that_are_cut_off_have_true_outcomes() {
    const ROUNDS: usize = 500;
    let seed = seed("commits cut off");
    let mut random = StdRng::seed_from_u64(seed);
    let faults = [Fault::CUT_BEFORE_COMMIT, Fault::CUT_AFTER_COMMIT, Fault::CUT_AFTER_ANSWER];
    let rig = Rig::start(|config| config.max_batch_rows(10).in_flight_commits(4)).await;
    arm(&rig, &mut random, ROUNDS, |random| *faults.choose(random).unwrap());
    let mut journal = Journal::default();
    ride(&rig, &mut journal, seed, ROUNDS).await;
    assert!(journal.all_committed());
    let counts = rig.proxy.counts();
    // Half of the lost commits had taken place, and were not repeated.
    assert!(counts.fences >= ROUNDS && rig.engine.stats().failed_attempts < ROUNDS as u64, "{counts:?}");
    journal.settle(&rig).await;
}

/// Connections of epochs and of fences are cut at any message, in either direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_at_any_message_lose_and_double_nothing() {
    const ROUNDS: usize = 300;
    let seed = seed("cuts at any message");
    let mut random = StdRng::seed_from_u64(seed);
    let of_fences: Vec<_> =
        (0..ROUNDS).map(|_| random.random_bool(0.3).then(|| Fault::random_cut(&mut random))).collect();
    let rig = Rig::start(|config| config.max_batch_rows(10).in_flight_commits(4)).await;
    arm(&rig, &mut random, ROUNDS, Fault::random_cut);
    rig.proxy.plan_fences(of_fences);
    let mut journal = Journal::default();
    ride(&rig, &mut journal, seed, ROUNDS).await;
    assert!(journal.all_committed());
    rig.proxy.disarm();
    journal.settle(&rig).await;
}

/// All faults together: cuts, delays, forged errors, connections that fall silent, at any message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_lose_and_double_nothing() {
    const ROUNDS: usize = 120;
    let seed = seed("faults of every kind");
    let mut random = StdRng::seed_from_u64(seed);
    let fault = |random: &mut StdRng| Fault::random(random, Duration::from_millis(30));
    let of_fences: Vec<_> = (0..10).map(|_| Some(fault(&mut random))).collect();
    let settings = |config: graphsink::ConfigBuilder| {
        config
            .max_batch_rows(10)
            .in_flight_commits(6)
            .statement_timeout(Duration::from_millis(500))
            .connect_timeout(Duration::from_millis(500))
    };
    let rig = Rig::start(settings).await;
    arm(&rig, &mut random, ROUNDS, fault);
    rig.proxy.plan_fences(of_fences);
    let mut journal = Journal::default();
    ride(&rig, &mut journal, seed, ROUNDS).await;
    assert!(journal.all_committed());
    rig.proxy.disarm();
    journal.settle(&rig).await;
}
