//! One attempt: a transaction that tries to write, from its session to the truth about its commit.
//!
//! 1. A session of the pool, on which the [`Work`] writes, up to the commit.
//! 2. The work is asked whether the commit may be sent.
//! 3. The commit. Where its answer is lost, the fence tells whether it took place.
//!
//! Properties:
//! - Each attempt has an id of its own, so that the fence of one never meets another.
//! - A panic of our own code is an error: an unknown one while the work writes, a lost answer once the commit is sent.
//! - The circuit hears of every end, before the fence is asked, which has to pass the circuit itself.
//! - A session is used again only if the server confirmed the transaction's end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::circuit::Permit;
use super::ending::CommitAnswer;
use super::fence::Fate;
use super::postgres::Store;
use super::session::Session;
use super::silence::answer;
use super::timeline::Timeline;
use crate::error::StoreError;
use crate::failpoint::failpoint;

/// The time for one attempt, however close the deadline is.
pub(super) const LAST_ATTEMPT: Duration = Duration::from_secs(5);

/// What an attempt writes.
pub(super) trait Work {
    /// What it did, true once it is committed.
    type Written;
    /// Why it ends without a commit although nothing failed.
    type Stopped;

    /// An attempt begins; gives its span.
    fn begin(&mut self, attempt: Uuid) -> Span;

    /// Writes everything up to the commit, from `begin` and the attempt's row on.
    async fn write(
        &mut self,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Self::Written, Self::Stopped>, StoreError>;

    /// What an error of [`write`](Self::write) turns out to be.
    fn judge(&self, error: StoreError) -> StoreError {
        error
    }

    /// Whether there is anything to commit.
    fn needs_commit(_: &Self::Written) -> bool {
        true
    }

    /// The commit is about to be sent, unless there is a reason not to.
    fn begin_commit(&mut self) -> Result<(), Self::Stopped> {
        Ok(())
    }

    /// The commit that was sent did not happen.
    fn commit_failed(&mut self) {}

    /// It is committed, in an attempt that began at `start`.
    fn committed(&mut self, written: &Self::Written, start: Instant);

    /// A word for the log.
    fn name_of(stopped: &Self::Stopped) -> &'static str;

    /// Logs an attempt that took long. Names and numbers only, no values.
    fn log_slow(&self, slow: &Slow<'_>);
}

/// How an attempt ended, when the truth about its commit is known.
#[derive(Debug)]
pub(super) enum Ended<T, S> {
    Committed(T),
    /// By the work itself, before the commit.
    Stopped(S),
    Failed(Arc<StoreError>),
    /// The deadline came before the fate of its commit was known.
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

/// An attempt that took long.
#[derive(Debug)]
pub(super) struct Slow<'a> {
    pub(super) attempt: Uuid,
    pub(super) end: &'static str,
    pub(super) took: Duration,
    pub(super) pool_wait: Duration,
    pub(super) lock_wait: Duration,
    pub(super) statements: &'a Timeline,
}

impl Store {
    /// Attempts some work once. The permit is told what came of it.
    pub(super) async fn attempt<W: Work>(
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

    /// Takes a session and gives it back.
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
        let written = AssertUnwindSafe(self.write(session)).catch_unwind().await;
        // A panic is a bug of ours, perhaps with one unit only: treated like an unknown error.
        let written = match written.unwrap_or(Err(StoreError::Panicked)) {
            Ok(Ok(written)) => written,
            Ok(Err(stopped)) => {
                store.roll_back(session).await;
                return Ok(Ended::Stopped(stopped));
            }
            Err(error) => {
                let error = store.clean_up(session, error).await;
                let error = store.explain(error).await;
                return Ok(Ended::Failed(Arc::new(self.work.judge(error))));
            }
        };
        if !W::needs_commit(&written) {
            store.roll_back(session).await;
            return Ok(Ended::Committed(written));
        }
        // Every statement was awaited and was good, so the server cannot answer ROLLBACK here.
        if let Err(stopped) = self.work.begin_commit() {
            // Dropped with its transaction in it, which the server then rolls back.
            return Ok(Ended::Stopped(stopped));
        }
        match store.commit_attempt(session, self.id).await {
            CommitAnswer::Committed => Ok(Ended::Committed(written)),
            CommitAnswer::Aborted(error) => {
                self.work.commit_failed();
                Ok(Ended::Failed(Arc::new(error)))
            }
            CommitAnswer::None(error) => Err(Lost { written, error }),
        }
    }

    /// Everything up to the commit.
    async fn write(&mut self, session: &mut Session) -> Result<Result<W::Written, W::Stopped>, StoreError> {
        failpoint("store::write");
        // Close to the deadline there is time for one more honest attempt.
        let limit = self.deadline.saturating_duration_since(Instant::now()).max(LAST_ATTEMPT);
        let silence = self.store.silence();
        // A session that keeps silent from now on is not used again.
        session.enter_transaction();
        answer(silence.min(limit), session.prepare()).await?.map_err(StoreError::Begin)?;
        let begin = self.store.begin(session);
        let session = &*session;
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
