//! How an epoch is written, whatever the tables are.
//!
//! 1. The generation, then lookups of entities whose ids are not known from epochs before, and of connections named by
//!    id; the generation again where both are. If it is not that of the known ids, lookups of all names.
//! 2. Entities: insert or lock those that are new or will change, read the locked ones again.
//! 3. Changed entities; connections that are there: lock and read.
//! 4. New connections, with their final figures; of those that were there the known mentions, known threads and recent
//!    counts.
//! 5. New and changed mentions, changed connections; where a history becomes long, its mentions get their entries in the
//!    indexes for those.
//!
//! Step 2 is left out when nothing is said of entities that is not known. Within a step everything is asked before the
//! first answer is awaited.
//!
//! Properties:
//! - Locks are taken in one global order: entities by key, Google ids, connections that are there by key, new connections
//!   by key. Mentions are written only under their connection's lock.
//! - Where another writer inserted a connection between steps 3 and 4, the transaction goes back to before step 3, which
//!   now finds it. To lock it there and then would break the order: it would wait for a lock while others wait for
//!   what it inserted. And no connection is inserted or locked after one was changed: others' insertions wait for changes.
//! - Every decision on a row that exists is made on what was read *after* its lock was taken.
//! - Each row gets at most one new version, except for a new restaurant with a Google id (two), the loser of a race
//!   for an attribute's id, and a changed mention of a history that becomes long with it.
//! - The steps are types, each made of the one before: an id can be asked for only where it is final.
//!
//! Why two statements lock connections and still cannot deadlock: a transaction that inserts waits for the insertions
//! of others in the order of the keys, so there is no circle of insertions. It may also wait for one that has changed
//! the connection since, and that one waits for nothing more. A transaction that still waits for a lock has inserted
//! nothing. None inserts or asks for a lock after it changed a connection. One statement that inserts or locks in one
//! pass has the same effect, but it has to be an `insert` with a row for each connection that is there. To look first
//! is less work for these, lets the others be copied, and needs no guess at what is there.

use super::Epoch;
use super::coalesce::RowRef;
use super::connections::{LockedConnections, UnlockedConnections, WrittenConnections, rejections};
use super::entities::{EntityUpdates, FoundEntities, LockedEntities, keys_found};
use super::known_names::{Assumed, LearnedNames, Names};
use super::rows::{ConnectionWrite, FoundByKey};
use super::tables::{Found, GraphTables, LockRound, Lookup, RereadQuestions, name_of};
use crate::outcome::{Committed, Disposition, Rejection};
use crate::record::{Table, Timestamp};

/// How often a transaction comes back to where it locks connections, because others inserted some, before it is tried
/// again as a whole. Each time all that was there is found, so it takes as many others to fail once more.
pub(super) const RACES_MAX: u32 = 10;

/// What an epoch's transaction did, true once it is committed.
#[derive(Debug)]
pub(crate) struct Written {
    /// For each unit of the epoch its rows.
    pub(crate) units: Vec<Committed>,
    /// Rows of the database by table and disposition.
    pub(crate) dispositions: Vec<(Table, Disposition)>,
    /// Names of entities and their ids.
    pub(crate) learned: LearnedNames,
}

/// Why an epoch was not written.
#[derive(Debug)]
pub(crate) enum WriteError<E> {
    /// These units (by index in the epoch) are refused; nothing was written.
    Rejected(Vec<(usize, Rejection)>),
    /// The tables failed.
    Tables(E),
}

impl<E> From<E> for WriteError<E> {
    fn from(error: E) -> Self {
        Self::Tables(error)
    }
}

/// What the figures of connections refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) as_of: Timestamp,
    /// Relative error up to which a stored score counts as up to date.
    pub(crate) score_tolerance: f64,
}

/// Writes an epoch, up to but without the commit.
pub(crate) async fn write_epoch<T: GraphTables>(
    tables: &T,
    epoch: &Epoch,
    names: Names<'_>,
    clock: Clock,
) -> Result<Written, WriteError<T::Error>> {
    let (lookup, found, learned) = Box::pin(look_up(tables, epoch, names)).await?;
    let Found { entities_by_key, entities_by_id, connection_keys, .. } = found;
    let rejected = rejections(epoch, &connection_keys);
    if !rejected.is_empty() {
        return Err(WriteError::Rejected(rejected));
    }
    let found =
        FoundEntities::resolve(epoch, &lookup, entities_by_key, entities_by_id).map_err(WriteError::Rejected)?;
    let (entities, updates) = insert_or_lock_entities(tables, found).await?;
    let EntityUpdates { place_ids, give_up, writes } = updates;
    let connections = UnlockedConnections::resolve(epoch, &entities, &connection_keys);
    let (waited, given_up, written, locked) = futures::join!(
        tables.lock_place_ids(place_ids),
        tables.give_up_place_ids(&give_up),
        tables.update_entities(&writes),
        lock_connections(tables, connections, LockRound::First),
    );
    waited?;
    given_up?;
    written?;
    let connections = Box::pin(write_connections(tables, locked?, clock)).await?;
    let learned = learn(epoch, learned, &lookup, &entities);
    Ok(outcome(epoch, &entities, &connections, learned))
}

/// Step 1. Gives what is looked up, with names that are known behind all others; what was found; and how many were
/// known.
async fn look_up<'e, T: GraphTables>(
    tables: &T,
    epoch: &'e Epoch,
    names: Names<'_>,
) -> Result<(Lookup<'e>, Found, LearnedNames), T::Error> {
    let mut lookup = Lookup::new(epoch);
    let Some(known) = names.known else {
        let found = tables.look_up(&lookup).await?;
        return Ok((lookup, found, LearnedNames::default()));
    };
    // Without names there is nothing to know, and nothing to learn.
    lookup.reads_generation = !lookup.entities_by_key.is_empty();
    lookup.sort_said();
    let mut asked = std::mem::take(&mut lookup.entities_by_key);
    let Assumed { generation, session, names: assumed } =
        known.take_known(names.session, &mut asked, |asked, hashes| {
            hashes.push(name_of(epoch, asked.slot));
            lookup.stated_of(epoch, asked.slot, &mut |hash| hashes.push(hash))
        });
    let misses = asked.len();
    lookup.entities_by_key = asked;
    lookup.goes_with_known = !assumed.is_empty() && misses + lookup.entities_by_id.len() > 0;
    let mut found = tables.look_up(&lookup).await?;
    let is_one_moment = !lookup.goes_with_known || found.generation_after == found.generation;
    let mut learned = LearnedNames { session, hits: assumed.len(), misses, ..LearnedNames::default() };
    if found.generation.is_some() && found.generation == generation && is_one_moment {
        let ids = assumed.iter().map(|(name, id)| (name.slot, FoundByKey::known(*id)));
        found.entities_by_key.extend(ids);
        // What is stated of them is there, so nothing is said.
        let mut known: Vec<u32> = assumed.iter().map(|(name, _)| name.slot).collect();
        known.sort_unstable();
        lookup.said.retain(|(slot, _)| known.binary_search(slot).is_err());
    } else if !assumed.is_empty() {
        // All of them by one statement: a name that one entity has now, another may have had at the first lookup.
        let assumed = assumed.iter().map(|(name, _)| *name);
        let names: Vec<_> = lookup.entities_by_key.iter().copied().chain(assumed).collect();
        found.entities_by_key = tables.look_up_names(&names).await?;
        (learned.hits, learned.misses) = (0, learned.misses + learned.hits);
    }
    lookup.entities_by_key.extend(assumed.into_iter().map(|(name, _)| name));
    learned.generation = found.generation.take();
    Ok((lookup, found, learned))
}

/// Takes in the ids of names that were not known, and what was stated of them.
fn learn(epoch: &Epoch, mut learned: LearnedNames, lookup: &Lookup<'_>, entities: &LockedEntities<'_>) -> LearnedNames {
    if learned.generation.is_none() {
        return learned;
    }
    for name in &lookup.entities_by_key[..learned.misses] {
        if let Some(id) = entities.id_of_name(name) {
            learned.ids.push((name_of(epoch, name.slot), id));
            // A row of a redirected name may come about without a new generation, and be another attribute then.
            let are_own = |row: &RowRef| {
                let mut attributes = epoch.unit_of(*row).block.attributes_of(row.row as usize);
                attributes.all(|attribute| entities.is_own_name(row.unit, attribute))
            };
            if name.with_facts && lookup.said_of(name.slot).all(are_own) {
                lookup.stated_of(epoch, name.slot, &mut |fact| learned.facts.push(fact));
            }
        }
    }
    learned
}

/// Brings the figures of connections up to date, of which nothing else is said.
pub(crate) async fn refresh_connections<'e, T: GraphTables>(
    tables: &T,
    connections: UnlockedConnections<'e>,
    clock: Clock,
) -> Result<WrittenConnections<'e>, T::Error> {
    let connections = lock_connections(tables, connections, LockRound::First).await?;
    Box::pin(write_connections(tables, connections, clock)).await
}

/// Step 2. The answer is what step 3 must still update.
async fn insert_or_lock_entities<'e, T: GraphTables>(
    tables: &T,
    found: FoundEntities<'e>,
) -> Result<(LockedEntities<'e>, EntityUpdates), T::Error> {
    let writes = found.to_insert_or_lock();
    let known = keys_found(&writes);
    let (inserted, read) = futures::join!(tables.insert_or_lock_entities(&writes), tables.read_entities(&known));
    let entities = found.inserted(writes, &inserted?)?;
    let mut stored = read?;
    stored.extend(tables.read_entities(entities.raced()).await?);
    Ok(entities.locked(stored)?)
}

/// Step 3, the connections' part: those that are there.
async fn lock_connections<'e, T: GraphTables>(
    tables: &T,
    connections: UnlockedConnections<'e>,
    round: LockRound,
) -> Result<LockedConnections<'e>, T::Error> {
    let stored = tables.lock_connections(&connections.keys(), round).await?;
    Ok(connections.locked(stored)?)
}

/// Steps 4 and 5. Callers box it: it is by far the largest part of their futures.
async fn write_connections<'e, T: GraphTables>(
    tables: &T,
    mut connections: LockedConnections<'e>,
    clock: Clock,
) -> Result<WrittenConnections<'e>, T::Error> {
    let mut races = 0;
    let (questions, history) = loop {
        let new = connections.new_rows(clock.as_of);
        let questions = connections.questions(clock.as_of);
        let (created, history) = futures::join!(tables.insert_connections(&new), tables.read_history(&questions));
        match created {
            // In the order in which they were sent: what follows an error fails for that alone.
            Ok(()) => break (questions, history?),
            // Where none was looked for there is no place to come back to.
            Err(error) if T::is_race(&error) && races < RACES_MAX && !connections.are_all_new() => {
                races += 1;
                tracing::debug!(races, "another writer inserted a connection: back to where they are locked");
            }
            Err(error) => return Err(error),
        }
        drop(new);
        connections = lock_connections(tables, connections.unlocked(), LockRound::Again).await?;
    };
    let connections = connections.decided(&questions, history);
    // Mentions are sent first, which keeps the server at work while figures are worked out here.
    let (new, newer) = (connections.new_mentions(), connections.newer_mentions());
    let long = connections.becoming_long();
    let mentions = async {
        let (inserted, updated, indexed) = futures::join!(
            tables.insert_mentions(&new),
            tables.update_mentions(&newer),
            tables.index_histories(&long),
        );
        inserted.and(updated).and(indexed)
    };
    let figures = async {
        let mut changed = connections.changed_rows(clock.as_of, clock.score_tolerance);
        let (questions, rows) = RereadQuestions::new(&changed);
        if !questions.is_empty() {
            // The server reads after it wrote the mentions: they were sent before.
            tables.reread(&questions).await?.fill(&mut changed, &rows, clock.as_of);
            changed.retain_mut(|write| connections.changes(write, clock.score_tolerance));
        }
        tables.update_connections(&changed).await?;
        Ok::<_, T::Error>(changed.iter().map(ConnectionWrite::place).collect::<Vec<_>>())
    };
    let (written, changed) = futures::join!(mentions, figures);
    written?;
    let changed = changed?;
    Ok(connections.written(&changed))
}

fn outcome(
    epoch: &Epoch,
    entities: &LockedEntities<'_>,
    connections: &WrittenConnections<'_>,
    learned: LearnedNames,
) -> Written {
    let (connection_rows, mention_rows) = connections.committed();
    let (of_connections, of_mentions) = connections.dispositions();
    let dispositions = entities
        .dispositions()
        .map(|disposition| (Table::Entities, disposition))
        .chain(of_connections.map(|disposition| (Table::Connections, disposition)))
        .chain(of_mentions.map(|disposition| (Table::Mentions, disposition)))
        .collect();
    Written { units: epoch.committed(&entities.committed(), &connection_rows, &mention_rows), dispositions, learned }
}
