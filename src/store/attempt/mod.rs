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

mod backoff;
mod retry;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::fence::Fate;
use super::health::Permit;
use super::postgres::Store;
use super::session::{CommitAnswer, OpenTransaction, Session, Timeline, answer};
use crate::error::StoreError;
use crate::failpoint::failpoint;

pub(super) use backoff::backoff;
pub(super) use retry::{Attempts, Next, after_failure};

/// The minimum time for an attempt, however close the deadline is.
pub(in crate::store) const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// The work of an attempt.
pub(in crate::store) trait Work {
    /// The result, valid once it is committed.
    type Written;
    /// Why it ends without a commit although nothing failed.
    type Stopped;

    /// Begins an attempt; returns its span.
    fn begin(&mut self, attempt: Uuid) -> Span;

    /// Writes everything up to the commit, from `begin` and the attempt's row on.
    async fn write(
        &mut self,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Self::Written, Self::Stopped>, StoreError>;

    /// Classifies an error of [`write`](Self::write) with further knowledge.
    fn judge(&self, error: StoreError) -> StoreError {
        error
    }

    /// Whether there is anything to commit.
    fn needs_commit(_: &Self::Written) -> bool {
        true
    }

    /// Called before the commit is sent; an error prevents it.
    fn begin_commit(&mut self) -> Result<(), Self::Stopped> {
        Ok(())
    }

    /// Called when the commit that was sent did not take place.
    fn commit_failed(&mut self) {}

    /// Called when it is committed, in an attempt that began at `start`.
    fn committed(&mut self, written: &Self::Written, start: Instant);

    /// The name of the reason, for the log.
    fn name_of(stopped: &Self::Stopped) -> &'static str;

    /// Logs a slow attempt: names and numbers only, no values.
    fn log_slow(&self, slow: &Slow<'_>);
}

/// The end of an attempt, once the fate of its commit is known.
#[derive(Debug)]
pub(in crate::store) enum Ended<T, S> {
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

/// From the session to the answer to the commit.
type Answered<W> = Result<Ended<<W as Work>::Written, <W as Work>::Stopped>, Lost<<W as Work>::Written>>;

/// A slow attempt.
#[derive(Debug)]
pub(in crate::store) struct Slow<'a> {
    pub(in crate::store) attempt: Uuid,
    pub(in crate::store) end: &'static str,
    pub(in crate::store) took: Duration,
    pub(in crate::store) pool_wait: Duration,
    pub(in crate::store) lock_wait: Duration,
    pub(in crate::store) statements: &'a Timeline,
}

impl Store {
    /// Attempts some work once. The permit gets the result.
    pub(in crate::store) async fn attempt<W: Work>(
        &self,
        mut work: W,
        permit: Permit<'_>,
        deadline: Instant,
    ) -> Ended<W::Written, W::Stopped> {
        let id = Uuid::now_v7();
        let span = work.begin(id);
        let attempt = Attempt { store: self, id, work, deadline, start: Instant::now() };
        attempt.run(permit).instrument(span).await
    }
}

struct Attempt<'a, W> {
    store: &'a Store,
    id: Uuid,
    work: W,
    deadline: Instant,
    start: Instant,
}

impl<W: Work> Attempt<'_, W> {
    async fn run(mut self, permit: Permit<'_>) -> Ended<W::Written, W::Stopped> {
        let ended = match self.transaction().await {
            Ok(ended) => {
                permit.report(if let Ended::Failed(error) = &ended { Some(error) } else { None });
                ended
            }
            Err(Lost { written, error }) => {
                let error = Arc::new(error);
                permit.report(Some(&error));
                tracing::warn!(error = %error, "a commit got no answer, asking the fence");
                match self.store.fate_of(self.id, self.deadline).await {
                    Fate::Committed => Ended::Committed(written),
                    Fate::Aborted => {
                        self.work.commit_failed();
                        Ended::Failed(error)
                    }
                    Fate::Unknown => Ended::Unknown(error),
                }
            }
        };
        if let Ended::Committed(written) = &ended {
            self.work.committed(written, self.start);
        }
        ended
    }

    /// Takes a session and returns it.
    async fn transaction(&mut self) -> Answered<W> {
        let mut session = match self.store.session().await {
            Ok(session) => session,
            Err(error) => return Ok(Ended::Failed(Arc::new(error))),
        };
        let pool_wait = self.start.elapsed();
        let watched = self.store.lock_watch.watch(&session.lock_waits);
        let answered = self.write_and_commit(&mut session).await;
        let lock_wait = watched.waited();
        self.store.counters.waited_for_locks(lock_wait);
        Span::current().record("lock_wait_ms", lock_wait.as_millis() as u64);
        let took = self.start.elapsed();
        if took > self.store.slow_transaction {
            let end = name_of::<W>(&answered);
            let (attempt, statements) = (self.id, &session.timeline);
            self.work.log_slow(&Slow { attempt, end, took, pool_wait, lock_wait, statements });
        }
        answered
    }

    async fn write_and_commit(&mut self, session: &mut Session) -> Answered<W> {
        let store = self.store;
        let mut open = session.open_transaction();
        let written = AssertUnwindSafe(self.write(&mut open)).catch_unwind().await;
        // A panic is a bug in graphsink, perhaps with one unit only: treated like an unknown error.
        let written = match written.unwrap_or(Err(StoreError::Panicked)) {
            Ok(Ok(written)) => written,
            Ok(Err(stopped)) => {
                open.roll_back(store.patience).await;
                return Ok(Ended::Stopped(stopped));
            }
            Err(error) => {
                let error = open.fail(error, store.patience).await;
                let error = store.explain(error).await;
                return Ok(Ended::Failed(Arc::new(self.work.judge(error))));
            }
        };
        if !W::needs_commit(&written) {
            open.roll_back(store.patience).await;
            return Ok(Ended::Committed(written));
        }
        // Every statement was awaited and succeeded, so the server cannot answer ROLLBACK here.
        if let Err(stopped) = self.work.begin_commit() {
            // The session is dropped with its open transaction, which the server then rolls back.
            return Ok(Ended::Stopped(stopped));
        }
        match open.commit(self.id, store.patience).await {
            CommitAnswer::Committed => Ok(Ended::Committed(written)),
            CommitAnswer::Aborted(error) => {
                self.work.commit_failed();
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
        let silence = self.store.silence();
        answer(silence.min(limit), open.prepare()).await?.map_err(StoreError::begin)?;
        let begin = self.store.begin(open);
        let session: &Session = open;
        let written = Box::pin(async {
            let written = self.work.write(session, &begin, self.id).await;
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
