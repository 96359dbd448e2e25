//! Keeps rejected units in the database, with the reason, until somebody mended the cause.
//!
//! A dead letter's id is a hash of its unit, so that a unit that is rejected again, or written down
//! again because the answer to a commit was lost, is one dead letter. It is written before the unit's
//! outcome is told: whoever hears "rejected" finds it in the table.
//!
//! Only what one unit caused comes here. Errors that stand in everybody's way stop the line instead
//! (see [`circuit`](super::circuit)): no full disk fills this table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::backoff::backoff;
use super::error::ErrorClass;
use super::{Store, StoreError, answer};
use crate::outcome::{RejectReason, Rejection};
use crate::record::Timestamp;
use crate::unit::{Unit, UnitDocument, UnitOfWork};

/// Dead letters of one page, which are in flight together when they are submitted again.
const PAGE: i64 = 50;
/// The time for one try, however close the deadline is.
const LAST_TRY: Duration = Duration::from_secs(5);

/// A rejected unit, read back.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) id: Uuid,
    pub(crate) first_rejected_at: Timestamp,
    /// Nothing if somebody changed the document to something that is no unit.
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
}

impl Store {
    /// Writes rejected units down; gives the id of each one's dead letter. Tries until the deadline;
    /// what could not be written until then, or is refused by the database, has no dead letter, and
    /// is told as rejected all the same.
    pub(super) async fn keep_dead_letters(
        &self,
        rejected: &[(&Unit, &Rejection)],
        deadline: Instant,
    ) -> Vec<Option<Uuid>> {
        let mut columns = Columns::default();
        let mut ids = Vec::with_capacity(rejected.len());
        for (unit, rejection) in rejected {
            let document = unit.document().text_and_id();
            ids.push(document.as_ref().ok().map(|(_, id)| *id));
            match document {
                // The same unit twice in an epoch is one row, which a statement can touch only once.
                Ok((_, id)) if columns.ids.contains(&id) => {}
                Ok((text, id)) => columns.push(id, text, rejection),
                // Strings, numbers and lists: nothing that JSON could not hold.
                Err(error) => tracing::error!(%error, "a rejected unit cannot be written as JSON"),
            }
        }
        let mut attempts = 0;
        loop {
            let Ok(permit) = self.circuit.enter(deadline).await else { break };
            let limit = self.silence().min(deadline.saturating_duration_since(Instant::now()).max(LAST_TRY));
            let written = tokio::time::timeout(limit, self.write_dead_letters(&columns)).await;
            let Err(error) = written.unwrap_or(Err(StoreError::NoAnswer(limit))) else {
                permit.report(None);
                return ids;
            };
            let error = Arc::new(error);
            tracing::warn!(error = %error, "rejected units could not be kept");
            if error.class() == ErrorClass::Poison && rejected.len() > 1 {
                // One of them is refused even here: the others need not share its fate.
                drop(permit);
                let mut ids = Vec::with_capacity(rejected.len());
                for one in rejected {
                    ids.extend(Box::pin(self.keep_dead_letters(&[*one], deadline)).await);
                }
                return ids;
            }
            // What is wrong with this one table alone stands in nobody else's way.
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

    async fn write_dead_letters(&self, columns: &Columns<'_>) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        session.enter_transaction();
        session.batch(&self.begin).await.map_err(StoreError::Begin)?;
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
        session
            .client()
            .execute_typed(
                &insert,
                &[
                    (&columns.ids, Type::UUID_ARRAY),
                    (&columns.units, Type::TEXT_ARRAY),
                    (&columns.reasons, Type::TEXT_ARRAY),
                    (&columns.sqlstates, Type::TEXT_ARRAY),
                    (&columns.table_names, Type::TEXT_ARRAY),
                    (&columns.column_names, Type::TEXT_ARRAY),
                    (&columns.constraint_names, Type::TEXT_ARRAY),
                    (&columns.row_tables, Type::TEXT_ARRAY),
                    (&columns.row_indexes, Type::INT4_ARRAY),
                    (&columns.messages, Type::TEXT_ARRAY),
                    (&columns.details, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        session.batch("commit").await?;
        session.leave_transaction();
        Ok(())
    }

    /// The next page of dead letters, oldest first, after a time and an id, up to a time.
    pub(crate) async fn dead_letters(
        &self,
        after: Option<(Timestamp, Uuid)>,
        until: Timestamp,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut session = self.session().await?;
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
        // A session without an answer is not used again.
        session.enter_transaction();
        let rows = answer(self.silence(), session.client().query_typed(&select, &parameters)).await??;
        session.leave_transaction();
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
    pub(crate) async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let mut session = self.session().await?;
        session.enter_transaction();
        let row = answer(self.silence(), session.client().query_typed_one("select clock_timestamp()", &[])).await??;
        session.leave_transaction();
        Ok(row.try_get(0)?)
    }

    /// Deletes dead letters whose units were committed.
    pub(crate) async fn delete_dead_letters(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let delete = format!("delete from {}.graphsink_dead_letters where dead_letter_id = any($1)", session.schema());
        session.enter_transaction();
        answer(self.silence(), async {
            session.batch(&self.begin).await.map_err(StoreError::Begin)?;
            session.client().execute_typed(&delete, &[(&ids, Type::UUID_ARRAY)]).await?;
            Ok::<_, StoreError>(session.batch("commit").await?)
        })
        .await??;
        session.leave_transaction();
        Ok(())
    }
}
