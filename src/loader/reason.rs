//! Why a line cannot be written.

/// A line that is not of the format.
///
/// ```
/// use graphsink::loader::{LineError, LineReason};
///
/// let error = LineError { line: 7, reason: LineReason::Missing { field: "source.url" } };
/// assert_eq!(error.to_string(), "line 7: source.url is missing");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// The line's number in its input, from 1.
    pub line: u64,
    /// Why.
    pub reason: LineReason,
}

/// Why a line cannot be written.
///
/// ```
/// use graphsink::loader::{Line, LineReason};
///
/// assert!(matches!(Line::parse(b"[]"), Err(LineReason::NotObject { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineReason {
    /// The bytes are no UTF-8.
    #[error("is no valid UTF-8 from byte {column} on")]
    NotUtf8 {
        /// The first bad byte, from 1.
        column: usize,
    },
    /// The text is no JSON.
    #[error("is no JSON: {message} at column {column}")]
    NotJson {
        /// Where the parser gave up, from 1.
        column: usize,
        /// What it said.
        message: String,
    },
    /// The JSON is nested deeper than anything in the format.
    #[error("is nested deeper than {limit}")]
    TooDeep {
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// The JSON is something else than an object.
    #[error("is {found}, not an object")]
    NotObject {
        /// What it is.
        found: &'static str,
    },
    /// A required field is absent or null.
    #[error("{field} is missing")]
    Missing {
        /// The field, dotted.
        field: &'static str,
    },
    /// A field holds something else than the format says.
    #[error("{field} must be {expected}, this is {found}")]
    WrongType {
        /// The field, dotted.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An object of the format is not well-formed in some other way: a field occurs twice.
    #[error("cannot be read: {message} at column {column}")]
    Malformed {
        /// Where the parser gave up, from 1.
        column: usize,
        /// What it said.
        message: String,
    },
    /// The line is longer than any that is read. It was not held in memory.
    #[error("is longer than {limit} bytes: spread it over several lines of one unit")]
    LineTooLong {
        /// The longest that is read.
        limit: usize,
    },
    /// The unit that the line belongs to has too many rows or bytes to be written as one.
    #[error("belongs to a unit of more than {rows} rows or {bytes} bytes of input: split it")]
    UnitTooLarge {
        /// The largest number of rows.
        rows: usize,
        /// The largest number of bytes of its lines.
        bytes: usize,
    },
    /// The input could not be read on after this line, so that its unit may lack lines.
    #[error("belongs to a unit within which the input broke off: load it again when the input is whole")]
    UnitCutOff,
}

impl LineReason {
    /// A short stable name of the reason, for counting; as [`InvalidUnit::rule`](crate::InvalidUnit::rule).
    ///
    /// ```
    /// use graphsink::loader::LineReason;
    ///
    /// assert_eq!(LineReason::Missing { field: "source.url" }.rule(), "missing_field");
    /// ```
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::TooDeep { .. } => "too_deep",
            Self::NotObject { .. } => "not_an_object",
            Self::Missing { .. } => "missing_field",
            Self::WrongType { .. } => "wrong_field_type",
            Self::Malformed { .. } => "malformed",
            Self::LineTooLong { .. } => "line_too_long",
            Self::UnitTooLarge { .. } => "unit_too_large",
            Self::UnitCutOff => "unit_cut_off",
        }
    }
}
