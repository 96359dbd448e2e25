//! `insert_into … values(&rows)` with `on_conflict`, in batches of 1,000 mentions. Sixteen columns times the rows of a
//! batch stay below the 65,535 parameters of a statement.
//!
//! diesel has no `where` for `do update`, so an entity with aliases or attributes is rewritten each time.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::dsl::sql;
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::batch::{self, Connection, Ids, Word, Words};
use crate::merge;
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::{Database, SESSION};
use graphsink_benches::workload::{Record, Workload};

/// The number of mentions in a batch.
const BATCH: usize = 1_000;

/// Bulk inserts of a query builder.
#[derive(Debug)]
pub(crate) struct DieselAsync;

impl Contestant for DieselAsync {
    fn name(&self) -> &'static str {
        "diesel_async_1000"
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let mut session = AsyncPgConnection::establish(&database.url()).await?;
            session.batch_execute(SESSION).await?;
            let start = Instant::now();
            for batch in workload.records.chunks(BATCH) {
                // `transaction` requires another type of error.
                session.batch_execute("begin").await?;
                write(&mut session, batch, workload.as_of).await?;
                session.batch_execute("commit").await?;
            }
            Ok(Measured::new(start.elapsed()))
        }
        .boxed()
    }
}

async fn write(session: &mut AsyncPgConnection, batch: &[Record], as_of: Timestamp) -> Result<()> {
    let words = Words::of(batch);
    let mut ids = insert_plain(session, &words).await?;
    upsert_described(session, &words, &mut ids).await?;
    let connections = batch::connections(batch, &ids, as_of);
    if !connections.is_empty() {
        let connection_ids = upsert_connections(session, &connections).await?;
        insert_mentions(session, &connections, &connection_ids).await?;
    }
    Ok(())
}

async fn insert_plain<'a>(session: &mut AsyncPgConnection, words: &Words<'a>) -> Result<Ids<'a>> {
    if words.plain.is_empty() {
        return Ok(Ids::new());
    }
    let rows: Vec<NewWord<'_>> = words
        .plain
        .iter()
        .map(|(of_type, name)| NewWord { entity_id: Uuid::now_v7(), name, type_: Label(of_type) })
        .collect();
    diesel::insert_into(entities::table)
        .values(&rows)
        .on_conflict((entities::name, entities::type_))
        .do_nothing()
        .execute(session)
        .await?;
    select_ids(session, &words.plain.iter().copied().collect::<Vec<_>>()).await
}

async fn upsert_described<'a>(session: &mut AsyncPgConnection, words: &Words<'a>, ids: &mut Ids<'a>) -> Result<()> {
    let rows: Vec<NewEntity<'_>> = words
        .described
        .iter()
        .map(|((of_type, name), row)| NewEntity {
            entity_id: Uuid::now_v7(),
            name,
            type_: Label(of_type),
            aliases: row.aliases.iter().copied().collect(),
            restaurant_attributes: row.attribute_ids(ids).into_iter().collect(),
        })
        .collect();
    let [aliases, attributes, updated] = merge::DESCRIBED;
    diesel::insert_into(entities::table)
        .values(&rows)
        .on_conflict((entities::name, entities::type_))
        .do_update()
        .set((
            entities::aliases.eq(sql::<Array<Text>>(aliases.1)),
            entities::restaurant_attributes.eq(sql::<Array<SqlUuid>>(attributes.1)),
            entities::last_updated.eq(sql::<Timestamptz>(updated.1)),
        ))
        .execute(session)
        .await?;
    ids.extend(select_ids(session, &words.described.keys().copied().collect::<Vec<_>>()).await?);
    Ok(())
}

async fn select_ids<'a>(session: &mut AsyncPgConnection, keys: &[Word<'a>]) -> Result<Ids<'a>> {
    let names: Vec<&str> = keys.iter().map(|key| key.1).collect();
    let found: Vec<(OwnedLabel, String, Uuid)> = entities::table
        .select((entities::type_, entities::name, entities::entity_id))
        .filter(entities::name.eq_any(names))
        .load(session)
        .await?;
    let by_key: std::collections::HashMap<(&str, &str), Uuid> =
        found.iter().map(|(of_type, name, id)| ((&*of_type.0, &**name), *id)).collect();
    let id = |key: &Word<'a>| by_key.get(&(key.0, key.1)).copied();
    keys.iter().map(|key| Ok((*key, id(key).ok_or("an entity that was just written is not there")?))).collect()
}

/// Returns the ids in the order of `connections`: each row is inserted or updated.
async fn upsert_connections(session: &mut AsyncPgConnection, connections: &[Connection<'_>]) -> Result<Vec<Uuid>> {
    let rows = connections.iter().map(|row| {
        Ok(NewConnection {
            connection_id: row.id,
            restaurant_id: row.restaurant,
            dish_or_category_id: row.dish,
            dish_attributes: &row.dish_attributes,
            categories: row.categories.iter().copied().collect(),
            is_menu_item: row.is_menu_item,
            mention_count: row.metrics.mention_count,
            total_upvotes: row.metrics.total_upvotes,
            source_diversity: row.metrics.source_diversity,
            recent_mention_count: row.metrics.recent_mention_count,
            last_mentioned_at: row.metrics.last_mentioned_at,
            activity_level: Label(row.metrics.activity_level.as_str()),
            top_mentions: serde_json::to_value(&row.metrics.top_mentions)?,
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let [categories, menu, mentions, upvotes, threads, recent, newest, level, top, updated] = merge::CONNECTION;
    let ids: Vec<Uuid> = diesel::insert_into(connections::table)
        .values(&rows)
        .on_conflict((connections::restaurant_id, connections::dish_or_category_id, connections::dish_attributes))
        .do_update()
        .set((
            connections::categories.eq(sql::<Array<SqlUuid>>(categories.1)),
            connections::is_menu_item.eq(sql::<Bool>(menu.1)),
            connections::mention_count.eq(sql::<Integer>(mentions.1)),
            connections::total_upvotes.eq(sql::<BigInt>(upvotes.1)),
            connections::source_diversity.eq(sql::<Integer>(threads.1)),
            connections::recent_mention_count.eq(sql::<Integer>(recent.1)),
            connections::last_mentioned_at.eq(sql::<Nullable<Timestamptz>>(newest.1)),
            connections::activity_level.eq(sql::<sql_types::ActivityLevel>(level.1)),
            connections::top_mentions.eq(sql::<Jsonb>(top.1)),
            connections::last_updated.eq(sql::<Timestamptz>(updated.1)),
        ))
        .returning(connections::connection_id)
        .get_results(session)
        .await?;
    if ids.len() != rows.len() {
        return Err("an upsert that always writes gave fewer rows than it got".into());
    }
    Ok(ids)
}

async fn insert_mentions(
    session: &mut AsyncPgConnection,
    connections: &[Connection<'_>],
    connection_ids: &[Uuid],
) -> Result<()> {
    let rows: Vec<NewMention<'_>> = connections
        .iter()
        .zip(connection_ids)
        .flat_map(|(row, connection_id)| {
            row.mentions.iter().map(|(id, record)| NewMention::of(*id, *connection_id, record))
        })
        .collect();
    diesel::insert_into(mentions::table)
        .values(&rows)
        .on_conflict((mentions::connection_id, mentions::source_type, mentions::source_id))
        .do_nothing()
        .execute(session)
        .await?;
    Ok(())
}

// The tables below require these `pub`.
#[allow(unreachable_pub)]
mod sql_types {
    #[derive(Debug, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "entity_type"))]
    pub struct EntityType;

    #[derive(Debug, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "activity_level"))]
    pub struct ActivityLevel;

    #[derive(Debug, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "mention_source"))]
    pub struct MentionSource;
}

/// The label of any enum.
#[derive(Debug, Clone, Copy, AsExpression)]
#[diesel(sql_type = sql_types::EntityType, sql_type = sql_types::ActivityLevel, sql_type = sql_types::MentionSource)]
struct Label<'a>(&'a str);

impl Label<'_> {
    fn write(self, output: &mut Output<'_, '_, Pg>) -> serialize::Result {
        output.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl ToSql<sql_types::EntityType, Pg> for Label<'_> {
    fn to_sql<'b>(&'b self, output: &mut Output<'b, '_, Pg>) -> serialize::Result {
        self.write(output)
    }
}

impl ToSql<sql_types::ActivityLevel, Pg> for Label<'_> {
    fn to_sql<'b>(&'b self, output: &mut Output<'b, '_, Pg>) -> serialize::Result {
        self.write(output)
    }
}

impl ToSql<sql_types::MentionSource, Pg> for Label<'_> {
    fn to_sql<'b>(&'b self, output: &mut Output<'b, '_, Pg>) -> serialize::Result {
        self.write(output)
    }
}

#[derive(Debug, FromSqlRow)]
struct OwnedLabel(String);

impl FromSql<sql_types::EntityType, Pg> for OwnedLabel {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(std::str::from_utf8(value.as_bytes())?.to_owned()))
    }
}

// Columns that have defaults and are never written are left out.

diesel::table! {
    use diesel::sql_types::{Array, Text, Timestamptz, Uuid};
    use super::sql_types::EntityType;

    entities (entity_id) {
        entity_id -> Uuid,
        name -> Text,
        #[sql_name = "type"]
        type_ -> EntityType,
        aliases -> Array<Text>,
        restaurant_attributes -> Array<Uuid>,
        last_updated -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Timestamptz, Uuid};
    use super::sql_types::ActivityLevel;

    connections (connection_id) {
        connection_id -> Uuid,
        restaurant_id -> Uuid,
        dish_or_category_id -> Uuid,
        dish_attributes -> Array<Uuid>,
        categories -> Array<Uuid>,
        is_menu_item -> Bool,
        mention_count -> Integer,
        total_upvotes -> BigInt,
        source_diversity -> Integer,
        recent_mention_count -> Integer,
        last_mentioned_at -> Nullable<Timestamptz>,
        activity_level -> ActivityLevel,
        top_mentions -> Jsonb,
        last_updated -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::MentionSource;

    mentions (mention_id) {
        mention_id -> Uuid,
        connection_id -> Uuid,
        source_type -> MentionSource,
        source_id -> Text,
        thread_id -> Text,
        source_url -> Text,
        subreddit -> Text,
        content_excerpt -> Text,
        author -> Nullable<Text>,
        upvotes -> Integer,
        created_at -> Timestamptz,
        observed_at -> Timestamptz,
    }
}

#[derive(Insertable)]
#[diesel(table_name = entities)]
struct NewWord<'a> {
    entity_id: Uuid,
    name: &'a str,
    type_: Label<'a>,
}

#[derive(Insertable)]
#[diesel(table_name = entities)]
struct NewEntity<'a> {
    entity_id: Uuid,
    name: &'a str,
    type_: Label<'a>,
    aliases: Vec<&'a str>,
    restaurant_attributes: Vec<Uuid>,
}

#[derive(Insertable)]
#[diesel(table_name = connections)]
struct NewConnection<'a> {
    connection_id: Uuid,
    restaurant_id: Uuid,
    dish_or_category_id: Uuid,
    dish_attributes: &'a [Uuid],
    categories: Vec<Uuid>,
    is_menu_item: bool,
    mention_count: i32,
    total_upvotes: i64,
    source_diversity: i32,
    recent_mention_count: i32,
    last_mentioned_at: Option<Timestamp>,
    activity_level: Label<'a>,
    top_mentions: serde_json::Value,
}

#[derive(Insertable)]
#[diesel(table_name = mentions)]
struct NewMention<'a> {
    mention_id: Uuid,
    connection_id: Uuid,
    source_type: Label<'a>,
    source_id: &'a str,
    thread_id: &'a str,
    source_url: &'a str,
    subreddit: &'a str,
    content_excerpt: &'a str,
    author: Option<&'a str>,
    upvotes: i32,
    created_at: Timestamp,
    observed_at: Timestamp,
}

impl<'a> NewMention<'a> {
    fn of(mention_id: Uuid, connection_id: Uuid, record: &'a Record) -> Self {
        let mention = &record.mention;
        Self {
            mention_id,
            connection_id,
            source_type: Label(mention.source_type.as_str()),
            source_id: &mention.source_id,
            thread_id: &mention.thread_id,
            source_url: &mention.source_url,
            subreddit: &mention.subreddit,
            content_excerpt: &mention.content_excerpt,
            author: mention.author.as_deref(),
            upvotes: mention.upvotes,
            created_at: mention.created_at,
            observed_at: mention.observed_at,
        }
    }
}
