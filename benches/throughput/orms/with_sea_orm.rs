//! `insert_many` with `on_conflict`, in batches of 250 mentions.

use std::sync::Arc;
use std::time::Instant;

use ::graphsink::Timestamp;
use futures::FutureExt;
use futures::future::BoxFuture;
use sea_orm::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveEnum, ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, QuerySelect, Set,
    TransactionTrait,
};

use crate::batch::{self, Connection, Ids, Word, Words};
use crate::merge;
use graphsink_benches::contestant::{Contestant, Figures, Measured, Result};
use graphsink_benches::database::{Database, SESSION};
use graphsink_benches::workload::{Record, Workload};

/// The number of mentions in a batch.
const BATCH: usize = 250;

/// Bulk inserts of an ORM.
#[derive(Debug)]
pub(crate) struct SeaOrm;

impl Contestant for SeaOrm {
    fn name(&self) -> &'static str {
        "sea_orm_insert_many_250"
    }

    fn connections(&self) -> usize {
        1
    }

    fn figures(&self) -> Figures {
        Figures::Counts
    }

    fn run<'a>(&'a self, database: &'a Database, workload: &'a Arc<Workload>) -> BoxFuture<'a, Result<Measured>> {
        async move {
            let mut options = ConnectOptions::new(database.url());
            // With one connection its settings persist.
            options.min_connections(1).max_connections(1).sqlx_logging(false);
            let session = sea_orm::Database::connect(options).await?;
            session.execute_unprepared(SESSION).await?;
            let start = Instant::now();
            for batch in workload.records.chunks(BATCH) {
                write(&session, batch, workload.as_of).await?;
            }
            let took = start.elapsed();
            session.close().await?;
            Ok(Measured::new(took))
        }
        .boxed()
    }
}

async fn write(session: &DatabaseConnection, batch: &[Record], as_of: Timestamp) -> Result<()> {
    let words = Words::of(batch);
    let transaction = session.begin().await?;
    let mut ids = insert_plain(&transaction, &words).await?;
    upsert_described(&transaction, &words, &mut ids).await?;
    let connections = batch::connections(batch, &ids, as_of);
    if !connections.is_empty() {
        let connection_ids = upsert_connections(&transaction, &connections).await?;
        insert_mentions(&transaction, &connections, &connection_ids).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn insert_plain<'a>(transaction: &DatabaseTransaction, words: &Words<'a>) -> Result<Ids<'a>> {
    if words.plain.is_empty() {
        return Ok(Ids::new());
    }
    let rows = words.plain.iter().map(|(of_type, name)| {
        Ok(entity::ActiveModel {
            entity_id: Set(Uuid::now_v7()),
            name: Set((*name).to_owned()),
            r#type: Set(entity::Type::try_from_value(&(*of_type).to_owned())?),
            ..Default::default()
        })
    });
    let nothing = OnConflict::columns([entity::Column::Name, entity::Column::Type]).do_nothing().to_owned();
    entity::Entity::insert_many(rows.collect::<Result<Vec<_>>>()?)
        .on_conflict(nothing)
        .exec_without_returning(transaction)
        .await?;
    select_ids(transaction, &words.plain.iter().copied().collect::<Vec<_>>()).await
}

async fn upsert_described<'a>(transaction: &DatabaseTransaction, words: &Words<'a>, ids: &mut Ids<'a>) -> Result<()> {
    let rows = words.described.iter().map(|((of_type, name), row)| {
        Ok(entity::ActiveModel {
            entity_id: Set(Uuid::now_v7()),
            name: Set((*name).to_owned()),
            r#type: Set(entity::Type::try_from_value(&(*of_type).to_owned())?),
            aliases: Set(row.aliases.iter().map(|alias| (*alias).to_owned()).collect()),
            restaurant_attributes: Set(row.attribute_ids(ids).into_iter().collect()),
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let mut merge = OnConflict::columns([entity::Column::Name, entity::Column::Type]);
    for (column, value) in merge::DESCRIBED {
        merge.value(Alias(column), Expr::cust(value));
    }
    merge.action_and_where(Expr::cust(merge::DESCRIBED_CHANGES));
    entity::Entity::insert_many(rows).on_conflict(merge).exec_without_returning(transaction).await?;
    ids.extend(select_ids(transaction, &words.described.keys().copied().collect::<Vec<_>>()).await?);
    Ok(())
}

async fn select_ids<'a>(transaction: &DatabaseTransaction, keys: &[Word<'a>]) -> Result<Ids<'a>> {
    let found: Vec<(entity::Type, String, Uuid)> = entity::Entity::find()
        .select_only()
        .columns([entity::Column::Type, entity::Column::Name, entity::Column::EntityId])
        .filter(entity::Column::Name.is_in(keys.iter().map(|key| key.1)))
        .into_tuple()
        .all(transaction)
        .await?;
    let by_key: std::collections::HashMap<(String, &str), Uuid> =
        found.iter().map(|(of_type, name, id)| ((of_type.to_value(), &**name), *id)).collect();
    let id = |key: &Word<'a>| by_key.get(&(key.0.to_owned(), key.1)).copied();
    keys.iter().map(|key| Ok((*key, id(key).ok_or("an entity that was just written is not there")?))).collect()
}

/// Returns the ids in the order of `connections`: each row is inserted or updated.
async fn upsert_connections(transaction: &DatabaseTransaction, connections: &[Connection<'_>]) -> Result<Vec<Uuid>> {
    let rows = connections.iter().map(|row| {
        let metrics = &row.metrics;
        Ok(connection::ActiveModel {
            connection_id: Set(row.id),
            restaurant_id: Set(row.restaurant),
            dish_or_category_id: Set(row.dish),
            dish_attributes: Set(row.dish_attributes.clone()),
            categories: Set(row.categories.iter().copied().collect()),
            is_menu_item: Set(row.is_menu_item),
            mention_count: Set(metrics.mention_count),
            total_upvotes: Set(metrics.total_upvotes),
            source_diversity: Set(metrics.source_diversity),
            recent_mention_count: Set(metrics.recent_mention_count),
            last_mentioned_at: Set(metrics.last_mentioned_at),
            activity_level: Set(connection::Level::try_from_value(&metrics.activity_level.as_str().to_owned())?),
            top_mentions: Set(serde_json::to_value(&metrics.top_mentions)?),
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let mut merge = OnConflict::columns([
        connection::Column::RestaurantId,
        connection::Column::DishOrCategoryId,
        connection::Column::DishAttributes,
    ]);
    for (column, value) in merge::CONNECTION {
        merge.value(Alias(column), Expr::cust(value));
    }
    let written = connection::Entity::insert_many(rows).on_conflict(merge);
    let ids = written.exec_with_returning_keys(transaction).await?;
    if ids.len() != connections.len() {
        return Err("an upsert that always writes gave fewer rows than it got".into());
    }
    Ok(ids)
}

async fn insert_mentions(
    transaction: &DatabaseTransaction,
    connections: &[Connection<'_>],
    connection_ids: &[Uuid],
) -> Result<()> {
    let rows = connections.iter().zip(connection_ids).flat_map(|(row, connection_id)| {
        row.mentions.iter().map(move |(id, record)| {
            let mention = &record.mention;
            Ok(mention::ActiveModel {
                mention_id: Set(*id),
                connection_id: Set(*connection_id),
                source_type: Set(mention::Source::try_from_value(&mention.source_type.as_str().to_owned())?),
                source_id: Set(mention.source_id.to_string()),
                thread_id: Set(mention.thread_id.to_string()),
                source_url: Set(mention.source_url.clone()),
                subreddit: Set(mention.subreddit.clone()),
                content_excerpt: Set(mention.content_excerpt.clone()),
                author: Set(mention.author.clone()),
                upvotes: Set(mention.upvotes),
                created_at: Set(mention.created_at),
                observed_at: Set(mention.observed_at),
            })
        })
    });
    let key = [mention::Column::ConnectionId, mention::Column::SourceType, mention::Column::SourceId];
    let nothing = OnConflict::columns(key).do_nothing().to_owned();
    mention::Entity::insert_many(rows.collect::<Result<Vec<_>>>()?)
        .on_conflict(nothing)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// A column by its name.
#[derive(Debug, Clone, Copy)]
struct Alias(&'static str);

impl Iden for Alias {
    fn unquoted(&self, sql: &mut dyn std::fmt::Write) {
        sql.write_str(self.0).expect("a string takes any text");
    }
}

// The derives require `pub` items; columns that have defaults and are never written are left out.

#[allow(unreachable_pub)]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "entity_type")]
    pub enum Type {
        #[sea_orm(string_value = "restaurant")]
        Restaurant,
        #[sea_orm(string_value = "dish_or_category")]
        DishOrCategory,
        #[sea_orm(string_value = "dish_attribute")]
        DishAttribute,
        #[sea_orm(string_value = "restaurant_attribute")]
        RestaurantAttribute,
    }

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "entities")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub entity_id: Uuid,
        pub name: String,
        pub r#type: Type,
        pub aliases: Vec<String>,
        pub restaurant_attributes: Vec<Uuid>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub)]
mod connection {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "activity_level")]
    pub enum Level {
        #[sea_orm(string_value = "trending")]
        Trending,
        #[sea_orm(string_value = "active")]
        Active,
        #[sea_orm(string_value = "normal")]
        Normal,
    }

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "connections")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub connection_id: Uuid,
        pub restaurant_id: Uuid,
        pub dish_or_category_id: Uuid,
        pub dish_attributes: Vec<Uuid>,
        pub categories: Vec<Uuid>,
        pub is_menu_item: bool,
        pub mention_count: i32,
        pub total_upvotes: i64,
        pub source_diversity: i32,
        pub recent_mention_count: i32,
        pub last_mentioned_at: Option<ChronoDateTimeUtc>,
        pub activity_level: Level,
        pub top_mentions: Json,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub)]
mod mention {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "mention_source")]
    pub enum Source {
        #[sea_orm(string_value = "post")]
        Post,
        #[sea_orm(string_value = "comment")]
        Comment,
    }

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "mentions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub mention_id: Uuid,
        pub connection_id: Uuid,
        pub source_type: Source,
        pub source_id: String,
        pub thread_id: String,
        pub source_url: String,
        pub subreddit: String,
        pub content_excerpt: String,
        pub author: Option<String>,
        pub upvotes: i32,
        pub created_at: ChronoDateTimeUtc,
        pub observed_at: ChronoDateTimeUtc,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
