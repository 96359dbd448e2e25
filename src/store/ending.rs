//! How a transaction ends: the commit and what its answer says, and what is left of a session after an error.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use uuid::Uuid;

use super::postgres::Store;
use super::session::Session;
use crate::error::{ErrorClass, StoreError};
use crate::failpoint::failpoint;

/// What the server said to a commit.
#[derive(Debug)]
pub(super) enum CommitAnswer {
    Committed,
    /// Nothing was committed.
    Aborted(StoreError),
    /// Nothing that tells whether it was committed: the fence has to be asked.
    None(StoreError),
}

impl Store {
    /// Commits a transaction that recorded this attempt.
    pub(super) async fn commit_attempt(&self, session: &mut Session, attempt: Uuid) -> CommitAnswer {
        let answer = match self.send_commit(session).await {
            Ok(()) => {
                session.settled_attempts = vec![attempt];
                CommitAnswer::Committed
            }
            // An error that leaves the session alive is the server's word that it aborted.
            Err(error) if is_definite(&error) => CommitAnswer::Aborted(error),
            Err(error) => return CommitAnswer::None(error),
        };
        session.leave_transaction();
        answer
    }

    async fn send_commit(&self, session: &Session) -> Result<(), StoreError> {
        let answer = async {
            let answer = session.batch("commit").await;
            failpoint("store::committed");
            answer
        };
        let answer = AssertUnwindSafe(tokio::time::timeout(self.statement_timeout, answer)).catch_unwind();
        match answer.await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(StoreError::NoAnswer(self.statement_timeout)),
            Err(_) => Err(StoreError::Panicked),
        }
    }

    /// Ends a transaction that failed. If the server does not confirm, the session stays "in transaction",
    /// and the pool drops it.
    pub(super) async fn roll_back(&self, session: &mut Session) {
        if self.send_rollback(session).await {
            session.leave_transaction();
        }
    }

    async fn send_rollback(&self, session: &Session) -> bool {
        let rollback = tokio::time::timeout(self.connect_timeout, session.batch("rollback")).await;
        matches!(rollback, Ok(Ok(())))
    }

    /// Ends a transaction that failed with `error`, and sees whether the session may be used
    /// again. The answer is the error, as what it turned out to be.
    pub(super) async fn clean_up(&self, session: &mut Session, error: StoreError) -> StoreError {
        session.notice(&error);
        match error.class() {
            ErrorClass::Reconnect if matches!(error, StoreError::NoAnswer(_)) => {
                // The statement may still be at work and hold locks that the next attempt waits for.
                session.cancel();
                error
            }
            // A driver's error without SQLSTATE: if the session still answers, a value could not be sent or
            // read. That may be some row's fault, or that of a pooler that mixes prepared statements up: not on
            // this session again.
            ErrorClass::Reconnect if error.sqlstate().is_none() => match error {
                StoreError::Postgres(error) if self.send_rollback(session).await => StoreError::Value(error),
                error => error,
            },
            // Prepared statements may be what is wrong: not on this session again.
            ErrorClass::Reconnect | ErrorClass::Unknown | ErrorClass::Bug => error,
            _ => {
                self.roll_back(session).await;
                error
            }
        }
    }
}

/// Whether an error of `commit` proves that nothing was committed.
pub(super) fn is_definite(error: &StoreError) -> bool {
    use tokio_postgres::error::Severity;
    error.db().is_some_and(|error| {
        // FATAL and PANIC end the session, and may come after the commit took place. The two
        // codes say themselves that nothing is known.
        matches!(error.parsed_severity(), Some(Severity::Error)) && !matches!(error.code().code(), "40003" | "08007")
    })
}
