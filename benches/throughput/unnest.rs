//! What a careful user writes by hand for bulk: batches, coalesced in memory, upserted with
//! `unnest`, over one connection, four round trips a batch.
//!
//! Figures are added up (`mention_count = c.mention_count + excluded.mention_count`), so a
//! redelivered batch counts twice, and a thread that two batches speak of counts twice as well.
//! That is what makes it cheap: it need not know what is there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ::graphsink::{ConnectionMetrics, EntityType, Timestamp};
use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use crate::contestant::{Contestant, Figures, Measured, Result};
use crate::database::Database;
use crate::rows::{top_mentions, uuid_array};
use crate::workload::{Record, Workload};

/// Hand-written upserts in batches of so many mentions.
#[derive(Debug)]
pub(crate) struct Unnest {
    pub(crate) batch: usize,
}

impl Contestant for Unnest {
    fn name(&self) -> &'static str {
        if self.batch == 1_000 { "unnest_1000" } else { "unnest_5000" }
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let writer = BatchWriter::new(database.connect().await?).await?;
            let start = Instant::now();
            for batch in workload.records.chunks(self.batch) {
                writer.write(batch, workload.as_of).await?;
            }
            Ok(Measured::new(start.elapsed()))
        }
        .boxed()
    }
}

struct BatchWriter {
    client: Client,
    words: Statement,
    restaurants: Statement,
    ids: Statement,
    connections: Statement,
    mentions: Statement,
}

type Parameters<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];
type Ids<'a> = HashMap<(&'static str, &'a str), Uuid>;

impl BatchWriter {
    async fn new(client: Client) -> Result<Self> {
        let words = client.prepare(WORDS).await?;
        let restaurants = client.prepare(RESTAURANTS).await?;
        let ids = client.prepare(IDS).await?;
        let connections = client.prepare(CONNECTIONS).await?;
        let mentions = client.prepare(MENTIONS).await?;
        Ok(Self { client, words, restaurants, ids, connections, mentions })
    }

    async fn write(&self, batch: &[Record], as_of: Timestamp) -> Result<()> {
        let words = words(batch);
        let mut ids = self.insert_words(&words).await?;
        ids.extend(self.upsert_restaurants(batch, &ids).await?);
        let mut connections: Vec<_> = coalesce(batch, &ids).into_iter().collect();
        connections.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let connection_ids = self.upsert_connections(&connections, as_of).await?;
        self.insert_mentions(&connections, &connection_ids).await
    }

    /// Begins; every entity but the restaurants.
    async fn insert_words<'a>(&self, words: &BTreeSet<(&'static str, &'a str)>) -> Result<Ids<'a>> {
        let new_ids: Vec<Uuid> = words.iter().map(|_| Uuid::now_v7()).collect();
        let (types, names): (Vec<&str>, Vec<&str>) = words.iter().copied().unzip();
        let new_words: Parameters<'_, 3> = [&new_ids, &types, &names];
        let keys: Parameters<'_, 2> = [&types, &names];
        let ((), _, rows) = futures::try_join!(
            self.client.batch_execute("begin"),
            self.client.execute(&self.words, &new_words),
            self.client.query(&self.ids, &keys),
        )?;
        let keys: Vec<_> = words.iter().copied().collect();
        Ok(rows.iter().map(|row| (keys[ordinal(row)], row.get(1))).collect())
    }

    async fn upsert_restaurants<'a>(&self, batch: &'a [Record], ids: &Ids<'a>) -> Result<Ids<'a>> {
        let mut rows: std::collections::BTreeMap<&str, (BTreeSet<&str>, BTreeSet<Uuid>)> =
            std::collections::BTreeMap::default();
        for record in batch {
            let (aliases, attributes) = rows.entry(&record.restaurant).or_default();
            aliases.insert(&record.alias);
            let label = EntityType::RestaurantAttribute.as_str();
            attributes.extend(record.restaurant_attributes.iter().map(|name| ids[&(label, &**name)]));
        }
        let names: Vec<&str> = rows.keys().copied().collect();
        let new_ids: Vec<Uuid> = names.iter().map(|_| Uuid::now_v7()).collect();
        let types = vec![EntityType::Restaurant.as_str(); names.len()];
        // Names of the workload need no escapes beyond the quotes.
        let quoted = |aliases: &BTreeSet<&str>| {
            let aliases: Vec<String> = aliases.iter().map(|alias| format!("\"{alias}\"")).collect();
            format!("{{{}}}", aliases.join(","))
        };
        let aliases: Vec<String> = rows.values().map(|(aliases, _)| quoted(aliases)).collect();
        let attributes: Vec<String> = rows.values().map(|(_, attributes)| uuid_array(attributes)).collect();
        let restaurants: Parameters<'_, 4> = [&new_ids, &names, &aliases, &attributes];
        let keys: Parameters<'_, 2> = [&types, &names];
        let (_, found) = futures::try_join!(
            self.client.execute(&self.restaurants, &restaurants),
            self.client.query(&self.ids, &keys),
        )?;
        Ok(found.iter().map(|row| ((EntityType::Restaurant.as_str(), names[ordinal(row)]), row.get(1))).collect())
    }

    /// The answer is the ids, in the order of `connections`: each row is inserted or updated.
    async fn upsert_connections(&self, connections: &[(Key, Group<'_>)], as_of: Timestamp) -> Result<Vec<Uuid>> {
        let new_ids: Vec<Uuid> = connections.iter().map(|_| Uuid::now_v7()).collect();
        let restaurants: Vec<Uuid> = connections.iter().map(|(key, _)| key.0).collect();
        let dishes: Vec<Uuid> = connections.iter().map(|(key, _)| key.1).collect();
        let attributes: Vec<String> = connections.iter().map(|(key, _)| uuid_array(&key.2)).collect();
        let categories: Vec<String> = connections.iter().map(|(_, group)| uuid_array(&group.categories)).collect();
        let metrics: Vec<ConnectionMetrics<'_>> = connections
            .iter()
            .map(|(_, group)| {
                let mentions = group.mentions.iter().map(|(id, record)| (*id, &record.mention));
                ConnectionMetrics::from_mentions(mentions, as_of)
            })
            .collect();
        let mention_counts: Vec<i32> = metrics.iter().map(|metrics| metrics.mention_count).collect();
        let upvotes: Vec<i64> = metrics.iter().map(|metrics| metrics.total_upvotes).collect();
        let threads: Vec<i32> = metrics.iter().map(|metrics| metrics.source_diversity).collect();
        let recent: Vec<i32> = metrics.iter().map(|metrics| metrics.recent_mention_count).collect();
        let newest: Vec<Option<Timestamp>> = metrics.iter().map(|metrics| metrics.last_mentioned_at).collect();
        let levels: Vec<&str> = metrics.iter().map(|metrics| metrics.activity_level.as_str()).collect();
        let tops: Vec<String> = metrics.iter().map(top_mentions).collect();
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
                ],
            )
            .await?;
        if rows.len() != connections.len() {
            return Err("an upsert that always writes gave fewer rows than it got".into());
        }
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// And commits.
    async fn insert_mentions(&self, connections: &[(Key, Group<'_>)], connection_ids: &[Uuid]) -> Result<()> {
        let rows: Vec<(Uuid, Uuid, &Record)> = connections
            .iter()
            .zip(connection_ids)
            .flat_map(|((_, group), id)| group.mentions.iter().map(move |(mention, record)| (*mention, *id, *record)))
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

/// Every entity of a batch but the restaurants, in key order.
fn words(batch: &[Record]) -> BTreeSet<(&'static str, &str)> {
    let mut words = BTreeSet::new();
    for record in batch {
        let dishes = std::iter::once(&record.dish).chain(&record.categories);
        words.extend(dishes.map(|name| (EntityType::DishOrCategory.as_str(), &**name)));
        words.extend(record.dish_attributes.iter().map(|name| (EntityType::DishAttribute.as_str(), &**name)));
        words.extend(
            record.restaurant_attributes.iter().map(|name| (EntityType::RestaurantAttribute.as_str(), &**name)),
        );
    }
    words
}

type Key = (Uuid, Uuid, Vec<Uuid>);

#[derive(Default)]
struct Group<'a> {
    categories: BTreeSet<Uuid>,
    mentions: Vec<(Uuid, &'a Record)>,
}

fn coalesce<'a>(batch: &'a [Record], ids: &Ids<'a>) -> HashMap<Key, Group<'a>> {
    let mut groups: HashMap<Key, Group<'a>> = HashMap::new();
    for record in batch {
        let id = |of: EntityType, name: &'a Arc<str>| ids[&(of.as_str(), &**name)];
        let attributes: BTreeSet<Uuid> =
            record.dish_attributes.iter().map(|name| id(EntityType::DishAttribute, name)).collect();
        let restaurant = id(EntityType::Restaurant, &record.restaurant);
        let dish = id(EntityType::DishOrCategory, &record.dish);
        let group = groups.entry((restaurant, dish, attributes.into_iter().collect())).or_default();
        group.categories.extend(record.categories.iter().map(|name| id(EntityType::DishOrCategory, name)));
        group.mentions.push((Uuid::now_v7(), record));
    }
    groups
}

const WORDS: &str = "
    insert into entities (entity_id, type, name)
    select k.id, k.type::entity_type, k.name from unnest($1::uuid[], $2::text[], $3::text[]) as k(id, type, name)
    on conflict (name, type) do nothing";

/// Types are compared as text for the reason that `per_unit` gives.
const IDS: &str = "
    select k.ord, e.entity_id from unnest($1::text[], $2::text[]) with ordinality as k(type, name, ord)
    join entities e on e.name = k.name and e.type::text = k.type";

const RESTAURANTS: &str = "
    insert into entities as e (entity_id, type, name, aliases, restaurant_attributes)
    select k.id, 'restaurant', k.name, k.aliases::text[], k.attributes::uuid[]
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as k(id, name, aliases, attributes)
    on conflict (name, type) do update
    set aliases = (select array_agg(distinct a collate \"C\") from unnest(e.aliases || excluded.aliases) as a),
        restaurant_attributes = (select coalesce(array_agg(distinct a), '{}')
                                 from unnest(e.restaurant_attributes || excluded.restaurant_attributes) as a),
        last_updated = now()
    where not (e.aliases @> excluded.aliases and e.restaurant_attributes @> excluded.restaurant_attributes)";

const CONNECTIONS: &str = "
    insert into connections as c (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories,
                                  is_menu_item, mention_count, total_upvotes, source_diversity, recent_mention_count,
                                  last_mentioned_at, activity_level, top_mentions)
    select k.id, k.restaurant, k.dish, k.attributes::uuid[], k.categories::uuid[], true, k.mentions, k.upvotes,
           k.threads, k.recent, k.newest, k.level::activity_level, k.top::jsonb
    from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int4[], $7::int8[], $8::int4[],
                $9::int4[], $10::timestamptz[], $11::text[], $12::text[])
         as k(id, restaurant, dish, attributes, categories, mentions, upvotes, threads, recent, newest, level, top)
    on conflict (restaurant_id, dish_or_category_id, dish_attributes) do update
    set categories = case when c.categories @> excluded.categories then c.categories
                          else (select array_agg(distinct a) from unnest(c.categories || excluded.categories) as a) end,
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

const MENTIONS: &str = "
    insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                          content_excerpt, author, upvotes, created_at, observed_at)
    select k.id, k.connection, k.type::mention_source, k.source_id, k.thread_id, k.source_url, k.subreddit, k.excerpt,
           k.author, k.upvotes, k.created_at, k.observed_at
    from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::int4[], $11::timestamptz[], $12::timestamptz[])
         as k(id, connection, type, source_id, thread_id, source_url, subreddit, excerpt, author, upvotes, created_at,
              observed_at)
    on conflict (connection_id, source_type, source_id) do nothing";
