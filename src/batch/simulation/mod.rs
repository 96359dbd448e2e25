//! The product's algorithm on tables in memory.
//!
//! The laws: for any grouping of units into epochs, and any commits of other writers in between, the tables equal those
//! after each unit is written alone; figures equal those of all mentions; every unit's outcome states what the
//! transaction did to its rows, which is determined here from the tables before and after. The tables themselves check
//! the order of the calls: no lock out of order, no row written without a change.

mod cases;
mod in_memory;
mod novelty;
mod repeats;
mod transaction;
mod units;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use uuid::Uuid;

use super::tables::*;
use super::*;
use crate::batch::novelty::Unmet;
use crate::batch::repeats::Repeated;
use crate::hash::{HashMap, HashSet};
use crate::outcome::{Committed, CommittedRow, Disposition, RejectReason, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, EntityFacts, EntityKey, EntityType, Mention, SourceType,
    StandingFigures, StoredMetrics, Table, Timestamp,
};
use crate::unit::{ConnectionRecordName, EntityRecord, Field, PlaceObservation, PreparedUnits, SharedUnit, UnitOfWork};

pub(crate) use in_memory::{Tables, stored_form};
pub(crate) use units::{Drawn, draft, drawn};

use in_memory::*;
use transaction::*;
use units::*;

pub(crate) fn at(day: i64) -> Timestamp {
    "2024-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + chrono::TimeDelta::days(day)
}

/// The time to which figures refer.
pub(crate) fn as_of() -> Timestamp {
    at(60)
}

fn no_race(_: &mut Tables) {}

/// What an engine remembers from epoch to epoch.
#[derive(Debug, Clone, Default)]
struct Remembers {
    known: Option<Arc<KnownNames>>,
    novelty: Option<Arc<Novelty>>,
    expects_repeats: bool,
}

impl Remembers {
    /// So many names. What was not met is taken to be new.
    fn names(known: usize) -> Self {
        let novelty = Novelty::new();
        guess_again(&novelty);
        Self { known: Some(Arc::new(KnownNames::new(known))), novelty: Some(Arc::new(novelty)), expects_repeats: true }
    }
}

/// What is not met is taken to be new from now on.
fn guess_again(novelty: &Novelty) {
    for filter in [&novelty.entities, &novelty.connections] {
        filter.observe(Unmet { stored: 0, absent: u32::MAX });
    }
}

/// The epoch of these units, stored side by side as in the engine.
fn epoch(units: impl Iterator<Item = SharedUnit>) -> Epoch {
    Epoch::from_units(PreparedUnits::gather(&units.collect::<Vec<_>>()))
}

/// Writes units in epochs of the given sizes; before every second epoch's locks, another writer first writes the first
/// unit of the next epoch.
fn check_any_grouping(
    units: &[Vec<Drawn>],
    sizes: &[usize],
    races: bool,
    known: usize,
    expects_repeats: &[bool],
) -> TestCaseResult {
    let mut grouped = Tables::default();
    let mut remembers = Remembers::names(known);
    let mut rest = units;
    let mut sizes = sizes.iter().copied().cycle();
    let mut race = races;
    let mut expects_repeats = expects_repeats.iter().copied().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        rest = later;
        let epoch = epoch(now.iter().map(|said| unit(said, &grouped)));
        let faster = |tables: &mut Tables| {
            for said in now.first().into_iter().chain(later.first()).filter(|_| race) {
                let faster = Epoch::from_units(vec![unit(said, tables)]);
                tables.write(&faster, no_race).unwrap();
            }
        };
        remembers.expects_repeats = expects_repeats.next().unwrap();
        guess_again(remembers.novelty.as_ref().unwrap());
        let (committed, _) = grouped.write_with(&epoch, faster, &remembers).unwrap();
        for (unit, committed) in epoch.units().zip(&committed) {
            check_ids(unit, committed, &grouped);
        }
        grouped.check_figures();
        if races {
            grouped.index_as_of_old(race);
        }
        race = races && !race;
    }

    let mut alone = Tables::default();
    for said in units.iter().rev() {
        let epoch = Epoch::from_units(vec![unit(said, &alone)]);
        alone.write(&epoch, no_race).unwrap();
    }
    prop_assert_eq!(grouped.natural(), alone.natural());

    // Writing everything again changes nothing, and the outcome says so.
    let everything = epoch(units.iter().map(|said| unit(said, &grouped)));
    let mut told = Vec::new();
    for expects_repeats in [false, true] {
        remembers.expects_repeats = expects_repeats;
        let (committed, before) = grouped.write_with(&everything, no_race, &remembers).unwrap();
        prop_assert_eq!(&grouped, &before);
        let rows =
            committed.iter().flat_map(|unit| unit.entities.iter().chain(&unit.connections).chain(&unit.mentions));
        let rows: Vec<CommittedRow> = rows.copied().collect();
        prop_assert!(rows.iter().all(|row| row.disposition == Disposition::Unchanged));
        told.push(rows);
    }
    prop_assert_eq!(&told[0], &told[1]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn any_grouping_leaves_the_tables_of_unit_by_unit_writes(
        units in vec(vec(drawn(), 1..6), 1..14),
        sizes in vec(1_usize..5, 1..4),
        races in any::<bool>(),
        known in 1_usize..12,
        expects_repeats in vec(any::<bool>(), 1..4),
    ) {
        check_any_grouping(&units, &sizes, races, known, &expects_repeats)?;
    }

    #[test]
    fn known_names_lead_to_the_same_ids_as_lookups(steps in vec(step(), 1..24), known in 1_usize..12) {
        check_known_names(&steps, known)?;
    }
}

/// Events between, before and after epochs.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Vec<Drawn>>),
    /// An epoch that is written, and rolled back.
    RollBack(Vec<Drawn>),
    /// Actions of other programs.
    Delete(EntityType, u8),
    Swap(EntityType, u8, u8),
    TakeBack(EntityType, u8),
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    let of_type = || {
        prop::sample::select(vec![
            EntityType::Restaurant,
            EntityType::DishOrCategory,
            EntityType::DishAttribute,
            EntityType::RestaurantAttribute,
        ])
    };
    prop_oneof![
        6 => vec(vec(drawn(), 1..4), 1..4).prop_map(Step::Commit),
        1 => vec(drawn(), 1..4).prop_map(Step::RollBack),
        2 => (of_type(), 0_u8..3).prop_map(|(of, name)| Step::Delete(of, name)),
        2 => (of_type(), 0_u8..3, 0_u8..3).prop_map(|(of, one, other)| Step::Swap(of, one, other)),
        2 => (of_type(), 0_u8..3).prop_map(|(of, name)| Step::TakeBack(of, name)),
        1 => Just(Step::Truncate),
    ]
}

/// The same steps, by an engine that remembers names up to a maximum, and by one that remembers none.
fn check_known_names(steps: &[Step], known: usize) -> TestCaseResult {
    let mut worlds = [(Tables::default(), Remembers::names(known)), (Tables::default(), Remembers::default())];
    for step in steps {
        for (tables, remembers) in &mut worlds {
            remembers.novelty.iter().for_each(|novelty| guess_again(novelty));
            match step {
                Step::Commit(units) => {
                    let epoch = epoch(units.iter().map(|said| unit(said, tables)));
                    let (committed, _) = tables.write_with(&epoch, no_race, remembers).unwrap();
                    for (unit, committed) in epoch.units().zip(&committed) {
                        check_ids(unit, committed, tables);
                    }
                    tables.check_figures();
                }
                Step::RollBack(said) => {
                    let epoch = Epoch::from_units(vec![unit(said, tables)]);
                    let memory = Memory {
                        known: remembers.known.clone(),
                        novelty: remembers.novelty.clone(),
                        ..Memory::new(tables.clone(), no_race)
                    };
                    memory.write(&epoch).unwrap();
                }
                Step::Delete(entity_type, number) => tables.delete(*entity_type, &name(*entity_type, *number)),
                Step::Swap(entity_type, one, other) if one != other => {
                    let names = [one, other].map(|number| name(*entity_type, *number));
                    tables.swap(*entity_type, names.each_ref().map(String::as_str));
                }
                Step::Swap(..) => {}
                Step::TakeBack(entity_type, number) => tables.take_back(*entity_type, &name(*entity_type, *number)),
                Step::Truncate => *tables = Tables { generation: tables.generation + 1, ..Tables::default() },
            }
        }
        prop_assert_eq!(worlds[0].0.natural(), worlds[1].0.natural());
    }
    Ok(())
}
