//! Rows of one table, at most one per name.

use std::hash::Hash;

use crate::hash::HashMap;
use crate::record::Merge;

/// Coalesced rows of one table, in order of first arrival, and for every row that was absorbed the
/// slot that it went to.
///
/// Invariant: a name occurs once, so one `insert .. on conflict` never meets a row twice as long
/// as different names are different rows; where they are not, the plans merge once more.
#[derive(Debug)]
pub(crate) struct Batch<K, V> {
    index: HashMap<K, u32>,
    rows: Vec<(K, V)>,
    slots: Vec<u32>,
}

impl<K, V> Default for Batch<K, V> {
    fn default() -> Self {
        Self { index: HashMap::default(), rows: Vec::new(), slots: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone, V: Merge> Batch<K, V> {
    /// Adds a row, merged with the row of the same name if there is one.
    pub(crate) fn absorb(&mut self, name: &K, row: V) {
        let slot = if let Some(&slot) = self.index.get(name) {
            self.rows[slot as usize].1.merge(row);
            slot
        } else {
            let slot = self.rows.len() as u32;
            self.index.insert(name.clone(), slot);
            self.rows.push((name.clone(), row));
            slot
        };
        self.slots.push(slot);
    }

    /// The coalesced rows, by slot.
    pub(crate) fn rows(&self) -> &[(K, V)] {
        &self.rows
    }

    /// The slot of each absorbed row, in order of arrival.
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The slot of a name.
    pub(crate) fn slot_of(&self, name: &K) -> Option<usize> {
        self.index.get(name).map(|slot| *slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::record::SortedSet;

    proptest! {
        /// Coalescing loses nothing and invents nothing: each name's row is the union of what was
        /// said under it, and each absorbed row's slot leads to its name.
        #[test]
        fn a_name_occurs_once_and_holds_all_that_was_said(rows in prop::collection::vec((0_u8..6, 0_u8..20), 0..60)) {
            let mut batch: Batch<u8, SortedSet<u8>> = Batch::default();
            let mut model: BTreeMap<u8, SortedSet<u8>> = BTreeMap::new();
            for (name, said) in &rows {
                batch.absorb(name, [*said].into_iter().collect());
                model.entry(*name).or_default().insert(*said);
            }
            let coalesced: BTreeMap<u8, SortedSet<u8>> = batch.rows().iter().cloned().collect();
            prop_assert_eq!(coalesced.len(), batch.rows().len());
            prop_assert_eq!(coalesced, model);
            prop_assert_eq!(batch.slots().len(), rows.len());
            for ((name, _), slot) in rows.iter().zip(batch.slots()) {
                prop_assert_eq!(batch.rows()[*slot as usize].0, *name);
                prop_assert_eq!(batch.slot_of(name), Some(*slot as usize));
            }
        }
    }
}
