//! One transaction for each unit, hand-written by a PostgreSQL expert.
//!
//! It keeps the merge rules and recomputes the figures of its connection from the mentions. Names are resolved inside
//! the statements, so no statement has to be awaited: with the fewest round trips, the whole transaction is sent at
//! once. `per_unit_transaction` awaits each statement, as most programs do; `per_unit_pipelined` sends everything at
//! once, and latency is compared with it.
//!
//! Types are compared as text so that names are looked up by the unique index only: a plan made on empty tables would
//! use the read index on the type, and then read every restaurant.
//!
//! A new connection gets its final figures with its only row version; existing entities and connections get a new
//! version only if they change.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::contestant::{Contestant, Measured, Result};
use crate::database::Database;
use crate::metrics::ConnectionMetrics;
use crate::rows::top_mentions;
use crate::workload::{Record, Workload};
use graphsink::Timestamp;

/// This many units are enough to measure the speed; more would only wait for the disk.
const SAMPLE: usize = 2_000;

/// A transaction for each unit over one connection.
#[derive(Debug)]
pub struct PerUnit {
    /// Whether all statements are sent before the first answer is awaited.
    pub pipelined: bool,
}

impl Contestant for PerUnit {
    fn name(&self) -> &'static str {
        if self.pipelined { "per_unit_pipelined" } else { "per_unit_transaction" }
    }

    fn connections(&self) -> usize {
        1
    }

    fn sample(&self, records: usize) -> usize {
        // A twentieth in quick runs.
        SAMPLE.min(records / 20).max(1)
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let writer = UnitWriter::new(database.connect().await?, self.pipelined).await?;
            let start = Instant::now();
            for record in &workload.records[..self.sample(workload.records.len())] {
                writer.write(record, workload.as_of).await?;
            }
            Ok(Measured::new(start.elapsed()))
        }
        .boxed()
    }
}

/// A connection with the statements of the transaction.
#[derive(Debug)]
pub struct UnitWriter {
    client: Client,
    pipelined: bool,
    words: Statement,
    described: Statement,
    connection: Statement,
    mention: Statement,
    figures: Statement,
}

impl UnitWriter {
    pub async fn new(client: Client, pipelined: bool) -> Result<Self> {
        let words = client.prepare(WORDS).await?;
        let described = client.prepare(DESCRIBED).await?;
        let connection = client.prepare(&CONNECTION.replace("{ids}", IDS)).await?;
        let mention = client.prepare(&MENTION.replace("{connection}", CONNECTION_ID)).await?;
        let figures = client.prepare(&FIGURES.replace("{connection}", CONNECTION_ID)).await?;
        Ok(Self { client, pipelined, words, described, connection, mention, figures })
    }

    /// Writes a unit; it is durable when this returns.
    #[allow(clippy::too_many_lines)]
    pub async fn write(&self, record: &Record, as_of: Timestamp) -> Result<()> {
        let (types, names) = words(record);
        let ids: Vec<Uuid> = types.iter().map(|_| Uuid::now_v7()).collect();
        let restaurant_id = Uuid::now_v7();
        let aliases: Vec<&str> = record.alias.as_deref().into_iter().collect();
        let attributes: Vec<&str> = record.restaurant_attributes.iter().map(|name| &**name).collect();
        let dish_attributes: Vec<&str> = record.dish_attributes.iter().map(|name| &**name).collect();
        let categories: Vec<&str> = record.categories.iter().map(|name| &**name).collect();
        let (restaurant, dish) = (&*record.restaurant, record.dish.as_deref());
        let dish_id = Uuid::now_v7();
        let dish_aliases: Vec<&str> = record.dish_alias.as_deref().into_iter().collect();
        let (connection_id, mention_id) = (Uuid::now_v7(), Uuid::now_v7());
        let mention = &record.mention;
        let (source_id, thread_id) = (&*mention.source_id, &*mention.thread_id);
        let alone = ConnectionMetrics::from_mentions([(mention_id, mention)], as_of);
        let top = top_mentions(&alone);
        let level = alone.activity_level.as_str();
        let source_type = mention.source_type.as_str();
        let of_words: [&(dyn ToSql + Sync); 3] = [&ids, &types, &names];
        let of_restaurant: [&(dyn ToSql + Sync); 5] =
            [&restaurant_id, &"restaurant", &restaurant, &aliases, &attributes];
        let of_dish: [&(dyn ToSql + Sync); 5] =
            [&dish_id, &"dish_or_category", &dish, &dish_aliases, &NO_ATTRIBUTES.as_slice()];
        let of_connection: [&(dyn ToSql + Sync); 11] = [
            &restaurant,
            &dish,
            &dish_attributes,
            &connection_id,
            &categories,
            &alone.total_upvotes,
            &alone.recent_mention_count,
            &alone.last_mentioned_at,
            &level,
            &top,
            &record.is_menu_item,
        ];
        let of_mention: [&(dyn ToSql + Sync); 14] = [
            &restaurant,
            &dish,
            &dish_attributes,
            &mention_id,
            &source_type,
            &source_id,
            &thread_id,
            &mention.source_url,
            &mention.subreddit,
            &mention.content_excerpt,
            &mention.author,
            &mention.upvotes,
            &mention.created_at,
            &mention.observed_at,
        ];
        let of_figures: [&(dyn ToSql + Sync); 4] = [&restaurant, &dish, &dish_attributes, &as_of];
        let client = &self.client;
        let dish_with_alias = async {
            if record.dish_alias.is_some() {
                client.execute(&self.described, &of_dish).await?;
            }
            Ok(())
        };
        let rest = async {
            if dish.is_none() {
                return Ok(());
            }
            if self.pipelined {
                futures::try_join!(
                    client.execute(&self.connection, &of_connection),
                    client.query_one(&self.mention, &of_mention),
                    client.execute(&self.figures, &of_figures),
                )?;
            } else {
                client.execute(&self.connection, &of_connection).await?;
                client.query_one(&self.mention, &of_mention).await?;
                client.execute(&self.figures, &of_figures).await?;
            }
            Ok(())
        };
        // A future of tokio-postgres sends when it is first polled.
        if self.pipelined {
            futures::try_join!(
                client.batch_execute("begin"),
                client.execute(&self.words, &of_words),
                client.execute(&self.described, &of_restaurant),
                dish_with_alias,
                rest,
                client.batch_execute("commit"),
            )?;
        } else {
            client.batch_execute("begin").await?;
            client.execute(&self.words, &of_words).await?;
            client.execute(&self.described, &of_restaurant).await?;
            dish_with_alias.await?;
            rest.await?;
            client.batch_execute("commit").await?;
        }
        Ok(())
    }
}

/// Every entity without aliases or attributes, in the order of their keys.
fn words(record: &Record) -> (Vec<&'static str>, Vec<&str>) {
    let plain_dish = record.dish.iter().filter(|_| record.dish_alias.is_none());
    let dishes = plain_dish.chain(&record.categories).map(|name| ("dish_or_category", &**name));
    let of_dishes = record.dish_attributes.iter().map(|name| ("dish_attribute", &**name));
    let of_restaurants = record.restaurant_attributes.iter().map(|name| ("restaurant_attribute", &**name));
    dishes.chain(of_dishes).chain(of_restaurants).collect::<std::collections::BTreeSet<_>>().into_iter().unzip()
}

const WORDS: &str = "
    insert into entities (entity_id, type, name)
    select k.id, k.type::entity_type, k.name from unnest($1::uuid[], $2::text[], $3::text[]) as k(id, type, name)
    on conflict (name, type) do nothing";

const NO_ATTRIBUTES: [&str; 0] = [];

const DESCRIBED: &str = "
    insert into entities as e (entity_id, type, name, aliases, restaurant_attributes)
    values ($1, $2::text::entity_type, $3, $4::text[],
            (select coalesce(array_agg(a.entity_id order by a.entity_id), '{}') from entities a
             where a.name = any($5::text[]) and a.type::text = 'restaurant_attribute'))
    on conflict (name, type) do update
    set aliases = (select coalesce(array_agg(distinct a collate \"C\"), '{}') from unnest(e.aliases || excluded.aliases) as a),
        restaurant_attributes = (select coalesce(array_agg(distinct a), '{}')
                                 from unnest(e.restaurant_attributes || excluded.restaurant_attributes) as a),
        last_updated = now()
    where not (e.aliases @> excluded.aliases and e.restaurant_attributes @> excluded.restaurant_attributes)";

/// Ids of dish attributes, by names.
const IDS: &str = "(select coalesce(array_agg(a.entity_id order by a.entity_id), '{}') from entities a
                    where a.name = any($3::text[]) and a.type::text = 'dish_attribute')";

const CONNECTION: &str = "
    insert into connections as c (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories,
                                  is_menu_item, mention_count, total_upvotes, source_diversity, recent_mention_count,
                                  last_mentioned_at, activity_level, top_mentions)
    select $4, (select r.entity_id from entities r where r.name = $1 and r.type::text = 'restaurant'),
           (select d.entity_id from entities d where d.name = $2 and d.type::text = 'dish_or_category'), {ids},
           (select coalesce(array_agg(a.entity_id order by a.entity_id), '{}') from entities a
            where a.name = any($5::text[]) and a.type::text = 'dish_or_category'),
           $11, 1, $6, 1, $7, $8, $9::text::activity_level, $10::text::jsonb
    on conflict (restaurant_id, dish_or_category_id, dish_attributes) do update
    set categories = (select coalesce(array_agg(distinct a), '{}') from unnest(c.categories || excluded.categories) as a),
        is_menu_item = c.is_menu_item or excluded.is_menu_item, last_updated = now()
    where not (c.categories @> excluded.categories and c.is_menu_item >= excluded.is_menu_item)";

/// The id of the connection with these three names.
const CONNECTION_ID: &str = "
    (select c.connection_id from connections c
     where c.restaurant_id = (select r.entity_id from entities r where r.name = $1 and r.type::text = 'restaurant')
       and c.dish_or_category_id =
           (select d.entity_id from entities d where d.name = $2 and d.type::text = 'dish_or_category')
       and c.dish_attributes = (select coalesce(array_agg(a.entity_id order by a.entity_id), '{}') from entities a
                                where a.name = any($3::text[]) and a.type::text = 'dish_attribute'))";

const MENTION: &str = "
    insert into mentions as m (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                               content_excerpt, author, upvotes, created_at, observed_at)
    values ($4, {connection}, $5::text::mention_source, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    on conflict (connection_id, source_type, source_id) do update
    set thread_id = excluded.thread_id, source_url = excluded.source_url, subreddit = excluded.subreddit,
        content_excerpt = excluded.content_excerpt, author = excluded.author, upvotes = excluded.upvotes,
        created_at = excluded.created_at, observed_at = excluded.observed_at, processed_at = now()
    where (excluded.observed_at, excluded.upvotes, excluded.content_excerpt collate \"C\")
          > (m.observed_at, m.upvotes, m.content_excerpt)
    returning mention_id, connection_id";

const FIGURES: &str = "
    with m as (
        select mention_id, thread_id, source_id, source_url, content_excerpt, upvotes, created_at,
               upvotes * exp(extract(epoch from created_at - $4::timestamptz)::float8 / 5184000) as score
        from mentions where connection_id = {connection}),
    best as (
        select * from m order by score desc, created_at desc, source_id limit 5),
    figures as (
        select count(*)::int4 as mention_count, sum(upvotes)::int8 as total_upvotes,
               count(distinct thread_id)::int4 as source_diversity,
               (count(*) filter (where created_at between $4::timestamptz - interval '30 days' and $4::timestamptz))::int4
                   as recent_mention_count,
               max(created_at) as last_mentioned_at,
               (select coalesce(jsonb_agg(jsonb_build_object(
                           'mention_id', mention_id, 'score', score, 'upvotes', upvotes,
                           'content_excerpt', content_excerpt, 'source_url', source_url, 'created_at', created_at)
                           order by score desc, created_at desc, source_id), '[]') from best) as top_mentions,
               (select count(*) >= 3 and bool_and(created_at between $4::timestamptz - interval '30 days' and $4::timestamptz)
                from best) as trending
        from m)
    update connections c
    set mention_count = f.mention_count, total_upvotes = f.total_upvotes, source_diversity = f.source_diversity,
        recent_mention_count = f.recent_mention_count, last_mentioned_at = f.last_mentioned_at,
        activity_level = case when f.trending then 'trending'
                              when f.last_mentioned_at between $4::timestamptz - interval '7 days' and $4::timestamptz
                              then 'active' else 'normal' end::activity_level,
        top_mentions = f.top_mentions, last_updated = now()
    from figures f
    where c.connection_id = {connection}
      and (c.mention_count, c.total_upvotes, c.source_diversity, c.recent_mention_count, c.last_mentioned_at)
          is distinct from (f.mention_count, f.total_upvotes, f.source_diversity, f.recent_mention_count,
                            f.last_mentioned_at)";
