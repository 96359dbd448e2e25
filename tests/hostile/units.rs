//! The result of `validate` for a unit, against the rules as `rules` states them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::thread;

use graphsink::{InvalidUnit, PlaceObservation, UnitOfWork};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value};

use crate::generate::{runner, seed};
use crate::rules::{broken, rows};
use crate::spec::{self, Odds, World};

fn odds(invalid: u32) -> Odds {
    let as_of = "2024-03-12T12:00:00Z".parse().unwrap();
    Odds { invalid, misleading: 100, all_times: true, as_of }
}

#[test]
fn a_unit_is_accepted_if_and_only_if_it_breaks_no_rule() {
    let world = World::imagined();
    let seed = seed("validate");
    let counts = RefCell::new(BTreeMap::new());
    // Usually one fault, or none; then several at once, so that they hide each other.
    for (invalid, cases) in [(8, 2_000), (60, 700)] {
        let strategy = (spec::unit(odds(invalid)), prop_oneof![9 => Just(1_000_usize), 1 => 1..12_usize]);
        let result = runner(seed, cases).run(&strategy, |(spec, rows_max)| {
            let unit = spec.build(&world);
            prop_assert_eq!(unit.rows(), rows(&spec));
            let expected = broken(&spec, rows_max);
            let rule = match unit.validate(rows_max) {
                Ok(()) => {
                    prop_assert!(expected.is_empty(), "accepted, though it breaks {:?}", expected);
                    "accepted"
                }
                Err(invalid) => {
                    let found = (invalid.rule(), invalid.row().map(|row| row.table));
                    prop_assert!(expected.contains(&found), "{} is not among {:?}", invalid, expected);
                    invalid.rule()
                }
            };
            *counts.borrow_mut().entry(rule).or_insert(0_u32) += 1;
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{failure}"));
    }
    println!("{:?}", counts.borrow());
}

/// The generator is useless if it breaks some rule never, or breaks none too rarely.
#[test]
fn every_rule_is_broken_by_some_unit() {
    let counts = RefCell::new(BTreeMap::new());
    let strategy = (spec::unit(odds(20)), prop_oneof![9 => Just(1_000_usize), 1 => 1..12_usize]);
    // A fixed seed makes this independent of chance and of the number of cases.
    let mut runner = runner(7, 1);
    for _ in 0..2_500 {
        let (spec, rows_max) = strategy.new_tree(&mut runner).unwrap().current();
        let broken = broken(&spec, rows_max);
        let mut counts = counts.borrow_mut();
        for (rule, _) in &broken {
            *counts.entry(*rule).or_insert(0_u32) += 1;
        }
        *counts.entry(if broken.is_empty() { "accepted" } else { "refused" }).or_insert(0) += 1;
    }
    let counts = counts.into_inner();
    for rule in [
        "no_rows",
        "too_many_rows",
        "dish_attribute_on_existing_connection",
        "blank_name",
        "blank_alias",
        "empty_text",
        "text_too_long",
        "nul_character",
        "too_many_dish_attributes",
        "coordinate_not_finite",
        "coordinate_out_of_range",
        "location_incomplete",
        "place_on_non_restaurant",
        "attributes_on_non_restaurant",
        "metadata_not_object",
        "metadata_too_deep",
        "wrong_entity_type",
        "foreign_handle",
        "mention_without_connection",
        "time_out_of_range",
        "observed_before_created",
    ] {
        assert!(counts.get(rule).is_some_and(|count| *count >= 2), "{rule} in {counts:?}");
    }
    assert!(counts["accepted"] > 400 && counts["refused"] > 400, "{counts:?}");
}

/// Validation runs on the caller's stack, and the depth of metadata is arbitrary.
#[test]
fn metadata_of_any_depth_is_refused_without_recursion() {
    let validated = thread::Builder::new().stack_size(256 << 10).spawn(|| {
        // Built by hand: `json!` copies its argument recursively.
        let metadata =
            (0..100_000).fold(Value::Null, |inner, _| Value::Object(Map::from_iter([("a".to_owned(), inner)])));
        let mut unit = UnitOfWork::new();
        unit.restaurant("r").place(PlaceObservation::new("2024-01-01T00:00:00Z".parse().unwrap()).metadata(metadata));
        let invalid = unit.validate(10).unwrap_err();
        // serde_json drops such a value recursively; the caller must handle that.
        std::mem::forget(unit);
        invalid
    });
    let invalid = validated.unwrap().join().unwrap();
    assert!(matches!(invalid, InvalidUnit::MetadataTooDeep { .. }), "{invalid}");
}
