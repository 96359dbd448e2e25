//! Why a line cannot be written.

/// A line that does not conform to the format.
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
    /// The reason.
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
    /// The bytes are not valid UTF-8.
    #[error("is not valid UTF-8 from byte {column} on")]
    NotUtf8 {
        /// The first bad byte, from 1.
        column: usize,
    },
    /// The text is not valid JSON.
    #[error("is not valid JSON: {message} at column {column}")]
    NotJson {
        /// Where the parser stopped, from 1.
        column: usize,
        /// Its message.
        message: String,
    },
    /// The JSON is nested deeper than anything in the format.
    #[error("is nested deeper than {limit}")]
    TooDeep {
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// The JSON is not an object.
    #[error("is {found}, not an object")]
    NotObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// A required field is absent or null.
    #[error("{field} is missing")]
    Missing {
        /// The field, dotted.
        field: &'static str,
    },
    /// The value of a field does not conform to the format.
    #[error("{field} must be {expected}, this is {found}")]
    WrongType {
        /// The field, dotted.
        field: &'static str,
        /// The expected kind of value.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// An object is malformed in another way: a field occurs twice.
    #[error("cannot be read: {message} at column {column}")]
    Malformed {
        /// Where the parser stopped, from 1.
        column: usize,
        /// Its message.
        message: String,
    },
    /// The line exceeds the maximum length. It was not held in memory.
    #[error("is longer than {limit} bytes: spread it over several lines of one unit")]
    LineTooLong {
        /// The maximum length.
        limit: usize,
    },
    /// The line's unit has too many rows or bytes to be written as one.
    #[error("belongs to a unit of more than {rows} rows or {bytes} bytes of input: split it")]
    UnitTooLarge {
        /// Maximum number of rows.
        rows: usize,
        /// Maximum number of bytes of its lines.
        bytes: usize,
    },
    /// The input could not be read further after this line, so its unit may lack lines.
    #[error("belongs to a unit in which the input was cut off: load it again when the input is complete")]
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
