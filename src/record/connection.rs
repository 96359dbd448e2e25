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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConnectionName {
    /// By key; created when it does not exist.
    Key(Arc<ConnectionKey<EntityName>>),
    /// By id; the unit is rejected when no such row exists.
    Id(Uuid),
}

impl ConnectionName {
    /// The id, if it is named by one.
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
