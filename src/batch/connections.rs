//! From names of connections and mentions to rows: ids, final figures, lock order.

use std::borrow::Cow;
use std::ops::Range;

use uuid::Uuid;

use super::coalesce::{RowRef, TableBatch};
use super::entities::VanishedRow;
use super::tables::{HistoryAnswers, HistoryQuestions, MentionQuestion, RecentQuestion, ThreadQuestion};
use super::{Epoch, LockedEntities};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, Mention, MentionChange, MentionRef, Merge, RECENT_DAYS,
    RereadNeeded, SortedSet, SourceType, StoredMetrics, Table, Timestamp, TopMention, days_before,
};
use crate::unit::{ConnectionRecordName, Unit};

/// Mentions up to which a history is short: it is read whole, which is as many pages at most, and its mentions do without
/// entries in the indexes for long ones. A guess; 83 of 100 connections have one mention.
const SHORT_HISTORY_MAX: usize = 32;

/// Whether a history of so many mentions is looked up in indexes.
pub(crate) const fn is_long(mentions: usize) -> bool {
    mentions > SHORT_HISTORY_MAX
}

/// A connection as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredConnection {
    pub(crate) id: Uuid,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) metrics: StoredMetrics,
    /// Whether its history is looked up in the indexes for long ones. If so, all of its mentions are there.
    pub(crate) history_indexed: bool,
}

/// A mention as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredMention {
    pub(crate) id: Uuid,
    pub(crate) mention: Mention,
}

/// One connection of the epoch.
#[derive(Debug)]
struct ConnectionNode {
    key: ConnectionKey<Uuid>,
    /// Of a row that is not there, the one that it gets if it is inserted.
    id: Uuid,
    said: ConnectionFacts<Uuid>,
    /// Where its mentions stand in the plan.
    mentions: Range<u32>,
    /// It was named by an id that the database knew, so it must not be inserted.
    must_exist: bool,
    /// One of its entities was inserted by this very transaction, so it is not there.
    is_new: bool,
    stored: Option<Box<StoredConnection>>,
    /// As it must become, once that is decided.
    history_indexed: bool,
    disposition: Disposition,
}

impl ConnectionNode {
    const fn new(key: ConnectionKey<Uuid>) -> Self {
        Self {
            key,
            id: Uuid::nil(),
            said: ConnectionFacts { categories: SortedSet::new(), is_menu_item: false },
            mentions: 0..0,
            must_exist: false,
            is_new: false,
            stored: None,
            history_indexed: false,
            disposition: Disposition::Inserted,
        }
    }
}

/// One mention of the epoch.
#[derive(Debug)]
struct MentionNode<'e> {
    connection: u32,
    id: Uuid,
    /// The observation that wins among those of the epoch.
    mention: MentionRef<'e>,
    stored: Option<Box<StoredMention>>,
    disposition: Disposition,
}

/// A connection's row as it must become.
#[derive(Debug)]
pub(crate) struct ConnectionWrite<'a> {
    node: u32,
    pub(crate) id: Uuid,
    pub(crate) key: &'a ConnectionKey<Uuid>,
    pub(crate) facts: Cow<'a, ConnectionFacts<Uuid>>,
    pub(crate) metrics: ConnectionMetrics<'a>,
    pub(crate) history_indexed: bool,
    pub(super) reread: RereadNeeded,
}

impl<'a> ConnectionWrite<'a> {
    /// A row of no epoch, all of which is known.
    pub(crate) fn of_merged(
        id: Uuid,
        key: &'a ConnectionKey<Uuid>,
        facts: &'a ConnectionFacts<Uuid>,
        metrics: ConnectionMetrics<'a>,
        history_indexed: bool,
    ) -> Self {
        let reread = RereadNeeded::default();
        Self { node: 0, id, key, facts: Cow::Borrowed(facts), metrics, history_indexed, reread }
    }
}

/// A mention's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) connection: Uuid,
    pub(crate) mention: &'a MentionRef<'a>,
    /// True where its connection's is.
    pub(crate) history_indexed: bool,
}

/// The connections of an epoch in lock order, their mentions, and the way from names to them.
#[derive(Debug, Default)]
struct Nodes<'e> {
    connections: Vec<ConnectionNode>,
    /// Together by connection, in the order of the connections.
    mentions: Vec<MentionNode<'e>>,
    connection_of_slot: Vec<u32>,
    mention_of_slot: Vec<u32>,
}

/// Connections by their keys. Which of them are there is not known yet.
///
/// They stand in the order of their keys, which is the global lock order of the table; new ids are given in that order, so
/// that neighbours in one index are neighbours in the other.
#[derive(Debug)]
pub(crate) struct UnlockedConnections<'e>(Nodes<'e>);

/// Connections of which those that are there are locked and read. The others are to be inserted.
#[derive(Debug)]
pub(crate) struct LockedConnections<'e>(Nodes<'e>);

/// Connections of which it is decided what becomes of each mention: all ids are final.
#[derive(Debug)]
pub(crate) struct DecidedConnections<'e> {
    nodes: Nodes<'e>,
    /// Of connections that were there: how many recent mentions they had, and those of the epoch's threads that they had.
    recent: HashMap<u32, i32>,
    threads: HashMap<u32, HashSet<&'e str>>,
}

/// Connections and mentions as they were written.
#[derive(Debug)]
pub(crate) struct WrittenConnections<'e>(Nodes<'e>);

/// The rejection of every unit that names a connection by an id that is not among `keys_by_id`.
pub(super) fn rejections(epoch: &Epoch, keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>) -> Vec<(usize, Rejection)> {
    let missing = |unit: &Unit| {
        unit.block.connections.iter().enumerate().find_map(|(row, connection)| match connection.name {
            ConnectionRecordName::Id(id) if !keys_by_id.contains_key(&id) => {
                Some(Rejection::missing(Table::Connections, row, id))
            }
            ConnectionRecordName::Id(_) | ConnectionRecordName::Key { .. } => None,
        })
    };
    epoch.units().iter().enumerate().filter_map(|(index, unit)| Some((index, missing(unit)?))).collect()
}

impl<'e> UnlockedConnections<'e> {
    /// Connections that exist, in ascending order, of which nothing new is said: to bring their figures up to date.
    pub(crate) fn of_keys(keys: Vec<ConnectionKey<Uuid>>) -> Self {
        let existing = |key| ConnectionNode { must_exist: true, ..ConnectionNode::new(key) };
        Self(Nodes { connections: keys.into_iter().map(existing).collect(), ..Nodes::default() })
    }

    /// Resolves the names of an epoch. `keys_by_id` are the keys of connections that are named by their id.
    pub(super) fn resolve(
        epoch: &'e Epoch,
        entities: &LockedEntities<'_>,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let mut nodes = Nodes::resolve_connections(epoch, entities, keys_by_id);
        nodes.put_in_lock_order();
        nodes.resolve_mentions(epoch);
        Self(nodes)
    }

    /// The keys to lock, in lock order, with their places: of all that may be there.
    pub(super) fn keys(&self) -> Vec<(u32, &ConnectionKey<Uuid>)> {
        let nodes = (0_u32..).zip(&self.0.connections).filter(|(_, node)| !node.is_new);
        nodes.map(|(place, node)| (place, &node.key)).collect()
    }

    /// Takes in those that are there, as they stand under lock. An error if one that must be there is not.
    pub(super) fn locked(self, stored: Vec<(u32, StoredConnection)>) -> Result<LockedConnections<'e>, VanishedRow> {
        let Self(mut nodes) = self;
        for (connection, stored) in stored {
            let node = &mut nodes.connections[connection as usize];
            node.id = stored.id;
            node.disposition = Disposition::Unchanged;
            node.stored = Some(Box::new(stored));
        }
        let vanished = nodes.connections.iter().any(|node| node.must_exist && node.stored.is_none());
        if vanished { Err(VanishedRow) } else { Ok(LockedConnections(nodes)) }
    }
}

impl<'e> LockedConnections<'e> {
    /// Forgets what the database has: the locks were given up.
    pub(super) fn unlocked(self) -> UnlockedConnections<'e> {
        let Self(mut nodes) = self;
        for node in &mut nodes.connections {
            if node.stored.take().is_some() {
                node.disposition = Disposition::Inserted;
                if !node.must_exist {
                    node.id = Uuid::now_v7();
                }
            }
        }
        UnlockedConnections(nodes)
    }

    /// The rows of all connections that were not there, in lock order, with their final figures.
    pub(super) fn new_rows(&self, as_of: Timestamp) -> Vec<ConnectionWrite<'_>> {
        let new = (0_u32..).zip(&self.0.connections).filter(|(_, node)| node.stored.is_none());
        let mut rows = Vec::with_capacity(new.clone().count());
        rows.extend(new.map(|(index, node)| {
            let mentions = self.0.mentions_of(node).map(|(_, mention)| (mention.id, mention.mention));
            ConnectionWrite {
                node: index,
                id: node.id,
                key: &node.key,
                facts: Cow::Borrowed(&node.said),
                metrics: ConnectionMetrics::from_mentions(mentions, as_of),
                history_indexed: self.0.becomes_indexed(node),
                reread: RereadNeeded::default(),
            }
        }));
        rows
    }

    /// What must be known of connections that were there, besides their own rows.
    pub(super) fn questions(&self, as_of: Timestamp) -> HistoryQuestions<'e> {
        let since = days_before(as_of, RECENT_DAYS);
        let mut questions = HistoryQuestions { mentions: vec![], threads: vec![], recent: vec![], since, as_of };
        let mut distinct = HashSet::default();
        for (connection, node) in (0_u32..).zip(&self.0.connections) {
            let Some(stored) = &node.stored else { continue };
            if stored.metrics.may_have_recent(as_of) {
                let history_indexed = stored.history_indexed;
                questions.recent.push(RecentQuestion { place: connection, connection: stored.id, history_indexed });
            }
            distinct.clear();
            for (mention, MentionNode { mention: own, .. }) in self.0.mentions_of(node) {
                questions.mentions.push(MentionQuestion {
                    mention,
                    connection: stored.id,
                    source_type: own.source_type,
                    source_id: own.source_id,
                });
                if distinct.insert(own.thread_id) {
                    questions.threads.push(ThreadQuestion {
                        place: connection,
                        connection: stored.id,
                        history_indexed: stored.history_indexed,
                        thread_id: own.thread_id,
                    });
                }
            }
        }
        questions
    }

    /// Takes in the answers: of a known mention the newer observation wins.
    pub(super) fn decided(self, questions: &HistoryQuestions<'e>, answers: HistoryAnswers) -> DecidedConnections<'e> {
        let Self(mut nodes) = self;
        for (mention, stored) in answers.mentions {
            let node = &mut nodes.mentions[mention as usize];
            node.id = stored.id;
            let is_newer = node.mention.precedence(&(&stored.mention).into()).is_gt();
            node.disposition = if is_newer { Disposition::Updated } else { Disposition::Unchanged };
            node.stored = Some(Box::new(stored));
        }
        for connection in 0..nodes.connections.len() {
            nodes.connections[connection].history_indexed = nodes.becomes_indexed(&nodes.connections[connection]);
        }
        let mut threads: HashMap<u32, HashSet<&str>> = HashMap::default();
        for place in answers.threads {
            let ThreadQuestion { place, thread_id, .. } = questions.threads[place as usize];
            threads.entry(place).or_default().insert(thread_id);
        }
        DecidedConnections { nodes, recent: answers.recent.into_iter().collect(), threads }
    }
}

impl<'e> DecidedConnections<'e> {
    /// New mentions, in the order of their connections.
    pub(super) fn new_mentions(&self) -> Vec<MentionRow<'_>> {
        self.mentions_to(Disposition::Inserted)
    }

    /// Mentions that are there and get a newer observation, in the order of their connections.
    pub(super) fn newer_mentions(&self) -> Vec<MentionRow<'_>> {
        self.mentions_to(Disposition::Updated)
    }

    fn mentions_to(&self, disposition: Disposition) -> Vec<MentionRow<'_>> {
        let mentions = self.nodes.mentions.iter().filter(|node| node.disposition == disposition);
        let mut rows = Vec::with_capacity(mentions.clone().count());
        rows.extend(mentions.map(|node| {
            let ConnectionNode { id: connection, history_indexed, .. } =
                self.nodes.connections[node.connection as usize];
            MentionRow { id: node.id, connection, mention: &node.mention, history_indexed }
        }));
        rows
    }

    /// Connections that were there and whose histories are to be looked up in the indexes for long ones from now on.
    pub(super) fn becoming_long(&self) -> Vec<Uuid> {
        let becoming = |node: &&ConnectionNode| {
            node.history_indexed && node.stored.as_ref().is_some_and(|stored| !stored.history_indexed)
        };
        self.nodes.connections.iter().filter(becoming).map(|node| node.id).collect()
    }

    /// The rows of connections that were there as they must become, of those that say something else than what is stored
    /// or must be read again first.
    pub(super) fn changed_rows(&self, as_of: Timestamp, score_tolerance: f64) -> Vec<ConnectionWrite<'_>> {
        let none = HashSet::default();
        let existing = (0_u32..).zip(&self.nodes.connections);
        let rows = existing.filter_map(|(connection, node)| {
            let threads = self.threads.get(&connection).unwrap_or(&none);
            Some(self.advance(connection, node, node.stored.as_ref()?, threads, as_of))
        });
        rows.filter(|write| write.reread.any() || self.changes(write, score_tolerance)).collect()
    }

    fn advance<'a>(
        &'a self,
        connection: u32,
        node: &'a ConnectionNode,
        stored: &'a StoredConnection,
        known_threads: &HashSet<&str>,
        as_of: Timestamp,
    ) -> ConnectionWrite<'a> {
        let changes: Vec<MentionChange<'_>> = self
            .nodes
            .mentions_of(node)
            .filter_map(|(_, mention)| match (mention.disposition, &mention.stored) {
                (Disposition::Inserted, _) => {
                    Some(MentionChange::Inserted { mention_id: mention.id, mention: mention.mention })
                }
                (Disposition::Updated, Some(stored)) => Some(MentionChange::Replaced {
                    mention_id: mention.id,
                    before: (&stored.mention).into(),
                    mention: mention.mention,
                }),
                _ => None,
            })
            .collect();
        let mut facts = Cow::Borrowed(&stored.facts);
        if !stored.facts.contains_all(&node.said) {
            facts.to_mut().merge(node.said.clone());
        }
        let recent = self.recent.get(&connection).copied().unwrap_or(0);
        let (metrics, reread) = stored.metrics.advance(&changes, recent, known_threads, as_of);
        let history_indexed = node.history_indexed;
        ConnectionWrite { node: connection, id: node.id, key: &node.key, facts, metrics, history_indexed, reread }
    }

    /// Whether a row says anything else than what is stored; for what was read again it is known only then. That a history
    /// is not long after all, as those of earlier versions' connections, is worth no version of its own.
    pub(super) fn changes(&self, write: &ConnectionWrite<'_>, score_tolerance: f64) -> bool {
        self.nodes.connections[write.node as usize].stored.as_ref().is_none_or(|stored| {
            *write.facts != stored.facts
                || write.history_indexed && !stored.history_indexed
                || !write.metrics.agrees_with(&stored.metrics, score_tolerance)
        })
    }

    /// Takes in which connections got new rows.
    pub(super) fn written(self, changed: &[u32]) -> WrittenConnections<'e> {
        let Self { mut nodes, .. } = self;
        for connection in changed {
            nodes.connections[*connection as usize].disposition = Disposition::Updated;
        }
        WrittenConnections(nodes)
    }
}

impl ConnectionWrite<'_> {
    /// The row's place among the connections of its epoch.
    pub(super) fn place(&self) -> u32 {
        self.node
    }
}

impl WrittenConnections<'_> {
    /// What became of each slot of the connections, and of the mentions.
    pub(crate) fn committed(&self) -> (Vec<CommittedRow>, Vec<CommittedRow>) {
        let Self(nodes) = self;
        let connections = nodes.connection_of_slot.iter().map(|node| {
            let node = &nodes.connections[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        let mentions = nodes.mention_of_slot.iter().map(|node| {
            let node = &nodes.mentions[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        (connections.collect(), mentions.collect())
    }

    /// The disposition of each connection's and each mention's row that the epoch named.
    pub(crate) fn dispositions(&self) -> (impl Iterator<Item = Disposition>, impl Iterator<Item = Disposition>) {
        let Self(nodes) = self;
        (nodes.connections.iter().map(|node| node.disposition), nodes.mentions.iter().map(|node| node.disposition))
    }
}

impl<'e> Nodes<'e> {
    fn resolve_connections(
        epoch: &'e Epoch,
        entities: &LockedEntities<'_>,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let slots = epoch.connections.len();
        let mut nodes = Self { connections: Vec::with_capacity(slots), ..Self::default() };
        // Names of connections are rows as long as names of entities are, and no connection is named by its id.
        let mut node_of_key: Option<HashMap<ConnectionKey<Uuid>, u32>> =
            (!entities.are_distinct() || !keys_by_id.is_empty()).then(HashMap::default);
        for RowRef { unit, row } in epoch.connections.firsts() {
            let block = &epoch.units()[*unit as usize].block;
            let id_of = |entity| entities.id_of(*unit, entity);
            let mut is_new = false;
            let (key, known) = match block.connections[*row as usize].name {
                ConnectionRecordName::Key { restaurant, dish } => {
                    let (restaurant, dish) = (restaurant.own(), dish.own());
                    let mut attributes = block.dish_attributes_of(*row as usize);
                    is_new =
                        [restaurant, dish].into_iter().chain(&mut attributes).any(|own| entities.is_new(*unit, own));
                    let dish_attributes = block.dish_attributes_of(*row as usize).map(id_of).collect();
                    (ConnectionKey { restaurant: id_of(restaurant), dish: id_of(dish), dish_attributes }, None)
                }
                ConnectionRecordName::Id(id) => (keys_by_id[&id].clone(), Some(id)),
            };
            let next = nodes.connections.len() as u32;
            let node = node_of_key.as_mut().map_or(next, |nodes| *nodes.entry(key.clone()).or_insert(next));
            if node == next {
                nodes.connections.push(ConnectionNode { is_new, ..ConnectionNode::new(key) });
            }
            if let Some(id) = known {
                let node = &mut nodes.connections[node as usize];
                node.id = id;
                node.must_exist = true;
            }
            nodes.connection_of_slot.push(node);
        }
        for (RowRef { unit, row }, slot) in epoch.rows(Table::Connections) {
            let block = &epoch.units()[unit as usize].block;
            let said = &mut nodes.connections[nodes.connection_of_slot[slot as usize] as usize].said;
            said.is_menu_item |= block.connections[row as usize].is_menu_item;
            for category in block.categories_of(row as usize) {
                said.categories.insert(entities.id_of(unit, category));
            }
        }
        nodes
    }

    fn put_in_lock_order(&mut self) {
        let mut order: Vec<u32> = (0..self.connections.len() as u32).collect();
        order.sort_unstable_by(|left, right| {
            self.connections[*left as usize].key.cmp(&self.connections[*right as usize].key)
        });
        let mut place_of = vec![0; order.len()];
        for (place, old) in (0_u32..).zip(&order) {
            place_of[*old as usize] = place;
        }
        for node in &mut self.connection_of_slot {
            *node = place_of[*node as usize];
        }
        self.connections.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        for node in &mut self.connections {
            if !node.must_exist {
                node.id = Uuid::now_v7();
            }
        }
    }

    fn resolve_mentions(&mut self, epoch: &'e Epoch) {
        let mention_at = |RowRef { unit, row }: RowRef| epoch.units()[unit as usize].block.mention(row as usize);
        // Of each mention its connection, and the row of the observation that wins.
        let mut mentions: Vec<(u32, RowRef)> = Vec::with_capacity(epoch.mentions.len());
        let mut node_of_slot: Vec<u32> = Vec::with_capacity(epoch.mentions.len());
        // Names are rows as long as no two names of connections turned out to be one.
        let aliased = self.connections.len() < self.connection_of_slot.len();
        let mut node_of_key: HashMap<(u32, SourceType, &str), u32> = HashMap::default();
        for (row, slot) in epoch.rows(Table::Mentions) {
            let known = node_of_slot.get(slot as usize).copied();
            let node = known.unwrap_or_else(|| {
                let own = epoch.units()[row.unit as usize].block.mentions[row.row as usize].connection.own();
                let connection = self.connection_of_slot[epoch.connection_slot(row.unit, own)];
                let next = mentions.len() as u32;
                let node = if aliased {
                    let mention = mention_at(row);
                    *node_of_key.entry((connection, mention.source_type, mention.source_id)).or_insert(next)
                } else {
                    next
                };
                node_of_slot.push(node);
                if node == next {
                    mentions.push((connection, row));
                }
                node
            });
            let won = &mut mentions[node as usize].1;
            if *won != row && mention_at(row).precedence(&mention_at(*won)).is_gt() {
                *won = row;
            }
        }
        self.put_mentions_together(epoch, &mentions, node_of_slot);
    }

    /// Mentions in the order of their connections, which is the order in which new ones are written, and ids in that order.
    fn put_mentions_together(&mut self, epoch: &'e Epoch, mentions: &[(u32, RowRef)], mut node_of_slot: Vec<u32>) {
        for (connection, _) in mentions {
            self.connections[*connection as usize].mentions.end += 1;
        }
        let mut start = 0;
        for node in &mut self.connections {
            node.mentions = start..start + node.mentions.end;
            start = node.mentions.end;
        }
        // In the order of arrival where they stand on one connection.
        let mut next: Vec<u32> = self.connections.iter().map(|node| node.mentions.start).collect();
        let (mut place_of, mut order) = (Vec::with_capacity(mentions.len()), vec![0; mentions.len()]);
        for (node, (connection, _)) in (0_u32..).zip(mentions) {
            let next = &mut next[*connection as usize];
            place_of.push(*next);
            order[*next as usize] = node;
            *next += 1;
        }
        for node in &mut node_of_slot {
            *node = place_of[*node as usize];
        }
        self.mention_of_slot = node_of_slot;
        self.mentions.reserve_exact(mentions.len());
        self.mentions.extend(order.into_iter().map(|node| {
            let (connection, RowRef { unit, row }) = mentions[node as usize];
            let mention = epoch.units()[unit as usize].block.mention(row as usize);
            MentionNode { connection, id: Uuid::now_v7(), mention, stored: None, disposition: Disposition::Inserted }
        }));
    }

    /// Whether a connection's history is looked up in the indexes for long ones once the epoch is written.
    fn becomes_indexed(&self, node: &ConnectionNode) -> bool {
        let new = self.mentions_of(node).filter(|(_, mention)| mention.disposition == Disposition::Inserted).count();
        let before = node.stored.as_ref().map_or(0, |stored| stored.metrics.mention_count);
        is_long(before.unsigned_abs() as usize + new)
    }

    /// The mentions of a connection, with their places.
    fn mentions_of(&self, node: &ConnectionNode) -> impl Iterator<Item = (u32, &MentionNode<'e>)> {
        let mentions = &self.mentions[node.mentions.start as usize..node.mentions.end as usize];
        (node.mentions.start..).zip(mentions)
    }
}

/// Best mentions as read again from the rows, with their source ids.
pub(crate) fn top_mention(id: Uuid, mention: Mention) -> TopMention<'static> {
    TopMention {
        mention_id: id,
        score: 0.0,
        upvotes: mention.upvotes,
        content_excerpt: mention.content_excerpt.into(),
        source_url: mention.source_url.into(),
        created_at: mention.created_at,
        source: Some((Cow::Owned(mention.source_id.to_string()), mention.source_type)),
    }
}
