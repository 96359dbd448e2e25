//! The indexes, keys and foreign keys of the tables: read from the catalog, dropped, recreated.
//!
//! A definition is text that PostgreSQL generated in the session that will run it again, so that its qualification of
//! names fits the session's search path. Names and literals are quoted by the server.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::inspection::{dependents, table_named};
use crate::error::{BulkObstacle, StoreError};
use crate::record::Table;

/// Indexes, with the key that each may belong to, oldest first: if two are suitable for a foreign key, PostgreSQL
/// chooses the older one.
const INDEXES: &str = "
    select i.indexrelid, t.relname::text, pg_catalog.quote_ident(x.relname), pg_catalog.pg_get_indexdef(i.indexrelid),
           coalesce(s.spcname::text, ''), pg_catalog.quote_literal(coalesce(s.spcname::text, '')),
           x.reltablespace = 0 or pg_catalog.has_tablespace_privilege(x.reltablespace, 'create'),
           pg_catalog.quote_literal(pg_catalog.obj_description(i.indexrelid, 'pg_class')),
           i.indisclustered, i.indisreplident, i.indisunique, i.indisvalid and i.indisready and i.indislive,
           array(select pg_catalog.format('%s set statistics %s', a.attnum, a.attstattarget)
                 from pg_catalog.pg_attribute a
                 where a.attrelid = i.indexrelid and coalesce(a.attstattarget, -1) >= 0 order by a.attnum),
           m.amname = 'btree', x.reloptions is null,
           k.oid, k.contype::text, pg_catalog.quote_ident(k.conname), pg_catalog.pg_get_constraintdef(k.oid),
           case when k.condeferrable then ' deferrable' else '' end
               || case when k.condeferred then ' initially deferred' else '' end,
           pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')),
           exists (select from pg_catalog.pg_trigger g where g.tgconstraint = k.oid and g.tgenabled <> 'O'),
           case when pg_catalog.starts_with(pg_catalog.pg_get_indexdef(i.indexrelid), h.head)
                then pg_catalog.substr(pg_catalog.pg_get_indexdef(i.indexrelid), pg_catalog.char_length(h.head) + 1) end
    from pg_catalog.pg_index i
    join pg_catalog.pg_class t on t.oid = i.indrelid
    join pg_catalog.pg_namespace n on n.oid = t.relnamespace
    join pg_catalog.pg_class x on x.oid = i.indexrelid
    join pg_catalog.pg_am m on m.oid = x.relam
    left join pg_catalog.pg_tablespace s on s.oid = x.reltablespace
    left join pg_catalog.pg_constraint k
         on k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x')
    cross join lateral (
        select pg_catalog.format('CREATE %sINDEX %I ON %I.%I ', case when i.indisunique then 'UNIQUE ' end,
                                 x.relname, n.nspname, t.relname)) as h(head)
    where i.indrelid = any($1)
    order by i.indexrelid";

/// Foreign keys of the tables and to the tables, oldest first: their triggers fire in the order of creation.
const FOREIGN_KEYS: &str = "
    select k.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.quote_ident(k.conname),
           pg_catalog.pg_get_constraintdef(k.oid),
           pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')),
           k.conindid::pg_catalog.regclass::text,
           case when c.relkind <> 'r' or k.conparentid <> 0 then 'its table is partitioned'
                when not pg_catalog.pg_has_role(c.relowner, 'usage') then 'its table belongs to another role'
                when exists (select from pg_catalog.unnest(k.confkey) as f(number)
                             where not pg_catalog.has_column_privilege(k.confrelid, f.number, 'references'))
                    then 'this role may not refer to the other table'
                when not pg_catalog.has_schema_privilege(n.oid, 'usage')
                     or not pg_catalog.has_schema_privilege(m.oid, 'usage')
                    then 'this role may not use the schema of the other table'
                when exists (select from pg_catalog.pg_trigger t where t.tgconstraint = k.oid and t.tgenabled <> 'O')
                    then 'its triggers are switched off, or fire always' end,
           case when k.conrelid <> all($1) then c.oid when k.confrelid <> all($1) then o.oid end,
           case when k.conrelid <> all($1) then pg_catalog.format('%I.%I', n.nspname, c.relname)
                when k.confrelid <> all($1) then pg_catalog.format('%I.%I', m.nspname, o.relname) end,
           exists (select from pg_catalog.pg_index i join pg_catalog.pg_opclass a on a.oid = i.indclass[0]
                   where i.indrelid = k.conrelid and i.indkey[0] = k.conkey[1] and i.indpred is null
                     and a.opcmethod = (select oid from pg_catalog.pg_am where amname = 'btree')),
           pg_catalog.format('%I.%I', m.nspname, o.relname), k.convalidated,
           case when k.conrelid = any($1) and k.confrelid = any($1)
                     and pg_catalog.starts_with(pg_catalog.pg_get_constraintdef(k.oid), h.head || h.called || '(')
                then array[c.relname::text, o.relname::text, h.head,
                           pg_catalog.substr(pg_catalog.pg_get_constraintdef(k.oid),
                                             pg_catalog.char_length(h.head || h.called) + 1)] end
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_class c on c.oid = k.conrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_class o on o.oid = k.confrelid
    join pg_catalog.pg_namespace m on m.oid = o.relnamespace
    cross join lateral (
        select pg_catalog.format('FOREIGN KEY (%s) REFERENCES ', pg_catalog.string_agg(
                                     pg_catalog.quote_ident(a.attname), ', ' order by f.place)),
               k.confrelid::pg_catalog.regclass::text
        from pg_catalog.unnest(k.conkey) with ordinality as f(number, place)
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = f.number) as h(head, called)
    where k.contype = 'f' and (k.conrelid = any($1) or k.confrelid = any($1))
    order by k.oid";

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) table: Table,
    /// Quoted.
    pub(super) name: String,
    definition: String,
    /// The definition without the names of index and table; `None` if it has an unexpected form.
    method: Option<String>,
    /// As a literal; empty for the database's default.
    tablespace: String,
    comment: Option<String>,
    is_clustered: bool,
    is_replica_identity: bool,
    pub(super) is_unique: bool,
    /// The rest of `alter column` clauses.
    statistics: Vec<String>,
    key: Option<Key>,
}

/// A primary key, a unique or an exclusion constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// Quoted.
    name: String,
    definition: String,
    kind: KeyKind,
    /// The clause for when it is checked.
    timing: String,
    comment: Option<String>,
}

/// How a constraint is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    /// From an existing index.
    Primary,
    Unique,
    /// Together with its index.
    Whole,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// Quoted, with its schema.
    table: String,
    /// Quoted.
    pub(super) name: String,
    definition: String,
    comment: Option<String>,
    /// The table to which it refers, quoted, with its schema.
    refers_to_table: String,
    /// The unique index to which it refers.
    refers_to: String,
    /// The table at its other end, if it is not one of the three.
    other: Option<OtherTable>,
    /// Whether an index has the referring rows in the order of what they refer to.
    has_order: bool,
    /// Whether all rows are known to fulfil it.
    pub(super) is_valid: bool,
    /// `None` if it has an unexpected form, or is not among the three tables.
    among: Option<KeyAmongTables>,
}

/// The definition of a foreign key among the three tables, without the name of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyAmongTables {
    from: Table,
    to: Table,
    head: String,
    rest: String,
}

/// Another table to or from which a foreign key leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OtherTable {
    /// Quoted, with its schema.
    pub(super) name: String,
    pub(super) oid: u32,
}

/// All objects that are dropped and recreated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definitions {
    pub(super) indexes: Vec<Index>,
    pub(super) foreign_keys: Vec<ForeignKey>,
}

impl Definitions {
    /// Reads them, and the obstacles to recreating them.
    pub(super) async fn read(client: &Client, tables: &[u32]) -> Result<(Self, Vec<BulkObstacle>), StoreError> {
        let of_tables = [(&tables as &(dyn tokio_postgres::types::ToSql + Sync), Type::OID_ARRAY)];
        let index_rows = client.query_typed(INDEXES, &of_tables).await?;
        let foreign_key_rows = client.query_typed(FOREIGN_KEYS, &of_tables).await?;
        let (mut indexes, mut foreign_keys, mut obstacles) = (Vec::new(), Vec::new(), Vec::new());
        let (mut index_oids, mut constraint_oids) = (Vec::new(), Vec::new());
        for row in &index_rows {
            index_oids.push(row.try_get(0)?);
            constraint_oids.extend(row.try_get::<_, Option<u32>>(15)?);
            let index = Index::read(row)?;
            obstacles.extend(index.obstacle(row)?);
            indexes.push(index);
        }
        for row in &foreign_key_rows {
            constraint_oids.push(row.try_get(0)?);
            let foreign_key = ForeignKey::read(row)?;
            obstacles.extend(foreign_key.obstacle(row.try_get(6)?));
            foreign_keys.push(foreign_key);
        }
        obstacles.extend(dependents(client, &index_oids, &constraint_oids).await?);
        Ok((Self { indexes, foreign_keys }, obstacles))
    }

    /// Drops the foreign keys, which locks the tables at their other ends.
    pub(super) fn drop_foreign_keys(&self) -> String {
        let drop = |key: &ForeignKey| format!("alter table {} drop constraint {};", key.table, key.name);
        self.foreign_keys.iter().map(drop).collect()
    }

    /// The other tables that the load also locks, from the dropping of foreign keys to its end.
    pub(super) fn other_tables(&self) -> Vec<OtherTable> {
        let mut others: Vec<_> = self.foreign_keys.iter().filter_map(|key| key.other.clone()).collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Drops keys and indexes.
    pub(super) fn drop_indexes(&self, schema: &str) -> String {
        let drop = |index: &Index| match &index.key {
            Some(key) => format!("alter table {schema}.{} drop constraint {};", index.table, key.name),
            None => format!("drop index {schema}.{};", index.name),
        };
        self.indexes.iter().map(drop).collect()
    }

    /// Indexes that can be created on these tables only.
    pub(super) fn bound_to_their_tables(&self) -> Vec<String> {
        let is_bound =
            |index: &&Index| index.method.is_none() || index.key.as_ref().is_some_and(|key| key.kind == KeyKind::Whole);
        self.indexes
            .iter()
            .filter(is_bound)
            .map(|index| format!("index {} is created with its key", index.name))
            .collect()
    }

    /// The names of objects that differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = changed(&self.indexes, &other.indexes, |index| format!("index {}", index.name));
        let of = |key: &ForeignKey| format!("foreign key {} of {}", key.name, key.table);
        differences.extend(changed(&self.foreign_keys, &other.foreign_keys, of));
        differences
    }
}

/// Names of objects that are not in both lists, or differ.
fn changed<D: PartialEq>(before: &[D], after: &[D], name: impl Fn(&D) -> String) -> Vec<String> {
    let lacks = |list: &[D], item: &D| !list.contains(item);
    let mut names: Vec<String> = before.iter().filter(|item| lacks(after, item)).map(&name).collect();
    names.extend(after.iter().filter(|item| lacks(before, item)).map(&name));
    names.sort_unstable();
    names.dedup();
    names
}

impl Index {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let kind: Option<&str> = row.try_get(16)?;
        let key = match kind {
            None => None,
            Some(kind) => Some(Key {
                name: row.try_get(17)?,
                definition: row.try_get(18)?,
                kind: match kind {
                    // Indexes other than B-trees have options that only the constraint's own definition contains.
                    "p" if row.try_get(13)? => KeyKind::Primary,
                    "u" if row.try_get(13)? => KeyKind::Unique,
                    _ => KeyKind::Whole,
                },
                timing: row.try_get(19)?,
                comment: row.try_get(20)?,
            }),
        };
        Ok(Self {
            table: table_named(row.try_get(1)?),
            name: row.try_get(2)?,
            definition: row.try_get(3)?,
            method: row.try_get(22)?,
            tablespace: row.try_get(5)?,
            comment: row.try_get(7)?,
            is_clustered: row.try_get(8)?,
            is_replica_identity: row.try_get(9)?,
            is_unique: row.try_get(10)?,
            statistics: row.try_get(12)?,
            key,
        })
    }

    fn obstacle(&self, row: &Row) -> Result<Option<BulkObstacle>, StoreError> {
        let index = || self.name.clone();
        if !row.try_get::<_, bool>(11)? {
            return Ok(Some(BulkObstacle::InvalidIndex { index: index() }));
        }
        if !row.try_get::<_, bool>(6)? {
            return Ok(Some(BulkObstacle::Tablespace { index: index(), tablespace: row.try_get(4)? }));
        }
        let has_options = !row.try_get::<_, bool>(14)?;
        // A deferrable key has its own trigger.
        let is_switched_off: bool = row.try_get(21)?;
        let loses = |key: &&Key| {
            is_switched_off || key.kind == KeyKind::Whole && has_options && !key.definition.contains(" WITH (")
        };
        Ok(self.key.as_ref().filter(loses).map(|key| BulkObstacle::Key { key: key.name.clone() }))
    }

    /// Statements that create the index with all its properties.
    pub(super) fn make(&self, schema: &str) -> String {
        // Definitions do not contain the tablespace.
        let tablespace = format!("set local default_tablespace = {}", self.tablespace);
        let create = match &self.key {
            Some(Key { kind: KeyKind::Whole, name, definition, .. }) => {
                format!("alter table {schema}.{} add constraint {name} {definition}", self.table)
            }
            _ => self.definition.clone(),
        };
        [tablespace, create].into_iter().chain(self.complete(schema)).collect::<Vec<_>>().join("; ")
    }

    /// The statement that creates the index, under another name, on another table with the same columns.
    pub(super) fn make_elsewhere(&self, name: &str, table: &str) -> String {
        let unique = if self.is_unique { "unique " } else { "" };
        let method = self.method.as_deref().unwrap_or_default();
        format!("set local default_tablespace = {}; create {unique}index {name} on {table} {method}", self.tablespace)
    }

    /// Whether no foreign key can refer to it, once it has its key.
    pub(super) fn is_deferrable(&self) -> bool {
        self.key.as_ref().is_some_and(|key| !key.timing.is_empty())
    }

    /// Statements that give the index the key to which it belongs, and all else that its creation leaves out.
    pub(super) fn complete(&self, schema: &str) -> Vec<String> {
        let Self { table, name, .. } = self;
        let mut statements: Vec<String> = self.key.iter().flat_map(|key| key.complete(self, schema)).collect();
        let with_statistics = |part| format!("alter index {schema}.{name} alter column {part}");
        statements.extend(self.statistics.iter().map(with_statistics));
        statements.extend(self.comment.iter().map(|text| format!("comment on index {schema}.{name} is {text}")));
        if self.is_clustered {
            statements.push(format!("alter table {schema}.{table} cluster on {name}"));
        }
        if self.is_replica_identity {
            statements.push(format!("alter table {schema}.{table} replica identity using index {name}"));
        }
        statements
    }
}

impl Key {
    /// Statements for what the creation of its index leaves out.
    fn complete(&self, index: &Index, schema: &str) -> Vec<String> {
        let Self { name, timing, .. } = self;
        let table = index.table;
        let using = |kind: &str| {
            format!("alter table {schema}.{table} add constraint {name} {kind} using index {}{timing}", index.name)
        };
        let mut statements = match self.kind {
            KeyKind::Primary => vec![using("primary key")],
            KeyKind::Unique => vec![using("unique")],
            KeyKind::Whole => vec![],
        };
        let comment = |text| format!("comment on constraint {name} on {schema}.{table} is {text}");
        statements.extend(self.comment.iter().map(comment));
        statements
    }
}

impl ForeignKey {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            table: row.try_get(1)?,
            name: row.try_get(2)?,
            definition: row.try_get(3)?,
            comment: row.try_get(4)?,
            refers_to: row.try_get(5)?,
            other: row
                .try_get::<_, Option<u32>>(7)?
                .zip(row.try_get::<_, Option<String>>(8)?)
                .map(|(oid, name)| OtherTable { name, oid }),
            has_order: row.try_get(9)?,
            refers_to_table: row.try_get(10)?,
            is_valid: row.try_get(11)?,
            among: row.try_get::<_, Option<Vec<String>>>(12)?.and_then(KeyAmongTables::read),
        })
    }

    fn obstacle(&self, reason: Option<&str>) -> Option<BulkObstacle> {
        // The server returns one of these few texts.
        const REASONS: [&str; 5] = [
            "its table is partitioned",
            "its table belongs to another role",
            "this role may not refer to the other table",
            "this role may not use the schema of the other table",
            "its triggers are switched off, or fire always",
        ];
        let reason = REASONS.into_iter().find(|known| Some(*known) == reason)?;
        Some(BulkObstacle::ForeignKey { table: self.table.clone(), foreign_key: self.name.clone(), reason })
    }

    /// The tables that it connects, if both are of the three and it can be created between others.
    pub(super) fn ends(&self) -> Option<[Table; 2]> {
        self.among.as_ref().map(|among| [among.from, among.to])
    }

    /// Whether both have the same triggers on one table. These fire in the order in which the keys were created.
    pub(super) fn must_follow(&self, other: &Self) -> bool {
        self.table == other.table || self.refers_to_table == other.refers_to_table
    }

    /// Statements that create it and check all rows.
    pub(super) fn make(&self) -> String {
        format!("{}; {}", self.choose_join(), self.create(&self.table, &self.definition))
    }

    /// Statements that create it between other tables with the same columns and unique indexes, and check no row.
    pub(super) fn make_elsewhere(&self, called: impl Fn(Table) -> String) -> Option<String> {
        let KeyAmongTables { from, to, head, rest } = self.among.as_ref()?;
        let not_valid = if self.is_valid { " not valid" } else { "" };
        Some(self.create(&called(*from), &format!("{head}{}{rest}{not_valid}", called(*to))))
    }

    /// Statements that check all rows of a table on which it was created without a check.
    pub(super) fn check(&self, table: &str) -> String {
        format!("{}; alter table {table} validate constraint {}", self.choose_join(), self.name)
    }

    fn create(&self, table: &str, definition: &str) -> String {
        let name = &self.name;
        let create = format!("alter table {table} add constraint {name} {definition}");
        let comment = |text| format!("comment on constraint {name} on {table} is {text}");
        std::iter::once(create).chain(self.comment.iter().map(comment)).collect::<Vec<_>>().join("; ")
    }

    /// Two new indexes in one order are merged in less than half of the time of the hash join that the server would
    /// choose: 180 ms instead of 500 ms for 715,000 mentions of 502,000 connections.
    fn choose_join(&self) -> String {
        format!("set local enable_hashjoin = {}", if self.has_order { "off" } else { "on" })
    }
}

impl KeyAmongTables {
    fn read(parts: Vec<String>) -> Option<Self> {
        let [from, to, head, rest] = <[String; 4]>::try_from(parts).ok()?;
        Some(Self { from: table_named(&from), to: table_named(&to), head, rest })
    }
}
