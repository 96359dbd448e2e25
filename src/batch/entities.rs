//! From names of entities to rows: ids, final values, lock order.
//!
//! - **Entities that are merely referenced are not locked.** A lookup without a lock finds their ids. Facts are read
//!   only where something is said of an entity that is not known to be there, and the entity is locked only if that
//!   would change its row. The lookup may be stale: facts only grow, so "this is in it already" stays true, and
//!   everything else is decided again under the lock.
//! - **Google ids are locks too.** A writer that sets an id waits for the uncommitted id of another, outside any row
//!   order. So rows are inserted without their ids, and set them after all row locks are taken, in the order of the
//!   ids. An id that moves from one restaurant of an epoch to another is given up first, out of order: such an epoch
//!   takes an advisory lock alone that every epoch with Google ids shares.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::Epoch;
use super::coalesce::{RowRef, TableBatch};
use super::new_ids::NewIds;
use super::rows::{EntityWrite, FoundByKey, PlaceIds, StoredEntity, VanishedRow, google_place_id};
use super::tables::{KeyLookup, Lookup};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, RejectReason, Rejection};
use crate::record::{EntityFacts, EntityKey, EntityType, Merge, Table};
use crate::unit::{EntityRecord, Row, TypedUse};

/// One entity of the epoch. Several names may lead to it: its key and its id.
#[derive(Debug)]
struct Node<'e> {
    entity_type: EntityType,
    name: Cow<'e, str>,
    id: Uuid,
    /// The stored facts; `None` for a row that does not exist, or is merely referenced.
    stored: Option<EntityFacts<Uuid>>,
    exists: bool,
    /// The positions, in the plan, of the rows with facts about it.
    said: Range<u32>,
    disposition: Disposition,
}

impl Node<'_> {
    fn key(&self) -> (EntityType, &str) {
        (self.entity_type, &self.name)
    }

    fn owned_key(&self) -> EntityKey {
        EntityKey::new(self.entity_type, &*self.name)
    }

    fn exists_as(&mut self, id: Uuid, facts: Option<EntityFacts<Uuid>>) {
        self.id = id;
        self.exists = true;
        self.stored = facts;
        self.disposition = Disposition::Unchanged;
    }

    /// The row to write. `index` is the node's own in the plan.
    fn write(&self, index: u32, facts: EntityFacts<Uuid>) -> EntityWrite {
        EntityWrite { node: index, id: self.id, key: self.owned_key(), facts }
    }
}

/// The entities of an epoch, row by row, and the map from names to them.
#[derive(Debug)]
struct Plan<'e> {
    epoch: &'e Epoch,
    nodes: Vec<Node<'e>>,
    new_ids: NewIds,
    node_of_slot: Vec<u32>,
    /// Rows with facts, grouped by node.
    said: Vec<RowRef>,
}

/// Entities as found by the lookup, before any lock: another writer may still insert or change them.
#[derive(Debug)]
pub(crate) struct FoundEntities<'e>(Plan<'e>);

/// Entities with their final ids.
#[derive(Debug)]
pub(crate) struct LockedEntities<'e>(Plan<'e>);

impl<'e> FoundEntities<'e> {
    /// Resolves the names of an epoch. A key that was not found gets a new id. Otherwise the result is the rejection of
    /// every unit that names a missing id, or uses an entity as another type.
    pub(super) fn resolve(
        epoch: &'e Epoch,
        lookup: &Lookup<'e>,
        by_key: HashMap<u32, FoundByKey>,
        by_id: HashMap<Uuid, StoredEntity>,
    ) -> Result<Self, Vec<(usize, Rejection)>> {
        let rejected = if lookup.entities_by_id.is_empty() { Vec::new() } else { rejections(epoch, &by_id) };
        if rejected.is_empty() { Ok(Self(Plan::resolve(epoch, lookup, by_key, by_id))) } else { Err(rejected) }
    }

    /// The rows to insert, in the order of their keys.
    pub(super) fn new_rows(&self) -> Vec<EntityWrite> {
        let Self(plan) = self;
        let new = (0_u32..).zip(&plan.nodes).filter(|(_, node)| !node.exists);
        in_lock_order(new.map(|(index, node)| node.write(index, plan.wanted(node))).collect())
    }

    /// The rows to lock, because what is said about them would change them, in the order of their keys.
    pub(super) fn changing_rows(&self) -> Vec<EntityWrite> {
        let Self(plan) = self;
        let existing = (0_u32..).zip(&plan.nodes).filter(|(_, node)| node.exists && !node.said.is_empty());
        let changing = existing.filter_map(|(index, node)| {
            let wanted = plan.wanted(node);
            (node.stored.as_ref() != Some(&wanted)).then(|| node.write(index, wanted))
        });
        in_lock_order(changing.collect())
    }

    /// The id of an entity of a unit: final unless the insertion fails, or another row has the name when it is locked.
    pub(super) fn id_of(&self, unit: u32, entity: usize) -> Uuid {
        self.0.id_of(unit, entity)
    }

    /// Whether all names of the epoch are different entities.
    pub(super) fn are_distinct(&self) -> bool {
        self.0.nodes.len() == self.0.node_of_slot.len()
    }

    /// Whether an entity of a unit is inserted by this transaction: no row of another transaction can refer to it.
    pub(super) fn is_new(&self, unit: u32, entity: usize) -> bool {
        !self.0.node(unit, entity).exists
    }

    /// The names of the rows to insert, to look them up again. Results are by the node.
    pub(super) fn names_of_new(&self) -> Vec<KeyLookup<'_>> {
        let new = (0_u32..).zip(&self.0.nodes).filter(|(_, node)| !node.exists);
        new.map(|(index, node)| KeyLookup {
            slot: index,
            entity_type: node.entity_type,
            name: &node.name,
            with_facts: !node.said.is_empty(),
        })
        .collect()
    }

    /// Processes which of the rows to insert exist after all: another writer inserted them first.
    pub(super) fn raced(self, found: HashMap<u32, FoundByKey>) -> Result<Self, VanishedRow> {
        let Self(mut plan) = self;
        for (node, FoundByKey { id, merged_into, facts }) in found {
            // Entities are not merged during the transaction.
            if merged_into.is_some() {
                return Err(VanishedRow);
            }
            plan.nodes[node as usize].exists_as(id, facts);
        }
        Ok(Self(plan))
    }

    /// Processes the ids of locked rows; returns whether one is new, because another row has the name now.
    pub(super) fn takes_ids_of(&mut self, changing: &[EntityWrite], rows: &[StoredEntity]) -> bool {
        let Self(plan) = self;
        let id_of_key: HashMap<&EntityKey, Uuid> = rows.iter().map(|row| (&row.key, row.id)).collect();
        let mut is_new = false;
        for write in changing {
            let node = &mut plan.nodes[write.node as usize];
            if let Some(id) = id_of_key.get(&write.key).filter(|id| **id != node.id) {
                (node.id, is_new) = (*id, true);
            }
        }
        is_new
    }

    /// Processes all locked rows as read under lock. Returns the remaining changes; fails if a row was deleted.
    pub(super) fn locked(
        self,
        new: &[EntityWrite],
        changing: &[EntityWrite],
        rows: Vec<StoredEntity>,
    ) -> Result<(LockedEntities<'e>, EntityUpdates), VanishedRow> {
        let Self(mut plan) = self;
        if rows.len() != changing.len() {
            return Err(VanishedRow);
        }
        let node_of_key: HashMap<&EntityKey, u32> = changing.iter().map(|write| (&write.key, write.node)).collect();
        for row in rows {
            plan.nodes[node_of_key[&row.key] as usize].exists_as(row.id, row.facts);
        }
        // An inserted row is final, except for its Google id.
        let new = new.iter().filter(|write| write.google_place_id().is_some());
        let updates = plan.remaining_updates(new.chain(changing));
        Ok((LockedEntities(plan), updates))
    }
}

/// The global lock order of the table.
fn in_lock_order(mut writes: Vec<EntityWrite>) -> Vec<EntityWrite> {
    writes.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    writes
}

impl LockedEntities<'_> {
    /// The id of a name, unless a redirect led from it to another row.
    pub(super) fn id_of_name(&self, name: &KeyLookup<'_>) -> Option<Uuid> {
        let node = &self.0.nodes[self.0.node_of_slot[name.slot as usize] as usize];
        (node.key() == (name.entity_type, name.name)).then_some(node.id)
    }

    /// Whether the name of an entity of a unit is its row's own, not one that a redirect leads from.
    pub(super) fn is_own_name(&self, unit: u32, entity: usize) -> bool {
        let node = self.0.node(unit, entity);
        let block = self.0.epoch.unit_of(RowRef { unit, row: entity as u32 }).block();
        match block.entities[entity] {
            EntityRecord::Key(entity_type, name) => node.key() == (entity_type, block.text(name)),
            EntityRecord::Id(id) => node.id == id,
        }
    }

    /// The result for each slot.
    pub(super) fn committed(&self) -> Vec<CommittedRow> {
        let rows = self.0.node_of_slot.iter().map(|node| {
            let node = &self.0.nodes[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        rows.collect()
    }

    /// The disposition of each row of the database that the epoch named.
    pub(super) fn dispositions(&self) -> impl Iterator<Item = Disposition> {
        self.0.nodes.iter().map(|node| node.disposition)
    }
}

impl<'e> Plan<'e> {
    fn resolve(
        epoch: &'e Epoch,
        lookup: &Lookup<'e>,
        mut by_key: HashMap<u32, FoundByKey>,
        mut by_id: HashMap<Uuid, StoredEntity>,
    ) -> Self {
        let slots = epoch.entities.len();
        let mut plan = Self {
            epoch,
            nodes: Vec::with_capacity(slots),
            new_ids: NewIds::new(),
            node_of_slot: vec![0; slots],
            said: Vec::new(),
        };
        let aliased = !by_id.is_empty() || by_key.values().any(|found| found.merged_into.is_some());
        let mut node_of_key: HashMap<(EntityType, Cow<'e, str>), u32> = HashMap::default();
        // Keys first, so that ids that belong to one of them find their node.
        for asked in &lookup.entities_by_key {
            let found = by_key.remove(&asked.slot);
            let (entity_type, name) = match found.as_ref().and_then(|found| found.merged_into.as_ref()) {
                Some(key) => (key.entity_type, Cow::Owned(key.name.to_string())),
                None => (asked.entity_type, Cow::Borrowed(asked.name)),
            };
            let found = found.map(|found| (found.id, found.facts));
            plan.name(asked.slot, entity_type, name, found, aliased.then_some(&mut node_of_key));
        }
        for (slot, id) in &lookup.entities_by_id {
            let StoredEntity { id, key, facts } =
                by_id.remove(id).expect("units that name ids that are not there were rejected");
            // By key: the row may have been inserted between the two lookups.
            let name = Cow::Owned(key.name.to_string());
            plan.name(*slot, key.entity_type, name, Some((id, facts)), Some(&mut node_of_key));
        }
        plan.take_in_what_is_said(&lookup.said);
        plan
    }

    /// Maps a slot to the node of its entity, which may also be another slot's if `node_of_key` is kept.
    fn name(
        &mut self,
        slot: u32,
        entity_type: EntityType,
        name: Cow<'e, str>,
        found: Option<(Uuid, Option<EntityFacts<Uuid>>)>,
        node_of_key: Option<&mut HashMap<(EntityType, Cow<'e, str>), u32>>,
    ) {
        let next = self.nodes.len() as u32;
        let place = match node_of_key {
            Some(nodes) => *nodes.entry((entity_type, name.clone())).or_insert(next),
            None => next,
        };
        self.node_of_slot[slot as usize] = place;
        if let Some(node) = self.nodes.get_mut(place as usize) {
            if let Some((id, facts)) = found {
                node.id = id;
                node.exists = true;
                node.disposition = Disposition::Unchanged;
                node.stored = node.stored.take().or(facts);
            }
            return;
        }
        let exists = found.is_some();
        let (id, stored) = found.unwrap_or_else(|| (self.new_ids.draw(), None));
        let disposition = if exists { Disposition::Unchanged } else { Disposition::Inserted };
        self.nodes.push(Node { entity_type, name, id, stored, exists, said: 0..0, disposition });
    }

    /// `said`: slots, and the rows with facts about them.
    fn take_in_what_is_said(&mut self, said: &[(u32, RowRef)]) {
        let mut by_node: Vec<(u32, RowRef)> =
            said.iter().map(|(slot, row)| (self.node_of_slot[*slot as usize], *row)).collect();
        by_node.sort_unstable();
        for group in by_node.chunk_by(|(left, _), (right, _)| left == right) {
            let start = self.said.len() as u32;
            self.said.extend(group.iter().map(|(_, row)| row));
            self.nodes[group[0].0 as usize].said = start..self.said.len() as u32;
        }
    }

    fn node(&self, unit: u32, entity: usize) -> &Node<'e> {
        &self.nodes[self.node_of_slot[self.epoch.entity_slot(unit, entity)] as usize]
    }

    fn id_of(&self, unit: u32, entity: usize) -> Uuid {
        self.node(unit, entity).id
    }

    /// The final row: stored facts joined with stated facts.
    fn wanted(&self, node: &Node<'_>) -> EntityFacts<Uuid> {
        let mut wanted = node.stored.clone().unwrap_or_default();
        for row in &self.said[node.said.start as usize..node.said.end as usize] {
            let (unit, entity) = (self.epoch.unit_of(*row), row.row as usize);
            wanted.merge_aliases(unit.block().aliases_of(entity));
            let attributes = unit.block().attributes_of(entity).map(|attribute| self.id_of(row.unit, attribute));
            wanted.restaurant_attributes.merge(attributes.collect());
            wanted.merge(EntityFacts { place: unit.place_of(entity).cloned(), ..EntityFacts::default() });
        }
        // The name of an entity named by its id was unknown when its aliases were added.
        wanted.aliases.remove::<str>(&node.name);
        wanted
    }

    /// Rows under lock (or inserted by this transaction) that must still change.
    ///
    /// They are in the order of the Google ids that they set: those are locks too (a writer waits for another one's
    /// uncommitted id), taken after all row locks, so they need their own order. For the same reason rows are inserted
    /// without their Google id.
    fn remaining_updates<'w>(&mut self, writes: impl Iterator<Item = &'w EntityWrite>) -> EntityUpdates {
        let mut updates = EntityUpdates::default();
        let mut given_up: Vec<(String, Uuid)> = Vec::new();
        for write in writes {
            let node = &self.nodes[write.node as usize];
            let wanted = self.wanted(node);
            let inserted = (!node.exists).then(|| without_place_id(&write.facts));
            let stored = inserted.as_ref().or(node.stored.as_ref());
            if stored == Some(&wanted) {
                continue;
            }
            let before = stored.and_then(google_place_id);
            if let Some(before) = before.filter(|before| google_place_id(&wanted) != Some(before)) {
                given_up.push((before.to_owned(), node.id));
            }
            updates.writes.push(node.write(write.node, wanted.clone()));
            let node = &mut self.nodes[write.node as usize];
            node.stored = Some(wanted);
            if node.exists {
                node.disposition = Disposition::Updated;
            }
        }
        updates.writes.sort_by(|left, right| left.google_place_id().cmp(&right.google_place_id()));
        let taken: HashSet<&str> = updates.writes.iter().filter_map(|write| google_place_id(&write.facts)).collect();
        updates.place_ids = match (given_up.is_empty(), taken.is_empty()) {
            (false, _) => PlaceIds::GivenUp,
            (true, false) => PlaceIds::Taken,
            (true, true) => PlaceIds::Untouched,
        };
        updates.give_up = given_up.iter().filter(|(id, _)| taken.contains(id.as_str())).map(|(_, row)| *row).collect();
        updates
    }
}

/// The remaining changes to the entities of an epoch, once their rows are locked.
#[derive(Debug, Default)]
pub(crate) struct EntityUpdates {
    pub(crate) place_ids: PlaceIds,
    /// Rows whose Google id another row of the epoch takes: their ids are removed first.
    pub(crate) give_up: Vec<Uuid>,
    /// Rows to update.
    pub(crate) writes: Vec<EntityWrite>,
}

fn without_place_id(facts: &EntityFacts<Uuid>) -> EntityFacts<Uuid> {
    let mut facts = facts.clone();
    if let Some(place) = facts.place.as_mut().filter(|place| place.google_place_id.is_some()) {
        Arc::make_mut(place).google_place_id = None;
    }
    facts
}

/// The rejection of every unit that names a missing id, or uses an entity that is named by its id as another type.
fn rejections(epoch: &Epoch, by_id: &HashMap<Uuid, StoredEntity>) -> Vec<(usize, Rejection)> {
    let mut rejected = Vec::new();
    for (index, unit) in epoch.units().enumerate() {
        let missing = unit.block().entities.iter().enumerate().find_map(|(row, entity)| match entity {
            EntityRecord::Id(id) if !by_id.contains_key(id) => Some((row, *id)),
            EntityRecord::Id(_) | EntityRecord::Key(..) => None,
        });
        if let Some((row, id)) = missing {
            rejected.push((index, Rejection::missing(Table::Entities, row, id)));
            continue;
        }
        let wrong = unit.typed_uses().iter().find_map(|used| {
            let EntityRecord::Id(id) = unit.block().entities[used.entity as usize] else { return None };
            let found = by_id.get(&id)?.key.entity_type;
            (found != used.expected).then(|| Rejection::wrong_type(id, *used, found))
        });
        rejected.extend(wrong.map(|rejection| (index, rejection)));
    }
    rejected
}

impl Rejection {
    /// The unit names a row by an id that does not exist.
    pub(crate) fn missing(table: Table, row: usize, id: Uuid) -> Self {
        let column = match table {
            Table::Entities => "entity_id",
            Table::Connections => "connection_id",
            Table::Mentions => "mention_id",
        };
        Self {
            reason: RejectReason::MissingRow { table, id },
            sqlstate: "23503".to_owned(),
            table: Some(table.as_str().to_owned()),
            column: Some(column.to_owned()),
            constraint: None,
            row: Some(Row { table, index: row }),
            message: format!("no row of {table} has the id {id}"),
            detail: None,
            dead_letter: None,
        }
    }

    fn wrong_type(id: Uuid, used: TypedUse, found: EntityType) -> Self {
        let TypedUse { expected, row, field, .. } = used;
        Self {
            reason: RejectReason::WrongEntityType { id, field, expected, found },
            sqlstate: "23514".to_owned(),
            table: Some(row.table.as_str().to_owned()),
            column: Some(field.as_str().to_owned()),
            constraint: None,
            row: Some(row),
            message: format!("{field} must be a {expected}, entity {id} is a {found}"),
            detail: None,
            dead_letter: None,
        }
    }
}
