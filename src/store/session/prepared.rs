//! Statements that a session knows by name, or that are sent as text if names do not persist.
//!
//! A pooler that gives every transaction another session of the server loses prepared statements: `PgBouncer` in
//! transaction mode, before 1.21 or without `max_prepared_statements`. There every statement is sent as text, unnamed,
//! in the same message as its parameters: without a further round trip, but parsed and planned each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, CopyInSink, Error, Row};

use crate::error::StoreError;

/// Whether the sessions of a pool keep named prepared statements from one transaction to the next.
#[derive(Debug, Clone)]
pub(crate) struct StatementNames {
    kept: Arc<AtomicBool>,
}

impl StatementNames {
    pub(in crate::store) fn new(kept: bool) -> Self {
        Self { kept: Arc::new(AtomicBool::new(kept)) }
    }

    pub(crate) fn are_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Learns from an error, permanently: a name that the session should know and does not, or one that it should not
    /// know and does.
    pub(crate) fn notice(&self, error: &StoreError) {
        if matches!(error.sqlstate(), Some("26000" | "42P05")) && self.kept.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                error = %error,
                "prepared statements do not outlive a transaction here, as behind a pooler in transaction mode: from now on \
                 statements are sent with their texts, which costs some speed; let the pooler keep them \
                 (max_prepared_statements of PgBouncer 1.21 and later), or set prepared_statements to false"
            );
        }
    }
}

/// A statement in the form that is sent to a session.
#[derive(Debug)]
pub(crate) enum Prepared {
    Named(tokio_postgres::Statement),
    Text { text: String, types: Vec<Type> },
}

impl Prepared {
    pub(crate) async fn new(client: &Client, text: String, types: Vec<Type>, named: bool) -> Result<Self, Error> {
        if named { Ok(Self::Named(client.prepare_typed(&text, &types).await?)) } else { Ok(Self::Text { text, types }) }
    }

    /// Reads all rows.
    pub(crate) async fn query(&self, client: &Client, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        match self {
            Self::Named(statement) => client.query(statement, parameters).await,
            Self::Text { text, types } => client.query_typed(text, &typed(parameters, types)).await,
        }
    }

    /// Returns the number of touched rows.
    pub(in crate::store) async fn execute(
        &self,
        client: &Client,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        match self {
            Self::Named(statement) => client.execute(statement, parameters).await,
            Self::Text { text, types } => client.execute_typed(text, &typed(parameters, types)).await,
        }
    }

    /// A text takes two round trips, and statements sent meanwhile overtake its rows.
    pub(in crate::store) async fn copy_in(&self, client: &Client) -> Result<CopyInSink<Bytes>, Error> {
        match self {
            Self::Named(statement) => client.copy_in(statement).await,
            // The driver gives it a name, within the transaction.
            Self::Text { text, .. } => client.copy_in(text).await,
        }
    }
}

fn typed<'a>(parameters: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    debug_assert_eq!(parameters.len(), types.len());
    parameters.iter().copied().zip(types.iter().cloned()).collect()
}
