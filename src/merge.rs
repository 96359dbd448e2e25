//! Merges of entities: what a caller asks for, and what became of it.

use std::fmt;

use uuid::Uuid;

use crate::outcome::{Rejection, Unavailable};
use crate::record::{EntityName, EntityType};

/// Two names that turned out to mean one thing: the entity `from` becomes part of the entity `into`. See
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
    /// The entity that will be gone. Its name becomes an alias of the other.
    pub from: EntityName,
    /// The entity that stays.
    pub into: EntityName,
}

impl EntityMerge {
    /// Each is named by its id, or by its key.
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

/// What became of one [`EntityMerge`].
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
        /// The entity that is gone.
        from: Uuid,
        /// The entity that both are now.
        into: Uuid,
    },
    /// An earlier merge made one entity of the two; nothing was written.
    AlreadyMerged {
        /// The entity that both are.
        into: Uuid,
    },
    /// Nothing of it was written.
    Rejected(MergeRejection),
    /// Unknown until the deadline: the two are one entity or they are not, nothing in between. To merge them again is
    /// always safe.
    Unavailable(Unavailable),
}

impl MergeOutcome {
    /// The entity that both names mean now, if that is certain.
    ///
    /// ```
    /// use graphsink::MergeOutcome;
    ///
    /// let id = uuid::Uuid::from_u128(7);
    /// assert_eq!(MergeOutcome::AlreadyMerged { into: id }.into_id(), Some(id));
    /// ```
    #[must_use]
    pub const fn into_id(&self) -> Option<Uuid> {
        match self {
            Self::Merged { into, .. } | Self::AlreadyMerged { into } => Some(*into),
            Self::Rejected(_) | Self::Unavailable(_) => None,
        }
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
    /// No entity has this name, and none was merged that had it.
    Missing(EntityName),
    /// A dish is no restaurant.
    DifferentTypes {
        /// The type of the entity that was to go.
        from: EntityType,
        /// The type of the entity that was to stay.
        into: EntityType,
    },
    /// Both names are names of one entity, and always were.
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
