//! Opens sessions for the pool, and decides whether one is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::Session;
use super::pool::Connector;
use super::timeline::Timeline;
use crate::error::StoreError;
use crate::tls::Tls;

/// A number for the schema and a purpose, the same in every process (FNV-1a).
fn lock_key(purpose: &str, schema: &str) -> i64 {
    let hash = purpose
        .bytes()
        .chain(schema.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash as i64
}

/// Opens sessions for the pool.
#[derive(Debug, Clone)]
pub(crate) struct SessionManager {
    connector: Connector,
    tls: Tls,
    schema: Arc<str>,
}

impl SessionManager {
    /// `schema` is a quoted identifier.
    pub(crate) fn new(connector: Connector, tls: Tls, schema: Arc<str>) -> Self {
        Self { connector, tls, schema }
    }
}

impl bb8::ManageConnection for SessionManager {
    type Connection = Session;
    type Error = StoreError;

    async fn connect(&self) -> Result<Session, StoreError> {
        static SESSIONS: AtomicU64 = AtomicU64::new(1);
        let client = self.connector.connect().await?;
        Ok(Session {
            client,
            number: SESSIONS.fetch_add(1, Ordering::Relaxed),
            tls: self.tls.clone(),
            schema: Arc::clone(&self.schema),
            place_lock: lock_key("Google ids in ", &self.schema),
            merge_lock: lock_key("merges in ", &self.schema),
            planned: None,
            names: self.connector.statement_names().clone(),
            statements: None,
            settled_attempts: Vec::new(),
            in_transaction: false,
            is_out_of_step: AtomicBool::new(false),
            copy_begins: watch::Sender::new(false),
            opened: Instant::now(),
            last_answer: AtomicU64::new(0),
            timeline: Timeline::default(),
            lock_waits: Arc::default(),
        })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), StoreError> {
        self.connector.is_valid(&mut session.client).await
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.in_transaction
            || session.is_out_of_step.load(Ordering::Relaxed)
            || self.connector.has_broken(&mut session.client)
    }
}
