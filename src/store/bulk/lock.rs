//! The holders of locks that a bulk load waits for.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::StoreError;

/// Sessions that hold a conflicting lock on these tables ($1) or on shadow tables, or the merges' lock ($2). Readers conflict only with a
/// load that wants exclusive access ($3).
const HOLDERS: &str = "
    select pg_catalog.string_agg(distinct pg_catalog.concat(
               'process ', l.pid, ' ' || nullif(a.application_name, ''), ', ' || a.state), '; ')
    from pg_catalog.pg_locks l
    left join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where l.granted and l.pid <> pg_catalog.pg_backend_pid()
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
      and ((l.relation = any($1)
            or l.relation in (select c.oid from pg_catalog.pg_class c
                              where pg_catalog.starts_with(c.relname, 'graphsink_bulk_')))
           and ($3 or l.mode <> 'AccessShareLock')
           or l.locktype = 'advisory' and l.objsubid = 1
              and l.classid::int8 = ($2 >> 32 & 4294967295) and l.objid::int8 = ($2 & 4294967295))";

/// Names the sessions that hold the tables or the merges' lock. After a failure this is a guess: they may have ended by
/// now.
pub(super) async fn holders(client: &Client, tables: &[u32], merge_lock: i64, readers: bool) -> String {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&tables, Type::OID_ARRAY), (&merge_lock, Type::INT8), (&readers, Type::BOOL)];
    let found = client.query_typed_one(HOLDERS, &parameters).await;
    let found = found.and_then(|row| row.try_get::<_, Option<String>>(0));
    found.ok().flatten().unwrap_or_else(|| "unknown".to_owned())
}

/// Whether an error means that another session held a lock for too long, or for ever.
pub(super) fn is_blocked(error: &StoreError) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01"))
}
