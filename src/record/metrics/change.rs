//! What changes of mentions an epoch makes, and what they do not tell.

use uuid::Uuid;

use crate::record::MentionRef;

/// What an epoch did to one mention of an existing connection.
///
/// ```
/// use graphsink::{ConnectionMetrics, Mention, MentionChange, SourceType, Timestamp};
///
/// let now: Timestamp = "2024-03-01T00:00:00Z".parse()?;
/// let post = Mention::new(SourceType::Post, "t3_xyz", "https://example.org", "food", now).upvotes(12);
/// let id = uuid::Uuid::from_u128(7);
/// let newer = post.clone().upvotes(40);
/// let change = MentionChange::Replaced { mention_id: id, before: (&post).into(), mention: (&newer).into() };
/// let stored = ConnectionMetrics::from_mentions([(id, &post)], now);
/// let threads = std::collections::HashSet::from(["t3_xyz"]);
/// assert_eq!(stored.advance(&[change], 1, &threads, now).0.total_upvotes, 40);
/// # Ok::<(), chrono::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub enum MentionChange<'a> {
    /// A mention that was not there.
    Inserted {
        /// Its new id.
        mention_id: Uuid,
        /// The row.
        mention: MentionRef<'a>,
    },
    /// A newer observation of a mention that was there.
    Replaced {
        /// Its id, which stays.
        mention_id: Uuid,
        /// What stood there.
        before: MentionRef<'a>,
        /// What stands there now.
        mention: MentionRef<'a>,
    },
}

/// What `advance` could not know and the caller must read from the mention rows, after the
/// epoch's mentions were written.
///
/// ```
/// use graphsink::RereadNeeded;
///
/// let reread = RereadNeeded { newest: true, ..RereadNeeded::default() };
/// assert!(reread.any() && !reread.threads);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RereadNeeded {
    /// A re-observed mention moved to another thread: count the distinct threads.
    pub threads: bool,
    /// The newest mention's `created_at` went back: take the maximum.
    pub newest: bool,
    /// A stored best mention fell, or ties with another: read the best again.
    pub top: bool,
}

impl RereadNeeded {
    /// Whether anything must be read.
    ///
    /// ```
    /// assert!(!graphsink::RereadNeeded::default().any());
    /// ```
    #[must_use]
    pub const fn any(self) -> bool {
        self.threads || self.newest || self.top
    }
}
