//! Mentions: one post or comment that speaks of a connection.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConnectionName, Merge, Timestamp};

/// Where a mention stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// A post that starts a thread.
    Post,
    /// A comment in a thread.
    Comment,
}

impl SourceType {
    /// The label of the database's enum `mention_source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Comment => "comment",
        }
    }

    /// The type with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Post, Self::Comment].into_iter().find(|source_type| source_type.as_str() == label)
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One observation of one post or comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Post or comment; part of the key.
    pub source_type: SourceType,
    /// The source's own id; part of the key.
    pub source_id: Arc<str>,
    /// The thread it stands in.
    pub thread_id: Arc<str>,
    /// Where to read it.
    pub source_url: String,
    /// The forum.
    pub subreddit: String,
    /// The words that matter.
    pub content_excerpt: String,
    /// Who wrote it.
    pub author: Option<String>,
    /// Votes when it was observed; may be negative.
    pub upvotes: i32,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was observed, not before `created_at`.
    pub observed_at: Timestamp,
}

impl Mention {
    /// A mention with the loader's defaults: its own thread, no words, no votes, no author,
    /// observed when it was written.
    #[must_use]
    pub fn new(
        source_type: SourceType,
        source_id: impl Into<Arc<str>>,
        source_url: impl Into<String>,
        subreddit: impl Into<String>,
        created_at: Timestamp,
    ) -> Self {
        let source_id = source_id.into();
        Self {
            source_type,
            thread_id: Arc::clone(&source_id),
            source_id,
            source_url: source_url.into(),
            subreddit: subreddit.into(),
            content_excerpt: String::new(),
            author: None,
            upvotes: 0,
            created_at,
            observed_at: created_at,
        }
    }

    /// Sets the thread.
    #[must_use]
    pub fn thread(mut self, thread_id: impl Into<Arc<str>>) -> Self {
        self.thread_id = thread_id.into();
        self
    }

    /// Sets the words that matter.
    #[must_use]
    pub fn excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.content_excerpt = excerpt.into();
        self
    }

    /// Sets who wrote it.
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Sets the votes.
    #[must_use]
    pub const fn upvotes(mut self, upvotes: i32) -> Self {
        self.upvotes = upvotes;
        self
    }

    /// Sets when it was observed.
    #[must_use]
    pub const fn observed_at(mut self, observed_at: Timestamp) -> Self {
        self.observed_at = observed_at;
        self
    }

    /// The order of "wins": the newest `observed_at`, then the higher upvotes, then the greater
    /// excerpt. The remaining columns follow so that the order is total: two observations that tie
    /// in all three would otherwise leave a row that depends on which came first.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let rank = |mention: &Self| (mention.observed_at, mention.upvotes);
        rank(self).cmp(&rank(other)).then_with(|| self.content_excerpt.cmp(&other.content_excerpt)).then_with(|| {
            (self.created_at, &self.thread_id, &self.source_url, &self.subreddit, &self.author).cmp(&(
                other.created_at,
                &other.thread_id,
                &other.source_url,
                &other.subreddit,
                &other.author,
            ))
        })
    }
}

/// The newest observation wins as a whole row.
impl Merge for Arc<Mention> {
    fn merge(&mut self, other: Self) {
        if other.precedence(self) == Ordering::Greater {
            *self = other;
        }
    }
}

/// What makes a mention the same mention.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MentionName {
    /// The connection it speaks of.
    pub connection: ConnectionName,
    /// Post or comment.
    pub source_type: SourceType,
    /// The source's own id.
    pub source_id: Arc<str>,
}
