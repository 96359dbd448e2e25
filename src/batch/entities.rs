//! From names of entities to rows: ids, final values, lock order.

use std::sync::Arc;

use uuid::Uuid;

use super::{EntityBatch, Epoch};
use crate::hash::{HashMap, HashSet};
use crate::outcome::{CommittedRow, Disposition, RejectReason, Rejection};
use crate::record::{EntityFacts, EntityKey, EntityName, Merge, Place, Table};
use crate::unit::{Row, TypedUse};

/// An entity as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntity {
    pub(crate) id: Uuid,
    pub(crate) key: EntityKey,
    /// Not read for an entity that is merely referenced.
    pub(crate) facts: Option<EntityFacts<Uuid>>,
}

/// One entity of the epoch. Several names may lead to it: its key, and its id.
#[derive(Debug)]
struct Node {
    key: EntityKey,
    id: Uuid,
    /// What the database says; nothing for a row that is not there, or is merely referenced.
    stored: Option<EntityFacts<Uuid>>,
    exists: bool,
    /// The names (slots) that lead here and say something.
    said_by: Vec<u32>,
    disposition: Disposition,
}

/// The entities of an epoch, row by row, and the way from names to them.
#[derive(Debug)]
struct Plan {
    nodes: Vec<Node>,
    node_of_slot: Vec<u32>,
    /// Plan in the order of their keys: the global lock order of the table.
    order: Vec<u32>,
}

/// Entities as they were looked up, before any lock: another writer may still insert or change them.
#[derive(Debug)]
pub(crate) struct FoundEntities(Plan);

/// Entities of which those that change are inserted or locked, but not yet read under their locks.
#[derive(Debug)]
pub(crate) struct InsertedEntities {
    plan: Plan,
    /// What was to be inserted or locked.
    writes: Vec<EntityWrite>,
    /// Keys that were not there at the lookup and are now: another writer was faster.
    raced: Vec<EntityKey>,
}

/// Entities with their final ids.
#[derive(Debug)]
pub(crate) struct LockedEntities(Plan);

impl FoundEntities {
    /// Resolves the names of an epoch. A name that was not found gets a new id if it is a key. Otherwise the answer is the
    /// rejection of every unit that names an id that is not there, or uses one as what it is not.
    ///
    /// Behind a name may be an entity of another key or id, if a merge took the one of that name.
    pub(crate) fn resolve(
        epoch: &Epoch,
        by_key: HashMap<u32, StoredEntity>,
        by_id: HashMap<Uuid, StoredEntity>,
    ) -> Result<Self, Vec<(usize, Rejection)>> {
        let rejected = rejections(epoch, &by_id);
        if rejected.is_empty() { Ok(Self(Plan::resolve(&epoch.entities, by_key, by_id))) } else { Err(rejected) }
    }

    /// Rows to insert, or to lock because they will change, in lock order.
    pub(crate) fn to_insert_or_lock(&self, batch: &EntityBatch) -> Vec<EntityWrite> {
        let Self(plan) = self;
        let writes = plan.order.iter().filter_map(|&index| {
            let node = &plan.nodes[index as usize];
            if node.exists && node.said_by.is_empty() {
                return None;
            }
            let wanted = plan.wanted(batch, node);
            (!node.exists || node.stored.as_ref() != Some(&wanted)).then(|| EntityWrite::new(index, node, wanted))
        });
        writes.collect()
    }

    /// Takes in which of `writes` were inserted; all others are locked. An error if a row that was there is gone.
    pub(crate) fn inserted(self, writes: Vec<EntityWrite>, inserted: &[Uuid]) -> Result<InsertedEntities, VanishedRow> {
        let Self(mut plan) = self;
        let inserted: HashSet<&Uuid> = inserted.iter().collect();
        let mut raced = Vec::new();
        for write in &writes {
            let node = &mut plan.nodes[write.node as usize];
            match (inserted.contains(&write.id), node.exists) {
                (true, false) => node.stored = Some(without_place_id(&write.facts)),
                (true, true) => return Err(VanishedRow),
                (false, false) => raced.push(node.key.clone()),
                (false, true) => {}
            }
        }
        Ok(InsertedEntities { plan, writes, raced })
    }
}

/// The keys of rows that were there when they were looked up.
pub(crate) fn keys_found(writes: &[EntityWrite]) -> Vec<EntityKey> {
    writes.iter().filter(|write| write.exists).map(|write| write.key.clone()).collect()
}

impl InsertedEntities {
    /// Locked rows of which nothing was read yet.
    pub(crate) fn raced(&self) -> &[EntityKey] {
        &self.raced
    }

    /// Takes in all locked rows as they stand under lock. The answer has what must still change; an error if a row is gone.
    pub(crate) fn locked(
        self,
        batch: &EntityBatch,
        rows: Vec<StoredEntity>,
    ) -> Result<(LockedEntities, EntityUpdates), VanishedRow> {
        let Self { mut plan, writes, raced } = self;
        let locked = writes.iter().filter(|write| write.exists).count() + raced.len();
        if rows.len() != locked {
            return Err(VanishedRow);
        }
        plan.read_under_lock(rows);
        let updates = plan.remaining_updates(batch, &writes);
        Ok((LockedEntities(plan), updates))
    }
}

impl LockedEntities {
    /// The id behind a name of the epoch.
    pub(crate) fn id_of(&self, batch: &EntityBatch, name: &EntityName) -> Uuid {
        self.0.id_of(batch, name)
    }

    /// What became of each slot.
    pub(crate) fn committed(&self) -> Vec<CommittedRow> {
        let rows = self.0.node_of_slot.iter().map(|node| {
            let node = &self.0.nodes[*node as usize];
            CommittedRow { id: node.id, disposition: node.disposition }
        });
        rows.collect()
    }

    /// The disposition of each row of the database that the epoch named.
    pub(crate) fn dispositions(&self) -> impl Iterator<Item = Disposition> {
        self.0.nodes.iter().map(|node| node.disposition)
    }
}

impl Plan {
    fn resolve(
        batch: &EntityBatch,
        mut by_key: HashMap<u32, StoredEntity>,
        mut by_id: HashMap<Uuid, StoredEntity>,
    ) -> Self {
        let mut plan = Self { nodes: Vec::new(), node_of_slot: vec![0; batch.rows().len()], order: Vec::new() };
        let mut node_of_key: HashMap<EntityKey, u32> = HashMap::default();
        let merged = |(slot, stored): (&u32, &StoredEntity)| match &batch.rows()[*slot as usize].0 {
            EntityName::Key(key) => stored.key != *key,
            EntityName::Id(_) => false,
        };
        let aliased = !by_id.is_empty() || by_key.iter().any(merged);
        // Keys first, so that ids that turn out to be one of them find their node.
        for (slot, (name, facts)) in (0_u32..).zip(batch.rows()) {
            let EntityName::Key(key) = name else { continue };
            let stored = by_key.remove(&slot);
            let key = stored.as_ref().map_or(key, |stored| &stored.key).clone();
            match (node_of_key.get(&key), stored) {
                (Some(&node), Some(stored)) => plan.join(node, stored, slot, facts.is_empty()),
                (_, stored) => {
                    let node = plan.push(key.clone(), stored, slot, facts.is_empty());
                    if aliased {
                        node_of_key.insert(key, node);
                    }
                }
            }
        }
        for (slot, (name, facts)) in (0_u32..).zip(batch.rows()) {
            let EntityName::Id(id) = name else { continue };
            let stored = by_id.remove(id).expect("units that name ids that are not there were rejected");
            // By key: the row may have come about between the two lookups.
            let key = stored.key.clone();
            if let Some(&node) = node_of_key.get(&key) {
                plan.join(node, stored, slot, facts.is_empty());
            } else {
                let node = plan.push(key.clone(), Some(stored), slot, facts.is_empty());
                node_of_key.insert(key, node);
            }
        }
        plan.order = (0..plan.nodes.len() as u32).collect();
        plan.order.sort_unstable_by(|left, right| plan.nodes[*left as usize].key.cmp(&plan.nodes[*right as usize].key));
        plan
    }

    fn push(&mut self, key: EntityKey, stored: Option<StoredEntity>, slot: u32, merely_referenced: bool) -> u32 {
        let node = self.nodes.len() as u32;
        self.node_of_slot[slot as usize] = node;
        let exists = stored.is_some();
        let id = stored.as_ref().map_or_else(Uuid::now_v7, |stored| stored.id);
        self.nodes.push(Node {
            key,
            id,
            exists,
            stored: stored.and_then(|stored| stored.facts),
            said_by: if merely_referenced { Vec::new() } else { vec![slot] },
            disposition: if exists { Disposition::Unchanged } else { Disposition::Inserted },
        });
        node
    }

    /// Another name of an entity that has a node.
    fn join(&mut self, node: u32, stored: StoredEntity, slot: u32, merely_referenced: bool) {
        self.node_of_slot[slot as usize] = node;
        let node = &mut self.nodes[node as usize];
        node.id = stored.id;
        node.exists = true;
        node.disposition = Disposition::Unchanged;
        node.stored = node.stored.take().or(stored.facts);
        if !merely_referenced {
            node.said_by.push(slot);
        }
    }

    /// The id behind a name of the epoch.
    fn id_of(&self, batch: &EntityBatch, name: &EntityName) -> Uuid {
        let slot = batch.slot_of(name).expect("every name that a row uses is a row of its unit");
        self.nodes[self.node_of_slot[slot] as usize].id
    }

    /// The row as it must become: what is stored joined with what is said.
    fn wanted(&self, batch: &EntityBatch, node: &Node) -> EntityFacts<Uuid> {
        // What this transaction inserted itself may hold an id that a race made obsolete: start anew.
        let stored = node.stored.as_ref().filter(|_| node.exists);
        let mut wanted = stored.cloned().unwrap_or_default();
        for slot in &node.said_by {
            let said = &batch.rows()[*slot as usize].1;
            wanted.merge(EntityFacts {
                aliases: said.aliases.clone(),
                restaurant_attributes: said.restaurant_attributes.iter().map(|name| self.id_of(batch, name)).collect(),
                place: said.place.clone(),
            });
        }
        // An entity named by its id did not know its name when its aliases were given.
        wanted.aliases.remove::<str>(&node.key.name);
        wanted
    }

    /// Takes in rows as they stand under lock.
    fn read_under_lock(&mut self, rows: Vec<StoredEntity>) {
        let mut by_key: HashMap<EntityKey, StoredEntity> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        for node in &mut self.nodes {
            if let Some(row) = by_key.remove(&node.key) {
                node.id = row.id;
                node.exists = true;
                node.stored = row.facts;
                node.disposition = Disposition::Unchanged;
            }
        }
        debug_assert!(by_key.is_empty(), "only keys of this epoch are read under lock");
    }

    /// Rows under lock (or inserted by this very transaction) that must still change.
    ///
    /// They stand in the order of the Google ids that they set: those are locks too (a writer waits
    /// for another one's uncommitted id), taken after all row locks, so they need an order of
    /// their own. For the same reason rows are inserted without their Google id.
    fn remaining_updates(&mut self, batch: &EntityBatch, writes: &[EntityWrite]) -> EntityUpdates {
        let mut updates = EntityUpdates::default();
        let mut given_up: Vec<(String, Uuid)> = Vec::new();
        for write in writes {
            let node = &self.nodes[write.node as usize];
            let wanted = self.wanted(batch, node);
            if node.stored.as_ref() == Some(&wanted) {
                continue;
            }
            let before = node.stored.as_ref().and_then(google_place_id);
            if let Some(before) = before.filter(|before| google_place_id(&wanted) != Some(before)) {
                given_up.push((before.to_owned(), node.id));
            }
            updates.writes.push(EntityWrite::new(write.node, node, wanted.clone()));
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

/// A row that was there when it was looked up is gone: somebody deleted it. Look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VanishedRow;

/// One row to write.
#[derive(Debug, Clone)]
pub(crate) struct EntityWrite {
    /// The plan's node.
    node: u32,
    pub(crate) id: Uuid,
    pub(crate) key: EntityKey,
    pub(crate) facts: EntityFacts<Uuid>,
    /// Whether the row was there when it was looked up.
    pub(crate) exists: bool,
}

impl EntityWrite {
    /// An entity that belongs to no epoch.
    pub(crate) fn of_stored(id: Uuid, key: EntityKey, facts: EntityFacts<Uuid>) -> Self {
        Self { node: 0, id, key, facts, exists: true }
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.facts.place.as_deref()
    }

    pub(crate) fn google_place_id(&self) -> Option<&str> {
        google_place_id(&self.facts)
    }

    fn new(index: u32, node: &Node, facts: EntityFacts<Uuid>) -> Self {
        Self { node: index, id: node.id, key: node.key.clone(), facts, exists: node.exists }
    }
}

/// What an epoch does to Google ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PlaceIds {
    /// Nothing.
    #[default]
    Untouched,
    /// Restaurants without one get one: in the order of the ids, so such epochs get along.
    Taken,
    /// Restaurants lose one, perhaps for another. That is a lock too, out of order; such an epoch
    /// must be alone.
    GivenUp,
}

/// What the entities of an epoch still need, once their rows are locked.
#[derive(Debug, Default)]
pub(crate) struct EntityUpdates {
    pub(crate) place_ids: PlaceIds,
    /// Rows whose Google id another row of the epoch takes: they give it up first.
    pub(crate) give_up: Vec<Uuid>,
    /// Rows to update.
    pub(crate) writes: Vec<EntityWrite>,
}

fn google_place_id<R>(facts: &EntityFacts<R>) -> Option<&str> {
    facts.place.as_ref()?.google_place_id.as_deref()
}

fn without_place_id(facts: &EntityFacts<Uuid>) -> EntityFacts<Uuid> {
    let mut facts = facts.clone();
    if let Some(place) = facts.place.as_mut().filter(|place| place.google_place_id.is_some()) {
        Arc::make_mut(place).google_place_id = None;
    }
    facts
}

/// The rejection of every unit that names an id that is not there, or uses one as what it is not.
fn rejections(epoch: &Epoch, by_id: &HashMap<Uuid, StoredEntity>) -> Vec<(usize, Rejection)> {
    let mut rejected = Vec::new();
    for (index, unit) in epoch.units().iter().enumerate() {
        let missing = unit.entities.iter().enumerate().find_map(|(row, (name, _))| match name {
            EntityName::Id(id) if !by_id.contains_key(id) => Some((row, *id)),
            EntityName::Id(_) | EntityName::Key(_) => None,
        });
        if let Some((row, id)) = missing {
            rejected.push((index, Rejection::missing(Table::Entities, row, id)));
            continue;
        }
        let wrong = unit.typed_uses.iter().find_map(|used| {
            let EntityName::Id(id) = &unit.entities[used.entity as usize].0 else { return None };
            let found = by_id.get(id)?.key.entity_type;
            (found != used.expected).then(|| Rejection::wrong_type(*id, *used, found))
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

    fn wrong_type(id: Uuid, used: TypedUse, found: crate::record::EntityType) -> Self {
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
