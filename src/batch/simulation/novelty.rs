//! Epochs that take what was not met to be new, with the calls that each of them makes.

use super::cases::{epoch, mentioned, transaction};
use super::*;

/// Connections of known entities that no epoch stated before are taken to be new, once others were.
#[test]
fn a_connection_that_was_not_met_is_copied_unless_one_of_them_was_stored() {
    let mut tables = Tables::default();
    tables
        .write(&epoch(|unit| ["a", "b", "c", "d"].iter().for_each(|name| _ = unit.restaurant(*name))), no_race)
        .unwrap();
    tables.write(&epoch(|unit| mentioned(unit, "e", "1")), no_race).unwrap();
    let novelty = Remembers::names(1).novelty;
    let write = |tables: &mut Tables, own: &Epoch, others: Option<fn(&mut Tables)>| {
        let memory = Memory { novelty: novelty.clone(), ..transaction(tables, no_race) };
        memory.late_races.borrow_mut().extend(others);
        memory.write(own).unwrap();
        let called = memory.calls.borrow().iter().filter(|(call, _)| call.ends_with("_connections")).copied().collect();
        *tables = memory.tables.into_inner();
        tables.check_figures();
        let called: Vec<(&str, usize)> = called;
        called
    };
    let own = |names: &'static [&str]| epoch(|unit| names.iter().for_each(|name| mentioned(unit, name, "2")));
    let right = write(&mut tables, &own(&["a"]), None);
    assert_eq!(right, [("lock_connections", 0), ("insert_connections", 1)]);
    // It has been met, and is looked up; so is "e", which another engine wrote, when the guess proves wrong.
    let wrong = write(&mut tables, &own(&["a", "b", "e"]), None);
    let again =
        [("lock_connections", 1), ("insert_connections", 2), ("lock_connections", 3), ("insert_connections", 1)];
    assert_eq!(wrong[..4], again);
    assert_eq!(write(&mut tables, &own(&["c"]), None)[0], ("lock_connections", 1), "no more guesses");
    // Another writer inserts it after the guess.
    guess_again(novelty.as_ref().unwrap());
    let raced = write(
        &mut tables,
        &own(&["d"]),
        Some(|tables| {
            tables.write(&epoch(|unit| mentioned(unit, "d", "3")), no_race).unwrap();
        }),
    );
    assert_eq!(raced[..3], [("lock_connections", 0), ("insert_connections", 1), ("lock_connections", 1)]);
    assert_eq!(tables.mentions.len(), 7);
}

/// Names that no epoch stated before are taken to be new, unless some lead elsewhere; one that is there is found.
#[test]
fn a_name_that_was_not_met_is_inserted_and_looked_up_only_if_that_is_refused() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| ["a", "b", "d"].iter().for_each(|name| _ = unit.restaurant(*name))), no_race).unwrap();
    let own =
        |names: &'static [&str]| epoch(|unit| names.iter().for_each(|name| _ = unit.restaurant(*name).alias("x")));
    // The names of an epoch, whether names lead elsewhere, and how many are asked for, in how many calls.
    let Remembers { known, novelty, .. } = Remembers::names(10);
    for (names, has_redirects, asked) in [
        (&["p", "q"][..], false, (0, 1)),
        (&["p", "r"], false, (1, 1)),
        (&["a", "s"], false, (2, 2)),
        (&["b", "t"], false, (2, 1)),
        (&["d", "u"], true, (2, 2)),
        (&["v"], true, (1, 1)),
    ] {
        if names != ["b", "t"] && names != ["v"] {
            guess_again(novelty.as_ref().unwrap());
        }
        let memory =
            Memory { novelty: novelty.clone(), known: known.clone(), has_redirects, ..transaction(&tables, no_race) };
        memory.write(&own(names)).unwrap();
        assert_eq!(memory.asked.get(), asked, "{names:?}");
        tables = memory.tables.into_inner();
        assert!(names.iter().all(|name| tables.id(EntityType::Restaurant, name).is_some()));
    }
    assert_eq!(tables.entities.len(), 10);
}

/// A trigger or a check refuses a row that is not to be inserted at all: no unit is to blame.
#[test]
fn a_guess_that_is_refused_for_another_reason_is_looked_up() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| mentioned(unit, "a", "1")), no_race).unwrap();
    let novelty = Remembers::names(1).novelty;
    let known = Remembers::names(1).known;
    let refusing = |tables: &Tables| Memory {
        novelty: novelty.clone(),
        known: known.clone(),
        rows_max: 0,
        ..transaction(tables, no_race)
    };
    let meet = epoch(|unit| ["a", "c"].iter().for_each(|name| _ = unit.restaurant(*name)));
    tables.write(&epoch(|unit| mentioned(unit, "c", "1")), no_race).unwrap();
    // Names that are stored, then, as these have been met, a connection.
    for (call, own) in [("refused entities", meet), ("insert_connections", epoch(|unit| mentioned(unit, "c", "2")))] {
        guess_again(novelty.as_ref().unwrap());
        let memory = refusing(&tables);
        memory.write(&own).unwrap();
        assert!(memory.rows_of(call) > 0, "{call}: {:?}", memory.calls);
        memory.tables.borrow().check_figures();
    }
    // One that is not there is refused for itself.
    guess_again(novelty.as_ref().unwrap());
    let refused = refusing(&tables).try_write(&epoch(|unit| mentioned(unit, "b", "1"))).err();
    assert!(matches!(refused, Some(WriteError::Tables(MemoryError::Refused))), "{refused:?}");
}
