//! Whether another table can take the place of each of the three: whether everything that belongs to them, or refers to
//! them, is known and can be recreated.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::StoreError;

const EVENT_TRIGGERS: &str = "there are event triggers";
const DEFAULT_PRIVILEGES: &str = "there are default privileges for new tables";

/// Reasons against, as text. With $1, the tables.
///
/// Objects of other kinds than those that are carried over are found by their dependencies: views, functions, sequences
/// of identity columns, extensions, columns of a table's row type.
const REASONS: &str = "
    with tables as (
        select c.*, c.oid as id, pg_catalog.format('%I.%I', n.nspname, c.relname) as called
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any($1)),
    own as (
        select 'pg_catalog.pg_class'::regclass as class, i.indexrelid as object
        from pg_catalog.pg_index i where i.indrelid = any($1)
        union all select 'pg_catalog.pg_class'::regclass, reltoastrelid from tables
        union all select 'pg_catalog.pg_type'::regclass, reltype from tables
        union all select 'pg_catalog.pg_type'::regclass, t.typarray
                  from pg_catalog.pg_type t join tables on t.oid = tables.reltype
        union all select 'pg_catalog.pg_constraint'::regclass, k.oid
                  from pg_catalog.pg_constraint k where k.conrelid = any($1) or k.confrelid = any($1)
        union all select 'pg_catalog.pg_trigger'::regclass, g.oid
                  from pg_catalog.pg_trigger g where g.tgrelid = any($1)
        union all select 'pg_catalog.pg_attrdef'::regclass, d.oid
                  from pg_catalog.pg_attrdef d where d.adrelid = any($1)),
    referred as (
        select 'pg_catalog.pg_class'::regclass as class, id as object from tables
        union all select 'pg_catalog.pg_type'::regclass, reltype from tables
        union all select 'pg_catalog.pg_type'::regclass, t.typarray
                  from pg_catalog.pg_type t join tables on t.oid = tables.reltype)
    select called || ' belongs to another role' from tables where pg_catalog.pg_get_userbyid(relowner) <> current_user
    union all select called || ' has a tablespace of its own' from tables where reltablespace <> 0
    union all select called || ' is not permanent' from tables where relpersistence <> 'p'
    union all select called || ' has another access method than new tables'
              from tables join pg_catalog.pg_am m on m.oid = relam
              where m.amname <> pg_catalog.current_setting('default_table_access_method')
    union all select called || ' has rules' from tables where relhasrules
    union all select called || ' has row-level security' from tables where relrowsecurity or relforcerowsecurity
    union all select called || ' has a replica identity without an index' from tables where relreplident not in ('d', 'i')
    union all select called || ' is of a type' from tables where reloftype <> 0
    union all select called || ' has storage parameters for its long values'
              from tables join pg_catalog.pg_class t on t.oid = tables.reltoastrelid where t.reloptions is not null
    union all select called || ' has settings of autovacuum' from tables
              where exists (select from pg_catalog.unnest(reloptions) as o(given) where given like 'autovacuum_enabled=%')
    union all select pg_catalog.format('the owner of %s lacks rights, or others have granted some', called)
              from tables where relacl is not null and (
                  not (pg_catalog.acldefault('r', relowner))[1] = any(relacl)
                  or exists (select from pg_catalog.aclexplode(relacl) a where a.grantor <> relowner))
    union all select pg_catalog.format('rights on a column of %s were granted by others', called)
              from tables join pg_catalog.pg_attribute c on c.attrelid = id and c.attacl is not null
              where exists (select from pg_catalog.aclexplode(c.attacl) a
                            where a.grantor <> relowner or a.grantee = relowner)
    union all select pg_catalog.format('the column %s of %s has settings, or was dropped', c.attname, called)
              from tables join pg_catalog.pg_attribute c on c.attrelid = id and c.attnum > 0
              where c.attisdropped or coalesce(c.attstattarget, -1) >= 0 or c.attoptions is not null
                 or c.attidentity <> ''
    union all select pg_catalog.format('the constraint %s of %s is not valid, or not inherited', k.conname, called)
              from tables join pg_catalog.pg_constraint k on k.conrelid = id and k.contype in ('c', 'n')
              where not k.convalidated or k.connoinherit
    union all select pg_catalog.format('the function of the trigger %s cannot be called', g.tgname)
              from pg_catalog.pg_trigger g
              where g.tgrelid = any($1) and not g.tgisinternal and not pg_catalog.has_function_privilege(g.tgfoid, 'execute')
    union all select called || ' has extended statistics' from tables
              where exists (select from pg_catalog.pg_statistic_ext x where x.stxrelid = id)
    union all select called || ' has a security label' from tables
              where exists (select from pg_catalog.pg_seclabel l
                            where l.classoid = 'pg_catalog.pg_class'::regclass and l.objoid = id)
    union all select called || ' is subscribed to' from tables
              where exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = id)
    union all select 'there are publications' where exists (select from pg_catalog.pg_publication)
    union all select 'there are event triggers' where exists (select from pg_catalog.pg_event_trigger)
    union all select 'there are default privileges for new tables'
              where exists (select from pg_catalog.pg_default_acl d
                            where d.defaclobjtype in ('r', 'T') and pg_catalog.pg_get_userbyid(d.defaclrole) = current_user
                              and (d.defaclnamespace = 0 or d.defaclnamespace in (select relnamespace from tables)))
    union all select 'there are logical replication slots'
              where exists (select from pg_catalog.pg_replication_slots s
                            where s.slot_type = 'logical' and s.database = pg_catalog.current_database())
    union all select pg_catalog.format('%s refers to its table as a whole',
                                       pg_catalog.pg_describe_object(d.classid, d.objid, 0))
              from pg_catalog.pg_depend d
              where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = any($1) and d.refobjsubid = 0
                and (d.classid = 'pg_catalog.pg_attrdef'::regclass
                     or d.classid = 'pg_catalog.pg_class'::regclass and d.deptype = 'n'
                     or d.classid = 'pg_catalog.pg_constraint'::regclass
                        and exists (select from pg_catalog.pg_constraint k where k.oid = d.objid and k.contype = 'c'))
                and (d.classid, d.objid) in (select class, object from own)
    union all select pg_catalog.format('the trigger %s depends on an extension, or has a comment as a constraint', g.tgname)
              from pg_catalog.pg_trigger g
              where g.tgrelid = any($1) and not g.tgisinternal
                and (exists (select from pg_catalog.pg_depend d
                             where d.classid = 'pg_catalog.pg_trigger'::regclass and d.objid = g.oid
                               and d.deptype in ('e', 'x'))
                     or g.tgconstraint <> 0 and pg_catalog.obj_description(g.tgconstraint, 'pg_constraint') is not null
                     or g.tgconstrrelid <> 0 and not pg_catalog.has_table_privilege(g.tgconstrrelid, 'trigger'))
    union all select pg_catalog.format('the row type of %s has rights or a comment', called)
              from tables join pg_catalog.pg_type t on t.oid = reltype
              where t.typacl is not null or pg_catalog.obj_description(t.oid, 'pg_type') is not null
    union all select pg_catalog.format('%s depends on %s', pg_catalog.pg_describe_object(d.classid, d.objid, 0),
                                       pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0))
              from pg_catalog.pg_depend d
              where (d.refclassid, d.refobjid) in (select class, object from referred)
                and (d.classid, d.objid) not in (select class, object from own)
                -- A generated column, before PostgreSQL 15.
                and not (d.classid = d.refclassid and d.objid = d.refobjid)
    union all select pg_catalog.format('%s belongs to an extension', called) from tables
              where exists (select from pg_catalog.pg_depend d
                            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = id and d.deptype in ('e', 'x'))
    order by 1";

/// The storage parameters of each table as the list of a `with` clause, with autovacuum off. In the order of the tables.
const OPTIONS: &str = "
    select (select coalesce(pg_catalog.string_agg(pg_catalog.format('%I = %L', o.option_name, o.option_value), ', ') || ', ', '')
            from pg_catalog.pg_options_to_table(c.reloptions) as o)
           || 'autovacuum_enabled = off, toast.autovacuum_enabled = off'
    from pg_catalog.unnest($1::oid[]) with ordinality as t(id, place)
    join pg_catalog.pg_class c on c.oid = t.id
    order by t.place";

/// Why the tables cannot be replaced; empty if they can.
pub(super) async fn reasons(client: &Client, tables: &[u32]) -> Result<Vec<String>, StoreError> {
    texts(client, REASONS, tables).await
}

/// The same when the new tables are complete: what only concerns their creation no longer matters.
pub(super) async fn reasons_at_the_end(client: &Client, tables: &[u32]) -> Result<Vec<String>, StoreError> {
    let mut reasons = reasons(client, tables).await?;
    reasons.retain(|reason| ![EVENT_TRIGGERS, DEFAULT_PRIVILEGES].contains(&&**reason));
    Ok(reasons)
}

/// See [`OPTIONS`].
pub(super) async fn options(client: &Client, tables: &[u32]) -> Result<Vec<String>, StoreError> {
    texts(client, OPTIONS, tables).await
}

/// The texts that a query returns, about tables.
pub(super) async fn texts(client: &Client, query: &str, tables: &[u32]) -> Result<Vec<String>, StoreError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&tables, Type::OID_ARRAY)];
    let rows = client.query_typed(query, &parameters).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
