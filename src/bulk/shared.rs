//! State shared by all parts of a load: units on their way, progress, and whether it continues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::BulkError;
use super::progress::Counters;
use super::spill::{SpillDirectory, SpillState};
use crate::unit::SharedUnit;

/// A unit that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) number: u64,
    pub(super) unit: SharedUnit,
    /// Whether it may still be rejected, which the supervisor determines.
    pub(super) is_contingent: bool,
    /// Released when it is sorted.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Accepted units on their way to the supervisor.
#[derive(Debug, Default)]
struct Arrivals {
    /// The number of the next unit. Under the same lock as the units, so that they are in the order of their numbers.
    next: u64,
    is_closed: bool,
    waiting: Vec<Accepted>,
}

/// Whether a load continues.
#[derive(Debug)]
enum Course {
    /// It may fail, or be aborted.
    Open,
    /// It failed; the reason, until it is returned.
    Failed(Option<BulkError>),
    /// The commit is sent: its result is the result of the load.
    Committing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) unit_rows_max: usize,
    pub(super) counters: Counters,
    /// Capacity in bytes for units on their way.
    room: Arc<Semaphore>,
    room_max: u32,
    spilled: Arc<SpillState>,
    arrivals: Mutex<Arrivals>,
    course: Mutex<Course>,
    /// Whether the load has failed.
    failed: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(unit_rows_max: usize, in_flight: usize, directory: &SpillDirectory) -> Self {
        let room_max = u32::try_from(in_flight).unwrap_or(u32::MAX).max(1);
        Self {
            unit_rows_max,
            counters: Counters::new(directory.state()),
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            spilled: directory.state(),
            arrivals: Mutex::default(),
            course: Mutex::new(Course::Open),
            failed: watch::Sender::new(false),
        }
    }

    /// A panic under one of these locks leaves the data consistent.
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for capacity; `None` if the load accepts no more. A unit larger than the whole capacity waits for all of
    /// it.
    pub(super) async fn acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_max);
        Arc::clone(&self.room).acquire_many_owned(permits).await.ok()
    }

    /// Accepts a unit. Returns its number, and whether the supervisor must be notified, which already happened if other
    /// units are waiting; `None` if the load accepts no more.
    pub(super) fn accept(&self, unit: SharedUnit, room: OwnedSemaphorePermit) -> Option<(u64, bool)> {
        let mut arrivals = self.arrivals();
        if arrivals.is_closed {
            return None;
        }
        let number = arrivals.next;
        arrivals.next += 1;
        Self::count(&self.counters.units, 1);
        arrivals.waiting.push(Accepted { number, unit, is_contingent: false, _room: room });
        Some((number, arrivals.waiting.len() == 1))
    }

    /// Adds to one of the counters.
    pub(super) fn count(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Takes all waiting units, in the order of their numbers.
    pub(super) fn take_arrivals(&self) -> Vec<Accepted> {
        std::mem::take(&mut self.arrivals().waiting)
    }

    /// Accepts no more units; returns false if that was so before.
    pub(super) fn close(&self) -> bool {
        let was_closed = std::mem::replace(&mut self.arrivals().is_closed, true);
        self.room.close();
        !was_closed
    }

    /// Ends the load, unless its commit was sent or it failed before: the first reason is the one that is returned.
    pub(super) fn fail(&self, error: BulkError) {
        let mut course = self.course();
        if !matches!(*course, Course::Open) {
            return;
        }
        tracing::debug!(%error, "a bulk load ends");
        *course = Course::Failed(Some(error));
        drop(course);
        self.close();
        // Set before the files are closed: their readers then end, which is not a reason of its own.
        self.failed.send_replace(true);
        self.spilled.close();
    }

    /// Waits until it has failed.
    pub(super) async fn failed(&self) {
        if self.failed.subscribe().wait_for(|failed| *failed).await.is_err() {
            unreachable!("the sender is here");
        }
    }

    /// Why it failed; after the first call, that it has ended.
    pub(super) fn failure(&self) -> BulkError {
        match &mut *self.course() {
            Course::Failed(error) => error.take().unwrap_or(BulkError::Ended),
            Course::Open | Course::Committing => BulkError::Ended,
        }
    }

    /// Ends the load for this reason, unless it has failed before: `seen` may then be a consequence of that failure.
    /// Returns the first reason, as [`failure`](Self::failure) does.
    pub(super) fn end(&self, seen: Option<BulkError>) -> BulkError {
        if let Some(error) = seen {
            self.fail(error);
        }
        self.failure()
    }

    /// From now on only the answer to its commit ends the load; returns false if it has already ended.
    pub(super) fn begin_commit(&self) -> bool {
        let mut course = self.course();
        let is_open = matches!(*course, Course::Open);
        if is_open {
            *course = Course::Committing;
        }
        is_open
    }
}

/// Ends the load when it is dropped: for parts that the load cannot do without, and for futures that represent the
/// load.
#[derive(Debug)]
pub(super) struct FailOnDrop {
    shared: Arc<Shared>,
    why: fn() -> BulkError,
}

impl FailOnDrop {
    /// For an actor, which is dropped by a panic, or at the end.
    pub(super) const fn died(shared: Arc<Shared>) -> Self {
        Self { shared, why: || BulkError::Panicked }
    }

    pub(super) const fn aborted(shared: Arc<Shared>) -> Self {
        Self { shared, why: || BulkError::Aborted }
    }
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        self.shared.fail((self.why)());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::bulk::SpillError;
    use crate::unit::UnitOfWork;

    fn shared() -> (tempfile::TempDir, Arc<Shared>) {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        let shared = Arc::new(Shared::new(100, 1_000, &directory));
        (parent, shared)
    }

    #[test]
    fn the_first_reason_for_a_failure_is_reported() {
        let (_parent, shared) = shared();
        assert!(shared.failed().now_or_never().is_none());
        shared.fail(BulkError::Panicked);
        shared.fail(BulkError::Aborted);
        assert!(shared.failed().now_or_never().is_some());
        assert!(matches!(shared.failure(), BulkError::Panicked));
        assert!(matches!(shared.failure(), BulkError::Ended), "the reason is reported once");
        assert!(!shared.begin_commit());
        assert!(shared.acquire(1).now_or_never().unwrap().is_none());
    }

    /// A failure closes the files. Merges then end with an error of their own, which may arrive first.
    #[test]
    fn a_consequence_of_a_failure_never_replaces_its_reason() {
        let (_parent, shared) = shared();
        shared.fail(BulkError::Panicked);
        assert!(matches!(shared.end(Some(SpillError::Ended.into())), BulkError::Panicked));
        let (_parent, shared) = self::shared();
        assert!(
            matches!(shared.end(Some(BulkError::Aborted)), BulkError::Aborted),
            "an error without an earlier reason is the reason"
        );
        assert!(shared.failed().now_or_never().is_some());
    }

    #[test]
    fn nothing_fails_a_load_whose_commit_is_sent() {
        let (_parent, shared) = shared();
        assert!(shared.begin_commit());
        drop(FailOnDrop::aborted(Arc::clone(&shared)));
        assert!(shared.failed().now_or_never().is_none());
    }

    #[test]
    fn room_is_returned_and_accepted_units_are_numbered_without_gaps() {
        let (_parent, shared) = shared();
        let room = || shared.acquire(600).now_or_never().map(Option::unwrap);
        let unit = || UnitOfWork::new().prepare().share();
        let (first, second) = (room().unwrap(), room());
        assert!(second.is_none(), "there is room for one unit");
        assert_eq!(shared.accept(unit(), first), Some((0, true)));
        let arrived = shared.take_arrivals();
        drop(arrived);
        assert_eq!(shared.accept(unit(), room().unwrap()), Some((1, true)), "the supervisor has taken the arrivals");
        let all = shared.acquire(usize::MAX).now_or_never();
        assert!(all.is_none(), "a request for more than the total waits for the total");
        shared.take_arrivals();
        assert!(shared.acquire(usize::MAX).now_or_never().is_some());
        assert!(shared.close() && !shared.close(), "a load is closed once");
    }

    #[test]
    fn a_closed_load_accepts_no_unit() {
        let (_parent, shared) = shared();
        let room = shared.acquire(1).now_or_never().unwrap().unwrap();
        shared.close();
        assert_eq!(shared.accept(UnitOfWork::new().prepare().share(), room), None);
    }
}
