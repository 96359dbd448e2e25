//! Keeps rejected units in the database, with the reason, until the cause is corrected.
//!
//! A dead letter's id is a hash of its unit, so that a unit that is rejected again, or written again because the answer
//! to a commit was lost, is one dead letter. It is written before the unit's outcome is delivered: a unit reported as
//! rejected is in the table.
//!
//! Only errors that one unit caused lead here. Errors that would hit every unit open the circuit breaker instead (see
//! [`health`](super::health)): a full disk does not fill this table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::attempt::{LAST_ATTEMPT, backoff};
use super::health::Circuit;
use super::session::{Session, Sessions, answer};
use crate::error::{ErrorClass, StoreError};
use crate::outcome::{RejectReason, Rejection};
use crate::record::Timestamp;
use crate::unit::{Unit, UnitDocument, UnitOfWork};

/// Number of dead letters in a page. A page is in flight together when it is submitted again.
const PAGE: i64 = 50;

/// A rejected unit, read back.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) id: Uuid,
    pub(crate) first_rejected_at: Timestamp,
    /// `None` if the document was edited and is no longer a unit.
    pub(crate) unit: Option<UnitOfWork>,
}

/// The columns of one page of letters.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    units: Vec<String>,
    reasons: Vec<&'static str>,
    sqlstates: Vec<&'a str>,
    table_names: Vec<Option<&'a str>>,
    column_names: Vec<Option<&'a str>>,
    constraint_names: Vec<Option<&'a str>>,
    row_tables: Vec<Option<&'static str>>,
    row_indexes: Vec<Option<i32>>,
    messages: Vec<&'a str>,
    details: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, id: Uuid, unit: String, rejection: &'a Rejection) {
        self.ids.push(id);
        self.units.push(unit);
        self.reasons.push(match rejection.reason {
            RejectReason::MissingRow { .. } => "missing_row",
            RejectReason::WrongEntityType { .. } => "wrong_entity_type",
            RejectReason::Database => "database",
        });
        self.sqlstates.push(&rejection.sqlstate);
        self.table_names.push(rejection.table.as_deref());
        self.column_names.push(rejection.column.as_deref());
        self.constraint_names.push(rejection.constraint.as_deref());
        self.row_tables.push(rejection.row.map(|row| row.table.as_str()));
        self.row_indexes.push(rejection.row.map(|row| row.index as i32));
        self.messages.push(&rejection.message);
        self.details.push(rejection.detail.as_deref());
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 11] {
        [
            (&self.ids, Type::UUID_ARRAY),
            (&self.units, Type::TEXT_ARRAY),
            (&self.reasons, Type::TEXT_ARRAY),
            (&self.sqlstates, Type::TEXT_ARRAY),
            (&self.table_names, Type::TEXT_ARRAY),
            (&self.column_names, Type::TEXT_ARRAY),
            (&self.constraint_names, Type::TEXT_ARRAY),
            (&self.row_tables, Type::TEXT_ARRAY),
            (&self.row_indexes, Type::INT4_ARRAY),
            (&self.messages, Type::TEXT_ARRAY),
            (&self.details, Type::TEXT_ARRAY),
        ]
    }
}

/// The table of rejected units.
#[derive(Debug, Clone)]
pub(super) struct DeadLetters {
    sessions: Arc<Sessions>,
    circuit: Arc<Circuit>,
}

impl DeadLetters {
    pub(super) fn new(sessions: &Arc<Sessions>, circuit: &Arc<Circuit>) -> Self {
        Self { sessions: Arc::clone(sessions), circuit: Arc::clone(circuit) }
    }

    fn silence(&self) -> Duration {
        self.sessions.patience().silence()
    }

    /// Stores rejected units; returns the id of each one's dead letter. Retries until the deadline. A unit that could
    /// not be stored until then, or that the database refuses here too, has no dead letter, and is reported as rejected
    /// all the same.
    pub(super) async fn keep(&self, rejected: &[(Unit<'_>, &Rejection)], deadline: Instant) -> Vec<Option<Uuid>> {
        let mut columns = Columns::default();
        let mut ids = Vec::with_capacity(rejected.len());
        for (unit, rejection) in rejected {
            let document = unit.document().text_and_id();
            ids.push(document.as_ref().ok().map(|(_, id)| *id));
            match document {
                // The same unit twice in an epoch is one row, which a statement may touch only once.
                Ok((_, id)) if columns.ids.contains(&id) => {}
                Ok((text, id)) => columns.push(id, text, rejection),
                // It has strings, numbers and lists, all of which JSON can represent.
                Err(error) => tracing::error!(%error, "a rejected unit cannot be written as JSON"),
            }
        }
        let mut attempts = 0;
        loop {
            let Ok(permit) = self.circuit.enter(deadline).await else { break };
            let limit = self.silence().min(deadline.saturating_duration_since(Instant::now()).max(LAST_ATTEMPT));
            let written = tokio::time::timeout(limit, self.write(&columns)).await;
            let Err(error) = written.unwrap_or(Err(StoreError::NoAnswer(limit))) else {
                permit.report(None);
                return ids;
            };
            let error = Arc::new(error);
            tracing::warn!(error = %error, "rejected units could not be kept");
            if error.class() == ErrorClass::Poison && rejected.len() > 1 {
                // One of them is refused even here: the others are stored without it.
                drop(permit);
                let mut ids = Vec::with_capacity(rejected.len());
                for one in rejected {
                    ids.extend(Box::pin(self.keep(&[*one], deadline)).await);
                }
                return ids;
            }
            // An error of this table alone must not block other work.
            if !error.is_retryable() || Instant::now() >= deadline {
                break;
            }
            permit.report(Some(&error));
            attempts += 1;
            tokio::time::sleep(backoff(attempts)).await;
        }
        tracing::error!(units = rejected.len(), "rejected units are not kept as dead letters");
        vec![None; rejected.len()]
    }

    async fn write(&self, columns: &Columns<'_>) -> Result<(), StoreError> {
        let mut session = self.sessions.get().await?;
        let insert = format!(
            "insert into {}.graphsink_dead_letters (dead_letter_id, unit, reason, sqlstate, table_name, column_name,
                    constraint_name, row_table, row_index, message, detail)
             select id, unit::jsonb, reason, sqlstate, table_name, column_name, constraint_name, row_table, row_index,
                    message, detail
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::int4[], $10::text[], $11::text[])
                  as k(id, unit, reason, sqlstate, table_name, column_name, constraint_name, row_table, row_index,
                       message, detail)
             order by id
             on conflict (dead_letter_id) do update
             set reason = excluded.reason, sqlstate = excluded.sqlstate, table_name = excluded.table_name,
                 column_name = excluded.column_name, constraint_name = excluded.constraint_name,
                 row_table = excluded.row_table, row_index = excluded.row_index, message = excluded.message,
                 detail = excluded.detail, last_rejected_at = now()",
            session.schema()
        );
        session.transaction(async |session| self.execute(session, &insert, &columns.parameters()).await).await
    }

    /// The next page of dead letters, oldest first, after a time and an id, up to a time.
    pub(super) async fn page(
        &self,
        after: Option<(Timestamp, Uuid)>,
        until: Timestamp,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut session = self.sessions.get().await?;
        let select = format!(
            "select dead_letter_id, first_rejected_at, unit::text from {}.graphsink_dead_letters
             where ($1::timestamptz is null or (first_rejected_at, dead_letter_id) > ($1, $2::uuid))
                   and first_rejected_at <= $3
             order by first_rejected_at, dead_letter_id limit $4",
            session.schema()
        );
        let (time, id) = after.unzip();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] =
            [(&time, Type::TIMESTAMPTZ), (&id, Type::UUID), (&until, Type::TIMESTAMPTZ), (&PAGE, Type::INT8)];
        let select = async |session: &mut Session| {
            Ok(answer(self.silence(), session.client().query_typed(&select, &parameters)).await??)
        };
        let rows = session.transaction(select).await?;
        rows.iter()
            .map(|row| {
                let text: &str = row.try_get(2)?;
                let document = serde_json::from_str::<UnitDocument>(text).ok();
                Ok(DeadLetter {
                    id: row.try_get(0)?,
                    first_rejected_at: row.try_get(1)?,
                    unit: document.and_then(|document| document.into_unit().ok()),
                })
            })
            .collect()
    }

    /// The database's clock, by which dead letters are dated.
    pub(super) async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let mut session = self.sessions.get().await?;
        let select = async |session: &mut Session| {
            let row = session.client().query_typed_one("select clock_timestamp()", &[]);
            Ok(answer(self.silence(), row).await??)
        };
        Ok(session.transaction(select).await?.try_get(0)?)
    }

    /// Deletes dead letters whose units were committed.
    pub(super) async fn delete(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let mut session = self.sessions.get().await?;
        let delete = format!("delete from {}.graphsink_dead_letters where dead_letter_id = any($1)", session.schema());
        let delete =
            session.transaction(async |session| self.execute(session, &delete, &[(&ids, Type::UUID_ARRAY)]).await);
        answer(self.silence(), delete).await?
    }

    /// Executes a statement as its own transaction.
    async fn execute(
        &self,
        session: &Session,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), StoreError> {
        session.batch("begin", self.sessions.begin_unprepared()).await.map_err(StoreError::begin)?;
        session.client().execute_typed(statement, parameters).await?;
        Ok(session.batch("commit", "commit").await?)
    }
}
