//! What can go wrong with a batch of names.

use crate::error::ConfigError;
use crate::error::StoreError;

/// Why a resolver gave no answers. Its text carries no name.
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
    /// The database failed. Nothing was written: asking again is always safe.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An index is missing without which a tier would read the whole table.
    #[error("the index {index} is missing: run `Migrations::all()`, or ask fewer tiers")]
    MissingIndex {
        /// Its name.
        index: &'static str,
    },
    /// A setting cannot work.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A name or text is blank, too long for the database, or holds a NUL.
    #[error(
        "query {index} has a text that no entity can have as a name or an alias: it is blank, too long, or holds a NUL character"
    )]
    InvalidText {
        /// The position of the query in the batch, from 0.
        index: usize,
    },
}
