//! Single cases, with the calls that each of them makes.

use super::*;

pub(super) fn epoch(build: impl FnOnce(&mut UnitOfWork)) -> Epoch {
    let mut unit = UnitOfWork::new();
    build(&mut unit);
    unit.validate(1_000).unwrap();
    Epoch::from_units(vec![unit.prepare().share()])
}

/// A transaction on a copy of the tables, up to its commit.
pub(super) fn transaction(tables: &Tables, race: fn(&mut Tables)) -> Memory<fn(&mut Tables)> {
    Memory::new(tables.clone(), race)
}

#[test]
fn merely_referenced_rows_are_neither_locked_nor_written() {
    let mut tables = Tables::default();
    tables
        .write(
            &epoch(|unit| {
                unit.restaurant("r").alias("a");
            }),
            no_race,
        )
        .unwrap();
    let id = tables.id(EntityType::Restaurant, "r").unwrap();
    let locked = |epoch: &Epoch| {
        let memory = transaction(&tables, no_race);
        let written = memory.write(epoch).unwrap();
        (memory.rows_of("insert_entities") + memory.rows_of("lock_entities"), written.dispositions)
    };
    for again in [
        epoch(|unit| {
            unit.restaurant("r");
        }),
        epoch(|unit| {
            unit.existing_entity(id);
        }),
        epoch(|unit| {
            unit.restaurant("r").alias("a");
        }),
    ] {
        assert_eq!(locked(&again), (0, vec![(Table::Entities, Disposition::Unchanged)]));
    }
    let more = epoch(|unit| {
        unit.restaurant("r").alias("b");
    });
    assert_eq!(locked(&more), (1, vec![(Table::Entities, Disposition::Updated)]));
}

#[test]
fn a_google_id_moves_from_one_restaurant_of_an_epoch_to_another() {
    let placed = |unit: &mut UnitOfWork, name: &str, day, google: Option<&str>| {
        let mut place = PlaceObservation::new(at(day));
        place.google_place_id = google.map(str::to_owned);
        unit.restaurant(name).place(place);
    };
    let google = |tables: &Tables, name: &str| {
        let key = EntityKey { entity_type: EntityType::Restaurant, name: name.into() };
        tables.entities[&key].1.place.as_ref().unwrap().google_place_id.clone()
    };
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| placed(unit, "a", 1, Some("g1"))), no_race).unwrap();
    // An id moves to a new restaurant and to an existing one, with another id in return or none.
    for (day, others, own, to) in [(2, "b", Some("g2"), "g1"), (3, "b", None, "g2")] {
        let moved = epoch(|unit| {
            placed(unit, others, day, Some(to));
            placed(unit, "a", day, own);
        });
        let memory = transaction(&tables, no_race);
        memory.write(&moved).unwrap();
        assert_eq!(memory.rows_of("give_up_place_ids"), 1);
        tables.write(&moved, no_race).unwrap();
        assert_eq!((google(&tables, "a").as_deref(), google(&tables, others).as_deref()), (own, Some(to)));
    }
    // A row outside of the epoch has the id that "a" needs. No row of the epoch gives it up, and two rows must not have
    // it.
    let moved = epoch(|unit| {
        placed(unit, "c", 4, Some("g3"));
        placed(unit, "a", 4, Some("g1"));
    });
    let memory = transaction(&tables, |tables| {
        let held = epoch(|unit| {
            unit.restaurant("d").place(PlaceObservation::new(at(9)).google_place_id("g1"));
        });
        tables.write(&held, no_race).unwrap();
    });
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| memory.write(&moved)));
    assert!(refused.is_err());
    assert_eq!(memory.rows_of("give_up_place_ids"), 0);
}

#[test]
fn a_row_deleted_before_its_lock_is_noticed() {
    let mut tables = Tables::default();
    let whole = epoch(|unit| {
        let restaurant = unit.restaurant("r").alias("x").handle();
        let dish = unit.dish("d").handle();
        unit.connection(restaurant, dish);
    });
    tables.write(&whole, no_race).unwrap();
    let connection = tables.connections.values().next().unwrap().0;
    let more = epoch(|unit| {
        unit.restaurant("r").alias("y");
    });
    let by_id = epoch(|unit| {
        unit.existing_connection(connection);
    });
    let vanishing = |epoch: &Epoch| {
        let memory = transaction(&tables, |tables| {
            tables.entities.clear();
            tables.connections.clear();
        });
        memory.try_write(epoch).err()
    };
    for epoch in [more, by_id] {
        let vanished = vanishing(&epoch);
        assert!(matches!(vanished, Some(WriteError::Tables(MemoryError::Vanished))), "{vanished:?}");
    }
    let memory = transaction(&tables, no_race);
    let mut keys: Vec<_> = tables.connections.keys().cloned().collect();
    let clock = Clock { as_of: as_of(), score_tolerance: 0.0 };
    let refreshed = |keys| {
        memory.calls.borrow_mut().clear();
        let refreshed = refresh_connections(&memory, UnlockedConnections::of_keys(keys), clock);
        futures::FutureExt::now_or_never(refreshed).unwrap().map(|connections| connections.dispositions().0.count())
    };
    assert_eq!(refreshed(keys.clone()), Ok(1));
    keys[0].dish = Uuid::nil();
    assert_eq!(refreshed(keys), Err(MemoryError::Vanished));
}

#[test]
fn a_connection_that_another_writer_inserts_after_the_locks_is_used_at_the_second_attempt() {
    fn of_others(tables: &mut Tables) {
        let other = epoch(|unit| mentioned(unit, "b", "theirs"));
        tables.write(&other, no_race).unwrap();
    }
    let own = epoch(|unit| {
        for name in ["a", "b"] {
            mentioned(unit, name, "ours");
        }
    });
    // No other writer can insert a connection of a new entity.
    let mut known = Tables::default();
    let entities = epoch(|unit| {
        unit.restaurant("b");
        unit.dish("d");
    });
    known.write(&entities, no_race).unwrap();
    let mut alone = known.clone();
    of_others(&mut alone);
    alone.write(&own, no_race).unwrap();

    let memory = transaction(&known, no_race);
    memory.late_races.borrow_mut().push(of_others);
    memory.write(&own).unwrap();
    assert_eq!(memory.calls.borrow().iter().filter(|(call, _)| *call == "lock_connections").count(), 2);
    let tables = memory.tables.into_inner();
    tables.check_figures();
    assert_eq!(tables.natural(), alone.natural());
}

#[test]
fn a_transaction_that_always_loses_the_race_for_a_connection_gives_up() {
    const RACES_MAX: usize = super::super::write::RACES_MAX as usize;
    /// Inserts the connection of the first restaurant without one.
    fn next_of_others(tables: &mut Tables) {
        let next = tables.connections.len();
        tables.write(&epoch(|unit| mentioned(unit, &format!("r{next}"), "theirs")), no_race).unwrap();
    }
    let names: Vec<String> = (0..RACES_MAX + 2).map(|number| format!("r{number}")).collect();
    let mut tables = Tables::default();
    let entities = epoch(|unit| {
        unit.dish("d");
        for name in &names {
            unit.restaurant(name.as_str());
        }
    });
    tables.write(&entities, no_race).unwrap();
    let own = epoch(|unit| names.iter().for_each(|name| mentioned(unit, name, "ours")));
    for races in [RACES_MAX, RACES_MAX + 1] {
        let memory = transaction(&tables, no_race);
        memory.late_races.replace(vec![next_of_others; races]);
        let lost = match memory.try_write(&own) {
            Ok(_) => false,
            Err(WriteError::Tables(error)) => error == MemoryError::Race,
            Err(WriteError::Rejected(rejected)) => panic!("{rejected:?}"),
        };
        assert_eq!(lost, races > RACES_MAX);
        let locked = memory.calls.borrow().iter().filter(|(call, _)| *call == "lock_connections").count();
        assert_eq!(locked, RACES_MAX + 1, "{races} races");
    }
}

#[test]
fn entities_that_others_insert_one_after_another_are_used() {
    /// Inserts a restaurant that the epoch would insert.
    fn next_of_others(tables: &mut Tables) {
        let next = format!("r{}", tables.entities.len());
        let theirs = epoch(|unit| {
            unit.restaurant(next.as_str()).alias("theirs").handle();
        });
        tables.write(&theirs, no_race).unwrap();
    }
    let names: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    let own = epoch(|unit| {
        for name in &names {
            let attribute = unit.restaurant_attribute(name.as_str()).handle();
            unit.restaurant(name.as_str()).alias("ours").attribute(attribute).handle();
        }
    });
    for races in [1, 11, names.len()] {
        let mut expected = Tables::default();
        (0..races).for_each(|_| next_of_others(&mut expected));
        expected.write(&own, no_race).unwrap();
        let memory = transaction(&Tables::default(), no_race);
        memory.entity_races.replace(vec![next_of_others; races]);
        memory.write(&own).unwrap();
        assert_eq!(memory.rows_of("insert_entities"), 2 * names.len() - races);
        assert_eq!(memory.rows_of("lock_entities"), races, "what others inserted is locked, and changed");
        assert_eq!(memory.tables.into_inner().natural(), expected.natural());
    }
}

#[test]
fn a_race_for_an_entity_that_is_not_found_afterwards_ends_the_transaction() {
    fn of_others(tables: &mut Tables) {
        tables.write(&epoch(|unit| _ = unit.restaurant("r")), no_race).unwrap();
    }
    let memory = transaction(&Tables::default(), no_race);
    memory.hides_names.set(true);
    memory.entity_races.replace(vec![of_others]);
    let error = memory.try_write(&epoch(|unit| _ = unit.restaurant("r").alias("a"))).unwrap_err();
    assert!(matches!(error, WriteError::Tables(MemoryError::Race)), "{error:?}");
}

#[test]
fn changed_connections_are_written_in_parts() {
    let mut tables = Tables::default();
    let mentioned_in_all =
        |mention| epoch(|unit| ["a", "b", "c", "d", "e"].iter().for_each(|name| mentioned(unit, name, mention)));
    tables.write(&mentioned_in_all("1"), no_race).unwrap();
    let memory = transaction(&tables, no_race);
    memory.write(&mentioned_in_all("2")).unwrap();
    let calls = memory.calls.borrow();
    let parts: Vec<usize> =
        calls.iter().filter(|(call, _)| *call == "update_connections").map(|(_, rows)| *rows).collect();
    assert_eq!(parts, [2, 2, 1]);
}

#[test]
fn connections_follow_a_name_that_belongs_to_another_row_when_it_is_locked() {
    let of_more = |alias: &str| {
        epoch(|unit| {
            let [restaurant, dish] = [unit.restaurant("r").alias(alias).handle(), unit.dish("d").handle()];
            unit.connection(restaurant, dish);
        })
    };
    let mut tables = Tables::default();
    tables.write(&of_more("a"), no_race).unwrap();
    let other = Uuid::from_u128(7);
    let replaces: fn(&mut Tables) = |tables| {
        let key = EntityKey { entity_type: EntityType::Restaurant, name: "r".into() };
        tables.entities.get_mut(&key).unwrap().0 = Uuid::from_u128(7);
    };
    let memory = transaction(&tables, no_race);
    memory.entity_races.replace(vec![replaces]);
    memory.write(&of_more("b")).unwrap();
    let tables = memory.tables.into_inner();
    assert!(tables.connections.keys().any(|key| key.restaurant == other), "{:?}", tables.connections.keys());
}

#[test]
fn connections_of_new_entities_are_not_looked_up() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| mentioned(unit, "known", "1")), no_race).unwrap();
    let both = epoch(|unit| {
        for restaurant in ["known", "new"] {
            mentioned(unit, restaurant, "2");
        }
    });
    let memory = transaction(&tables, no_race);
    memory.write(&both).unwrap();
    assert_eq!((memory.rows_of("lock_connections"), memory.rows_of("insert_connections")), (1, 1));
    // Another writer inserts the restaurant first, and the connection with it.
    let memory = transaction(&tables, |tables| {
        tables.write(&epoch(|unit| mentioned(unit, "new", "3")), no_race).unwrap();
    });
    memory.write(&both).unwrap();
    assert_eq!((memory.rows_of("lock_connections"), memory.rows_of("insert_connections")), (2, 0));
    memory.tables.borrow().check_figures();
}

#[test]
fn known_names_are_looked_up_again_only_when_ids_may_be_wrong() {
    let known = Arc::new(KnownNames::new(100));
    let mut tables = Tables::default();
    let own = |mention: &'static str| epoch(move |unit| mentioned(unit, "r", mention));
    let write = |tables: &mut Tables, mention| {
        let memory = Memory { known: Some(Arc::clone(&known)), ..Memory::new(std::mem::take(tables), no_race) };
        let written = memory.write(&own(mention)).unwrap();
        known.remember(&written.learned);
        let (hits, misses) = (written.learned.hits, written.learned.misses);
        let asked = memory.asked.get();
        *tables = memory.tables.into_inner();
        (asked, hits, misses)
    };
    assert_eq!(write(&mut tables, "1"), ((2, 1), 0, 2), "both names are new");
    assert_eq!(write(&mut tables, "2"), ((0, 1), 2, 0));
    let before = tables.id(EntityType::Restaurant, "r");
    tables.delete(EntityType::Restaurant, "r");
    assert_eq!(write(&mut tables, "3"), ((2, 2), 0, 2), "one more call looks up all names");
    assert!(tables.id(EntityType::Restaurant, "r").is_some_and(|id| Some(id) != before));
    assert_eq!(write(&mut tables, "4"), ((0, 1), 2, 0));
    // If facts are stated the row is read, unless all of them are known to be stored, and always if a place is stated.
    let mut states = |aliases: &'static [&'static str], place: bool| {
        let stated = epoch(|unit| {
            let mut restaurant = unit.restaurant("r");
            for alias in aliases {
                restaurant = restaurant.alias(*alias);
            }
            if place {
                restaurant.place(PlaceObservation::new(at(1)));
            }
            unit.dish("d");
        });
        let memory = Memory { known: Some(Arc::clone(&known)), ..transaction(&tables, no_race) };
        let written = memory.write(&stated).unwrap();
        known.remember(&written.learned);
        let (asked, _) = memory.asked.get();
        tables = memory.tables.into_inner();
        assert_eq!((written.learned.hits, written.learned.misses), (2 - asked, asked));
        asked
    };
    assert_eq!(states(&["R"], false), 1);
    assert_eq!(states(&["R"], false), 0);
    assert_eq!(states(&["R", "S"], false), 1);
    assert_eq!(states(&["S"], false), 0);
    assert_eq!(states(&["S"], true), 1);
    let facts = &tables.entities[&EntityKey::new(EntityType::Restaurant, "r")].1;
    assert_eq!(facts.aliases.iter().map(|alias| &**alias).collect::<Vec<_>>(), ["R", "S"]);
}

pub(super) fn mentioned(unit: &mut UnitOfWork, restaurant: &str, mention: &str) {
    let restaurant = unit.restaurant(restaurant).handle();
    let dish = unit.dish("d").handle();
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, Mention::new(SourceType::Post, mention, "u", "s", at(1)));
}

#[test]
fn new_rows_have_new_ids_in_lock_order() {
    let new = epoch(|unit| ["b", "a", "c"].into_iter().for_each(|name| mentioned(unit, name, name)));
    let mut tables = Tables::default();
    tables.write(&new, no_race).unwrap();
    // The tables are in the order of the keys.
    let ids: Vec<Uuid> = tables.connections.values().map(|row| row.0).collect();
    assert!(ids.is_sorted_by(|left, right| left < right) && !ids[0].is_nil(), "{ids:?}");
    let mentions: Vec<Uuid> = tables.mentions.values().map(|row| row.0).collect();
    assert!(mentions.is_sorted_by(|left, right| left < right) && !mentions[0].is_nil(), "{mentions:?}");
    assert_eq!((ids.len(), mentions.len()), (3, 3));
}

#[test]
fn only_units_with_missing_ids_or_ids_of_another_type_are_rejected() {
    let mut tables = Tables::default();
    let both = epoch(|unit| {
        unit.restaurant("r");
        unit.dish("d");
    });
    tables.write(&both, no_race).unwrap();
    let restaurant = tables.id(EntityType::Restaurant, "r").unwrap();
    let dish = tables.id(EntityType::DishOrCategory, "d").unwrap();
    let nothing = Uuid::from_u128(5);
    let prepared = |build: &dyn Fn(&mut UnitOfWork)| {
        let mut unit = UnitOfWork::new();
        build(&mut unit);
        unit.prepare().share()
    };
    let good = prepared(&|unit| {
        unit.connection(restaurant, dish);
    });
    let missing_entity = prepared(&|unit| {
        unit.restaurant("s");
        unit.existing_entity(nothing);
    });
    let wrong_type = prepared(&|unit| {
        unit.restaurant("s");
        unit.connection(restaurant, dish).category(restaurant);
    });
    let missing_connection = prepared(&|unit| {
        unit.connection(restaurant, dish);
        unit.existing_connection(nothing);
    });

    let rejected = |units: Vec<crate::unit::SharedUnit>| {
        let memory = transaction(&tables, no_race);
        let rejected = memory.write(&Epoch::from_units(units)).unwrap_err();
        assert!(memory.calls.borrow().is_empty(), "nothing is locked or written");
        rejected
    };
    let rejected_entities = rejected(vec![good.clone(), missing_entity, good.clone(), wrong_type]);
    let units: Vec<usize> = rejected_entities.iter().map(|(unit, _)| *unit).collect();
    assert_eq!(units, [1, 3]);
    let missing = &rejected_entities[0].1;
    assert_eq!(missing.reason, RejectReason::MissingRow { table: Table::Entities, id: nothing });
    assert_eq!((missing.sqlstate.as_str(), missing.column.as_deref()), ("23503", Some("entity_id")));
    assert_eq!(missing.row.map(|row| (row.table, row.index)), Some((Table::Entities, 1)));
    let wrong = &rejected_entities[1].1;
    let (expected, found) = (EntityType::DishOrCategory, EntityType::Restaurant);
    assert_eq!(
        wrong.reason,
        RejectReason::WrongEntityType { id: restaurant, field: Field::Categories, expected, found }
    );
    assert_eq!((wrong.sqlstate.as_str(), wrong.column.as_deref()), ("23514", Some("categories")));
    assert_eq!(wrong.row.map(|row| (row.table, row.index)), Some((Table::Connections, 0)));

    let rejected_connections = rejected(vec![good.clone(), missing_connection]);
    assert_eq!(rejected_connections.len(), 1);
    let (unit, missing) = &rejected_connections[0];
    assert_eq!(*unit, 1);
    assert_eq!(missing.reason, RejectReason::MissingRow { table: Table::Connections, id: nothing });
    assert_eq!((missing.column.as_deref(), missing.row.map(|row| row.index)), (Some("connection_id"), Some(1)));
}
