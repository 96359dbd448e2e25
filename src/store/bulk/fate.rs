//! The commit of a bulk load, and its fate if it got no answer.
//!
//! The protocol is that of [`fence`](super::super::fence): the load's transaction has its own row in
//! `graphsink_attempts`, and another session asks for it. The question is repeated, each time on a new connection,
//! because the server may be starting: after a crash it first replays the load's writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bb8::ManageConnection;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::fence::{Fate, fate_by, raise_fence};
use super::super::session::{Patience, SessionManager, answer, is_definite};
use super::transaction::{BulkTransaction, Phase, step_failed};
use crate::error::{BulkStoreError, StoreError};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);

impl BulkTransaction {
    /// Commits. If the answer is lost, the fence determines the result, so that an error is always true.
    pub(crate) async fn commit(mut self) -> Result<(), BulkStoreError> {
        if self.phase != Phase::Built {
            return Err(BulkStoreError::Unsound);
        }
        // Without a time limit: standbys may have to confirm it, or files may have to be written.
        let error = match self.run("commit").await {
            Ok(()) => {
                self.phase = Phase::Over;
                tracing::info!(attempt = %self.attempt, "a bulk load was committed");
                self.forget_attempt().await;
                return Ok(());
            }
            Err(error) => error,
        };
        self.phase = Phase::Over;
        if is_definite(&error) {
            self.clean_up().await;
            return Err(step_failed("committing", error));
        }
        tracing::warn!(error = %error, "the commit of a bulk load got no answer, asking the fence");
        let deadline = Instant::now() + self.fate_wait;
        match Box::pin(fate_of(&self.sessions.manager, self.attempt, self.sessions.patience, deadline)).await {
            Fate::Committed => Ok(()),
            Fate::Aborted => {
                self.clean_up().await;
                Err(step_failed("committing", error))
            }
            Fate::Unknown => Err(self.unknown(error)),
        }
    }

    /// The error for an undetermined commit, which says how to determine it later.
    fn unknown(&self, source: StoreError) -> BulkStoreError {
        let (attempt, schema) = (self.attempt, self.session.schema());
        let query = format!("select fenced from {schema}.graphsink_attempts where attempt = '{attempt}'");
        BulkStoreError::CommitUnknown { attempt, query, source }
    }

    /// Deletes the row of an attempt whose fate is known. If it remains, an engine deletes it later.
    async fn forget_attempt(&self) {
        let delete = format!("delete from {}.graphsink_attempts where attempt = $1", self.session.schema());
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&self.attempt, Type::UUID)];
        let deleting = self.session.client().execute_typed(&delete, &parameters);
        if let Err(error) | Ok(Err(error)) =
            answer(self.sessions.patience.at_once, deleting).await.map(|deleted| deleted.map_err(StoreError::from))
        {
            tracing::debug!(error = %error, "a bulk load's attempt could not be deleted");
        }
    }
}

/// Asks until there is an answer or the deadline has passed; at least once.
pub(super) async fn fate_of(manager: &SessionManager, attempt: Uuid, patience: Patience, deadline: Instant) -> Fate {
    let ask = || async move {
        let session = manager.connect().await.map_err(Arc::new)?;
        raise_fence(&session, attempt, patience).await.map_err(Arc::new)
    };
    fate_by(attempt, deadline, PAUSE, ask).await
}
