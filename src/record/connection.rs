//! Connections: a dish at a restaurant.

use super::{Merge, SortedSet};

/// The key of a connection. `R` names entities: by their ids in the database.
///
/// The order of `ConnectionKey<Uuid>` is the order in which every writer locks rows of
/// `connections`. It is part of the compatibility contract between versions of graphsink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionKey<R> {
    /// The restaurant.
    pub(crate) restaurant: R,
    /// The dish or category.
    pub(crate) dish: R,
    /// The set of dish attributes.
    pub(crate) dish_attributes: SortedSet<R>,
}

/// The facts about a connection besides its key and its mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionFacts<R> {
    /// Categories that the dish was put into here.
    pub(crate) categories: SortedSet<R>,
    /// Whether it is on the menu; true wins.
    pub(crate) is_menu_item: bool,
}

impl<R> Default for ConnectionFacts<R> {
    fn default() -> Self {
        Self { categories: SortedSet::default(), is_menu_item: false }
    }
}

/// Categories unite, `is_menu_item` true wins.
impl<R: Ord> ConnectionFacts<R> {
    /// Whether a merge with `other` would change nothing.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        self.categories.contains_all(&other.categories) && (self.is_menu_item || !other.is_menu_item)
    }
}

impl<R: Ord> Merge for ConnectionFacts<R> {
    fn merge(&mut self, other: Self) {
        self.categories.merge(other.categories);
        self.is_menu_item |= other.is_menu_item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_connection_is_on_the_menu_if_either_was_and_has_all_categories() {
        for (own, other) in [(false, false), (false, true), (true, false), (true, true)] {
            let facts = |category: u8, is_menu_item| ConnectionFacts {
                categories: [category].into_iter().collect(),
                is_menu_item,
            };
            let mut merged = facts(2, own);
            merged.merge(facts(1, other));
            assert_eq!(
                merged,
                ConnectionFacts { categories: [1, 2].into_iter().collect(), is_menu_item: own || other }
            );
        }
    }
}
