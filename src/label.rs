//! What metrics, spans and snapshots are told apart by. Depends on nothing else here, so that everything may name it.

use serde::Serialize;

/// What the transaction that carried a row did to it in the database. Rows of several units that
/// name the same database row share its disposition.
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
    /// It was not there before.
    Inserted,
    /// It was there and said something else.
    Updated,
    /// It was there and said all this already (or something newer).
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

/// What follows from a transaction that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    Retry,
    Split,
    Reject,
}

impl Reaction {
    pub(crate) const ALL: [Self; 3] = [Self::Retry, Self::Split, Self::Reject];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Split => "split",
            Self::Reject => "reject",
        }
    }
}

/// Where a sealed epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpochState {
    /// Waiting for its lane.
    Waiting,
    /// In a transaction, or between two of them.
    Writing,
}

impl EpochState {
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
