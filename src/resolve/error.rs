//! Errors of resolving a batch of names.

use crate::error::ConfigError;
use crate::error::StoreError;

/// Why a resolver gave no answers. Its text contains no name.
///
/// ```
/// use graphsink::resolve::ResolveError;
///
/// let error = ResolveError::MissingIndex { index: "entities_aliases_idx" };
/// assert!(error.to_string().contains("Migrations::all()"), "it says what to do");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The database failed. Nothing was written: retrying is always safe.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An index is missing without which a tier would read the whole table.
    #[error("the index {index} is missing: run `Migrations::all()`, or search fewer tiers")]
    MissingIndex {
        /// Its name.
        index: &'static str,
    },
    /// A setting is invalid.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A name or text is blank, too long for the database, or contains a NUL.
    #[error(
        "query {index} has a text that no entity can have as a name or an alias: it is blank, too long, or contains a NUL character"
    )]
    InvalidText {
        /// The position of the query in the batch, from 0.
        index: usize,
    },
}

impl ResolveError {
    /// The SQLSTATE, where PostgreSQL itself spoke.
    ///
    /// ```
    /// use graphsink::resolve::ResolveError;
    ///
    /// assert_eq!(ResolveError::InvalidText { index: 0 }.sqlstate(), None);
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Whether the same question may be answered later although nothing is mended.
    ///
    /// ```
    /// use graphsink::StoreError;
    /// use graphsink::resolve::ResolveError;
    ///
    /// let silent = StoreError::NoAnswer(std::time::Duration::from_secs(31));
    /// assert!(ResolveError::from(silent).is_retryable());
    /// assert!(!ResolveError::InvalidText { index: 0 }.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}
