//! Label values of metrics, spans and snapshots. This module depends on nothing else in the crate, so that every module
//! may use it.

use serde::Serialize;

/// The effect of a transaction on a row in the database. Rows of several units that name the same database row share
/// its disposition.
///
/// ```
/// use graphsink::{Committed, Disposition};
///
/// /// Whether a unit told the database nothing that it did not know.
/// fn was_known(committed: &Committed) -> bool {
///     committed.mentions.iter().all(|row| row.disposition == Disposition::Unchanged)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// The row did not exist before.
    Inserted,
    /// The row existed with other values.
    Updated,
    /// The row already had these values (or newer ones).
    Unchanged,
}

impl Disposition {
    /// All dispositions.
    ///
    /// ```
    /// use graphsink::Disposition;
    ///
    /// assert_eq!(Disposition::ALL.map(Disposition::as_str), ["inserted", "updated", "unchanged"]);
    /// ```
    pub const ALL: [Self; 3] = [Self::Inserted, Self::Updated, Self::Unchanged];

    /// The disposition as a label of metrics.
    ///
    /// ```
    /// assert_eq!(graphsink::Disposition::Updated.as_str(), "updated");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// An outcome without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Committed,
    Rejected,
    Unavailable,
}

impl OutcomeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Committed, Self::Rejected, Self::Unavailable];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The reaction to a failed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    Retry,
    Split,
    Reject,
}

impl Reaction {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Retry, Self::Split, Self::Reject];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Split => "split",
            Self::Reject => "reject",
        }
    }
}

/// The state of a sealed epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpochState {
    /// Waiting for its lane.
    Waiting,
    /// In a transaction, or between two of them.
    Writing,
}

impl EpochState {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 2] = [Self::Waiting, Self::Writing];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Writing => "writing",
        }
    }
}

/// An actor of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(hidden)]
#[allow(missing_docs)]
pub enum ActorKind {
    Supervisor,
    EntityBatcher,
    ConnectionBatcher,
    MentionBatcher,
    TransactionCoordinator,
}

impl ActorKind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Supervisor,
        Self::EntityBatcher,
        Self::ConnectionBatcher,
        Self::MentionBatcher,
        Self::TransactionCoordinator,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::EntityBatcher => "entity_batcher",
            Self::ConnectionBatcher => "connection_batcher",
            Self::MentionBatcher => "mention_batcher",
            Self::TransactionCoordinator => "transaction_coordinator",
        }
    }
}
