//! Units get their outcomes: committed, rejected, or abandoned with the engine.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use super::InFlight;
use super::submission::{Answer, Room, Submission};
use crate::label::OutcomeKind;
use crate::outcome::{CommittedUnit, Outcome, Told, Unavailable, UnavailableCause};

/// Number of units that are settled together, with one access to shared state: few enough that the first is not delayed
/// by the last.
const SETTLED_AT_ONCE: usize = 256;

/// Units whose senders were taken out, until their outcomes are sent.
#[derive(Default)]
struct Settled<'a> {
    units: Vec<(&'a Submission, OutcomeKind, Duration)>,
    answers: Vec<(oneshot::Sender<Told>, Told)>,
    rooms: Vec<Room>,
}

impl<'a> Settled<'a> {
    fn push(&mut self, submission: &'a Submission, Answer { sender, room }: Answer, outcome: Told, now: Instant) {
        self.units.push((submission, outcome.kind(), now.saturating_duration_since(submission.accepted_at)));
        self.answers.push((sender, outcome));
        self.rooms.push(room);
    }
}

/// Runs code that may be the program's: its panic is contained.
fn guarded(program: impl FnOnce()) {
    let _ = std::panic::catch_unwind(AssertUnwindSafe(program));
}

impl InFlight {
    /// Gives a unit its outcome, unless it has one; returns whether it did.
    pub(crate) fn settle(&self, submission: &Submission, outcome: Outcome) -> bool {
        self.settle_all([(submission, |_| outcome.into())]) == 1
    }

    /// Gives units the outcome "committed", unless they have an outcome.
    pub(crate) fn settle_committed<'a>(&self, units: impl Iterator<Item = (&'a Submission, CommittedUnit)>) {
        self.settle_all(units.map(|(submission, committed)| (submission, |_| Told::Committed(committed))));
    }

    /// Gives units their outcomes, unless they have one; returns how many got theirs. See [`Submission::settle`].
    fn settle_all<'a, F: FnOnce(bool) -> Told>(&self, units: impl IntoIterator<Item = (&'a Submission, F)>) -> usize {
        let mut units = units.into_iter().peekable();
        let mut settled = Settled::default();
        let mut count = 0;
        while units.peek().is_some() {
            let now = Instant::now();
            for (submission, outcome) in units.by_ref().take(SETTLED_AT_ONCE) {
                if let Some((answer, outcome)) = submission.settle(outcome) {
                    settled.push(submission, answer, outcome, now);
                }
            }
            count += self.tell(&mut settled);
        }
        count
    }

    /// Sends the outcomes of units whose senders were taken out. Wakers, recorders and subscribers are the program's
    /// code and may panic: the steps that others wait for are done all the same.
    fn tell(&self, settled: &mut Settled<'_>) -> usize {
        let units = std::mem::take(&mut settled.units);
        if units.is_empty() {
            return 0;
        }
        let ends = || units.iter().map(|(_, kind, took)| (*kind, *took));
        let taken = settled.rooms.iter().map(Room::taken);
        self.counters.settled(ends(), taken.fold((0, 0), |all, unit| (all.0 + unit.0, all.1 + unit.1)));
        // In this order: a program that receives an outcome finds capacity, and one that waits for all outcomes finds
        // them sent. Capacity is released for each unit separately: a semaphore that wakes many waiters at once wakes
        // none behind a waker that panics, and keeps the rest.
        for room in settled.rooms.drain(..) {
            guarded(|| drop(room));
        }
        for (sender, told) in settled.answers.drain(..) {
            // The receipt may have been dropped; the outcome is then not needed.
            guarded(|| drop(sender.send(told)));
        }
        for waiter in self.remove(units.iter().map(|(submission, ..)| submission.number)) {
            // The waiter may have been dropped.
            let _ = waiter.send(());
        }
        guarded(|| self.counters.report_settled(&ends()));
        guarded(|| {
            for (submission, kind, _) in &units {
                tracing::debug!(parent: &submission.span, outcome = kind.as_str(), "unit settled");
            }
        });
        let count = units.len();
        // Reuses the allocation.
        settled.units = units;
        settled.units.clear();
        count
    }

    /// Gives every unit without an outcome the outcome "unavailable".
    pub(crate) fn abandon(&self, cause: &UnavailableCause) {
        if matches!(cause, UnavailableCause::ShutDown) {
            self.abandoned_list().get_or_insert_default();
        }
        // The first cause is kept, also for a unit that is abandoned twice.
        let cause = self.given_up.get_or_init(|| cause.clone());
        let left: Vec<Arc<Submission>> = self.registry().units.values().cloned().collect();
        for submission in &left {
            self.settle_abandoned(submission, cause);
        }
    }

    /// The numbers of all units that had no outcome at a shutdown's deadline and were abandoned, ascending. It is
    /// complete after [`abandon`](Self::abandon): a unit's lock is held from sending its outcome until the unit is on
    /// the list.
    pub(crate) fn abandoned(&self) -> Vec<u64> {
        let mut abandoned = self.abandoned_list().clone().unwrap_or_default();
        abandoned.sort_unstable();
        abandoned
    }

    fn abandoned_list(&self) -> MutexGuard<'_, Option<Vec<u64>>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Abandons one unit whose transaction learned that some of its units were abandoned: the others are about to be,
    /// for the same cause.
    pub(crate) fn abandon_too(&self, submission: &Submission) {
        self.settle_abandoned(submission, self.given_up.get().unwrap_or(&UnavailableCause::EngineFailed));
    }

    fn settle_abandoned(&self, submission: &Submission, cause: &UnavailableCause) {
        let outcome = |commit_under_way| {
            if let Some(abandoned) = self.abandoned_list().as_mut() {
                abandoned.push(submission.number);
            }
            let attempts = submission.attempts.load(Ordering::Relaxed);
            Outcome::Unavailable(Unavailable { commit_under_way, attempts, cause: cause.clone() }).into()
        };
        self.settle_all([(submission, outcome)]);
    }
}
