//! The SQL of the engine's transaction. (The fence has its own few lines, in `fence.rs`.)
//!
//! Every statement takes whole columns as arrays, so its text, its plan and its number of round trips do not depend on
//! how many rows an epoch has. Values are always parameters; the only text inserted here is the quoted name of the
//! schema.
//!
//! Enum columns are sent as text, so that no type has to be looked up. Sets within a row are sent as array literals in
//! text, because `unnest` would flatten arrays of arrays.
//!
//! Rows are locked `for no key update`, which leaves references to them alone. One statement takes all locks on existing
//! rows of a table, in the order of its arrays.
//!
//! Plans are pinned ([`begin`]), which still leaves the choice among B-trees: a guess on tables without statistics.
//! Recent counts once went through the read index on `created_at`, over all connections. So each lookup is written such
//! that one index alone can serve it: names by name, with the type compared as text; mentions by a comparison of rows;
//! connections by such a comparison of dish and attributes, in their order; threads of long histories by an index on a
//! hash of connection and thread, recent counts by one on `uuid_send(connection_id)`. `plans.rs` is the test that reads
//! the plans.

use std::sync::LazyLock;

use tokio_postgres::types::Type;

use super::table::{self, Connections, Entities, Mentions, Purpose};

/// A statement that every session prepares once.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Its name in metrics and spans.
    pub(crate) name: &'static str,
    /// The types of its parameters, so that preparing asks the server for nothing.
    pub(crate) parameters: Vec<Type>,
    text: String,
}

impl Statement {
    /// The text for tables in `schema`, a quoted identifier.
    pub(crate) fn text(&self, schema: &str) -> String {
        self.text.replace("{schema}", schema)
    }
}

macro_rules! statements {
    ($($(#[doc = $doc:literal])* $statement:ident = $name:literal, $parameters:expr, $text:expr;)*) => {
        $(
            $(#[doc = $doc])*
            pub(super) static $statement: LazyLock<Statement> =
                LazyLock::new(|| Statement { name: $name, parameters: $parameters.into(), text: $text.into() });
        )*

        /// All statements.
        pub(super) static ALL: LazyLock<Vec<&'static Statement>> = LazyLock::new(|| vec![$(&$statement),*]);
    };
}

/// The connection of the key `k`.
///
/// A row comparison from both sides, which means equality, together with the order matches `connections_key` and no
/// other index, whatever the planner's statistics say; three equalities would also match the read indexes on restaurant
/// and on dish. The restaurant is compared once, and not from both sides; the scan still begins and ends at the key.
const CONNECTION_BY_KEY: &str = "
                 select l.* from {schema}.connections l
                 where l.restaurant_id = k.restaurant
                   and (l.dish_or_category_id, l.dish_attributes)
                       >= (k.dish, coalesce(k.attributes::uuid[], array[]::uuid[]))
                   and (l.dish_or_category_id, l.dish_attributes)
                       <= (k.dish, coalesce(k.attributes::uuid[], array[]::uuid[]))
                 order by l.dish_or_category_id, l.dish_attributes
                 limit 1";

statements! {
    /// Deletes the row of the previous transaction, whose fate is known, and inserts the new one. Merges ($4) take the
    /// lock exclusively: they wait here for the transactions under way, and all later ones wait for them.
    RECORD_ATTEMPT = "record_attempt", [Type::UUID, Type::UUID_ARRAY, Type::INT8, Type::BOOL],
        "with settled as (delete from {schema}.graphsink_attempts where attempt = any($2)),
              turn as (select case when $4 then pg_catalog.pg_advisory_xact_lock($3)
                                   else pg_catalog.pg_advisory_xact_lock_shared($3) end)
         insert into {schema}.graphsink_attempts (attempt) select $1 from turn
         returning pg_catalog.pg_backend_pid()";

    /// Waits for transactions of other programs that deleted or renamed entities.
    LOCK_GENERATION = "lock_generation", [],
        "select from {schema}.graphsink_generation for no key update";

    /// The generation, which shows whether remembered ids are still valid (`batch/known_names.rs`). No row if it is
    /// unreliable: a trigger is missing or does not always fire, or a foreign trigger may change rows before they are
    /// written. The result includes the transaction of the generation's row, because that row may be recreated, and
    /// those of the triggers, because they may be disabled and enabled.
    READ_GENERATION = "read_generation", [],
        "select concat_ws(' ', g.generation, g.xmin, t.seen, pg_catalog.pg_relation_filenode(t.tgrelid),
                          extract(epoch from pg_catalog.pg_postmaster_start_time()))
         from {schema}.graphsink_generation g
         cross join lateral (
             select t.tgrelid, string_agg(concat_ws(' ', t.oid, t.xmin), ' ' order by t.oid) as seen
             from pg_catalog.pg_trigger t
             where t.tgrelid = (select e.oid from pg_catalog.pg_class e
                                where e.relname = 'entities' and e.relnamespace = (
                                    select own.relnamespace from pg_catalog.pg_class own where own.oid = g.tableoid))
               and not t.tgisinternal
             group by t.tgrelid
             having count(*) filter (where t.tgenabled = 'A' and t.tgname in (
                        'graphsink_entity_deleted', 'graphsink_entity_changed', 'graphsink_entities_truncated')) = 3
                and not bool_or(t.tgtype & 3 = 3 and t.tgtype & 20 <> 0 and t.tgenabled <> 'D')) as t";

    /// Whether names lead to other entities (`batch/novelty.rs`).
    READ_REDIRECTS = "read_redirects", [], "select exists (select from {schema}.entity_redirects)";

    /// Facts are read only if the epoch states a fact about the entity ($3). The type is compared as text so that no
    /// index on it can be chosen: the name is the selective part. `limit 1` stops before redirects are searched if the
    /// entity exists; its name is returned if it was found by a redirect.
    ENTITIES_BY_KEY = "entities_by_key", [Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BOOL_ARRAY], {
        let given: Vec<String> = table::select::<Entities>("e", table::NOT_FACTS)
            .iter()
            .map(|column| format!("case when k.said then {column} end"))
            .collect();
        let (given, read) = (given.join(", "), table::names::<Entities>("e", table::NOT_FACTS).join(", "));
        format!(
            "select k.ord, e.entity_id, {given}, e.merged_into
             from unnest($1::text[], $2::text[], $3::bool[]) with ordinality as k(type, name, said, ord)
             cross join lateral (
                 select e.entity_id, {read}, null::varchar(255) collate \"C\" as merged_into
                 from {{schema}}.entities e where e.name = k.name and e.type::text = k.type
                 union all
                 select e.entity_id, {read}, e.name
                 from {{schema}}.entity_redirects r join {{schema}}.entities e on e.entity_id = r.into_id
                 where r.name = k.name and r.type::text = k.type
                 limit 1) as e"
        )
    };
    ENTITIES_BY_ID = "entities_by_id", [Type::UUID_ARRAY],
        format!(
            "select k.id, e.entity_id, {}, e.type::text, e.name
             from unnest($1::uuid[]) as k(id)
             cross join lateral (
                 select e.* from {{schema}}.entities e where e.entity_id = k.id
                 union all
                 select e.* from {{schema}}.entity_redirects r join {{schema}}.entities e on e.entity_id = r.into_id
                 where r.from_id = k.id
                 limit 1) as e",
            table::select::<Entities>("e", table::NOT_FACTS).join(", ")
        );
    CONNECTION_KEYS_BY_ID = "connection_keys_by_id", [Type::UUID_ARRAY],
        "select k.id, c.restaurant_id, c.dish_or_category_id, c.dish_attributes
         from unnest($1::uuid[]) as k(id)
         cross join lateral (
             select c.restaurant_id, c.dish_or_category_id, c.dish_attributes
             from {schema}.connections c where c.connection_id = k.id
             union all
             select c.restaurant_id, c.dish_or_category_id, c.dish_attributes
             from {schema}.connection_redirects r
             join {schema}.connections c on c.connection_id = r.into_id
             where r.from_id = k.id
             limit 1) as c";

    INSERT_ENTITIES = "insert_entities", table::types::<Entities>(Purpose::Insert),
        table::insert::<Entities>() + " order by k.ord";
    COPY_ENTITIES = "copy_entities", [], table::copy::<Entities>(Purpose::Insert);
    /// Locks in the order of the arrays: each row is locked when it is found, and a row that waited for its lock is read
    /// again.
    LOCK_ENTITIES = "lock_entities", [Type::TEXT_ARRAY, Type::TEXT_ARRAY],
        format!(
            "select k.ord, e.entity_id, {}
             from unnest($1::text[], $2::text[]) with ordinality as k(type, name, ord)
             cross join lateral (
                 select * from {{schema}}.entities l
                 where l.name = k.name and l.type::text = k.type
                 limit 1
                 for no key update) as e
             order by k.ord",
            table::select::<Entities>("e", table::NOT_FACTS).join(", ")
        );
    LOCK_SHARED = "lock_shared", [Type::INT8], "select pg_catalog.pg_advisory_xact_lock_shared($1)";
    LOCK_ALONE = "lock_alone", [Type::INT8], "select pg_catalog.pg_advisory_xact_lock($1)";
    GIVE_UP_PLACE_IDS = "give_up_place_ids", [Type::UUID_ARRAY],
        "update {schema}.entities e set google_place_id = null
         from unnest($1::uuid[]) as k(id) where e.entity_id = k.id";
    UPDATE_ENTITIES = "update_entities", table::types::<Entities>(Purpose::Update),
        table::update::<Entities>("last_updated = now()");

    /// Locks in the order of the keys, which is that of the arrays: each row is locked when it is found, and a row that
    /// waited for its lock is read again.
    LOCK_CONNECTIONS = "lock_connections", [Type::UUID_ARRAY, Type::UUID_ARRAY, Type::TEXT_ARRAY],
        format!(
            "select k.ord, {}
             from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as k(restaurant, dish, attributes, ord)
             cross join lateral ({CONNECTION_BY_KEY} for no key update) as c
             order by k.ord",
            table::select::<Connections>("c", table::CONNECTION_KEY).join(", ")
        );
    /// Connections and mentions of them, found like those that are locked and read (`batch/repeats.rs`). Of the best
    /// mentions it reads the first one's score, and what that depends on: as text, because another program may have
    /// written anything there. With `offset 0` that one is extracted once.
    FIND_REPEATS = "find_repeats",
        [Type::UUID_ARRAY, Type::UUID_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
        format!(
            "select k.ord, c.connection_id, c.categories, c.is_menu_item, c.mention_count, c.total_upvotes,
                    c.recent_mention_count, c.last_mentioned_at, c.activity_level::text, c.best->>'score',
                    c.best->>'upvotes', c.best->>'created_at', c.history_indexed, {}
             from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
                  with ordinality as k(restaurant, dish, attributes, type, id, ord)
             cross join lateral (
                 select found.*, found.top_mentions->0 as best from ({CONNECTION_BY_KEY}) as found offset 0) as c
             join {{schema}}.mentions m
                  on (m.connection_id, m.source_type, m.source_id)
                     >= (c.connection_id, k.type::{{schema}}.mention_source, k.id)
                 and (m.connection_id, m.source_type, m.source_id)
                     <= (c.connection_id, k.type::{{schema}}.mention_source, k.id)",
            table::select::<Mentions>("m", table::MENTION_OF_CONNECTION).join(", ")
        );
    INSERT_CONNECTIONS = "insert_connections", table::types::<Connections>(Purpose::Insert),
        table::insert::<Connections>() + " order by k.ord";
    COPY_CONNECTIONS = "copy_connections", [], table::copy::<Connections>(Purpose::Insert);

    /// A row comparison from both sides, which means equality, matches `mentions_key` and no other index; three
    /// equalities would also match the read index on the source.
    ///
    /// A thread that the mention itself has is not looked up. For others the connection's own flag determines where its
    /// history is looked up: long ones have indexes, others are read as a whole by `mentions_key`. `is not distinct
    /// from` is an equality that no index supports, and excludes hash collisions. `offset 0` has it answered once.
    READ_MENTIONS = "read_mentions",
        [Type::UUID_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BOOL_ARRAY],
        format!(
            "select k.ord, m.mention_id is not null, t.known, {}
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[])
                  with ordinality as k(connection, type, id, thread, indexed, ord)
             left join {{schema}}.mentions m
                  on (m.connection_id, m.source_type, m.source_id)
                     >= (k.connection, k.type::{{schema}}.mention_source, k.id)
                 and (m.connection_id, m.source_type, m.source_id)
                     <= (k.connection, k.type::{{schema}}.mention_source, k.id)
             cross join lateral (
                 select case
                     when k.thread is null then false
                     when m.thread_id is not distinct from k.thread then true
                     when k.indexed then exists (
                         select from {{schema}}.mentions o
                         where o.history_indexed
                           and hashtextextended(o.thread_id, uuid_hash_extended(o.connection_id, 0))
                               = hashtextextended(k.thread, uuid_hash_extended(k.connection, 0))
                           and o.connection_id is not distinct from k.connection
                           and o.thread_id is not distinct from k.thread)
                     else exists (
                         select from {{schema}}.mentions o
                         where o.connection_id = k.connection and o.thread_id is not distinct from k.thread)
                 end
                 offset 0) as t(known)
             where m.mention_id is not null or t.known",
            table::select::<Mentions>("m", table::MENTION_OF_CONNECTION).join(", ")
        );
    /// For a short history the times are checked in the rows, so that the read index on them cannot be used.
    COUNT_RECENT = "count_recent", [Type::UUID_ARRAY, Type::BOOL_ARRAY, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ],
        "select k.ord,
                case when k.indexed then (
                    select count(*)::int4 from {schema}.mentions m
                    where m.history_indexed::int4 = 1
                      and (uuid_send(m.connection_id), m.created_at) >= (uuid_send(k.connection), $3)
                      and (uuid_send(m.connection_id), m.created_at) <= (uuid_send(k.connection), $4))
                else (
                    select (count(*) filter (where m.created_at >= $3 and m.created_at <= $4))::int4
                    from {schema}.mentions m where m.connection_id = k.connection) end
         from unnest($1::uuid[], $2::bool[]) with ordinality as k(connection, indexed, ord)";
    INSERT_MENTIONS = "insert_mentions", table::types::<Mentions>(Purpose::Insert), table::insert::<Mentions>();
    COPY_MENTIONS = "copy_mentions", [], table::copy::<Mentions>(Purpose::Insert);
    UPDATE_MENTIONS = "update_mentions", table::types::<Mentions>(Purpose::Update),
        table::update::<Mentions>("processed_at = now()");
    /// For connections whose histories become long.
    INDEX_HISTORIES = "index_histories", [Type::UUID_ARRAY],
        "update {schema}.mentions m set history_indexed = true
         from unnest($1::uuid[]) as k(connection) where m.connection_id = k.connection and not m.history_indexed";

    REREAD_THREADS = "reread_threads", [Type::UUID_ARRAY],
        "select k.ord, (select count(distinct m.thread_id)::int4 from {schema}.mentions m
                        where m.connection_id = k.connection)
         from unnest($1::uuid[]) with ordinality as k(connection, ord)";
    /// `offset 0` prevents the server from scanning the read index on times until it finds the connection.
    REREAD_NEWEST = "reread_newest", [Type::UUID_ARRAY, Type::BOOL_ARRAY],
        "select k.ord,
                case when k.indexed then (
                    select max(m.created_at) from {schema}.mentions m
                    where m.history_indexed::int4 = 1 and uuid_send(m.connection_id) = uuid_send(k.connection))
                else (
                    select max(n.created_at) from (
                        select m.created_at from {schema}.mentions m where m.connection_id = k.connection offset 0) as n) end
         from unnest($1::uuid[], $2::bool[]) with ordinality as k(connection, indexed, ord)";
    /// Reads three more than are kept: the engine ranks them again, so that only one place decides by the last bits of
    /// a logarithm. 5184000 s are the 60 days of the score's decay.
    REREAD_TOP = "reread_top", [Type::UUID_ARRAY],
        format!(
            "select k.ord, {}
             from unnest($1::uuid[]) with ordinality as k(connection, ord)
             cross join lateral (
                 select {}
                 from {{schema}}.mentions m
                 where m.connection_id = k.connection
                 order by sign(m.upvotes) desc,
                          sign(m.upvotes) * (ln(greatest(abs(m.upvotes::float8), 1))
                                             + extract(epoch from m.created_at)::float8 / 5184000) desc,
                          m.created_at desc, m.source_id, m.source_type
                 limit 8) as t",
            table::select::<Mentions>("t", table::MENTION_OF_CONNECTION).join(", "),
            table::names::<Mentions>("m", table::MENTION_OF_CONNECTION).join(", ")
        );
    UPDATE_CONNECTIONS = "update_connections", table::types::<Connections>(Purpose::Update),
        table::update::<Connections>("last_updated = now()");
    /// One step of a walk over all connections, in lock order.
    CONNECTIONS_AFTER = "connections_after", [Type::UUID, Type::UUID, Type::TEXT, Type::INT8],
        "select c.restaurant_id, c.dish_or_category_id, c.dish_attributes
         from {schema}.connections c
         where (c.restaurant_id, c.dish_or_category_id, c.dish_attributes) > ($1, $2, $3::uuid[])
         order by c.restaurant_id, c.dish_or_category_id, c.dish_attributes
         limit $4";
}

/// The beginning of every transaction. The settings apply to this transaction only (`set local`), so that a pooler
/// between engine and server does not matter.
///
/// The shape of the plans is pinned: every statement is a loop over the rows of an epoch with one index lookup each,
/// whatever the statistics say. Without this the planner, on tables without fresh statistics, looks names up through a
/// trigram GIN index (bitmap scans are all that GIN can do) or builds a hash table over a whole table. Without sorts, a
/// condition with an order leaves only the index that has this order. Apart from this the planner chooses the B-tree.
/// On an almost empty table it may choose a wrong one, so the conditions leave it little choice (see the migration of
/// the tables), and plans are renewed as the tables grow (`Session::plans_are_stale`).
///
/// A server that receives nothing more from a transaction would keep its locks until it detects the network failure, by
/// default after two hours, and the next attempt waits for them. So the server's idle-in-transaction timeout
/// (`idle_timeout_ms`) equals the engine's own limit for the server.
pub(crate) fn begin(statement_timeout_ms: u128, lock_timeout_ms: u128, idle_timeout_ms: u128) -> String {
    format!(
        "begin isolation level read committed read write;
         set local statement_timeout = {statement_timeout_ms};
         set local lock_timeout = {lock_timeout_ms};
         set local idle_in_transaction_session_timeout = {idle_timeout_ms};
         set local plan_cache_mode = force_generic_plan;
         set local enable_nestloop = on;
         set local enable_indexscan = on;
         set local enable_indexonlyscan = on;
         set local enable_seqscan = off;
         set local enable_bitmapscan = off;
         set local enable_hashjoin = off;
         set local enable_mergejoin = off;
         set local enable_sort = off;
         set local enable_incremental_sort = off;
         set local jit = off"
    )
}

/// A name as a quoted identifier.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_types_every_parameter_and_names_only_the_schema() {
        for statement in &*ALL {
            let (name, text, parameters) = (statement.name, statement.text("\"s\""), statement.parameters.len());
            assert!(parameters == 0 || text.contains(&format!("${parameters}")), "{name}");
            assert!(!text.contains(&format!("${}", parameters + 1)), "{name}");
            assert!(!text.contains('{'), "{name}");
        }
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|statement| statement.name).collect();
        assert_eq!(names.len(), ALL.len(), "names are unique");
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
    }
}
