//! What changes of mentions an epoch makes, and what they do not tell.

use uuid::Uuid;

use crate::record::MentionRef;

/// What an epoch did to one mention of an existing connection.
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
        /// What stood there.
        before: MentionRef<'a>,
        /// What stands there now.
        mention: MentionRef<'a>,
    },
}

/// What `advance` could not know and the caller must read from the mention rows, after the
/// epoch's mentions were written.
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
