//! The figures of a batch's mentions as hand-written pipelines have to compute them: counts, upvotes, threads, level of
//! activity and the five best mentions, without the crate's own code.

use std::cmp::Ordering;
use std::collections::HashSet;

use chrono::TimeDelta;
use graphsink::{Mention, SourceType, Timestamp};
use serde::Serialize;
use uuid::Uuid;

const TOP_MENTIONS: usize = 5;
const TRENDING_MENTIONS: usize = 3;
const SCORE_DECAY_DAYS: f64 = 60.0;
const MICROS_PER_DAY: f64 = 86_400_000_000.0;

/// The columns of a connection that follow from its mentions. By default it has none.
#[derive(Debug, Default)]
pub struct ConnectionMetrics<'a> {
    pub mention_count: i32,
    pub total_upvotes: i64,
    pub source_diversity: i32,
    pub recent_mention_count: i32,
    pub last_mentioned_at: Option<Timestamp>,
    pub activity_level: ActivityLevel,
    pub top_mentions: Vec<TopMention<'a>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ActivityLevel {
    Trending,
    Active,
    #[default]
    Normal,
}

impl ActivityLevel {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trending => "trending",
            Self::Active => "active",
            Self::Normal => "normal",
        }
    }
}

/// An entry of the column `top_mentions`.
#[derive(Debug, Serialize)]
pub struct TopMention<'a> {
    mention_id: Uuid,
    score: f64,
    upvotes: i32,
    content_excerpt: &'a str,
    source_url: &'a str,
    created_at: Timestamp,
    /// Breaks ties.
    #[serde(skip)]
    source: (&'a str, SourceType),
}

impl<'a> TopMention<'a> {
    fn new(mention_id: Uuid, mention: &'a Mention, as_of: Timestamp) -> Self {
        let age = as_of.signed_duration_since(mention.created_at);
        let days = age.num_microseconds().map_or(age.num_days() as f64, |micros| micros as f64 / MICROS_PER_DAY);
        Self {
            mention_id,
            score: f64::from(mention.upvotes) * (-days / SCORE_DECAY_DAYS).exp(),
            upvotes: mention.upvotes,
            content_excerpt: &mention.content_excerpt,
            source_url: &mention.source_url,
            created_at: mention.created_at,
            source: (&mention.source_id, mention.source_type),
        }
    }

    /// `Less` is better.
    fn rank(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| other.created_at.cmp(&self.created_at))
            .then_with(|| self.source.cmp(&other.source))
    }
}

impl<'a> ConnectionMetrics<'a> {
    pub fn from_mentions(mentions: impl IntoIterator<Item = (Uuid, &'a Mention)>, as_of: Timestamp) -> Self {
        let is_recent = |time: Timestamp, days| time <= as_of && time >= as_of - TimeDelta::days(days);
        let mentions = mentions.into_iter();
        let mut metrics = Self::default();
        metrics.top_mentions.reserve_exact(mentions.size_hint().0);
        // Most connections of a batch have one mention and one thread.
        let (mut first, mut others) = (None, HashSet::new());
        for (id, mention) in mentions {
            metrics.mention_count += 1;
            metrics.total_upvotes += i64::from(mention.upvotes);
            metrics.recent_mention_count += i32::from(is_recent(mention.created_at, 30));
            metrics.last_mentioned_at = metrics.last_mentioned_at.max(Some(mention.created_at));
            if *first.get_or_insert(&*mention.thread_id) != &*mention.thread_id {
                others.insert(&*mention.thread_id);
            }
            metrics.top_mentions.push(TopMention::new(id, mention, as_of));
        }
        metrics.source_diversity = first.iter().len() as i32 + others.len() as i32;
        metrics.top_mentions.sort_by(TopMention::rank);
        metrics.top_mentions.truncate(TOP_MENTIONS);
        let are_recent = metrics.top_mentions.iter().all(|top| is_recent(top.created_at, 30));
        metrics.activity_level = if metrics.top_mentions.len() >= TRENDING_MENTIONS && are_recent {
            ActivityLevel::Trending
        } else if metrics.last_mentioned_at.is_some_and(|last| is_recent(last, 7)) {
            ActivityLevel::Active
        } else {
            ActivityLevel::Normal
        };
        metrics
    }
}
