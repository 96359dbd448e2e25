//! The registry of units that were accepted and have no outcome yet.
//!
//! It is outside all actors, so that a dying actor cannot lose a unit. [`settling`] delivers outcomes. [`Submission`] keeps each unit's stage:
//! accepted, routed to an epoch (perhaps taken back when an actor died, and routed to another), claimed by the
//! transaction that commits that epoch, settled.
//!
//! Invariants:
//! - A unit is settled exactly once: the sender of its outcome is part of its state, and is taken out under the state's
//!   lock.
//! - A unit is claimed only by the epoch that it is in: routing, taking back and claiming are changes of one state. An
//!   epoch is claimed as a whole or not at all: claiming and taking back, which examine many units, exclude each other
//!   by the registry's lock.
//! - Capacity is released when a unit is settled, never earlier.
//!
//! Locks are taken in this order: `closed`, the registry, one unit's state, `abandoned`. Only the first is held while
//! the program's code runs: recorders of metrics, subscribers to spans, wakers. No other lock is taken under those of the
//! arrivals and of a unit's store.

mod arrivals;
mod settling;
mod submission;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures::channel::oneshot;
use tracing::field::Empty;

use crate::outcome::{Told, UnavailableCause};
use crate::stats::Counters;
use crate::unit::{PreparedUnits, SharedUnit, UnitOfWork};

use arrivals::Arrivals;
use submission::Answer;
pub(crate) use submission::{EpochId, Room, Submission};

/// Whether units are accepted, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    Open,
    /// No more are accepted; accepted units are still written.
    Closed,
    /// The remaining units were abandoned because the engine was shut down.
    ShutDown,
    /// The remaining units were abandoned because the engine failed.
    Failed,
}

/// A unit was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) submission: Arc<Submission>,
    pub(crate) outcome: oneshot::Receiver<Told>,
    /// Whether the supervisor must be notified, which happens for several units together.
    pub(crate) must_tell: bool,
}

/// All units without an outcome.
#[derive(Debug)]
pub(crate) struct InFlight {
    registry: Mutex<Registry>,
    /// Accepted units on their way to the supervisor; they are in the registry, too.
    arrivals: Arrivals,
    /// The next unit's number. A unit that is being accepted has its number before it is in the registry.
    next_unit: AtomicU64,
    /// Held for reading while a unit is accepted, so that closing waits for units that are being accepted.
    closed: RwLock<bool>,
    /// The next epoch's number. Numbers are never reused, not even by the next supervisor.
    next_epoch: AtomicU64,
    /// Why the engine abandoned its units, if it did.
    given_up: OnceLock<UnavailableCause>,
    /// The numbers of units abandoned since the deadline of a shutdown; `None` before one. Locked while a unit's lock
    /// is held; no other lock is taken under it.
    abandoned: Mutex<Option<Vec<u64>>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Registry {
    units: BTreeMap<u64, Arc<Submission>>,
    /// Waiters, each until every unit below a number is settled.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl InFlight {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            registry: Mutex::default(),
            arrivals: Arrivals::default(),
            next_unit: AtomicU64::new(1),
            closed: RwLock::new(false),
            next_epoch: AtomicU64::new(1),
            given_up: OnceLock::new(),
            abandoned: Mutex::default(),
            counters,
        }
    }

    /// A poisoned lock means that a thread panicked while holding it. Every change below leaves the registry consistent
    /// at every step, so it can be used.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a valid unit; returns it if no more are accepted.
    #[allow(clippy::result_large_err)]
    pub(crate) fn accept(&self, unit: UnitOfWork, room: Room) -> Result<Accepted, UnitOfWork> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(unit);
        }
        let unit = unit.prepare();
        let (sender, outcome) = oneshot::channel();
        self.counters.accepted(room.rows.num_permits(), room.bytes.num_permits());
        let number = self.next_unit.fetch_add(1, Ordering::Relaxed);
        let span = tracing::debug_span!("unit", number, rows = unit.get().rows(), epoch = Empty, attempt = Empty);
        let submission = Arc::new(Submission::new(number, span, Answer { sender, room }));
        // First, so that it is not settled before.
        self.registry().units.insert(number, Arc::clone(&submission));
        let must_tell = self.arrivals.push(unit, Arc::clone(&submission));
        Ok(Accepted { submission, outcome, must_tell })
    }

    /// Takes all units that arrived since the last call. From now on they are among those
    /// [`unrouted`](Self::unrouted), so that the death of a supervisor loses none of them.
    pub(crate) fn take_arrivals(&self) -> Vec<Arc<Submission>> {
        self.arrivals.take()
    }

    /// Stores units side by side from now on, in memory of their own; returns them.
    pub(crate) fn gather<'a>(&self, submissions: impl Iterator<Item = &'a Submission> + Clone) -> Vec<SharedUnit> {
        let former: Vec<SharedUnit> = submissions.clone().map(Submission::unit).collect();
        let units = PreparedUnits::gather(&former);
        drop(former);
        for (submission, unit) in submissions.zip(&units) {
            let former = submission.stored(unit.clone());
            if let Some(store) = former.and_then(SharedUnit::into_store) {
                self.arrivals.recycle(store);
            }
        }
        units
    }

    /// Sets whether the supervisor awaits each unit, because a lane is free. Returns true if it must notify itself of units
    /// that have arrived already.
    pub(crate) fn await_arrivals(&self, are_awaited: bool) -> bool {
        self.arrivals.set_awaited(are_awaited)
    }

    /// Accepts no more units.
    pub(crate) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether units are accepted.
    pub(crate) fn lifecycle(&self) -> Lifecycle {
        match self.given_up.get() {
            Some(UnavailableCause::ShutDown) => Lifecycle::ShutDown,
            Some(_) => Lifecycle::Failed,
            None if *self.closed.read().unwrap_or_else(PoisonError::into_inner) => Lifecycle::Closed,
            None => Lifecycle::Open,
        }
    }

    /// How long the oldest unit has been without an outcome; zero if there is none.
    pub(crate) fn oldest(&self) -> Duration {
        let oldest = self.registry().units.first_key_value().map(|(_, unit)| unit.accepted_at.elapsed());
        oldest.unwrap_or_default()
    }

    /// A new epoch number.
    pub(crate) fn new_epoch(&self) -> EpochId {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that the next epoch will have, or a later one.
    pub(crate) fn next_epoch(&self) -> EpochId {
        self.next_epoch.load(Ordering::Relaxed)
    }

    /// Claims all units of an epoch for its transaction; returns false, and claims nothing, if one of them was routed
    /// elsewhere or is settled.
    pub(crate) fn claim(&self, epoch: EpochId, submissions: &[Arc<Submission>]) -> bool {
        // `take_back` must not miss units that are unclaimed below.
        let _registry = self.registry();
        let claimed = submissions.iter().take_while(|submission| submission.claim(epoch)).count();
        let all = claimed == submissions.len();
        if !all {
            submissions[..claimed].iter().for_each(|submission| submission.unclaim(epoch));
        }
        all
    }

    /// Takes the units that no transaction has claimed out of their epochs, which then cannot claim them any more:
    /// these units must be routed again when an actor died. Returns them oldest first, each with its former epoch.
    pub(crate) fn take_back(&self) -> Vec<(Option<EpochId>, Arc<Submission>)> {
        let registry = self.registry();
        let taken = registry.units.values().filter(|unit| !unit.is_arriving());
        taken.filter_map(|unit| Some((unit.take_back()?.epoch(), Arc::clone(unit)))).collect()
    }

    #[cfg(test)]
    pub(crate) fn without_outcome(&self) -> Vec<Arc<Submission>> {
        self.registry().units.values().cloned().collect()
    }

    /// Units without an epoch that a supervisor has taken: held, or lost with a supervisor that died.
    pub(crate) fn unrouted(&self) -> Vec<Arc<Submission>> {
        self.registry().units.values().filter(|unit| !unit.is_arriving() && unit.is_unrouted()).cloned().collect()
    }

    /// Notes that a commit of these claimed units is about to be sent. Returns false, and notes nothing, if one of them
    /// already has its outcome: that unit was abandoned and must not be committed afterwards.
    pub(crate) fn begin_commit<'a>(mut submissions: impl Iterator<Item = &'a Arc<Submission>> + Clone) -> bool {
        let all = submissions.clone();
        let begun = submissions.all(|submission| submission.begin_commit());
        if !begun {
            all.for_each(|submission| submission.commit_failed());
        }
        begun
    }

    /// Removes units; returns the waiters for which they were the last.
    fn remove(&self, numbers: impl Iterator<Item = u64>) -> Vec<oneshot::Sender<()>> {
        let mut registry = self.registry();
        for number in numbers {
            registry.units.remove(&number);
        }
        let oldest = registry.units.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        if registry.waiting.iter().all(|(number, _)| *number > oldest) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut registry.waiting);
        let (done, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(number, _)| *number <= oldest);
        registry.waiting = waiting;
        done.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Resolves when every unit accepted before this call is settled.
    pub(crate) fn settled_so_far(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut registry = self.registry();
        if registry.units.is_empty() {
            // The receiver is alive in this function, so this cannot fail.
            let _ = sender.send(());
        } else {
            registry.waiting.retain(|(_, waiter)| !waiter.is_canceled());
            registry.waiting.push((self.next_unit.load(Ordering::Relaxed), sender));
        }
        receiver
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, LazyLock};

    use futures::FutureExt;
    use tokio::sync::Semaphore;
    use tracing::span::Attributes;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;
    use crate::outcome::{CommittedUnits, Outcome, Unavailable};

    fn accept(in_flight: &InFlight) -> (Arc<Submission>, oneshot::Receiver<Told>) {
        let mut unit = UnitOfWork::new();
        unit.dish("pie");
        let Accepted { submission, outcome, .. } = in_flight.accept(unit, room()).unwrap();
        in_flight.take_arrivals();
        (submission, outcome)
    }

    /// A unit that is claimed by this epoch's transaction.
    fn claimed(in_flight: &InFlight, epoch: EpochId) -> (Arc<Submission>, oneshot::Receiver<Told>) {
        let (submission, outcome) = accept(in_flight);
        assert!(submission.route(epoch) && in_flight.claim(epoch, std::slice::from_ref(&submission)));
        (submission, outcome)
    }

    pub(super) fn room() -> Room {
        static SEMAPHORE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1 << 20)));
        let permit = || Arc::clone(&SEMAPHORE).try_acquire_many_owned(1).unwrap();
        Room { rows: permit(), bytes: permit() }
    }

    fn unavailable() -> Outcome {
        let cause = UnavailableCause::ShutDown;
        Outcome::Unavailable(Unavailable { commit_under_way: false, attempts: 0, cause })
    }

    #[test]
    fn a_unit_is_claimed_by_the_epoch_that_it_was_routed_to_last() {
        let in_flight = InFlight::new(Arc::default());
        let (first, _) = accept(&in_flight);
        let (second, _) = accept(&in_flight);
        assert_eq!(in_flight.unrouted().len(), 2);
        assert!(first.route(1) && second.route(1));
        assert!(in_flight.unrouted().is_empty());
        assert!(!first.route(2), "the unit is in an epoch");
        in_flight.take_back();
        assert!(first.route(1) && second.route(2), "an actor died: routed again");
        assert_eq!((first.epoch(), second.epoch()), (Some(1), Some(2)));
        let epoch = [first, second];
        assert!(!in_flight.claim(1, &epoch), "one of the units belongs to another epoch");
        assert!(in_flight.claim(1, &epoch[..1]), "the failed claim claimed none of them");
        assert!(!in_flight.claim(1, &epoch[..1]), "once only");
        assert!(!epoch[0].route(3), "its transaction is under way");
        assert_eq!(epoch[0].epoch(), Some(1));
    }

    #[test]
    fn units_are_taken_back_from_epochs_that_did_not_claim_them() {
        let in_flight = InFlight::new(Arc::default());
        let units = [(); 3].map(|()| accept(&in_flight).0);
        assert!(units[0].route(1) && units[1].route(2));
        assert!(in_flight.claim(1, &units[..1]));
        let taken: Vec<_> = in_flight.take_back().into_iter().map(|(epoch, unit)| (epoch, unit.number)).collect();
        assert_eq!(taken, [(Some(2), units[1].number), (None, units[2].number)]);
        assert!(!in_flight.claim(2, &units[1..2]), "the unit has left that epoch");
        assert_eq!(in_flight.unrouted().len(), 2);
        assert!(units[1].route(3) && in_flight.claim(3, &units[1..2]));
        assert_eq!(in_flight.take_back().len(), 1);
    }

    #[test]
    fn a_claim_that_fails_halfway_hides_no_unit_from_take_back() {
        let in_flight = InFlight::new(Arc::default());
        let units = [(); 100].map(|()| accept(&in_flight).0);
        let (last, others) = units.split_last().unwrap();
        for _ in 0..50 {
            assert!(last.route(2) && others.iter().all(|unit| unit.route(1)));
            let (trying, taken_back) = (Barrier::new(2), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert!(!in_flight.claim(1, &units), "the last unit is in another epoch");
                    trying.wait();
                    while !taken_back.load(Ordering::Relaxed) {
                        assert!(!in_flight.claim(1, &units));
                    }
                });
                trying.wait();
                let taken = in_flight.take_back();
                taken_back.store(true, Ordering::Relaxed);
                assert_eq!(taken.len(), units.len());
            });
        }
    }

    #[test]
    fn a_unit_is_settled_once_and_returns_its_room_then() {
        let in_flight = InFlight::new(Arc::default());
        let (submission, receiver) = accept(&in_flight);
        assert_eq!(in_flight.counters.snapshot().rows_in_flight, 1);
        let mut settled = in_flight.settled_so_far();
        assert!(in_flight.settle(&submission, unavailable()));
        assert!(!in_flight.settle(&submission, unavailable()));
        assert_eq!(in_flight.counters.snapshot().units_unavailable, 1);
        assert_eq!(in_flight.counters.snapshot().rows_in_flight, 0);
        let told = receiver.now_or_never().unwrap().unwrap();
        assert!(matches!(told.into(), Outcome::Unavailable(_)));
        assert_eq!(settled.try_recv(), Ok(Some(())));
        assert!(!submission.is_unrouted() && !submission.route(1), "a unit with an outcome is not committed");
    }

    #[test]
    fn an_epoch_with_an_abandoned_unit_is_not_claimed() {
        let in_flight = InFlight::new(Arc::default());
        let units = [(); 2].map(|()| accept(&in_flight).0);
        assert!(units.iter().all(|unit| unit.route(1)));
        in_flight.settle(&units[1], unavailable());
        assert!(!in_flight.claim(1, &units));
        assert!(in_flight.claim(1, &units[..1]), "the other unit stays in the epoch");
    }

    #[test]
    fn a_flush_ends_when_the_units_accepted_before_it_are_settled() {
        let in_flight = InFlight::new(Arc::default());
        let (first, _) = accept(&in_flight);
        let mut settled = in_flight.settled_so_far();
        let (second, _) = accept(&in_flight);
        in_flight.settle(&second, unavailable());
        assert_eq!(settled.try_recv(), Ok(None), "the first is unsettled");
        in_flight.settle(&first, unavailable());
        assert_eq!(settled.try_recv(), Ok(Some(())), "the second came later");
    }

    #[test]
    fn each_flush_waits_for_its_own_units_only() {
        let in_flight = InFlight::new(Arc::default());
        assert_eq!(in_flight.settled_so_far().try_recv(), Ok(Some(())), "there is nothing to wait for");
        let (first, _) = accept(&in_flight);
        let mut of_first = in_flight.settled_so_far();
        let (second, _) = accept(&in_flight);
        let mut of_both = in_flight.settled_so_far();
        in_flight.settle(&first, unavailable());
        assert_eq!((of_first.try_recv(), of_both.try_recv()), (Ok(Some(())), Ok(None)));
        in_flight.settle(&second, unavailable());
        assert_eq!(of_both.try_recv(), Ok(Some(())));
    }

    #[test]
    fn a_flush_ends_while_a_younger_unit_is_still_unsettled() {
        let in_flight = InFlight::new(Arc::default());
        let (first, _) = accept(&in_flight);
        let mut settled = in_flight.settled_so_far();
        let (_second, _receiver) = accept(&in_flight);
        in_flight.settle(&first, unavailable());
        assert_eq!(settled.try_recv(), Ok(Some(())));
    }

    #[test]
    fn a_failed_commit_is_no_longer_under_way() {
        let in_flight = InFlight::new(Arc::default());
        let (submission, _) = claimed(&in_flight, 1);
        assert!(!submission.is_commit_under_way());
        assert!(InFlight::begin_commit([&submission].into_iter()) && submission.is_commit_under_way());
        submission.commit_failed();
        assert!(!submission.is_commit_under_way());
    }

    #[test]
    fn an_abandoned_unit_is_never_committed() {
        let in_flight = InFlight::new(Arc::default());
        let (kept, _) = claimed(&in_flight, 1);
        let (given_up, _) = claimed(&in_flight, 2);
        in_flight.settle(&given_up, unavailable());
        assert!(!InFlight::begin_commit([&kept, &given_up].into_iter()));
        assert!(!kept.is_commit_under_way(), "its commit was not sent");
        assert!(InFlight::begin_commit([&kept].into_iter()));
        in_flight.abandon(&UnavailableCause::ShutDown);
        in_flight.abandon(&UnavailableCause::ShutDown);
        assert_eq!(in_flight.abandoned(), [kept.number], "the other unit already had its outcome");
    }

    #[test]
    fn units_abandoned_together_get_the_same_cause() {
        let in_flight = InFlight::new(Arc::default());
        let (first, _) = claimed(&in_flight, 1);
        in_flight.abandon(&UnavailableCause::ShutDown);
        // In effect accepted before the abandonment, and overtaken by its transaction.
        let (second, mut outcome) = claimed(&in_flight, 2);
        assert!(!InFlight::begin_commit([&first, &second].into_iter()));
        in_flight.abandon_too(&first);
        in_flight.abandon_too(&second);
        let told = outcome.try_recv().unwrap().expect("the unit has its outcome");
        let Outcome::Unavailable(why) = told.into() else { panic!("the unit was abandoned") };
        assert!(matches!(why.cause, UnavailableCause::ShutDown) && !why.commit_under_way, "{why:?}");
    }

    /// Transactions abandon the rest of their units while the shutdown abandons units one by one. In any order, all of
    /// them are on the shutdown's list.
    #[test]
    fn units_abandoned_by_a_shutdown_are_on_its_list_in_any_order() {
        let in_flight = InFlight::new(Arc::default());
        let (first, _) = claimed(&in_flight, 1);
        in_flight.abandon(&UnavailableCause::ShutDown);
        let (second, _) = claimed(&in_flight, 2);
        let (third, _) = accept(&in_flight);
        assert!(!InFlight::begin_commit([&first, &second].into_iter()));
        in_flight.abandon_too(&second);
        in_flight.abandon_too(&first);
        in_flight.abandon(&UnavailableCause::ShutDown);
        assert_eq!(in_flight.abandoned(), [first.number, second.number, third.number]);
    }

    #[test]
    fn a_unit_abandoned_before_the_shutdown_is_not_on_its_list() {
        let in_flight = InFlight::new(Arc::default());
        let (_before, _) = accept(&in_flight);
        in_flight.abandon(&UnavailableCause::EngineFailed);
        let (at_the_deadline, _) = accept(&in_flight);
        in_flight.abandon(&UnavailableCause::ShutDown);
        assert_eq!(in_flight.abandoned(), [at_the_deadline.number]);
    }

    #[test]
    fn an_abandoned_unit_says_whether_its_commit_is_under_way() {
        let in_flight = InFlight::new(Arc::default());
        let (sent, of_sent) = claimed(&in_flight, 1);
        let (_, of_other) = claimed(&in_flight, 2);
        assert!(InFlight::begin_commit([&sent].into_iter()));
        in_flight.abandon(&UnavailableCause::ShutDown);
        let under_way = |outcome: oneshot::Receiver<Told>| match outcome.now_or_never().unwrap().unwrap().into() {
            Outcome::Unavailable(unavailable) => unavailable.commit_under_way,
            other => panic!("{other:?}"),
        };
        assert!(under_way(of_sent) && !under_way(of_other));
        assert!(sent.is_commit_under_way(), "the answer has not arrived");
        sent.commit_failed();
        assert!(!sent.is_commit_under_way());
    }

    #[test]
    fn a_subscriber_may_read_the_units_in_flight_while_a_span_opens() {
        struct Look(Arc<InFlight>);
        impl<S: tracing::Subscriber> Layer<S> for Look {
            fn on_new_span(&self, _: &Attributes<'_>, _: &tracing::Id, _: Context<'_, S>) {
                assert_eq!(self.0.oldest(), Duration::ZERO);
            }
        }
        let in_flight = Arc::new(InFlight::new(Arc::default()));
        let subscriber = tracing_subscriber::registry().with(Look(Arc::clone(&in_flight)));
        let (submission, _) = tracing::subscriber::with_default(subscriber, || accept(&in_flight));
        assert!(!submission.span.is_disabled());
    }

    #[test]
    fn a_closed_engine_accepts_no_unit_and_gives_it_back() {
        let in_flight = InFlight::new(Arc::default());
        in_flight.close();
        let mut unit = UnitOfWork::new();
        unit.dish("pie");
        assert_eq!(in_flight.accept(unit, room()).unwrap_err().rows(), 1);
    }

    /// A panicking waker of one program costs no room, and no other program its turn.
    #[test]
    fn a_panicking_waker_keeps_no_other_waiter_from_returned_room() {
        struct Counting(AtomicBool);
        impl std::task::Wake for Counting {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        struct Panicking;
        impl std::task::Wake for Panicking {
            fn wake(self: Arc<Self>) {
                panic!("a fault of the program");
            }
        }
        const UNITS: usize = 100;
        let rows = Arc::new(Semaphore::new(UNITS));
        let in_flight = InFlight::new(Arc::default());
        let submissions = [(); UNITS].map(|()| {
            let mut unit = UnitOfWork::new();
            unit.dish("pie");
            let permit = Arc::clone(&rows).try_acquire_owned().unwrap();
            in_flight.accept(unit, Room { rows: permit, bytes: room().bytes }).unwrap().submission
        });
        let wait = |waker: std::task::Waker| {
            let mut waiting = Box::pin(Arc::clone(&rows).acquire_owned());
            assert!(waiting.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            waiting
        };
        let panicking = wait(Arc::new(Panicking).into());
        let woken: Vec<_> = (0..UNITS - 20).map(|_| Arc::new(Counting(AtomicBool::new(false)))).collect();
        let waiting: Vec<_> = woken.iter().map(|waker| wait(Arc::clone(waker).into())).collect();
        in_flight.take_arrivals();
        let mut committed = CommittedUnits::with_room(UNITS, [0; 3]);
        for submission in &submissions {
            committed.add(submission.unit().get(), |_, _| {});
        }
        in_flight.settle_committed(submissions.iter().map(|submission| &**submission).zip(committed.share()));
        assert_eq!(woken.iter().filter(|woken| woken.0.load(Ordering::Relaxed)).count(), UNITS - 20);
        drop((panicking, waiting));
        assert_eq!(rows.available_permits(), UNITS);
    }
}
