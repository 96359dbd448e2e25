//! The guard of a transaction on a session, and the ways to end it.
//!
//! Staying in the transaction is the default: a guard that is dropped without an end that the server confirmed leaves
//! the session as it is, and the pool drops the session instead of passing on an unfinished transaction.

use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use uuid::Uuid;

use super::Session;
use super::silence::{Patience, answer};
use crate::error::{ErrorClass, StoreError};
use crate::failpoint::failpoint;

/// The server's answer to a commit.
#[derive(Debug)]
pub(in crate::store) enum CommitAnswer {
    Committed,
    /// Nothing was committed.
    Aborted(StoreError),
    /// No answer that shows whether it was committed: the fence must be asked.
    None(StoreError),
}

/// A session in a transaction, from before `begin` is sent.
///
/// Each end consumes it; only one that the server confirmed frees the session for another transaction.
#[derive(Debug)]
#[must_use]
pub(in crate::store) struct OpenTransaction<'a>(&'a mut Session);

impl Session {
    /// Notes that a transaction is about to begin; sends nothing.
    pub(in crate::store) const fn open_transaction(&mut self) -> OpenTransaction<'_> {
        self.in_transaction = true;
        OpenTransaction(self)
    }

    /// Runs `work`, one transaction or statement from its beginning to the answer to its end. If it fails or is dropped
    /// earlier, the session is not used again.
    pub(in crate::store) async fn transaction<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut open = self.open_transaction();
        let done = work(&mut open).await?;
        open.has_ended();
        Ok(done)
    }
}

impl Deref for OpenTransaction<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0
    }
}

impl DerefMut for OpenTransaction<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.0
    }
}

impl OpenTransaction<'_> {
    /// Notes that the server confirmed the end.
    fn has_ended(self) {
        self.0.in_transaction = false;
    }

    /// Commits a transaction that recorded this attempt.
    pub(in crate::store) async fn commit(self, attempt: Uuid, patience: Patience) -> CommitAnswer {
        let answer = match self.send_commit(patience.commit).await {
            Ok(()) => {
                self.0.settled_attempts = vec![attempt];
                CommitAnswer::Committed
            }
            // An error that leaves the session alive means that the server aborted.
            Err(error) if is_definite(&error) => CommitAnswer::Aborted(error),
            Err(error) => return CommitAnswer::None(error),
        };
        self.has_ended();
        answer
    }

    async fn send_commit(&self, patience: Duration) -> Result<(), StoreError> {
        let answered = async {
            let answered = self.batch("commit", "commit").await;
            failpoint("store::committed");
            answered
        };
        let answered = AssertUnwindSafe(answer(patience, answered)).catch_unwind().await;
        Ok(answered.unwrap_or(Err(StoreError::Panicked))??)
    }

    /// Rolls back a transaction in which nothing failed, or an ordinary error occurred. If the server does not confirm,
    /// the session is not used again.
    pub(in crate::store) async fn roll_back(self, patience: Patience) {
        if self.send_rollback(patience).await {
            self.has_ended();
        }
    }

    async fn send_rollback(&self, patience: Patience) -> bool {
        matches!(answer(patience.at_once, self.batch("rollback", "rollback")).await, Ok(Ok(())))
    }

    /// Ends a transaction that failed with `error`, and determines whether the session may be used again. Returns the
    /// error, classified with further knowledge.
    pub(in crate::store) async fn fail(self, error: StoreError, patience: Patience) -> StoreError {
        self.notice(&error);
        match error.class() {
            ErrorClass::Reconnect if matches!(error, StoreError::NoAnswer(_)) => {
                // The statement may still be running and hold locks that the next attempt waits for.
                self.cancel();
                error
            }
            // A driver's error without SQLSTATE: if the session still answers, a value could not be sent or read. The
            // cause may be a row, or a pooler that confuses prepared statements, so this session is not used again.
            ErrorClass::Reconnect if error.sqlstate().is_none() => match error {
                StoreError::Postgres(error) if self.send_rollback(patience).await => StoreError::Value(error),
                error => error,
            },
            // Prepared statements may be the cause, so this session is not used again.
            ErrorClass::Reconnect | ErrorClass::Unknown | ErrorClass::Bug => error,
            _ => {
                self.roll_back(patience).await;
                error
            }
        }
    }
}

/// Whether an error of `commit` proves that nothing was committed.
pub(in crate::store) fn is_definite(error: &StoreError) -> bool {
    use tokio_postgres::error::Severity;
    error.db().is_some_and(|error| {
        // FATAL and PANIC end the session, and may occur after the commit took place. The two codes themselves mean
        // that the result is unknown.
        matches!(error.parsed_severity(), Some(Severity::Error)) && !matches!(error.code().code(), "40003" | "08007")
    })
}

#[cfg(all(test, unix, feature = "embedded-server"))]
mod tests {
    use bb8::ManageConnection;

    use super::super::{Connector, SessionManager};
    use super::*;
    use crate::Config;
    use crate::server::EmbeddedServer;

    #[tokio::test]
    async fn only_an_end_that_the_server_confirmed_frees_a_session() {
        let server = EmbeddedServer::temporary().await.unwrap();
        let config = Config::builder(server.url("postgres")).build().unwrap();
        let patience = Patience::new(&config);
        let manager = SessionManager::new(Connector::new(&config), config.tls, "public".into());
        let mut session = manager.connect().await.unwrap();

        drop(session.open_transaction());
        assert!(manager.has_broken(&mut session), "dropped");
        session.open_transaction().roll_back(patience).await;
        assert!(!manager.has_broken(&mut session), "rolled back");
        let attempt = Uuid::now_v7();
        let answer = session.open_transaction().commit(attempt, patience).await;
        assert!(matches!(answer, CommitAnswer::Committed) && !manager.has_broken(&mut session), "{answer:?}");
        assert_eq!(session.settled_attempts, [attempt]);

        for (error, is_free) in [(StoreError::VanishedRow, true), (StoreError::Panicked, false)] {
            let _ = session.open_transaction().fail(error, patience).await;
            assert_eq!(manager.has_broken(&mut session), !is_free);
        }
        session.transaction(async |_| Ok(())).await.unwrap();
        assert!(!manager.has_broken(&mut session), "ended");
        let waiting =
            session.transaction(async |session| Ok(session.batch("begin", "begin; select pg_sleep(600)").await?));
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        assert!(manager.has_broken(&mut session), "dropped in the middle");
    }

    /// The server never said what became of it.
    #[tokio::test]
    async fn a_commit_without_an_answer_does_not_free_a_session() {
        let server = EmbeddedServer::temporary().await.unwrap();
        let config = Config::builder(server.url("postgres")).build().unwrap();
        let patience = Patience { commit: Duration::from_millis(20), ..Patience::new(&config) };
        let manager = SessionManager::new(Connector::new(&config), config.tls, "public".into());
        let mut session = manager.connect().await.unwrap();
        let open = session.open_transaction();
        // Keeps the session at work, so that the commit waits behind it.
        let sleep = tokio::time::timeout(Duration::from_millis(20), open.batch("sleep", "select pg_sleep(600)"));
        assert!(sleep.await.is_err());
        let answer = open.commit(Uuid::now_v7(), patience).await;
        assert!(matches!(answer, CommitAnswer::None(StoreError::NoAnswer(_))), "{answer:?}");
        assert!(manager.has_broken(&mut session));
    }
}
