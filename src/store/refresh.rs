//! Brings the columns that depend on time up to date where no unit touches them.

use serde::Serialize;
use uuid::Uuid;

use super::statement::Statement;
use super::transaction::{Transaction, connection_key};
use super::{Store, StoreError};
use crate::record::{ConnectionKey, SortedSet, Timestamp};
use crate::store::statement::uuid_array;

/// Connections of one step, which is one transaction: few enough to hold their locks for some
/// tens of milliseconds only.
const STEP: usize = 1000;
/// How often a step is tried again after a passing error.
const TRIES: u32 = 10;

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RefreshReport {
    /// Connections looked at.
    pub connections: u64,
    /// Of these, connections whose figures changed.
    pub updated: u64,
}

impl Store {
    /// Walks over all connections in lock order, a bounded number of them in each transaction.
    pub(crate) async fn refresh(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        let mut report = RefreshReport::default();
        let mut after =
            ConnectionKey { restaurant: Uuid::nil(), dish: Uuid::nil(), dish_attributes: SortedSet::default() };
        loop {
            let mut tries = 0;
            let (keys, updated) = loop {
                match self.refresh_step(&after, as_of).await {
                    Ok(step) => break step,
                    Err(error) if error.is_retryable() && tries < TRIES => {
                        tries += 1;
                        tracing::warn!(error = %error, "a step of a refresh failed, will try again");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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

    async fn refresh_step(
        &self,
        after: &ConnectionKey<Uuid>,
        as_of: Timestamp,
    ) -> Result<(Vec<ConnectionKey<Uuid>>, usize), StoreError> {
        let mut connection = self.connection().await?;
        connection.prepare().await?;
        let attributes = uuid_array(&after.dish_attributes);
        let rows = connection
            .query(Statement::ConnectionsAfter, &[&after.restaurant, &after.dish, &attributes, &(STEP as i64)])
            .await?;
        let keys = rows.iter().map(|row| connection_key(row, 0)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Ok((keys, 0));
        }
        connection.enter_transaction();
        let transaction = Transaction { connection: &connection, begin: &self.begin, as_of, score_tolerance: 0.0 };
        let result = transaction.refresh(keys.clone()).await;
        connection.batch(if result.is_ok() { "commit" } else { "rollback" }).await?;
        connection.leave_transaction();
        Ok((keys, result?))
    }
}
