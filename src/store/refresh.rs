//! Updates the columns that depend on time in connections that no unit touches.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::health::TableShape;
use super::session::{Sessions, answer};
use super::transaction::Transaction;
use crate::batch::Clock;
use crate::config::is_possible_as_of;
use crate::error::StoreError;
use crate::record::{ConnectionKey, SortedSet, Timestamp};

/// Number of connections in a step, which is one transaction: few enough to hold their locks for only some tens of
/// milliseconds.
const STEP: i64 = 1000;
/// How often a step is repeated after a transient error.
const RETRIES: u32 = 10;

/// The result of a refresh.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
/// let report = engine.refresh_activity(chrono::Utc::now()).await?;
/// println!("{} of {} connections changed", report.updated, report.connections);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct RefreshReport {
    /// Number of connections examined.
    pub connections: u64,
    /// Number of these whose figures changed.
    pub updated: u64,
}

/// Refreshes connections, one call at a time.
#[derive(Debug)]
pub(super) struct Refresher {
    sessions: Arc<Sessions>,
    shape: Arc<TableShape>,
    /// Allows one refresh at a time, because commits need the connections.
    turn: Semaphore,
}

impl Refresher {
    pub(super) fn new(sessions: &Arc<Sessions>, shape: &Arc<TableShape>) -> Self {
        Self { sessions: Arc::clone(sessions), shape: Arc::clone(shape), turn: Semaphore::new(1) }
    }

    /// Walks over all connections in lock order, a bounded number in each transaction.
    pub(super) async fn refresh(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        if !is_possible_as_of(as_of) {
            return Err(StoreError::ImpossibleTime);
        }
        let _turn = self.turn.acquire().await;
        let mut report = RefreshReport::default();
        let mut after =
            ConnectionKey { restaurant: Uuid::nil(), dish: Uuid::nil(), dish_attributes: SortedSet::default() };
        loop {
            let mut retries = 0;
            let (keys, updated) = loop {
                match self.step(&after, as_of).await {
                    Ok(step) => break step,
                    Err(error) if error.is_retryable() && retries < RETRIES => {
                        retries += 1;
                        tracing::warn!(error = %error, "a step of a refresh failed, will try again");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => return Err(error),
                }
            };
            report.connections += keys.len() as u64;
            report.updated += updated as u64;
            match keys.into_iter().last() {
                Some(last) => after = last,
                None => return Ok(report),
            }
        }
    }

    async fn step(
        &self,
        after: &ConnectionKey<Uuid>,
        as_of: Timestamp,
    ) -> Result<(Vec<ConnectionKey<Uuid>>, usize), StoreError> {
        let mut session = self.sessions.get().await?;
        let watched = self.sessions.watch(&session);
        // A few round trips.
        let patience = self.sessions.patience().silence() * 3;
        let step = session.transaction(async |session| {
            session.prepare().await.map_err(StoreError::begin)?;
            let begin = self.sessions.begin(session);
            let copying = self.shape.copying();
            let transaction = Transaction::new(session, &begin, Uuid::nil(), &copying, 0);
            let step = transaction.refresh(after, STEP, Clock { as_of, score_tolerance: 0.0 }).await?;
            session.batch("commit", "commit").await?;
            Ok(step)
        });
        let step = answer(patience, Box::pin(step)).await;
        self.sessions.waited(&watched);
        step?
    }
}
