//! One attempt: a transaction that tries to write, from acquiring its session to knowing the fate of its commit.
//!
//! 1. It takes a session of the pool, on which the [`Work`] writes everything before the commit.
//! 2. It asks the work whether the commit may be sent.
//! 3. It commits. If the answer is lost, the fence determines whether the commit took place.
//!
//! Properties:
//! - Each attempt has its own id, so that the fence of one attempt never affects another.
//! - A panic of graphsink's code is an error: an unknown one while the work writes, a lost answer once the commit is
//!   sent.
//! - The circuit breaker gets the result of every attempt before the fence is asked, because the fence itself must pass
//!   the circuit breaker.
//! - A session is used again only if the server confirmed the transaction's end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::runner::Runner;
use super::work::{Group, Slow, Work};
use crate::error::StoreError;
use crate::failpoint::failpoint;
use crate::store::fence::Fate;
use crate::store::health::Permit;
use crate::store::session::{CommitAnswer, OpenTransaction, Session, answer};

/// The minimum time for an attempt, however close the deadline is.
pub(in crate::store) const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// The end of an attempt, once the fate of its commit is known.
#[derive(Debug)]
pub(super) enum Ended<T, S> {
    Committed(T),
    /// The work itself ended it, before the commit.
    Stopped(S),
    Failed(Arc<StoreError>),
    /// The deadline passed before the fate of its commit was known.
    Unknown(Arc<StoreError>),
}

/// A commit that was sent and not answered.
struct Lost<T> {
    /// True if it took place.
    written: T,
    error: StoreError,
}

/// The end of an attempt, as [`Ended`] says it of some work.
type EndedWork<W> = Ended<<W as Work>::Written, <W as Work>::Stopped>;
/// From the session to the answer to the commit.
type Answered<W> = Result<EndedWork<W>, Lost<<W as Work>::Written>>;

/// An attempt of one group.
pub(super) struct Attempt<'a, W: Work> {
    runner: &'a Runner,
    work: &'a mut W,
    group: &'a Group<W::Members>,
    id: Uuid,
    deadline: Instant,
    start: Instant,
}

impl<'a, W: Work> Attempt<'a, W> {
    pub(super) fn begin(runner: &'a Runner, work: &'a mut W, group: &'a Group<W::Members>) -> Self {
        let deadline = work.deadline();
        Self { runner, work, group, id: Uuid::now_v7(), deadline, start: Instant::now() }
    }

    /// Attempts it. The permit gets the result.
    pub(super) async fn run(self, permit: Permit<'_>) -> EndedWork<W> {
        let span = self.work.begin(self.group, self.id);
        self.run_in_span(permit).instrument(span).await
    }

    async fn run_in_span(mut self, permit: Permit<'_>) -> EndedWork<W> {
        let ended = match self.transaction().await {
            Ok(ended) => {
                permit.report(if let Ended::Failed(error) = &ended { Some(error) } else { None });
                ended
            }
            Err(lost) => self.ask_for(lost, permit).await,
        };
        if let Ended::Committed(written) = &ended {
            self.work.committed(self.group, written, self.start);
        }
        ended
    }

    async fn ask_for(&mut self, lost: Lost<W::Written>, permit: Permit<'_>) -> EndedWork<W> {
        let error = Arc::new(lost.error);
        permit.report(Some(&error));
        tracing::warn!(error = %error, "a commit got no answer, asking the fence");
        match self.runner.fence.fate_of(self.id, self.deadline).await {
            Fate::Committed => Ended::Committed(lost.written),
            Fate::Aborted => {
                self.work.commit_failed(self.group);
                Ended::Failed(error)
            }
            Fate::Unknown => Ended::Unknown(error),
        }
    }

    /// Takes a session and returns it.
    async fn transaction(&mut self) -> Answered<W> {
        let sessions = &self.runner.sessions;
        let mut session = match sessions.get().await {
            Ok(session) => session,
            Err(error) => return Ok(Ended::Failed(Arc::new(error))),
        };
        let pool_wait = self.start.elapsed();
        let watched = sessions.watch(&session);
        let answered = self.write_and_commit(&mut session).await;
        let lock_wait = sessions.waited(&watched);
        Span::current().record("lock_wait_ms", lock_wait.as_millis() as u64);
        let took = self.start.elapsed();
        if took > self.runner.slow {
            let end = name_of::<W>(&answered);
            let (attempt, statements) = (self.id, &session.timeline);
            self.work.log_slow(self.group, &Slow { attempt, end, took, pool_wait, lock_wait, statements });
        }
        answered
    }

    async fn write_and_commit(&mut self, session: &mut Session) -> Answered<W> {
        let patience = self.runner.sessions.patience();
        let mut open = session.open_transaction();
        let written = AssertUnwindSafe(self.write(&mut open)).catch_unwind().await;
        // A panic is a bug in graphsink, perhaps with one unit only: treated like an unknown error.
        let written = match written.unwrap_or(Err(StoreError::Panicked)) {
            Ok(Ok(written)) => written,
            Ok(Err(stopped)) => {
                open.roll_back(patience).await;
                return Ok(Ended::Stopped(stopped));
            }
            Err(error) => {
                let error = open.fail(error, patience).await;
                let error = self.runner.shape.explain(error).await;
                return Ok(Ended::Failed(Arc::new(self.work.judge(self.group, error))));
            }
        };
        if !W::needs_commit(&written) {
            open.roll_back(patience).await;
            return Ok(Ended::Committed(written));
        }
        // Every statement was awaited and succeeded, so the server cannot answer ROLLBACK here.
        if let Err(stopped) = self.work.begin_commit(self.group) {
            // The session is dropped with its open transaction, which the server then rolls back.
            return Ok(Ended::Stopped(stopped));
        }
        match open.commit(self.id, patience).await {
            CommitAnswer::Committed => Ok(Ended::Committed(written)),
            CommitAnswer::Aborted(error) => {
                self.work.commit_failed(self.group);
                Ok(Ended::Failed(Arc::new(error)))
            }
            CommitAnswer::None(error) => Err(Lost { written, error }),
        }
    }

    /// Everything up to the commit.
    async fn write(&mut self, open: &mut OpenTransaction<'_>) -> Result<Result<W::Written, W::Stopped>, StoreError> {
        failpoint("store::write");
        // Close to the deadline, one more full attempt is allowed.
        let limit = self.deadline.saturating_duration_since(Instant::now()).max(LAST_ATTEMPT);
        let sessions = &self.runner.sessions;
        let silence = sessions.patience().silence();
        answer(silence.min(limit), open.prepare()).await?.map_err(StoreError::begin)?;
        let begin = sessions.begin(open);
        let session: &Session = open;
        let written = Box::pin(async {
            let written = self.work.write(self.group, session, &begin, self.id).await;
            failpoint("store::written");
            written
        });
        session.while_answering(silence, limit, written).await
    }
}

fn name_of<W: Work>(answered: &Answered<W>) -> &'static str {
    match answered {
        Ok(Ended::Committed(_)) => "committed",
        Ok(Ended::Stopped(stopped)) => W::name_of(stopped),
        Ok(Ended::Failed(_)) => "failed",
        Ok(Ended::Unknown(_)) | Err(_) => "commit not answered",
    }
}
