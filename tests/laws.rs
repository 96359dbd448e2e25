//! Laws of the merge rules and of the metrics, without a database: random values against the
//! definitions and against the naive model of `tests/it/model.rs`.

#[allow(dead_code)]
#[path = "it/generate.rs"]
mod generate;
#[allow(dead_code)]
#[path = "it/model.rs"]
mod model;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use chrono::TimeDelta;
use graphsink::{
    ConnectionFacts, ConnectionMetrics, Coordinate, EntityFacts, Mention, MentionChange, MentionRef, Merge, Place,
    SortedSet, SourceType, StoredMetrics, TopMention,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use uuid::Uuid;

use generate::Space;
use model::{MentionSpec, PlaceSpec, Time};

fn as_of() -> Time {
    "2024-03-12T12:00:00Z".parse().unwrap()
}

/// Many cases are cheap here. `GRAPHSINK_TEST_CASES` says how many.
fn config() -> ProptestConfig {
    let cases = std::env::var("GRAPHSINK_TEST_CASES").map_or(512, |cases| cases.parse().expect("a number"));
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

// ---- merge rules -------------------------------------------------------------------------------

fn joined<T: Merge + Clone>(left: &T, right: &T) -> T {
    let mut joined = left.clone();
    joined.merge(right.clone());
    joined
}

fn is_semilattice<T: Merge + Clone + PartialEq + Debug>(a: &T, b: &T, c: &T) {
    assert_eq!(joined(a, b), joined(b, a), "commutative");
    assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)), "associative");
    assert_eq!(joined(a, a), *a, "idempotent");
    assert_eq!(joined(&joined(a, b), b), joined(a, b), "repeating what was said changes nothing");
}

fn set() -> impl Strategy<Value = SortedSet<u8>> {
    vec(0_u8..8, 0..6).prop_map(|members| members.into_iter().collect())
}

fn place() -> impl Strategy<Value = Place> {
    let metadata = select(vec![
        json!({}),
        json!({"a": 1}),
        json!({"a": 1.5}),
        json!({"b": 1, "a": [null, true]}),
        json!({"a": "x"}),
    ]);
    let text = || option::of(select(vec!["", "a", "B", "é"]).prop_map(str::to_owned));
    (option::of((-2_i64..3, -2_i64..3)), text(), text(), option::of(metadata), 0_i64..2).prop_map(
        |(location, address, google_place_id, metadata, hours)| Place {
            location: location
                .map(|(latitude, longitude)| (Coordinate::from_units(latitude), Coordinate::from_units(longitude))),
            address,
            google_place_id,
            metadata,
            observed_at: as_of() + TimeDelta::hours(hours),
        },
    )
}

fn entity_facts() -> impl Strategy<Value = EntityFacts<u8>> {
    let aliases = vec(select(vec!["a", "B", "é", "z"]).prop_map(Arc::from), 0..4);
    (aliases, set(), option::of(place())).prop_map(|(aliases, restaurant_attributes, place)| EntityFacts {
        aliases: aliases.into_iter().collect(),
        restaurant_attributes,
        place: place.map(Arc::new),
    })
}

fn connection_facts() -> impl Strategy<Value = ConnectionFacts<u8>> {
    (set(), any::<bool>()).prop_map(|(categories, is_menu_item)| ConnectionFacts { categories, is_menu_item })
}

/// Observations of one mention that often differ in a single column.
fn observation() -> impl Strategy<Value = Mention> {
    let either = || prop::bool::weighted(0.2);
    let times = (either(), either());
    let texts = (either(), either(), either(), either(), option::weighted(0.2, either()));
    (times, texts, select(vec![3, 3, 3, 4, -4])).prop_map(
        |((later, observed_later), (excerpt, thread, url, subreddit, author), upvotes)| {
            // "B" sorts before "a" by code point, and after it in most locales.
            let text = |other: bool| if other { "B" } else { "a" };
            let created_at = as_of() + TimeDelta::hours(later.into());
            let mut mention = Mention::new(SourceType::Post, "one", text(url), text(subreddit), created_at)
                .thread(text(thread))
                .excerpt(text(excerpt))
                .upvotes(upvotes)
                .observed_at(as_of() + TimeDelta::hours(5 + i64::from(observed_later)));
            mention.author = author.map(|other| text(other).to_owned());
            mention
        },
    )
}

fn place_spec() -> impl Strategy<Value = PlaceSpec> {
    generate::place(Space::tiny(as_of()))
}

fn mention_spec() -> impl Strategy<Value = MentionSpec> {
    generate::mention(Space::tiny(as_of()))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sets_are_a_semilattice(a in set(), b in set(), c in set()) {
        is_semilattice(&a, &b, &c);
    }

    #[test]
    fn places_are_a_semilattice(a in place(), b in place(), c in place()) {
        is_semilattice(&a, &b, &c);
    }

    #[test]
    fn entity_facts_are_a_semilattice(a in entity_facts(), b in entity_facts(), c in entity_facts()) {
        is_semilattice(&a, &b, &c);
    }

    #[test]
    fn connection_facts_are_a_semilattice(a in connection_facts(), b in connection_facts(), c in connection_facts()) {
        is_semilattice(&a, &b, &c);
    }

    #[test]
    fn mentions_are_a_semilattice(a in observation(), b in observation(), c in observation()) {
        is_semilattice::<MentionRef<'_>>(&(&a).into(), &(&b).into(), &(&c).into());
    }

    #[test]
    fn observations_that_tie_are_equal(a in observation(), b in observation()) {
        prop_assert_eq!(a.precedence(&b).is_eq(), a == b, "the order of precedence is total");
    }

    #[test]
    fn places_win_as_in_the_model(a in place_spec(), b in place_spec()) {
        let place = |spec: &PlaceSpec| Place {
            location: spec.location.map(|(latitude, longitude)| {
                (Coordinate::from_units(latitude), Coordinate::from_units(longitude))
            }),
            address: spec.address.clone(),
            google_place_id: spec.google_place_id.clone(),
            metadata: spec.metadata.clone(),
            observed_at: spec.observed_at,
        };
        prop_assert_eq!(place(&a).precedence(&place(&b)), a.precedence().cmp(&b.precedence()));
    }

    #[test]
    fn mentions_win_as_in_the_model(a in mention_spec(), b in mention_spec()) {
        prop_assert_eq!(a.mention().precedence(&b.mention()), a.precedence().cmp(&b.precedence()));
    }

    #[test]
    fn sets_hold_what_a_set_holds(members in vec(0_u8..20, 0..20), extra in 0_u8..20) {
        let mut expected: std::collections::BTreeSet<u8> = members.iter().copied().collect();
        let mut set: SortedSet<u8> = members.into_iter().collect();
        prop_assert_eq!(set.as_slice(), expected.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.insert(extra), expected.insert(extra));
        prop_assert_eq!(set.as_slice(), expected.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.remove(&extra), expected.remove(&extra));
        prop_assert_eq!(set.as_slice(), expected.iter().copied().collect::<Vec<_>>());
    }

    #[test]
    fn coordinates_that_fit_the_column_are_kept_exactly(units in -18_000_000_000_i64..=18_000_000_000) {
        prop_assert_eq!(Coordinate::longitude(units as f64 / 1e8).unwrap().units(), units);
    }

    /// What PostgreSQL gives back for a stored place must tie with what was stored, or whether a
    /// repetition changes the row, and which of two places wins, depends on what was batched together.
    #[test]
    fn a_place_ties_with_itself_as_stored(number in any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite())) {
        let place = |metadata| Place {
            location: None, address: None, google_place_id: None, metadata: Some(metadata), observed_at: as_of(),
        };
        let given = place(json!({"a": number + 0.0}));
        let stored = place(as_stored(given.metadata.as_ref().unwrap()));
        prop_assert!(given.precedence(&stored).is_eq(), "{:?} comes back as {:?}", given.metadata, stored.metadata);
    }
}

#[test]
fn whole_numbers_tie_with_themselves_as_stored() {
    for number in [1e15, 1e16, 1e18, -1e16, 1.8e19, 1e19, 1e20, 1e300, 4_503_599_627_370_497.5, 0.1, 1e-7, 5e-324] {
        let place = |metadata| Place {
            location: None,
            address: None,
            google_place_id: None,
            metadata: Some(metadata),
            observed_at: as_of(),
        };
        let given = json!({"a": number});
        let stored = as_stored(&given);
        assert!(place(given.clone()).precedence(&place(stored.clone())).is_eq(), "{given} comes back as {stored}");
    }
}

/// The value as it comes back from a `jsonb` column, which keeps decimals and knows no exponent.
fn as_stored(value: &Value) -> Value {
    let number = value["a"].as_f64().expect("a number");
    // Large whole numbers in all their digits; anything else with the digits that it is written with.
    let printed = match value["a"].to_string() {
        exponent if exponent.contains('e') && number.fract() == 0.0 => format!("{number:.0}"),
        exponent if exponent.contains('e') => format!("{number}"),
        plain => plain,
    };
    serde_json::from_str(&format!(r#"{{"a": {printed}}}"#)).unwrap()
}

// ---- metrics -----------------------------------------------------------------------------------

/// Mentions of one connection by natural key, with ids in order of first appearance.
#[derive(Debug, Clone, Default)]
struct Rows {
    ids: BTreeMap<(String, SourceType), Uuid>,
    mentions: BTreeMap<Uuid, Mention>,
}

impl Rows {
    /// Writes one epoch. Says what changed, as the store would: one change a row, against what stood there before.
    fn write(&mut self, epoch: &[MentionSpec]) -> Vec<(Uuid, Option<Mention>, Mention)> {
        let mentions: Vec<Mention> = epoch.iter().map(MentionSpec::mention).collect();
        let mut newest: BTreeMap<Uuid, MentionRef<'_>> = BTreeMap::new();
        for (spec, mention) in epoch.iter().zip(&mentions) {
            let next = Uuid::from_u128(self.ids.len() as u128 + 1);
            let id = *self.ids.entry((spec.source_id.clone(), spec.source_type)).or_insert(next);
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

    /// One epoch as the engine does it: advance the stored figures, read again what that asks for.
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

/// Through JSON and back, as `top_mentions` is stored: without the source ids.
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

/// The crate's figures against the model's, computed from the same rows.
fn assert_as_model(metrics: &ConnectionMetrics<'_>, rows: &Rows, as_of: Time) {
    let model_rows: Vec<(SourceType, String, model::MentionRow)> = rows
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
            (mention.source_type, mention.source_id.to_string(), row)
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
    let expected = |top: &model::TopRow| rows.ids[&(top.source_id.clone(), top.source_type)];
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

/// Mentions that tie as often as they can: few votes, few times.
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
        // The clock moves between epochs, and not only forward.
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

    /// A comparison that is no total order makes a large sort panic.
    #[test]
    fn large_epochs_of_ties_are_ranked(specs in tied_mentions(400, 300..400), first in 0_usize..60) {
        assert_any_split_is_the_whole(&specs, &[first], &[]);
    }
}

/// Cost must not grow with history: an epoch that only adds better or clearly worse mentions reads nothing again.
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
