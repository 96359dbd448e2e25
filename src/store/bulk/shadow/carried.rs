//! What belongs to a table, and its successor must be given: rights, triggers, comments.
//!
//! Columns with their defaults, check constraints and comments come with `create table (like ..)`, indexes and foreign
//! keys by their [`Definitions`](super::super::definition::Definitions).

use tokio_postgres::Client;

use super::suitable::texts;
use crate::error::StoreError;

/// Statements, in an order in which they can be run. With $1, the tables.
const STATEMENTS: &str = "
    with tables as (
        select c.oid as id, c.relowner, c.relacl, pg_catalog.format('%I.%I', n.nspname, c.relname) as called
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any($1)),
    rights as (
        select called, null::name as named, 0 as number, a.*
        from tables, pg_catalog.aclexplode(relacl) with ordinality
             as a(grantor, grantee, privilege_type, is_grantable, place)
        where a.grantee <> relowner
        union all
        select called, c.attname, c.attnum, a.*
        from tables join pg_catalog.pg_attribute c on c.attrelid = id, pg_catalog.aclexplode(c.attacl) with ordinality
             as a(grantor, grantee, privilege_type, is_grantable, place)),
    grants as (
        select called, number, min(place) as place, pg_catalog.format('grant %s on %s to %s%s',
                   pg_catalog.string_agg(
                       privilege_type || coalesce(' (' || pg_catalog.quote_ident(named) || ')', ''), ', ' order by place),
                   called,
                   case grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) end,
                   case when is_grantable then ' with grant option' else '' end) as statement
        from rights group by called, named, number, grantee, is_grantable),
    triggers as (
        select called, g.* from tables join pg_catalog.pg_trigger g on g.tgrelid = id and not g.tgisinternal)
    select statement from (
        select 1 as step, called, number::int8 as number, place, statement from grants
        union all
        select 2, called, t.oid::int8, 0, pg_catalog.pg_get_triggerdef(t.oid) from triggers t
        union all
        select 3, called, t.oid::int8, 0, pg_catalog.format('alter table %s %s trigger %I', called,
                   case tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, tgname)
        from triggers t where tgenabled <> 'O'
        union all
        select 4, called, t.oid::int8, 0, pg_catalog.format('comment on trigger %I on %s is %L', tgname, called,
                                                      pg_catalog.obj_description(t.oid, 'pg_trigger'))
        from triggers t where pg_catalog.obj_description(t.oid, 'pg_trigger') is not null
        union all
        select 5, called, 0, 0, pg_catalog.format('comment on table %s is %L', called,
                                                  pg_catalog.obj_description(id, 'pg_class'))
        from tables) as s
    order by step, called, number, place, statement";

/// Reads the statements that give their tables' successors, which then have their names, the same.
pub(super) async fn statements(client: &Client, tables: &[u32]) -> Result<Vec<String>, StoreError> {
    texts(client, STATEMENTS, tables).await
}

/// Statements that are not in both lists. A condition of a trigger that was parsed again may have fewer parentheses:
/// the server writes each `or` of several in its own, and reads them as one.
pub(super) fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let bare = |statement: &String| statement.replace(['(', ')'], "");
    let (before, after): (Vec<_>, Vec<_>) = (before.iter().map(bare).collect(), after.iter().map(bare).collect());
    let lost = before.iter().filter(|statement| !after.contains(statement));
    let added = after.iter().filter(|statement| !before.contains(statement));
    lost.chain(added).cloned().collect()
}
