//! From names of connections and mentions to rows: ids, final figures, lock order.

use std::borrow::Cow;
use std::sync::Arc;

use uuid::Uuid;

use super::entities::VanishedRow;
use super::tables::{HistoryAnswers, HistoryQuestions, MentionQuestion, ThreadQuestion};
use super::{Epoch, LockedEntities};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, ConnectionName, EntityName, Mention, MentionChange, Merge,
    RECENT_DAYS, RereadNeeded, SortedSet, SourceType, StoredMetrics, Table, Timestamp, TopMention, days_before,
};
use crate::unit::Unit;

/// A connection as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredConnection {
    pub(crate) id: Uuid,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) metrics: StoredMetrics,
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
    /// Indexes of its mentions in the plan, ascending.
    mentions: Vec<u32>,
    /// It was named by an id that the database knew, so it must not be inserted.
    must_exist: bool,
    stored: Option<StoredConnection>,
    disposition: Disposition,
}

impl ConnectionNode {
    const fn new(key: ConnectionKey<Uuid>) -> Self {
        Self {
            key,
            id: Uuid::nil(),
            said: ConnectionFacts { categories: SortedSet::new(), is_menu_item: false },
            mentions: Vec::new(),
            must_exist: false,
            stored: None,
            disposition: Disposition::Inserted,
        }
    }
}

/// One mention of the epoch.
#[derive(Debug)]
struct MentionNode {
    connection: u32,
    id: Uuid,
    mention: Arc<Mention>,
    stored: Option<StoredMention>,
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
    pub(super) reread: RereadNeeded,
}

impl<'a> ConnectionWrite<'a> {
    /// A row of no epoch, all of which is known.
    pub(crate) fn of_merged(
        id: Uuid,
        key: &'a ConnectionKey<Uuid>,
        facts: &'a ConnectionFacts<Uuid>,
        metrics: ConnectionMetrics<'a>,
    ) -> Self {
        Self { node: 0, id, key, facts: Cow::Borrowed(facts), metrics, reread: RereadNeeded::default() }
    }
}

/// A mention's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) connection: Uuid,
    pub(crate) mention: &'a Mention,
}

/// The connections of an epoch in lock order, their mentions, and the way from names to them.
#[derive(Debug, Default)]
struct Nodes {
    connections: Vec<ConnectionNode>,
    mentions: Vec<MentionNode>,
    connection_of_slot: Vec<u32>,
    mention_of_slot: Vec<u32>,
}

/// Connections by their keys. Which of them are there is not known yet.
///
/// They stand in the order of their keys, which is the global lock order of the table; new ids are given in that order, so
/// that neighbours in one index are neighbours in the other.
#[derive(Debug)]
pub(crate) struct UnlockedConnections(Nodes);

/// Connections of which those that are there are locked and read. The others are to be inserted.
#[derive(Debug)]
pub(crate) struct LockedConnections(Nodes);

/// Connections of which it is decided what becomes of each mention: all ids are final.
#[derive(Debug)]
pub(crate) struct DecidedConnections {
    nodes: Nodes,
    /// Of connections that were there: how many recent mentions they had, and those of the epoch's threads that they had.
    recent: HashMap<u32, i32>,
    threads: HashMap<u32, HashSet<Arc<str>>>,
}

/// Connections and mentions as they were written.
#[derive(Debug)]
pub(crate) struct WrittenConnections(Nodes);

/// The rejection of every unit that names a connection by an id that is not among `keys_by_id`.
pub(super) fn rejections(epoch: &Epoch, keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>) -> Vec<(usize, Rejection)> {
    let missing = |unit: &Unit| {
        unit.connections.iter().enumerate().find_map(|(row, (name, _))| match name {
            ConnectionName::Id(id) if !keys_by_id.contains_key(id) => {
                Some(Rejection::missing(Table::Connections, row, *id))
            }
            ConnectionName::Id(_) | ConnectionName::Key(_) => None,
        })
    };
    epoch.units().iter().enumerate().filter_map(|(index, unit)| Some((index, missing(unit)?))).collect()
}

impl UnlockedConnections {
    /// Connections that exist, in ascending order, of which nothing new is said: to bring their figures up to date.
    pub(crate) fn of_keys(keys: Vec<ConnectionKey<Uuid>>) -> Self {
        let existing = |key| ConnectionNode { must_exist: true, ..ConnectionNode::new(key) };
        Self(Nodes { connections: keys.into_iter().map(existing).collect(), ..Nodes::default() })
    }

    /// Resolves the names of an epoch. `keys_by_id` are the keys of connections that are named by their id.
    pub(super) fn resolve(
        epoch: &Epoch,
        entities: &LockedEntities,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let mut nodes = Nodes::resolve_connections(epoch, entities, keys_by_id);
        nodes.put_in_lock_order();
        nodes.resolve_mentions(epoch);
        Self(nodes)
    }

    /// The keys to lock, in lock order.
    pub(super) fn keys(&self) -> Vec<&ConnectionKey<Uuid>> {
        self.0.connections.iter().map(|node| &node.key).collect()
    }

    /// Takes in those that are there, as they stand under lock. An error if one that must be there is not.
    pub(super) fn locked(self, stored: Vec<(u32, StoredConnection)>) -> Result<LockedConnections, VanishedRow> {
        let Self(mut nodes) = self;
        for (connection, stored) in stored {
            let node = &mut nodes.connections[connection as usize];
            node.id = stored.id;
            node.disposition = Disposition::Unchanged;
            node.stored = Some(stored);
        }
        let vanished = nodes.connections.iter().any(|node| node.must_exist && node.stored.is_none());
        if vanished { Err(VanishedRow) } else { Ok(LockedConnections(nodes)) }
    }
}

impl LockedConnections {
    /// Forgets what the database has: the locks were given up.
    pub(super) fn unlocked(self) -> UnlockedConnections {
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
        new.map(|(index, node)| {
            let mentions = self.0.mentions_of(index).map(|(_, mention)| (mention.id, &*mention.mention));
            ConnectionWrite {
                node: index,
                id: node.id,
                key: &node.key,
                facts: Cow::Borrowed(&node.said),
                metrics: ConnectionMetrics::from_mentions(mentions, as_of),
                reread: RereadNeeded::default(),
            }
        })
        .collect()
    }

    /// What must be known of connections that were there, besides their own rows.
    pub(super) fn questions(&self, as_of: Timestamp) -> HistoryQuestions<'_> {
        let since = days_before(as_of, RECENT_DAYS);
        let mut questions = HistoryQuestions { mentions: vec![], threads: vec![], recent: vec![], since, as_of };
        for (connection, stored) in self.0.existing() {
            if stored.metrics.may_have_recent(as_of) {
                questions.recent.push((connection, stored.id));
            }
            let mut distinct = HashSet::default();
            for (mention, MentionNode { mention: own, .. }) in self.0.mentions_of(connection) {
                questions.mentions.push(MentionQuestion {
                    mention,
                    connection: stored.id,
                    source_type: own.source_type,
                    source_id: &own.source_id,
                });
                if distinct.insert(&own.thread_id) {
                    let thread = ThreadQuestion { connection: stored.id, place: connection, thread_id: &own.thread_id };
                    questions.threads.push(thread);
                }
            }
        }
        questions
    }

    /// Takes in the answers: of a known mention the newer observation wins.
    pub(super) fn decided(self, answers: HistoryAnswers) -> DecidedConnections {
        let Self(mut nodes) = self;
        for (mention, stored) in answers.mentions {
            let node = &mut nodes.mentions[mention as usize];
            node.id = stored.id;
            let is_newer = node.mention.precedence(&stored.mention).is_gt();
            node.disposition = if is_newer { Disposition::Updated } else { Disposition::Unchanged };
            node.stored = Some(stored);
        }
        let mut threads: HashMap<u32, HashSet<Arc<str>>> = HashMap::default();
        for (connection, thread) in answers.threads {
            threads.entry(connection).or_default().insert(thread);
        }
        DecidedConnections { nodes, recent: answers.recent.into_iter().collect(), threads }
    }
}

impl DecidedConnections {
    /// New mentions, in the order of their connections.
    pub(super) fn new_mentions(&self) -> Vec<MentionRow<'_>> {
        self.mentions_to(Disposition::Inserted)
    }

    /// Mentions that are there and get a newer observation, in the order of their connections.
    pub(super) fn newer_mentions(&self) -> Vec<MentionRow<'_>> {
        self.mentions_to(Disposition::Updated)
    }

    fn mentions_to(&self, disposition: Disposition) -> Vec<MentionRow<'_>> {
        let row = |node: &u32| {
            let node = &self.nodes.mentions[*node as usize];
            let connection = self.nodes.connections[node.connection as usize].id;
            (node.disposition == disposition).then_some(MentionRow { id: node.id, connection, mention: &node.mention })
        };
        self.nodes.connections.iter().flat_map(|connection| connection.mentions.iter().filter_map(row)).collect()
    }

    /// The rows of connections that were there as they must become, of those that say something else than what is stored
    /// or must be read again first.
    pub(super) fn changed_rows(&self, as_of: Timestamp, score_tolerance: f64) -> Vec<ConnectionWrite<'_>> {
        let rows = self.nodes.existing().map(|(connection, _)| self.advance(connection, as_of));
        rows.filter(|write| write.reread.any() || self.changes(write, score_tolerance)).collect()
    }

    fn advance(&self, connection: u32, as_of: Timestamp) -> ConnectionWrite<'_> {
        let node = &self.nodes.connections[connection as usize];
        let stored = node.stored.as_ref().expect("it was there");
        let changes: Vec<MentionChange<'_>> = self
            .nodes
            .mentions_of(connection)
            .filter_map(|(_, mention)| match (mention.disposition, &mention.stored) {
                (Disposition::Inserted, _) => {
                    Some(MentionChange::Inserted { mention_id: mention.id, mention: &mention.mention })
                }
                (Disposition::Updated, Some(stored)) => Some(MentionChange::Replaced {
                    mention_id: mention.id,
                    before: &stored.mention,
                    mention: &mention.mention,
                }),
                _ => None,
            })
            .collect();
        let mut facts = stored.facts.clone();
        facts.merge(node.said.clone());
        let recent = self.recent.get(&connection).copied().unwrap_or(0);
        let threads: HashSet<&str> = self.threads.get(&connection).into_iter().flatten().map(|id| &**id).collect();
        let (metrics, reread) = stored.metrics.advance(&changes, recent, &threads, as_of);
        ConnectionWrite { node: connection, id: node.id, key: &node.key, facts: Cow::Owned(facts), metrics, reread }
    }

    /// Whether a row says anything else than what is stored; for what was read again it is known only then.
    pub(super) fn changes(&self, write: &ConnectionWrite<'_>, score_tolerance: f64) -> bool {
        self.nodes.connections[write.node as usize].stored.as_ref().is_none_or(|stored| {
            *write.facts != stored.facts || !write.metrics.agrees_with(&stored.metrics, score_tolerance)
        })
    }

    /// Takes in which connections got new rows.
    pub(super) fn written(self, changed: &[u32]) -> WrittenConnections {
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

impl WrittenConnections {
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

impl Nodes {
    fn resolve_connections(
        epoch: &Epoch,
        entities: &LockedEntities,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let id_of = |name: &EntityName| entities.id_of(&epoch.entities, name);
        let mut nodes = Self {
            connections: Vec::with_capacity(epoch.connections.rows().len()),
            mentions: Vec::with_capacity(epoch.mentions.rows().len()),
            connection_of_slot: Vec::with_capacity(epoch.connections.rows().len()),
            mention_of_slot: Vec::with_capacity(epoch.mentions.rows().len()),
        };
        let mut node_of_key: HashMap<ConnectionKey<Uuid>, u32> = HashMap::default();
        for (name, facts) in epoch.connections.rows() {
            let (key, known) = match name {
                ConnectionName::Key(key) => (
                    ConnectionKey {
                        restaurant: id_of(&key.restaurant),
                        dish: id_of(&key.dish),
                        dish_attributes: key.dish_attributes.iter().map(id_of).collect(),
                    },
                    None,
                ),
                ConnectionName::Id(id) => (keys_by_id[id].clone(), Some(*id)),
            };
            let said = ConnectionFacts {
                categories: facts.categories.iter().map(id_of).collect::<SortedSet<_>>(),
                is_menu_item: facts.is_menu_item,
            };
            let node = *node_of_key.entry(key).or_insert_with_key(|key| {
                nodes.connections.push(ConnectionNode::new(key.clone()));
                nodes.connections.len() as u32 - 1
            });
            let entry = &mut nodes.connections[node as usize];
            entry.said.merge(said);
            if let Some(id) = known {
                entry.id = id;
                entry.must_exist = true;
            }
            nodes.connection_of_slot.push(node);
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

    fn resolve_mentions(&mut self, epoch: &Epoch) {
        // Names are rows as long as no two names of connections turned out to be one.
        let aliased = self.connections.len() < self.connection_of_slot.len();
        let mut node_of_key: HashMap<(u32, SourceType, Arc<str>), u32> = HashMap::default();
        for (name, mention) in epoch.mentions.rows() {
            let slot = epoch.connections.slot_of(&name.connection);
            let connection = self.connection_of_slot[slot.expect("a mention's connection is a row of its unit")];
            let next = self.mentions.len() as u32;
            let node = if aliased {
                let key = (connection, name.source_type, Arc::clone(&name.source_id));
                *node_of_key.entry(key).or_insert(next)
            } else {
                next
            };
            self.mention_of_slot.push(node);
            if let Some(known) = self.mentions.get_mut(node as usize) {
                known.mention.merge(Arc::clone(mention));
                continue;
            }
            self.connections[connection as usize].mentions.push(node);
            self.mentions.push(MentionNode {
                connection,
                id: Uuid::nil(),
                mention: Arc::clone(mention),
                stored: None,
                disposition: Disposition::Inserted,
            });
        }
        // Ids in the order of the connections: new mentions are written in this order.
        for connection in &self.connections {
            for mention in &connection.mentions {
                self.mentions[*mention as usize].id = Uuid::now_v7();
            }
        }
    }

    /// Connections that were there, ascending.
    fn existing(&self) -> impl Iterator<Item = (u32, &StoredConnection)> {
        (0_u32..).zip(&self.connections).filter_map(|(connection, node)| Some((connection, node.stored.as_ref()?)))
    }

    /// The mentions of a connection, with their indexes.
    fn mentions_of(&self, connection: u32) -> impl Iterator<Item = (u32, &MentionNode)> {
        let mentions = self.connections[connection as usize].mentions.iter();
        mentions.map(|mention| (*mention, &self.mentions[*mention as usize]))
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
