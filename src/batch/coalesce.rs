//! Coalesces the rows of one table by name: the rows of all units that have the same name become one.
//!
//! Batches stay in the order of arrival. The order of locks is that of keys and ids, which are known only inside the
//! transaction, so the plans sort.

use std::marker::PhantomData;

use hashbrown::HashTable;

use crate::record::Table;
use crate::unit::{NameHash, Unit};

/// A row of a unit: the unit's position in its epoch, and the row's position among the unit's rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowRef {
    pub(crate) unit: u32,
    pub(crate) row: u32,
}

/// The table of a [`Batch`].
pub(crate) trait OfTable: Send + Unpin + 'static {
    const TABLE: Table;
}

/// Names of one table, in order of first arrival, and for every absorbed row the slot of its name.
///
/// Invariant: a name has one slot, so no row is inserted or locked twice if different names are different
/// rows; if they are not, the plans merge again.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    /// Slots, by the hashes of their names.
    slot_of_name: HashTable<u32>,
    /// The name of each slot.
    names: Vec<NameHash>,
    /// The first row of each slot.
    firsts: Vec<RowRef>,
    slots: Vec<u32>,
    units: u32,
    table: PhantomData<T>,
}

impl<T: OfTable> Default for Batch<T> {
    fn default() -> Self {
        Self::with_room(0)
    }
}

/// The batch of a table, for the generic batcher actor.
pub(crate) trait TableBatch: Default + Send + Unpin + 'static {
    /// The table.
    const TABLE: Table;

    /// An empty batch with capacity for `names` names.
    fn with_room(names: usize) -> Self;

    /// Adds the rows of the next unit.
    fn absorb_unit(&mut self, unit: Unit<'_>);

    /// Number of names.
    fn len(&self) -> usize;
}

impl<T: OfTable> TableBatch for Batch<T> {
    const TABLE: Table = T::TABLE;

    fn with_room(names: usize) -> Self {
        Self {
            slot_of_name: HashTable::with_capacity(names),
            names: Vec::with_capacity(names),
            firsts: Vec::with_capacity(names),
            slots: Vec::with_capacity(names),
            units: 0,
            table: PhantomData,
        }
    }

    fn absorb_unit(&mut self, unit: Unit<'_>) {
        self.absorb(unit.names(T::TABLE));
    }

    fn len(&self) -> usize {
        self.firsts.len()
    }
}

impl<T: OfTable> Batch<T> {
    fn absorb(&mut self, names: &[NameHash]) {
        for (row, name) in (0..).zip(names) {
            // A name is already a hash.
            let known = self.slot_of_name.entry(
                *name as u64,
                |slot| self.names[*slot as usize] == *name,
                |slot| self.names[*slot as usize] as u64,
            );
            let new = self.names.len() as u32;
            let slot = *known.or_insert(new).get();
            if slot == new {
                self.names.push(*name);
                self.firsts.push(RowRef { unit: self.units, row });
            }
            self.slots.push(slot);
        }
        self.units += 1;
    }

    /// Number of absorbed units.
    pub(super) fn units(&self) -> usize {
        self.units as usize
    }

    /// The name of each slot.
    pub(super) fn names(&self) -> &[NameHash] {
        &self.names
    }

    /// The first row of each name, by slot.
    pub(super) fn firsts(&self) -> &[RowRef] {
        &self.firsts
    }

    /// The slot of each absorbed row, in order of arrival.
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::epoch::Entities;

    proptest! {
        /// Coalescing loses nothing and invents nothing: each name has one slot, that of its first row. The slot of
        /// each absorbed row leads to its name.
        #[test]
        fn each_name_has_one_slot_and_its_rows_lead_there(units in prop::collection::vec(prop::collection::vec(0_u128..6, 0..4), 0..20)) {
            let mut batch: Batch<Entities> = Batch::default();
            let mut model: BTreeMap<u128, RowRef> = BTreeMap::new();
            for (unit, names) in (0..).zip(&units) {
                batch.absorb(names);
                for (row, name) in (0..).zip(names) {
                    model.entry(*name).or_insert(RowRef { unit, row });
                }
            }
            prop_assert_eq!(batch.units(), units.len());
            prop_assert_eq!(batch.len(), model.len());
            let all: Vec<u128> = units.iter().flatten().copied().collect();
            prop_assert_eq!(batch.slots().len(), all.len());
            for (name, slot) in all.iter().zip(batch.slots()) {
                prop_assert_eq!(batch.firsts()[*slot as usize], model[name]);
            }
        }
    }
}
