//! The transaction of an epoch, statement by statement, up to but without its commit.
//!
//! 1. `begin`, the attempt's own row and a share of the merges' lock, and lookups of entities and of connections named
//!    by id: one round trip.
//! 2. Entities: insert or lock those that are new or will change, read the locked ones again.
//! 3. Changed entities; connections that are there: lock and read.
//! 4. New connections, with their final figures; of those that were there the known mentions, known threads and recent
//!    counts.
//! 5. New and changed mentions, changed connections.
//!
//! Step 2 is left out when nothing is said of entities that is not known. Within a step everything is sent before the
//! first answer is awaited.
//!
//! Properties:
//! - No merge takes place from step 1 to the commit: what redirects say holds as long.
//! - Locks are taken in one global order: merges, attempt, entities by key, Google ids, connections that are there by
//!   key, new connections by key; one statement takes all locks of a kind. Mentions are written only under their
//!   connection's lock.
//! - Where somebody else inserted a connection between steps 3 and 4, the transaction goes back to before step 3, which
//!   now finds it. To lock it there and then would break the order: it would wait for a lock while others wait for
//!   what it inserted. And no connection is inserted or locked after one was changed: others' insertions wait for changes.
//! - Every decision on a row that exists is made on what was read *after* its lock was taken.
//! - Each row gets at most one new version, except for a new restaurant with a Google id (two) and the loser of a race
//!   for an attribute's id.
//! - Merge rules live in `record`, and nowhere in SQL.

use tokio_postgres::Row;
use uuid::Uuid;

use super::StoreError;
use super::columns::{
    ConnectionColumns, ConnectionKeyColumns, EntityColumns, EntityKeyColumns, MentionColumns, entity_by_id,
    entity_by_key, ordinal, stored_connection, stored_mention, time,
};
use super::copy;
use super::session::{ROLLBACK_TO_SAVEPOINT, SAVEPOINT, Session};
use super::statement::{Statement, uuid_array};
use crate::batch::{
    ConnectionPlan, ConnectionWrite, EntityPlan, EntityUpdates, Epoch, MentionNode, PlaceIds, StoredEntity,
    StoredMention, VanishedRow, top_mention,
};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{Committed, Disposition, Rejection};
use crate::record::{ConnectionKey, EntityKey, EntityName, RECENT_DAYS, RereadNeeded, Table, Timestamp, days_before};

/// From this many rows on `copy` is faster than `insert`, in spite of its own round trip: it writes
/// whole pages, and one WAL record for each.
const COPY_FROM_ROWS: usize = 128;

/// How often a transaction comes back to where it locks connections, because others inserted some, before it is tried
/// again as a whole. Each time all that was there is found, so it takes as many others to fail once more.
const RACES_MAX: u32 = 10;

/// Why an attempt ended before its commit.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// These units (by index in the epoch) are refused; nothing was written.
    Rejected(Vec<(usize, Rejection)>),
    /// The database failed.
    Store(StoreError),
}

impl From<StoreError> for AttemptError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<tokio_postgres::Error> for AttemptError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<VanishedRow> for StoreError {
    fn from(_: VanishedRow) -> Self {
        Self::VanishedRow
    }
}

impl From<VanishedRow> for AttemptError {
    fn from(_: VanishedRow) -> Self {
        Self::Store(StoreError::VanishedRow)
    }
}

/// What an epoch's transaction did, true once it is committed.
#[derive(Debug)]
pub(crate) struct Written {
    /// For each unit of the epoch its rows.
    pub(crate) units: Vec<Committed>,
    /// Rows of the database by table and disposition.
    pub(crate) dispositions: Vec<(Table, Disposition)>,
}

/// What the database has of locked connections besides their own rows. Connections and mentions are named by their
/// place in the plan.
#[derive(Debug, Default)]
struct History {
    /// Those of the epoch's mentions that it has.
    known: Vec<(u32, StoredMention)>,
    /// How many recent mentions each connection has, if it may have any.
    recent: HashMap<u32, i32>,
    /// Those of the epoch's threads that each connection has.
    threads: HashMap<u32, HashSet<String>>,
}

/// The settings of one transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transaction<'a> {
    pub(crate) session: &'a Session,
    pub(crate) begin: &'a str,
    /// Whether rows may be copied.
    pub(crate) copies: bool,
    pub(crate) as_of: Timestamp,
    /// Relative error up to which a stored score counts as up to date.
    pub(crate) score_tolerance: f64,
}

impl Transaction<'_> {
    /// Writes an epoch. Afterwards the transaction waits for its commit, or after an error for its
    /// rollback.
    pub(crate) async fn write_epoch(&self, attempt: Uuid, epoch: &Epoch) -> Result<Written, AttemptError> {
        let (mut entities, keys_by_id) = self.look_up(attempt, epoch).await?;
        let entity_updates = self.insert_or_lock_entities(epoch, &mut entities).await?;
        let mut connections = ConnectionPlan::resolve(epoch, &entities, &keys_by_id);
        let EntityUpdates { place_ids, give_up, writes } = entity_updates;
        let columns = EntityColumns::new(&writes);
        let (waited, given_up, updated, locked) = futures::join!(
            self.lock_place_ids(place_ids),
            self.execute(Statement::GiveUpPlaceIds, vec![&give_up], give_up.len()),
            self.execute(Statement::UpdateEntities, columns.update(), writes.len()),
            self.lock_connections(&mut connections, SAVEPOINT),
        );
        waited?;
        given_up?;
        updated?;
        locked?;
        self.write_connections(&mut connections).await?;

        let entity_rows = entities.committed();
        let (connection_rows, mention_rows) = connections.committed();
        let (of_connections, of_mentions) = connections.dispositions();
        let dispositions = entities
            .dispositions()
            .map(|disposition| (Table::Entities, disposition))
            .chain(of_connections.map(|disposition| (Table::Connections, disposition)))
            .chain(of_mentions.map(|disposition| (Table::Mentions, disposition)))
            .collect();
        let units = epoch.committed(&entity_rows, &connection_rows, &mention_rows);
        Ok(Written { units, dispositions })
    }

    /// Brings the figures of the next connections up to date, in lock order; gives their keys, and
    /// how many changed.
    pub(crate) async fn refresh(
        &self,
        after: &ConnectionKey<Uuid>,
        limit: i64,
    ) -> Result<(Vec<ConnectionKey<Uuid>>, usize), StoreError> {
        let (attributes, merge_lock) = (uuid_array(&after.dish_attributes), self.session.merge_lock());
        let (begun, turn, rows) = futures::join!(
            self.session.batch(self.begin),
            self.query(Statement::LockShared, vec![&merge_lock], false),
            self.query(Statement::ConnectionsAfter, vec![&after.restaurant, &after.dish, &attributes, &limit], false),
        );
        begun.map_err(StoreError::Begin)?;
        turn?;
        let keys = rows?.iter().map(|row| connection_key(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut connections = ConnectionPlan::of_keys(keys.clone());
        self.lock_connections(&mut connections, SAVEPOINT).await?;
        self.write_connections(&mut connections).await?;
        let updated = connections.dispositions().0.filter(|disposition| *disposition == Disposition::Updated).count();
        Ok((keys, updated))
    }

    /// Step 1: begins, and asks what is there.
    async fn look_up(
        &self,
        attempt: Uuid,
        epoch: &Epoch,
    ) -> Result<(EntityPlan, HashMap<Uuid, ConnectionKey<Uuid>>), AttemptError> {
        let mut by_key = EntityKeyColumns::default();
        let mut slots = Vec::new();
        let mut ids = Vec::new();
        for (slot, (name, facts)) in (0_u32..).zip(epoch.entities.rows()) {
            match name {
                EntityName::Key(key) => {
                    by_key.push(key, !facts.is_empty());
                    slots.push((slot, key, !facts.is_empty()));
                }
                EntityName::Id(id) => ids.push(*id),
            }
        }
        let connection_ids: Vec<Uuid> = epoch.connections.rows().iter().filter_map(|(name, _)| name.id()).collect();
        let (settled, merge_lock) = (&self.session.settled_attempts, self.session.merge_lock());
        let (begun, recorded, rows_by_key, rows_by_id, connection_rows) = futures::join!(
            self.session.batch(self.begin),
            self.execute(Statement::RecordAttempt, vec![&attempt, settled, &merge_lock, &false], 1),
            self.query(Statement::EntitiesByKey, by_key.parameters(), slots.is_empty()),
            self.query(Statement::EntitiesById, vec![&ids], ids.is_empty()),
            self.query(Statement::ConnectionKeysById, vec![&connection_ids], connection_ids.is_empty()),
        );
        begun.map_err(StoreError::Begin)?;
        recorded?;
        let mut stored_by_key = HashMap::default();
        for row in rows_by_key? {
            let (slot, key, said) = slots[ordinal(&row)? as usize];
            stored_by_key.insert(slot, entity_by_key(&row, key, said)?);
        }
        let mut stored_by_id = HashMap::default();
        for row in rows_by_id? {
            stored_by_id.insert(row.try_get(0)?, entity_by_id(&row)?);
        }
        let mut keys_by_id = HashMap::default();
        for row in connection_rows? {
            keys_by_id.insert(row.try_get(0)?, connection_key(&row, 1)?);
        }
        let rejected = ConnectionPlan::rejections(epoch, &keys_by_id);
        if !rejected.is_empty() {
            return Err(AttemptError::Rejected(rejected));
        }
        let entities = EntityPlan::resolve(epoch, stored_by_key, stored_by_id).map_err(AttemptError::Rejected)?;
        Ok((entities, keys_by_id))
    }

    /// Step 2. The answer is what step 3 must still update.
    async fn insert_or_lock_entities(
        &self,
        epoch: &Epoch,
        entities: &mut EntityPlan,
    ) -> Result<EntityUpdates, AttemptError> {
        let writes = entities.to_insert_or_lock(&epoch.entities);
        if writes.is_empty() {
            return Ok(EntityUpdates::default());
        }
        let columns = EntityColumns::new(&writes);
        let known: Vec<EntityKey> = writes.iter().filter(|write| write.exists).map(|write| write.key.clone()).collect();
        let (inserted, read) = futures::join!(
            self.query(Statement::InsertOrLockEntities, columns.insert(), false),
            self.entities_by_key(&known),
        );
        let inserted = ids(&inserted?)?;
        let mut stored = read?;
        // Keys that were not there at the lookup and are now: another writer was faster.
        let mut raced = entities.inserted_or_locked(&writes, &inserted)?;
        let known: HashSet<&EntityKey> = known.iter().collect();
        raced.retain(|key| !known.contains(key));
        stored.extend(self.entities_by_key(&raced).await?);
        if stored.len() != known.len() + raced.len() {
            return Err(VanishedRow.into());
        }
        entities.read_under_lock(stored);
        Ok(entities.remaining_updates(&epoch.entities, &writes))
    }

    /// Google ids are locks beyond all row locks: see [`PlaceIds`].
    async fn lock_place_ids(&self, place_ids: PlaceIds) -> Result<(), StoreError> {
        let statement = match place_ids {
            PlaceIds::Untouched => return Ok(()),
            PlaceIds::Taken => Statement::LockShared,
            PlaceIds::GivenUp => Statement::LockAlone,
        };
        self.query(statement, vec![&self.session.place_lock()], false).await.map(drop)
    }

    async fn entities_by_key(&self, keys: &[EntityKey]) -> Result<Vec<StoredEntity>, StoreError> {
        let mut columns = EntityKeyColumns::default();
        for key in keys {
            columns.push(key, true);
        }
        let rows = self.query(Statement::EntitiesByKey, columns.parameters(), keys.is_empty()).await?;
        let mut stored = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = &keys[ordinal(row)? as usize];
            let entity = entity_by_key(row, key, true)?;
            // What a redirect leads to is not the row that was locked: that one is gone.
            stored.extend((entity.key == *key).then_some(entity));
        }
        Ok(stored)
    }

    /// Step 3, the connections' part: those that are there. `place` sets the savepoint before, or goes back to it.
    async fn lock_connections(&self, connections: &mut ConnectionPlan, place: &str) -> Result<(), StoreError> {
        if connections.connections().is_empty() {
            return Ok(());
        }
        let columns = ConnectionKeyColumns::new(connections.connections());
        let (placed, rows) = futures::join!(
            self.session.batch(place),
            self.query(Statement::LockConnections, columns.parameters(), false),
        );
        placed?;
        for row in rows? {
            connections.set_stored(ordinal(&row)?, stored_connection(&row)?);
        }
        Ok(())
    }

    /// Steps 4 and 5.
    async fn write_connections(&self, connections: &mut ConnectionPlan) -> Result<(), StoreError> {
        let mut races = 0;
        loop {
            let existing = connections.existing()?;
            let new = connections.new_rows(self.as_of);
            let (created, history) =
                futures::join!(self.insert_connections(&new, connections), self.read_history(connections, &existing),);
            drop(new);
            match created {
                // In the order in which they were sent: what follows an error fails for that alone.
                Ok(()) => return self.write_mentions(connections, &existing, history?).await,
                Err(error) if error.is_race() && races < RACES_MAX => {
                    races += 1;
                    tracing::debug!(races, "another writer inserted a connection: back to where they are locked");
                    connections.forget_stored();
                    self.lock_connections(connections, ROLLBACK_TO_SAVEPOINT).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Step 5. Mentions are sent first, which keeps the server at work while figures are worked out here.
    async fn write_mentions(
        &self,
        connections: &mut ConnectionPlan,
        existing: &[u32],
        History { known, recent, threads }: History,
    ) -> Result<(), StoreError> {
        for (mention, stored) in known {
            connections.set_stored_mention(mention, stored);
        }
        let plan = &*connections;
        let new: Vec<&MentionNode> = plan.mentions_to(Disposition::Inserted).collect();
        let newer = MentionColumns::new(plan.mentions_to(Disposition::Updated), plan.connections());
        let mentions = async {
            let (inserted, updated) = futures::join!(
                self.insert_mentions(&new, plan),
                self.execute(Statement::UpdateMentions, newer.update(), newer.len()),
            );
            inserted.and(updated)
        };
        let figures = async {
            let advance = |connection: &u32| {
                let recent = recent.get(connection).copied().unwrap_or(0);
                let known = threads.get(connection).map(|threads| threads.iter().map(String::as_str).collect());
                plan.advance(*connection, recent, &known.unwrap_or_default(), self.as_of, self.score_tolerance)
            };
            let mut changed: Vec<_> = existing.iter().filter_map(advance).collect();
            if changed.iter().any(|write| write.reread.any()) {
                // The server reads after it wrote the mentions: they were sent before.
                self.reread(&mut changed).await?;
                changed.retain(|write| plan.changes(write, self.score_tolerance));
            }
            let columns = ConnectionColumns::new(&changed, plan.connections());
            self.execute(Statement::UpdateConnections, columns.update(), changed.len()).await?;
            Ok::<_, StoreError>(changed.iter().map(|write| write.node).collect::<Vec<_>>())
        };
        let (written, changed) = futures::join!(mentions, figures);
        written?;
        connections.mark_updated(changed?);
        Ok(())
    }

    /// Inserts connections that were not there.
    async fn insert_connections(&self, new: &[ConnectionWrite<'_>], plan: &ConnectionPlan) -> Result<(), StoreError> {
        let inserted = if self.copies && new.len() >= COPY_FROM_ROWS {
            self.session.copy(Statement::CopyConnections, copy::connections(new, plan.connections())).await?
        } else if new.is_empty() {
            0
        } else {
            let columns = ConnectionColumns::new(new, plan.connections());
            self.session.execute(Statement::InsertConnections, &columns.insert()).await?
        };
        all_written(inserted, new.len())
    }

    /// Inserts mentions that are known to be new: their connections are locked, or new themselves.
    async fn insert_mentions(&self, mentions: &[&MentionNode], plan: &ConnectionPlan) -> Result<(), StoreError> {
        let inserted = if self.copies && mentions.len() >= COPY_FROM_ROWS {
            self.session.copy(Statement::CopyMentions, copy::mentions(mentions, plan.connections())).await?
        } else if mentions.is_empty() {
            0
        } else {
            let columns = MentionColumns::new(mentions.iter().copied(), plan.connections());
            self.session.execute(Statement::InsertMentions, &columns.insert()).await?
        };
        all_written(inserted, mentions.len())
    }

    /// Step 4, of connections that were there.
    async fn read_history(&self, connections: &ConnectionPlan, existing: &[u32]) -> Result<History, StoreError> {
        let (mut owners, mut types, mut sources, mut mentions) = (vec![], vec![], vec![], vec![]);
        let (mut thread_owners, mut thread_ids, mut thread_nodes) = (vec![], vec![], vec![]);
        let (mut recent_owners, mut recent_nodes) = (vec![], vec![]);
        for &connection in existing {
            let stored = connections.stored(connection).expect("it was read in step 3");
            if stored.metrics.may_have_recent(self.as_of) {
                recent_owners.push(stored.id);
                recent_nodes.push(connection);
            }
            let mut distinct = HashSet::default();
            for (index, node) in connections.mentions_of(connection) {
                owners.push(stored.id);
                types.push(node.mention.source_type.as_str());
                sources.push(std::sync::Arc::clone(&node.mention.source_id));
                mentions.push(index);
                if distinct.insert(&node.mention.thread_id) {
                    thread_owners.push(stored.id);
                    thread_ids.push(node.mention.thread_id.to_string());
                    thread_nodes.push(connection);
                }
            }
        }
        let sources: Vec<&str> = sources.iter().map(|source| &**source).collect();
        let since = days_before(self.as_of, RECENT_DAYS);
        let (known, threads, recent) = futures::join!(
            self.query(Statement::ReadMentions, vec![&owners, &types, &sources], mentions.is_empty()),
            self.query(Statement::KnownThreads, vec![&thread_owners, &thread_ids], thread_ids.is_empty()),
            self.query(Statement::CountRecent, vec![&recent_owners, &since, &self.as_of], recent_owners.is_empty()),
        );
        let mut history = History::default();
        for row in known? {
            history.known.push((mentions[ordinal(&row)? as usize], stored_mention(&row)?));
        }
        for row in threads? {
            let index = ordinal(&row)? as usize;
            history.threads.entry(thread_nodes[index]).or_default().insert(std::mem::take(&mut thread_ids[index]));
        }
        for row in recent? {
            history.recent.insert(recent_nodes[ordinal(&row)? as usize], row.try_get(1)?);
        }
        Ok(history)
    }

    /// Reads again what the changes of the epoch could not tell, after its mentions were written.
    async fn reread(&self, writes: &mut [ConnectionWrite<'_>]) -> Result<(), StoreError> {
        let pick = |wanted: fn(&RereadNeeded) -> bool| -> (Vec<usize>, Vec<Uuid>) {
            let picked = writes.iter().enumerate().filter(|(_, write)| wanted(&write.reread));
            picked.map(|(index, write)| (index, write.id)).unzip()
        };
        let (thread_writes, thread_ids) = pick(|reread| reread.threads);
        let (newest_writes, newest_ids) = pick(|reread| reread.newest);
        let (top_writes, top_ids) = pick(|reread| reread.top);
        let (threads, newest, top) = futures::join!(
            self.query(Statement::RereadThreads, vec![&thread_ids], thread_ids.is_empty()),
            self.query(Statement::RereadNewest, vec![&newest_ids], newest_ids.is_empty()),
            self.query(Statement::RereadTop, vec![&top_ids], top_ids.is_empty()),
        );
        for row in threads? {
            writes[thread_writes[ordinal(&row)? as usize]].metrics.source_diversity = row.try_get(1)?;
        }
        for row in newest? {
            writes[newest_writes[ordinal(&row)? as usize]].metrics.last_mentioned_at = time(&row, 1)?;
        }
        let mut candidates: HashMap<usize, Vec<_>> = HashMap::default();
        for row in top? {
            let stored = stored_mention(&row)?;
            let write = top_writes[ordinal(&row)? as usize];
            candidates.entry(write).or_default().push(top_mention(stored.id, stored.mention));
        }
        for (write, candidates) in candidates {
            writes[write].metrics.top_mentions = candidates;
        }
        // Ranks, scores and sets the activity level, which depends on all three.
        for write in writes.iter_mut().filter(|write| write.reread.any()) {
            write.metrics.set_top(self.as_of);
        }
        Ok(())
    }

    /// Runs a query unless there is nothing to ask.
    async fn query(
        &self,
        statement: Statement,
        parameters: super::columns::Parameters<'_>,
        nothing: bool,
    ) -> Result<Vec<Row>, StoreError> {
        if nothing {
            return Ok(Vec::new());
        }
        Ok(self.session.query(statement, &parameters).await?)
    }

    /// Writes rows unless there are none; each must be there.
    async fn execute(
        &self,
        statement: Statement,
        parameters: super::columns::Parameters<'_>,
        rows: usize,
    ) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        all_written(self.session.execute(statement, &parameters).await?, rows)
    }
}

/// What was sent was written, unless another program deleted a row or a trigger left one out.
pub(super) fn all_written(written: u64, sent: usize) -> Result<(), StoreError> {
    if written == sent as u64 { Ok(()) } else { Err(StoreError::VanishedRow) }
}

/// Ids in the first column.
pub(super) fn ids(rows: &[Row]) -> Result<Vec<Uuid>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// A connection's key in three columns.
pub(super) fn connection_key(row: &Row, first: usize) -> Result<ConnectionKey<Uuid>, tokio_postgres::Error> {
    let dish_attributes: Vec<Uuid> = row.try_get(first + 2)?;
    Ok(ConnectionKey {
        restaurant: row.try_get(first)?,
        dish: row.try_get(first + 1)?,
        dish_attributes: dish_attributes.into_iter().collect(),
    })
}
