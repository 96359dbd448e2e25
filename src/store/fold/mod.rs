//! Folds one entity into another, for each of a caller's merges: several in one transaction, retries, lost commits, one
//! outcome each.
//!
//! A folded entity is deleted. Its id and its key stay behind in `entity_redirects`, the ids of connections that became
//! one with others in `connection_redirects`; the engine's lookups follow them, one step, in the same statement. Folds
//! hold an advisory lock alone that every epoch shares from its first statement on: so redirects do not change while an
//! epoch is under way, and what an epoch found is there until its commit.
//!
//! What follows from an error is the same as for epochs (`commit.rs`): folds are attempted again, and split until the
//! one that PostgreSQL refuses is alone.

mod sql;
mod transaction;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Span, field};
use uuid::Uuid;

use super::attempt::{Ended, Slow, Work};
use super::circuit::Permit;
use super::commit::rejection;
use super::postgres::Store;
use super::retry::{Attempts, Next, after_failure};
use super::session::Session;
use crate::batch::Planned;
use crate::error::StoreError;
use crate::merge::{EntityMerge, MergeOutcome, MergeRejection};
use crate::outcome::{Unavailable, UnavailableCause};
use crate::telemetry;
use transaction::{FoldTransaction, Folded};

/// Folds of one transaction. All epochs wait for it, so it must be short; a single fold may still be long.
const FOLDS_MAX: usize = 100;

/// Merges that are attempted together.
struct Group {
    range: Range<usize>,
    attempts: Attempts,
}

impl Group {
    fn new(range: Range<usize>) -> Self {
        Self { range, attempts: Attempts::default() }
    }
}

impl Store {
    /// Carries merges out, in their order. Gives up when nothing came of them for so much time. `changed` is called
    /// after each transaction that committed, or may have, before its outcomes are told.
    pub(crate) async fn merge(
        &self,
        merges: &[EntityMerge],
        time: Duration,
        changed: &(dyn Fn() + Sync),
    ) -> Vec<MergeOutcome> {
        let outcomes = Folding::new(self, merges, time, changed).run().await;
        for outcome in &outcomes {
            telemetry::merged(outcome.as_str());
        }
        outcomes
    }
}

/// A caller's merges until each has an outcome.
struct Folding<'a> {
    store: &'a Store,
    merges: &'a [EntityMerge],
    /// What is still to be attempted, in this order.
    groups: VecDeque<Group>,
    /// Of the merges before the first group.
    outcomes: Vec<MergeOutcome>,
    time: Duration,
    deadline: Instant,
    changed: &'a (dyn Fn() + Sync),
}

impl<'a> Folding<'a> {
    fn new(store: &'a Store, merges: &'a [EntityMerge], time: Duration, changed: &'a (dyn Fn() + Sync)) -> Self {
        let starts = (0..merges.len()).step_by(FOLDS_MAX);
        let groups = starts.map(|start| Group::new(start..(start + FOLDS_MAX).min(merges.len()))).collect();
        let outcomes = Vec::with_capacity(merges.len());
        Self { store, merges, groups, outcomes, time, deadline: Instant::now() + time, changed }
    }

    async fn run(mut self) -> Vec<MergeOutcome> {
        while let Some(group) = self.groups.pop_front() {
            // In order: what a later merge means depends on those before it.
            debug_assert_eq!(self.outcomes.len(), group.range.start);
            match self.store.circuit.enter(self.deadline).await {
                Ok(permit) => self.attempt(group, permit).await,
                Err(cause) => self.give_up(&group, &cause, false),
            }
        }
        self.outcomes
    }

    async fn attempt(&mut self, mut group: Group, permit: Permit<'_>) {
        group.attempts.made += 1;
        let merges = &self.merges[group.range.clone()];
        let work = FoldWork { store: self.store, merges, attempts: group.attempts.made, changed: self.changed };
        match self.store.attempt(work, permit, self.deadline).await {
            Ended::Committed(folded) => {
                self.outcomes.extend(outcomes(folded));
                self.deadline = Instant::now() + self.time;
            }
            Ended::Failed(error) => self.failed(group, &error).await,
            Ended::Unknown(error) => {
                (self.changed)();
                self.give_up(&group, &error, true);
            }
        }
    }

    async fn failed(&mut self, mut group: Group, error: &Arc<StoreError>) {
        let next = after_failure(&mut group.attempts, error, group.range.len());
        telemetry::retried(error.sqlstate(), next.reaction().as_str());
        match next {
            Next::Reject => {
                let rejected = MergeRejection::Database(Box::new(rejection(error, None)));
                self.outcomes.push(MergeOutcome::Rejected(rejected));
            }
            Next::Split => {
                let middle = group.range.start + group.range.len() / 2;
                self.groups.push_front(Group::new(middle..group.range.end));
                self.groups.push_front(Group::new(group.range.start..middle));
            }
            Next::RetryAfter(pause) => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    self.give_up(&group, error, false);
                    return;
                }
                tracing::warn!(error = %error, attempt = group.attempts.made, "a merge failed, will try again");
                tokio::time::sleep(pause.min(left)).await;
                self.groups.push_front(group);
            }
        }
    }

    fn give_up(&mut self, group: &Group, error: &Arc<StoreError>, commit_under_way: bool) {
        let merges = group.range.len();
        tracing::error!(error = %error, merges, "the deadline passed without an outcome of merges");
        let cause = UnavailableCause::Database(Arc::clone(error));
        let unavailable = Unavailable { commit_under_way, attempts: group.attempts.made, cause };
        self.outcomes.extend(std::iter::repeat_n(unavailable, merges).map(MergeOutcome::Unavailable));
    }
}

/// A group of merges as what an attempt writes.
struct FoldWork<'a> {
    store: &'a Store,
    merges: &'a [EntityMerge],
    attempts: u32,
    changed: &'a (dyn Fn() + Sync),
}

impl Work for FoldWork<'_> {
    type Written = Folded;
    type Stopped = Infallible;

    fn begin(&mut self, attempt: Uuid) -> Span {
        let (attempts, merges) = (self.attempts, self.merges.len());
        tracing::debug_span!("merge", %attempt, attempts, merges, lock_wait_ms = field::Empty)
    }

    async fn write(
        &mut self,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Folded, Infallible>, StoreError> {
        let transaction = FoldTransaction { session, begin, as_of: self.store.as_of.now() };
        transaction.write(attempt, self.merges).await.map(Ok)
    }

    fn needs_commit(folded: &Folded) -> bool {
        !folded.folds.pairs().is_empty()
    }

    fn committed(&mut self, _: &Folded, start: Instant) {
        (self.changed)();
        telemetry::merges_committed(start.elapsed());
    }

    fn name_of(stopped: &Infallible) -> &'static str {
        match *stopped {}
    }

    fn log_slow(&self, slow: &Slow<'_>) {
        tracing::warn!(
            attempt = %slow.attempt, merges = self.merges.len(), end = slow.end, took_ms = slow.took.as_millis() as u64,
            pool_wait_ms = slow.pool_wait.as_millis() as u64, lock_wait_ms = slow.lock_wait.as_millis() as u64,
            statements = %slow.statements, "slow merge"
        );
    }
}

fn outcomes(Folded { folds, planned }: Folded) -> Vec<MergeOutcome> {
    let outcome = |planned| match planned {
        Planned::Fold(from) => MergeOutcome::Merged { from, into: folds.target(from) },
        Planned::Done(into) => MergeOutcome::AlreadyMerged { into: folds.target(into) },
        Planned::Rejected(rejection) => MergeOutcome::Rejected(rejection),
    };
    planned.into_iter().map(outcome).collect()
}
