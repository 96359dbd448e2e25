//! The connections of an epoch and their mentions: from names to rows.

use std::ops::Range;

use uuid::Uuid;

use super::Epoch;
use super::coalesce::{RowRef, TableBatch};
use super::entities::FoundEntities;
use super::new_ids::NewIds;
use super::novelty::{NoveltyFilter, Unmet};
use super::rows::{StoredConnection, StoredMention};
use crate::hash::{HashMap, hash_of};
use crate::label::Disposition;
use crate::record::{ConnectionFacts, ConnectionKey, MentionRef, SortedSet, SourceType, Table};
use crate::unit::{ConnectionRecordName, MentionRecord, SharedUnit, Texts};

/// Maximum number of mentions of a short history: it is read as a whole, which takes at most as many pages, and its
/// mentions need no entries in the indexes for long histories. A guess; 83 of 100 connections have one mention.
const SHORT_HISTORY_MAX: usize = 32;

/// Whether a history of this many mentions is looked up in indexes.
pub(crate) const fn is_long(mentions: usize) -> bool {
    mentions > SHORT_HISTORY_MAX
}

/// One connection of the epoch.
#[derive(Debug)]
pub(super) struct ConnectionNode {
    pub(super) key: ConnectionKey<Uuid>,
    /// For a missing row, the id that it gets if it is inserted.
    pub(super) id: Uuid,
    pub(super) said: ConnectionFacts<Uuid>,
    /// The positions of its mentions in the plan.
    pub(super) mentions: Range<u32>,
    /// It was named by an id that the database has, so it must not be inserted.
    pub(super) must_exist: bool,
    pub(super) presence: Presence,
    /// Whether no earlier epoch stated it, though it may exist; see `novelty.rs`.
    pub(super) is_unmet: bool,
    pub(super) stored: Option<Box<StoredConnection>>,
    /// The final flag, once decided.
    pub(super) history_indexed: bool,
    pub(super) disposition: Disposition,
}

/// What is known of a connection's row before it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It may exist, and is looked up to be locked, unless it is taken to be new.
    Unknown,
    /// One of its entities was inserted by this transaction, so it does not exist yet.
    Absent,
    /// It is stored as the epoch states it (`repeats.rs`), so it is neither locked nor written.
    Settled,
}

impl ConnectionNode {
    pub(super) const fn new(key: ConnectionKey<Uuid>) -> Self {
        Self {
            key,
            id: Uuid::nil(),
            said: ConnectionFacts { categories: SortedSet::new(), is_menu_item: false },
            mentions: 0..0,
            must_exist: false,
            presence: Presence::Unknown,
            is_unmet: false,
            stored: None,
            history_indexed: false,
            disposition: Disposition::Inserted,
        }
    }
}

/// One mention of the epoch.
#[derive(Debug)]
pub(super) struct MentionNode {
    pub(super) connection: u32,
    pub(super) id: Uuid,
    /// The winning observation of the epoch.
    row: RowRef,
    pub(super) stored: Option<Box<StoredMention>>,
    pub(super) disposition: Disposition,
}

/// The connections of an epoch in lock order, their mentions, and the map from names to them.
#[derive(Debug, Default)]
pub(super) struct Nodes<'e> {
    pub(super) units: &'e [SharedUnit],
    pub(super) connections: Vec<ConnectionNode>,
    /// Grouped by connection, in the order of the connections.
    pub(super) mentions: Vec<MentionNode>,
    pub(super) connection_of_slot: Vec<u32>,
    pub(super) mention_of_slot: Vec<u32>,
    /// Whether connections that were not met are taken to be new.
    pub(super) takes_unmet_as_new: bool,
}

impl<'e> Nodes<'e> {
    pub(super) fn resolve_connections(
        epoch: &'e Epoch,
        entities: &FoundEntities<'_>,
        keys_by_id: &HashMap<Uuid, ConnectionKey<Uuid>>,
    ) -> Self {
        let slots = epoch.connections.len();
        let mut nodes = Self { units: epoch.shared_units(), connections: Vec::with_capacity(slots), ..Self::default() };
        // Names of connections correspond to rows if names of entities do, and no connection is named by its id.
        let mut node_of_key: Option<HashMap<ConnectionKey<Uuid>, u32>> =
            (!entities.are_distinct() || !keys_by_id.is_empty()).then(HashMap::default);
        for first @ RowRef { unit, row } in epoch.connections.firsts() {
            let block = epoch.unit_of(*first).block();
            let id_of = |entity| entities.id_of(*unit, entity);
            let mut presence = Presence::Unknown;
            let (key, known) = match block.connections[*row as usize].name {
                ConnectionRecordName::Key { restaurant, dish } => {
                    let (restaurant, dish) = (restaurant.own(), dish.own());
                    let mut attributes = block.dish_attributes_of(*row as usize);
                    if [restaurant, dish].into_iter().chain(&mut attributes).any(|own| entities.is_new(*unit, own)) {
                        presence = Presence::Absent;
                    }
                    let dish_attributes = block.dish_attributes_of(*row as usize).map(id_of).collect();
                    (ConnectionKey { restaurant: id_of(restaurant), dish: id_of(dish), dish_attributes }, None)
                }
                ConnectionRecordName::Id(id) => (keys_by_id[&id].clone(), Some(id)),
            };
            let next = nodes.connections.len() as u32;
            let node = node_of_key.as_mut().map_or(next, |nodes| *nodes.entry(key.clone()).or_insert(next));
            if node == next {
                nodes.connections.push(ConnectionNode { presence, ..ConnectionNode::new(key) });
            }
            if let Some(id) = known {
                let node = &mut nodes.connections[node as usize];
                node.id = id;
                node.must_exist = true;
            }
            nodes.connection_of_slot.push(node);
        }
        for (row @ RowRef { unit, row: place }, slot) in epoch.rows(Table::Connections) {
            let block = epoch.unit_of(row).block();
            let said = &mut nodes.connections[nodes.connection_of_slot[slot as usize] as usize].said;
            said.is_menu_item |= block.connections[place as usize].is_menu_item;
            for category in block.categories_of(place as usize) {
                said.categories.insert(entities.id_of(unit, category));
            }
        }
        nodes
    }

    pub(super) fn put_in_lock_order(&mut self) {
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
        let mut new_ids = NewIds::new();
        for node in self.connections.iter_mut().filter(|node| !node.must_exist) {
            node.id = new_ids.draw();
        }
    }

    pub(super) fn resolve_mentions(&mut self, epoch: &'e Epoch) {
        let mention_at = |row: RowRef| epoch.unit_of(row).block().mention(row.row as usize);
        // For each mention its connection, and the row of the winning observation.
        let mut mentions: Vec<(u32, RowRef)> = Vec::with_capacity(epoch.mentions.len());
        let mut node_of_slot: Vec<u32> = Vec::with_capacity(epoch.mentions.len());
        // Names correspond to rows if no two names of connections turned out to be one.
        let aliased = self.connections.len() < self.connection_of_slot.len();
        let mut node_of_key: HashMap<(u32, SourceType, &str), u32> = HashMap::default();
        for (row, slot) in epoch.rows(Table::Mentions) {
            let known = node_of_slot.get(slot as usize).copied();
            let node = known.unwrap_or_else(|| {
                let own = epoch.unit_of(row).block().mentions[row.row as usize].connection.own();
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
        self.put_mentions_together(&mentions, node_of_slot);
    }

    /// Puts mentions in the order of their connections, in which new ones are written and get their ids.
    pub(super) fn put_mentions_together(&mut self, mentions: &[(u32, RowRef)], mut node_of_slot: Vec<u32>) {
        for (connection, _) in mentions {
            self.connections[*connection as usize].mentions.end += 1;
        }
        let mut start = 0;
        for node in &mut self.connections {
            node.mentions = start..start + node.mentions.end;
            start = node.mentions.end;
        }
        // Mentions of one connection stay in the order of arrival.
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
        let mut new_ids = NewIds::new();
        self.mentions.extend(order.into_iter().map(|node| {
            let (connection, row) = mentions[node as usize];
            MentionNode { connection, id: new_ids.draw(), row, stored: None, disposition: Disposition::Inserted }
        }));
    }

    /// Whether a connection is looked up.
    pub(super) fn looks_up(&self, node: &ConnectionNode) -> bool {
        node.presence == Presence::Unknown && !(self.takes_unmet_as_new && node.is_unmet)
    }

    /// Whether the insertion of one may be refused because it is there: then the transaction can return.
    pub(super) fn may_race(&self) -> bool {
        self.connections.iter().any(|node| node.presence == Presence::Unknown)
    }

    /// Adds all connections to those that were met.
    pub(super) fn meet(&mut self, filter: &NoveltyFilter, may_guess: bool) {
        self.takes_unmet_as_new = may_guess && filter.takes_unmet_as_new();
        for node in &mut self.connections {
            let is_met = filter.meet(hash_of(&node.key));
            node.is_unmet = !is_met && !node.must_exist && node.presence == Presence::Unknown;
        }
    }

    /// Whether some are taken to be new.
    pub(super) fn has_guesses(&self) -> bool {
        self.takes_unmet_as_new && self.connections.iter().any(|node| node.is_unmet)
    }

    /// How many that were not met are stored, and absent.
    pub(super) fn count_unmet(&self) -> Unmet {
        let mut unmet = Unmet::default();
        for node in self.connections.iter().filter(|node| node.is_unmet) {
            if node.presence == Presence::Settled || node.stored.is_some() {
                unmet.stored += 1;
            } else {
                unmet.absent += 1;
            }
        }
        unmet
    }

    /// Whether a connection's history is looked up in the indexes for long ones once the epoch is written.
    pub(super) fn becomes_indexed(&self, node: &ConnectionNode) -> bool {
        let new = self.mentions_of(node).filter(|(_, mention)| mention.disposition == Disposition::Inserted).count();
        let before = node.stored.as_ref().map_or(0, |stored| stored.metrics.mention_count);
        is_long(before.unsigned_abs() as usize + new)
    }

    /// The mentions of a connection, with their positions.
    pub(super) fn mentions_of(&self, node: &ConnectionNode) -> impl ExactSizeIterator<Item = (u32, &MentionNode)> {
        let mentions = &self.mentions[node.mentions.start as usize..node.mentions.end as usize];
        node.mentions.clone().zip(mentions)
    }

    /// The epoch's record of a mention, with its texts.
    pub(super) fn record(&self, node: &MentionNode) -> (Texts<'e>, &'e MentionRecord) {
        let block = self.units[node.row.unit as usize].get().block();
        (block.texts, &block.mentions[node.row.row as usize])
    }

    /// The epoch's observation of a mention.
    pub(super) fn observation(&self, node: &MentionNode) -> MentionRef<'e> {
        let (texts, record) = self.record(node);
        texts.mention(record)
    }
}
