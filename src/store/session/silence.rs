//! The maximum silence of a server.
//!
//! Each statement has its `statement_timeout` on the server. The engine counts from answer to answer and gives a
//! session up one second after that; a `COMMIT` gets no extra second. The server does the same with the engine
//! (`idle_in_transaction_session_timeout`), so that a transaction that the network cut off does not keep its locks for
//! hours. A new session may take `connect_timeout` for each host and once more for the login: the driver's own timeout
//! is for the socket, and a login without an answer would hold its place in the pool for ever. The fence waits as long
//! for what a server answers at once, and one second for a transaction that is still at work, then asks on another
//! session.

use std::time::Duration;

use crate::config::Config;
use crate::error::StoreError;

/// How long a statement may exceed its `statement_timeout` before the server counts as silent.
const NETWORK: Duration = Duration::from_secs(1);

/// How long the engine waits for the server's answers.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Patience {
    /// For short operations. The event that lost an answer may also have lost the pool's other connections, silently:
    /// the limit is no longer than for a new session.
    pub(in crate::store) at_once: Duration,
    /// For a commit. It is the server's `statement_timeout`.
    pub(in crate::store) commit: Duration,
}

impl Patience {
    pub(in crate::store) fn new(config: &Config) -> Self {
        Self { at_once: config.connect_timeout, commit: config.statement_timeout }
    }

    /// How long the server may be silent: every statement ends at its timeout. The server's idle-in-transaction timeout
    /// is set to the same value.
    pub(in crate::store) fn silence(self) -> Duration {
        self.commit + NETWORK
    }
}

/// Waits for an answer, but no longer than `patience`.
pub(in crate::store) async fn answer<T>(patience: Duration, answer: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(patience, answer).await.map_err(|_| StoreError::NoAnswer(patience))
}
