//! Checks whether the tables still have the shape that the migrations gave them, as far as the engine relies on it.
//!
//! Tables are altered by hand and by other programs' migrations. A table that the engine can no longer write or read
//! would fail every unit, one after the other. So the shape is checked at the start, and again after an error that it
//! may explain ([`TableShape::explain`]); it is never a unit's fault.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{ErrorClass, StoreError, UnfitTable};
use crate::store::session::{Sessions, answer};
use crate::store::table::{self, Connections, Entities, Mentions, Table};

/// The columns that the engine relies on, by table, with their types by PostgreSQL's internal names.
fn expected_columns() -> [(&'static str, Vec<(&'static str, &'static str)>); 3] {
    [
        (Entities::NAME, stored_types::<Entities>("last_updated")),
        (Connections::NAME, stored_types::<Connections>("last_updated")),
        (Mentions::NAME, stored_types::<Mentions>("processed_at")),
    ]
}

/// The columns that the engine writes, and the one that has the time of an update.
fn stored_types<T: Table>(updated_at: &'static str) -> Vec<(&'static str, &'static str)> {
    table::stored_types::<T>().chain([(updated_at, "timestamptz")]).collect()
}

/// The unique indexes that the engine relies on: table, columns, the name given by the migration.
const KEYS: [(&str, &str, &str); 6] = [
    ("entities", "entity_id", "entities_pkey"),
    ("entities", "name,type", "entities_name_type_key"),
    ("connections", "connection_id", "connections_pkey"),
    ("connections", "restaurant_id,dish_or_category_id,dish_attributes", "connections_key"),
    ("mentions", "mention_id", "mentions_pkey"),
    ("mentions", "connection_id,source_type,source_id", "mentions_key"),
];

/// Key columns that are ordered by code point: keys compare byte by byte, in the engine and on the server.
const BYTEWISE: [(&str, &str); 4] =
    [("entities", "name"), ("entities", "google_place_id"), ("mentions", "source_id"), ("mentions", "thread_id")];

/// The columns of a table: the name, the type, whether a row needs a value that only its writer can provide, and
/// whether the collation compares bytes.
const FIND_COLUMNS: &str = "
    select c.relname::text, a.attname::text, t.typname::text,
           a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '',
           coalesce(l.collname in ('C', 'POSIX', 'ucs_basic'), true)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_collation l on l.oid = a.attcollation and t.typname in ('varchar', 'text')
    where c.relname in ('entities', 'connections', 'mentions')";

/// Usable unique indexes over whole tables, and their columns.
const FIND_KEYS: &str = "
    select c.relname::text, (select string_agg(a.attname, ',' order by k.place)
                             from unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as k(number, place)
                             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.number)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    join pg_catalog.pg_index i on i.indrelid = c.oid
    where c.relname in ('entities', 'connections', 'mentions')
      and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null";

/// Whether row policies apply to this role's writes: then the server refuses `copy`.
const FIND_POLICIES: &str = "
    select coalesce(bool_or(pg_catalog.row_security_active(c.oid)), false)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    where c.relname in ('entities', 'connections', 'mentions')";

/// Objects that may leave a row out: triggers before it is written, and rules; with their tables.
const FIND_TRIGGERS: &str = "
    select c.relname::text, k.name::text
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    join (select t.tgrelid, t.tgname from pg_catalog.pg_trigger t
          where not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 3 = 3 and t.tgtype & 28 <> 0
          union all
          select r.ev_class, r.rulename from pg_catalog.pg_rewrite r where r.is_instead and r.ev_type <> '1')
         as k(relation, name) on k.relation = c.oid
    where c.relname in ('entities', 'connections', 'mentions')
    order by 1, 2";

/// Foreign keys of the tables whose checks a transaction may postpone, by the names that `set constraints` takes. A name
/// that is given to several constraints means all of them, and all must be deferrable.
const FIND_DEFERRABLE_KEYS: &str = "
    select pg_catalog.format('%I.%I', n.nspname, k.conname)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    join pg_catalog.pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
    where c.relname in ('connections', 'mentions') and k.condeferrable and not k.condeferred
      and not exists (select from pg_catalog.pg_constraint o
                      where o.conname = k.conname and o.connamespace = k.connamespace and not o.condeferrable)
    order by 1";

/// How rows are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Copying {
    /// Row-level security forbids it.
    pub(in crate::store) is_allowed: bool,
    /// If there are foreign keys whose checks may be postponed.
    pub(in crate::store) late_checks: Option<LateKeyChecks>,
}

impl Copying {
    fn new(is_allowed: bool, keys: &[String]) -> Self {
        let keys = keys.join(", ");
        let late_checks = (!keys.is_empty()).then(|| LateKeyChecks {
            postpone: format!("set constraints {keys} deferred"),
            check: format!("set constraints {keys} immediate"),
        });
        Self { is_allowed, late_checks }
    }
}

/// Statements that postpone the checks of foreign keys, and make them later in the same transaction.
///
/// `copy` holds up to 1,000 slots for rows until it ends, each with a reference to the table's row type. Server processes
/// keep such references in a hash table without buckets, where equal ones are neighbours. Each check of a key within
/// `copy` adds and removes two others, and may search past those neighbours: on average a tenth of the time of a copy
/// into a table with two keys, with figures in `benches/RESULTS.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct LateKeyChecks {
    pub(in crate::store) postpone: String,
    pub(in crate::store) check: String,
}

/// A column found in the database.
#[derive(Debug, Clone)]
struct Found {
    table: String,
    column: String,
    data_type: String,
    needs_a_value: bool,
    is_bytewise: bool,
}

/// The first relevant difference, among tables that all exist.
fn difference(columns: &[Found], keys: &[(String, String)]) -> Option<UnfitTable> {
    for (table, expected) in expected_columns() {
        for &(column, expected) in &expected {
            let found = columns.iter().find(|found| found.table == table && found.column == column);
            match found {
                // A length limit, more or less, changes neither the sent nor the read values.
                Some(found) if found.data_type == expected || (expected, &*found.data_type) == ("varchar", "text") => {}
                found => {
                    let found = found.map(|found| found.data_type.clone());
                    return Some(UnfitTable::Column { table, column, expected, found });
                }
            }
        }
        let is_ours = |found: &Found| expected.iter().any(|(column, _)| *column == found.column);
        let foreign = columns.iter().find(|found| found.table == table && found.needs_a_value && !is_ours(found));
        if let Some(found) = foreign {
            return Some(UnfitTable::ForeignColumn { table, column: found.column.clone() });
        }
    }
    let missing =
        |(table, columns, _): &&(&str, &str, &str)| !keys.iter().any(|(of, key)| of == table && key == columns);
    if let Some(&(table, columns, key)) = KEYS.iter().find(missing) {
        return Some(UnfitTable::Key { table, key, columns });
    }
    let other = |(table, column): &&(&str, &str)| {
        columns.iter().any(|found| found.table == *table && found.column == *column && !found.is_bytewise)
    };
    BYTEWISE.iter().find(other).map(|&(table, column)| UnfitTable::Collation { table, column })
}

/// Inspects the tables: fails if the engine cannot work with them, and otherwise returns how rows are copied. Nothing can
/// be said of missing tables, which have their own errors.
pub(in crate::store) async fn inspect(client: &Client, schema: &str) -> Result<Option<Copying>, StoreError> {
    let of_schema: [(&(dyn ToSql + Sync), Type); 1] = [(&schema, Type::TEXT)];
    let (columns, keys, policies, deferrable) = futures::try_join!(
        client.query_typed(FIND_COLUMNS, &of_schema),
        client.query_typed(FIND_KEYS, &of_schema),
        client.query_typed_one(FIND_POLICIES, &of_schema),
        client.query_typed(FIND_DEFERRABLE_KEYS, &of_schema),
    )?;
    let columns = columns.iter().map(|row| {
        Ok(Found {
            table: row.try_get(0)?,
            column: row.try_get(1)?,
            data_type: row.try_get(2)?,
            needs_a_value: row.try_get(3)?,
            is_bytewise: row.try_get(4)?,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
    let keys = keys.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, Option<String>>(1)?.unwrap_or_default())));
    let keys = keys.collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
    if columns.is_empty() {
        return Ok(None);
    }
    if let Some(unfit) = difference(&columns, &keys) {
        return Err(StoreError::Unfit(unfit));
    }
    let deferrable = deferrable.iter().map(|row| row.try_get(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Copying::new(!policies.try_get::<_, bool>(0)?, &deferrable)))
}

/// The object that may have left rows out, if there is one.
async fn left_out(client: &Client, schema: &str) -> Result<Option<StoreError>, StoreError> {
    let rows = client.query_typed(FIND_TRIGGERS, &[(&schema, Type::TEXT)]).await?;
    let found = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let found = found.collect::<Result<Vec<(String, String)>, tokio_postgres::Error>>()?;
    let Some((first, _)) = found.first() else { return Ok(None) };
    let table = found.iter().all(|(table, _)| table == first).then(|| first.clone());
    let triggers: Vec<String> = found.iter().map(|(table, trigger)| format!("{table}.{trigger}")).collect();
    Ok(Some(StoreError::LeftOut { table, triggers: triggers.join(", ") }))
}

/// The engine's knowledge of its tables.
#[derive(Debug)]
pub(in crate::store) struct TableShape {
    /// The schema's name, as a value.
    schema: String,
    copying: Mutex<Arc<Copying>>,
    sessions: Arc<Sessions>,
}

impl TableShape {
    pub(in crate::store) fn new(schema: &str, sessions: &Arc<Sessions>) -> Self {
        let copying = Mutex::new(Arc::new(Copying::new(true, &[])));
        Self { schema: schema.to_owned(), copying, sessions: Arc::clone(sessions) }
    }

    /// How rows are copied.
    pub(in crate::store) fn copying(&self) -> Arc<Copying> {
        Arc::clone(&self.copying.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes how rows are copied, and logs once when they no longer may be. Returns whether that is news.
    pub(in crate::store) fn copies(&self, copying: Copying) -> bool {
        let mut own = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_allowed && !copying.is_allowed {
            tracing::warn!("row-level security is in force for this role: rows are inserted, not copied");
        }
        let is_news = **own != copying;
        *own = Arc::new(copying);
        is_news
    }

    /// Inspects the tables again after an error that they may explain. Returns the error, classified with further
    /// knowledge.
    pub(in crate::store) async fn explain(&self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::VanishedRow) {
            return self.left_out().await.ok().flatten().unwrap_or(error);
        }
        let may_be_the_tables =
            matches!(error.class(), ErrorClass::Unknown | ErrorClass::Configuration | ErrorClass::Bug);
        if !may_be_the_tables || matches!(error, StoreError::Panicked | StoreError::Unfit(_)) {
            return error;
        }
        match self.inspect().await {
            Err(unfit @ StoreError::Unfit(_)) => unfit,
            Ok(Some(copying)) => {
                let is_news = self.copies(copying);
                let is_about_keys = matches!(error.sqlstate(), Some("42704" | "42809"));
                if is_news && is_about_keys { StoreError::KeysAltered } else { error }
            }
            // A failure of the inspection says nothing about the first error.
            Ok(None) | Err(_) => error,
        }
    }

    async fn left_out(&self) -> Result<Option<StoreError>, StoreError> {
        let session = self.sessions.get().await?;
        answer(self.sessions.patience().silence(), left_out(session.client(), &self.schema)).await?
    }

    async fn inspect(&self) -> Result<Option<Copying>, StoreError> {
        let session = self.sessions.get().await?;
        answer(self.sessions.patience().silence(), inspect(session.client(), &self.schema)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::OWN_COLUMNS;

    /// The tables as the migrations make them.
    fn made() -> (Vec<Found>, Vec<(String, String)>) {
        let columns = expected_columns().into_iter().flat_map(|(table, columns)| {
            columns.into_iter().map(|(column, data_type)| Found {
                table: table.to_owned(),
                column: column.to_owned(),
                data_type: data_type.to_owned(),
                needs_a_value: true,
                is_bytewise: true,
            })
        });
        (
            columns.collect(),
            KEYS.iter().map(|(table, columns, _)| ((*table).to_owned(), (*columns).to_owned())).collect(),
        )
    }

    /// Errors are judged by a list of their own, which depends on no column.
    #[test]
    fn the_errors_list_of_own_columns_is_that_of_the_check() {
        let names = expected_columns()
            .map(|(table, columns)| (table, columns.into_iter().map(|(column, _)| column).collect::<Vec<_>>()));
        assert_eq!(names, OWN_COLUMNS.map(|(table, columns)| (table, columns.to_vec())));
    }

    #[test]
    fn a_difference_in_any_column_key_or_collation_is_found() {
        let (columns, keys) = made();
        assert_eq!(difference(&columns, &keys), None);
        for index in 0..columns.len() {
            let mut fewer = columns.clone();
            fewer.remove(index);
            assert!(matches!(difference(&fewer, &keys), Some(UnfitTable::Column { found: None, .. })), "{index}");
            let mut other = columns.clone();
            other[index].data_type = "int2".to_owned();
            assert!(matches!(difference(&other, &keys), Some(UnfitTable::Column { found: Some(_), .. })), "{index}");
        }
        for index in 0..keys.len() {
            let mut fewer = keys.clone();
            fewer.remove(index);
            assert!(matches!(difference(&columns, &fewer), Some(UnfitTable::Key { .. })), "{index}");
        }
        for (table, column) in BYTEWISE {
            let mut other = columns.clone();
            let place = other.iter().position(|found| found.table == table && found.column == column).unwrap();
            other[place].is_bytewise = false;
            assert_eq!(difference(&other, &keys), Some(UnfitTable::Collation { table, column }));
        }
    }

    #[test]
    fn a_foreign_column_is_a_difference_only_if_it_needs_a_value() {
        let (mut columns, keys) = made();
        let mut foreign = columns[0].clone();
        (foreign.column, foreign.needs_a_value) = ("note".to_owned(), false);
        columns.push(foreign.clone());
        assert_eq!(difference(&columns, &keys), None);
        foreign.needs_a_value = true;
        columns.push(foreign);
        let unfit = UnfitTable::ForeignColumn { table: "entities", column: "note".to_owned() };
        assert_eq!(difference(&columns, &keys), Some(unfit));
        let (mut wider, keys) = made();
        wider
            .iter_mut()
            .filter(|found| found.data_type == "varchar")
            .for_each(|found| found.data_type = "text".to_owned());
        assert_eq!(difference(&wider, &keys), None);
    }
}
