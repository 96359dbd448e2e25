//! What the algorithm of an epoch asks of the tables.

use uuid::Uuid;

use super::Epoch;
use super::coalesce::{RowRef, TableBatch};
use super::known_names::Generation;
use super::rows::{
    ConnectionWrite, EntityWrite, FoundByKey, MentionRow, PlaceIds, StoredConnection, StoredEntity, StoredMention,
    VanishedRow,
};
use crate::hash::HashMap;
use crate::record::{ConnectionKey, EntityKey, EntityType, SourceType, Table, Timestamp, TopMention};
use crate::unit::{ConnectionRecordName, EntityRecord, NameHash};

/// The three tables, within one transaction: in PostgreSQL, in memory, or none at all.
///
/// Each call is one statement, or a few that are sent at once. Calls that are joined take effect in the order in which
/// they are named.
pub(crate) trait GraphTables {
    /// What can go wrong.
    type Error: From<VanishedRow>;

    /// Whether another writer inserted a row of the same key meanwhile.
    fn is_race(error: &Self::Error) -> bool;

    /// Begins, reads the generation if that is asked for, and then looks names up. Reads it again where these go with names
    /// that are known.
    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, Self::Error>;

    /// Looks up more names of entities: what they have is found by slot.
    async fn look_up_names(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, Self::Error>;

    /// Inserts entities that are not there and locks those that are; gives the ids that were inserted.
    async fn insert_or_lock_entities(&self, writes: &[EntityWrite]) -> Result<Vec<Uuid>, Self::Error>;

    /// Reads entities, with their facts, by their own keys: redirects do not count.
    async fn read_entities(&self, keys: &[EntityKey]) -> Result<Vec<StoredEntity>, Self::Error>;

    /// Google ids are locks beyond all row locks: see [`PlaceIds`].
    async fn lock_place_ids(&self, place_ids: PlaceIds) -> Result<(), Self::Error>;

    /// Takes the Google ids away from these entities.
    async fn give_up_place_ids(&self, entities: &[Uuid]) -> Result<(), Self::Error>;

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), Self::Error>;

    /// Locks and reads those of these connections that are there, by the places that are given with their keys.
    async fn lock_connections(
        &self,
        keys: &[(u32, &ConnectionKey<Uuid>)],
        round: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, Self::Error>;

    async fn insert_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), Self::Error>;

    /// What locked connections have besides their own rows.
    async fn read_history(&self, questions: &HistoryQuestions<'_>) -> Result<HistoryAnswers, Self::Error>;

    async fn insert_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), Self::Error>;

    async fn update_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), Self::Error>;

    /// Gives all mentions of these connections their entries in the indexes for long histories.
    async fn index_histories(&self, connections: &[Uuid]) -> Result<(), Self::Error>;

    /// Reads what the changes of the epoch could not tell, after its mentions were written.
    async fn reread(&self, questions: &RereadQuestions) -> Result<RereadAnswers, Self::Error>;

    async fn update_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), Self::Error>;
}

/// When in the transaction connections are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockRound {
    /// For the first time. The transaction can come back to here.
    First,
    /// Once more, back where they were locked first: all locks and rows since then are given up.
    Again,
}

/// The names of an epoch that are looked up.
#[derive(Debug, Default)]
pub(crate) struct Lookup<'a> {
    pub(crate) entities_by_key: Vec<KeyLookup<'a>>,
    /// With their slots in the epoch.
    pub(crate) entities_by_id: Vec<(u32, Uuid)>,
    pub(crate) connections_by_id: Vec<Uuid>,
    /// Whether ids are remembered, so that the generation must be known.
    pub(crate) reads_generation: bool,
    /// Whether names are left out because they are thought to be known, so that those that are looked up must be read at
    /// the same generation.
    pub(crate) goes_with_known: bool,
    /// Slots of entities, and rows that say something of them.
    pub(super) said: Vec<(u32, RowRef)>,
}

/// An entity that is looked up by its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyLookup<'a> {
    /// Its slot in the epoch.
    pub(crate) slot: u32,
    pub(crate) entity_type: EntityType,
    pub(crate) name: &'a str,
    /// Whether the facts are wanted, or the id alone.
    pub(crate) with_facts: bool,
}

impl<'a> KeyLookup<'a> {
    /// Of a key that is no epoch's.
    pub(crate) fn new(place: u32, key: &'a EntityKey, with_facts: bool) -> Self {
        Self { slot: place, entity_type: key.entity_type, name: &key.name, with_facts }
    }
}

impl<'a> Lookup<'a> {
    pub(super) fn new(epoch: &'a Epoch) -> Self {
        let mut lookup = Self { entities_by_key: Vec::with_capacity(epoch.entities.len()), ..Self::default() };
        let mut with_facts = vec![false; epoch.entities.len()];
        for (row, slot) in epoch.rows(Table::Entities) {
            if epoch.unit_of(row).says_of(row.row as usize) {
                with_facts[slot as usize] = true;
                lookup.said.push((slot, row));
            }
        }
        for ((slot, row), with_facts) in (0_u32..).zip(epoch.entities.firsts()).zip(with_facts) {
            let block = &epoch.unit_of(*row).block;
            match block.entities[row.row as usize] {
                // Facts are read only where the epoch states some.
                EntityRecord::Key(entity_type, name) => {
                    lookup.entities_by_key.push(KeyLookup { slot, entity_type, name: block.text(name), with_facts });
                }
                EntityRecord::Id(id) => lookup.entities_by_id.push((slot, id)),
            }
        }
        for row in epoch.connections.firsts() {
            if let ConnectionRecordName::Id(id) = epoch.unit_of(*row).block.connections[row.row as usize].name {
                lookup.connections_by_id.push(id);
            }
        }
        lookup
    }
}

/// The hash of the name of an entity's slot.
pub(super) fn name_of(epoch: &Epoch, slot: u32) -> NameHash {
    let row = epoch.entities.firsts()[slot as usize];
    epoch.unit_of(row).names(Table::Entities)[row.row as usize]
}

impl Lookup<'_> {
    /// Puts what is said in the order of the slots.
    pub(super) fn sort_said(&mut self) {
        self.said.sort_unstable();
    }

    /// Rows that say something of a slot's entity, once they are in order.
    pub(super) fn said_of(&self, slot: u32) -> impl Iterator<Item = &RowRef> {
        let start = self.said.partition_point(|(other, _)| *other < slot);
        self.said[start..].iter().take_while(move |(other, _)| *other == slot).map(|(_, row)| row)
    }

    /// Hashes that stand for what the epoch states of a slot's entity, once it is in order; false if it says more
    /// than they stand for.
    pub(super) fn stated_of(&self, epoch: &Epoch, slot: u32, tell: &mut impl FnMut(NameHash)) -> bool {
        let mut all = true;
        for row in self.said_of(slot) {
            all &= epoch.unit_of(*row).stated_of(row.row as usize, &mut *tell);
        }
        all
    }
}

/// What the tables have of a [`Lookup`]. Behind a name may be a row of another key or id, if a merge took the one of
/// that name.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By slot.
    pub(crate) entities_by_key: HashMap<u32, FoundByKey>,
    pub(crate) entities_by_id: HashMap<Uuid, StoredEntity>,
    pub(crate) connection_keys: HashMap<Uuid, ConnectionKey<Uuid>>,
    /// That of before the lookups; nothing where it was not asked for, or ids may become wrong without a word.
    pub(crate) generation: Option<Generation>,
    /// That of after the lookups, where they go with names that are known.
    pub(crate) generation_after: Option<Generation>,
}

/// Questions about locked connections. Connections and mentions are named by their place in the plan.
#[derive(Debug)]
pub(crate) struct HistoryQuestions<'a> {
    pub(crate) mentions: Vec<MentionQuestion<'a>>,
    pub(crate) threads: Vec<ThreadQuestion<'a>>,
    pub(crate) recent: Vec<RecentQuestion>,
    /// Mentions are recent from then on
    pub(crate) since: Timestamp,
    /// until then.
    pub(crate) as_of: Timestamp,
}

/// Is this mention there?
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionQuestion<'a> {
    pub(crate) mention: u32,
    pub(crate) connection: Uuid,
    pub(crate) source_type: SourceType,
    pub(crate) source_id: &'a str,
}

/// Has this connection a mention of this thread?
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadQuestion<'a> {
    pub(crate) place: u32,
    pub(crate) connection: Uuid,
    /// The connection's own flag.
    pub(crate) history_indexed: bool,
    pub(crate) thread_id: &'a str,
}

/// How many recent mentions has this connection, which may have some?
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentQuestion {
    pub(crate) place: u32,
    pub(crate) connection: Uuid,
    /// The connection's own flag.
    pub(crate) history_indexed: bool,
}

/// What locked connections have besides their own rows.
#[derive(Debug, Default)]
pub(crate) struct HistoryAnswers {
    /// Mentions that are there.
    pub(crate) mentions: Vec<(u32, StoredMention)>,
    /// Places among the questions of threads that are there.
    pub(crate) threads: Vec<u32>,
    /// Recent mentions of the connections that were asked for.
    pub(crate) recent: Vec<(u32, i32)>,
}

/// The connections of which something must be read again.
#[derive(Debug, Default)]
pub(crate) struct RereadQuestions {
    pub(crate) threads: Vec<Uuid>,
    pub(crate) newest: Vec<Uuid>,
    /// The own flags of those connections.
    pub(crate) newest_indexed: Vec<bool>,
    pub(crate) top: Vec<Uuid>,
}

/// Answers by place among the questions of their kind.
#[derive(Debug, Default)]
pub(crate) struct RereadAnswers {
    /// How many threads there are.
    pub(crate) threads: Vec<(u32, i32)>,
    pub(crate) newest: Vec<(u32, Option<Timestamp>)>,
    /// Some mentions more than are kept, not yet ranked.
    pub(crate) top: Vec<(u32, TopMention<'static>)>,
}

impl RereadQuestions {
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.newest.is_empty() && self.top.is_empty()
    }

    /// What these rows do not know, and for each question the place of its row.
    pub(super) fn new(writes: &[ConnectionWrite<'_>]) -> (Self, [Vec<u32>; 3]) {
        let (mut questions, mut rows) = (Self::default(), <[Vec<u32>; 3]>::default());
        for (row, write) in (0_u32..).zip(writes) {
            if write.reread.newest {
                questions.newest_indexed.push(write.history_indexed);
            }
            let kinds = [
                (write.reread.threads, &mut questions.threads),
                (write.reread.newest, &mut questions.newest),
                (write.reread.top, &mut questions.top),
            ];
            for ((wanted, ids), rows) in kinds.into_iter().zip(&mut rows) {
                if wanted {
                    ids.push(write.id);
                    rows.push(row);
                }
            }
        }
        (questions, rows)
    }
}

impl RereadAnswers {
    /// Puts what was read into the rows that asked.
    pub(super) fn fill(self, writes: &mut [ConnectionWrite<'_>], rows: &[Vec<u32>; 3], as_of: Timestamp) {
        let [threads, newest, top] = rows;
        for (place, count) in self.threads {
            writes[threads[place as usize] as usize].metrics.source_diversity = count;
        }
        for (place, time) in self.newest {
            writes[newest[place as usize] as usize].metrics.last_mentioned_at = time;
        }
        let mut best: HashMap<u32, Vec<TopMention<'static>>> = HashMap::default();
        for (place, mention) in self.top {
            best.entry(top[place as usize]).or_default().push(mention);
        }
        for (row, best) in best {
            writes[row as usize].metrics.top_mentions = best;
        }
        // Ranks, scores and sets the activity level, which depends on all three.
        for write in writes.iter_mut().filter(|write| write.reread.any()) {
            write.metrics.set_top(as_of);
        }
    }
}
