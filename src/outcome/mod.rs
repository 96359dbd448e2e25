//! Outcomes of units: exactly one [`Outcome`] each.

mod committed;
mod rejection;
mod unavailable;

pub use crate::label::Disposition;
use crate::label::OutcomeKind;

pub use committed::{Committed, CommittedRow};
pub(crate) use committed::{CommittedUnit, CommittedUnits};
pub use rejection::{RejectReason, Rejection};
pub use unavailable::{Unavailable, UnavailableCause};

/// The outcome of a unit.
///
/// ```no_run
/// use graphsink::{Outcome, Receipt, RejectReason};
///
/// # async fn run(receipt: Receipt) {
/// match receipt.await {
///     Outcome::Committed(unit) => println!("{} rows are durable", unit.entities.len() + unit.mentions.len()),
///     Outcome::Rejected(why) => match why.reason {
///         RejectReason::MissingRow { table, id } => println!("{table} has no {id}"),
///         _ => println!("{}: {:?}, {:?}", why.sqlstate, why.constraint, why.row),
///     },
///     Outcome::Unavailable(why) if why.commit_under_way => println!("perhaps written, submit it again: {why}"),
///     Outcome::Unavailable(why) => println!("not written, submit it again: {why}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub enum Outcome {
    /// Durable in PostgreSQL, whole.
    Committed(Committed),
    /// Nothing of it was written, and nothing of it will be written.
    Rejected(Rejection),
    /// The outcome could not be established until the deadline: the unit is in the database whole or not at all.
    /// Submitting it again is always safe.
    Unavailable(Unavailable),
}

/// An outcome on its way to its receipt. Nearly all outcomes are commits, so only commits are stored inline and
/// determine the size.
#[derive(Debug)]
pub(crate) enum Told {
    Committed(CommittedUnit),
    Other(Box<Outcome>),
}

impl Told {
    pub(crate) fn kind(&self) -> OutcomeKind {
        match self {
            Self::Committed(_) => OutcomeKind::Committed,
            Self::Other(other) => other.kind(),
        }
    }
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        Self::Other(Box::new(outcome))
    }
}

impl From<Told> for Outcome {
    fn from(told: Told) -> Self {
        match told {
            Told::Committed(unit) => Self::Committed(unit.into()),
            Told::Other(other) => *other,
        }
    }
}

impl Outcome {
    /// The committed rows, or `None` for other outcomes.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// if let Some(unit) = receipt.await.committed() {
    ///     println!("{} entities are durable", unit.entities.len());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub const fn committed(&self) -> Option<&Committed> {
        match self {
            Self::Committed(committed) => Some(committed),
            Self::Rejected(_) | Self::Unavailable(_) => None,
        }
    }

    /// The outcome as a label of metrics.
    ///
    /// ```no_run
    /// # async fn run(receipt: graphsink::Receipt) {
    /// println!("{}", receipt.await.as_str()); // committed, rejected or unavailable
    /// # }
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }

    pub(crate) const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Committed(_) => OutcomeKind::Committed,
            Self::Rejected(_) => OutcomeKind::Rejected,
            Self::Unavailable(_) => OutcomeKind::Unavailable,
        }
    }

    /// Turns every outcome except a commit into an error, for `?`.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine, unit: graphsink::UnitOfWork) -> Result<(), Box<dyn std::error::Error>> {
    /// let committed = engine.submit(unit).await?.await.into_result()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_result(self) -> Result<Committed, NotCommitted> {
        match self {
            Self::Committed(committed) => Ok(committed),
            Self::Rejected(rejection) => Err(NotCommitted::Rejected(Box::new(rejection))),
            Self::Unavailable(unavailable) => Err(NotCommitted::Unavailable(unavailable)),
        }
    }
}

/// An outcome other than a commit, as an error.
///
/// ```no_run
/// use graphsink::{NotCommitted, Receipt};
///
/// # async fn run(receipt: Receipt) -> Result<(), NotCommitted> {
/// match receipt.await.into_result() {
///     Err(NotCommitted::Rejected(why)) => println!("mend it: {why}"),
///     unit => println!("{:?}", unit?.entities),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotCommitted {
    /// See [`Outcome::Rejected`].
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// See [`Outcome::Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
