//! Listeners for commits: a resolver that caches answers of the database.
//!
//! A listener is called after a transaction was committed and before any of its units gets its outcome. So when a
//! caller learns of a commit, every listener already knows it.

// The only listener is the resolver's cache.
#![cfg_attr(not(feature = "resolver"), allow(dead_code))]

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::batch::{Epoch, Written};
use crate::label::Disposition;
use crate::record::{EntityType, Table};
use crate::unit::{EntityRecord, Unit};

/// An entity that a commit inserted or changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangedEntity<'a> {
    /// A unit that names it.
    unit: Unit<'a>,
    /// Its place in the unit.
    entity: usize,
}

impl<'a> ChangedEntity<'a> {
    #[cfg(test)]
    pub(crate) const fn new(unit: Unit<'a>, entity: usize) -> Self {
        Self { unit, entity }
    }

    /// Its key; `None` if the unit named it by its id.
    pub(crate) fn key(&self) -> Option<(EntityType, &'a str)> {
        match self.unit.block().entities[self.entity] {
            EntityRecord::Key(entity_type, name) => Some((entity_type, self.unit.block().text(name))),
            EntityRecord::Id(_) => None,
        }
    }

    /// The aliases that the unit gave it.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &'a str> {
        self.unit.block().aliases_of(self.entity)
    }
}

/// A listener for commits. Called on the engine's runtime, so it must not wait.
pub(crate) trait CommitListener: Send + Sync {
    /// A transaction was committed. `changed` does not include entities that it left unchanged.
    fn committed(&self, changed: &mut dyn Iterator<Item = ChangedEntity<'_>>);
    /// It cannot be determined whether a transaction was committed, or entities were merged: any entity may have
    /// changed.
    fn unknown(&self);
}

/// The listeners, held weakly.
#[derive(Default)]
pub(crate) struct CommitListeners(RwLock<Vec<Weak<dyn CommitListener>>>);

impl fmt::Debug for CommitListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommitListeners")
    }
}

impl CommitListeners {
    /// Adds a listener, and removes those that were dropped.
    pub(crate) fn add(&self, listener: Weak<dyn CommitListener>) {
        let mut listeners = self.0.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    pub(crate) fn committed(&self, epoch: &Epoch, written: &Written) {
        self.each(|listener| {
            let entities = &written.rows[Table::Entities as usize];
            let units = epoch.units().zip(epoch.slots_by_unit(Table::Entities));
            let mut changed = units.flat_map(|(unit, slots)| {
                let slots = slots.iter().enumerate();
                slots
                    .filter(|(_, slot)| entities[**slot as usize].disposition != Disposition::Unchanged)
                    .map(move |(entity, _)| ChangedEntity { unit, entity })
            });
            listener.committed(&mut changed);
        });
    }

    pub(crate) fn unknown(&self) {
        self.each(|listener| listener.unknown());
    }

    fn each(&self, tell: impl Fn(&dyn CommitListener)) {
        let listeners: Vec<Arc<dyn CommitListener>> = {
            let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            tell(&*listener);
        }
    }
}
