//! Folds one entity into another, for each of a caller's merges: several in one transaction, retries, lost commits, one
//! outcome each.
//!
//! A folded entity is deleted. Its id and its key stay behind in `entity_redirects`, the ids of connections
//! that became one with others in `connection_redirects`; the engine's lookups follow them, one step, in the same
//! statement. Folds hold an advisory lock alone that every epoch shares from its first statement on: so redirects do not
//! change while an epoch is under way, and what an epoch found is there until its commit.
//!
//! What follows from an error is the same as for epochs (`commit.rs`): merges are tried again, asked for at the fence,
//! split until the one that PostgreSQL refuses is alone.

mod sql;
mod transaction;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::commit::{LAST_TRY, rejection};
use super::ending::CommitAnswer;
use super::fence::Fate;
use super::retry::{Next, Tries, after_failure};
use super::session::Session;
use super::{Store, StoreError, answer};
use crate::batch::Planned;
use crate::failpoint::failpoint;
use crate::merge::{EntityMerge, MergeOutcome, MergeRejection};
use crate::outcome::{Unavailable, UnavailableCause};
use crate::telemetry;
use transaction::{FoldTransaction, Folded};

/// Merges of one transaction. All epochs wait for it, so it must be short; a single merge may still be long.
const MERGES_MAX: usize = 100;

/// How one transaction ended.
enum Attempted {
    Committed(Folded),
    Failed(StoreError),
    /// Its commit was sent and not answered.
    Lost(Folded, StoreError),
}

impl Attempted {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Committed(_) => "committed",
            Self::Failed(_) => "failed",
            Self::Lost(..) => "commit not answered",
        }
    }
}

/// How one try ended, when the truth about its commit was found out.
enum Tried {
    Folded(Vec<MergeOutcome>),
    Failed(Arc<StoreError>),
    /// The deadline came before the fate of a commit was known.
    Unknown(Arc<StoreError>),
}

impl Store {
    /// Carries merges out, in their order. Gives up when nothing came of them for so much time. `changed` is called after
    /// each transaction that committed, or may have, before anybody hears of it.
    pub(crate) async fn merge(
        &self,
        merges: &[EntityMerge],
        time: Duration,
        changed: &(dyn Fn() + Sync),
    ) -> Vec<MergeOutcome> {
        let mut outcomes = Vec::with_capacity(merges.len());
        let starts = (0..merges.len()).step_by(MERGES_MAX);
        let mut groups: VecDeque<(Range<usize>, Tries)> =
            starts.map(|start| (start..(start + MERGES_MAX).min(merges.len()), Tries::default())).collect();
        let mut deadline = Instant::now() + time;
        while let Some((range, mut tries)) = groups.pop_front() {
            // In order: what a later merge means depends on those before it.
            debug_assert_eq!(outcomes.len(), range.start);
            let own = &merges[range.clone()];
            let permit = match self.circuit.enter(deadline).await {
                Ok(permit) => permit,
                Err(cause) => {
                    outcomes.extend(unavailable(own.len(), &cause, tries.attempts, false));
                    continue;
                }
            };
            tries.attempts += 1;
            match self.try_merges(own, tries.attempts, permit, deadline, changed).await {
                Tried::Folded(done) => {
                    outcomes.extend(done);
                    deadline = Instant::now() + time;
                }
                Tried::Unknown(error) => outcomes.extend(unavailable(own.len(), &error, tries.attempts, true)),
                Tried::Failed(error) => {
                    let next = after_failure(&mut tries, &error, own.len());
                    telemetry::retried(error.sqlstate(), next.reaction().as_str());
                    match next {
                        Next::Reject => {
                            let rejected = MergeRejection::Database(Box::new(rejection(&error, None)));
                            outcomes.push(MergeOutcome::Rejected(rejected));
                        }
                        Next::Split => {
                            let middle = range.start + own.len() / 2;
                            groups.push_front((middle..range.end, Tries::default()));
                            groups.push_front((range.start..middle, Tries::default()));
                        }
                        Next::RetryAfter(pause) => {
                            let left = deadline.saturating_duration_since(Instant::now());
                            if left.is_zero() {
                                outcomes.extend(unavailable(own.len(), &error, tries.attempts, false));
                                continue;
                            }
                            tracing::warn!(error = %error, attempt = tries.attempts, "a merge failed, will try again");
                            tokio::time::sleep(pause.min(left)).await;
                            groups.push_front((range, tries));
                        }
                    }
                }
            }
        }
        for outcome in &outcomes {
            telemetry::merged(outcome.as_str());
        }
        outcomes
    }

    /// One transaction, and the truth about it.
    async fn try_merges(
        &self,
        merges: &[EntityMerge],
        attempts: u32,
        permit: super::circuit::Permit<'_>,
        deadline: Instant,
        changed: &(dyn Fn() + Sync),
    ) -> Tried {
        let attempt = Uuid::now_v7();
        let span = tracing::debug_span!("merge", %attempt, attempts, merges = merges.len());
        let tried = async {
            let start = Instant::now();
            let committed = |done| {
                changed();
                telemetry::merges_committed(start.elapsed());
                Tried::Folded(outcomes(done))
            };
            match self.attempt_merges(attempt, merges, deadline).await {
                Attempted::Committed(done) => {
                    permit.report(None);
                    committed(done)
                }
                Attempted::Failed(error) => {
                    let error = Arc::new(error);
                    permit.report(Some(&error));
                    Tried::Failed(error)
                }
                Attempted::Lost(done, error) => {
                    let error = Arc::new(error);
                    // Before the fence is asked, which has to pass the circuit itself.
                    permit.report(Some(&error));
                    tracing::warn!(error = %error, "a merge's commit got no answer, asking the fence");
                    match self.fate_of(attempt, deadline).await {
                        Fate::Committed => committed(done),
                        Fate::Aborted => Tried::Failed(error),
                        Fate::Unknown => {
                            changed();
                            Tried::Unknown(error)
                        }
                    }
                }
            }
        };
        tried.instrument(span).await
    }

    /// One transaction, from its session to the answer to its commit.
    async fn attempt_merges(&self, attempt: Uuid, merges: &[EntityMerge], deadline: Instant) -> Attempted {
        let start = Instant::now();
        let mut session = match self.session().await {
            Ok(session) => session,
            Err(error) => return Attempted::Failed(error),
        };
        let pool_wait = start.elapsed();
        let attempted = self.attempt_merges_on(&mut session, attempt, merges, deadline).await;
        let took = start.elapsed();
        if took > self.slow_transaction {
            tracing::warn!(
                %attempt, merges = merges.len(), end = attempted.as_str(), took_ms = took.as_millis() as u64,
                pool_wait_ms = pool_wait.as_millis() as u64, statements = %session.timeline, "slow merge"
            );
        }
        attempted
    }

    async fn attempt_merges_on(
        &self,
        session: &mut Session,
        attempt: Uuid,
        merges: &[EntityMerge],
        deadline: Instant,
    ) -> Attempted {
        let written = AssertUnwindSafe(self.write_merges(session, attempt, merges, deadline)).catch_unwind();
        let done = match written.await.unwrap_or(Err(StoreError::Panicked)) {
            Ok(done) => done,
            Err(error) => {
                let error = self.clean_up(session, error).await;
                return Attempted::Failed(self.explain(error).await);
            }
        };
        if done.folds.pairs().is_empty() {
            self.roll_back(session).await;
            return Attempted::Committed(done);
        }
        match self.commit_attempt(session, attempt).await {
            CommitAnswer::Committed => Attempted::Committed(done),
            CommitAnswer::Aborted(error) => Attempted::Failed(error),
            CommitAnswer::None(error) => Attempted::Lost(done, error),
        }
    }

    /// Everything up to the commit.
    async fn write_merges(
        &self,
        session: &mut Session,
        attempt: Uuid,
        merges: &[EntityMerge],
        deadline: Instant,
    ) -> Result<Folded, StoreError> {
        let limit = deadline.saturating_duration_since(Instant::now()).max(LAST_TRY);
        session.enter_transaction();
        answer(self.silence().min(limit), session.prepare()).await?.map_err(StoreError::Begin)?;
        let (begin, as_of) = (self.begin(session), self.as_of.now());
        let transaction = FoldTransaction { session, begin: &begin, as_of };
        let written = Box::pin(async {
            let done = transaction.write(attempt, merges).await;
            failpoint("store::merge");
            done
        });
        session.while_answering(self.silence(), limit, written).await
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

fn unavailable(
    merges: usize,
    error: &Arc<StoreError>,
    attempts: u32,
    commit_under_way: bool,
) -> impl Iterator<Item = MergeOutcome> {
    tracing::error!(error = %error, merges, "the deadline passed without an outcome of merges");
    let cause = UnavailableCause::Database(Arc::clone(error));
    let unavailable = Unavailable { commit_under_way, attempts, cause };
    std::iter::repeat_n(unavailable, merges).map(MergeOutcome::Unavailable)
}
