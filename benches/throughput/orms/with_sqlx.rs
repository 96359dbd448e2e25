//! The `unnest` statements over sqlx, as its FAQ recommends for bulk. sqlx does not pipeline, so each statement is
//! awaited.

use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Executor as _, PgTransaction, Row};
use uuid::Uuid;

use crate::batch::{self, Connection, Ids, Word, Words, text_array};
use crate::unnest;
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::{Database, SESSION};
use graphsink_benches::rows::{top_mentions, uuid_array};
use graphsink_benches::workload::{Record, Workload};

/// Upserts in batches of this many mentions.
#[derive(Debug)]
pub(crate) struct SqlxUnnest {
    pub(crate) batch: usize,
}

impl Contestant for SqlxUnnest {
    fn name(&self) -> &'static str {
        if self.batch == 1_000 { "sqlx_unnest_1000" } else { "sqlx_unnest_5000" }
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let mut session = PgConnection::connect(&database.url()).await?;
            session.execute(SESSION).await?;
            let start = Instant::now();
            for batch in workload.records.chunks(self.batch) {
                write(&mut session, batch, workload.as_of).await?;
            }
            let took = start.elapsed();
            session.close().await?;
            Ok(Measured::new(took))
        }
        .boxed()
    }
}

async fn write(session: &mut PgConnection, batch: &[Record], as_of: Timestamp) -> Result<()> {
    let words = Words::of(batch);
    let mut transaction = session.begin().await?;
    let mut ids = insert_plain(&mut transaction, &words).await?;
    upsert_described(&mut transaction, &words, &mut ids).await?;
    let connections = batch::connections(batch, &ids, as_of);
    let connection_ids = upsert_connections(&mut transaction, &connections, as_of).await?;
    insert_mentions(&mut transaction, &connections, &connection_ids).await?;
    transaction.commit().await?;
    Ok(())
}

async fn insert_plain<'a>(transaction: &mut PgTransaction<'_>, words: &Words<'a>) -> Result<Ids<'a>> {
    let keys: Vec<Word<'a>> = words.plain.iter().copied().collect();
    let new_ids: Vec<Uuid> = keys.iter().map(|_| Uuid::now_v7()).collect();
    let (types, names): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    sqlx::query(unnest::WORDS).bind(&new_ids).bind(&types).bind(&names).execute(&mut **transaction).await?;
    select_ids(transaction, &keys).await
}

async fn upsert_described<'a>(transaction: &mut PgTransaction<'_>, words: &Words<'a>, ids: &mut Ids<'a>) -> Result<()> {
    let rows = &words.described;
    let keys: Vec<Word<'a>> = rows.keys().copied().collect();
    let new_ids: Vec<Uuid> = keys.iter().map(|_| Uuid::now_v7()).collect();
    let (types, names): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    let aliases: Vec<String> = rows.values().map(|row| text_array(&row.aliases)).collect();
    let attributes: Vec<String> = rows.values().map(|row| uuid_array(&row.attribute_ids(ids))).collect();
    sqlx::query(unnest::DESCRIBED)
        .bind(&new_ids)
        .bind(&types)
        .bind(&names)
        .bind(&aliases)
        .bind(&attributes)
        .execute(&mut **transaction)
        .await?;
    ids.extend(select_ids(transaction, &keys).await?);
    Ok(())
}

async fn select_ids<'a>(transaction: &mut PgTransaction<'_>, keys: &[Word<'a>]) -> Result<Ids<'a>> {
    let (types, names): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    let rows = sqlx::query(unnest::IDS).bind(&types).bind(&names).fetch_all(&mut **transaction).await?;
    let entry = |row: &PgRow| Ok((keys[row.try_get::<i64, _>(0)? as usize - 1], row.try_get(1)?));
    rows.iter().map(entry).collect()
}

async fn upsert_connections(
    transaction: &mut PgTransaction<'_>,
    connections: &[Connection<'_>],
    as_of: Timestamp,
) -> Result<Vec<Uuid>> {
    let metrics = || connections.iter().map(|row| &row.metrics);
    let rows = sqlx::query(unnest::CONNECTIONS)
        .bind(connections.iter().map(|row| row.id).collect::<Vec<_>>())
        .bind(connections.iter().map(|row| row.restaurant).collect::<Vec<_>>())
        .bind(connections.iter().map(|row| row.dish).collect::<Vec<_>>())
        .bind(connections.iter().map(|row| uuid_array(&row.dish_attributes)).collect::<Vec<_>>())
        .bind(connections.iter().map(|row| uuid_array(&row.categories)).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.mention_count).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.total_upvotes).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.source_diversity).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.recent_mention_count).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.last_mentioned_at).collect::<Vec<_>>())
        .bind(metrics().map(|metrics| metrics.activity_level.as_str()).collect::<Vec<_>>())
        .bind(metrics().map(top_mentions).collect::<Vec<_>>())
        .bind(as_of - TimeDelta::days(7))
        .bind(connections.iter().map(|row| row.is_menu_item).collect::<Vec<_>>())
        .fetch_all(&mut **transaction)
        .await?;
    if rows.len() != connections.len() {
        return Err("an upsert that always writes gave fewer rows than it got".into());
    }
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn insert_mentions(
    transaction: &mut PgTransaction<'_>,
    connections: &[Connection<'_>],
    connection_ids: &[Uuid],
) -> Result<()> {
    let rows: Vec<(Uuid, Uuid, &Record)> = connections
        .iter()
        .zip(connection_ids)
        .flat_map(|(row, id)| row.mentions.iter().map(move |(mention, record)| (*mention, *id, *record)))
        .collect();
    let mentions = || rows.iter().map(|row| &row.2.mention);
    sqlx::query(unnest::MENTIONS)
        .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(mentions().map(|mention| mention.source_type.as_str()).collect::<Vec<_>>())
        .bind(mentions().map(|mention| &*mention.source_id).collect::<Vec<&str>>())
        .bind(mentions().map(|mention| &*mention.thread_id).collect::<Vec<&str>>())
        .bind(mentions().map(|mention| &*mention.source_url).collect::<Vec<&str>>())
        .bind(mentions().map(|mention| &*mention.subreddit).collect::<Vec<&str>>())
        .bind(mentions().map(|mention| &*mention.content_excerpt).collect::<Vec<&str>>())
        .bind(mentions().map(|mention| mention.author.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(mentions().map(|mention| mention.upvotes).collect::<Vec<_>>())
        .bind(mentions().map(|mention| mention.created_at).collect::<Vec<_>>())
        .bind(mentions().map(|mention| mention.observed_at).collect::<Vec<_>>())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
