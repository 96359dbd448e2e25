//! The statements of an ORM: a row of placeholders for each row, in batches of 250 mentions, one statement after the
//! other, one transaction for each batch, over one connection.
//!
//! The merges are those of `unnest`, with the same limitation: a redelivered batch counts twice. The text of a
//! statement depends on the number of its rows, so it is sent with its values and not prepared; that is one round trip,
//! where some ORMs need two.

use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::batch::{self, Connection, Ids, Words};
use crate::merge;
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::Database;
use graphsink_benches::workload::{Record, Workload};

/// The number of mentions in a batch.
const BATCH: usize = 250;

/// Multi-row VALUES.
#[derive(Debug)]
pub(crate) struct Values;

impl Contestant for Values {
    fn name(&self) -> &'static str {
        "values_250"
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let writer = Writer { client: database.connect().await? };
            let start = Instant::now();
            for batch in workload.records.chunks(BATCH) {
                writer.write(batch, workload.as_of).await?;
            }
            Ok(Measured::new(start.elapsed()))
        }
        .boxed()
    }
}

type Fields<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

struct Writer {
    client: Client,
}

impl Writer {
    async fn write(&self, batch: &[Record], as_of: Timestamp) -> Result<()> {
        let words = Words::of(batch);
        self.client.batch_execute("begin").await?;
        let mut ids = self.insert_plain(&words).await?;
        self.upsert_described(&words, &mut ids).await?;
        let connections = batch::connections(batch, &ids, as_of);
        if !connections.is_empty() {
            let connection_ids = self.upsert_connections(&connections).await?;
            self.insert_mentions(&connections, &connection_ids).await?;
        }
        self.client.batch_execute("commit").await?;
        Ok(())
    }

    async fn insert_plain<'a>(&self, words: &Words<'a>) -> Result<Ids<'a>> {
        if words.plain.is_empty() {
            return Ok(Ids::new());
        }
        let rows: Vec<(Uuid, _)> = words.plain.iter().map(|word| (Uuid::now_v7(), word)).collect();
        let mut values: Fields<'_> = Vec::with_capacity(rows.len() * 3);
        for (id, (of_type, name)) in &rows {
            values.extend([field(id, &Type::UUID), field(of_type, &Type::UNKNOWN), field(name, &Type::VARCHAR)]);
        }
        let insert = format!(
            "insert into entities (entity_id, type, name) values {} on conflict do nothing",
            rows_of(3, rows.len())
        );
        self.client.execute_typed(&insert, &values).await?;
        self.ids(words.plain.iter().copied().collect()).await
    }

    async fn upsert_described<'a>(&self, words: &Words<'a>, ids: &mut Ids<'a>) -> Result<()> {
        let rows: Vec<_> = words
            .described
            .iter()
            .map(|(word, row)| {
                let aliases: Vec<&str> = row.aliases.iter().copied().collect();
                let attributes: Vec<Uuid> = row.attribute_ids(ids).into_iter().collect();
                (Uuid::now_v7(), word, aliases, attributes)
            })
            .collect();
        let mut values: Fields<'_> = Vec::with_capacity(rows.len() * 5);
        for (id, (of_type, name), aliases, attributes) in &rows {
            values.extend([
                field(id, &Type::UUID),
                field(of_type, &Type::UNKNOWN),
                field(name, &Type::VARCHAR),
                field(aliases, &Type::TEXT_ARRAY),
                field(attributes, &Type::UUID_ARRAY),
            ]);
        }
        let insert = format!(
            "insert into entities (entity_id, type, name, aliases, restaurant_attributes) values {}
             on conflict (name, type) do update {} where {}",
            rows_of(5, rows.len()),
            merge::set(&merge::DESCRIBED),
            merge::DESCRIBED_CHANGES,
        );
        self.client.execute_typed(&insert, &values).await?;
        ids.extend(self.ids(words.described.keys().copied().collect()).await?);
        Ok(())
    }

    async fn ids<'a>(&self, words: Vec<(&'static str, &'a str)>) -> Result<Ids<'a>> {
        let mut values: Fields<'_> = Vec::with_capacity(words.len() * 2);
        for (of_type, name) in &words {
            values.extend([field(name, &Type::VARCHAR), field(of_type, &Type::TEXT)]);
        }
        // The type as text for the reason given in `per_unit`.
        let select = format!(
            "select type::text, name, entity_id from entities where (name, type::text) in ({})",
            rows_of(2, words.len())
        );
        let found = self.client.query_typed(&select, &values).await?;
        let by_key: std::collections::HashMap<(String, String), Uuid> =
            found.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        let id = |word: &(&'static str, &'a str)| by_key.get(&(word.0.to_owned(), word.1.to_owned())).copied();
        words.iter().map(|word| Ok((*word, id(word).ok_or("an entity that was just written is not there")?))).collect()
    }

    /// Returns the ids in the order of `connections`: each row is inserted or updated.
    async fn upsert_connections(&self, connections: &[Connection<'_>]) -> Result<Vec<Uuid>> {
        let rows: Vec<_> = connections
            .iter()
            .map(|row| {
                let categories: Vec<Uuid> = row.categories.iter().copied().collect();
                let top = serde_json::to_value(&row.metrics.top_mentions)?;
                Ok((row, categories, row.metrics.activity_level.as_str(), top))
            })
            .collect::<Result<_>>()?;
        let mut values: Fields<'_> = Vec::with_capacity(rows.len() * 13);
        for (row, categories, level, top) in &rows {
            values.extend([
                field(&row.id, &Type::UUID),
                field(&row.restaurant, &Type::UUID),
                field(&row.dish, &Type::UUID),
                field(&row.dish_attributes, &Type::UUID_ARRAY),
                field(categories, &Type::UUID_ARRAY),
                field(&row.is_menu_item, &Type::BOOL),
                field(&row.metrics.mention_count, &Type::INT4),
                field(&row.metrics.total_upvotes, &Type::INT8),
                field(&row.metrics.source_diversity, &Type::INT4),
                field(&row.metrics.recent_mention_count, &Type::INT4),
                field(&row.metrics.last_mentioned_at, &Type::TIMESTAMPTZ),
                field(level, &Type::UNKNOWN),
                field(top, &Type::JSONB),
            ]);
        }
        let insert = format!(
            "insert into connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes, categories,
                                      is_menu_item, mention_count, total_upvotes, source_diversity,
                                      recent_mention_count, last_mentioned_at, activity_level, top_mentions)
             values {} on conflict (restaurant_id, dish_or_category_id, dish_attributes) do update {}
             returning connection_id",
            rows_of(13, rows.len()),
            merge::set(&merge::CONNECTION),
        );
        let written = self.client.query_typed(&insert, &values).await?;
        if written.len() != connections.len() {
            return Err("an upsert that always writes gave fewer rows than it got".into());
        }
        Ok(written.iter().map(|row| row.get(0)).collect())
    }

    async fn insert_mentions(&self, connections: &[Connection<'_>], connection_ids: &[Uuid]) -> Result<()> {
        let rows: Vec<_> = connections
            .iter()
            .zip(connection_ids)
            .flat_map(|(row, connection)| {
                row.mentions.iter().map(move |(id, record)| (id, connection, &record.mention))
            })
            .map(|(id, connection, mention)| {
                let texts = [mention.source_type.as_str(), &mention.source_id, &mention.thread_id];
                (id, connection, texts, mention)
            })
            .collect();
        let mut values: Fields<'_> = Vec::with_capacity(rows.len() * 12);
        for (id, connection, [of_type, source_id, thread_id], mention) in &rows {
            values.extend([
                field(id, &Type::UUID),
                field(connection, &Type::UUID),
                field(of_type, &Type::UNKNOWN),
                field(source_id, &Type::VARCHAR),
                field(thread_id, &Type::VARCHAR),
                field(&mention.source_url, &Type::VARCHAR),
                field(&mention.subreddit, &Type::VARCHAR),
                field(&mention.content_excerpt, &Type::TEXT),
                field(&mention.author, &Type::VARCHAR),
                field(&mention.upvotes, &Type::INT4),
                field(&mention.created_at, &Type::TIMESTAMPTZ),
                field(&mention.observed_at, &Type::TIMESTAMPTZ),
            ]);
        }
        let insert = format!(
            "insert into mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url, subreddit,
                                   content_excerpt, author, upvotes, created_at, observed_at)
             values {} on conflict do nothing",
            rows_of(12, rows.len()),
        );
        self.client.execute_typed(&insert, &values).await?;
        Ok(())
    }
}

/// A value with the type that it is sent as. The server determines the type of an enum's label.
fn field<'a>(value: &'a (dyn ToSql + Sync), of_type: &Type) -> (&'a (dyn ToSql + Sync), Type) {
    (value, of_type.clone())
}

/// `($1, $2), ($3, $4)` and so on.
fn rows_of(columns: usize, rows: usize) -> String {
    let row = |row: usize| {
        let columns: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", columns.join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}
