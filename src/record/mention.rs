//! Mentions: one post or comment that speaks of a connection.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Merge, Timestamp, UnknownLabel};

/// Where a mention stands.
///
/// ```
/// use graphsink::SourceType;
///
/// // A post and a comment of one id are two mentions.
/// assert_ne!(SourceType::Post, SourceType::Comment);
/// ```
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
    ///
    /// ```
    /// assert_eq!(graphsink::SourceType::Comment.as_str(), "comment");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Comment => "comment",
        }
    }

    /// The former name of `label.parse().ok()`.
    #[doc(hidden)]
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        label.parse().ok()
    }
}

/// The type with this label.
///
/// ```
/// use graphsink::SourceType;
///
/// assert_eq!("post".parse(), Ok(SourceType::Post));
/// assert!("reply".parse::<SourceType>().is_err());
/// ```
impl FromStr for SourceType {
    type Err = UnknownLabel;

    fn from_str(label: &str) -> Result<Self, UnknownLabel> {
        let found = [Self::Post, Self::Comment].into_iter().find(|own| own.as_str() == label);
        found.ok_or(UnknownLabel { of: "mention_source" })
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One observation of one post or comment.
///
/// ```
/// use graphsink::{Mention, SourceType};
///
/// let written = "2024-01-10T14:20:00Z".parse()?;
/// let first = Mention::new(SourceType::Comment, "t1_abc", "https://example.org/t1_abc", "austinfood", written)
///     .thread("t3_xyz")
///     .author("someone")
///     .excerpt("the brisket")
///     .upvotes(67);
/// // Seen again a day later, it has lost votes: the newest observation wins as a whole.
/// let second = first.clone().upvotes(61).observed_at("2024-01-11T14:20:00Z".parse()?);
/// assert!(second.precedence(&first).is_gt());
/// # Ok::<(), chrono::ParseError>(())
/// ```
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
    /// The part of the text that speaks of the connection.
    pub content_excerpt: String,
    /// The author's name at the source.
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
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now);
    /// // A mention is its own thread, has no votes and was observed when it was written, until it says otherwise.
    /// assert_eq!((&*mention.thread_id, mention.upvotes, mention.observed_at), ("t1_1", 0, now));
    /// ```
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
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now).thread("t3_9");
    /// assert_eq!(&*mention.thread_id, "t3_9");
    /// ```
    #[must_use]
    pub fn thread(mut self, thread_id: impl Into<Arc<str>>) -> Self {
        self.thread_id = thread_id.into();
        self
    }

    /// Sets the part of the text that speaks of the connection.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now)
    ///     .excerpt("get the brisket");
    /// assert_eq!(mention.content_excerpt, "get the brisket");
    /// ```
    #[must_use]
    pub fn excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.content_excerpt = excerpt.into();
        self
    }

    /// Sets the author's name.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now).author("smoker");
    /// assert_eq!(mention.author.as_deref(), Some("smoker"));
    /// ```
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Sets the votes.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now).upvotes(-3);
    /// assert_eq!(mention.upvotes, -3);
    /// ```
    #[must_use]
    pub const fn upvotes(mut self, upvotes: i32) -> Self {
        self.upvotes = upvotes;
        self
    }

    /// Sets when it was observed.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now)
    ///     .observed_at(now + chrono::TimeDelta::hours(1));
    /// assert!(mention.observed_at > mention.created_at);
    /// ```
    #[must_use]
    pub const fn observed_at(mut self, observed_at: Timestamp) -> Self {
        self.observed_at = observed_at;
        self
    }

    /// The order of "wins": the newest `observed_at`, then the higher upvotes, then the greater
    /// excerpt. The remaining columns follow so that the order is total: two observations that tie
    /// in all three would otherwise leave a row that depends on which came first.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType};
    ///
    /// let now = graphsink::truncate(chrono::Utc::now());
    /// let mention = Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", now);
    /// let later = mention.clone().observed_at(now + chrono::TimeDelta::hours(1)).upvotes(12);
    /// // The later observation wins, in whichever order the two arrive.
    /// assert!(later.precedence(&mention).is_gt());
    /// ```
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        MentionRef::from(self).precedence(&MentionRef::from(other))
    }
}

/// A [`Mention`] whose texts stand elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MentionRef<'a> {
    /// See [`Mention::source_type`].
    pub(crate) source_type: SourceType,
    /// See [`Mention::source_id`].
    pub(crate) source_id: &'a str,
    /// See [`Mention::thread_id`].
    pub(crate) thread_id: &'a str,
    /// See [`Mention::source_url`].
    pub(crate) source_url: &'a str,
    /// See [`Mention::subreddit`].
    pub(crate) subreddit: &'a str,
    /// See [`Mention::content_excerpt`].
    pub(crate) content_excerpt: &'a str,
    /// See [`Mention::author`].
    pub(crate) author: Option<&'a str>,
    /// See [`Mention::upvotes`].
    pub(crate) upvotes: i32,
    /// See [`Mention::created_at`].
    pub(crate) created_at: Timestamp,
    /// See [`Mention::observed_at`].
    pub(crate) observed_at: Timestamp,
}

impl From<MentionRef<'_>> for Mention {
    fn from(mention: MentionRef<'_>) -> Self {
        Self {
            source_type: mention.source_type,
            source_id: mention.source_id.into(),
            thread_id: mention.thread_id.into(),
            source_url: mention.source_url.to_owned(),
            subreddit: mention.subreddit.to_owned(),
            content_excerpt: mention.content_excerpt.to_owned(),
            author: mention.author.map(str::to_owned),
            upvotes: mention.upvotes,
            created_at: mention.created_at,
            observed_at: mention.observed_at,
        }
    }
}

impl<'a> From<&'a Mention> for MentionRef<'a> {
    fn from(mention: &'a Mention) -> Self {
        Self {
            source_type: mention.source_type,
            source_id: &mention.source_id,
            thread_id: &mention.thread_id,
            source_url: &mention.source_url,
            subreddit: &mention.subreddit,
            content_excerpt: &mention.content_excerpt,
            author: mention.author.as_deref(),
            upvotes: mention.upvotes,
            created_at: mention.created_at,
            observed_at: mention.observed_at,
        }
    }
}

impl MentionRef<'_> {
    /// See [`Mention::precedence`].
    #[must_use]
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |mention: &Self| (mention.observed_at, mention.upvotes);
        rank(self).cmp(&rank(other)).then_with(|| self.content_excerpt.cmp(other.content_excerpt)).then_with(|| {
            (self.created_at, self.thread_id, self.source_url, self.subreddit, self.author).cmp(&(
                other.created_at,
                other.thread_id,
                other.source_url,
                other.subreddit,
                other.author,
            ))
        })
    }
}

/// The newest observation wins as a whole row.
impl Merge for MentionRef<'_> {
    fn merge(&mut self, other: Self) {
        if other.precedence(self) == Ordering::Greater {
            *self = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_types_have_the_labels_of_the_database() {
        for (source_type, label) in [(SourceType::Post, "post"), (SourceType::Comment, "comment")] {
            assert_eq!((source_type.as_str(), &*source_type.to_string()), (label, label));
            assert_eq!(label.parse(), Ok(source_type));
        }
        assert_eq!("Post".parse::<SourceType>(), Err(UnknownLabel { of: "mention_source" }));
    }

    #[test]
    fn by_default_a_mention_is_its_own_thread_and_observed_when_written() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mention = Mention::new(SourceType::Post, "i", "u", "s", at("2024-01-01T00:00:00Z"));
        assert_eq!((&*mention.thread_id, mention.observed_at), ("i", mention.created_at));
        assert_eq!((&*mention.content_excerpt, &mention.author, mention.upvotes), ("", &None, 0));
        let told =
            mention.clone().thread("t").excerpt("e").author("a").upvotes(-1).observed_at(at("2024-01-02T00:00:00Z"));
        assert_eq!((&*told.thread_id, &*told.content_excerpt, told.author.as_deref()), ("t", "e", Some("a")));
        assert_eq!((told.upvotes, told.observed_at), (-1, at("2024-01-02T00:00:00Z")));
    }

    #[test]
    fn the_newest_then_the_most_voted_then_the_greater_excerpt_wins() {
        let observed = |day: u8, upvotes, excerpt: &str| {
            let time = |day: u8| format!("2024-01-{day:02}T00:00:00Z").parse::<Timestamp>().unwrap();
            let mention = Mention::new(SourceType::Post, "i", "u", "s", time(1));
            mention.upvotes(upvotes).excerpt(excerpt).observed_at(time(day))
        };
        let ascending =
            [observed(2, 9, "z"), observed(3, -5, "z"), observed(3, 4, "a"), observed(3, 4, "b"), observed(4, 0, "")];
        for (rank, lesser) in ascending.iter().enumerate() {
            for greater in &ascending[rank..] {
                let [lesser, greater] = [lesser, greater].map(MentionRef::from);
                let (mut one, mut other) = (lesser, greater);
                one.merge(greater);
                other.merge(lesser);
                assert_eq!((one, other), (greater, greater));
            }
        }
    }
}
