//! The end of a transaction: the commit and the meaning of its answer, and the state of a session after an error.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use uuid::Uuid;

use super::postgres::Store;
use super::session::Session;
use crate::error::{ErrorClass, StoreError};
use crate::failpoint::failpoint;

/// The server's answer to a commit.
#[derive(Debug)]
pub(super) enum CommitAnswer {
    Committed,
    /// Nothing was committed.
    Aborted(StoreError),
    /// No answer that shows whether it was committed: the fence must be asked.
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
            // An error that leaves the session alive means that the server aborted.
            Err(error) if is_definite(&error) => CommitAnswer::Aborted(error),
            Err(error) => return CommitAnswer::None(error),
        };
        session.leave_transaction();
        answer
    }

    async fn send_commit(&self, session: &Session) -> Result<(), StoreError> {
        let answer = async {
            let answer = session.batch("commit", "commit").await;
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

    /// Rolls back a failed transaction. If the server does not confirm, the session stays "in transaction", and the
    /// pool drops it.
    pub(super) async fn roll_back(&self, session: &mut Session) {
        if self.send_rollback(session).await {
            session.leave_transaction();
        }
    }

    async fn send_rollback(&self, session: &Session) -> bool {
        let rollback = tokio::time::timeout(self.connect_timeout, session.batch("rollback", "rollback")).await;
        matches!(rollback, Ok(Ok(())))
    }

    /// Ends a transaction that failed with `error`, and determines whether the session may be reused. Returns the
    /// error, classified with further knowledge.
    pub(super) async fn clean_up(&self, session: &mut Session, error: StoreError) -> StoreError {
        session.notice(&error);
        match error.class() {
            ErrorClass::Reconnect if matches!(error, StoreError::NoAnswer(_)) => {
                // The statement may still be running and hold locks that the next attempt waits for.
                session.cancel();
                error
            }
            // A driver's error without SQLSTATE: if the session still answers, a value could not be sent or read. The
            // cause may be a row, or a pooler that confuses prepared statements, so this session is not used again.
            ErrorClass::Reconnect if error.sqlstate().is_none() => match error {
                StoreError::Postgres(error) if self.send_rollback(session).await => StoreError::Value(error),
                error => error,
            },
            // Prepared statements may be the cause, so this session is not used again.
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
        // FATAL and PANIC end the session, and may occur after the commit took place. The two codes themselves mean
        // that the result is unknown.
        matches!(error.parsed_severity(), Some(Severity::Error)) && !matches!(error.code().code(), "40003" | "08007")
    })
}
