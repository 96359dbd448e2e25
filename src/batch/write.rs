//! The algorithm that writes an epoch, for any implementation of the tables.
//!
//! 1. Reads the generation, then looks up entities whose ids are not known from earlier epochs, and connections named
//!    by id; reads the generation again if there are both known and looked-up names. If it is not that of the known
//!    ids, looks up all names.
//! 2. Inserts new entities; then locks those that will change, and reads them again.
//! 3. Updates changed entities; locks and reads existing connections.
//! 4. Inserts new connections, with their final figures; for existing ones reads known mentions, known threads and
//!    recent counts.
//! 5. Writes new and changed mentions, and changed connections; if a history becomes long, adds its mentions to the
//!    indexes for long histories.
//!
//! Step 2 is skipped if all stated facts about entities are known. Names and connections that no epoch stated before are
//! not looked up in steps 1 and 3 but taken to be new, as long as that proves right (`novelty.rs`). In step 3,
//! connections about which nothing new is stated are found and set aside, if there were many of them of late
//! (`repeats.rs`). Apart from that, within a step every statement is sent before the first answer is awaited, except for
//! savepoints before a copy, and what is worked out while a copy runs; changed connections are written part by part, each
//! worked out while others are written.
//!
//! Foreign keys may be checked as late as between the insertions and the updates of step 5.
//!
//! Properties:
//! - Locks are taken in one global order: new entities by key, existing entities by key, Google ids, existing connections
//!   by key, new connections by key. Mentions are written only under their connection's lock.
//! - If another writer inserted an entity between steps 1 and 2, the transaction returns to before its insertions and
//!   looks up their names again. If one inserted a connection between steps 3 and 4, it returns to before step 3, which
//!   now finds it. Locking it immediately would break the order: it would wait for a lock while others wait for its
//!   insertions. And no connection is inserted or locked after one was changed, because the insertions of others wait
//!   for changes. The same happens if a row is there that was taken to be new.
//! - Every decision to change an existing row is based on data read *after* its lock was taken.
//! - Each row gets at most one new version, except for a new restaurant with a Google id (two) and a changed
//!   mention of a history that becomes long with it.
//! - The steps are types, each made from the previous one: an id is available only where it is final. One exception:
//!   connections are worked out while their entities are inserted and locked, and again if an id turns out to be another.
//!
//! Why two statements lock entities and still cannot deadlock: a transaction that inserts waits for others that have
//! inserted or changed one with the same name, one that locks waits for others that have locked. So each waits
//! for one that is as far or farther, and among those that are equally far the order of the keys prevents a circle.
//!
//! Two statements also lock connections, in the opposite order: a transaction that inserts waits for the insertions
//! of others in the order of the keys, so there is no circle of insertions. It may also wait for one that has changed
//! the connection since, and that one waits for nothing more. A transaction that still waits for a lock has inserted
//! nothing. None inserts or asks for a lock after it changed a connection. One statement that inserts or locks in one
//! pass has the same effect, but it has to be an `insert` with a row for each connection that is there. To look first
//! is less work for these, and lets the others be copied.
//!
//! An insertion of a row that is there, because it was taken to be new, waits like one that races: for a transaction
//! that has changed the row. It holds no lock that the other one still needs.

use futures::stream::{FuturesOrdered, StreamExt};

use super::Epoch;
use super::coalesce::RowRef;
use super::connections::{DecidedConnections, LockedConnections, UnlockedConnections, WrittenConnections, rejections};
use super::entities::{EntityUpdates, FoundEntities, LockedEntities};
use super::known_names::{Assumed, LearnedNames, Names};
use super::novelty::{GuessedNames, Novelty, NoveltyFilter, Unmet};
use super::repeats::Repeated;
use super::rows::{ConnectionWrite, FoundByKey};
use super::tables::{Found, GraphTables, KeyLookup, LockRound, Lookup, RereadQuestions, name_of};
use crate::outcome::{CommittedRow, Disposition, Rejection};
use crate::record::{Table, Timestamp};

/// How often a transaction returns to the locking of connections, because others inserted some, before it is retried as
/// a whole. Each time it finds all existing connections, so it takes as many new insertions to fail again.
pub(super) const RACES_MAX: u32 = 10;

/// Maximum number of connections that one statement updates: a row has its best mentions, a kilobyte or more, and the
/// driver holds it three times. Few in unit tests, whose epochs are small.
pub(super) const ROWS_AT_ONCE: usize = if cfg!(test) { 2 } else { 512 };

/// Number of such statements that are sent before the first of them is answered, so that the server does not wait for
/// the network.
const UPDATES_UNDER_WAY: usize = 2;

/// The result of an epoch's transaction, valid once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The results for the slots of each table.
    pub(crate) rows: [Vec<CommittedRow>; 3],
    /// Rows of the database by table and disposition.
    pub(crate) dispositions: Vec<(Table, Disposition)>,
    /// Names of entities and their ids.
    pub(crate) learned: LearnedNames,
    /// How many connections the epoch repeated, for expecting repeats in the next ones.
    pub(crate) repeated: Repeated,
}

/// Why an epoch was not written.
#[derive(Debug)]
pub(crate) enum WriteError<E> {
    /// These units (by index in the epoch) are rejected; nothing was written.
    Rejected(Vec<(usize, Rejection)>),
    /// The tables failed.
    Tables(E),
}

impl<E> From<E> for WriteError<E> {
    fn from(error: E) -> Self {
        Self::Tables(error)
    }
}

/// The reference of the figures of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) as_of: Timestamp,
    /// Relative error up to which a stored score counts as up to date.
    pub(crate) score_tolerance: f64,
}

/// What is remembered of earlier epochs, so that less is looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remembered<'a> {
    pub(crate) names: Names<'a>,
    /// Without it nothing is taken to be new that may be stored.
    pub(crate) novelty: Option<&'a Novelty>,
    /// Whether what was not met may be taken to be new.
    pub(crate) may_guess: bool,
    /// Whether most connections are expected to be stored as the epoch states them.
    pub(crate) expects_repeats: bool,
}

/// Writes an epoch, up to but excluding the commit.
pub(crate) async fn write_epoch<T: GraphTables>(
    tables: &T,
    epoch: &Epoch,
    remembered: Remembered<'_>,
    clock: Clock,
) -> Result<Written, WriteError<T::Error>> {
    let LookedUp { lookup, found, learned, mut guessed } = Box::pin(look_up(tables, epoch, remembered)).await?;
    let Remembered { novelty, may_guess, expects_repeats, .. } = remembered;
    let Found { entities_by_key, entities_by_id, connection_keys, .. } = found;
    let are_named_by_id = !lookup.connections_by_id.is_empty();
    let rejected = if are_named_by_id { rejections(epoch, &connection_keys) } else { Vec::new() };
    if !rejected.is_empty() {
        return Err(WriteError::Rejected(rejected));
    }
    let found =
        FoundEntities::resolve(epoch, &lookup, entities_by_key, entities_by_id).map_err(WriteError::Rejected)?;
    let resolve = |found: &_| UnlockedConnections::resolve(epoch, found, &connection_keys);
    let entities = insert_and_lock_entities(tables, found, &mut guessed, resolve).await;
    if let Some(novelty) = novelty {
        novelty.entities.observe(guessed.outcome());
    }
    let (entities, updates, mut connections) = entities?;
    let filter = novelty.map(|novelty| &novelty.connections);
    let EntityUpdates { place_ids, give_up, writes } = updates;
    let connections = async {
        if let Some(filter) = filter {
            connections.meet(filter, may_guess);
        }
        if expects_repeats {
            Box::pin(settle_repeats(tables, &mut connections, clock)).await?;
        }
        lock_connections(tables, connections, LockRound::First).await
    };
    let (waited, given_up, written, locked) = futures::join!(
        tables.lock_place_ids(place_ids),
        tables.give_up_place_ids(&give_up),
        tables.update_entities(&writes),
        connections,
    );
    waited?;
    given_up?;
    written?;
    // What was learned is put together while the server writes.
    let learned = async {
        tables.has_work().await;
        learn(epoch, learned, &lookup, &entities)
    };
    let (connections, learned) = futures::join!(Box::pin(write_connections(tables, locked?, filter, clock)), learned);
    Ok(outcome(&entities, &connections?, learned))
}

/// The result of step 1.
struct LookedUp<'e> {
    /// Names that are taken to be new, and then known ones, come after all others.
    lookup: Lookup<'e>,
    found: Found,
    learned: LearnedNames,
    guessed: GuessedNames<'e>,
}

/// Step 1.
async fn look_up<'e, T: GraphTables>(
    tables: &T,
    epoch: &'e Epoch,
    Remembered { names, novelty, may_guess, .. }: Remembered<'_>,
) -> Result<LookedUp<'e>, T::Error> {
    let mut lookup = Lookup::new(epoch);
    let Some(known) = names.known else {
        let found = tables.look_up(&lookup).await?;
        return Ok(LookedUp { lookup, found, learned: LearnedNames::default(), guessed: GuessedNames::default() });
    };
    // Without names there is nothing to remember.
    lookup.reads_generation = !lookup.entities_by_key.is_empty();
    lookup.sort_said();
    let mut asked = std::mem::take(&mut lookup.entities_by_key);
    let Assumed { generation, session, names: assumed } =
        known.take_known(names.session, &mut asked, |asked, hashes| {
            hashes.push(name_of(epoch, asked.slot));
            lookup.stated_of(epoch, asked.slot, &mut |hash| hashes.push(hash))
        });
    let misses = asked.len();
    let unmet = take_unmet(epoch, &mut asked, novelty);
    let may_guess = may_guess && novelty.is_some_and(|novelty| novelty.entities.takes_unmet_as_new());
    if !may_guess {
        asked.extend_from_slice(&unmet);
    }
    lookup.goes_with_guesses = may_guess && !unmet.is_empty();
    lookup.goes_with_known = !assumed.is_empty() && asked.len() + lookup.entities_by_id.len() > 0;
    lookup.entities_by_key = asked;
    let mut found = tables.look_up(&lookup).await?;
    // A name that leads to another entity has no row that would refuse a new one.
    let guesses_in_vain = lookup.goes_with_guesses && (found.has_redirects || found.generation.is_none());
    let is_one_moment = !lookup.goes_with_known || found.generation_after == found.generation;
    let mut learned = LearnedNames { session, hits: assumed.len(), misses, ..LearnedNames::default() };
    if found.generation.is_some() && found.generation == generation && is_one_moment && !guesses_in_vain {
        let ids = assumed.iter().map(|(name, id)| (name.slot, FoundByKey::known(*id)));
        found.entities_by_key.extend(ids);
        // Their stated facts are stored already, so they count as referenced only.
        let mut known: Vec<u32> = assumed.iter().map(|(name, _)| name.slot).collect();
        known.sort_unstable();
        lookup.said.retain(|(slot, _)| known.binary_search(slot).is_err());
    } else if !assumed.is_empty() || guesses_in_vain {
        // All of them by one statement: a name that one entity has now may have belonged to another at the first
        // lookup.
        let asked = lookup.entities_by_key.iter().chain(if guesses_in_vain { &unmet[..] } else { &[] });
        let names: Vec<_> = asked.copied().chain(assumed.iter().map(|(name, _)| *name)).collect();
        found.entities_by_key = tables.look_up_names(&names).await?;
        (learned.hits, learned.misses) = (0, learned.misses + learned.hits);
    }
    if may_guess {
        lookup.entities_by_key.extend_from_slice(&unmet);
    }
    let guessed = if may_guess && !guesses_in_vain {
        GuessedNames::new(unmet)
    } else {
        GuessedNames::looked_up(&unmet, &found.entities_by_key, guesses_in_vain)
    };
    lookup.entities_by_key.extend(assumed.into_iter().map(|(name, _)| name));
    learned.generation = found.generation.take();
    Ok(LookedUp { lookup, found, learned, guessed })
}

/// Takes those names out of `asked` that no earlier epoch stated.
fn take_unmet<'e>(epoch: &Epoch, asked: &mut Vec<KeyLookup<'e>>, novelty: Option<&Novelty>) -> Vec<KeyLookup<'e>> {
    let Some(Novelty { entities, .. }) = novelty else { return Vec::new() };
    asked.extract_if(.., |name| !entities.meet(name_of(epoch, name.slot) as u64)).collect()
}

/// Adds the ids of names that were unknown, and the stated facts.
fn learn(epoch: &Epoch, mut learned: LearnedNames, lookup: &Lookup<'_>, entities: &LockedEntities<'_>) -> LearnedNames {
    if learned.generation.is_none() {
        return learned;
    }
    for name in &lookup.entities_by_key[..learned.misses] {
        if let Some(id) = entities.id_of_name(name) {
            learned.ids.push((name_of(epoch, name.slot), id));
            // A row with a redirected name may be inserted without a new generation, and would then be a different
            // attribute.
            let are_own = |row: &RowRef| {
                let mut attributes = epoch.unit_of(*row).block().attributes_of(row.row as usize);
                attributes.all(|attribute| entities.is_own_name(row.unit, attribute))
            };
            if name.with_facts && lookup.said_of(name.slot).all(are_own) {
                lookup.stated_of(epoch, name.slot, &mut |fact| learned.facts.push(fact));
            }
        }
    }
    learned
}

/// Updates the figures of connections about which nothing else is stated.
pub(crate) async fn refresh_connections<'e, T: GraphTables>(
    tables: &T,
    connections: UnlockedConnections<'e>,
    clock: Clock,
) -> Result<WrittenConnections<'e>, T::Error> {
    let connections = lock_connections(tables, connections, LockRound::First).await?;
    Box::pin(write_connections(tables, connections, None, clock)).await
}

/// Step 2. Returns the updates that remain for step 3, and the connections, which are resolved meanwhile.
///
/// It ends: after each race fewer entities are new.
async fn insert_and_lock_entities<'e, T: GraphTables>(
    tables: &T,
    mut found: FoundEntities<'e>,
    guessed: &mut GuessedNames<'_>,
    resolve: impl Fn(&FoundEntities<'e>) -> UnlockedConnections<'e>,
) -> Result<(LockedEntities<'e>, EntityUpdates, UnlockedConnections<'e>), T::Error> {
    loop {
        let (new, changing) = (found.new_rows(), found.changing_rows());
        let connections = async {
            tables.has_work().await;
            resolve(&found)
        };
        let (rows, connections) = futures::join!(tables.insert_and_lock_entities(&new, &changing), connections);
        let error = match rows {
            Ok(rows) => {
                let connections = if found.takes_ids_of(&changing, &rows) { resolve(&found) } else { connections };
                let (entities, updates) = found.locked(&new, &changing, rows)?;
                return Ok((entities, updates, connections));
            }
            Err(error) => error,
        };
        let returns = T::is_race(&error) || guessed.are_open() && T::is_refusal(&error);
        if new.is_empty() || !returns {
            guessed.failed();
            return Err(error);
        }
        let names = found.names_of_new();
        let exist = tables.look_up_raced(&names).await?;
        guessed.settle(names.iter().filter(|name| exist.contains_key(&name.slot)));
        if exist.is_empty() {
            // The row is hidden from this role, or a trigger gives rows another name.
            return Err(error);
        }
        tracing::debug!(
            entities = exist.len(),
            "entities that were to be inserted exist: back to where they are inserted"
        );
        found = found.raced(exist)?;
    }
}

/// In step 3, before connections are locked, if repeats are expected: excludes those about which nothing new is stated
/// from all later steps.
async fn settle_repeats<T: GraphTables>(
    tables: &T,
    UnlockedConnections(nodes): &mut UnlockedConnections<'_>,
    clock: Clock,
) -> Result<(), T::Error> {
    let questions = nodes.repeat_questions();
    if questions.is_empty() {
        return Ok(());
    }
    let repeated = nodes.repeated(tables.find_repeats(&questions).await?);
    let questions = repeated.questions(clock.as_of);
    let recent = if questions.recent.is_empty() { Vec::new() } else { tables.read_history(&questions).await?.recent };
    nodes.settle(repeated, recent, clock);
    Ok(())
}

/// Step 3, the part of the connections: locks the existing ones.
async fn lock_connections<'e, T: GraphTables>(
    tables: &T,
    connections: UnlockedConnections<'e>,
    round: LockRound,
) -> Result<LockedConnections<'e>, T::Error> {
    let stored = tables.lock_connections(&connections.keys(), connections.may_race(), round).await?;
    Ok(connections.locked(stored)?)
}

/// Steps 4 and 5. Callers box this future, because it is by far the largest part of theirs.
async fn write_connections<'e, T: GraphTables>(
    tables: &T,
    mut connections: LockedConnections<'e>,
    filter: Option<&NoveltyFilter>,
    clock: Clock,
) -> Result<WrittenConnections<'e>, T::Error> {
    let mut races = 0;
    let (questions, history) = loop {
        let new = connections.new_rows(clock.as_of);
        let history = async {
            tables.has_work().await;
            let questions = connections.questions(clock.as_of);
            tables.read_history(&questions).await.map(|history| (questions, history))
        };
        let (created, history) = futures::join!(tables.insert_connections(new), history);
        // In the order of sending: statements after an error fail only because of it.
        let Err(error) = created else { break history? };
        let guessed = connections.has_guesses();
        if let Some(filter) = filter.filter(|_| guessed) {
            filter.observe(Unmet { stored: 1, absent: 0 });
        }
        let returns = T::is_race(&error) || guessed && T::is_refusal(&error);
        if !returns || races == RACES_MAX || !connections.may_race() {
            return Err(error);
        }
        races += 1;
        tracing::debug!(races, "a connection that was to be inserted exists: back to where they are locked");
        connections = lock_connections(tables, connections.unlocked(), LockRound::Again).await?;
    };
    if let Some(filter) = filter {
        filter.observe(connections.count_unmet());
    }
    let connections = connections.decided(&questions, history);
    // Mentions come first: the server is busy with them while figures are computed here.
    let newer = connections.newer_mentions();
    let long = connections.becoming_long();
    let mentions = async {
        let (inserted, updated, indexed) = futures::join!(
            tables.insert_mentions(connections.new_mentions()),
            tables.update_mentions(&newer),
            tables.index_histories(&long),
        );
        inserted.and(updated).and(indexed)
    };
    let (written, changed) = futures::join!(mentions, update_connections(tables, &connections, clock));
    written?;
    let changed = changed?;
    Ok(connections.written(&changed, clock))
}

/// Writes the rows of changed connections; returns the positions of these.
async fn update_connections<T: GraphTables>(
    tables: &T,
    connections: &DecidedConnections<'_>,
    clock: Clock,
) -> Result<Vec<u32>, T::Error> {
    tables.has_work().await;
    let mut rows = connections.changed_rows(clock.as_of, clock.score_tolerance);
    let mut to_reread = Vec::new();
    let mut next = || {
        let ready = rows.by_ref().filter_map(|write| {
            if write.reread.any() {
                to_reread.push(write);
                return None;
            }
            Some(write)
        });
        ready.take(ROWS_AT_ONCE).collect::<Vec<_>>()
    };
    let (mut under_way, mut changed) = (FuturesOrdered::new(), Vec::new());
    loop {
        while under_way.len() < UPDATES_UNDER_WAY {
            let part = next();
            if part.is_empty() {
                break;
            }
            under_way.push_back(update(tables, part));
        }
        // In the order of sending: statements after an error fail only because of it.
        let Some(updated) = under_way.next().await else { break };
        changed.extend(updated?);
    }
    while !to_reread.is_empty() {
        let mut part: Vec<_> = to_reread.drain(..to_reread.len().min(ROWS_AT_ONCE)).collect();
        let (questions, places) = RereadQuestions::new(&part);
        // The server reads after it wrote the mentions, because they were sent earlier.
        tables.reread(&questions).await?.fill(&mut part, &places, clock.as_of);
        part.retain_mut(|write| connections.changes(write, clock.score_tolerance));
        changed.extend(update(tables, part).await?);
    }
    Ok(changed)
}

/// Writes rows of connections with one statement; returns the positions of these.
async fn update<T: GraphTables>(tables: &T, rows: Vec<ConnectionWrite<'_>>) -> Result<Vec<u32>, T::Error> {
    tables.update_connections(&rows).await?;
    Ok(rows.iter().map(ConnectionWrite::place).collect())
}

fn outcome(entities: &LockedEntities<'_>, connections: &WrittenConnections<'_>, learned: LearnedNames) -> Written {
    let (connection_rows, mention_rows) = connections.committed();
    let (of_connections, of_mentions) = connections.dispositions();
    let dispositions = entities
        .dispositions()
        .map(|disposition| (Table::Entities, disposition))
        .chain(of_connections.map(|disposition| (Table::Connections, disposition)))
        .chain(of_mentions.map(|disposition| (Table::Mentions, disposition)))
        .collect();
    Written {
        rows: [entities.committed(), connection_rows, mention_rows],
        dispositions,
        learned,
        repeated: connections.repeated,
    }
}
