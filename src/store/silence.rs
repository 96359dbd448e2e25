//! How long a server may keep silent.

use std::time::Duration;

use crate::error::StoreError;

/// What a statement may take beyond its `statement_timeout` before the server counts as silent.
const NETWORK: Duration = Duration::from_secs(1);

/// How long the server may keep silent: every statement ends at its timeout. The server's idle-in-transaction
/// timeout is set to the same value.
pub(super) fn silence(statement_timeout: Duration) -> Duration {
    statement_timeout + NETWORK
}

/// Waits for an answer, but no longer than `patience`.
pub(super) async fn answer<T>(patience: Duration, answer: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(patience, answer).await.map_err(|_| StoreError::NoAnswer(patience))
}
