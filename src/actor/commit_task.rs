//! The task that commits one epoch. It belongs to no actor, so that a dying actor cannot end it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::Recipient;
use futures::FutureExt;
use tracing::{Instrument, field};
use uuid::Uuid;

use super::message::EpochReport;
use super::shared::Shared;
use crate::batch::{Epoch, Written};
use crate::error::StoreError;
use crate::flight::{EpochId, InFlight, Submission};
use crate::label::{EpochState, Reaction};
use crate::outcome::{CommittedUnit, Outcome, Unavailable, UnavailableCause};
use crate::record::Table;
use crate::store::EpochObserver;

/// Everything that the commit of one epoch needs.
pub(super) struct CommitTask {
    epoch: EpochId,
    lane: usize,
    submissions: Vec<Arc<Submission>>,
    /// Whether a transaction was committed.
    wrote: bool,
    shared: Arc<Shared>,
    supervisor: Recipient<EpochReport>,
}

impl CommitTask {
    pub(super) fn new(
        epoch: EpochId,
        lane: usize,
        submissions: Vec<Arc<Submission>>,
        shared: &Arc<Shared>,
        supervisor: Recipient<EpochReport>,
    ) -> Self {
        Self { epoch, lane, submissions, wrote: false, shared: Arc::clone(shared), supervisor }
    }

    /// Runs on the runtime of the connections, whatever the calling thread.
    pub(super) fn spawn(self, epoch: Epoch) {
        let runtime = self.shared.runtime.clone();
        runtime.spawn(self.run(epoch));
    }

    async fn run(mut self, epoch: Epoch) {
        // The claim is made here and not in the coordinator: a claimed unit is always in a task that delivers its
        // outcome.
        if self.shared.in_flight.claim(self.epoch, &self.submissions) {
            self.commit(epoch).await;
        } else {
            tracing::debug!(epoch = self.epoch, "the epoch's units were routed elsewhere or settled meanwhile");
        }
        self.supervisor.do_send(EpochReport::Finished { epoch: self.epoch, wrote: self.wrote });
    }

    async fn commit(&mut self, epoch: Epoch) {
        let commit = AssertUnwindSafe(self.commit_in_turn(epoch)).catch_unwind().await;
        if commit.is_err() {
            // A bug in graphsink. The connection was dropped with the transaction in it; only a commit that was already
            // sent may have taken effect.
            tracing::error!(epoch = self.epoch, "the task that commits an epoch panicked");
            for submission in &self.submissions {
                let commit_under_way = submission.is_commit_under_way();
                if commit_under_way {
                    self.shared.listeners.unknown();
                }
                let cause = UnavailableCause::EngineFailed;
                let attempts = submission.attempts.load(Ordering::Relaxed);
                let outcome = Outcome::Unavailable(Unavailable { commit_under_way, attempts, cause });
                self.shared.in_flight.settle(submission, outcome);
            }
        }
    }

    async fn commit_in_turn(&mut self, epoch: Epoch) {
        let lane = Arc::clone(&self.shared.lanes[self.lane]);
        let shared = Arc::clone(&self.shared);
        let span = self.span();
        let (start, waiting) = (Instant::now(), shared.counters.epoch_is(EpochState::Waiting));
        // One commit at a time in each lane, roughly in the order of the seals.
        let lane_wait = tracing::trace_span!(parent: &span, "lane_wait");
        let _turn = lane.acquire_owned().instrument(lane_wait).await;
        shared.counters.got_lane(start.elapsed());
        drop(waiting);
        let _writing = shared.counters.epoch_is(EpochState::Writing);
        let deadline = self.deadline();
        shared.destination.commit(epoch, deadline, self).instrument(span).await;
    }

    /// The epoch's span. It and the spans of its units refer to each other: a unit's span by number, because a span
    /// that serves many units cannot be the child of each.
    fn span(&self) -> tracing::Span {
        let span = tracing::debug_span!("epoch", number = self.epoch, lane = self.lane, units = self.submissions.len());
        if !span.is_disabled() {
            for submission in &self.submissions {
                span.follows_from(submission.span.id());
                submission.span.record("epoch", self.epoch);
            }
        }
        span
    }

    /// The deadline of the unit that waits longest. An epoch whose turn comes late is still attempted once.
    fn deadline(&self) -> Instant {
        let oldest = self.submissions.iter().map(|submission| submission.accepted_at).min();
        oldest.unwrap_or_else(Instant::now) + self.shared.outcome_deadline
    }
}

impl EpochObserver for CommitTask {
    fn number(&self) -> u64 {
        self.epoch
    }

    fn attempted(&mut self, attempt: Uuid, units: &[usize]) {
        for unit in units {
            let submission = &self.submissions[*unit];
            submission.attempts.fetch_add(1, Ordering::Relaxed);
            submission.span.record("attempt", field::display(attempt));
        }
    }

    fn begin_commit(&mut self, units: &[usize]) -> bool {
        InFlight::begin_commit(units.iter().map(|unit| &self.submissions[*unit]))
    }

    fn commit_failed(&mut self, units: &[usize]) {
        for unit in units {
            self.submissions[*unit].commit_failed();
        }
    }

    fn committed(&mut self, epoch: &Epoch, written: &Written, took: Duration) {
        let received = Table::ALL.map(|table| (table, epoch.received(table)));
        let units = epoch.units().len();
        tracing::debug!(epoch = self.epoch, units, rows = written.dispositions.len(), ?took, "epoch committed");
        self.shared.counters.epoch_committed(units, received, written, took);
        let connections = &written.rows[Table::Connections as usize];
        self.shared.counters.named(epoch.slots(Table::Connections), connections);
        self.shared.listeners.committed(epoch, written);
        self.wrote = true;
    }

    fn given_up(&mut self, units: &[usize]) {
        for unit in units {
            self.shared.in_flight.abandon_too(&self.submissions[*unit]);
        }
    }

    fn failed(&mut self, error: &StoreError, reaction: Reaction) {
        self.shared.counters.attempt_failed(reaction, error.sqlstate());
        self.supervisor.do_send(EpochReport::Failing(self.epoch));
    }

    fn kept_dead_letters(&mut self, units: usize) {
        self.shared.counters.dead_letters_kept(units);
    }

    fn settled_committed(&mut self, units: &[usize], committed: &mut dyn Iterator<Item = CommittedUnit>) {
        let submissions = units.iter().map(|unit| &*self.submissions[*unit]);
        self.shared.in_flight.settle_committed(submissions.zip(committed));
    }

    fn settled(&mut self, unit: usize, mut outcome: Outcome) {
        if let Outcome::Unavailable(unavailable) = &mut outcome {
            // Counted over all groups to which the unit belonged.
            unavailable.attempts = self.submissions[unit].attempts.load(Ordering::Relaxed);
            if unavailable.commit_under_way {
                self.shared.listeners.unknown();
            }
        }
        self.shared.in_flight.settle(&self.submissions[unit], outcome);
    }
}
