//! Every merge rule is a join-semilattice, and its winner is that of the model.

use std::fmt::Debug;
use std::sync::Arc;

use chrono::TimeDelta;
use graphsink_testing::generate::{self, Space};
use graphsink_testing::model::{MentionSpec, PlaceSpec};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{as_of, config, mention};
use crate::record::{
    ConnectionFacts, Coordinate, EntityFacts, Mention, MentionRef, Merge, Place, SortedSet, SourceType,
};

fn joined<T: Merge + Clone>(left: &T, right: &T) -> T {
    let mut joined = left.clone();
    joined.merge(right.clone());
    joined
}

fn is_semilattice<T: Merge + Clone + PartialEq + Debug>(a: &T, b: &T, c: &T) {
    assert_eq!(joined(a, b), joined(b, a), "commutative");
    assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)), "associative");
    assert_eq!(joined(a, a), *a, "idempotent");
    assert_eq!(joined(&joined(a, b), b), joined(a, b), "repeating an observation changes nothing");
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

/// Observations of one mention that often differ in a single column only.
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
        prop_assert_eq!(mention(&a).precedence(&mention(&b)), a.precedence().cmp(&b.precedence()));
    }

    #[test]
    fn a_sorted_set_has_the_members_of_a_standard_set(members in vec(0_u8..20, 0..20), extra in 0_u8..20) {
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

    /// A place as PostgreSQL returns it must tie with the place as given. Otherwise the batching of units would decide
    /// whether a repetition changes the row, and which of two places wins.
    #[test]
    fn a_place_ties_with_itself_as_stored(number in any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite())) {
        let place = |metadata| Place {
            location: None, address: None, google_place_id: None, metadata: Some(metadata), observed_at: as_of(),
        };
        let given = place(json!({"a": number + 0.0}));
        let stored = place(as_stored(given.metadata.as_ref().unwrap()));
        prop_assert!(given.precedence(&stored).is_eq(), "{:?} is returned as {:?}", given.metadata, stored.metadata);
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
        assert!(place(given.clone()).precedence(&place(stored.clone())).is_eq(), "{given} is returned as {stored}");
    }
}

/// The value as a `jsonb` column returns it: decimals are kept, exponents are not.
fn as_stored(value: &Value) -> Value {
    let number = value["a"].as_f64().expect("a number");
    // Large whole numbers keep all their digits; other numbers keep the digits that they are written with.
    let printed = match value["a"].to_string() {
        exponent if exponent.contains('e') && number.fract() == 0.0 => format!("{number:.0}"),
        exponent if exponent.contains('e') => format!("{number}"),
        plain => plain,
    };
    serde_json::from_str(&format!(r#"{{"a": {printed}}}"#)).unwrap()
}
