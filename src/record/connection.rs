//! Connections: a dish at a restaurant.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::{EntityName, Merge, SortedSet};

/// What makes a connection the same connection. `R` names entities: [`EntityName`] before a
/// transaction knows their ids, [`Uuid`] afterwards.
///
/// The order of `ConnectionKey<Uuid>` is the order in which every writer locks rows of
/// `connections`. It is part of the compatibility contract between versions of graphsink.
///
/// ```
/// use graphsink::{ConnectionKey, SortedSet};
/// use uuid::Uuid;
///
/// let key = |dish| ConnectionKey { restaurant: Uuid::nil(), dish: Uuid::from_u128(dish), dish_attributes: SortedSet::default() };
/// assert!(key(1) < key(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey<R> {
    /// The restaurant.
    pub restaurant: R,
    /// The dish or category.
    pub dish: R,
    /// The set of dish attributes.
    pub dish_attributes: SortedSet<R>,
}

/// How a unit names a connection: by its key, or by the id of a row that exists.
///
/// ```
/// use graphsink::ConnectionName;
///
/// let name = ConnectionName::Id(uuid::Uuid::nil());
/// assert_eq!(name.to_string(), "connection 00000000-0000-0000-0000-000000000000");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConnectionName {
    /// By key; created when it does not exist.
    Key(Arc<ConnectionKey<EntityName>>),
    /// By id; the unit is rejected when no such row exists.
    Id(Uuid),
}

impl ConnectionName {
    /// The id, if it is named by one.
    ///
    /// ```
    /// use graphsink::ConnectionName;
    ///
    /// let id = uuid::Uuid::from_u128(7);
    /// assert_eq!(ConnectionName::Id(id).id(), Some(id));
    /// ```
    #[must_use]
    pub const fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Key(_) => None,
        }
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{} at {}", key.dish, key.restaurant),
            Self::Id(id) => write!(f, "connection {id}"),
        }
    }
}

/// What is said of a connection besides its key and its mentions.
///
/// ```
/// use graphsink::{ConnectionFacts, Merge};
///
/// let mut facts = ConnectionFacts::<uuid::Uuid>::default();
/// facts.merge(ConnectionFacts { is_menu_item: true, ..ConnectionFacts::default() });
/// assert!(facts.is_menu_item);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFacts<R> {
    /// Categories that the dish was put into here.
    pub categories: SortedSet<R>,
    /// Whether it is on the menu; true wins.
    pub is_menu_item: bool,
}

impl<R> Default for ConnectionFacts<R> {
    fn default() -> Self {
        Self { categories: SortedSet::default(), is_menu_item: false }
    }
}

/// Categories unite, `is_menu_item` true wins.
impl<R: Ord> Merge for ConnectionFacts<R> {
    fn merge(&mut self, other: Self) {
        self.categories.merge(other.categories);
        self.is_menu_item |= other.is_menu_item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EntityKey, EntityType};

    #[test]
    fn on_the_menu_wins_and_categories_unite() {
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

    #[test]
    fn names_say_what_they_name() {
        let entity = |entity_type, name: &str| EntityName::Key(EntityKey { entity_type, name: name.into() });
        let key = ConnectionKey {
            restaurant: entity(EntityType::Restaurant, "franklin"),
            dish: entity(EntityType::DishOrCategory, "brisket"),
            dish_attributes: SortedSet::new(),
        };
        let by_key = ConnectionName::Key(Arc::new(key));
        assert_eq!(by_key.to_string(), "dish_or_category \"brisket\" at restaurant \"franklin\"");
        assert_eq!(by_key.id(), None);
        let id = Uuid::from_u128(7);
        assert_eq!(ConnectionName::Id(id).to_string(), format!("connection {id}"));
        assert_eq!(ConnectionName::Id(id).id(), Some(id));
    }
}
