//! Entities: the named things of the graph.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Merge, Place, SortedSet, UnknownLabel};

/// The type of an entity, part of its key: the same word may be two entities of different type.
///
/// ```
/// use graphsink::EntityType;
///
/// // Names are unique within a type: a dish attribute and a restaurant attribute may share one.
/// assert_eq!(EntityType::DishAttribute.to_string(), "dish_attribute");
/// ```
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
    ///
    /// ```
    /// use graphsink::EntityType;
    ///
    /// let labels = EntityType::ALL.map(EntityType::as_str);
    /// assert_eq!(labels, ["restaurant", "dish_or_category", "dish_attribute", "restaurant_attribute"]);
    /// ```
    pub const ALL: [Self; 4] = [Self::Restaurant, Self::DishOrCategory, Self::DishAttribute, Self::RestaurantAttribute];

    /// The label of the database's enum `entity_type`.
    ///
    /// ```
    /// assert_eq!(graphsink::EntityType::DishOrCategory.as_str(), "dish_or_category");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restaurant => "restaurant",
            Self::DishOrCategory => "dish_or_category",
            Self::DishAttribute => "dish_attribute",
            Self::RestaurantAttribute => "restaurant_attribute",
        }
    }

    /// The former name of `label.parse().ok()`.
    #[doc(hidden)]
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        label.parse().ok()
    }
}

/// The type with this label.
///
/// ```
/// use graphsink::EntityType;
///
/// assert_eq!("restaurant".parse(), Ok(EntityType::Restaurant));
/// assert!("Restaurant".parse::<EntityType>().is_err());
/// ```
impl FromStr for EntityType {
    type Err = UnknownLabel;

    fn from_str(label: &str) -> Result<Self, UnknownLabel> {
        Self::ALL.into_iter().find(|own| own.as_str() == label).ok_or(UnknownLabel { of: "entity_type" })
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key of an entity: its type and its name, compared exactly.
///
/// ```
/// use graphsink::{EntityKey, EntityName, EntityType};
///
/// let key = EntityKey::new(EntityType::Restaurant, "franklin bbq");
/// assert_ne!(key, EntityKey::new(EntityType::Restaurant, "Franklin BBQ"));
/// assert_eq!(EntityName::from(key).to_string(), "restaurant \"franklin bbq\"");
/// ```
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

impl EntityKey {
    /// A key.
    ///
    /// ```
    /// use graphsink::{EntityKey, EntityType};
    ///
    /// let key = EntityKey::new(EntityType::Restaurant, "franklin barbecue");
    /// assert_eq!(&*key.name, "franklin barbecue");
    /// ```
    pub fn new(entity_type: EntityType, name: impl Into<Arc<str>>) -> Self {
        Self { entity_type, name: name.into() }
    }
}

/// How a unit names an entity: by its key, or by the id of a row that exists.
///
/// ```
/// use graphsink::{EntityKey, EntityName, EntityType};
///
/// let by_key = EntityName::from(EntityKey::new(EntityType::DishOrCategory, "brisket"));
/// let by_id = EntityName::from(uuid::Uuid::from_u128(7));
/// assert_ne!(by_key, by_id);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityName {
    /// By type and name; created when it does not exist.
    Key(EntityKey),
    /// By id; the unit is rejected when no such row exists.
    Id(Uuid),
}

impl From<EntityKey> for EntityName {
    fn from(key: EntityKey) -> Self {
        Self::Key(key)
    }
}

impl From<Uuid> for EntityName {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{} {:?}", key.entity_type, key.name),
            Self::Id(id) => write!(f, "entity {id}"),
        }
    }
}

/// The facts about an entity besides its key. `R` names other entities: [`EntityName`] before a
/// transaction knows their ids, [`Uuid`] afterwards and in the database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntityFacts<R> {
    /// Other spellings. Never the name itself.
    pub(crate) aliases: SortedSet<Arc<str>>,
    /// The restaurant's attributes.
    pub(crate) restaurant_attributes: SortedSet<R>,
    /// Where the restaurant is.
    pub(crate) place: Option<Arc<Place>>,
}

impl<R> Default for EntityFacts<R> {
    fn default() -> Self {
        Self { aliases: SortedSet::default(), restaurant_attributes: SortedSet::default(), place: None }
    }
}

impl<R> EntityFacts<R> {
    /// Adds aliases. This is their merge rule, a set union, for whole facts and for single texts alike.
    pub(crate) fn merge_aliases<T: AsRef<str> + Into<Arc<str>>>(&mut self, aliases: impl IntoIterator<Item = T>) {
        for alias in aliases {
            self.aliases.insert_text(alias);
        }
    }
}

/// Sets unite, the newest place wins.
impl<R: Ord> Merge for EntityFacts<R> {
    fn merge(&mut self, other: Self) {
        self.merge_aliases(other.aliases);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Timestamp;

    #[test]
    fn entity_types_have_the_labels_of_the_database() {
        let labels = ["restaurant", "dish_or_category", "dish_attribute", "restaurant_attribute"];
        assert_eq!(EntityType::ALL.map(EntityType::as_str), labels);
        assert_eq!(EntityType::ALL.map(|entity_type| entity_type.to_string()), labels);
        assert_eq!(labels.map(str::parse), EntityType::ALL.map(Ok));
        assert_eq!("dish".parse::<EntityType>(), Err(UnknownLabel { of: "entity_type" }));
    }

    #[test]
    fn entity_names_are_displayed_with_their_type() {
        let key = EntityKey { entity_type: EntityType::DishAttribute, name: "smo\"ky".into() };
        assert_eq!(EntityName::Key(key).to_string(), "dish_attribute \"smo\\\"ky\"");
        let id = Uuid::from_u128(7);
        assert_eq!(EntityName::Id(id).to_string(), format!("entity {id}"));
    }

    fn place(address: Option<&str>, observed_at: &str) -> Arc<Place> {
        let observed_at: Timestamp = observed_at.parse().unwrap();
        let address = address.map(str::to_owned);
        Arc::new(Place { location: None, address, google_place_id: None, metadata: None, observed_at })
    }

    #[test]
    fn merged_entities_have_all_aliases_and_the_newest_place() {
        let facts = |number: u8, place| EntityFacts {
            aliases: [number.to_string().into()].into_iter().collect(),
            restaurant_attributes: [number].into_iter().collect(),
            place,
        };
        let (old, new) = (Some(place(Some("z"), "2024-01-01T00:00:00Z")), Some(place(None, "2024-01-02T00:00:00Z")));
        for (own, other, winner) in
            [(&old, &new, &new), (&new, &old, &new), (&None, &old, &old), (&old, &None, &old), (&None, &None, &None)]
        {
            let mut merged = facts(1, own.clone());
            merged.merge(facts(2, other.clone()));
            assert_eq!(merged.aliases.as_slice(), ["1".into(), "2".into()]);
            assert_eq!(merged.restaurant_attributes.as_slice(), [1, 2]);
            assert_eq!(merged.place, *winner);
        }
    }
}
