//! Determines whether a commit without an answer took place.
//!
//! The first write of every transaction is a row of its own in `graphsink_attempts`. When the
//! answer to a commit is lost, another session inserts the same row, marked as a fence:
//!
//! 1. The insert waits as long as the lost transaction is still running.
//! 2. It finds no row: the transaction has ended, and with the fence's row committed it can never commit (its own row
//!    would violate the key). **Aborted.**
//! 3. It finds a row that is not a fence: **committed.**
//! 4. It finds a fence: the answer "aborted" to an earlier question was lost.
//!
//! Why not `pg_xact_status`: after a crash the same transaction id is assigned again, so that the function may report a
//! transaction as committed that never was. Why ask at all, when the merge rules make a repeat harmless: because the
//! outcome says what the transaction did (inserted, updated), and a repeat would find everything unchanged.
//!
//! Why no ledger of units: it doubles the WAL of small units, and answers whether a unit may be written again. It
//! always may. Without any question a unit that came through at its deadline would be `Unavailable`. The row is one
//! insertion, and one deletion by the next transaction of the session; both go with messages that are sent anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::health::Circuit;
use super::session::{Patience, Session, Sessions, answer};
use crate::error::StoreError;

/// The fate of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    /// It did not commit and never will.
    Aborted,
    /// The deadline passed first.
    Unknown,
}

/// How long one question waits for a lost transaction that is still running. Short, because after a session that never
/// answers there must be time for another question, which continues to wait.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the server keeps the transaction of a question after losing contact.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The age at which rows are deleted. `BulkStoreError::CommitUnknown` mentions it.
pub(super) const ATTEMPTS_KEPT: Duration = Duration::from_hours(48);
/// How often old rows are deleted.
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks for lost commits on the engine's sessions, as the circuit breaker allows it.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    sessions: Arc<Sessions>,
    circuit: Arc<Circuit>,
}

impl Fence {
    pub(super) fn new(sessions: &Arc<Sessions>, circuit: &Arc<Circuit>) -> Self {
        Self { sessions: Arc::clone(sessions), circuit: Arc::clone(circuit) }
    }

    /// Determines the fate of an attempt; asks until there is an answer or the deadline has passed. It asks at least
    /// once, so that an answer lost close to the deadline still gets a true outcome.
    pub(super) async fn fate_of(&self, attempt: Uuid, deadline: Instant) -> Fate {
        let ask = || async move {
            // This fails only at the deadline.
            let Ok(permit) = self.circuit.enter(deadline).await else { return Ok(None) };
            match self.raise(attempt).await {
                Ok(fate) => {
                    permit.report(None);
                    Ok(fate)
                }
                Err(error) => {
                    let error = Arc::new(error);
                    permit.report(Some(&error));
                    Err(error)
                }
            }
        };
        fate_by(attempt, deadline, PAUSE, ask).await
    }

    /// Asks once. `None`: the row was deleted between the two statements, ask again.
    async fn raise(&self, attempt: Uuid) -> Result<Option<Fate>, StoreError> {
        let mut session = self.sessions.get().await?;
        let patience = self.sessions.patience();
        session.transaction(async |session| raise_fence(session, attempt, patience).await).await
    }

    /// Deletes rows that no process can still ask for: those of lost connections, and fences. (Every other row is
    /// deleted by the next transaction of its session.)
    pub(super) async fn forget_old_attempts(&self) -> Result<(), StoreError> {
        let mut session = self.sessions.get().await?;
        let silence = self.sessions.patience().silence();
        // Declares itself read-write, like every transaction of the engine: the default may be read-only.
        let delete = format!(
            "begin read write; delete from {}.graphsink_attempts where at < now() - interval '{} seconds'; commit",
            session.schema(),
            ATTEMPTS_KEPT.as_secs()
        );
        session
            .transaction(async |session| Ok(answer(silence, session.batch("forget_attempts", &delete)).await??))
            .await
    }

    /// Deletes old rows periodically, for long-running engines.
    pub(super) async fn keep_forgetting_attempts(&self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            if let Err(error) = self.forget_old_attempts().await {
                tracing::debug!(error = %error, "old attempts could not be deleted, next time");
            }
        }
    }
}

/// Asks until there is an answer or the deadline has passed; at least once.
pub(super) async fn fate_by<F>(attempt: Uuid, deadline: Instant, pause: Duration, ask: impl Fn() -> F) -> Fate
where
    F: Future<Output = Result<Option<Fate>, Arc<StoreError>>>,
{
    loop {
        match ask().await {
            Ok(Some(fate)) => {
                tracing::info!(%attempt, ?fate, "the fence told what became of a commit");
                return fate;
            }
            // The row was deleted between the two statements: ask again.
            Ok(None) => {}
            Err(error) => tracing::warn!(%attempt, error = %error, "the fence could not be asked"),
        }
        if Instant::now() >= deadline {
            return Fate::Unknown;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks once, on a session that is in no transaction. `None`: the row was deleted between the two
/// statements, ask again.
pub(super) async fn raise_fence(
    session: &Session,
    attempt: Uuid,
    patience: Patience,
) -> Result<Option<Fate>, StoreError> {
    // A lost question must not block the next one.
    let begin = format!(
        "begin read write; set local lock_timeout = {};
         set local idle_in_transaction_session_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        IDLE_TIMEOUT.as_millis(),
    );
    answer(patience.at_once, session.batch("begin", &begin)).await?.map_err(StoreError::begin)?;
    let table = format!("{}.graphsink_attempts", session.schema());
    let insert = format!("insert into {table} (attempt, fenced) values ($1, true) on conflict do nothing");
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&attempt, Type::UUID)];
    let inserting = session.client().execute_typed(&insert, &parameters);
    let inserted = answer(patience.at_once + LOCK_TIMEOUT, inserting).await??;
    answer(patience.commit, session.batch("commit", "commit")).await??;
    if inserted == 1 {
        return Ok(Some(Fate::Aborted));
    }
    // A separate statement: it must see the row that the insert waited for.
    let select = format!("select fenced from {table} where attempt = $1");
    let row = answer(patience.at_once, session.client().query_typed_opt(&select, &parameters)).await??;
    Ok(row.map(|row| if row.get(0) { Fate::Aborted } else { Fate::Committed }))
}
