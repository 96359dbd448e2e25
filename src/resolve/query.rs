//! What is asked and what is answered.

use std::sync::Arc;

use uuid::Uuid;

use crate::record::{EntityKey, EntityType};
use crate::unit::{EntityHandle, UnitOfWork};

/// A name whose entity is sought.
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
pub struct Query {
    pub(crate) key: EntityKey,
    pub(crate) original: Option<Arc<str>>,
    pub(crate) address: Option<Arc<str>>,
    pub(crate) city: Option<Arc<str>>,
}

impl Query {
    /// Asks for a name, normalized as the caller normalizes names; the resolver compares it exactly first.
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

    /// What the author wrote: looked for among the aliases too, and the text that becomes an alias. Default: the name.
    ///
    /// ```
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// let query = Query::new(EntityType::Restaurant, "franklin barbecue").original("Franklin's");
    /// ```
    #[must_use]
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
    #[must_use]
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
    #[must_use]
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

    /// What the author wrote.
    pub(crate) fn text(&self) -> &Arc<str> {
        self.original.as_ref().unwrap_or(&self.key.name)
    }

    /// What an entity of that name is to be called too, so that the same query finds it again: what the author wrote,
    /// or if that is the entity's name, the name that was asked for.
    pub(crate) fn other_than(&self, name: &Arc<str>) -> Option<Arc<str>> {
        [self.text(), &self.key.name].into_iter().find(|text| *text != name).map(Arc::clone)
    }

    pub(crate) const fn has_evidence(&self) -> bool {
        self.address.is_some() || self.city.is_some()
    }
}

/// How an entity was found. The order is that in which the tiers are asked.
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
    /// By its type and a similar name, or for a restaurant by its address and a name that may be the same.
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
pub struct Candidate {
    /// The entity's id.
    pub id: Uuid,
    /// The entity's name.
    pub name: Arc<str>,
    /// How it was found.
    pub tier: Tier,
    /// From 0 to 1: how likely it is the one.
    pub confidence: f64,
}

/// What a name was resolved to.
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
        /// Which one, and how it was found.
        entity: Candidate,
        /// What the author wrote, or if that is the entity's name, what was asked for, if the entity is not known to
        /// be called that: to be added as an alias.
        alias: Option<Arc<str>>,
    },
    /// No entity of the database: one is to be created, or another query of the same batch creates it.
    New {
        /// The name of the new entity: that of the query, or of another query of the batch that means the same.
        key: EntityKey,
        /// What the author wrote, or if that is the name, what was asked for, if that is another.
        alias: Option<Arc<str>>,
    },
    /// Too likely to create a new entity, and too unlikely to take one of these: see [`GreyZone::Flag`].
    ///
    /// [`GreyZone::Flag`]: crate::resolve::GreyZone::Flag
    Ambiguous {
        /// Entities that it may be, the likeliest first.
        candidates: Vec<Candidate>,
    },
}

impl Decision {
    /// The key of the entity that is to be created; nothing for any other decision.
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
    /// What to do.
    pub decision: Decision,
    /// Everything that was considered, the likeliest first, if [`ResolverSettings::with_candidates`] asks for it.
    ///
    /// [`ResolverSettings::with_candidates`]: crate::resolve::ResolverSettings::with_candidates
    pub candidates: Vec<Candidate>,
}

impl Resolution {
    /// Writes the decision into a unit: names the existing entity by its id and adds the alias, or adds the new
    /// entity by its key. The handle is the entity's in that unit; nothing when the decision is
    /// [`Ambiguous`](Decision::Ambiguous), and then the unit is as it was.
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
