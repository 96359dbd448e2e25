//! Merges of entities: the request and its outcome.

use std::fmt;

use uuid::Uuid;

use crate::outcome::{Rejection, Unavailable};
use crate::record::{EntityName, EntityType};

/// A request to merge two entities that are the same thing: the entity `from` becomes part of the entity `into`. See
/// [`Engine::merge`](crate::Engine::merge).
///
/// ```
/// use graphsink::{EntityKey, EntityMerge, EntityType};
///
/// let gone = EntityKey::new(EntityType::DishOrCategory, "bbq brisket");
/// let stays = uuid::Uuid::from_u128(7);
/// assert_eq!(EntityMerge::new(gone, stays).into, stays.into());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityMerge {
    /// The entity to be removed. Its name becomes an alias of the other.
    pub from: EntityName,
    /// The surviving entity.
    pub into: EntityName,
}

impl EntityMerge {
    /// Makes a request. Each entity is named by its id or by its key.
    ///
    /// ```
    /// use graphsink::{EntityKey, EntityMerge, EntityType};
    ///
    /// let key = |name: &str| EntityKey::new(EntityType::Restaurant, name);
    /// let merge = EntityMerge::new(key("franklin bbq"), key("franklin barbecue"));
    /// ```
    pub fn new(from: impl Into<EntityName>, into: impl Into<EntityName>) -> Self {
        Self { from: from.into(), into: into.into() }
    }
}

/// The outcome of one [`EntityMerge`].
///
/// ```
/// use graphsink::MergeOutcome;
///
/// /// Whether it is worth trying again.
/// fn again(outcome: &MergeOutcome) -> bool {
///     matches!(outcome, MergeOutcome::Unavailable(_))
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub enum MergeOutcome {
    /// Durable in PostgreSQL, whole.
    Merged {
        /// The removed entity.
        from: Uuid,
        /// The surviving entity.
        into: Uuid,
    },
    /// An earlier merge already made one entity of the two; nothing was written.
    AlreadyMerged {
        /// The entity that both names mean.
        into: Uuid,
    },
    /// Nothing of it was written.
    Rejected(MergeRejection),
    /// The outcome could not be established until the deadline: the merge took place as a whole or not at all. Merging
    /// again is always safe.
    Unavailable(Unavailable),
}

impl MergeOutcome {
    /// The entity that both names mean now, if known.
    ///
    /// ```
    /// use graphsink::MergeOutcome;
    ///
    /// let id = uuid::Uuid::from_u128(7);
    /// assert_eq!(MergeOutcome::AlreadyMerged { into: id }.survivor(), Some(id));
    /// ```
    #[must_use]
    pub const fn survivor(&self) -> Option<Uuid> {
        match self {
            Self::Merged { into, .. } | Self::AlreadyMerged { into } => Some(*into),
            Self::Rejected(_) | Self::Unavailable(_) => None,
        }
    }

    /// The former name of [`survivor`](Self::survivor).
    #[doc(hidden)]
    #[must_use]
    pub const fn into_id(&self) -> Option<Uuid> {
        self.survivor()
    }

    /// The outcome as a label of metrics.
    ///
    /// ```
    /// use graphsink::MergeOutcome;
    ///
    /// let outcome = MergeOutcome::AlreadyMerged { into: uuid::Uuid::from_u128(7) };
    /// assert_eq!(outcome.as_str(), "already_merged");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Merged { .. } => "merged",
            Self::AlreadyMerged { .. } => "already_merged",
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// Why two entities cannot be merged.
///
/// ```
/// use graphsink::{EntityType, MergeRejection};
///
/// let why = MergeRejection::DifferentTypes { from: EntityType::DishOrCategory, into: EntityType::Restaurant };
/// assert!(why.to_string().contains("only entities of one type"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeRejection {
    /// No entity has this name, and no merged entity had it.
    Missing(EntityName),
    /// The entities have different types.
    DifferentTypes {
        /// The type of the entity to be removed.
        from: EntityType,
        /// The type of the entity that was to survive.
        into: EntityType,
    },
    /// Both names mean one entity, without an earlier merge.
    Itself(Uuid),
    /// PostgreSQL refused this merge alone.
    Database(Box<Rejection>),
}

impl fmt::Display for MergeRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => {
                write!(f, "there is no {name}: look at its type and spelling, and whether its unit was committed")
            }
            Self::DifferentTypes { from, into } => {
                write!(f, "a {from} cannot become a {into}: only entities of one type can be merged")
            }
            Self::Itself(id) => write!(f, "entity {id} cannot be merged into itself: both names mean it"),
            Self::Database(rejection) => rejection.fmt(f),
        }
    }
}

impl std::error::Error for MergeRejection {}
