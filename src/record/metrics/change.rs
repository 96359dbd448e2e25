//! The changes that an epoch makes to mentions, and the figures that do not follow from them.

use uuid::Uuid;

use crate::record::MentionRef;

/// One change that an epoch made to a mention of an existing connection.
#[derive(Debug, Clone)]
pub(crate) enum MentionChange<'a> {
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
        /// The row before.
        before: MentionRef<'a>,
        /// The row now.
        mention: MentionRef<'a>,
    },
}

/// The figures that `advance` cannot compute. The caller must read them from the mention rows, after the epoch's
/// mentions were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RereadNeeded {
    /// A re-observed mention moved to another thread: count the distinct threads.
    pub(crate) threads: bool,
    /// The newest mention's `created_at` went back: take the maximum.
    pub(crate) newest: bool,
    /// A stored best mention fell, or ties with another: read the best again.
    pub(crate) top: bool,
}

impl RereadNeeded {
    /// Whether anything must be read.
    #[must_use]
    pub(crate) const fn any(self) -> bool {
        self.threads || self.newest || self.top
    }
}
