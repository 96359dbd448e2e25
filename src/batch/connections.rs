//! From names of connections and mentions to rows: ids, final figures, lock order.

use std::borrow::Cow;
use std::sync::Arc;

use uuid::Uuid;

use super::entities::VanishedRow;
use super::{EntityPlan, Epoch};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, ConnectionName, EntityName, Mention, MentionChange, Merge,
    RereadNeeded, SortedSet, SourceType, StoredMetrics, Table, Timestamp, TopMention,
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
pub(crate) struct ConnectionNode {
    pub(crate) key: ConnectionKey<Uuid>,
    pub(crate) id: Uuid,
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
pub(crate) struct MentionNode {
    pub(crate) connection: u32,
    pub(crate) id: Uuid,
    pub(crate) mention: Arc<Mention>,
    stored: Option<StoredMention>,
    disposition: Disposition,
}

/// A connection's row as it must become.
#[derive(Debug)]
pub(crate) struct ConnectionWrite<'a> {
    pub(crate) node: u32,
    pub(crate) id: Uuid,
    pub(crate) facts: Cow<'a, ConnectionFacts<Uuid>>,
    pub(crate) metrics: ConnectionMetrics<'a>,
    pub(crate) reread: RereadNeeded,
}

/// What to do with the connections and mentions of an epoch.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPlan {
    connections: Vec<ConnectionNode>,
    mentions: Vec<MentionNode>,
    connection_of_slot: Vec<u32>,
    mention_of_slot: Vec<u32>,
}

impl ConnectionPlan {
    /// The rejection of every unit that names a connection by an id that is not among `keys_by_id`.
    pub(crate) fn rejections(
        epoch: &Epoch,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Vec<(usize, Rejection)> {
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

    /// Connections that exist, in ascending order, of which nothing new is said: to bring their
    /// figures up to date.
    pub(crate) fn of_keys(keys: Vec<ConnectionKey<Uuid>>) -> Self {
        let mut plan = Self::default();
        for key in keys {
            plan.connections.push(ConnectionNode { must_exist: true, ..ConnectionNode::new(key) });
        }
        plan
    }

    /// Resolves the names of an epoch. `keys_by_id` are the keys of connections that are named by
    /// their id.
    ///
    /// Connections stand in the order of their keys, which is the global lock order of the table;
    /// new ids are given in that order, so that neighbours in one index are neighbours in the other.
    pub(crate) fn resolve(
        epoch: &Epoch,
        entities: &EntityPlan,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let id_of = |name: &EntityName| entities.id_of(&epoch.entities, name);
        let mut plan = Self {
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
                plan.connections.push(ConnectionNode::new(key.clone()));
                plan.connections.len() as u32 - 1
            });
            let entry = &mut plan.connections[node as usize];
            entry.said.merge(said);
            if let Some(id) = known {
                entry.id = id;
                entry.must_exist = true;
            }
            plan.connection_of_slot.push(node);
        }
        drop(node_of_key);
        plan.put_in_lock_order();
        plan.resolve_mentions(epoch);
        plan
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

    /// All connections in lock order.
    pub(crate) fn connections(&self) -> &[ConnectionNode] {
        &self.connections
    }

    /// Forgets what the database has: the locks were given up.
    pub(crate) fn forget_stored(&mut self) {
        for node in &mut self.connections {
            if node.stored.take().is_some() {
                node.disposition = Disposition::Inserted;
                if !node.must_exist {
                    node.id = Uuid::now_v7();
                }
            }
        }
    }

    /// The connections that were there, by place in the plan, ascending. An error if one that must be is not.
    pub(crate) fn existing(&self) -> Result<Vec<u32>, VanishedRow> {
        let mut existing = Vec::new();
        for (index, node) in (0_u32..).zip(&self.connections) {
            match &node.stored {
                Some(_) => existing.push(index),
                None if node.must_exist => return Err(VanishedRow),
                None => {}
            }
        }
        Ok(existing)
    }

    /// The rows of all connections that were not there, in lock order, with their final figures.
    pub(crate) fn new_rows(&self, as_of: Timestamp) -> Vec<ConnectionWrite<'_>> {
        let new = (0_u32..).zip(&self.connections).filter(|(_, node)| node.stored.is_none());
        new.map(|(index, node)| {
            let mentions = self.mentions_of(index).map(|(_, mention)| (mention.id, &*mention.mention));
            ConnectionWrite {
                node: index,
                id: node.id,
                facts: Cow::Borrowed(&node.said),
                metrics: ConnectionMetrics::from_mentions(mentions, as_of),
                reread: RereadNeeded::default(),
            }
        })
        .collect()
    }

    /// Takes in an existing connection as it stands under lock.
    pub(crate) fn set_stored(&mut self, connection: u32, stored: StoredConnection) {
        let node = &mut self.connections[connection as usize];
        node.id = stored.id;
        node.disposition = Disposition::Unchanged;
        node.stored = Some(stored);
    }

    /// What the database says of an existing connection.
    pub(crate) fn stored(&self, connection: u32) -> Option<&StoredConnection> {
        self.connections[connection as usize].stored.as_ref()
    }

    /// The mentions of a connection, with their indexes.
    pub(crate) fn mentions_of(&self, connection: u32) -> impl Iterator<Item = (u32, &MentionNode)> {
        self.connections[connection as usize]
            .mentions
            .iter()
            .map(|mention| (*mention, &self.mentions[*mention as usize]))
    }

    /// Takes in a known mention of a locked connection: the newer observation wins.
    pub(crate) fn set_stored_mention(&mut self, mention: u32, stored: StoredMention) {
        let node = &mut self.mentions[mention as usize];
        node.id = stored.id;
        node.disposition = if node.mention.precedence(&stored.mention).is_gt() {
            Disposition::Updated
        } else {
            Disposition::Unchanged
        };
        node.stored = Some(stored);
    }

    /// Mentions with a disposition, in the order of their connections.
    pub(crate) fn mentions_to(&self, disposition: Disposition) -> impl Iterator<Item = &MentionNode> {
        self.connections
            .iter()
            .flat_map(|connection| &connection.mentions)
            .map(|mention| &self.mentions[*mention as usize])
            .filter(move |mention| mention.disposition == disposition)
    }

    /// The row of an existing connection as it must become; nothing if it says all this already.
    pub(crate) fn advance(
        &self,
        connection: u32,
        recent_before: i32,
        known_threads: &HashSet<&str>,
        as_of: Timestamp,
        score_tolerance: f64,
    ) -> Option<ConnectionWrite<'_>> {
        let node = &self.connections[connection as usize];
        let stored = node.stored.as_ref()?;
        let changes: Vec<MentionChange<'_>> = self
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
        let (metrics, reread) = stored.metrics.advance(&changes, recent_before, known_threads, as_of);
        let write = ConnectionWrite { node: connection, id: node.id, facts: Cow::Owned(facts), metrics, reread };
        (reread.any() || self.changes(&write, score_tolerance)).then_some(write)
    }

    /// Whether a row says anything else than what is stored; for what was read again it is known only then.
    pub(crate) fn changes(&self, write: &ConnectionWrite<'_>, score_tolerance: f64) -> bool {
        self.stored(write.node).is_none_or(|stored| {
            *write.facts != stored.facts || !write.metrics.agrees_with(&stored.metrics, score_tolerance)
        })
    }

    /// Notes that connections get new rows.
    pub(crate) fn mark_updated(&mut self, connections: impl IntoIterator<Item = u32>) {
        for connection in connections {
            self.connections[connection as usize].disposition = Disposition::Updated;
        }
    }

    /// What became of each slot of the connections, and of the mentions.
    pub(crate) fn committed(&self) -> (Vec<CommittedRow>, Vec<CommittedRow>) {
        let connections = self.connection_of_slot.iter().map(|node| {
            let node = &self.connections[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        let mentions = self.mention_of_slot.iter().map(|node| {
            let node = &self.mentions[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        (connections.collect(), mentions.collect())
    }

    /// The disposition of each connection's and each mention's row that the epoch named.
    pub(crate) fn dispositions(&self) -> (impl Iterator<Item = Disposition>, impl Iterator<Item = Disposition>) {
        (self.connections.iter().map(|node| node.disposition), self.mentions.iter().map(|node| node.disposition))
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
