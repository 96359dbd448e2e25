//! The catalog of a schema as text that can be compared with that of another database: without oids, files, counts and
//! ages. And waits for the server. Shared with the unit tests of `src/store/bulk`.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// The time limit for events that must happen.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Lines of text by kind of object. `$1` is the schema. A column that is left out of a row of the catalog is an oid
/// whose object another column names, a file, a figure of the table's contents, or has no meaning to the server (the
/// declared number of an array's dimensions).
const QUERIES: [(&str, &str); 12] = [
    (
        "relation",
        "select concat_ws(' ', c.oid::regclass, pg_get_userbyid(c.relowner), s.spcname, m.amname,
                    (to_jsonb(c) - array['oid', 'relname', 'relnamespace', 'reltype', 'reloftype', 'relowner', 'relam',
                     'relfilenode', 'reltablespace', 'relpages', 'reltuples', 'relallvisible', 'relallfrozen',
                     'reltoastrelid', 'relfrozenxid', 'relminmxid', 'relrewrite'])::text,
                    c.reltoastrelid <> 0, obj_description(c.oid, 'pg_class'))
         from pg_class c left join pg_tablespace s on s.oid = c.reltablespace left join pg_am m on m.oid = c.relam
         where c.relnamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "column",
        "select concat_ws(' ', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
                    pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation,
                    (to_jsonb(a) - array['attrelid', 'attname', 'atttypid', 'attcollation', 'attmissingval',
                     'atthasmissing', 'attndims'])::text,
                    col_description(a.attrelid, a.attnum))
         from pg_attribute a join pg_class c on c.oid = a.attrelid
         left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
         where c.relnamespace = (select oid from pg_namespace where nspname = $1) and a.attnum > 0",
    ),
    (
        "index",
        "select concat_ws(' ', i.indexrelid::regclass, i.indrelid::regclass, pg_get_indexdef(i.indexrelid),
                    (to_jsonb(i) - array['indexrelid', 'indrelid', 'indclass', 'indcollation', 'indexprs', 'indpred'])::text)
         from pg_index i join pg_class c on c.oid = i.indexrelid
         where c.relnamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "constraint",
        "select concat_ws(' ', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.conindid::regclass,
                    k.confrelid::regclass,
                    (to_jsonb(k) - array['oid', 'conname', 'connamespace', 'conrelid', 'contypid', 'conindid', 'conparentid',
                     'confrelid', 'conpfeqop', 'conppeqop', 'conffeqop', 'conexclop', 'conbin'])::text,
                    obj_description(k.oid, 'pg_constraint'))
         from pg_constraint k where k.connamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "trigger",
        // A condition that was parsed again has fewer parentheses.
        "select concat_ws(' ', translate(regexp_replace(pg_get_triggerdef(t.oid), '_ConstraintTrigger_([ac]_)?\\d+', '_\\1'), '()', ''),
                    t.tgenabled, t.tgisinternal, t.tgdeferrable, t.tginitdeferred, k.conname, t.tgconstrrelid::regclass,
                    t.tgconstrindid::regclass, t.tgtype, obj_description(t.oid, 'pg_trigger'))
         from pg_trigger t join pg_class c on c.oid = t.tgrelid left join pg_constraint k on k.oid = t.tgconstraint
         where c.relnamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "order of triggers",
        "select concat_ws(' ', t.tgrelid::regclass,
                    string_agg(coalesce(k.conname, t.tgname) || ' ' || t.tgfoid::regproc, ', ' order by t.tgname))
         from pg_trigger t join pg_class c on c.oid = t.tgrelid left join pg_constraint k on k.oid = t.tgconstraint
         where c.relnamespace = (select oid from pg_namespace where nspname = $1)
         group by t.tgrelid",
    ),
    (
        "rule",
        "select pg_get_ruledef(r.oid) || r.ev_enabled::text from pg_rewrite r join pg_class c on c.oid = r.ev_class
         where c.relnamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "policy",
        "select concat_ws(' ', p.tablename, p.policyname, p.permissive, p.roles, p.cmd, p.qual, p.with_check)
         from pg_policies p where p.schemaname = $1",
    ),
    (
        "publication",
        "select concat_ws(' ', to_jsonb(t)::text, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate)
         from pg_publication_tables t join pg_publication p on p.pubname = t.pubname where t.schemaname = $1",
    ),
    (
        "statistics",
        "select pg_get_statisticsobjdef(x.oid) from pg_statistic_ext x
         where x.stxnamespace = (select oid from pg_namespace where nspname = $1)",
    ),
    (
        "function",
        "select concat_ws(' ', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner), p.proacl::text,
                          obj_description(p.oid, 'pg_proc'))
         from pg_proc p where p.pronamespace = (select oid from pg_namespace where nspname = $1) and p.prokind = 'f'
           and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')",
    ),
    // By their definitions, which name constraints, triggers and indexes; the names of internal triggers contain oids.
    (
        "dependency",
        "select regexp_replace(concat_ws(' ', pg_describe_object(d.classid, d.objid, d.objsubid), d.deptype,
                                         pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)),
                               '(_[ac])?_\\d+\\M', '', 'g')
         from pg_depend d
         where (d.classid, d.objid) in (
             select 'pg_class'::regclass::oid, c.oid from pg_class c
             where c.relnamespace = (select oid from pg_namespace where nspname = $1)
             union all select 'pg_constraint'::regclass::oid, k.oid from pg_constraint k
             where k.connamespace = (select oid from pg_namespace where nspname = $1)
             union all select 'pg_trigger'::regclass::oid, t.oid from pg_trigger t
             join pg_class c on c.oid = t.tgrelid
             where c.relnamespace = (select oid from pg_namespace where nspname = $1))",
    ),
];

/// The sorted catalog of a schema. Names are qualified as the client's search path requires.
pub async fn dump(client: &Client, schema: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, query) in QUERIES {
        let rows = client.query_typed(query, &[(&schema, Type::TEXT)]).await.unwrap();
        let line = |text: &str| format!("{what}: {}", text.replace('\n', " "));
        lines.extend(rows.iter().map(|row| line(row.get(0))));
    }
    assert!(lines.len() > 100, "the schema {schema} has too few objects");
    lines.sort_unstable();
    lines
}

/// Panics with the lines that are in only one of two dumps.
#[track_caller]
pub fn assert_same_catalog(what: &str, before: &[String], after: &[String]) {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>().join("\n  ")
    };
    assert!(
        before == after,
        "{what}: the catalog lacks\n  {}\nand has\n  {}",
        only(before, after),
        only(after, before)
    );
}

/// Repeats the query until its answer is `true`. Not within a transaction, in which statistics do not change.
pub async fn until(client: &Client, query: &str) {
    let start = Instant::now();
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(start.elapsed() < PATIENCE, "never true: {query}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until no session of an engine or a load is left in this database. Its transaction is rolled back by then.
pub async fn until_gone(client: &Client) {
    until(
        client,
        "select not exists (select from pg_stat_activity where application_name = 'graphsink'
                            and datname = current_database())",
    )
    .await;
}
