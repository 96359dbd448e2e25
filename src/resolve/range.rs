//! Ranges of texts in an ordered index.

/// A range of texts in code-point order: from `low` (included) to `high` (excluded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) low: String,
    pub(crate) high: String,
}
