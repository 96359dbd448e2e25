//! The SQL of the engine's transaction. (The fence has its own few lines, in `fence.rs`.)
//!
//! Every statement takes whole columns as arrays, so its text, its plan and its number of round
//! trips do not depend on how many rows an epoch has. Values are parameters without exception; the
//! only text put together here is the quoted name of the schema.
//!
//! Enum columns travel as text, so that no type has to be looked up. Sets within a row travel as
//! array literals in text, because arrays of arrays would be flattened by `unnest`.
//!
//! `insert .. on conflict do update .. where false`, of entities, is the idiom "insert or lock": a row that is
//! not there is inserted, one that is there is locked (`for no key update`) without a new version.
//! It takes all locks of a table in one statement, in the order of its rows.

use tokio_postgres::types::Type;

/// A statement, prepared once per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Statement {
    RecordAttempt,
    EntitiesByKey,
    EntitiesById,
    ConnectionKeysById,
    InsertOrLockEntities,
    LockShared,
    LockAlone,
    GiveUpPlaceIds,
    UpdateEntities,
    LockConnections,
    InsertConnections,
    CopyConnections,
    ReadMentions,
    KnownThreads,
    CountRecent,
    InsertMentions,
    CopyMentions,
    UpdateMentions,
    RereadThreads,
    RereadNewest,
    RereadTop,
    UpdateConnections,
    ConnectionsAfter,
}

impl Statement {
    /// All statements, in the order of the enum.
    pub(crate) const ALL: [Self; 23] = [
        Self::RecordAttempt,
        Self::EntitiesByKey,
        Self::EntitiesById,
        Self::ConnectionKeysById,
        Self::InsertOrLockEntities,
        Self::LockShared,
        Self::LockAlone,
        Self::GiveUpPlaceIds,
        Self::UpdateEntities,
        Self::LockConnections,
        Self::InsertConnections,
        Self::CopyConnections,
        Self::ReadMentions,
        Self::KnownThreads,
        Self::CountRecent,
        Self::InsertMentions,
        Self::CopyMentions,
        Self::UpdateMentions,
        Self::RereadThreads,
        Self::RereadNewest,
        Self::RereadTop,
        Self::UpdateConnections,
        Self::ConnectionsAfter,
    ];

    /// The name in metrics and spans.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RecordAttempt => "record_attempt",
            Self::EntitiesByKey => "entities_by_key",
            Self::EntitiesById => "entities_by_id",
            Self::ConnectionKeysById => "connection_keys_by_id",
            Self::InsertOrLockEntities => "insert_or_lock_entities",
            Self::LockShared => "lock_shared",
            Self::LockAlone => "lock_alone",
            Self::GiveUpPlaceIds => "give_up_place_ids",
            Self::UpdateEntities => "update_entities",
            Self::LockConnections => "lock_connections",
            Self::InsertConnections => "insert_connections",
            Self::CopyConnections => "copy_connections",
            Self::ReadMentions => "read_mentions",
            Self::KnownThreads => "known_threads",
            Self::CountRecent => "count_recent",
            Self::InsertMentions => "insert_mentions",
            Self::CopyMentions => "copy_mentions",
            Self::UpdateMentions => "update_mentions",
            Self::RereadThreads => "reread_threads",
            Self::RereadNewest => "reread_newest",
            Self::RereadTop => "reread_top",
            Self::UpdateConnections => "update_connections",
            Self::ConnectionsAfter => "connections_after",
        }
    }

    /// The statement's text for tables in `schema`, a quoted identifier.
    pub(crate) fn text(self, schema: &str) -> String {
        self.template().replace("{schema}", schema)
    }

    // A table of texts: splitting it would only hide which text belongs to which name.
    #[allow(clippy::too_many_lines)]
    fn template(self) -> &'static str {
        match self {
            // The row of the transaction before, whose fate is known, goes as the new one comes. Merges ($4) are alone:
            // they wait here for the transactions under way, and all later ones wait for them.
            Self::RecordAttempt => {
                "with settled as (delete from {schema}.graphsink_attempts where attempt = any($2)),
                      turn as (select case when $4 then pg_catalog.pg_advisory_xact_lock($3)
                                           else pg_catalog.pg_advisory_xact_lock_shared($3) end)
                 insert into {schema}.graphsink_attempts (attempt) select $1 from turn"
            }
            // Facts are read only where the epoch says something of the entity ($3). The type is
            // compared as text so that no index on it can be chosen: the name is what selects.
            // `limit 1` stops before redirects are looked at, where there is an entity; its name is given
            // where it was found by a redirect.
            Self::EntitiesByKey => {
                "select k.ord, e.entity_id,
                        case when k.said then e.aliases end,
                        case when k.said then e.restaurant_attributes end,
                        case when k.said then (e.latitude * 100000000)::bigint end,
                        case when k.said then (e.longitude * 100000000)::bigint end,
                        case when k.said then e.address end,
                        case when k.said then e.google_place_id end,
                        case when k.said then e.restaurant_metadata end,
                        case when k.said then e.place_observed_at end, e.merged_into
                 from unnest($1::text[], $2::text[], $3::bool[]) with ordinality as k(type, name, said, ord)
                 cross join lateral (
                     select e.entity_id, e.aliases, e.restaurant_attributes, e.latitude, e.longitude, e.address,
                            e.google_place_id, e.restaurant_metadata, e.place_observed_at,
                            null::varchar(255) collate \"C\" as merged_into
                     from {schema}.entities e where e.name = k.name and e.type::text = k.type
                     union all
                     select e.entity_id, e.aliases, e.restaurant_attributes, e.latitude, e.longitude, e.address,
                            e.google_place_id, e.restaurant_metadata, e.place_observed_at, e.name
                     from {schema}.entity_redirects r join {schema}.entities e on e.entity_id = r.into_id
                     where r.name = k.name and r.type::text = k.type
                     limit 1) as e"
            }
            Self::EntitiesById => {
                "select k.id, e.entity_id, e.aliases, e.restaurant_attributes,
                        (e.latitude * 100000000)::bigint, (e.longitude * 100000000)::bigint,
                        e.address, e.google_place_id, e.restaurant_metadata, e.place_observed_at,
                        e.type::text, e.name
                 from unnest($1::uuid[]) as k(id)
                 cross join lateral (
                     select e.* from {schema}.entities e where e.entity_id = k.id
                     union all
                     select e.* from {schema}.entity_redirects r join {schema}.entities e on e.entity_id = r.into_id
                     where r.from_id = k.id
                     limit 1) as e"
            }
            Self::ConnectionKeysById => {
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
                     limit 1) as c"
            }
            // Without google_place_id: it is a lock of its own, taken in step 3 and in its own order.
            Self::InsertOrLockEntities => {
                "insert into {schema}.entities as e (entity_id, type, name, aliases, restaurant_attributes, latitude,
                        longitude, address, restaurant_metadata, place_observed_at)
                 select k.id, k.type::{schema}.entity_type, k.name, k.aliases::text[], k.attributes::uuid[],
                        k.latitude::numeric / 100000000, k.longitude::numeric / 100000000, k.address,
                        k.metadata::jsonb, k.observed_at
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                             $8::text[], $9::text[], $10::timestamptz[]) with ordinality
                      as k(id, type, name, aliases, attributes, latitude, longitude, address, metadata, observed_at,
                           ord)
                 order by k.ord
                 on conflict (name, type) do update set last_updated = e.last_updated where false
                 returning entity_id"
            }
            Self::LockShared => "select pg_catalog.pg_advisory_xact_lock_shared($1)",
            Self::LockAlone => "select pg_catalog.pg_advisory_xact_lock($1)",
            Self::GiveUpPlaceIds => {
                "update {schema}.entities e set google_place_id = null
                 from unnest($1::uuid[]) as k(id) where e.entity_id = k.id"
            }
            Self::UpdateEntities => {
                "update {schema}.entities e
                 set aliases = k.aliases::text[], restaurant_attributes = k.attributes::uuid[],
                     latitude = k.latitude::numeric / 100000000, longitude = k.longitude::numeric / 100000000,
                     address = k.address, google_place_id = k.google_place_id,
                     restaurant_metadata = k.metadata::jsonb, place_observed_at = k.observed_at,
                     last_updated = now()
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
                             $8::text[], $9::timestamptz[])
                      as k(id, aliases, attributes, latitude, longitude, address, google_place_id, metadata,
                           observed_at)
                 where e.entity_id = k.id"
            }
            Self::InsertConnections => {
                "insert into {schema}.connections (connection_id, restaurant_id, dish_or_category_id,
                        dish_attributes, categories, is_menu_item, mention_count, total_upvotes, source_diversity,
                        recent_mention_count, last_mentioned_at, activity_level, top_mentions)
                 select k.id, k.restaurant, k.dish, coalesce(k.attributes::uuid[], array[]::uuid[]),
                        coalesce(k.categories::uuid[], array[]::uuid[]), k.is_menu_item,
                        k.mention_count, k.total_upvotes, k.source_diversity, k.recent_mention_count,
                        k.last_mentioned_at, k.activity_level::{schema}.activity_level, k.top_mentions
                 from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bool[], $7::int4[],
                             $8::int8[], $9::int4[], $10::int4[], $11::timestamptz[], $12::text[], $13::jsonb[])
                      with ordinality
                      as k(id, restaurant, dish, attributes, categories, is_menu_item, mention_count, total_upvotes,
                           source_diversity, recent_mention_count, last_mentioned_at, activity_level, top_mentions,
                           ord)
                 order by k.ord"
            }
            // Locked in the order of the keys: rows are sorted before they are locked, and one that waited for its lock
            // is read again.
            Self::LockConnections => {
                "select k.ord, c.connection_id, c.categories, c.is_menu_item, c.mention_count, c.total_upvotes,
                        c.source_diversity, c.recent_mention_count, c.last_mentioned_at, c.activity_level::text,
                        c.top_mentions::text
                 from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as k(restaurant, dish, attributes, ord)
                 join {schema}.connections c on c.restaurant_id = k.restaurant and c.dish_or_category_id = k.dish
                      and c.dish_attributes = coalesce(k.attributes::uuid[], array[]::uuid[])
                 order by k.ord
                 for no key update of c"
            }
            Self::CopyConnections => {
                "copy {schema}.connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes,
                        categories, is_menu_item, mention_count, total_upvotes, source_diversity,
                        recent_mention_count, last_mentioned_at, activity_level, top_mentions)
                 from stdin binary"
            }
            // A comparison of rows from both sides, which is equality, matches mentions_key and no
            // other index; three equalities would also match the read index on the source.
            Self::ReadMentions => {
                "select k.ord, m.mention_id, m.source_type::text, m.source_id, m.thread_id, m.source_url, m.subreddit,
                        m.content_excerpt, m.author, m.upvotes, m.created_at, m.observed_at
                 from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as k(connection, type, id, ord)
                 join {schema}.mentions m
                      on (m.connection_id, m.source_type, m.source_id)
                         >= (k.connection, k.type::{schema}.mention_source, k.id)
                     and (m.connection_id, m.source_type, m.source_id)
                         <= (k.connection, k.type::{schema}.mention_source, k.id)"
            }
            // `limit 1` keeps the planner from joining the other way round; `is not distinct from` is an
            // equality that no index serves, for what the hash alone cannot tell.
            Self::KnownThreads => {
                "select k.ord
                 from unnest($1::uuid[], $2::text[]) with ordinality as k(connection, thread, ord)
                 cross join lateral (select 1 from {schema}.mentions m
                                     where hashtextextended(m.thread_id, uuid_hash_extended(m.connection_id, 0))
                                           = hashtextextended(k.thread, uuid_hash_extended(k.connection, 0))
                                       and m.connection_id is not distinct from k.connection
                                       and m.thread_id is not distinct from k.thread
                                     limit 1) as known"
            }
            Self::CountRecent => {
                "select k.ord, (select count(*)::int4 from {schema}.mentions m
                                where (uuid_send(m.connection_id), m.created_at) >= (uuid_send(k.connection), $2)
                                  and (uuid_send(m.connection_id), m.created_at) <= (uuid_send(k.connection), $3))
                 from unnest($1::uuid[]) with ordinality as k(connection, ord)"
            }
            Self::InsertMentions => {
                "insert into {schema}.mentions (mention_id, connection_id, source_type, source_id, thread_id,
                        source_url, subreddit, content_excerpt, author, upvotes, created_at, observed_at)
                 select k.id, k.connection, k.source_type::{schema}.mention_source, k.source_id, k.thread_id,
                        k.source_url, k.subreddit, k.content_excerpt, k.author, k.upvotes, k.created_at, k.observed_at
                 from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::text[], $10::int4[], $11::timestamptz[], $12::timestamptz[])
                      as k(id, connection, source_type, source_id, thread_id, source_url, subreddit, content_excerpt,
                           author, upvotes, created_at, observed_at)"
            }
            Self::CopyMentions => {
                "copy {schema}.mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url,
                        subreddit, content_excerpt, author, upvotes, created_at, observed_at)
                 from stdin binary"
            }
            Self::UpdateMentions => {
                "update {schema}.mentions m
                 set thread_id = k.thread_id, source_url = k.source_url, subreddit = k.subreddit,
                     content_excerpt = k.content_excerpt, author = k.author, upvotes = k.upvotes,
                     created_at = k.created_at, observed_at = k.observed_at, processed_at = now()
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[],
                             $8::timestamptz[], $9::timestamptz[])
                      as k(id, thread_id, source_url, subreddit, content_excerpt, author, upvotes, created_at,
                           observed_at)
                 where m.mention_id = k.id"
            }
            Self::RereadThreads => {
                "select k.ord, (select count(distinct m.thread_id)::int4 from {schema}.mentions m
                                where m.connection_id = k.connection)
                 from unnest($1::uuid[]) with ordinality as k(connection, ord)"
            }
            Self::RereadNewest => {
                "select k.ord, (select max(m.created_at) from {schema}.mentions m
                                where uuid_send(m.connection_id) = uuid_send(k.connection))
                 from unnest($1::uuid[]) with ordinality as k(connection, ord)"
            }
            // Three more than are kept: the engine ranks them again, so that the last bits of a
            // logarithm decide in one place only. 5184000 s are the 60 days of the score's decay.
            Self::RereadTop => {
                "select k.ord, t.mention_id, t.source_type, t.source_id, t.thread_id, t.source_url, t.subreddit,
                        t.content_excerpt, t.author, t.upvotes, t.created_at, t.observed_at
                 from unnest($1::uuid[]) with ordinality as k(connection, ord)
                 cross join lateral (
                     select m.mention_id, m.source_type::text, m.source_id, m.thread_id, m.source_url, m.subreddit,
                            m.content_excerpt, m.author, m.upvotes, m.created_at, m.observed_at
                     from {schema}.mentions m
                     where m.connection_id = k.connection
                     order by sign(m.upvotes) desc,
                              sign(m.upvotes) * (ln(greatest(abs(m.upvotes::float8), 1))
                                                 + extract(epoch from m.created_at)::float8 / 5184000) desc,
                              m.created_at desc, m.source_id, m.source_type
                     limit 8) as t"
            }
            Self::UpdateConnections => {
                "update {schema}.connections c
                 set categories = coalesce(k.categories::uuid[], array[]::uuid[]), is_menu_item = k.is_menu_item,
                     mention_count = k.mention_count, total_upvotes = k.total_upvotes,
                     source_diversity = k.source_diversity, recent_mention_count = k.recent_mention_count,
                     last_mentioned_at = k.last_mentioned_at,
                     activity_level = k.activity_level::{schema}.activity_level,
                     top_mentions = k.top_mentions, last_updated = now()
                 from unnest($1::uuid[], $2::text[], $3::bool[], $4::int4[], $5::int8[], $6::int4[], $7::int4[],
                             $8::timestamptz[], $9::text[], $10::jsonb[])
                      as k(id, categories, is_menu_item, mention_count, total_upvotes, source_diversity,
                           recent_mention_count, last_mentioned_at, activity_level, top_mentions)
                 where c.connection_id = k.id"
            }
            // One step of a walk over all connections, in lock order.
            Self::ConnectionsAfter => {
                "select c.restaurant_id, c.dish_or_category_id, c.dish_attributes
                 from {schema}.connections c
                 where (c.restaurant_id, c.dish_or_category_id, c.dish_attributes) > ($1, $2, $3::uuid[])
                 order by c.restaurant_id, c.dish_or_category_id, c.dish_attributes
                 limit $4"
            }
        }
    }

    /// The types of the parameters, so that preparing asks the server for nothing.
    pub(crate) fn parameter_types(self) -> Vec<Type> {
        match self {
            Self::RecordAttempt => vec![Type::UUID, Type::UUID_ARRAY, Type::INT8, Type::BOOL],
            Self::CopyMentions | Self::CopyConnections => Vec::new(),
            Self::LockShared | Self::LockAlone => vec![Type::INT8],
            Self::EntitiesByKey => vec![Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BOOL_ARRAY],
            Self::GiveUpPlaceIds
            | Self::EntitiesById
            | Self::ConnectionKeysById
            | Self::RereadThreads
            | Self::RereadNewest
            | Self::RereadTop => {
                vec![Type::UUID_ARRAY]
            }
            Self::InsertOrLockEntities => vec![
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::INT8_ARRAY,
                Type::INT8_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
            ],
            Self::UpdateEntities => vec![
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::INT8_ARRAY,
                Type::INT8_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
            ],
            Self::InsertConnections => vec![
                Type::UUID_ARRAY,
                Type::UUID_ARRAY,
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::BOOL_ARRAY,
                Type::INT4_ARRAY,
                Type::INT8_ARRAY,
                Type::INT4_ARRAY,
                Type::INT4_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
                Type::TEXT_ARRAY,
                Type::JSONB_ARRAY,
            ],
            Self::LockConnections => vec![Type::UUID_ARRAY, Type::UUID_ARRAY, Type::TEXT_ARRAY],
            Self::ReadMentions => vec![Type::UUID_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
            Self::KnownThreads => vec![Type::UUID_ARRAY, Type::TEXT_ARRAY],
            Self::CountRecent => vec![Type::UUID_ARRAY, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ],
            Self::InsertMentions => vec![
                Type::UUID_ARRAY,
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::INT4_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
            ],
            Self::UpdateMentions => vec![
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::INT4_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
            ],
            Self::UpdateConnections => vec![
                Type::UUID_ARRAY,
                Type::TEXT_ARRAY,
                Type::BOOL_ARRAY,
                Type::INT4_ARRAY,
                Type::INT8_ARRAY,
                Type::INT4_ARRAY,
                Type::INT4_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
                Type::TEXT_ARRAY,
                Type::JSONB_ARRAY,
            ],
            Self::ConnectionsAfter => vec![Type::UUID, Type::UUID, Type::TEXT, Type::INT8],
        }
    }
}

/// What opens every transaction. The settings hold for this transaction alone (`set local`), so
/// that a pooler between engine and server does not matter.
///
/// The shape of the plans is pinned: every statement is a loop over the rows of an epoch with one
/// index lookup each, whatever the statistics say. Without this the planner, on tables without
/// fresh statistics, looks names up through a trigram GIN index (bitmap scans are all that GIN can
/// do) or builds a hash table over a whole table. Which B-tree is used is left to the planner; on a
/// table that is next to empty it may pick a wrong one where there is a choice, so conditions leave it
/// little (see the migration of the tables), and plans are made anew as the tables grow
/// (`Session::plans_are_stale`).
///
/// A server that hears nothing more of a transaction would keep its locks for as long as the network's
/// failure goes unnoticed on its side, two hours by default; the transaction that is tried next waits
/// for them. So the server waits for the engine (`idle_timeout_ms`) as it is waited for.
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
         set local jit = off"
    )
}

/// A name as a quoted identifier.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Ids as the text of a `uuid[]`.
pub(crate) fn uuid_array<'a>(ids: impl IntoIterator<Item = &'a uuid::Uuid>) -> String {
    let mut text = String::from("{");
    for id in ids {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }
    text.push('}');
    text
}

/// Texts as the text of a `text[]`, every element quoted.
pub(crate) fn text_array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from("{");
    for element in texts {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        for character in element.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_are_quoted() {
        assert_eq!(text_array([]), "{}");
        assert_eq!(text_array(["a", "b,c", "d\"e\\f", "NULL", "{}"]), r#"{"a","b,c","d\"e\\f","NULL","{}"}"#);
        assert_eq!(uuid_array([]), "{}");
        let id = uuid::Uuid::from_u128(1);
        let text = "00000000-0000-0000-0000-000000000001";
        assert_eq!(uuid_array([&id, &id]), format!("{{{text},{text}}}"));
    }

    #[test]
    fn every_statement_types_every_parameter_and_names_only_the_schema() {
        for statement in Statement::ALL {
            let text = statement.text("\"s\"");
            let types = statement.parameter_types();
            assert!(types.is_empty() || text.contains(&format!("${}", types.len())), "{statement:?}");
            assert!(!text.contains(&format!("${}", types.len() + 1)), "{statement:?}");
            assert!(!text.contains('{'), "{statement:?}");
        }
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
    }
}
