//! Whether stored figures still hold, judged without reading all of them.

use super::activity::ActivityLevel;
use super::figures::{ConnectionMetrics, TRENDING_MENTIONS, activity_without_best, may_have_recent};
use super::score::score;
use super::top_mention::read_time;
use crate::record::Timestamp;

/// A stored connection's figures that the time changes, with the first of its best mentions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StandingFigures {
    /// Number of mentions.
    pub(crate) mention_count: i32,
    /// Sum of their upvotes.
    pub(crate) total_upvotes: i64,
    /// Number of those that were recent when the figures were written.
    pub(crate) recent_mention_count: i32,
    /// The greatest `created_at`.
    pub(crate) last_mentioned_at: Option<Timestamp>,
    /// See [`ActivityLevel`].
    pub(crate) activity_level: ActivityLevel,
    /// `None` if there is none, or none that can be read.
    pub(crate) best: Option<StandingScore>,
}

/// What the score of a best mention depends on, with the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StandingScore {
    pub(crate) score: f64,
    pub(crate) upvotes: i32,
    pub(crate) created_at: Timestamp,
}

impl StandingScore {
    /// Reads the texts of the JSON; `None` if one is missing or is nothing that the engine would have written.
    pub(crate) fn of_texts(score: Option<&str>, upvotes: Option<&str>, created_at: Option<&str>) -> Option<Self> {
        let score: f64 = score?.parse().ok()?;
        Some(Self { score, upvotes: upvotes?.parse().ok()?, created_at: read_time(created_at?).ok()? })
    }
}

impl StandingFigures {
    /// Those of a whole row.
    pub(crate) fn of(stored: &ConnectionMetrics<'_>) -> Self {
        let best = stored.top_mentions.first();
        Self {
            mention_count: stored.mention_count,
            total_upvotes: stored.total_upvotes,
            recent_mention_count: stored.recent_mention_count,
            last_mentioned_at: stored.last_mentioned_at,
            activity_level: stored.activity_level,
            best: best.map(|best| StandingScore {
                score: best.score,
                upvotes: best.upvotes,
                created_at: best.created_at,
            }),
        }
    }

    /// Whether a mention could be recent at `as_of`; false spares counting them.
    pub(crate) fn may_have_recent(&self, as_of: Timestamp) -> bool {
        may_have_recent(self.last_mentioned_at, as_of)
    }

    /// Whether figures of the same mentions computed at `as_of` would agree with the stored ones
    /// (`ConnectionMetrics::agrees_with`). `recent` is the number of mentions that are recent at `as_of`. False also
    /// where that cannot be told from these figures.
    ///
    /// All scores decay at one rate, so one of them shows how old the others are. A connection whose best mentions are
    /// all recent is trending; that is certain if all of its mentions are recent, and impossible if too few are.
    pub(crate) fn hold(&self, recent: i32, as_of: Timestamp, score_tolerance: f64) -> bool {
        let Some(best) = self.best else { return false };
        let level = if (recent as usize) < TRENDING_MENTIONS {
            activity_without_best(self.last_mentioned_at, as_of)
        } else if recent == self.mention_count {
            ActivityLevel::Trending
        } else {
            return false;
        };
        // A score of zero, or one beyond what a double holds, is the same at all times. If the best has no upvotes,
        // others have none or fewer.
        let none_has_votes = best.upvotes == 0 && self.total_upvotes == 0;
        let shows_age = best.score.is_normal() && best.score.abs() < f64::MAX;
        let own = score(best.upvotes, best.created_at, as_of);
        recent == self.recent_mention_count
            && level == self.activity_level
            && (shows_age || none_has_votes || self.mention_count == 1)
            && (own - best.score).abs() <= score_tolerance * own.abs()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::record::metrics::{RECENT_DAYS, days_before};
    use crate::record::{Mention, SourceType};

    fn hours(hours: i64) -> Timestamp {
        "2024-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + TimeDelta::hours(hours)
    }

    /// The figures of mentions with these ages in hours, seen from hour 0, and upvotes.
    fn figures(mentions: &[(i64, i32)], as_of: Timestamp) -> ConnectionMetrics<'static> {
        let mentions = mentions.iter().zip(1..).map(|((age, upvotes), number)| {
            let mention = Mention::new(SourceType::Post, number.to_string(), "u", "s", hours(-age)).upvotes(*upvotes);
            (Uuid::from_u128(number), mention)
        });
        let mentions: Vec<_> = mentions.collect();
        ConnectionMetrics::from_mentions(mentions.iter().map(|(id, mention)| (*id, mention)), as_of).into_stored()
    }

    fn recent(mentions: &[(i64, i32)], as_of: Timestamp) -> i32 {
        let since = days_before(as_of, RECENT_DAYS);
        mentions.iter().filter(|(age, _)| (since..=as_of).contains(&hours(-age))).count() as i32
    }

    const TOLERANCE: f64 = 0.001;

    proptest! {
        /// Ages are near the borders of 7 and 30 days; some mentions are of the future.
        #[test]
        fn figures_that_hold_agree_with_new_ones(
            mentions in vec(
                (
                    prop_oneof![-30_i64..30, 165_i64..171, 717_i64..723, 0_i64..2_000],
                    prop_oneof![Just(0), -3_i32..4, Just(i32::MAX)],
                ),
                1..9,
            ),
            written in -2_i64..3,
            now in -2_i64..3,
            far in prop_oneof![4 => Just(0_i64), 1 => -1_000_000_i64..1_000_000],
            tolerance in prop::sample::select(vec![0.0, TOLERANCE]),
        ) {
            let (written, now) = (hours(written + far), hours(now + far));
            let stored = figures(&mentions, written);
            let new = figures(&mentions, now);
            let (standing, recent) = (StandingFigures::of(&stored), recent(&mentions, now));
            prop_assert!(recent == 0 || standing.may_have_recent(now));
            let hold = standing.hold(recent, now, tolerance);
            prop_assert!(!hold || new.agrees_with(&stored, tolerance));
            // Nothing is given away where these figures can tell.
            let tells = (recent < 3 || recent == standing.mention_count)
                && standing.best.is_some_and(|best| best.score.is_normal() && best.score.abs() < f64::MAX);
            prop_assert!(hold || !tells || !new.agrees_with(&stored, tolerance));
        }
    }

    #[test]
    fn figures_without_a_readable_best_mention_do_not_hold() {
        let stored = figures(&[(1, 5)], hours(0));
        assert!(StandingFigures::of(&stored).hold(1, hours(0), 0.0));
        assert!(!StandingFigures { best: None, ..StandingFigures::of(&stored) }.hold(1, hours(0), 0.0));
        assert!(!StandingFigures::of(&stored).hold(0, hours(0), 0.0), "another number of recent mentions");
        assert!(
            StandingFigures::of(&stored).hold(1, hours(1), TOLERANCE)
                && !StandingFigures::of(&stored).hold(1, hours(2), TOLERANCE)
        );
    }
}
