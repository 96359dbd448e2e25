//! The decisions about the names of a whole input.

use std::sync::Arc;

use uuid::Uuid;

use super::query::{Candidate, Tier};
use crate::hash::HashMap;
use crate::record::EntityKey;
use crate::unit::UnitOfWork;

/// Counts of the decisions about the names of an input; each name counts once, however often it occurs.
///
/// ```
/// use graphsink::resolve::NameCounts;
///
/// fn known(counts: &NameCounts) -> u64 {
///     counts.exact + counts.alias + counts.fuzzy
/// }
/// assert_eq!(known(&NameCounts::default()), 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NameCounts {
    /// Names of entities of the database.
    pub exact: u64,
    /// Resolved to an entity of the database by an alias.
    pub alias: u64,
    /// Resolved to an entity of the database by a similar name or an address.
    pub fuzzy: u64,
    /// Resolved to another new name of the input.
    pub same_as_new: u64,
    /// New entities.
    pub new: u64,
    /// New entities that may be the same as others: see [`ResolvedNames::flagged`].
    pub flagged: u64,
}

/// A name that is similar to others, but not enough, or to several.
///
/// ```
/// fn ask(flagged: &graphsink::resolve::FlaggedName) {
///     println!("{} {:?}, as authors write {:?}: which one?", flagged.key.entity_type, flagged.key.name, flagged.texts);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlaggedName {
    /// Its type and name.
    pub key: EntityKey,
    /// The authors' texts for it, in order.
    pub texts: Vec<Arc<str>>,
    /// Its addresses in the input, in order.
    pub addresses: Vec<Arc<str>>,
    /// The possible entities, the likeliest first.
    pub candidates: Vec<FlaggedCandidate>,
}

/// A possible entity of a flagged name.
///
/// ```
/// fn show(candidate: &graphsink::resolve::FlaggedCandidate) {
///     println!("{} ({:.2}), {:?}", candidate.name, candidate.confidence, candidate.id);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlaggedCandidate {
    /// The entity's name.
    pub name: Arc<str>,
    /// Its id; `None` if it is new itself.
    pub id: Option<Uuid>,
    /// How it was found; `None` if the input itself gives it the flagged name as an alias.
    pub tier: Option<Tier>,
    /// The probability, from 0 to 1, that it is the entity meant.
    pub confidence: f64,
}

/// The decisions about all names of an input.
///
/// ```
/// use graphsink::resolve::{NameCounts, ResolvedNames};
///
/// assert_eq!(ResolvedNames::default().counts(), NameCounts::default());
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is changed before `apply`"]
pub struct ResolvedNames {
    pub(super) taken_for: HashMap<EntityKey, Arc<str>>,
    pub(super) counts: NameCounts,
    pub(super) flagged: Vec<FlaggedName>,
}

impl ResolvedNames {
    /// Renames the entities of a unit as decided; each replaced name becomes an alias. The unit's rows keep their
    /// positions and their labels.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::ResolvedNames;
    ///
    /// fn decided(names: &ResolvedNames, mut unit: UnitOfWork) -> UnitOfWork {
    ///     names.apply(&mut unit);
    ///     unit
    /// }
    /// ```
    pub fn apply(&self, unit: &mut UnitOfWork) {
        if !self.taken_for.is_empty() {
            unit.rename(|key| self.taken_for.get(key));
        }
    }

    /// The counts of the decisions.
    ///
    /// ```
    /// fn log(names: &graphsink::resolve::ResolvedNames) {
    ///     println!("{} new, {} to look at", names.counts().new, names.counts().flagged);
    /// }
    /// ```
    #[must_use]
    pub const fn counts(&self) -> NameCounts {
        self.counts
    }

    /// Names that should be reviewed, by type and name.
    ///
    /// ```
    /// fn review(names: &graphsink::resolve::ResolvedNames) {
    ///     for flagged in names.flagged() {
    ///         println!("{:?} may be {:?}", flagged.key.name, flagged.candidates.first().map(|candidate| &candidate.name));
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn flagged(&self) -> &[FlaggedName] {
        &self.flagged
    }
}

impl From<Candidate> for FlaggedCandidate {
    fn from(candidate: Candidate) -> Self {
        let Candidate { id, name, tier, confidence } = candidate;
        Self { name, id: Some(id), tier: Some(tier), confidence }
    }
}
