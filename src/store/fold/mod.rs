//! Folds one entity into another, for each of a caller's merges: several in one transaction, with retries, lost
//! commits, and one outcome each.
//!
//! A folded entity is deleted. Its id and its key are kept in `entity_redirects`, and the ids of removed connections in
//! `connection_redirects`; the engine's lookups follow them, one step, in the same statement. Folds hold exclusively an
//! advisory lock that every epoch shares from its first statement on: so redirects do not change during an epoch, and
//! rows that an epoch found exist until its commit.
//!
//! The reaction to an error is the same as for epochs ([`attempt`](super::attempt)): folds are attempted again, and split
//! until the one that PostgreSQL refuses is alone.
//!
//! Decisions:
//! - **The folded entity's row is deleted.** Had it stayed, marked, its key and its lock would keep writers out without
//!   further ado. But every reader of `entities` would have to know the mark, or a search would list ghosts. Now only
//!   programs that write names need to know, which is the engine.
//! - **Connections are named by id too**, so ids of those that became one with others stay in `connection_redirects`.
//!   Connections that only get another key keep their id, mentions and figures.
//! - **Epochs and folds exclude each other** by an advisory lock, which the statement that writes the attempt's row
//!   takes before the first lookup: no message more. So what an epoch looked up holds until its commit, in every engine
//!   on the tables, and no lock order of folds can meet that of epochs. Without it an epoch that found `b`, waited for
//!   a row and then inserted a connection of `b` would have to look again after each lock. The price: folds wait for
//!   the epochs under way, and all later epochs wait for the folds. So a transaction has a hundred folds at most, and
//!   of connections that become one the one with the most mentions stays.
//! - **Lookups read redirects in the same statement**, behind the row (`union all .. limit 1`), so that hits do not
//!   pay. A row counts more than a redirect. A redirect to a deleted row counts as nothing, hence no foreign keys:
//!   tables can be truncated and rows deleted as before. Chains are turned when they would arise, so one step suffices.
//! - **Figures of connections that become one** are counted from all their mentions, at the engine's `as_of`. Of two
//!   rows of one mention the one that wins stays, with its id.
//! - **Names mean the same in every fold**: after "b into a", "b into c" folds a into c. The same fold once more, or
//!   its reverse, does nothing. In one call folds count as if carried out one after the other.
//! - **Before it takes the advisory lock a fold waits for other programs** that have deleted or renamed an entity: it
//!   locks the generation's row and gives it up again. Otherwise it would wait for them where its own deletions change
//!   that row, and every epoch would wait behind it. It must not keep the row: with it, it would wait for epochs.
//! - **Other programs** are kept out by row locks and foreign keys as far as these reach: ends of connections, and
//!   mentions. Ids that they write into arrays or columns of their own are theirs to follow through `entity_redirects`.
//!   Engines of versions that do not know the lock must be stopped first.
//! - **The sequence `graphsink_merge_generation`** is advanced as well. No version ever read it: a sequence advances
//!   before the commit, and stays advanced without one.
//! - Rights of its own (`migrations/merge_rights.sql`), because folds delete rows and change keys. Without the read
//!   indexes a fold reads whole tables to find what names a dish or an attribute.

mod sql;
mod transaction;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Span, field};
use uuid::Uuid;

use super::attempt::{Group, Runner, Slow, Work};
use super::rejection::rejection;
use super::session::Session;
use crate::batch::Planned;
use crate::config::AsOf;
use crate::error::StoreError;
use crate::label::Reaction;
use crate::merge::{EntityMerge, MergeOutcome, MergeRejection};
use crate::outcome::{Unavailable, UnavailableCause};
use crate::stats::Counters;
use crate::telemetry;
use transaction::{FoldTransaction, Folded};

/// Maximum number of folds in a transaction. All epochs wait for it, so it must be short; a single fold may still take
/// long.
const FOLDS_MAX: usize = 100;

/// Carries out merges, in their order. Gives up if none of them gets an outcome for the given time. `changed` is called
/// after each transaction that committed, or may have, before its outcomes are delivered.
pub(super) async fn merge(
    runner: &Runner,
    counters: &Counters,
    as_of: AsOf,
    merges: &[EntityMerge],
    time: Duration,
    changed: &(dyn Fn() + Sync),
) -> Vec<MergeOutcome> {
    let starts = (0..merges.len()).step_by(FOLDS_MAX);
    let groups = starts.map(|start| Group::new(start..(start + FOLDS_MAX).min(merges.len()))).collect();
    let outcomes = Vec::with_capacity(merges.len());
    let mut folding = Folding { counters, as_of, merges, outcomes, time, deadline: Instant::now() + time, changed };
    runner.run(&mut folding, groups).await;
    for outcome in &folding.outcomes {
        telemetry::engine::merges(outcome.as_str()).increment(1);
    }
    folding.outcomes
}

/// A caller's merges until each has an outcome.
struct Folding<'a> {
    counters: &'a Counters,
    as_of: AsOf,
    merges: &'a [EntityMerge],
    /// Outcomes of the merges before the first group that is still to be attempted.
    outcomes: Vec<MergeOutcome>,
    time: Duration,
    deadline: Instant,
    changed: &'a (dyn Fn() + Sync),
}

impl Work for Folding<'_> {
    type Members = Range<usize>;
    type Written = Folded;
    type Stopped = Infallible;

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn begin(&mut self, group: &Group<Range<usize>>, attempt: Uuid) -> Span {
        // In order: the meaning of a later merge depends on those before it.
        debug_assert_eq!(self.outcomes.len(), group.members.start);
        let (attempts, merges) = (group.attempts.made, group.members.len());
        tracing::debug_span!("merge", %attempt, attempts, merges, lock_wait_ms = field::Empty)
    }

    async fn write(
        &mut self,
        group: &Group<Range<usize>>,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Folded, Infallible>, StoreError> {
        let transaction = FoldTransaction { session, begin, as_of: self.as_of.now() };
        transaction.write(attempt, &self.merges[group.members.clone()]).await.map(Ok)
    }

    fn needs_commit(folded: &Folded) -> bool {
        !folded.folds.pairs().is_empty()
    }

    fn committed(&mut self, _: &Group<Range<usize>>, _: &Folded, start: Instant) {
        (self.changed)();
        telemetry::engine::merge_seconds().record(start.elapsed());
    }

    fn name_of(stopped: &Infallible) -> &'static str {
        match *stopped {}
    }

    fn log_slow(&self, group: &Group<Range<usize>>, slow: &Slow<'_>) {
        tracing::warn!(
            attempt = %slow.attempt, merges = group.members.len(), end = slow.end,
            took_ms = slow.took.as_millis() as u64, pool_wait_ms = slow.pool_wait.as_millis() as u64,
            lock_wait_ms = slow.lock_wait.as_millis() as u64, statements = %slow.statements, "slow merge"
        );
    }

    fn settle(&mut self, _: Group<Range<usize>>, folded: Folded) {
        self.outcomes.extend(outcomes(folded));
        self.deadline = Instant::now() + self.time;
    }

    fn stopped(&mut self, _: Group<Range<usize>>, stopped: Infallible) -> Option<Group<Range<usize>>> {
        match stopped {}
    }

    fn failed(&mut self, error: &StoreError, reaction: Reaction) {
        self.counters.attempt_failed(reaction, error.sqlstate());
    }

    fn reject(&mut self, _: Group<Range<usize>>, error: &StoreError) -> Option<Group<Range<usize>>> {
        let rejected = MergeRejection::Database(Box::new(rejection(error, None)));
        self.outcomes.push(MergeOutcome::Rejected(rejected));
        None
    }

    fn log_retry(&self, group: &Group<Range<usize>>, error: &StoreError, pause: Duration) {
        tracing::warn!(
            error = %error, attempt = group.attempts.made, merges = group.members.len(),
            pause_ms = pause.as_millis() as u64, "a merge failed, will try again"
        );
    }

    fn give_up(&mut self, group: Group<Range<usize>>, error: &Arc<StoreError>, commit_under_way: bool) {
        if commit_under_way {
            (self.changed)();
        }
        let merges = group.members.len();
        tracing::error!(error = %error, merges, "the deadline passed without an outcome of merges");
        let cause = UnavailableCause::Database(Arc::clone(error));
        let unavailable = Unavailable { commit_under_way, attempts: group.attempts.made, cause };
        self.outcomes.extend(std::iter::repeat_n(unavailable, merges).map(MergeOutcome::Unavailable));
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
