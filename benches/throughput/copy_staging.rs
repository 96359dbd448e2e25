//! A careful bulk writer: binary COPY of each batch into temporary tables, then one `insert … select … on conflict` for
//! each table, all sent at once over one connection.
//!
//! The server resolves names, so no id has to be returned. Figures are added up, as in `unnest`, and are wrong after a
//! second delivery.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::batch::Words;
use crate::copy::{Rows, copy};
use crate::merge;
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::Database;
use graphsink_benches::metrics::ConnectionMetrics;
use graphsink_benches::workload::{Record, Workload};

/// The number of mentions in a batch.
const BATCH: usize = 5_000;

/// COPY to staging tables.
#[derive(Debug)]
pub(crate) struct CopyStaging;

impl Contestant for CopyStaging {
    fn name(&self) -> &'static str {
        "copy_staging"
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let writer = Writer::new(database.connect().await?).await?;
            let start = Instant::now();
            for batch in workload.records.chunks(BATCH) {
                writer.write(batch, workload.as_of).await?;
            }
            Ok(Measured::new(start.elapsed()))
        }
        .boxed()
    }
}

struct Writer {
    client: Client,
    words: Statement,
    described: Statement,
    keys: Statement,
    connections: Statement,
    mentions: Statement,
}

impl Writer {
    async fn new(client: Client) -> Result<Self> {
        client.batch_execute(STAGING).await?;
        let words = client.prepare(WORDS).await?;
        let described = format!("{DESCRIBED} {} where {}", merge::set(&merge::DESCRIBED), merge::DESCRIBED_CHANGES);
        let described = client.prepare(&described).await?;
        let keys = client.prepare(KEYS).await?;
        let connections = client.prepare(&format!("{CONNECTIONS} {}", merge::set(&merge::CONNECTION))).await?;
        let mentions = client.prepare(MENTIONS).await?;
        Ok(Self { client, words, described, keys, connections, mentions })
    }

    async fn write(&self, batch: &[Record], as_of: Timestamp) -> Result<()> {
        let words = Words::of(batch);
        let connections = coalesce(batch);
        let mut of_mentions = Rows::default();
        let mut of_connections = Rows::default();
        for (number, (key, group)) in connections.iter().enumerate() {
            encode_connection(&mut of_connections, number as i32, key, group, as_of)?;
            for (id, record) in &group.mentions {
                encode_mention(&mut of_mentions, *id, number as i32, record);
            }
        }
        let (of_words, of_connections, of_mentions) =
            (encode_words(&words), of_connections.finish(), of_mentions.finish());
        let client = &self.client;
        // A temporary table is emptied by each commit.
        client.batch_execute("begin").await?;
        copy(client, "copy staged_entities from stdin (format binary)", &of_words).await?;
        copy(client, "copy staged_connections from stdin (format binary)", &of_connections).await?;
        copy(client, "copy staged_mentions from stdin (format binary)", &of_mentions).await?;
        futures::try_join!(
            client.execute(&self.words, &[]),
            client.execute(&self.described, &[]),
            client.execute(&self.keys, &[]),
            client.execute(&self.connections, &[]),
            client.execute(&self.mentions, &[]),
            client.batch_execute("commit"),
        )?;
        Ok(())
    }
}

/// A restaurant, a dish and dish attributes, by their names.
type Key<'a> = (&'a str, &'a str, BTreeSet<&'a str>);

#[derive(Default)]
struct Group<'a> {
    categories: BTreeSet<&'a str>,
    is_menu_item: bool,
    mentions: Vec<(Uuid, &'a Record)>,
}

fn coalesce(batch: &[Record]) -> Vec<(Key<'_>, Group<'_>)> {
    let mut groups: HashMap<Key<'_>, Group<'_>> = HashMap::new();
    for record in batch {
        let Some(dish) = record.dish.as_deref() else { continue };
        let attributes = record.dish_attributes.iter().map(|name| &**name).collect();
        let group = groups.entry((&record.restaurant, dish, attributes)).or_default();
        group.categories.extend(record.categories.iter().map(|name| &**name));
        group.is_menu_item |= record.is_menu_item;
        group.mentions.push((Uuid::now_v7(), record));
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    groups
}

fn encode_words(words: &Words<'_>) -> bytes::Bytes {
    let mut rows = Rows::default();
    let none = BTreeSet::new();
    let plain = words.plain.iter().map(|word| (word, false, &none, &none));
    let described = words.described.iter().map(|(word, row)| (word, true, &row.aliases, &row.attributes));
    for ((of_type, name), described, aliases, attributes) in plain.chain(described) {
        let aliases: Vec<&str> = aliases.iter().copied().collect();
        let attributes: Vec<&str> = attributes.iter().copied().collect();
        rows.row(6);
        rows.field(&Uuid::now_v7(), &Type::UUID);
        rows.field(of_type, &Type::TEXT);
        rows.field(name, &Type::TEXT);
        rows.field(&described, &Type::BOOL);
        rows.field(&aliases, &Type::TEXT_ARRAY);
        rows.field(&attributes, &Type::TEXT_ARRAY);
    }
    rows.finish()
}

fn encode_connection(rows: &mut Rows, number: i32, key: &Key<'_>, group: &Group<'_>, as_of: Timestamp) -> Result<()> {
    let mentions = group.mentions.iter().map(|(id, record)| (*id, &record.mention));
    let metrics = ConnectionMetrics::from_mentions(mentions, as_of);
    let attributes: Vec<&str> = key.2.iter().copied().collect();
    let categories: Vec<&str> = group.categories.iter().copied().collect();
    let top = serde_json::to_value(&metrics.top_mentions)?;
    rows.row(14);
    rows.field(&number, &Type::INT4);
    rows.field(&Uuid::now_v7(), &Type::UUID);
    rows.field(&key.0, &Type::TEXT);
    rows.field(&key.1, &Type::TEXT);
    rows.field(&attributes, &Type::TEXT_ARRAY);
    rows.field(&categories, &Type::TEXT_ARRAY);
    rows.field(&group.is_menu_item, &Type::BOOL);
    rows.field(&metrics.mention_count, &Type::INT4);
    rows.field(&metrics.total_upvotes, &Type::INT8);
    rows.field(&metrics.source_diversity, &Type::INT4);
    rows.field(&metrics.recent_mention_count, &Type::INT4);
    rows.field(&metrics.last_mentioned_at, &Type::TIMESTAMPTZ);
    rows.field(&metrics.activity_level.as_str(), &Type::TEXT);
    rows.field(&top, &Type::JSONB);
    Ok(())
}

fn encode_mention(rows: &mut Rows, id: Uuid, connection: i32, record: &Record) {
    let mention = &record.mention;
    rows.row(12);
    rows.field(&id, &Type::UUID);
    rows.field(&connection, &Type::INT4);
    rows.field(&mention.source_type.as_str(), &Type::TEXT);
    rows.field(&&*mention.source_id, &Type::TEXT);
    rows.field(&&*mention.thread_id, &Type::TEXT);
    rows.field(&mention.source_url, &Type::TEXT);
    rows.field(&mention.subreddit, &Type::TEXT);
    rows.field(&mention.content_excerpt, &Type::TEXT);
    rows.field(&mention.author, &Type::TEXT);
    rows.field(&mention.upvotes, &Type::INT4);
    rows.field(&mention.created_at, &Type::TIMESTAMPTZ);
    rows.field(&mention.observed_at, &Type::TIMESTAMPTZ);
}

/// A primary key where rows are looked up: the planner does not know the number of rows.
const STAGING: &str = "
    create temporary table staged_entities (
        id uuid, type text, name text, described bool, aliases text[], attributes text[]) on commit delete rows;
    create temporary table staged_connections (
        number int, id uuid, restaurant text, dish text, attributes text[], categories text[], menu bool,
        mentions int, upvotes bigint, threads int, recent int, newest timestamptz, level text,
        top jsonb) on commit delete rows;
    create temporary table staged_keys (
        number int primary key, restaurant uuid, dish uuid, attributes uuid[]) on commit delete rows;
    create temporary table staged_mentions (
        id uuid, connection int, type text, source_id text, thread_id text, source_url text, subreddit text,
        excerpt text, author text, upvotes int, created_at timestamptz, observed_at timestamptz)
        on commit delete rows";

const WORDS: &str = "
    insert into entities (entity_id, type, name)
    select id, type::entity_type, name from staged_entities where not described
    on conflict (name, type) do nothing";

/// Types are compared as text for the reason given in `per_unit`.
const DESCRIBED: &str = "
    insert into entities (entity_id, type, name, aliases, restaurant_attributes)
    select s.id, s.type::entity_type, s.name, s.aliases,
           case when s.attributes = '{}' then '{}'
                else (select array_agg(a.entity_id) from entities a
                      where a.name = any(s.attributes) and a.type::text = 'restaurant_attribute') end
    from staged_entities s where s.described
    on conflict (name, type) do update";

/// The ids that names stand for, once for both statements that need them. They are looked up row by row: a join's plan
/// would depend on statistics, and once read all rows of one side for each row of the other.
const KEYS: &str = "
    insert into staged_keys
    select s.number,
           (select r.entity_id from entities r where r.name = s.restaurant and r.type::text = 'restaurant'),
           (select d.entity_id from entities d where d.name = s.dish and d.type::text = 'dish_or_category'),
           case when s.attributes = '{}' then '{}'
                else (select array_agg(a.entity_id order by a.entity_id) from entities a
                      where a.name = any(s.attributes) and a.type::text = 'dish_attribute') end
    from staged_connections s";

const CONNECTIONS: &str = "
    insert into connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories, is_menu_item,
                             mention_count, total_upvotes, source_diversity, recent_mention_count, last_mentioned_at,
                             activity_level, top_mentions)
    select s.id, k.restaurant, k.dish, k.attributes,
           case when s.categories = '{}' then '{}'
                else (select array_agg(a.entity_id order by a.entity_id) from entities a
                      where a.name = any(s.categories) and a.type::text = 'dish_or_category') end,
           s.menu, s.mentions, s.upvotes, s.threads, s.recent, s.newest, s.level::activity_level, s.top
    from staged_connections s join staged_keys k using (number)
    on conflict (restaurant_id, dish_or_category_id, dish_attributes) do update";

const MENTIONS: &str = "
    insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                          content_excerpt, author, upvotes, created_at, observed_at)
    select s.id,
           (select c.connection_id
            from staged_keys k join connections c on c.restaurant_id = k.restaurant and c.dish_or_category_id = k.dish
                                                 and c.dish_attributes = k.attributes
            where k.number = s.connection),
           s.type::mention_source, s.source_id, s.thread_id, s.source_url, s.subreddit, s.excerpt,
           s.author, s.upvotes, s.created_at, s.observed_at
    from staged_mentions s
    on conflict (connection_id, source_type, source_id) do nothing";
