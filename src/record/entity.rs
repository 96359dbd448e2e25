//! Entities: what is named.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Merge, Place, SortedSet};

/// The type of an entity, part of its key: the same word may be two entities of different type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityType {
    /// A place that serves food.
    Restaurant,
    /// A dish, or a category of dishes.
    DishOrCategory,
    /// A property of a dish ("smoky").
    DishAttribute,
    /// A property of a restaurant ("patio").
    RestaurantAttribute,
}

impl EntityType {
    /// All types, in the order of the database's enum.
    pub const ALL: [Self; 4] = [Self::Restaurant, Self::DishOrCategory, Self::DishAttribute, Self::RestaurantAttribute];

    /// The label of the database's enum `entity_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restaurant => "restaurant",
            Self::DishOrCategory => "dish_or_category",
            Self::DishAttribute => "dish_attribute",
            Self::RestaurantAttribute => "restaurant_attribute",
        }
    }

    /// The type with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity_type| entity_type.as_str() == label)
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What makes an entity the same entity: its type and its name, compared exactly.
///
/// The order of this type (type, then name by code point) is the order in which every writer locks
/// rows of `entities`. It is part of the compatibility contract between versions of graphsink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// The type.
    pub entity_type: EntityType,
    /// The name, stored exactly as given.
    pub name: Arc<str>,
}

/// How a unit names an entity: by its key, or by the id of a row that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityName {
    /// By type and name; created when it does not exist.
    Key(EntityKey),
    /// By id; the unit is rejected when no such row exists.
    Id(Uuid),
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{} {:?}", key.entity_type, key.name),
            Self::Id(id) => write!(f, "entity {id}"),
        }
    }
}

/// What is known of an entity besides its key. `R` names other entities: [`EntityName`] before a
/// transaction knows their ids, [`Uuid`] afterwards and in the database.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityFacts<R> {
    /// Other spellings. Never the name itself.
    pub aliases: SortedSet<Arc<str>>,
    /// The restaurant's attributes.
    pub restaurant_attributes: SortedSet<R>,
    /// Where the restaurant is.
    pub place: Option<Arc<Place>>,
}

impl<R> Default for EntityFacts<R> {
    fn default() -> Self {
        Self { aliases: SortedSet::default(), restaurant_attributes: SortedSet::default(), place: None }
    }
}

impl<R: Ord> EntityFacts<R> {
    /// Whether nothing is said: the entity is merely referenced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aliases.is_empty() && self.restaurant_attributes.is_empty() && self.place.is_none()
    }
}

/// Sets unite, the newest place wins.
impl<R: Ord> Merge for EntityFacts<R> {
    fn merge(&mut self, other: Self) {
        self.aliases.merge(other.aliases);
        self.restaurant_attributes.merge(other.restaurant_attributes);
        match (&mut self.place, other.place) {
            (Some(own), Some(place)) => {
                if place.precedence(own).is_gt() {
                    *own = place;
                }
            }
            (own @ None, place) => *own = place,
            (Some(_), None) => {}
        }
    }
}
