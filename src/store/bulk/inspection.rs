//! Checks whether the tables can be loaded in bulk: rights, and objects added by other programs that can be neither
//! kept nor recreated.
//!
//! All of this is read from the catalog. It is checked when a load begins, to report obstacles at once, and again under
//! the lock that prevents changes.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::{BulkObstacle, BulkStoreError, StoreError};
use crate::record::Table;

/// The three tables: oid, kind or inheritance that forbids a load, owner, whether this role has the owner's rights,
/// missing rights, row-level security. In the order of [`Table::ALL`].
const TABLES: &str = "
    select c.oid, c.relname::text,
           c.relkind <> 'r' or c.relispartition or exists (
               select from pg_catalog.pg_inherits i where c.oid in (i.inhrelid, i.inhparent)),
           pg_catalog.pg_get_userbyid(c.relowner)::text,
           pg_catalog.pg_has_role(c.relowner, 'usage'),
           array(select p from pg_catalog.unnest(array['select', 'insert', 'truncate', 'references']) as p
                 where not pg_catalog.has_table_privilege(c.oid, p)),
           pg_catalog.row_security_active(c.oid)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
    where c.relname in ('entities', 'connections', 'mentions')
    order by pg_catalog.array_position(array['entities', 'connections', 'mentions'], c.relname::text)";

/// Rights beyond those on the three tables: to create indexes, and to write a row for the fence.
const OTHER_RIGHTS: &str = "
    select array(
        select 'create in schema ' || $1 where not pg_catalog.has_schema_privilege($1, 'create')
        union all
        select p || ' on graphsink_attempts'
        from pg_catalog.unnest(array['select', 'insert', 'delete']) as p,
             (select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $1 and c.relname = 'graphsink_attempts') as a(attempts)
        where not pg_catalog.has_table_privilege(a.attempts, p))";

/// Triggers that would fire, except for that of the migrations; and rules on insert. With $1, the tables.
const TRIGGERS_AND_RULES: &str = "
    select c.relname::text, true, t.tgname::text
    from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
    where t.tgrelid = any($1) and not t.tgisinternal and t.tgtype & (4 | 32) <> 0
      and t.tgname <> 'graphsink_entities_truncated'
      and case pg_catalog.current_setting('session_replication_role')
          when 'replica' then t.tgenabled in ('R', 'A') else t.tgenabled in ('O', 'A') end
    union all
    select c.relname::text, false, r.rulename::text
    from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class
    where r.ev_class = any($1) and r.ev_type = '3' and r.ev_enabled <> 'D'
    order by 1, 2, 3";

/// Whether a publication tells subscribers that one of these tables is truncated.
const PUBLISHES_TRUNCATE: &str = "
    select exists (select from pg_catalog.pg_publication_tables t
                   join pg_catalog.pg_publication p on p.pubname = t.pubname and p.pubtruncate
                   where t.schemaname = $1 and t.tablename in ('entities', 'connections', 'mentions'))";

/// Event triggers that fire for objects that a load drops and recreates.
const EVENT_TRIGGERS: &str = "
    select coalesce(pg_catalog.string_agg(e.evtname, ', ' order by e.evtname), '')
    from pg_catalog.pg_event_trigger e
    where e.evtevent in ('ddl_command_start', 'ddl_command_end', 'sql_drop', 'table_rewrite')
      and (e.evttags is null
           or e.evttags && array['ALTER INDEX', 'ALTER TABLE', 'COMMENT', 'CREATE INDEX', 'DROP INDEX'])
      and case pg_catalog.current_setting('session_replication_role')
          when 'replica' then e.evtenabled in ('R', 'A') else e.evtenabled in ('O', 'A') end";

/// Objects that depend on a dropped index ($1) or constraint ($2) and are not dropped with it; and extensions that own
/// an index, or depend on it.
const DEPENDENTS: &str = "
    with dropped(class, object) as (
        select 'pg_catalog.pg_class'::regclass, pg_catalog.unnest($1::oid[])
        union all select 'pg_catalog.pg_constraint'::regclass, pg_catalog.unnest($2::oid[]))
    select distinct pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid),
           pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
    from pg_catalog.pg_depend d
    where d.deptype in ('n', 'a') and (d.refclassid, d.refobjid) in (select class, object from dropped)
      and (d.classid, d.objid) not in (select class, object from dropped)
    union all
    select pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0),
           pg_catalog.pg_describe_object(d.classid, d.objid, 0)
    from pg_catalog.pg_depend d
    where d.deptype in ('e', 'x') and (d.classid, d.objid) in (select class, object from dropped)
    order by 1, 2";

/// The catalog's data about the three tables.
#[derive(Debug)]
pub(super) struct Inspection {
    /// In the order of [`Table::ALL`].
    pub(super) oids: Vec<u32>,
    pub(super) obstacles: Vec<BulkObstacle>,
}

/// Inspects the tables of a schema; fails if the role lacks rights.
pub(super) async fn inspect_tables(client: &Client, schema: &str) -> Result<Inspection, BulkStoreError> {
    let of_schema: [(&(dyn ToSql + Sync), Type); 1] = [(&schema, Type::TEXT)];
    let rows = client.query_typed(TABLES, &of_schema).await.map_err(StoreError::from)?;
    let (mut oids, mut obstacles, mut missing) = (Vec::new(), Vec::new(), Vec::<String>::new());
    for (row, table) in rows.iter().zip(Table::ALL) {
        oids.push(value(row, 0)?);
        if !value::<bool>(row, 4)? {
            return Err(BulkStoreError::NotOwner { table, owner: value(row, 3)? });
        }
        missing.extend(value::<Vec<String>>(row, 5)?.into_iter().map(|right| format!("{right} on {table}")));
        if value(row, 2)? {
            obstacles.push(BulkObstacle::Inheritance { table });
        }
        if value(row, 6)? {
            obstacles.push(BulkObstacle::RowSecurity { table });
        }
    }
    let others = client.query_typed_one(OTHER_RIGHTS, &of_schema).await.map_err(StoreError::from)?;
    missing.extend(value::<Vec<String>>(&others, 0)?);
    if !missing.is_empty() {
        return Err(BulkStoreError::Rights { missing });
    }
    let found = client.query_typed(TRIGGERS_AND_RULES, &[(&oids, Type::OID_ARRAY)]).await.map_err(StoreError::from)?;
    for row in &found {
        let (table, is_trigger, name) = (table_named(value(row, 0)?), value(row, 1)?, value(row, 2)?);
        obstacles.push(if is_trigger {
            BulkObstacle::Trigger { table, trigger: name }
        } else {
            BulkObstacle::Rule { table, rule: name }
        });
    }
    Ok(Inspection { oids, obstacles })
}

/// Whether a truncation would be published to subscribers.
pub(super) async fn publishes_truncate(client: &Client, schema: &str) -> Result<bool, StoreError> {
    Ok(client.query_typed_one(PUBLISHES_TRUNCATE, &[(&schema, Type::TEXT)]).await?.try_get(0)?)
}

/// The names of event triggers that are in force; empty if there are none.
pub(super) async fn event_triggers(client: &Client) -> Result<String, StoreError> {
    Ok(client.query_typed_one(EVENT_TRIGGERS, &[]).await?.try_get(0)?)
}

/// Objects that depend on these indexes and constraints and would prevent dropping them.
pub(super) async fn dependents(
    client: &Client,
    indexes: &[u32],
    constraints: &[u32],
) -> Result<Vec<BulkObstacle>, StoreError> {
    let dropped: [(&(dyn ToSql + Sync), Type); 2] = [(&indexes, Type::OID_ARRAY), (&constraints, Type::OID_ARRAY)];
    let rows = client.query_typed(DEPENDENTS, &dropped).await?;
    let dependent = |row: &Row| Ok(BulkObstacle::Dependent { object: row.try_get(0)?, on: row.try_get(1)? });
    rows.iter().map(dependent).collect()
}

/// The tables that have rows.
pub(super) async fn filled(client: &Client, schema: &str) -> Result<Vec<Table>, StoreError> {
    let exists = Table::ALL.map(|table| format!("exists (select from {schema}.{table})"));
    let row = client.query_typed_one(&format!("select {}", exists.join(", ")), &[]).await?;
    let mut filled = Vec::new();
    for (column, table) in Table::ALL.into_iter().enumerate() {
        if row.try_get(column)? {
            filled.push(table);
        }
    }
    Ok(filled)
}

/// The table with this name, which must be one of the three.
pub(super) fn table_named(name: &str) -> Table {
    Table::ALL.into_iter().find(|table| table.as_str() == name).expect("only the three tables are asked for")
}

fn value<'a, V: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<V, StoreError> {
    Ok(row.try_get(column)?)
}
