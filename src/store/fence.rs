//! Whether a commit without an answer took place.
//!
//! The first write of every transaction is a row of its own in `graphsink_attempts`. When the
//! answer to a commit is lost, another session inserts the same row, marked as a fence:
//!
//! 1. The insert waits as long as the lost transaction is still at work.
//! 2. It finds no row: the transaction is gone, and with the fence's row committed it can never
//!    commit any more (its own row would violate the key). **Aborted.**
//! 3. It finds a row that is no fence: **committed.**
//! 4. It finds a fence: an earlier question got the answer "aborted" and lost it.
//!
//! Why not `pg_xact_status`: after a crash the same transaction id is given again, so that the
//! function may call a transaction committed that never was. Why at all, when the merge rules make
//! a repeat harmless: because the outcome says what the transaction did (inserted, updated), and a
//! repeat would find everything unchanged.
//!
//! Why no ledger of units: it doubles the WAL of small units, and answers whether a unit may be written again. It
//! always may. Without any question a unit that came through at its deadline would be `Unavailable`. The row is one
//! insertion, and one deletion by the next transaction of the session; both go with messages that are sent anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::postgres::Store;
use super::session::Session;
use super::silence::answer;
use crate::error::StoreError;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    /// It did not commit and never will.
    Aborted,
    /// The deadline came first.
    Unknown,
}

/// How long one question waits for a lost transaction that is still at work. Short, because after a
/// session that never answers there must be time for another; the next question goes on waiting.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the server keeps the transaction of a question that it hears no more of.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How old rows are when they are deleted. `BulkStoreError::CommitUnknown` says it.
pub(super) const ATTEMPTS_KEPT: Duration = Duration::from_hours(48);
/// How often that is done.
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

impl Store {
    /// Finds out what became of an attempt; asks until there is an answer or the deadline passed.
    /// At least once, so that a lost answer close to the deadline is still told truthfully.
    pub(super) async fn fate_of(&self, attempt: Uuid, deadline: Instant) -> Fate {
        let ask = || async move {
            // It is refused at the deadline alone.
            let Ok(permit) = self.circuit.enter(deadline).await else { return Ok(None) };
            match self.raise_fence(attempt).await {
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

    /// Asks once. Nothing: the row came and went in between, ask again.
    async fn raise_fence(&self, attempt: Uuid) -> Result<Option<Fate>, StoreError> {
        let mut session = self.session().await?;
        let patience = Patience { at_once: self.connect_timeout, commit: self.statement_timeout };
        session.transaction(async |session| raise_fence(session, attempt, patience).await).await
    }

    /// Deletes rows that no process can still ask for: those of connections that were lost, and
    /// fences. (Every other row is deleted by the next transaction of its session.)
    pub(crate) async fn forget_old_attempts(&self) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        // Says that it writes, as every transaction of the engine does: the default may be otherwise.
        let delete = format!(
            "begin read write; delete from {}.graphsink_attempts where at < now() - interval '{} seconds'; commit",
            session.schema(),
            ATTEMPTS_KEPT.as_secs()
        );
        session.transaction(async |session| Ok(answer(self.silence(), session.batch(&delete)).await??)).await
    }

    /// Does so again and again, for engines that live long.
    pub(crate) async fn keep_forgetting_attempts(self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            if let Err(error) = self.forget_old_attempts().await {
                tracing::debug!(error = %error, "old attempts could not be deleted, next time");
            }
        }
    }
}

/// Asks until there is an answer or the deadline passed; at least once.
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
            // The row came and went in between.
            Ok(None) => {}
            Err(error) => tracing::warn!(%attempt, error = %error, "the fence could not be asked"),
        }
        if Instant::now() >= deadline {
            return Fate::Unknown;
        }
        tokio::time::sleep(pause).await;
    }
}

/// How long a question waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For what a server does at once. What lost the commit may have lost the pool's other connections too, without a word:
    /// that is waited for no longer than a new session.
    pub(super) at_once: Duration,
    /// For the question's own commit.
    pub(super) commit: Duration,
}

/// Asks once, on a session that is in no transaction. Nothing: the row came and went in between, ask again.
pub(super) async fn raise_fence(
    session: &Session,
    attempt: Uuid,
    patience: Patience,
) -> Result<Option<Fate>, StoreError> {
    // A question that got lost must not stand in the way of the next one.
    let begin = format!(
        "begin read write; set local lock_timeout = {};
         set local idle_in_transaction_session_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        IDLE_TIMEOUT.as_millis(),
    );
    answer(patience.at_once, session.batch(&begin)).await?.map_err(StoreError::Begin)?;
    let table = format!("{}.graphsink_attempts", session.schema());
    let insert = format!("insert into {table} (attempt, fenced) values ($1, true) on conflict do nothing");
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&attempt, Type::UUID)];
    let inserting = session.client().execute_typed(&insert, &parameters);
    let inserted = answer(patience.at_once + LOCK_TIMEOUT, inserting).await??;
    answer(patience.commit, session.batch("commit")).await??;
    if inserted == 1 {
        return Ok(Some(Fate::Aborted));
    }
    // A statement of its own: it must see what the insert waited for.
    let select = format!("select fenced from {table} where attempt = $1");
    let row = answer(patience.at_once, session.client().query_typed_opt(&select, &parameters)).await??;
    Ok(row.map(|row| if row.get(0) { Fate::Aborted } else { Fate::Committed }))
}
