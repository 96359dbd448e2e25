//! How lively a connection is.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::UnknownLabel;

/// How lively a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActivityLevel {
    /// At least 3 best mentions, all of the 30 days before `as_of`.
    Trending,
    /// Not trending; the newest mention is of the 7 days before `as_of`.
    Active,
    /// Neither.
    Normal,
}

impl ActivityLevel {
    /// The label of the database's enum `activity_level`.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Trending => "trending",
            Self::Active => "active",
            Self::Normal => "normal",
        }
    }
}

/// The level with this label.
impl FromStr for ActivityLevel {
    type Err = UnknownLabel;

    fn from_str(label: &str) -> Result<Self, UnknownLabel> {
        let found = [Self::Trending, Self::Active, Self::Normal].into_iter().find(|level| level.as_str() == label);
        found.ok_or(UnknownLabel { of: "activity_level" })
    }
}
