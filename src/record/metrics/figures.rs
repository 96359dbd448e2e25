//! The figures of a connection, counted or advanced.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use uuid::Uuid;

use super::activity::ActivityLevel;
use super::change::{MentionChange, RereadNeeded};
use super::score::{days_before, score};
use super::top_mention::TopMention;
use crate::hash::HashSet;
use crate::record::{MentionRef, Timestamp};

/// How many best mentions a connection keeps.
pub(crate) const TOP_MENTIONS: usize = 5;
/// A mention is recent for this many days, both ends included.
pub(crate) const RECENT_DAYS: i64 = 30;
/// A connection is active for this many days after its newest mention, both ends included.
const ACTIVE_DAYS: i64 = 7;
/// Fewest best mentions of a trending connection.
pub(super) const TRENDING_MENTIONS: usize = 3;
/// Whether `time` lies in the `days` days before `as_of`, both ends included.
fn within(time: Timestamp, as_of: Timestamp, days: i64) -> bool {
    time <= as_of && time >= days_before(as_of, days)
}

/// The activity of a connection that is not trending.
pub(super) fn activity_without_best(last_mentioned_at: Option<Timestamp>, as_of: Timestamp) -> ActivityLevel {
    if last_mentioned_at.is_some_and(|last| within(last, as_of, ACTIVE_DAYS)) {
        ActivityLevel::Active
    } else {
        ActivityLevel::Normal
    }
}

/// Whether a mention could be recent at `as_of`, if the newest was created at `last_mentioned_at`.
pub(super) fn may_have_recent(last_mentioned_at: Option<Timestamp>, as_of: Timestamp) -> bool {
    last_mentioned_at.is_some_and(|last| last >= days_before(as_of, RECENT_DAYS))
}

/// The columns of a connection that follow from its mentions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnectionMetrics<'a> {
    /// Number of mentions.
    pub(crate) mention_count: i32,
    /// Sum of their upvotes.
    pub(crate) total_upvotes: i64,
    /// Number of distinct threads among them.
    pub(crate) source_diversity: i32,
    /// Number of those created in the 30 days before `as_of`.
    pub(crate) recent_mention_count: i32,
    /// The greatest `created_at`.
    pub(crate) last_mentioned_at: Option<Timestamp>,
    /// See [`ActivityLevel`].
    pub(crate) activity_level: ActivityLevel,
    /// The best five, best first.
    pub(crate) top_mentions: Vec<TopMention<'a>>,
}

/// Figures as they stand in the database.
pub(crate) type StoredMetrics = ConnectionMetrics<'static>;

impl<'a> ConnectionMetrics<'a> {
    /// The figures of a connection without mentions.
    #[must_use]
    pub(crate) const fn empty() -> Self {
        Self {
            mention_count: 0,
            total_upvotes: 0,
            source_diversity: 0,
            recent_mention_count: 0,
            last_mentioned_at: None,
            activity_level: ActivityLevel::Normal,
            top_mentions: Vec::new(),
        }
    }

    /// The figures of exactly these mentions.
    pub(crate) fn from_mentions<M: Into<MentionRef<'a>>>(
        mentions: impl IntoIterator<Item = (Uuid, M)>,
        as_of: Timestamp,
    ) -> Self {
        let mentions = mentions.into_iter();
        let mut metrics = Self::empty();
        metrics.top_mentions.reserve_exact(mentions.size_hint().0);
        // Most connections have one mention, and one thread.
        let (mut first, mut others) = (None, HashSet::default());
        for (mention_id, mention) in mentions {
            let mention: MentionRef<'a> = mention.into();
            metrics.mention_count += 1;
            metrics.total_upvotes += i64::from(mention.upvotes);
            if *first.get_or_insert(mention.thread_id) != mention.thread_id {
                others.insert(mention.thread_id);
            }
            metrics.recent_mention_count += i32::from(within(mention.created_at, as_of, RECENT_DAYS));
            metrics.last_mentioned_at = metrics.last_mentioned_at.max(Some(mention.created_at));
            metrics.top_mentions.push(TopMention::new(mention_id, mention, as_of));
        }
        metrics.source_diversity = first.iter().len() as i32 + others.len() as i32;
        metrics.set_top(as_of);
        metrics
    }

    /// The figures after `changes`, at `as_of`.
    ///
    /// `recent_before` is the number of mentions that were recent at `as_of` before the changes;
    /// `known_threads` are those threads of the changes that the connection already had. Where
    /// the second part of the answer says so, the figures lack what must be read again.
    #[must_use]
    pub(crate) fn advance<S: BuildHasher>(
        &'a self,
        changes: &[MentionChange<'a>],
        recent_before: i32,
        known_threads: &std::collections::HashSet<&str, S>,
        as_of: Timestamp,
    ) -> (Self, RereadNeeded) {
        let top_mentions = self.top_mentions.iter().map(TopMention::borrowed).collect();
        let mut after = ConnectionMetrics { top_mentions, ..*self };
        let mut reread = RereadNeeded::default();
        let mut new_threads = HashSet::default();
        let recent = |mention: &MentionRef<'_>| i32::from(within(mention.created_at, as_of, RECENT_DAYS));
        after.recent_mention_count = recent_before;
        for change in changes {
            let (mention_id, mention) = match change {
                MentionChange::Inserted { mention_id, mention } => {
                    after.mention_count += 1;
                    if !known_threads.contains(mention.thread_id) {
                        new_threads.insert(mention.thread_id);
                    }
                    (*mention_id, *mention)
                }
                MentionChange::Replaced { mention_id, before, mention } => {
                    after.total_upvotes -= i64::from(before.upvotes);
                    after.recent_mention_count -= recent(before);
                    reread.threads |= before.thread_id != mention.thread_id;
                    reread.newest |=
                        mention.created_at < before.created_at && self.last_mentioned_at <= Some(before.created_at);
                    (*mention_id, *mention)
                }
            };
            after.total_upvotes += i64::from(mention.upvotes);
            after.recent_mention_count += recent(&mention);
            after.last_mentioned_at = after.last_mentioned_at.max(Some(mention.created_at));
            after.top_mentions.retain(|top| top.mention_id != mention_id);
            after.top_mentions.push(TopMention::new(mention_id, mention, as_of));
        }
        after.source_diversity += new_threads.len() as i32;
        reread.top = self.top_is_unsure(&after.top_mentions);
        after.set_top(as_of);
        (after, reread)
    }

    /// Joins the figures of other mentions of the same connection, in parts of a history that does not fit into memory.
    /// Best mentions of both know their sources. `source_diversity` stays as it is: what threads both have is not known here.
    pub(crate) fn absorb(&mut self, other: ConnectionMetrics<'a>, as_of: Timestamp) {
        self.mention_count += other.mention_count;
        self.total_upvotes += other.total_upvotes;
        self.recent_mention_count += other.recent_mention_count;
        self.last_mentioned_at = self.last_mentioned_at.max(other.last_mentioned_at);
        self.top_mentions.extend(other.top_mentions);
        self.set_top(as_of);
    }

    /// The same figures, with texts of their own.
    pub(crate) fn into_stored(self) -> StoredMetrics {
        let top_mentions = self.top_mentions.into_iter().map(TopMention::into_owned).collect();
        ConnectionMetrics { top_mentions, ..self }
    }

    /// Whether the best of `candidates` may not be the best of all mentions. Mentions that were
    /// not read rank behind the last stored one, so the candidates decide as long as the fifth of
    /// them still ranks at least there.
    fn top_is_unsure(&self, candidates: &[TopMention<'a>]) -> bool {
        let unread = self.mention_count as usize > self.top_mentions.len();
        let mut ranked: Vec<&TopMention<'a>> = candidates.iter().collect();
        ranked.sort_by(|left, right| left.rank(right));
        // Against every candidate, not only the neighbour: stored ones that tie may stand in between.
        let tied = ranked.iter().take(TOP_MENTIONS).any(|kept| ranked.iter().any(|other| kept.is_undecided(other)));
        let fell_behind = match (ranked.get(TOP_MENTIONS - 1), self.top_mentions.last()) {
            (Some(fifth), Some(bound)) => match fifth.rank(bound) {
                Ordering::Less => false,
                Ordering::Equal => fifth.mention_id != bound.mention_id,
                Ordering::Greater => true,
            },
            _ => true,
        };
        tied || (unread && fell_behind)
    }

    /// Ranks and cuts the best mentions, scores them at `as_of`, and sets the activity level.
    pub(crate) fn set_top(&mut self, as_of: Timestamp) {
        // Stable: stored mentions that tie keep the order that their source ids gave them.
        self.top_mentions.sort_by(TopMention::rank);
        self.top_mentions.truncate(TOP_MENTIONS);
        for top in &mut self.top_mentions {
            top.score = score(top.upvotes, top.created_at, as_of);
        }
        let all_recent = self.top_mentions.iter().all(|top| within(top.created_at, as_of, RECENT_DAYS));
        self.activity_level = if self.top_mentions.len() >= TRENDING_MENTIONS && all_recent {
            ActivityLevel::Trending
        } else {
            activity_without_best(self.last_mentioned_at, as_of)
        };
    }

    /// Whether a mention could be recent at `as_of`; false spares counting them.
    #[must_use]
    pub(crate) fn may_have_recent(&self, as_of: Timestamp) -> bool {
        may_have_recent(self.last_mentioned_at, as_of)
    }

    /// Whether `self`, freshly computed, says the same as the stored figures. Scores decay with
    /// every passing microsecond; `score_tolerance` is the relative error below which a stored
    /// score still counts as the same.
    #[must_use]
    pub(crate) fn agrees_with(&self, stored: &ConnectionMetrics<'_>, score_tolerance: f64) -> bool {
        self.mention_count == stored.mention_count
            && self.total_upvotes == stored.total_upvotes
            && self.source_diversity == stored.source_diversity
            && self.recent_mention_count == stored.recent_mention_count
            && self.last_mentioned_at == stored.last_mentioned_at
            && self.activity_level == stored.activity_level
            && self.top_agrees_with(stored, score_tolerance)
    }

    /// The same of the best mentions alone.
    pub(crate) fn top_agrees_with(&self, stored: &ConnectionMetrics<'_>, score_tolerance: f64) -> bool {
        self.top_mentions.len() == stored.top_mentions.len()
            && self.top_mentions.iter().zip(&stored.top_mentions).all(|(own, stored)| {
                own.mention_id == stored.mention_id
                    && own.upvotes == stored.upvotes
                    && own.created_at == stored.created_at
                    && own.content_excerpt == stored.content_excerpt
                    && own.source_url == stored.source_url
                    && (own.score - stored.score).abs() <= score_tolerance * own.score.abs()
            })
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};

    use super::*;
    use crate::record::metrics::score::MICROS_PER_DAY;
    use crate::record::{Mention, SourceType};

    fn day(days: f64) -> Timestamp {
        Utc.timestamp_micros((days * MICROS_PER_DAY) as i64).unwrap()
    }

    fn mention(id: &str, upvotes: i32, created: f64) -> Mention {
        Mention::new(SourceType::Post, id, "u", "s", day(created)).upvotes(upvotes)
    }

    fn best(mentions: &[Mention]) -> Vec<String> {
        let ids = (1..).map(Uuid::from_u128);
        let metrics = ConnectionMetrics::from_mentions(ids.zip(mentions), day(20_000.0));
        metrics.top_mentions.iter().map(|top| top.source.as_ref().unwrap().0.to_string()).collect()
    }

    #[test]
    fn scores_halve_with_age_and_stay_finite() {
        let at = day(19_000.0);
        assert!((score(100, at, day(19_060.0)) - 100.0 / std::f64::consts::E).abs() < 1e-9);
        assert!((score(-3, at, at) + 3.0).abs() < 1e-12);
        assert!(score(1, Utc.with_ymd_and_hms(9999, 1, 1, 0, 0, 0).unwrap(), at) >= f64::MAX);
        assert!(score(-1, Utc.with_ymd_and_hms(1, 1, 1, 0, 0, 0).unwrap(), at).is_sign_positive());
    }

    #[test]
    fn best_mentions_are_ranked_by_decayed_votes() {
        // 100 votes of 200 days before are worth less than 5 votes of the same day.
        assert_eq!(best(&[mention("old", 100, 19_800.0), mention("new", 5, 20_000.0)]), ["new", "old"]);
        // Negative votes rank below none, and of two negatives the older one ranks higher.
        assert_eq!(
            best(&[mention("bad", -5, 20_000.0), mention("bad old", -5, 19_000.0), mention("zero", 0, 1.0)]),
            ["zero", "bad old", "bad"]
        );
    }

    #[test]
    fn ties_go_to_the_later_then_to_the_smaller_source_id() {
        assert_eq!(best(&[mention("b", 0, 5.0), mention("a", 0, 5.0), mention("c", 0, 6.0)]), ["c", "a", "b"]);
    }

    #[test]
    fn activity_levels_include_their_thresholds() {
        let level = |times: &[f64]| {
            let mentions: Vec<Mention> = times.iter().map(|time| mention(&time.to_string(), 1, *time)).collect();
            let ids = (1..).map(Uuid::from_u128);
            ConnectionMetrics::from_mentions(ids.zip(&mentions), day(100.0)).activity_level
        };
        assert_eq!(level(&[70.0, 80.0, 100.0]), ActivityLevel::Trending);
        assert_eq!(level(&[69.9, 80.0, 100.0]), ActivityLevel::Active);
        assert_eq!(level(&[93.0]), ActivityLevel::Active);
        assert_eq!(level(&[92.9]), ActivityLevel::Normal);
        assert_eq!(level(&[100.1]), ActivityLevel::Normal);
        assert_eq!(level(&[80.0, 90.0, 100.1]), ActivityLevel::Normal);
    }

    #[test]
    fn a_best_mention_that_loses_rank_asks_for_a_reread() {
        let mentions: Vec<Mention> = (0..6).map(|n| mention(&n.to_string(), 10 + n, 50.0)).collect();
        let mut stored = ConnectionMetrics::from_mentions((1..).map(Uuid::from_u128).zip(&mentions), day(60.0));
        stored.top_mentions.iter_mut().for_each(|top| top.source = None);
        let change = |upvotes| mention("5", upvotes, 50.0);
        let advance = |new: &Mention| {
            let changes = [MentionChange::Replaced {
                mention_id: Uuid::from_u128(6),
                before: (&mentions[5]).into(),
                mention: new.into(),
            }];
            let (after, reread) = stored.advance(&changes, 6, &std::collections::HashSet::<&str>::new(), day(60.0));
            (after.total_upvotes, reread.top)
        };
        assert_eq!(advance(&change(12)), (72, true), "ties with a stored mention whose source id is unknown");
        assert_eq!(advance(&change(16)), (76, false));
        assert_eq!(advance(&change(9)), (69, true), "the sixth, which was not read, may be better");
    }

    #[test]
    fn no_reread_is_asked_for_where_the_changes_suffice() {
        let mentions: Vec<Mention> = (0..3).map(|n| mention(&n.to_string(), 10 + n, 50.0 + f64::from(n))).collect();
        let stored = ConnectionMetrics::from_mentions((1..).map(Uuid::from_u128).zip(&mentions), day(60.0));
        let reread = |index: usize, new: &Mention| {
            let mention_id = Uuid::from_u128(index as u128 + 1);
            let change = MentionChange::Replaced { mention_id, before: (&mentions[index]).into(), mention: new.into() };
            stored.advance(&[change], 3, &std::collections::HashSet::<&str>::new(), day(60.0)).1
        };
        let none = RereadNeeded::default();
        assert_eq!(reread(2, &mention("2", 1, 52.0)), none, "the votes fell, but all mentions had been read");
        assert_eq!(reread(0, &mention("0", 10, 40.0)), none, "the time moved back, but it was not the newest");
        assert_eq!(reread(2, &mention("2", 12, 53.0)), none, "the time moved forward");
        assert_eq!(reread(2, &mention("2", 12, 51.5)), RereadNeeded { newest: true, ..none });
        let moved = mention("2", 12, 52.0);
        let moved = Mention { thread_id: "another".into(), ..moved };
        assert_eq!(reread(2, &moved), RereadNeeded { threads: true, ..none });
    }

    #[test]
    fn top_mentions_are_read_back_from_json_unchanged() {
        let time = Utc.with_ymd_and_hms(12_345, 6, 7, 8, 9, 10).unwrap() + TimeDelta::microseconds(1);
        for created_at in [time, day(19_000.000_001), Utc.with_ymd_and_hms(-43, 3, 15, 0, 0, 0).unwrap()] {
            let mut own =
                TopMention::new(Uuid::from_u128(7), (&mention("a", 3, 1.0)).into(), day(2.0)).to_owned_parts();
            own.created_at = created_at;
            let read: TopMention<'static> = serde_json::from_str(&serde_json::to_string(&own).unwrap()).unwrap();
            assert_eq!(read.created_at, created_at);
            assert_eq!(read.mention_id, own.mention_id);
        }
    }

    #[test]
    fn activity_levels_have_the_labels_of_the_database() {
        let levels = [ActivityLevel::Trending, ActivityLevel::Active, ActivityLevel::Normal];
        let labels = ["trending", "active", "normal"];
        assert_eq!(levels.map(ActivityLevel::as_str), labels);
        assert_eq!(labels.map(str::parse), levels.map(Ok));
        assert!("hot".parse::<ActivityLevel>().is_err());
    }

    #[test]
    fn the_score_of_any_two_times_is_finite_and_on_the_right_side() {
        let (first, last) = (Timestamp::MIN_UTC, Timestamp::MAX_UTC);
        let whole_days = last - TimeDelta::seconds(86_399);
        for upvotes in [1, i32::MAX] {
            for future in [last, whole_days] {
                assert_eq!(score(upvotes, future, first).to_bits(), f64::MAX.to_bits());
                assert_eq!(score(-upvotes, future, first).to_bits(), f64::MIN.to_bits());
                assert_eq!(score(upvotes, first, future).to_bits(), 0.0_f64.to_bits());
                assert_eq!(score(-upvotes, first, future).to_bits(), 0.0_f64.to_bits());
            }
        }
        assert_eq!(score(0, last, first).to_bits(), 0.0_f64.to_bits());
        assert!((score(8, day(10.0), day(10.5)) - 8.0 * (-0.5_f64 / 60.0).exp()).abs() < 1e-12);
    }

    #[test]
    fn days_before_a_time_saturate_at_the_earliest_time() {
        assert_eq!(days_before(day(100.0), 30), day(70.0));
        assert_eq!(days_before(Timestamp::MIN_UTC + TimeDelta::days(1), 30), Timestamp::MIN_UTC);
    }

    #[test]
    fn a_connection_may_have_recent_mentions_for_thirty_days() {
        let last = |time| ConnectionMetrics { last_mentioned_at: time, ..ConnectionMetrics::empty() };
        assert!(last(Some(day(70.0))).may_have_recent(day(100.0)));
        assert!(last(Some(day(200.0))).may_have_recent(day(100.0)), "other mentions may be recent");
        assert!(!last(Some(day(69.999))).may_have_recent(day(100.0)));
        assert!(!last(None).may_have_recent(day(100.0)));
    }

    #[test]
    fn each_of_the_three_reasons_asks_for_a_reread() {
        let none = RereadNeeded::default();
        assert!(!none.any());
        let each = [
            RereadNeeded { threads: true, ..none },
            RereadNeeded { newest: true, ..none },
            RereadNeeded { top: true, ..none },
        ];
        assert!(each.into_iter().all(RereadNeeded::any));
    }

    #[test]
    fn figures_agree_only_if_all_fields_do() {
        let mentions = [mention("a", 10, 50.0), mention("b", 20, 60.0)];
        let own = ConnectionMetrics::from_mentions((1..).map(Uuid::from_u128).zip(&mentions), day(60.0));
        assert!(own.agrees_with(&own, 0.0));
        let changes: [fn(&mut ConnectionMetrics<'_>); 13] = [
            |metrics| metrics.mention_count += 1,
            |metrics| metrics.total_upvotes += 1,
            |metrics| metrics.source_diversity += 1,
            |metrics| metrics.recent_mention_count += 1,
            |metrics| metrics.last_mentioned_at = None,
            |metrics| metrics.activity_level = ActivityLevel::Trending,
            |metrics| drop(metrics.top_mentions.pop()),
            |metrics| metrics.top_mentions[1].mention_id = Uuid::nil(),
            |metrics| metrics.top_mentions[1].upvotes += 1,
            |metrics| metrics.top_mentions[1].created_at = day(1.0),
            |metrics| metrics.top_mentions[1].content_excerpt = "x".into(),
            |metrics| metrics.top_mentions[1].source_url = "x".into(),
            |metrics| metrics.top_mentions[0].score *= 1.2,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut stored = own.clone();
            change(&mut stored);
            assert!(!own.agrees_with(&stored, 0.1), "change {number}");
        }
        // The tolerance is relative in both directions, and includes its edge.
        let mut stored = own.clone();
        for (own_score, stored_score, agrees) in
            [(10.0, 9.0, true), (10.0, 11.0, true), (10.0, 8.9, false), (10.0, 11.1, false), (-10.0, -10.5, true)]
        {
            let mut own = own.clone();
            own.top_mentions[0].score = own_score;
            stored.top_mentions[0].score = stored_score;
            assert_eq!(own.agrees_with(&stored, 0.1), agrees, "{own_score} and {stored_score}");
        }
    }

    impl TopMention<'_> {
        fn to_owned_parts(&self) -> TopMention<'static> {
            TopMention {
                content_excerpt: self.content_excerpt.to_string().into(),
                source_url: self.source_url.to_string().into(),
                source: None,
                mention_id: self.mention_id,
                score: self.score,
                upvotes: self.upvotes,
                created_at: self.created_at,
            }
        }
    }
}
