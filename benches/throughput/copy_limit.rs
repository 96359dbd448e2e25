//! The limit: binary COPY into the same tables, with keys and foreign keys, of rows that are already coalesced, have
//! their ids and final figures, and are in memory in PostgreSQL's format.
//!
//! No program that has to query the database can be faster, and the client only sends. Rows come in the order of their
//! first occurrence, as in a stream: sorted by key the indexes would grow at one end, which requires knowledge of the
//! future.
//!
//! One transaction for each table. With late checks it checks foreign keys after the rows of a table were copied, as the
//! engine does; the limit is without. Over two connections, both load entities; then each loads the connections and the
//! mentions of its half of the restaurants.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::copy::{Rows, copy};
use ::graphsink::EntityType;
use graphsink_benches::contestant::{Contestant, Measured, Result};
use graphsink_benches::database::Database;
use graphsink_benches::rows::{Connection, Entities, Entity};
use graphsink_benches::workload::{Record, Workload};
use uuid::Uuid;

const COPY_ENTITIES: &str =
    "copy entities (entity_id, type, name, aliases, restaurant_attributes) from stdin (format binary)";
const COPY_CONNECTIONS: &str = "copy connections (connection_id, restaurant_id, dish_or_category_id, dish_attributes,
    categories, is_menu_item, mention_count, total_upvotes, source_diversity, recent_mention_count, last_mentioned_at,
    activity_level, top_mentions) from stdin (format binary)";
const COPY_MENTIONS: &str = "copy mentions (mention_id, connection_id, source_type, source_id, thread_id, source_url,
    subreddit, content_excerpt, author, upvotes, created_at, observed_at) from stdin (format binary)";

/// Binary COPY over this many connections.
#[derive(Debug)]
pub(crate) struct CopyLimit {
    pub(crate) connections: usize,
    pub(crate) checks_late: bool,
}

impl Contestant for CopyLimit {
    fn name(&self) -> &'static str {
        match (self.connections, self.checks_late) {
            (1, false) => "copy_limit",
            (1, true) => "copy_late_checks",
            (_, false) => "copy_limit_2",
            (_, true) => "copy_late_checks_2",
        }
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn meets_existing(&self) -> bool {
        // COPY cannot update existing rows.
        false
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        self.load(database, workload).boxed()
    }
}

impl CopyLimit {
    async fn load(&self, database: &Database, workload: &Workload) -> Result<Measured> {
        let entities = Entities::of(&workload.records);
        let parts = Parts::encode(workload, &entities, self.connections);
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(database.connect().await?);
        }
        let start = Instant::now();
        parts.send(&clients, self.checks_late).await?;
        Ok(Measured::new(start.elapsed()))
    }
}

/// The rows of each table that a connection sends.
pub(crate) struct Parts {
    entities: Vec<Bytes>,
    connections: Vec<Bytes>,
    mentions: Vec<Bytes>,
}

impl Parts {
    pub(crate) fn encode(workload: &Workload, entities: &Entities, parts: usize) -> Self {
        let connections = graphsink_benches::rows::connections(&workload.records, entities, workload.as_of);
        let new = || (0..parts).map(|_| Rows::default()).collect::<Vec<_>>();
        let (mut of_entities, mut of_connections, mut of_mentions) = (new(), new(), new());
        for (index, entity) in entities.rows.iter().filter(|entity| !entity.is_known).enumerate() {
            encode_entity(&mut of_entities[index % parts], entity, entities);
        }
        let mut mentions: Vec<Vec<(Uuid, Uuid, &Record)>> = vec![Vec::new(); parts];
        for connection in &connections {
            // The low bits of a version 7 id are random.
            let part = connection.restaurant.as_u128() as usize % parts;
            encode_connection(&mut of_connections[part], connection);
            mentions[part].extend(connection.mentions.iter().map(|(id, record)| (*id, connection.id, *record)));
        }
        for (part, mut mentions) in mentions.into_iter().enumerate() {
            // Ids were assigned in the order of the records.
            mentions.sort_unstable_by_key(|(id, ..)| *id);
            for (id, connection, record) in mentions {
                encode_mention(&mut of_mentions[part], id, connection, record);
            }
        }
        let finish = |rows: Vec<Rows>| rows.into_iter().map(Rows::finish).collect();
        Self { entities: finish(of_entities), connections: finish(of_connections), mentions: finish(of_mentions) }
    }

    /// A client for each part.
    pub(crate) async fn send(&self, clients: &[Client], checks_late: bool) -> Result<()> {
        let entities = clients.iter().zip(&self.entities).map(|(client, data)| copy(client, COPY_ENTITIES, data));
        try_join_all(entities).await?;
        let rest = clients.iter().zip(&self.connections).zip(&self.mentions);
        try_join_all(rest.map(|((client, connections), mentions)| async move {
            for (sql, rows) in [(COPY_CONNECTIONS, connections), (COPY_MENTIONS, mentions)] {
                if checks_late {
                    client.batch_execute("begin; set constraints all deferred").await?;
                }
                copy(client, sql, rows).await?;
                if checks_late {
                    client.batch_execute("set constraints all immediate; commit").await?;
                }
            }
            Result::Ok(())
        }))
        .await?;
        Ok(())
    }
}

fn encode_entity(rows: &mut Rows, entity: &Entity, entities: &Entities) {
    let aliases: Vec<&str> = entity.aliases.iter().map(|alias| &**alias).collect();
    let attributes = entities.ids(EntityType::RestaurantAttribute, &entity.attributes);
    rows.row(5);
    rows.field(&entity.id, &Type::UUID);
    rows.field(&entity.key.0.as_str(), &Type::TEXT);
    rows.field(&&*entity.key.1, &Type::TEXT);
    rows.field(&aliases, &Type::TEXT_ARRAY);
    rows.field(&attributes, &Type::UUID_ARRAY);
}

fn encode_connection(rows: &mut Rows, connection: &Connection<'_>) {
    let metrics = &connection.metrics;
    let categories: Vec<Uuid> = connection.categories.iter().copied().collect();
    let top = serde_json::to_value(&metrics.top_mentions).expect("texts, numbers and times are always JSON");
    rows.row(13);
    rows.field(&connection.id, &Type::UUID);
    rows.field(&connection.restaurant, &Type::UUID);
    rows.field(&connection.dish, &Type::UUID);
    rows.field(&connection.dish_attributes, &Type::UUID_ARRAY);
    rows.field(&categories, &Type::UUID_ARRAY);
    rows.field(&connection.is_menu_item, &Type::BOOL);
    rows.field(&metrics.mention_count, &Type::INT4);
    rows.field(&metrics.total_upvotes, &Type::INT8);
    rows.field(&metrics.source_diversity, &Type::INT4);
    rows.field(&metrics.recent_mention_count, &Type::INT4);
    rows.field(&metrics.last_mentioned_at, &Type::TIMESTAMPTZ);
    rows.field(&metrics.activity_level.as_str(), &Type::TEXT);
    rows.field(&top, &Type::JSONB);
}

fn encode_mention(rows: &mut Rows, id: Uuid, connection: Uuid, record: &Record) {
    let mention = &record.mention;
    rows.row(12);
    rows.field(&id, &Type::UUID);
    rows.field(&connection, &Type::UUID);
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
