//! Ranges of texts in an ordered index.

/// A range of texts in the order of code points: from `low` on, below `high`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) low: String,
    pub(crate) high: String,
}
