//! The transaction of several folds, statement by statement, up to but excluding its commit.
//!
//! 1. `begin`. Waits for other programs that deleted or renamed entities, before any epoch waits for the merge. Then
//!    writes the attempt's row and takes the merges' lock exclusively: it waits for the transactions under way, and
//!    later ones wait for it.
//! 2. Finds the entities of the names, and determines the outcome of each merge.
//! 3. Locks the entities; restaurants with a folded attribute; connections that name a folded entity anywhere, and
//!    those that have the keys that these will get.
//! 4. Unites the mentions of connections that become one: if both have a mention, the newer observation stays; the
//!    others move.
//! 5. Deletes connections that now have no mentions, gives the others their keys, and gives those that got mentions
//!    their figures, counted from the rows.
//! 6. Deletes folded entities, writes their facts to the entities that they became, and adds redirects.
//!
//! Properties:
//! - No engine's transaction is under way at the same time, so none can use the deleted rows, and locks meet no other
//!   order.
//! - Row locks block other programs: a program that refers to a locked entity or connection waits, and fails because
//!   the row is deleted.
//! - The number of round trips does not depend on the number of folds, with one exception: the mentions of the third,
//!   fourth .. connection that becomes part of the same one are moved one connection after the other.

use futures::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::super::session::{ROLLBACK_TO_SAVEPOINT, SAVEPOINT, Session};
use super::super::statement;
use super::super::table::{Arrays, Cells, Connections, Entities, Purpose, read_connection_key, read_mention};
use super::super::transaction::{EntityKeys, all_written, entity_by_id, entity_by_key, ids, ordinal, time, uuid_set};
use super::sql::{self, Sql};
use crate::batch::{
    ConnectionWrite, FoldedConnection, Folds, FoundByKey, KeyLookup, KeyedConnection, Planned, StoredEntity, is_long,
    top_mention,
};
use crate::error::StoreError;
use crate::hash::{HashMap, HashSet};
use crate::merge::EntityMerge;
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, EntityKey, EntityName, EntityType, RECENT_DAYS, Timestamp,
    days_before,
};

type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// The result of a transaction, valid once it is committed.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) folds: Folds,
    pub(super) planned: Vec<Planned>,
}

/// The settings of one transaction.
#[derive(Debug)]
pub(super) struct FoldTransaction<'a> {
    pub(super) session: &'a Session,
    pub(super) begin: &'a str,
    pub(super) as_of: Timestamp,
}

impl FoldTransaction<'_> {
    /// Carries out merges, as if one after the other.
    pub(super) async fn write(&self, attempt: Uuid, merges: &[EntityMerge]) -> Result<Folded, StoreError> {
        let (settled, lock) = (&self.session.settled_attempts, self.session.merge_lock());
        let parameters: [&(dyn ToSql + Sync); 4] = [&attempt, settled, &lock, &true];
        self.session
            .batch("begin", &format!("{}; {}", self.begin, sql::ALLOW_SORTS))
            .await
            .map_err(StoreError::begin)?;
        // Given up at once: it must not be held while the merges' lock is waited for.
        self.session.batch("savepoint", SAVEPOINT).await?;
        self.session.query(&statement::LOCK_GENERATION, &[]).await?;
        self.session.batch("rollback_to_savepoint", ROLLBACK_TO_SAVEPOINT).await?;
        self.session.record_attempt(&parameters).await?;
        let found = self.find(merges).await?;
        let (folds, planned) = Folds::plan(merges, |name| found.get(name));
        if !folds.pairs().is_empty() {
            self.fold(&folds).await?;
        }
        Ok(Folded { folds, planned })
    }

    /// Step 2.
    async fn find(&self, merges: &[EntityMerge]) -> Result<HashMap<EntityName, StoredEntity>, StoreError> {
        let (mut keys, mut wanted_ids): (HashSet<&EntityKey>, HashSet<Uuid>) = Default::default();
        for name in merges.iter().flat_map(|merge| [&merge.from, &merge.into]) {
            match name {
                // PostgreSQL cannot store such a text, so no entity has that name.
                EntityName::Key(key) if key.name.contains('\0') => {}
                EntityName::Key(key) => drop(keys.insert(key)),
                EntityName::Id(id) => drop(wanted_ids.insert(*id)),
            }
        }
        let keys: Vec<&EntityKey> = keys.into_iter().collect();
        let lookups: Vec<_> = (0..).zip(&keys).map(|(place, key)| KeyLookup::new(place, key, false)).collect();
        let wanted_ids: Vec<Uuid> = wanted_ids.into_iter().collect();
        let mut found = HashMap::default();
        for row in self.session.query(&statement::ENTITIES_BY_KEY, &EntityKeys::new(&lookups).parameters()).await? {
            let place = ordinal(&row)? as usize;
            let FoundByKey { id, merged_into, facts } = entity_by_key(&row, &lookups[place])?;
            let key = merged_into.unwrap_or_else(|| keys[place].clone());
            found.insert(EntityName::Key(keys[place].clone()), StoredEntity { id, key, facts });
        }
        for row in self.session.query(&statement::ENTITIES_BY_ID, &[&wanted_ids]).await? {
            found.insert(EntityName::Id(row.try_get(0)?), entity_by_id(&row)?);
        }
        Ok(found)
    }

    /// Steps 3 to 6.
    async fn fold(&self, folds: &Folds) -> Result<(), StoreError> {
        let (from, into): (Vec<Uuid>, Vec<Uuid>) = folds.pairs().into_iter().unzip();
        self.lock_entities(&[&from[..], &into].concat()).await?;
        // After the locks, so that all existing references to these entities are seen.
        self.session.client().batch_execute(sql::ALLOW_BITMAPS).await?;
        let restaurants = self.restaurants_with(folds).await?;
        let named = self.connections_with(folds).await?;
        self.session.client().batch_execute(sql::FORBID_BITMAPS).await?;
        self.lock_entities(&restaurants).await?;
        let entities = self.read_entities(&[&from[..], &into, &restaurants].concat()).await?;
        let connections = folds.connections(self.lock_connections(folds, named).await?);

        self.unite_mentions(&connections).await?;
        self.write_connections(&connections).await?;

        let gone: Vec<&StoredEntity> = entities.iter().filter(|entity| folds.target(entity.id) != entity.id).collect();
        let keys: Vec<(Uuid, EntityKey)> = gone.iter().map(|entity| (entity.id, entity.key.clone())).collect();
        let mut writes = folds.entities(entities);
        // Before their facts are written: one of their Google ids may move to another row.
        self.touch(sql::DELETE_ENTITIES, &[&from], from.len()).await?;
        // In the order of their Google ids, like every writer; an id that moves is removed with its row.
        writes.sort_by(|left, right| left.google_place_id().cmp(&right.google_place_id()));
        let arrays = Arrays::new::<Entities>(Purpose::Update, &writes);
        let updated = self.session.execute(&statement::UPDATE_ENTITIES, &arrays.parameters()).await?;
        if updated != writes.len() as u64 {
            return Err(StoreError::VanishedRow);
        }
        self.redirect(folds, &keys, &connections).await
    }

    async fn lock_entities(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let distinct: HashSet<&Uuid> = ids.iter().collect();
        let locked = self.query(sql::LOCK_ENTITIES, &[&ids]).await?;
        if locked.len() == distinct.len() { Ok(()) } else { Err(StoreError::VanishedRow) }
    }

    async fn read_entities(&self, ids: &[Uuid]) -> Result<Vec<StoredEntity>, StoreError> {
        let distinct: HashSet<Uuid> = ids.iter().copied().collect();
        let ids: Vec<Uuid> = distinct.into_iter().collect();
        let rows = self.session.query(&statement::ENTITIES_BY_ID, &[&ids]).await?;
        rows.iter().map(entity_by_id).collect()
    }

    async fn restaurants_with(&self, folds: &Folds) -> Result<Vec<Uuid>, StoreError> {
        let attributes = folds.of_type(EntityType::RestaurantAttribute);
        if attributes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(ids(&self.query(sql::RESTAURANTS_WITH_ATTRIBUTES, &[&attributes]).await?)?)
    }

    /// Connections that name a folded entity, with their keys.
    async fn connections_with(&self, folds: &Folds) -> Result<HashMap<Uuid, ConnectionKey<Uuid>>, StoreError> {
        let mut named = HashMap::default();
        for (entity_type, statement) in [
            (EntityType::Restaurant, sql::CONNECTIONS_OF_RESTAURANTS),
            (EntityType::DishOrCategory, sql::CONNECTIONS_OF_DISHES),
            (EntityType::DishOrCategory, sql::CONNECTIONS_WITH_CATEGORIES),
            (EntityType::DishAttribute, sql::CONNECTIONS_WITH_ATTRIBUTES),
        ] {
            let folded = folds.of_type(entity_type);
            if folded.is_empty() {
                continue;
            }
            for row in self.query(statement, &[&folded]).await? {
                named.insert(row.try_get(0)?, read_connection_key(&mut Cells::new(&row, 1))?);
            }
        }
        Ok(named)
    }

    /// Locks these connections, and those that have the keys that these will get; reads them.
    async fn lock_connections(
        &self,
        folds: &Folds,
        named: HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Result<Vec<KeyedConnection>, StoreError> {
        let (mut restaurants, mut dishes, mut attributes) = (vec![], vec![], vec![]);
        for key in named.values().map(|key| folds.key(key)) {
            restaurants.push(key.restaurant);
            dishes.push(key.dish);
            attributes.push(uuid_set(&key.dish_attributes));
        }
        let partners = self.query(sql::CONNECTIONS_BY_KEY, &[&restaurants, &dishes, &attributes]).await?;
        let mut all: HashSet<Uuid> = named.into_keys().collect();
        all.extend(ids(&partners)?);
        let all: Vec<Uuid> = all.into_iter().collect();
        let rows = self.query(sql::LOCK_CONNECTIONS, &[&all]).await?;
        if rows.len() != all.len() {
            return Err(StoreError::VanishedRow);
        }
        let decode = |row: &Row| {
            let categories: Vec<Uuid> = row.try_get(4)?;
            let facts = ConnectionFacts { categories: categories.into_iter().collect(), is_menu_item: row.try_get(5)? };
            let mentions = row.try_get(6)?;
            Ok(KeyedConnection {
                id: row.try_get(0)?,
                key: read_connection_key(&mut Cells::new(row, 1))?,
                facts,
                mentions,
                history_indexed: row.try_get(7)?,
            })
        };
        rows.iter().map(decode).collect()
    }

    /// Step 4. Two connections at a time become one, so that a mention has at most one other with its key.
    async fn unite_mentions(&self, connections: &[FoldedConnection]) -> Result<(), StoreError> {
        let rounds = connections.iter().map(|connection| connection.others.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let pair = |connection: &FoldedConnection| Some((*connection.others.get(round)?, connection.id));
            let (others, stay): (Vec<Uuid>, Vec<Uuid>) = connections.iter().filter_map(pair).unzip();
            let outdated = self.outdated_duplicates(&others, &stay).await?;
            self.touch(sql::DELETE_MENTIONS, &[&outdated], outdated.len()).await?;
            self.execute(sql::MOVE_MENTIONS, &[&others, &stay]).await?;
        }
        Ok(())
    }

    /// For mentions that both connections of a pair have: the row that is deleted.
    async fn outdated_duplicates(&self, others: &[Uuid], stay: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let text = sql::duplicates().replace("{schema}", self.session.schema());
        let parameters: [&(dyn ToSql + Sync); 2] = [&others, &stay];
        // Read row by row: there may be as many as a connection has mentions.
        let rows = self.session.measured(sql::DUPLICATES, async {
            let mut outdated = Vec::new();
            let rows = self.session.client().query_raw(&text, parameters.iter().copied()).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await? {
                outdated.push(outdated_of(&row));
            }
            Ok(outdated)
        });
        rows.await?.into_iter().collect()
    }

    /// Step 5.
    async fn write_connections<'a>(&self, connections: &'a [FoldedConnection]) -> Result<(), StoreError> {
        let gone: Vec<Uuid> = connections.iter().flat_map(|connection| connection.others.iter().copied()).collect();
        self.touch(sql::DELETE_CONNECTIONS, &[&gone], gone.len()).await?;
        let column = |value: fn(&FoldedConnection) -> Uuid| connections.iter().map(value).collect::<Vec<_>>();
        let set = |value: fn(&FoldedConnection) -> Option<String>| connections.iter().map(value).collect::<Vec<_>>();
        let moved: [&(dyn ToSql + Sync); 6] = [
            &column(|connection| connection.id),
            &column(|connection| connection.key.restaurant),
            &column(|connection| connection.key.dish),
            &set(|connection| uuid_set(&connection.key.dish_attributes)),
            &set(|connection| uuid_set(&connection.facts.categories)),
            &connections.iter().map(|connection| connection.facts.is_menu_item).collect::<Vec<_>>(),
        ];
        self.touch(sql::MOVE_CONNECTIONS, &moved, connections.len()).await?;
        let united: Vec<&FoldedConnection> =
            connections.iter().filter(|connection| !connection.others.is_empty()).collect();
        if united.is_empty() {
            return Ok(());
        }
        let figures = self.figures(&united.iter().map(|connection| connection.id).collect::<Vec<_>>()).await?;
        let written = |(connection, metrics): (&&'a FoldedConnection, ConnectionMetrics<'static>)| {
            let indexed = is_long(metrics.mention_count.unsigned_abs() as usize);
            ConnectionWrite::of_merged(connection.id, &connection.key, &connection.facts, metrics, indexed)
        };
        let writes: Vec<_> = united.iter().zip(figures).map(written).collect();
        let becoming = united.iter().zip(&writes).filter(|(was, write)| write.history_indexed && !was.history_indexed);
        let long: Vec<Uuid> = becoming.map(|(_, write)| write.id).collect();
        if !long.is_empty() {
            self.session.execute(&statement::INDEX_HISTORIES, &[&long]).await?;
        }
        let arrays = Arrays::new::<Connections>(Purpose::Update, &writes);
        self.session.execute(&statement::UPDATE_CONNECTIONS, &arrays.parameters()).await?;
        Ok(())
    }

    /// The figures of connections, computed from all their mentions.
    async fn figures(&self, ids: &[Uuid]) -> Result<Vec<ConnectionMetrics<'static>>, StoreError> {
        let since = days_before(self.as_of, RECENT_DAYS);
        let counted = self.query(sql::COUNT_MENTIONS, &[&ids, &since, &self.as_of]).await?;
        let best = self.session.query(&statement::REREAD_TOP, &[&ids]).await?;
        let mut figures = Vec::with_capacity(ids.len());
        for row in counted {
            figures.push(ConnectionMetrics {
                mention_count: row.try_get(0)?,
                total_upvotes: row.try_get(1)?,
                source_diversity: row.try_get(2)?,
                last_mentioned_at: time(&row, 3)?,
                recent_mention_count: row.try_get(4)?,
                ..ConnectionMetrics::empty()
            });
        }
        for row in best {
            let stored = read_mention(&mut Cells::new(&row, 1))?;
            figures[ordinal(&row)? as usize].top_mentions.push(top_mention(stored.id, stored.mention));
        }
        for metrics in &mut figures {
            metrics.set_top(self.as_of);
        }
        Ok(figures)
    }

    /// Adds redirects from folded rows to their targets, and repoints existing redirects to them.
    async fn redirect(
        &self,
        folds: &Folds,
        gone: &[(Uuid, EntityKey)],
        connections: &[FoldedConnection],
    ) -> Result<(), StoreError> {
        let from: Vec<Uuid> = gone.iter().map(|(id, _)| *id).collect();
        let into: Vec<Uuid> = from.iter().map(|id| folds.target(*id)).collect();
        let types: Vec<&str> = gone.iter().map(|(_, key)| key.entity_type.as_str()).collect();
        let names: Vec<&str> = gone.iter().map(|(_, key)| &*key.name).collect();
        self.execute(sql::TURN_ENTITY_REDIRECTS, &[&from, &into]).await?;
        self.execute(sql::FREE_ENTITY_KEYS, &[&types, &names]).await?;
        self.touch(sql::ADD_ENTITY_REDIRECTS, &[&from, &types, &names, &into], from.len()).await?;
        let united = connections.iter().flat_map(|stays| stays.others.iter().map(|other| (*other, stays.id)));
        let (from, into): (Vec<Uuid>, Vec<Uuid>) = united.unzip();
        if !from.is_empty() {
            self.execute(sql::TURN_CONNECTION_REDIRECTS, &[&from, &into]).await?;
            self.touch(sql::ADD_CONNECTION_REDIRECTS, &[&from, &into], from.len()).await?;
        }
        let generation = format!("{}.graphsink_merge_generation", self.session.schema());
        self.query(sql::ADVANCE_GENERATION, &[&generation]).await?;
        Ok(())
    }

    async fn query(&self, Sql(name, text): Sql, parameters: &Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let text = text.replace("{schema}", self.session.schema());
        Ok(self.session.measured(name, self.session.client().query(&text, parameters)).await?)
    }

    async fn execute(&self, Sql(name, text): Sql, parameters: &Parameters<'_>) -> Result<u64, StoreError> {
        let text = text.replace("{schema}", self.session.schema());
        Ok(self.session.measured(name, self.session.client().execute(&text, parameters)).await?)
    }

    /// Writes rows; each must exist.
    async fn touch(&self, statement: Sql, parameters: &Parameters<'_>, rows: usize) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        all_written(self.execute(statement, parameters).await?, rows)
    }
}

/// Of two rows of one mention, the one that is deleted.
fn outdated_of(row: &Row) -> Result<Uuid, StoreError> {
    let mut cells = Cells::new(row, 0);
    let (other, own) = (read_mention(&mut cells)?, read_mention(&mut cells)?);
    // If both rows are equal, their ids do not matter; the connection's own stays.
    let moves = other.mention.precedence(&own.mention).is_gt();
    Ok(if moves { own.id } else { other.id })
}
