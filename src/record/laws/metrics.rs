//! Figures that are advanced epoch by epoch equal those of the whole history, and those of the model.

use std::collections::{BTreeMap, HashSet};

use chrono::TimeDelta;
use graphsink_testing::generate::{self, Space};
use graphsink_testing::model::{self, MentionSpec, Time};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::{as_of, config, mention, source_type};
use crate::record::{
    ConnectionMetrics, Mention, MentionChange, MentionRef, Merge, SourceType, StoredMetrics, TopMention,
};

/// Mentions of one connection by natural key, with ids in order of first appearance.
#[derive(Debug, Clone, Default)]
struct Rows {
    ids: BTreeMap<(String, SourceType), Uuid>,
    mentions: BTreeMap<Uuid, Mention>,
}

impl Rows {
    /// Writes one epoch. Reports the changes as the store does: one change for each row, relative to the row before.
    fn write(&mut self, epoch: &[MentionSpec]) -> Vec<(Uuid, Option<Mention>, Mention)> {
        let mentions: Vec<Mention> = epoch.iter().map(mention).collect();
        let mut newest: BTreeMap<Uuid, MentionRef<'_>> = BTreeMap::new();
        for (spec, mention) in epoch.iter().zip(&mentions) {
            let next = Uuid::from_u128(self.ids.len() as u128 + 1);
            let id = *self.ids.entry((spec.source_id.clone(), source_type(spec.source_type))).or_insert(next);
            newest.entry(id).and_modify(|own| own.merge(mention.into())).or_insert(mention.into());
        }
        let mut changes = Vec::new();
        for (id, mention) in newest {
            let before = self.mentions.get(&id).cloned();
            if before.as_ref().is_some_and(|before| mention.precedence(&before.into()).is_le()) {
                continue;
            }
            let mention = mentions.iter().find(|own| MentionRef::from(*own) == mention).unwrap();
            self.mentions.insert(id, mention.clone());
            changes.push((id, before, mention.clone()));
        }
        changes
    }

    fn whole(&self, as_of: Time) -> ConnectionMetrics<'_> {
        ConnectionMetrics::from_mentions(self.mentions.iter().map(|(id, mention)| (*id, mention)), as_of)
    }

    /// One epoch as the engine writes it: advance the stored figures, and read again what they ask for.
    fn advance(&mut self, stored: &StoredMetrics, epoch: &[MentionSpec], as_of: Time) -> StoredMetrics {
        let before = self.clone();
        let changes = self.write(epoch);
        let changes: Vec<MentionChange<'_>> = changes
            .iter()
            .map(|(id, before, mention)| match before {
                None => MentionChange::Inserted { mention_id: *id, mention: mention.into() },
                Some(before) => {
                    MentionChange::Replaced { mention_id: *id, before: before.into(), mention: mention.into() }
                }
            })
            .collect();
        let known_threads: HashSet<&str> = before.mentions.values().map(|mention| &*mention.thread_id).collect();
        let recent_before = before.whole(as_of).recent_mention_count;
        let (mut after, reread) = stored.advance(&changes, recent_before, &known_threads, as_of);

        let whole = self.whole(as_of);
        if reread.threads {
            after.source_diversity = whole.source_diversity;
        }
        if reread.newest {
            after.last_mentioned_at = whole.last_mentioned_at;
        }
        if reread.top {
            let candidates = self
                .mentions
                .iter()
                .map(|(mention_id, mention)| TopMention {
                    mention_id: *mention_id,
                    score: 0.0,
                    upvotes: mention.upvotes,
                    content_excerpt: mention.content_excerpt.as_str().into(),
                    source_url: mention.source_url.as_str().into(),
                    created_at: mention.created_at,
                    source: Some((mention.source_id.to_string().into(), mention.source_type)),
                })
                .collect();
            after.top_mentions = candidates;
        }
        after.set_top(as_of);
        stored_form(&after)
    }
}

/// Through JSON and back, as `top_mentions` is stored: source ids are lost.
fn stored_form(metrics: &ConnectionMetrics<'_>) -> StoredMetrics {
    let top_mentions = serde_json::from_str(&serde_json::to_string(&metrics.top_mentions).unwrap()).unwrap();
    StoredMetrics {
        mention_count: metrics.mention_count,
        total_upvotes: metrics.total_upvotes,
        source_diversity: metrics.source_diversity,
        recent_mention_count: metrics.recent_mention_count,
        last_mentioned_at: metrics.last_mentioned_at,
        activity_level: metrics.activity_level,
        top_mentions,
    }
}

/// Compares the crate's figures with the model's, computed from the same rows.
fn assert_as_model(metrics: &ConnectionMetrics<'_>, rows: &Rows, as_of: Time) {
    let model_rows: Vec<(graphsink::SourceType, String, model::MentionRow)> = rows
        .mentions
        .values()
        .map(|mention| {
            let row = model::MentionRow {
                thread_id: mention.thread_id.to_string(),
                source_url: mention.source_url.clone(),
                subreddit: mention.subreddit.clone(),
                content_excerpt: mention.content_excerpt.clone(),
                author: mention.author.clone(),
                upvotes: mention.upvotes,
                created_at: mention.created_at,
                observed_at: mention.observed_at,
            };
            (mention.source_type.as_str().parse().unwrap(), mention.source_id.to_string(), row)
        })
        .collect();
    let model = model::metrics(model_rows.iter().map(|(kind, id, row)| (*kind, id.as_str(), row)), as_of);

    assert_eq!(i64::from(metrics.mention_count), model.mention_count, "mention_count");
    assert_eq!(metrics.total_upvotes, model.total_upvotes, "total_upvotes");
    assert_eq!(i64::from(metrics.source_diversity), model.source_diversity, "source_diversity");
    assert_eq!(i64::from(metrics.recent_mention_count), model.recent_mention_count, "recent_mention_count");
    assert_eq!(metrics.last_mentioned_at, model.last_mentioned_at, "last_mentioned_at");
    assert_eq!(metrics.activity_level.as_str(), model.activity_level, "activity_level");
    let top = metrics.top_mentions.iter().map(|top| top.mention_id).collect::<Vec<_>>();
    let expected = |top: &model::TopRow| rows.ids[&(top.source_id.clone(), source_type(top.source_type))];
    assert_eq!(top, model.top_mentions.iter().map(expected).collect::<Vec<_>>(), "top_mentions");
    for (own, model) in metrics.top_mentions.iter().zip(&model.top_mentions) {
        assert_eq!(own.upvotes, model.upvotes);
        assert_eq!(own.content_excerpt, model.content_excerpt);
        assert_eq!(own.source_url, model.source_url);
        assert_eq!(own.created_at, model.created_at);
        assert!((own.score - model.score).abs() <= 1e-9 * model.score.abs(), "{} is not {}", own.score, model.score);
    }
}

/// Mentions of one connection.
fn mentions(sources: usize, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<MentionSpec>> {
    vec(generate::mention(Space { sources, ..Space::tiny(as_of()) }), count)
}

/// Mentions with many ties: few votes, few times.
fn tied_mentions(sources: usize, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<MentionSpec>> {
    let spec = (
        generate::mention(Space { sources, ..Space::tiny(as_of()) }),
        select(vec![0, 0, 1, -1, 2]),
        select(vec![0_i64, 0, 1, 35]),
        select(vec![0_i64, 1, 1, 2]),
    );
    let spec = spec.prop_map(|(spec, upvotes, age, observed)| MentionSpec {
        upvotes,
        created_at: as_of() - TimeDelta::days(age),
        observed_at: as_of() + TimeDelta::days(observed),
        ..spec
    });
    vec(spec, count)
}

/// Cuts `specs` into epochs of the given sizes; the last takes the rest.
fn epochs<'a>(mut specs: &'a [MentionSpec], sizes: &[usize]) -> Vec<&'a [MentionSpec]> {
    let mut epochs = Vec::new();
    for size in sizes {
        let (epoch, rest) = specs.split_at((*size).min(specs.len()));
        epochs.push(epoch);
        specs = rest;
    }
    epochs.push(specs);
    epochs
}

fn assert_any_split_is_the_whole(specs: &[MentionSpec], sizes: &[usize], hours: &[i64]) {
    let mut rows = Rows::default();
    let mut stored = stored_form(&ConnectionMetrics::empty());
    for (number, epoch) in epochs(specs, sizes).into_iter().enumerate() {
        // The clock moves between epochs, forward and backward.
        let as_of = as_of() + TimeDelta::hours(hours.get(number).copied().unwrap_or(0));
        stored = rows.advance(&stored, epoch, as_of);
        assert_as_model(&stored, &rows, as_of);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn metrics_of_a_whole_are_those_of_the_model(specs in mentions(30, 0..40)) {
        let mut rows = Rows::default();
        rows.write(&specs);
        assert_as_model(&rows.whole(as_of()), &rows, as_of());
    }

    #[test]
    fn advancing_over_any_split_gives_the_metrics_of_the_whole(
        specs in mentions(9, 0..40),
        sizes in vec(0_usize..8, 0..10),
        hours in vec(-800_i64..800, 0..10),
    ) {
        assert_any_split_is_the_whole(&specs, &sizes, &hours);
    }

    #[test]
    fn advancing_over_ties_gives_the_metrics_of_the_whole(
        specs in tied_mentions(12, 0..40),
        sizes in vec(0_usize..8, 0..10),
    ) {
        assert_any_split_is_the_whole(&specs, &sizes, &[]);
    }

    #[test]
    fn repeating_an_epoch_changes_nothing(specs in mentions(9, 1..20), repeated in vec(0_usize..20, 0..20)) {
        let mut rows = Rows::default();
        let stored = rows.advance(&stored_form(&ConnectionMetrics::empty()), &specs, as_of());
        let again: Vec<MentionSpec> = repeated.iter().map(|index| specs[index % specs.len()].clone()).collect();
        prop_assert_eq!(rows.advance(&stored, &again, as_of()), stored);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases.min(64), ..config() })]

    /// Sorting a large slice panics if the comparison is no total order.
    #[test]
    fn large_epochs_of_ties_are_ranked(specs in tied_mentions(400, 300..400), first in 0_usize..60) {
        assert_any_split_is_the_whole(&specs, &[first], &[]);
    }
}

/// Costs must not grow with a history: an epoch that only adds mentions which are better or clearly worse reads nothing
/// again.
#[test]
fn plain_insertions_read_nothing_again() {
    let mention = |number: usize, upvotes: i32| {
        Mention::new(SourceType::Comment, format!("s{number}"), "u", "r", as_of() - TimeDelta::seconds(number as i64))
            .upvotes(upvotes)
    };
    let old: Vec<(Uuid, Mention)> =
        (0..50).map(|number| (Uuid::from_u128(number as u128 + 1), mention(number, 100 + number as i32))).collect();
    let stored = stored_form(&ConnectionMetrics::from_mentions(old.iter().map(|(id, row)| (*id, row)), as_of()));
    for upvotes in [1, 1_000, -5, 0] {
        let new = mention(99, upvotes);
        let change = MentionChange::Inserted { mention_id: Uuid::from_u128(99), mention: (&new).into() };
        let (_, reread) = stored.advance(&[change], 50, &HashSet::new(), as_of());
        assert!(!reread.any(), "{upvotes} upvotes: {reread:?}");
    }
}
