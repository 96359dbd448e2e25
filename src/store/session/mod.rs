//! Sessions with the server.
//!
//! [`Sessions`] lends the engine's sessions to its transactions, from a [`pool`], whose [`manager`] decides whether a
//! session is used again; [`open`] guards
//! the transaction of a session and ends it; [`prepared`] has its statements; [`timeline`] keeps the times of a
//! transaction's statements; [`lock_wait`] measures how long it waited for locks; [`silence`] says how long the server
//! may take for an answer.
//!
//! [`Session`] is wrapped around the sessions of bb8 and bb8-postgres, because neither looks at the state of the
//! transaction.

mod lock_wait;
mod manager;
mod open;
mod pool;
mod prepared;
mod sessions;
mod silence;
mod timeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt;
use futures::future::{try_join, try_join_all};
use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};
use tracing::Instrument;
use uuid::Uuid;

use crate::error::StoreError;
use crate::hash::HashMap;
use crate::store::statement::{self, Statement};
use crate::telemetry;
use crate::tls::Tls;
use lock_wait::SessionWaits;
#[cfg(not(feature = "resolver"))]
use prepared::{Prepared, StatementNames};

pub(super) use manager::SessionManager;
pub(super) use open::{CommitAnswer, OpenTransaction, is_definite};
pub(crate) use pool::{Connector, SessionPool};
#[cfg(feature = "resolver")]
pub(crate) use prepared::{Prepared, StatementNames};
pub(super) use sessions::Sessions;
pub(super) use silence::{Patience, answer};
pub(super) use timeline::Timeline;

/// A plan made on an empty table is good up to this number of rows, whichever index it uses.
const PLANS_GOOD_FOR_ROWS: u64 = 100;
/// See [`Session::plans_are_stale`]. Planning all statements takes a few milliseconds.
const PLANS_GOOD_FOR: Duration = Duration::from_mins(1);

/// The savepoint before entities are inserted.
pub(in crate::store) const SAVEPOINT_OF_ENTITIES: &str = "savepoint entities";
/// Returns to it.
pub(in crate::store) const ROLLBACK_TO_SAVEPOINT_OF_ENTITIES: &str = "rollback to savepoint entities";
/// The savepoint before connections are locked.
pub(in crate::store) const SAVEPOINT: &str = "savepoint connections";
/// Rolls back to it, any number of times.
pub(in crate::store) const ROLLBACK_TO_SAVEPOINT: &str = "rollback to savepoint connections";

/// The number of pieces of a copy after which the server has work for some milliseconds. The driver holds two of them.
const PIECES_AHEAD: usize = 6;

/// Time limit for a cancel request, for which no attempt waits.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// The prepared statements of a session.
struct Statements {
    /// Whether the session knows them by name.
    named: bool,
    /// By their names.
    prepared: HashMap<&'static str, Prepared>,
}

/// A session of the pool.
///
/// Invariant: `in_transaction` is true from before `begin` is sent until the server confirmed `commit` or `rollback`. Only
/// the guard changes it ([`OpenTransaction`]). A future that is dropped in between leaves it true, and the pool drops the
/// session instead of passing on an unfinished transaction.
pub(crate) struct Session {
    client: Client,
    number: u64,
    tls: Tls,
    schema: Arc<str>,
    place_lock: i64,
    merge_lock: i64,
    /// The number of rows that this engine had written when this session's plans were made, and the time.
    planned: Option<(u64, Instant)>,
    names: StatementNames,
    statements: Option<Statements>,
    /// Attempts of this session whose fate is known; the next transaction deletes their rows.
    pub(crate) settled_attempts: Vec<Uuid>,
    in_transaction: bool,
    /// Whether answers may be attributed to later statements: see [`Session::copy`].
    is_out_of_step: AtomicBool,
    /// Whether the server waits for the first rows of a copy.
    copy_begins: watch::Sender<bool>,
    opened: Instant,
    /// Time of the last answer, in microseconds since `opened`.
    last_answer: AtomicU64,
    /// The statements since the session was taken from the pool.
    pub(in crate::store) timeline: Timeline,
    /// Its waits for locks.
    pub(in crate::store) lock_waits: Arc<SessionWaits>,
}

/// A copy of which the first rows are not sent yet: see [`Session::has_work`].
#[derive(Debug)]
pub(in crate::store) struct BeginningCopy<'a>(&'a watch::Sender<bool>);

impl Drop for BeginningCopy<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("in_transaction", &self.in_transaction).finish_non_exhaustive()
    }
}

impl Session {
    /// A number that is greater for sessions of this process that were opened later.
    pub(in crate::store) const fn number(&self) -> u64 {
        self.number
    }

    /// The schema as a quoted identifier.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The key of the advisory lock for Google ids.
    pub(crate) const fn place_lock(&self) -> i64 {
        self.place_lock
    }

    /// The key of the advisory lock that merges hold exclusively and every other transaction shares.
    pub(crate) const fn merge_lock(&self) -> i64 {
        self.merge_lock
    }

    /// Whether the plans should be renewed: this engine's writes doubled the tables, or others had a minute to fill
    /// them. If so, they count as renewed from now on.
    pub(crate) fn plans_are_stale(&mut self, rows_written: u64) -> bool {
        let stale = self.planned.is_some_and(|(rows, at)| {
            rows_written > rows.saturating_mul(2).saturating_add(PLANS_GOOD_FOR_ROWS) || at.elapsed() > PLANS_GOOD_FOR
        });
        if stale || self.planned.is_none() {
            self.planned = Some((rows_written, Instant::now()));
        }
        stale
    }

    /// The bare client, for statements outside the engine's transactions.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Prepares every statement, all at once, unless already done.
    pub(crate) async fn prepare(&mut self) -> Result<(), Error> {
        let named = self.names.are_kept();
        if self.statements.as_ref().is_some_and(|statements| statements.named == named) {
            return Ok(());
        }
        let client = &self.client;
        let schema = &self.schema;
        let prepared = try_join_all(statement::ALL.iter().map(|statement| async move {
            let prepared = Prepared::new(client, statement.text(schema), statement.parameters.clone(), named).await?;
            Ok((statement.name, prepared))
        }));
        // Sent first: preparing reads the tables' definitions, so it waits until a change of them is committed.
        let backend = async {
            for row in client.query_typed("select pg_catalog.pg_backend_pid()", &[]).await? {
                self.lock_waits.is_on(row.try_get(0)?);
            }
            Ok(())
        };
        let ((), prepared) = self.measured("prepare", try_join(backend, prepared)).await?;
        self.statements = Some(Statements { named, prepared: prepared.into_iter().collect() });
        Ok(())
    }

    /// Whether the session knows its statements by name, or will when they are prepared.
    pub(crate) fn has_named_statements(&self) -> bool {
        self.statements.as_ref().map_or_else(|| self.names.are_kept(), |statements| statements.named)
    }

    /// Learns from an error about this session's statements.
    pub(crate) fn notice(&self, error: &StoreError) {
        self.names.notice(error);
    }

    fn prepared(&self, statement: &Statement) -> &Prepared {
        let statements = self.statements.as_ref().expect("prepared before the transaction begins");
        &statements.prepared[statement.name]
    }

    /// Sends statements without parameters in one message. `name` is their name in metrics and spans.
    pub(crate) async fn batch(&self, name: &'static str, sql: &str) -> Result<(), Error> {
        self.measured(name, self.client.batch_execute(sql)).await
    }

    /// The same, if there are any.
    pub(in crate::store) async fn batch_if_any(&self, name: &'static str, sql: Option<&str>) -> Result<(), Error> {
        match sql {
            Some(sql) => self.batch(name, sql).await,
            None => Ok(()),
        }
    }

    /// Asks the server, in the background and without a guarantee, to cancel the current statement.
    pub(crate) fn cancel(&self) {
        let token = self.client.cancel_token();
        let tls = self.tls.make();
        tokio::spawn(async move {
            match tokio::time::timeout(CANCEL_MAX, token.cancel_query(tls)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = %StoreError::from(error), "a statement could not be cancelled");
                }
                Err(_) => tracing::debug!("a statement could not be cancelled: no answer"),
            }
        });
    }

    /// Runs a prepared statement and reads all its rows.
    pub(crate) async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.measured(statement.name, self.prepared(statement).query(&self.client, parameters)).await
    }

    /// Announces that the next statement is a copy.
    pub(in crate::store) fn begin_copy(&self) -> BeginningCopy<'_> {
        self.copy_begins.send_replace(true);
        BeginningCopy(&self.copy_begins)
    }

    /// Waits until what was sent is with the server, and enough rows of a copy that was announced. Callers compute
    /// afterwards, in the task that also sends, without letting the server wait for that.
    pub(in crate::store) async fn has_work(&self) {
        let begun = self.copy_begins.subscribe().wait_for(|begins| !begins).await.is_ok();
        debug_assert!(begun, "the sender is the session's own");
        // The driver is another task, and sends when this one waits.
        tokio::task::yield_now().await;
    }

    /// Copies encoded rows; returns their number. Pieces are made while the copy runs, so its time includes their
    /// encoding.
    ///
    /// It must be sent when nothing else is unanswered. If the server refuses it before it accepts rows, it answers
    /// twice (the driver sends two `Sync`, and only one that comes between rows is ignored), and the driver takes the
    /// second answer for that of the next statement. Such a session is not used again, and its answers after the copy
    /// are invalid: check the copy's own answer first.
    pub(in crate::store) async fn copy(
        &self,
        statement: &Statement,
        beginning: BeginningCopy<'_>,
        pieces: impl Iterator<Item = Bytes>,
    ) -> Result<u64, Error> {
        self.measured(statement.name, async {
            let copying = self.prepared(statement).copy_in(&self.client).await;
            let sink = copying.inspect_err(|_| self.is_out_of_step.store(true, Ordering::Relaxed))?;
            let mut sink = std::pin::pin!(sink);
            let mut beginning = Some(beginning);
            for (number, piece) in (1_usize..).zip(pieces) {
                sink.feed(piece).await?;
                if number == PIECES_AHEAD {
                    beginning = None;
                }
            }
            drop(beginning);
            sink.finish().await
        })
        .await
    }

    /// Runs a prepared statement and returns the number of touched rows.
    pub(crate) async fn execute(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        self.measured(statement.name, self.prepared(statement).execute(&self.client, parameters)).await
    }

    /// Writes an attempt's row; returns the number of written rows. The answer contains the server process of the
    /// transaction.
    pub(in crate::store) async fn record_attempt(&self, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let rows = self.query(&statement::RECORD_ATTEMPT, parameters).await?;
        for row in &rows {
            self.lock_waits.is_on(row.try_get(0)?);
        }
        Ok(rows.len() as u64)
    }

    /// Runs `work`, statements on this session, as long as the server keeps answering: no longer than `silence` without
    /// an answer, and no longer than `limit` in total.
    pub(crate) async fn while_answering<T, E: From<StoreError>>(
        &self,
        silence: Duration,
        limit: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let mut heard = start;
        let mut work = std::pin::pin!(work);
        loop {
            let until = (heard + silence).min(start + limit);
            if let Ok(result) = tokio::time::timeout_at(until.into(), work.as_mut()).await {
                return result;
            }
            let last_answer = self.opened + Duration::from_micros(self.last_answer.load(Ordering::Relaxed));
            if last_answer <= heard || until == start + limit {
                return Err(StoreError::NoAnswer(start.elapsed()).into());
            }
            heard = last_answer;
        }
    }

    /// Runs a statement in its own span and measures its time, even if the wait for its end is abandoned.
    pub(crate) async fn measured<T>(
        &self,
        statement: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let sent = self.timeline.sent(statement);
        let unanswered = self.lock_waits.sent();
        let result = work.instrument(tracing::trace_span!("statement", name = statement)).await;
        drop(unanswered);
        self.last_answer.store(self.opened.elapsed().as_micros() as u64, Ordering::Relaxed);
        telemetry::engine::statement_seconds(statement).record(sent.answered(&result));
        result
    }
}

#[cfg(all(test, unix, feature = "embedded-server", feature = "tls"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use bb8::ManageConnection;

    use super::*;
    use crate::Config;
    use crate::server::EmbeddedServer;

    #[tokio::test]
    async fn a_connection_on_which_a_copy_was_refused_is_not_used_again() {
        let server = EmbeddedServer::temporary().await.unwrap();
        let config = Config::builder(server.url("postgres")).build().unwrap();
        crate::Migrations::all().run(&config).await.unwrap();
        let manager = SessionManager::new(Connector::new(&config), config.tls, "public".into());
        let [mut session, holder] = [manager.connect().await.unwrap(), manager.connect().await.unwrap()];
        session.prepare().await.unwrap();
        let nothing = || vec![Bytes::from_static(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff")];
        assert_eq!(
            session.copy(&statement::COPY_MENTIONS, session.begin_copy(), nothing().into_iter()).await.unwrap(),
            0
        );
        assert!(!manager.has_broken(&mut session));
        session.has_work().await;
        let beginning = session.begin_copy();
        let mut working = Box::pin(session.has_work());
        assert!(futures::poll!(&mut working).is_pending());
        tokio::task::yield_now().await;
        assert!(futures::poll!(&mut working).is_pending(), "the server waits for rows");
        drop(beginning);
        working.await;
        holder.batch("begin", "begin; lock table mentions in share mode").await.unwrap();
        session.batch("begin", "set lock_timeout = '1ms'").await.unwrap();
        let refused =
            session.copy(&statement::COPY_MENTIONS, session.begin_copy(), nothing().into_iter()).await.unwrap_err();
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("55P03"));
        assert!(manager.has_broken(&mut session));
        session.has_work().await;
        let other = session.client.query("select 1 where false", &[]).await;
        assert!(other.is_err(), "the driver keeps step now: `is_out_of_step` is not needed any more");
    }

    /// With `sslmode=require` the driver refuses to ask in plain text, so that the answer is the proof.
    #[tokio::test]
    async fn a_cancel_request_is_encrypted_as_its_connection_is() {
        let server = EmbeddedServer::temporary().await.unwrap();
        let data = server.directory().join("data");
        let owner = fs::metadata(&data).unwrap();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, content) in
            [("server.crt", certificate.cert.pem()), ("server.key", certificate.signing_key.serialize_pem())]
        {
            let file = data.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let connect = async |parameters: &str| {
            let config = Config::builder(server.url("postgres") + parameters).build().unwrap();
            SessionManager::new(Connector::new(&config), config.tls, "public".into()).connect().await
        };
        let plain = connect("?sslmode=disable").await.unwrap();
        plain.client.batch_execute("alter system set ssl = on").await.unwrap();
        plain.client.batch_execute("select pg_reload_conf()").await.unwrap();
        let session = loop {
            // The postmaster reads its files when it gets round to it.
            match connect("?sslmode=require").await {
                Ok(session) => break session,
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        };
        let statement = session.client.batch_execute("select pg_sleep(600)");
        let ask = async {
            let running = "select from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
            while plain.client.execute(running, &[]).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            session.cancel();
        };
        let both = futures::future::join(statement, ask);
        let (ended, ()) = tokio::time::timeout(Duration::from_mins(1), both).await.expect("it is cancelled");
        assert_eq!(ended.unwrap_err().code().map(tokio_postgres::error::SqlState::code), Some("57014"));
    }
}
