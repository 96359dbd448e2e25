//! One accepted unit and its stage.

use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::channel::oneshot;
use tokio::sync::OwnedSemaphorePermit;

use crate::outcome::Told;
use crate::unit::SharedUnit;

/// The number of an epoch.
pub(crate) type EpochId = u64;

/// An accepted unit.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) number: u64,
    /// Where it is stored; `None` before the supervisor has taken it.
    unit: Mutex<Option<SharedUnit>>,
    pub(crate) accepted_at: Instant,
    /// It has `epoch` and `attempt` once they are known.
    pub(crate) span: tracing::Span,
    /// Number of transactions that attempted to commit it.
    pub(crate) attempts: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Pending {
        stage: Stage,
        answer: Answer,
    },
    /// It has its outcome. A commit that was under way then may still get an answer.
    Settled {
        commit_under_way: bool,
    },
}

/// The stage of a unit without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Held, or on its way to the supervisor.
    Unrouted,
    /// In an epoch that no transaction has claimed.
    Routed(EpochId),
    /// In the transaction of an epoch. A commit is under way from just before it is sent until it is known to have failed.
    Claimed { epoch: EpochId, commit_under_way: bool },
}

/// The receiver of the outcome, and the capacity that it releases.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sender: oneshot::Sender<Told>,
    pub(super) room: Room,
}

/// Capacity that a unit occupies until it is settled.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) rows: OwnedSemaphorePermit,
    pub(crate) bytes: OwnedSemaphorePermit,
}

impl Room {
    /// Rows and bytes.
    pub(super) fn taken(&self) -> (usize, usize) {
        (self.rows.num_permits(), self.bytes.num_permits())
    }
}

impl Submission {
    pub(super) fn new(number: u64, span: tracing::Span, answer: Answer) -> Self {
        let state = Mutex::new(State::Pending { stage: Stage::Unrouted, answer });
        let (accepted_at, attempts) = (Instant::now(), AtomicU32::new(0));
        Self { number, unit: Mutex::default(), accepted_at, span, attempts, state }
    }

    fn store(&self) -> MutexGuard<'_, Option<SharedUnit>> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit, at the place where it is now.
    ///
    /// # Panics
    /// Panics before the supervisor has taken it.
    pub(crate) fn unit(&self) -> SharedUnit {
        self.store().clone().expect("taken by the supervisor before it is used")
    }

    /// Notes where the unit is stored from now on: beside others on their way, then beside others of its epoch. Returns
    /// where it was.
    pub(super) fn stored(&self, unit: SharedUnit) -> Option<SharedUnit> {
        self.store().replace(unit)
    }

    /// Whether it is on its way to the supervisor, and not yet taken.
    pub(crate) fn is_arriving(&self) -> bool {
        self.store().is_none()
    }

    /// Every change below leaves the state consistent at every step, so a poisoned lock can be used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it waits for an epoch.
    pub(crate) fn is_unrouted(&self) -> bool {
        matches!(&*self.state(), State::Pending { stage: Stage::Unrouted, .. })
    }

    /// Whether a commit of it was sent and is not known to have failed.
    pub(crate) fn is_commit_under_way(&self) -> bool {
        self.state().is_commit_under_way()
    }

    /// The epoch that it is in.
    #[cfg(test)]
    pub(crate) fn epoch(&self) -> Option<EpochId> {
        match &*self.state() {
            State::Pending { stage, .. } => stage.epoch(),
            State::Settled { .. } => None,
        }
    }

    /// Puts it into an epoch; false if it is in one, or settled.
    pub(crate) fn route(&self, epoch: EpochId) -> bool {
        self.change(Stage::Unrouted, Stage::Routed(epoch))
    }

    /// Takes it out of its epoch, if it is in one, and returns its former stage; `None` if it is claimed or settled.
    pub(super) fn take_back(&self) -> Option<Stage> {
        match &mut *self.state() {
            State::Pending { stage: stage @ (Stage::Unrouted | Stage::Routed(_)), .. } => {
                Some(std::mem::replace(stage, Stage::Unrouted))
            }
            State::Pending { stage: Stage::Claimed { .. }, .. } | State::Settled { .. } => None,
        }
    }

    /// Claims it for the transaction of an epoch; false if it is not in that epoch, or claimed, or settled.
    pub(super) fn claim(&self, epoch: EpochId) -> bool {
        self.change(Stage::Routed(epoch), Stage::Claimed { epoch, commit_under_way: false })
    }

    /// Undoes [`claim`](Self::claim).
    pub(super) fn unclaim(&self, epoch: EpochId) {
        self.change(Stage::Claimed { epoch, commit_under_way: false }, Stage::Routed(epoch));
    }

    /// Changes the stage; returns false if it is not at `from`.
    fn change(&self, from: Stage, to: Stage) -> bool {
        match &mut *self.state() {
            State::Pending { stage, .. } if *stage == from => {
                *stage = to;
                true
            }
            State::Pending { .. } | State::Settled { .. } => false,
        }
    }

    /// Notes that a commit of it is about to be sent; returns false if it is settled and must not be committed any
    /// more.
    pub(super) fn begin_commit(&self) -> bool {
        match &mut *self.state() {
            State::Pending { stage: Stage::Claimed { commit_under_way, .. }, .. } => {
                *commit_under_way = true;
                true
            }
            State::Pending { .. } | State::Settled { .. } => false,
        }
    }

    /// Notes that the commit did not happen.
    pub(crate) fn commit_failed(&self) {
        match &mut *self.state() {
            State::Pending { stage: Stage::Claimed { commit_under_way, .. }, .. }
            | State::Settled { commit_under_way } => *commit_under_way = false,
            State::Pending { stage: Stage::Unrouted | Stage::Routed(_), .. } => {}
        }
    }

    /// Takes the sender out; `None` if that was done before. `outcome` is computed under the lock, from whether a
    /// commit is under way.
    pub(super) fn settle(&self, outcome: impl FnOnce(bool) -> Told) -> Option<(Answer, Told)> {
        let mut state = self.state();
        let commit_under_way = state.is_commit_under_way();
        match std::mem::replace(&mut *state, State::Settled { commit_under_way }) {
            State::Pending { answer, .. } => Some((answer, outcome(commit_under_way))),
            // As it was.
            State::Settled { .. } => None,
        }
    }
}

impl Stage {
    pub(super) const fn epoch(self) -> Option<EpochId> {
        match self {
            Self::Unrouted => None,
            Self::Routed(epoch) | Self::Claimed { epoch, .. } => Some(epoch),
        }
    }
}

impl State {
    const fn is_commit_under_way(&self) -> bool {
        match self {
            Self::Pending { stage: Stage::Claimed { commit_under_way, .. }, .. }
            | Self::Settled { commit_under_way } => *commit_under_way,
            Self::Pending { stage: Stage::Unrouted | Stage::Routed(_), .. } => false,
        }
    }
}
