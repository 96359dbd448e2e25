//! A careful hand-written bulk writer: batches, coalesced in memory, upserted with `unnest`, over one connection or
//! two, four round trips for each batch.
//!
//! Figures are added up (`mention_count = c.mention_count + excluded.mention_count`), so a redelivered batch counts
//! twice, and so does a thread of two batches. This makes it cheap: it need not read the stored rows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use crate::batch::{self, Connection, Ids, Words, text_array};
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::Database;
use graphsink_benches::rows::{top_mentions, uuid_array};
use graphsink_benches::workload::{Record, Workload};

/// Hand-written upserts in batches of this many mentions.
#[derive(Debug)]
pub(crate) struct Unnest {
    pub(crate) batch: usize,
    /// One connection or two.
    pub(crate) connections: usize,
}

impl Contestant for Unnest {
    fn name(&self) -> &'static str {
        match (self.connections, self.batch) {
            (1, 1_000) => "unnest_1000",
            (1, _) => "unnest_5000",
            (_, 1_000) => "unnest_2x1000",
            _ => "unnest_2x5000",
        }
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let mut writers = Vec::new();
            for part in split(&workload.records, self.connections) {
                writers.push((BatchWriter::new(database.connect().await?, self.connections > 1).await?, part));
            }
            let start = Instant::now();
            let tasks: Vec<_> = writers
                .into_iter()
                .map(|(writer, part)| tokio::spawn(writer.write_all(part, self.batch, workload.as_of)))
                .collect();
            let mut deadlocks = 0;
            for task in tasks {
                deadlocks += task.await??;
            }
            let mut measured = Measured::new(start.elapsed());
            if deadlocks > 0 {
                measured.notes.push(format!("{deadlocks} deadlocks, retried"));
            }
            Ok(measured)
        }
        .boxed()
    }
}

/// A part for each connection, with restaurants of its own: connections and mentions never conflict.
fn split(records: &[Record], parts: usize) -> Vec<Vec<Record>> {
    if parts == 1 {
        return vec![records.to_vec()];
    }
    let mut split = vec![Vec::new(); parts];
    for record in records {
        let mut hasher = DefaultHasher::new();
        record.restaurant.hash(&mut hasher);
        split[hasher.finish() as usize % parts].push(record.clone());
    }
    split
}

struct BatchWriter {
    client: Client,
    /// Words are shared between connections. They are committed separately, so that no other connection waits for the
    /// rest of the batch; a word without references does no harm.
    words_apart: bool,
    words: Statement,
    described: Statement,
    ids: Statement,
    connections: Statement,
    mentions: Statement,
}

type Parameters<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];

impl BatchWriter {
    async fn new(client: Client, words_apart: bool) -> Result<Self> {
        let words = client.prepare(WORDS).await?;
        let described = client.prepare(DESCRIBED).await?;
        let ids = client.prepare(IDS).await?;
        let connections = client.prepare(CONNECTIONS).await?;
        let mentions = client.prepare(MENTIONS).await?;
        Ok(Self { client, words_apart, words, described, ids, connections, mentions })
    }

    /// Writes batch by batch; returns the number of retries after deadlocks.
    async fn write_all(self, records: Vec<Record>, batch: usize, as_of: Timestamp) -> Result<usize> {
        let mut deadlocks = 0;
        for batch in records.chunks(batch) {
            while let Err(error) = self.write(batch, as_of).await {
                let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
                if code != Some(&SqlState::T_R_DEADLOCK_DETECTED) {
                    return Err(error);
                }
                deadlocks += 1;
                self.client.batch_execute("rollback").await?;
            }
        }
        Ok(deadlocks)
    }

    async fn write(&self, batch: &[Record], as_of: Timestamp) -> Result<()> {
        let words = Words::of(batch);
        let mut ids = self.insert_plain(&words).await?;
        self.upsert_described(&words, &mut ids).await?;
        let connections = batch::connections(batch, &ids, as_of);
        let connection_ids = self.upsert_connections(&connections, as_of).await?;
        self.insert_mentions(&connections, &connection_ids).await
    }

    /// Writes every entity that is only a word; afterwards the transaction is open.
    async fn insert_plain<'a>(&self, words: &Words<'a>) -> Result<Ids<'a>> {
        let new_ids: Vec<Uuid> = words.plain.iter().map(|_| Uuid::now_v7()).collect();
        let (types, names): (Vec<&str>, Vec<&str>) = words.plain.iter().copied().unzip();
        let new_words: Parameters<'_, 3> = [&new_ids, &types, &names];
        let keys: Parameters<'_, 2> = [&types, &names];
        let rows = if self.words_apart {
            let (_, rows, ()) = futures::try_join!(
                self.client.execute(&self.words, &new_words),
                self.client.query(&self.ids, &keys),
                self.client.batch_execute("begin"),
            )?;
            rows
        } else {
            let ((), _, rows) = futures::try_join!(
                self.client.batch_execute("begin"),
                self.client.execute(&self.words, &new_words),
                self.client.query(&self.ids, &keys),
            )?;
            rows
        };
        let keys: Vec<_> = words.plain.iter().copied().collect();
        Ok(rows.iter().map(|row| (keys[ordinal(row)], row.get(1))).collect())
    }

    async fn upsert_described<'a>(&self, words: &Words<'a>, ids: &mut Ids<'a>) -> Result<()> {
        let rows = &words.described;
        let (types, names): (Vec<&str>, Vec<&str>) = rows.keys().copied().unzip();
        let new_ids: Vec<Uuid> = names.iter().map(|_| Uuid::now_v7()).collect();
        let aliases: Vec<String> = rows.values().map(|row| text_array(&row.aliases)).collect();
        let attributes: Vec<String> = rows.values().map(|row| uuid_array(&row.attribute_ids(ids))).collect();
        let described: Parameters<'_, 5> = [&new_ids, &types, &names, &aliases, &attributes];
        let keys: Parameters<'_, 2> = [&types, &names];
        let (_, found) =
            futures::try_join!(self.client.execute(&self.described, &described), self.client.query(&self.ids, &keys),)?;
        let keys: Vec<_> = rows.keys().copied().collect();
        ids.extend(found.iter().map(|row| (keys[ordinal(row)], row.get::<_, Uuid>(1))));
        Ok(())
    }

    /// Returns the ids in the order of `connections`: each row is inserted or updated.
    async fn upsert_connections(&self, connections: &[Connection<'_>], as_of: Timestamp) -> Result<Vec<Uuid>> {
        let new_ids: Vec<Uuid> = connections.iter().map(|row| row.id).collect();
        let restaurants: Vec<Uuid> = connections.iter().map(|row| row.restaurant).collect();
        let dishes: Vec<Uuid> = connections.iter().map(|row| row.dish).collect();
        let attributes: Vec<String> = connections.iter().map(|row| uuid_array(&row.dish_attributes)).collect();
        let categories: Vec<String> = connections.iter().map(|row| uuid_array(&row.categories)).collect();
        let menu: Vec<bool> = connections.iter().map(|row| row.is_menu_item).collect();
        let metrics = || connections.iter().map(|row| &row.metrics);
        let mention_counts: Vec<i32> = metrics().map(|metrics| metrics.mention_count).collect();
        let upvotes: Vec<i64> = metrics().map(|metrics| metrics.total_upvotes).collect();
        let threads: Vec<i32> = metrics().map(|metrics| metrics.source_diversity).collect();
        let recent: Vec<i32> = metrics().map(|metrics| metrics.recent_mention_count).collect();
        let newest: Vec<Option<Timestamp>> = metrics().map(|metrics| metrics.last_mentioned_at).collect();
        let levels: Vec<&str> = metrics().map(|metrics| metrics.activity_level.as_str()).collect();
        let tops: Vec<String> = metrics().map(top_mentions).collect();
        let week_ago = as_of - TimeDelta::days(7);
        let rows = self
            .client
            .query(
                &self.connections,
                &[
                    &new_ids,
                    &restaurants,
                    &dishes,
                    &attributes,
                    &categories,
                    &mention_counts,
                    &upvotes,
                    &threads,
                    &recent,
                    &newest,
                    &levels,
                    &tops,
                    &week_ago,
                    &menu,
                ],
            )
            .await?;
        if rows.len() != connections.len() {
            return Err("an upsert that always writes gave fewer rows than it got".into());
        }
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Writes the mentions, and commits.
    async fn insert_mentions(&self, connections: &[Connection<'_>], connection_ids: &[Uuid]) -> Result<()> {
        let rows: Vec<(Uuid, Uuid, &Record)> = connections
            .iter()
            .zip(connection_ids)
            .flat_map(|(row, id)| row.mentions.iter().map(move |(mention, record)| (*mention, *id, *record)))
            .collect();
        let ids: Vec<Uuid> = rows.iter().map(|row| row.0).collect();
        let owners: Vec<Uuid> = rows.iter().map(|row| row.1).collect();
        let mentions = || rows.iter().map(|row| &row.2.mention);
        let types: Vec<&str> = mentions().map(|mention| mention.source_type.as_str()).collect();
        let source_ids: Vec<&str> = mentions().map(|mention| &*mention.source_id).collect();
        let threads: Vec<&str> = mentions().map(|mention| &*mention.thread_id).collect();
        let urls: Vec<&str> = mentions().map(|mention| &*mention.source_url).collect();
        let subreddits: Vec<&str> = mentions().map(|mention| &*mention.subreddit).collect();
        let excerpts: Vec<&str> = mentions().map(|mention| &*mention.content_excerpt).collect();
        let authors: Vec<Option<&str>> = mentions().map(|mention| mention.author.as_deref()).collect();
        let upvotes: Vec<i32> = mentions().map(|mention| mention.upvotes).collect();
        let created_at: Vec<Timestamp> = mentions().map(|mention| mention.created_at).collect();
        let observed_at: Vec<Timestamp> = mentions().map(|mention| mention.observed_at).collect();
        let parameters: Parameters<'_, 12> = [
            &ids,
            &owners,
            &types,
            &source_ids,
            &threads,
            &urls,
            &subreddits,
            &excerpts,
            &authors,
            &upvotes,
            &created_at,
            &observed_at,
        ];
        futures::try_join!(self.client.execute(&self.mentions, &parameters), self.client.batch_execute("commit"),)?;
        Ok(())
    }
}

fn ordinal(row: &Row) -> usize {
    row.get::<_, i64>(0) as usize - 1
}

pub(crate) const WORDS: &str = "
    insert into entities (entity_id, type, name)
    select k.id, k.type::entity_type, k.name from unnest($1::uuid[], $2::text[], $3::text[]) as k(id, type, name)
    on conflict (name, type) do nothing";

/// Types are compared as text for the reason given in `per_unit`.
pub(crate) const IDS: &str = "
    select k.ord, e.entity_id from unnest($1::text[], $2::text[]) with ordinality as k(type, name, ord)
    join entities e on e.name = k.name and e.type::text = k.type";

pub(crate) const DESCRIBED: &str = "
    insert into entities as e (entity_id, type, name, aliases, restaurant_attributes)
    select k.id, k.type::entity_type, k.name, k.aliases::text[], k.attributes::uuid[]
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) as k(id, type, name, aliases, attributes)
    on conflict (name, type) do update
    set aliases = (select coalesce(array_agg(distinct a collate \"C\"), '{}') from unnest(e.aliases || excluded.aliases) as a),
        restaurant_attributes = (select coalesce(array_agg(distinct a), '{}')
                                 from unnest(e.restaurant_attributes || excluded.restaurant_attributes) as a),
        last_updated = now()
    where not (e.aliases @> excluded.aliases and e.restaurant_attributes @> excluded.restaurant_attributes)";

pub(crate) const CONNECTIONS: &str = "
    insert into connections as c (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories,
                                  is_menu_item, mention_count, total_upvotes, source_diversity, recent_mention_count,
                                  last_mentioned_at, activity_level, top_mentions)
    select k.id, k.restaurant, k.dish, k.attributes::uuid[], k.categories::uuid[], k.menu, k.mentions, k.upvotes,
           k.threads, k.recent, k.newest, k.level::activity_level, k.top::jsonb
    from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int4[], $7::int8[], $8::int4[],
                $9::int4[], $10::timestamptz[], $11::text[], $12::text[], $14::bool[])
         as k(id, restaurant, dish, attributes, categories, mentions, upvotes, threads, recent, newest, level, top, menu)
    on conflict (restaurant_id, dish_or_category_id, dish_attributes) do update
    set categories = case when c.categories @> excluded.categories then c.categories
                          else (select array_agg(distinct a) from unnest(c.categories || excluded.categories) as a) end,
        is_menu_item = c.is_menu_item or excluded.is_menu_item,
        mention_count = c.mention_count + excluded.mention_count,
        total_upvotes = c.total_upvotes + excluded.total_upvotes,
        source_diversity = c.source_diversity + excluded.source_diversity,
        recent_mention_count = c.recent_mention_count + excluded.recent_mention_count,
        last_mentioned_at = greatest(c.last_mentioned_at, excluded.last_mentioned_at),
        activity_level = case when greatest(c.last_mentioned_at, excluded.last_mentioned_at) >= $13::timestamptz
                              then 'active' else 'normal' end::activity_level,
        top_mentions = (select jsonb_agg(t.value order by t.score desc)
                        from (select t.value, (t.value ->> 'score')::float8 as score
                              from jsonb_array_elements(c.top_mentions || excluded.top_mentions) as t(value)
                              order by score desc limit 5) as t),
        last_updated = now()
    returning connection_id";

pub(crate) const MENTIONS: &str = "
    insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                          content_excerpt, author, upvotes, created_at, observed_at)
    select k.id, k.connection, k.type::mention_source, k.source_id, k.thread_id, k.source_url, k.subreddit, k.excerpt,
           k.author, k.upvotes, k.created_at, k.observed_at
    from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::int4[], $11::timestamptz[], $12::timestamptz[])
         as k(id, connection, type, source_id, thread_id, source_url, subreddit, excerpt, author, upvotes, created_at,
              observed_at)
    on conflict (connection_id, source_type, source_id) do nothing";
