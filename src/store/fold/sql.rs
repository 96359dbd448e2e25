//! The SQL that only folds use.
//!
//! Not prepared once per connection like [`Statement`](super::super::statement::Statement)s: folds are rare. Otherwise
//! the rules are the same: whole columns as arrays, values as parameters, and only the schema's name is inserted into
//! the text.

use super::super::table::{self, Mentions};

/// One statement: its name in metrics and spans, and its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sql(pub(super) &'static str, pub(super) &'static str);

/// The finders below need GIN indexes, which only bitmap scans can use. While they run, only the entries and rows that
/// a plan reads have a cost: otherwise, on tables without statistics, the fixed part of a GIN index's cost (its pending
/// list, since PostgreSQL 16 also its descent) makes the server read all restaurants through another index.
pub(super) const ALLOW_BITMAPS: &str = "set local enable_bitmapscan = on;
     set local random_page_cost = 0; set local seq_page_cost = 0;
     set local cpu_tuple_cost = 100; set local cpu_index_tuple_cost = 100";
pub(super) const FORBID_BITMAPS: &str = "set local enable_bitmapscan = off;
     set local random_page_cost to default; set local seq_page_cost to default;
     set local cpu_tuple_cost to default; set local cpu_index_tuple_cost to default";

/// Folds find rows by their ids and sort them by their keys before they lock them. Without sorts, which epochs disable,
/// the server would read the whole index of the keys instead.
pub(super) const ALLOW_SORTS: &str = "set local enable_sort = on; set local enable_incremental_sort = on";

/// Locks in the order of [`EntityKey`](crate::record::EntityKey). Not `for no key update`: no new reference to the rows
/// may begin.
pub(super) const LOCK_ENTITIES: Sql = Sql(
    "merge_lock_entities",
    "select e.entity_id from {schema}.entities e where e.entity_id = any($1::uuid[])
     order by e.type, e.name for update",
);

// Finders of rows that name a folded entity. Without the read indexes each of these reads a whole table.
/// One attribute at a time, as a row: for an array that is unknown at planning the server estimates that any restaurant
/// may have one of its elements, and reads all of them through another index of restaurants. `offset 0` keeps the query
/// for one row separate: as a join, PostgreSQL 16 and later read all restaurants once and compare them with each row.
pub(super) const RESTAURANTS_WITH_ATTRIBUTES: Sql = Sql(
    "merge_find_restaurants",
    "select distinct e.entity_id
     from unnest($1::uuid[]) as k(attribute)
     cross join lateral (
         select e.entity_id from {schema}.entities e
         where e.type = 'restaurant' and e.restaurant_attributes @> array[k.attribute]
         offset 0) as e",
);
/// Connections and their keys.
macro_rules! connections_where {
    ($condition:literal) => {
        Sql(
            "merge_find_connections",
            concat!(
                "select c.connection_id, c.restaurant_id, c.dish_or_category_id, c.dish_attributes
                 from {schema}.connections c where ",
                $condition
            ),
        )
    };
}
pub(super) const CONNECTIONS_OF_RESTAURANTS: Sql = connections_where!("c.restaurant_id = any($1::uuid[])");
pub(super) const CONNECTIONS_OF_DISHES: Sql = connections_where!("c.dish_or_category_id = any($1::uuid[])");
pub(super) const CONNECTIONS_WITH_CATEGORIES: Sql = connections_where!("c.categories && $1::uuid[]");
pub(super) const CONNECTIONS_WITH_ATTRIBUTES: Sql = connections_where!("c.dish_attributes && $1::uuid[]");

/// Connections that already have the keys.
pub(super) const CONNECTIONS_BY_KEY: Sql = Sql(
    "merge_find_connections",
    "select c.connection_id
     from unnest($1::uuid[], $2::uuid[], $3::text[]) as k(restaurant, dish, attributes)
     join {schema}.connections c on c.restaurant_id = k.restaurant and c.dish_or_category_id = k.dish
          and c.dish_attributes = coalesce(k.attributes::uuid[], array[]::uuid[])",
);

/// Locks in the order of [`ConnectionKey`](crate::record::ConnectionKey).
pub(super) const LOCK_CONNECTIONS: Sql = Sql(
    "merge_lock_connections",
    "select c.connection_id, c.restaurant_id, c.dish_or_category_id, c.dish_attributes, c.categories, c.is_menu_item,
            c.mention_count, c.history_indexed
     from {schema}.connections c where c.connection_id = any($1::uuid[])
     order by c.restaurant_id, c.dish_or_category_id, c.dish_attributes for update",
);

/// Mentions that are in a connection ($1) and also in the connection into which it is folded ($2): both rows.
pub(super) const DUPLICATES: &str = "merge_find_duplicates";
/// The text of [`DUPLICATES`].
pub(super) fn duplicates() -> String {
    let columns = ["m", "d"].map(|alias| table::select::<Mentions>(alias, table::MENTION_OF_CONNECTION).join(", "));
    format!(
        "select {}
         from unnest($1::uuid[], $2::uuid[]) as k(other, stays)
         join {{schema}}.mentions m on m.connection_id = k.other
         join {{schema}}.mentions d
              on (d.connection_id, d.source_type, d.source_id) >= (k.stays, m.source_type, m.source_id)
             and (d.connection_id, d.source_type, d.source_id) <= (k.stays, m.source_type, m.source_id)",
        columns.join(", ")
    )
}
pub(super) const DELETE_MENTIONS: Sql =
    Sql("merge_delete_mentions", "delete from {schema}.mentions where mention_id = any($1::uuid[])");
/// The moved mentions get entries in the indexes for long histories, whatever their new history.
pub(super) const MOVE_MENTIONS: Sql = Sql(
    "merge_move_mentions",
    "update {schema}.mentions m set connection_id = k.stays, history_indexed = true
     from unnest($1::uuid[], $2::uuid[]) as k(other, stays) where m.connection_id = k.other",
);
pub(super) const DELETE_CONNECTIONS: Sql =
    Sql("merge_delete_connections", "delete from {schema}.connections where connection_id = any($1::uuid[])");
pub(super) const MOVE_CONNECTIONS: Sql = Sql(
    "merge_move_connections",
    "update {schema}.connections c
     set restaurant_id = k.restaurant, dish_or_category_id = k.dish,
         dish_attributes = coalesce(k.attributes::uuid[], array[]::uuid[]),
         categories = coalesce(k.categories::uuid[], array[]::uuid[]), is_menu_item = k.is_menu_item,
         last_updated = now()
     from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bool[])
          as k(id, restaurant, dish, attributes, categories, is_menu_item)
     where c.connection_id = k.id",
);

/// The figures of all mentions of a connection, except the best mentions. Recent mentions are those from $2 to $3.
pub(super) const COUNT_MENTIONS: Sql = Sql(
    "merge_count_mentions",
    "select n.mentions, n.upvotes, n.threads, n.newest, n.recent
     from unnest($1::uuid[]) with ordinality as k(connection, ord)
     cross join lateral (
         select count(*)::int4 as mentions, coalesce(sum(m.upvotes), 0)::int8 as upvotes,
                count(distinct m.thread_id)::int4 as threads, max(m.created_at) as newest,
                (count(*) filter (where m.created_at >= $2 and m.created_at <= $3))::int4 as recent
         from {schema}.mentions m where m.connection_id = k.connection) as n
     order by k.ord",
);

pub(super) const DELETE_ENTITIES: Sql =
    Sql("merge_delete_entities", "delete from {schema}.entities where entity_id = any($1::uuid[])");

/// Repoints redirects that lead to a row being folded to its new target.
macro_rules! turn {
    ($redirects:literal) => {
        Sql(
            "merge_redirect",
            concat!(
                "update {schema}.",
                $redirects,
                " r set into_id = k.into_id
                 from unnest($1::uuid[], $2::uuid[]) as k(from_id, into_id) where r.into_id = k.from_id"
            ),
        )
    };
}
pub(super) const TURN_ENTITY_REDIRECTS: Sql = turn!("entity_redirects");
pub(super) const TURN_CONNECTION_REDIRECTS: Sql = turn!("connection_redirects");
/// A key that was reused after its entity was folded belongs to the later entity.
pub(super) const FREE_ENTITY_KEYS: Sql = Sql(
    "merge_redirect",
    "update {schema}.entity_redirects r set name = null
     from unnest($1::text[], $2::text[]) as k(type, name) where r.name = k.name and r.type::text = k.type",
);
pub(super) const ADD_ENTITY_REDIRECTS: Sql = Sql(
    "merge_redirect",
    "insert into {schema}.entity_redirects (from_id, type, name, into_id)
     select k.from_id, k.type::{schema}.entity_type, k.name, k.into_id
     from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) as k(from_id, type, name, into_id)
     on conflict (from_id) do update set name = excluded.name, into_id = excluded.into_id",
);
pub(super) const ADD_CONNECTION_REDIRECTS: Sql = Sql(
    "merge_redirect",
    "insert into {schema}.connection_redirects (from_id, into_id)
     select k.from_id, k.into_id from unnest($1::uuid[], $2::uuid[]) as k(from_id, into_id)
     on conflict (from_id) do update set into_id = excluded.into_id",
);
/// The sequence's name is a value here, because it is given as text.
pub(super) const ADVANCE_GENERATION: Sql = Sql("merge_generation", "select nextval(($1::text)::regclass)");
