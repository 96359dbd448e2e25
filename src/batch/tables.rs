//! The table operations that the algorithm of an epoch needs.

use uuid::Uuid;

use super::Epoch;
use super::coalesce::{RowRef, TableBatch};
use super::connections::{MentionRows, NewConnections};
use super::known_names::Generation;
use super::repeats::{RepeatAnswers, RepeatQuestion};
use super::rows::{
    ConnectionWrite, EntityWrite, FoundByKey, MentionRow, PlaceIds, StoredConnection, StoredEntity, StoredMention,
    VanishedRow,
};
use crate::hash::HashMap;
use crate::record::{
    ConnectionKey, EntityKey, EntityType, RECENT_DAYS, SourceType, Table, Timestamp, TopMention, days_before,
};
use crate::unit::{ConnectionRecordName, EntityRecord, NameHash};

/// The three tables, within one transaction: in PostgreSQL, in memory, or none at all.
///
/// Each call is one statement, or a few that are sent at once. Joined calls take effect in the order in which they are
/// listed.
pub(crate) trait GraphTables {
    /// The error of an operation.
    type Error: From<VanishedRow>;

    /// Whether a row with the same key is there.
    fn is_race(error: &Self::Error) -> bool;

    /// Whether a row was refused for a reason that may lie in itself.
    fn is_refusal(error: &Self::Error) -> bool;

    /// Waits until the calls of this transaction that are under way keep the tables busy, for computing meanwhile.
    async fn has_work(&self);

    /// Begins, reads the generation if requested, and then looks up names. Reads the generation again if the lookup
    /// goes with known names.
    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, Self::Error>;

    /// Looks up more names of entities; results are by slot.
    async fn look_up_names(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, Self::Error>;

    /// Inserts the entities that are `new`, and then locks and reads the `existing` ones. If there are new ones, the
    /// transaction can return to before their insertion.
    async fn insert_and_lock_entities(
        &self,
        new: &[EntityWrite],
        existing: &[EntityWrite],
    ) -> Result<Vec<StoredEntity>, Self::Error>;

    /// Returns to before the last insertion of entities, which releases their locks, and looks up their names again.
    async fn look_up_raced(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, Self::Error>;

    /// Google ids are locks beyond all row locks: see [`PlaceIds`].
    async fn lock_place_ids(&self, place_ids: PlaceIds) -> Result<(), Self::Error>;

    /// Removes the Google ids of these entities.
    async fn give_up_place_ids(&self, entities: &[Uuid]) -> Result<(), Self::Error>;

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), Self::Error>;

    /// Reads, without a lock, stored mentions that are not older than these, and their connections.
    async fn find_repeats(&self, questions: &[RepeatQuestion<'_>]) -> Result<RepeatAnswers, Self::Error>;

    /// Locks and reads the existing ones of these connections, by the positions given with their keys. `may_race`: other
    /// writers may have inserted some that are inserted next, so the transaction must be able to return to this point.
    async fn lock_connections(
        &self,
        keys: &[(u32, &ConnectionKey<Uuid>)],
        may_race: bool,
        round: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, Self::Error>;

    /// Rows are made one by one, so that a copy need not hold all of them.
    async fn insert_connections(&self, rows: NewConnections<'_>) -> Result<(), Self::Error>;

    /// Reads the data of existing connections besides their own rows.
    async fn read_history(&self, questions: &HistoryQuestions<'_>) -> Result<HistoryAnswers, Self::Error>;

    async fn insert_mentions(&self, rows: MentionRows<'_>) -> Result<(), Self::Error>;

    async fn update_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), Self::Error>;

    /// Adds all mentions of these connections to the indexes for long histories.
    async fn index_histories(&self, connections: &[Uuid]) -> Result<(), Self::Error>;

    /// Rereads figures that cannot be computed from the epoch's changes, after its mentions were written.
    async fn reread(&self, questions: &RereadQuestions) -> Result<RereadAnswers, Self::Error>;

    async fn update_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), Self::Error>;
}

/// When in the transaction connections are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockRound {
    /// For the first time. The transaction can return to this point.
    First,
    /// Again, after returning to the point of the first locking: all later locks and rows are released.
    Again,
}

/// The names of an epoch that are looked up.
#[derive(Debug, Default)]
pub(crate) struct Lookup<'a> {
    pub(crate) entities_by_key: Vec<KeyLookup<'a>>,
    /// With their slots in the epoch.
    pub(crate) entities_by_id: Vec<(u32, Uuid)>,
    pub(crate) connections_by_id: Vec<Uuid>,
    /// Whether ids are remembered, so that the generation is needed.
    pub(crate) reads_generation: bool,
    /// Whether names are omitted because they are assumed to be known, so that those looked up must be read at the same
    /// generation.
    pub(crate) goes_with_known: bool,
    /// Whether names are omitted because they are taken to be new, so that no name may lead to another entity.
    pub(crate) goes_with_guesses: bool,
    /// Slots of entities, and the rows with facts about them.
    pub(super) said: Vec<(u32, RowRef)>,
}

/// An entity that is looked up by its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyLookup<'a> {
    /// Its slot in the epoch, or another number by which the caller finds it again.
    pub(crate) slot: u32,
    pub(crate) entity_type: EntityType,
    pub(crate) name: &'a str,
    /// Whether the facts are needed, or only the id.
    pub(crate) with_facts: bool,
}

impl<'a> KeyLookup<'a> {
    /// For a key that does not belong to an epoch.
    pub(crate) fn new(place: u32, key: &'a EntityKey, with_facts: bool) -> Self {
        Self { slot: place, entity_type: key.entity_type, name: &key.name, with_facts }
    }
}

impl<'a> Lookup<'a> {
    pub(super) fn new(epoch: &'a Epoch) -> Self {
        let mut lookup = Self { entities_by_key: Vec::with_capacity(epoch.entities.len()), ..Self::default() };
        let mut with_facts = vec![false; epoch.entities.len()];
        for ((number, unit), slots) in (0..).zip(epoch.units()).zip(epoch.slots_by_unit(Table::Entities)) {
            if unit.says_only_existence() {
                continue;
            }
            for (row, slot) in (0..).zip(slots).filter(|(row, _)| unit.says_of(*row as usize)) {
                with_facts[*slot as usize] = true;
                lookup.said.push((*slot, RowRef { unit: number, row }));
            }
        }
        for ((slot, row), with_facts) in (0_u32..).zip(epoch.entities.firsts()).zip(with_facts) {
            let block = epoch.unit_of(*row).block();
            match block.entities[row.row as usize] {
                // Facts are read only if the epoch states some.
                EntityRecord::Key(entity_type, name) => {
                    lookup.entities_by_key.push(KeyLookup { slot, entity_type, name: block.text(name), with_facts });
                }
                EntityRecord::Id(id) => lookup.entities_by_id.push((slot, id)),
            }
        }
        for row in epoch.connections.firsts() {
            if let ConnectionRecordName::Id(id) = epoch.unit_of(*row).block().connections[row.row as usize].name {
                lookup.connections_by_id.push(id);
            }
        }
        lookup
    }
}

/// The hash of the name of an entity's slot.
pub(super) fn name_of(epoch: &Epoch, slot: u32) -> NameHash {
    epoch.entities.names()[slot as usize]
}

impl Lookup<'_> {
    /// Sorts the rows with facts by slot.
    pub(super) fn sort_said(&mut self) {
        self.said.sort_unstable();
    }

    /// The rows with facts about a slot's entity, once sorted.
    pub(super) fn said_of(&self, slot: u32) -> impl Iterator<Item = &RowRef> {
        let start = self.said.partition_point(|(other, _)| *other < slot);
        self.said[start..].iter().take_while(move |(other, _)| *other == slot).map(|(_, row)| row)
    }

    /// Passes hashes of the epoch's facts about a slot's entity to `tell`, once sorted; returns false if there are
    /// facts without a hash.
    pub(super) fn stated_of(&self, epoch: &Epoch, slot: u32, tell: &mut impl FnMut(NameHash)) -> bool {
        let mut all = true;
        for row in self.said_of(slot) {
            all &= epoch.unit_of(*row).stated_of(row.row as usize, &mut *tell);
        }
        all
    }
}

/// The rows found by a [`Lookup`]. A name may lead to a row with another key or id, if a merge removed the named one.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By slot.
    pub(crate) entities_by_key: HashMap<u32, FoundByKey>,
    pub(crate) entities_by_id: HashMap<Uuid, StoredEntity>,
    pub(crate) connection_keys: HashMap<Uuid, ConnectionKey<Uuid>>,
    /// The generation before the lookups; `None` if it was not requested, or is unreliable.
    pub(crate) generation: Option<Generation>,
    /// Whether names lead to other entities, if the lookup goes with guesses.
    pub(crate) has_redirects: bool,
    /// The generation after the lookups, if they go with known names.
    pub(crate) generation_after: Option<Generation>,
}

/// Questions about existing connections. Connections and mentions are named by their position in the plan.
#[derive(Debug)]
pub(crate) struct HistoryQuestions<'a> {
    pub(crate) mentions: Vec<MentionQuestion<'a>>,
    pub(crate) recent: Vec<RecentQuestion>,
    /// Mentions are recent from this time
    pub(crate) since: Timestamp,
    /// to this time.
    pub(crate) as_of: Timestamp,
}

impl HistoryQuestions<'_> {
    /// Questions about recent mentions.
    pub(super) fn new(recent: Vec<RecentQuestion>, as_of: Timestamp) -> Self {
        Self { mentions: Vec::new(), recent, since: days_before(as_of, RECENT_DAYS), as_of }
    }
}

/// Whether this mention exists, and whether the connection has a mention of this thread.
///
/// Both are asked at once, because most threads are known by the mention itself where mentions are repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionQuestion<'a> {
    pub(crate) mention: u32,
    pub(crate) connection: Uuid,
    /// The connection's own flag.
    pub(crate) history_indexed: bool,
    pub(crate) source_type: SourceType,
    pub(crate) source_id: &'a str,
    /// The mention's thread, unless it is asked for with another mention.
    pub(crate) thread_id: Option<&'a str>,
}

/// The number of recent mentions of this connection, which may have some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentQuestion {
    pub(crate) place: u32,
    pub(crate) connection: Uuid,
    /// The connection's own flag.
    pub(crate) history_indexed: bool,
}

/// The data of existing connections besides their own rows.
#[derive(Debug, Default)]
pub(crate) struct HistoryAnswers {
    /// Existing mentions.
    pub(crate) mentions: Vec<(u32, StoredMention)>,
    /// Positions, among the questions for mentions, of those whose thread exists.
    pub(crate) threads: Vec<u32>,
    /// Numbers of recent mentions of the requested connections.
    pub(crate) recent: Vec<(u32, i32)>,
}

/// The connections with figures to be reread.
#[derive(Debug, Default)]
pub(crate) struct RereadQuestions {
    pub(crate) threads: Vec<Uuid>,
    pub(crate) newest: Vec<Uuid>,
    /// Those connections' own flags.
    pub(crate) newest_indexed: Vec<bool>,
    pub(crate) top: Vec<Uuid>,
}

/// Answers by position among the questions of their kind.
#[derive(Debug, Default)]
pub(crate) struct RereadAnswers {
    /// Numbers of threads.
    pub(crate) threads: Vec<(u32, i32)>,
    pub(crate) newest: Vec<(u32, Option<Timestamp>)>,
    /// Slightly more mentions than are kept, not yet ranked.
    pub(crate) top: Vec<(u32, TopMention<'static>)>,
}

impl RereadQuestions {
    /// The figures missing from these rows, and for each question the position of its row.
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
    /// Fills the answers into the rows.
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
