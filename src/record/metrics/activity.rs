//! How lively a connection is.

use serde::{Deserialize, Serialize};

/// How lively a connection is.
///
/// ```
/// use graphsink::ActivityLevel;
///
/// assert_eq!(serde_json::to_string(&ActivityLevel::Trending)?, "\"trending\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityLevel {
    /// At least 3 best mentions, all of the 30 days before `as_of`.
    Trending,
    /// Not trending; the newest mention is of the 7 days before `as_of`.
    Active,
    /// Neither.
    Normal,
}

impl ActivityLevel {
    /// The label of the database's enum `activity_level`.
    ///
    /// ```
    /// assert_eq!(graphsink::ActivityLevel::Active.as_str(), "active");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trending => "trending",
            Self::Active => "active",
            Self::Normal => "normal",
        }
    }

    /// The level with this label.
    ///
    /// ```
    /// use graphsink::ActivityLevel;
    ///
    /// assert_eq!(ActivityLevel::from_label("normal"), Some(ActivityLevel::Normal));
    /// assert_eq!(ActivityLevel::from_label("asleep"), None);
    /// ```
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Trending, Self::Active, Self::Normal].into_iter().find(|level| level.as_str() == label)
    }
}
