//! Attempts groups until each has an outcome.
//!
//! One loop. A group is attempted as one transaction; then
//!
//! - it committed, or stopped by itself: the work delivers the outcomes;
//! - it failed for a reason that may pass: it is attempted again after a pause, until the deadline;
//! - it is refused: each of its halves is attempted separately; a member that fails alone is rejected. `k` bad members
//!   among `n` cost about `k * log2(n)` more transactions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::one::{Attempt, Ended};
use super::retry::{Next, after_failure};
use super::work::{Group, Members, Work};
use crate::error::StoreError;
use crate::store::fence::Fence;
use crate::store::health::{Circuit, Permit, TableShape};
use crate::store::session::Sessions;

/// Everything that an attempt needs, independent of the rows it writes.
#[derive(Debug)]
pub(in crate::store) struct Runner {
    pub(super) sessions: Arc<Sessions>,
    pub(super) circuit: Arc<Circuit>,
    pub(super) fence: Fence,
    pub(super) shape: Arc<TableShape>,
    /// Attempts that take longer are logged with the times of their statements.
    pub(super) slow: Duration,
}

/// Groups still to be attempted, in this order.
type Groups<W> = VecDeque<Group<<W as Work>::Members>>;

impl Runner {
    pub(in crate::store) fn new(
        sessions: &Arc<Sessions>,
        circuit: &Arc<Circuit>,
        shape: &Arc<TableShape>,
        slow: Duration,
    ) -> Self {
        let fence = Fence::new(sessions, circuit);
        Self { sessions: Arc::clone(sessions), circuit: Arc::clone(circuit), fence, shape: Arc::clone(shape), slow }
    }

    /// Attempts groups, in their order, until each has an outcome.
    pub(in crate::store) async fn run<W: Work>(&self, work: &mut W, mut groups: Groups<W>) {
        while let Some(group) = groups.pop_front() {
            match self.circuit.enter(work.deadline()).instrument(tracing::trace_span!("circuit_wait")).await {
                Ok(permit) => self.attempt(work, group, &mut groups, permit).await,
                Err(cause) => work.give_up(group, &cause, false),
            }
        }
    }

    async fn attempt<W: Work>(
        &self,
        work: &mut W,
        mut group: Group<W::Members>,
        groups: &mut Groups<W>,
        permit: Permit<'_>,
    ) {
        group.attempts.made += 1;
        match Attempt::begin(self, work, &group).run(permit).await {
            Ended::Committed(written) => work.settle(group, written),
            Ended::Stopped(stopped) => {
                if let Some(rest) = work.stopped(group, stopped) {
                    groups.push_front(rest);
                }
            }
            Ended::Failed(error) => failed(work, group, groups, &error).await,
            Ended::Unknown(error) => work.give_up(group, &error, true),
        }
    }
}

async fn failed<W: Work>(work: &mut W, mut group: Group<W::Members>, groups: &mut Groups<W>, error: &Arc<StoreError>) {
    let next = after_failure(&mut group.attempts, error, group.members.count());
    work.failed(error, next.reaction());
    match next {
        // The others are attempted first: a success proves that the error is this member's own fault.
        Next::Reject => {
            let postponed = work.reject(group, error);
            groups.extend(postponed.map(|group| Group { held_back: true, ..group }));
        }
        Next::Split => {
            for half in group.members.halves().into_iter().rev() {
                groups.push_front(Group::new(half));
            }
        }
        Next::RetryAfter(pause) => {
            let left = work.deadline().saturating_duration_since(Instant::now());
            if left.is_zero() {
                return work.give_up(group, error, false);
            }
            // The circuit breaker has logged systemic errors.
            if !error.is_systemic() {
                work.log_retry(&group, error, pause);
            }
            tokio::time::sleep(pause.min(left)).await;
            if group.held_back { groups.push_back(group) } else { groups.push_front(group) }
        }
    }
}
