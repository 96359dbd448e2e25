//! Queries and their answers.

use std::sync::Arc;

use uuid::Uuid;

use crate::record::{EntityKey, EntityType};
use crate::unit::{EntityHandle, UnitOfWork};

/// A name to be resolved.
///
/// ```
/// use graphsink::EntityType;
/// use graphsink::resolve::Query;
///
/// let name = Query::new(EntityType::Restaurant, "franklin barbecue")
///     .original("Franklin's")
///     .address("900 E 11th St")
///     .city("Austin");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use = "nothing is asked before `Resolver::resolve`"]
pub struct Query {
    pub(crate) key: EntityKey,
    pub(crate) original: Option<Arc<str>>,
    pub(crate) address: Option<Arc<str>>,
    pub(crate) city: Option<Arc<str>>,
}

impl Query {
    /// A query for a name, normalized as the caller normalizes names; the resolver first compares it exactly.
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::Restaurant, "franklin barbecue");
    /// assert_eq!(&*query.key().name, "franklin barbecue");
    /// ```
    pub fn new(entity_type: EntityType, name: impl Into<Arc<str>>) -> Self {
        let key = EntityKey { entity_type, name: name.into() };
        Self { key, original: None, address: None, city: None }
    }

    /// Sets the author's text: it is also searched among the aliases, and is the text that becomes an alias. Default:
    /// the name.
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::Restaurant, "franklin barbecue").original("Franklin's");
    /// ```
    pub fn original(mut self, text: impl Into<Arc<str>>) -> Self {
        self.original = Some(text.into());
        self
    }

    /// Further evidence for a restaurant: its postal address, such as "12 Oak St" or "12 Oak St, Springfield".
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::Restaurant, "franklin barbecue").address("900 E 11th St, Austin");
    /// ```
    pub fn address(mut self, address: impl Into<Arc<str>>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Further evidence for a restaurant: its city or neighbourhood.
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::Restaurant, "franklin barbecue").city("Austin");
    /// ```
    pub fn city(mut self, city: impl Into<Arc<str>>) -> Self {
        self.city = Some(city.into());
        self
    }

    /// The type and the name.
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::DishOrCategory, "brisket");
    /// assert_eq!(query.key().entity_type, EntityType::DishOrCategory);
    /// ```
    #[must_use]
    pub const fn key(&self) -> &EntityKey {
        &self.key
    }

    /// The author's text.
    pub(crate) fn text(&self) -> &Arc<str> {
        self.original.as_ref().unwrap_or(&self.key.name)
    }

    /// The alias that an entity of that name gets, so that the same query finds it again: the author's text, or if that
    /// is the entity's name, the name of the query.
    pub(crate) fn other_than(&self, name: &Arc<str>) -> Option<Arc<str>> {
        [self.text(), &self.key.name].into_iter().find(|text| *text != name).map(Arc::clone)
    }

    pub(crate) const fn has_evidence(&self) -> bool {
        self.address.is_some() || self.city.is_some()
    }
}

/// How an entity was found. The order is that of the search.
///
/// ```
/// use graphsink::resolve::Tier;
///
/// assert!(Tier::Exact < Tier::Alias && Tier::Alias < Tier::Fuzzy);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// By its type and its name, byte by byte.
    Exact,
    /// By its type and one of its aliases.
    Alias,
    /// By its type and a similar name, or for a restaurant by its address and a possible name.
    Fuzzy,
}

impl Tier {
    /// The tier as a label of metrics.
    ///
    /// ```
    /// assert_eq!(graphsink::resolve::Tier::Alias.as_str(), "alias");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Alias => "alias",
            Self::Fuzzy => "fuzzy",
        }
    }
}

/// An entity that a name may mean.
///
/// ```
/// use graphsink::resolve::{Candidate, Tier};
///
/// fn is_certain(candidate: &Candidate) -> bool {
///     candidate.tier == Tier::Exact || candidate.confidence > 0.95
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The entity's id.
    pub id: Uuid,
    /// The entity's name.
    pub name: Arc<str>,
    /// How it was found.
    pub tier: Tier,
    /// The probability, from 0 to 1, that it is the entity meant.
    pub confidence: f64,
}

/// The decision about a name.
///
/// ```
/// use graphsink::resolve::Decision;
///
/// fn needs_a_person(decision: &Decision) -> bool {
///     matches!(decision, Decision::Ambiguous { .. })
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// An entity of the database.
    Existing {
        /// The entity, and how it was found.
        entity: Candidate,
        /// The alias to be added, if the entity does not have it yet: the author's text, or if that is the entity's
        /// name, the name of the query.
        alias: Option<Arc<str>>,
    },
    /// No entity of the database: a new one must be created, by this or by another query of the same batch.
    New {
        /// The key of the new entity: that of the query, or of another query of the batch that means the same.
        key: EntityKey,
        /// The alias to be added: the author's text, or if that is the name, the name of the query, if different.
        alias: Option<Arc<str>>,
    },
    /// The best candidate is too likely for creating a new entity, and too unlikely to be accepted: see
    /// [`GreyZone::Flag`].
    ///
    /// [`GreyZone::Flag`]: crate::resolve::GreyZone::Flag
    Ambiguous {
        /// Possible entities, the likeliest first.
        candidates: Vec<Candidate>,
    },
}

impl Decision {
    /// The key of the entity to be created; `None` for any other decision.
    ///
    /// ```
    /// use graphsink::resolve::Decision;
    /// use graphsink::{EntityKey, EntityType};
    ///
    /// let key = EntityKey::new(EntityType::Restaurant, "blue door");
    /// assert_eq!(Decision::New { key: key.clone(), alias: None }.new_key(), Some(&key));
    /// ```
    #[must_use]
    pub const fn new_key(&self) -> Option<&EntityKey> {
        match self {
            Self::New { key, .. } => Some(key),
            Self::Existing { .. } | Self::Ambiguous { .. } => None,
        }
    }
}

/// The answer to one [`Query`].
///
/// ```
/// use graphsink::resolve::Resolution;
///
/// fn log(resolution: &Resolution) {
///     println!("{:?}, of {} candidates", resolution.decision, resolution.candidates.len());
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// The decision.
    pub decision: Decision,
    /// All considered candidates, the likeliest first, if [`ResolverSettings::with_candidates`] is set.
    ///
    /// [`ResolverSettings::with_candidates`]: crate::resolve::ResolverSettings::with_candidates
    pub candidates: Vec<Candidate>,
}

impl Resolution {
    /// Writes the decision into a unit: names the existing entity by its id and adds the alias, or adds the new entity
    /// by its key. Returns the entity's handle in that unit; `None` if the decision is
    /// [`Ambiguous`](Decision::Ambiguous), which leaves the unit unchanged.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::{Decision, Resolution};
    /// use graphsink::{EntityKey, EntityType};
    ///
    /// let key = EntityKey::new(EntityType::Restaurant, "blue door");
    /// let decision = Decision::New { key, alias: Some("The Blue Door".into()) };
    /// let mut unit = UnitOfWork::new();
    /// assert!(Resolution { decision, candidates: Vec::new() }.put(&mut unit).is_some());
    /// assert_eq!(unit.rows(), 1);
    /// ```
    pub fn put(&self, unit: &mut UnitOfWork) -> Option<EntityHandle> {
        let (entity, alias) = match &self.decision {
            Decision::Existing { entity, alias } => (unit.existing_entity(entity.id), alias),
            Decision::New { key, alias } => (unit.entity(key.entity_type, Arc::clone(&key.name)), alias),
            Decision::Ambiguous { .. } => return None,
        };
        let entity = match alias {
            Some(alias) => entity.alias(Arc::clone(alias)),
            None => entity,
        };
        Some(entity.handle())
    }
}
