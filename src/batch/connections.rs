//! From names of connections and mentions to rows: ids, final figures, lock order.

use std::borrow::Cow;

use uuid::Uuid;

use super::Epoch;
use super::connection_nodes::{ConnectionNode, Nodes, Presence};
use super::entities::FoundEntities;
use super::new_ids::NewIds;
use super::novelty::{NoveltyFilter, Unmet};
use super::repeats::Repeated;
use super::rows::{ConnectionWrite, MentionRow, StoredConnection, VanishedRow};
use super::tables::{HistoryAnswers, HistoryQuestions, MentionQuestion, RecentQuestion};
use super::write::Clock;
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, Rejection};
use crate::record::{ConnectionKey, ConnectionMetrics, MentionChange, Merge, RereadNeeded, Table, Timestamp};
use crate::unit::{ConnectionRecordName, Unit};

/// Connections by their keys. It is not known yet which of them exist.
///
/// They are in the order of their keys, which is the global lock order of the table; new ids are assigned in that
/// order, so that neighbours in one index are neighbours in the other.
#[derive(Debug)]
pub(crate) struct UnlockedConnections<'e>(pub(super) Nodes<'e>);

/// Connections of which the existing ones are locked and read, or settled. The others are to be inserted.
#[derive(Debug)]
pub(crate) struct LockedConnections<'e>(Nodes<'e>);

/// Connections with a decision for each mention: all ids are final.
#[derive(Debug)]
pub(crate) struct DecidedConnections<'e> {
    nodes: Nodes<'e>,
    /// For existing connections: the number of recent mentions, and the epoch's threads that they have.
    recent: HashMap<u32, i32>,
    threads: HashMap<u32, HashSet<&'e str>>,
}

/// Connections and mentions after writing.
#[derive(Debug)]
pub(crate) struct WrittenConnections<'e> {
    nodes: Nodes<'e>,
    pub(super) repeated: Repeated,
}

/// The rejection of every unit that names a connection by an id that is not in `keys_by_id`.
pub(super) fn rejections(epoch: &Epoch, keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>) -> Vec<(usize, Rejection)> {
    let missing = |unit: Unit<'_>| {
        unit.block().connections.iter().enumerate().find_map(|(row, connection)| match connection.name {
            ConnectionRecordName::Id(id) if !keys_by_id.contains_key(&id) => {
                Some(Rejection::missing(Table::Connections, row, id))
            }
            ConnectionRecordName::Id(_) | ConnectionRecordName::Key { .. } => None,
        })
    };
    epoch.units().enumerate().filter_map(|(index, unit)| Some((index, missing(unit)?))).collect()
}

/// The final rows of new connections, in lock order. Each is made when it is written.
#[derive(Debug)]
pub(crate) struct NewConnections<'a> {
    nodes: &'a Nodes<'a>,
    places: std::vec::IntoIter<u32>,
    as_of: Timestamp,
}

impl<'a> Iterator for NewConnections<'a> {
    type Item = ConnectionWrite<'a>;

    fn next(&mut self) -> Option<ConnectionWrite<'a>> {
        let Self { nodes, places, as_of } = self;
        let place = places.next()?;
        let node = &nodes.connections[place as usize];
        let mentions = nodes.mentions_of(node).map(|(_, mention)| (mention.id, nodes.observation(mention)));
        Some(ConnectionWrite {
            node: place,
            id: node.id,
            key: &node.key,
            facts: Cow::Borrowed(&node.said),
            metrics: ConnectionMetrics::from_mentions(mentions, *as_of),
            history_indexed: nodes.becomes_indexed(node),
            keeps_top_mentions: false,
            reread: RereadNeeded::default(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl ExactSizeIterator for NewConnections<'_> {}

/// The rows of mentions, in the order of their connections, like [`NewConnections`].
#[derive(Debug)]
pub(crate) struct MentionRows<'a> {
    nodes: &'a Nodes<'a>,
    places: std::vec::IntoIter<u32>,
}

impl<'a> Iterator for MentionRows<'a> {
    type Item = MentionRow<'a>;

    fn next(&mut self) -> Option<MentionRow<'a>> {
        let Self { nodes, places } = self;
        let node = &nodes.mentions[places.next()? as usize];
        let ConnectionNode { id: connection, history_indexed, .. } = nodes.connections[node.connection as usize];
        let (texts, record) = nodes.record(node);
        Some(MentionRow { id: node.id, connection, texts, record, history_indexed })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl ExactSizeIterator for MentionRows<'_> {}

impl<'e> UnlockedConnections<'e> {
    /// Existing connections, in ascending order, about which nothing new is stated: for updating their figures.
    pub(crate) fn of_keys(keys: Vec<ConnectionKey<Uuid>>) -> Self {
        let existing = |key| ConnectionNode { must_exist: true, ..ConnectionNode::new(key) };
        Self(Nodes { connections: keys.into_iter().map(existing).collect(), ..Nodes::default() })
    }

    /// Resolves the names of an epoch. `keys_by_id` are the keys of connections that are named by their id.
    pub(super) fn resolve(
        epoch: &'e Epoch,
        entities: &FoundEntities<'_>,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let mut nodes = Nodes::resolve_connections(epoch, entities, keys_by_id);
        nodes.put_in_lock_order();
        nodes.resolve_mentions(epoch);
        Self(nodes)
    }

    /// Adds all to those that were met, and takes those to be new that were not met, if others were and it may guess.
    pub(super) fn meet(&mut self, filter: &NoveltyFilter, may_guess: bool) {
        self.0.meet(filter, may_guess);
    }

    /// Whether the insertion of some may be refused because they are there: then the transaction must be able to return.
    pub(super) fn may_race(&self) -> bool {
        self.0.may_race()
    }

    /// The keys to lock, in lock order, with their positions: all that may exist and are not taken to be new.
    pub(super) fn keys(&self) -> Vec<(u32, &ConnectionKey<Uuid>)> {
        let nodes = (0_u32..).zip(&self.0.connections).filter(|(_, node)| self.0.looks_up(node));
        nodes.map(|(place, node)| (place, &node.key)).collect()
    }

    /// Processes the existing connections, as read under lock. Fails if a connection named by id no longer exists.
    pub(super) fn locked(self, stored: Vec<(u32, StoredConnection)>) -> Result<LockedConnections<'e>, VanishedRow> {
        let Self(mut nodes) = self;
        for (connection, stored) in stored {
            let node = &mut nodes.connections[connection as usize];
            node.id = stored.id;
            node.disposition = Disposition::Unchanged;
            node.stored = Some(Box::new(stored));
        }
        let vanished = nodes
            .connections
            .iter()
            .any(|node| node.must_exist && node.presence != Presence::Settled && node.stored.is_none());
        if vanished { Err(VanishedRow) } else { Ok(LockedConnections(nodes)) }
    }
}

impl<'e> LockedConnections<'e> {
    /// Whether there is a savepoint to return to.
    pub(super) fn may_race(&self) -> bool {
        self.0.may_race()
    }

    /// Whether some are taken to be new.
    pub(super) fn has_guesses(&self) -> bool {
        self.0.has_guesses()
    }

    /// How many that were not met are stored, and absent.
    pub(super) fn count_unmet(&self) -> Unmet {
        self.0.count_unmet()
    }

    /// Discards the data of the database, because the locks were released. All connections are looked up now, those that
    /// were taken to be new, and those that were taken to be impossible: a trigger of this transaction may have inserted
    /// one.
    pub(super) fn unlocked(self) -> UnlockedConnections<'e> {
        let Self(mut nodes) = self;
        nodes.takes_unmet_as_new = false;
        let mut new_ids = NewIds::new();
        for node in &mut nodes.connections {
            if node.presence == Presence::Absent {
                node.presence = Presence::Unknown;
            }
            if node.stored.take().is_some() {
                node.disposition = Disposition::Inserted;
                if !node.must_exist {
                    node.id = new_ids.draw();
                }
            }
        }
        UnlockedConnections(nodes)
    }

    /// The rows of all missing connections, in lock order, with their final figures.
    pub(super) fn new_rows(&self, as_of: Timestamp) -> NewConnections<'_> {
        let Self(nodes) = self;
        let places = (0_u32..)
            .zip(&nodes.connections)
            .filter(|(_, node)| node.stored.is_none() && node.presence != Presence::Settled);
        NewConnections { nodes, places: places.map(|(place, _)| place).collect::<Vec<_>>().into_iter(), as_of }
    }

    /// The data needed about existing connections, besides their own rows.
    pub(super) fn questions(&self, as_of: Timestamp) -> HistoryQuestions<'e> {
        let mut questions = HistoryQuestions::new(Vec::new(), as_of);
        let mut distinct = HashSet::default();
        for (connection, node) in (0_u32..).zip(&self.0.connections) {
            let Some(stored) = &node.stored else { continue };
            if stored.metrics.may_have_recent(as_of) {
                let history_indexed = stored.history_indexed;
                questions.recent.push(RecentQuestion { place: connection, connection: stored.id, history_indexed });
            }
            distinct.clear();
            for (mention, own) in self.0.mentions_of(node) {
                let own = self.0.observation(own);
                questions.mentions.push(MentionQuestion {
                    mention,
                    connection: stored.id,
                    history_indexed: stored.history_indexed,
                    source_type: own.source_type,
                    source_id: own.source_id,
                    thread_id: distinct.insert(own.thread_id).then_some(own.thread_id),
                });
            }
        }
        questions
    }

    /// Processes the answers: for a known mention the newer observation wins.
    pub(super) fn decided(self, questions: &HistoryQuestions<'e>, answers: HistoryAnswers) -> DecidedConnections<'e> {
        let Self(mut nodes) = self;
        for (mention, stored) in answers.mentions {
            let own = nodes.observation(&nodes.mentions[mention as usize]);
            let is_newer = own.precedence(&(&stored.mention).into()).is_gt();
            let node = &mut nodes.mentions[mention as usize];
            node.id = stored.id;
            node.disposition = if is_newer { Disposition::Updated } else { Disposition::Unchanged };
            node.stored = Some(Box::new(stored));
        }
        for connection in 0..nodes.connections.len() {
            nodes.connections[connection].history_indexed = nodes.becomes_indexed(&nodes.connections[connection]);
        }
        let mut threads: HashMap<u32, HashSet<&str>> = HashMap::default();
        for place in answers.threads {
            let MentionQuestion { mention, thread_id, .. } = questions.mentions[place as usize];
            let connection = nodes.mentions[mention as usize].connection;
            threads.entry(connection).or_default().extend(thread_id);
        }
        DecidedConnections { nodes, recent: answers.recent.into_iter().collect(), threads }
    }
}

impl<'e> DecidedConnections<'e> {
    /// New mentions, in the order of their connections.
    pub(super) fn new_mentions(&self) -> MentionRows<'_> {
        self.mentions_to(Disposition::Inserted)
    }

    /// Existing mentions that get a newer observation, in the order of their connections.
    pub(super) fn newer_mentions(&self) -> Vec<MentionRow<'_>> {
        self.mentions_to(Disposition::Updated).collect()
    }

    fn mentions_to(&self, disposition: Disposition) -> MentionRows<'_> {
        let nodes = &self.nodes;
        let places = (0_u32..).zip(&nodes.mentions).filter(|(_, node)| node.disposition == disposition);
        MentionRows { nodes, places: places.map(|(place, _)| place).collect::<Vec<_>>().into_iter() }
    }

    /// Existing connections whose histories are looked up in the indexes for long histories from now on.
    pub(super) fn becoming_long(&self) -> Vec<Uuid> {
        let becoming = |node: &&ConnectionNode| {
            node.history_indexed && node.stored.as_ref().is_some_and(|stored| !stored.history_indexed)
        };
        self.nodes.connections.iter().filter(becoming).map(|node| node.id).collect()
    }

    /// The final rows of existing connections that differ from the stored ones ([`Self::changes`]) or need a reread
    /// first; each is worked out when it is asked for.
    pub(super) fn changed_rows(
        &self,
        as_of: Timestamp,
        score_tolerance: f64,
    ) -> impl Iterator<Item = ConnectionWrite<'_>> {
        let none = HashSet::default();
        let existing = (0_u32..).zip(&self.nodes.connections);
        existing.filter_map(move |(connection, node)| {
            let threads = self.threads.get(&connection).unwrap_or(&none);
            let mut write = self.advance(connection, node, node.stored.as_ref()?, threads, as_of);
            (self.changes(&mut write, score_tolerance) || write.reread.any()).then_some(write)
        })
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
                    let observation = self.nodes.observation(mention);
                    Some(MentionChange::Inserted { mention_id: mention.id, mention: observation })
                }
                (Disposition::Updated, Some(stored)) => Some(MentionChange::Replaced {
                    mention_id: mention.id,
                    before: (&stored.mention).into(),
                    mention: self.nodes.observation(mention),
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
        ConnectionWrite {
            node: connection,
            id: node.id,
            key: &node.key,
            facts,
            metrics,
            history_indexed,
            keeps_top_mentions: false,
            reread,
        }
    }

    /// Whether a row differs from the stored one; for reread rows this is known only after the reread. A history that
    /// is flagged as long but is not, as for connections of earlier versions, does not justify a new row version. This
    /// also decides whether the stored best mentions stay.
    pub(super) fn changes(&self, write: &mut ConnectionWrite<'_>, score_tolerance: f64) -> bool {
        let Some(stored) = &self.nodes.connections[write.node as usize].stored else { return true };
        write.keeps_top_mentions = write.metrics.top_agrees_with(&stored.metrics, score_tolerance);
        *write.facts != stored.facts
            || write.history_indexed && !stored.history_indexed
            || !write.metrics.agrees_with(&stored.metrics, score_tolerance)
    }

    /// Notes which connections got new rows.
    pub(super) fn written(self, changed: &[u32], clock: Clock) -> WrittenConnections<'e> {
        let Self { mut nodes, recent, .. } = self;
        for connection in changed {
            nodes.connections[*connection as usize].disposition = Disposition::Updated;
        }
        let repeated = nodes.count_repeated(&recent, clock);
        WrittenConnections { nodes, repeated }
    }
}

impl WrittenConnections<'_> {
    /// The result for each slot of the connections, and of the mentions.
    pub(crate) fn committed(&self) -> (Vec<CommittedRow>, Vec<CommittedRow>) {
        let Self { nodes, .. } = self;
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
        let Self { nodes, .. } = self;
        (nodes.connections.iter().map(|node| node.disposition), nodes.mentions.iter().map(|node| node.disposition))
    }
}
