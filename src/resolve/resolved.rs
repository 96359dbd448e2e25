//! What came of the names of a whole input.

use std::sync::Arc;

use uuid::Uuid;

use super::query::{Candidate, Tier};
use crate::hash::HashMap;
use crate::record::EntityKey;
use crate::unit::UnitOfWork;

/// How the names of an input were decided; each name counts once, however often it occurs.
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
    /// Entities of the database by that name.
    pub exact: u64,
    /// Taken for an entity of the database by an alias.
    pub alias: u64,
    /// Taken for an entity of the database by a similar name or an address.
    pub fuzzy: u64,
    /// Taken for another new name of the input.
    pub same_as_new: u64,
    /// New entities.
    pub new: u64,
    /// New entities that may be one of others: see [`ResolvedNames::flagged`].
    pub flagged: u64,
}

/// A name that is like others, but not enough, or like several.
///
/// ```
/// fn ask(flagged: &graphsink::resolve::FlaggedName) {
///     println!("{} {:?}, as authors write {:?}: which one?", flagged.key.entity_type, flagged.key.name, flagged.texts);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FlaggedName {
    /// Its type and name.
    pub key: EntityKey,
    /// What authors wrote for it, in order.
    pub texts: Vec<Arc<str>>,
    /// Where the input says that it is, in order.
    pub addresses: Vec<Arc<str>>,
    /// What it may be, the likeliest first.
    pub candidates: Vec<FlaggedCandidate>,
}

/// What a flagged name may be.
///
/// ```
/// fn show(candidate: &graphsink::resolve::FlaggedCandidate) {
///     println!("{} ({:.2}), {:?}", candidate.name, candidate.confidence, candidate.id);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FlaggedCandidate {
    /// The entity's name.
    pub name: Arc<str>,
    /// Its id; nothing when it is new itself.
    pub id: Option<Uuid>,
    /// How it was found; nothing when the input itself gives it the flagged name as an alias.
    pub tier: Option<Tier>,
    /// From 0 to 1: how likely it is the one.
    pub confidence: f64,
}

/// The decisions on all names of an input.
///
/// ```
/// use graphsink::resolve::{NameCounts, ResolvedNames};
///
/// assert_eq!(ResolvedNames::default().counts(), NameCounts::default());
/// ```
#[derive(Debug, Default)]
pub struct ResolvedNames {
    pub(super) taken_for: HashMap<EntityKey, Arc<str>>,
    pub(super) counts: NameCounts,
    pub(super) flagged: Vec<FlaggedName>,
}

impl ResolvedNames {
    /// Gives the entities of a unit the names that were decided; each name that is another's becomes an alias. The
    /// unit's rows stay where they are, and so do its labels.
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

    /// How many names were decided in which way.
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

    /// Names that are worth a look, by type and name.
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
