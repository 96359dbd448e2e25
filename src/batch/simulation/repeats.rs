//! Epochs that expect repeated mentions, with the calls that each of them makes.

use super::cases::{epoch, mentioned, transaction};
use super::*;

/// One of two connections is stored as stated. Another writer changes it, or deletes it, once it was found.
#[test]
fn connections_about_which_nothing_new_is_stated_are_neither_locked_nor_written() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| ["a", "b"].iter().for_each(|name| mentioned(unit, name, "1"))), no_race).unwrap();
    let own = epoch(|unit| {
        mentioned(unit, "a", "1");
        mentioned(unit, "b", "2");
    });
    let races: [fn(&mut Tables); 3] = [
        no_race,
        |tables| _ = tables.write(&epoch(|unit| mentioned(unit, "a", "3")), no_race).unwrap(),
        |tables| tables.delete(EntityType::Restaurant, "a"),
    ];
    for race in races {
        let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
        memory.repeat_races.borrow_mut().push(race);
        let written = memory.write(&own).unwrap();
        assert_eq!(written.repeated, Repeated { settled: 1, others: 1 });
        assert_eq!(
            ["find_repeats", "lock_connections", "insert_connections"].map(|call| memory.rows_of(call)),
            [2, 1, 0]
        );
        assert_eq!(["update_connections", "insert_mentions"].map(|call| memory.rows_of(call)), [1, 1]);
        memory.tables.borrow().check_figures();
    }
    // Nothing but repeats: there is nothing to lock, and nothing to write.
    let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
    let written = memory.write(&epoch(|unit| mentioned(unit, "a", "1"))).unwrap();
    assert_eq!((written.repeated.settled, memory.rows_of("lock_connections")), (1, 0));
}

/// Another writer inserts a connection after the locks, so that connections are looked up again.
#[test]
fn settled_connections_stay_settled_when_connections_are_looked_up_again() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| ["a", "b"].iter().for_each(|name| mentioned(unit, name, "1"))), no_race).unwrap();
    tables.write(&epoch(|unit| _ = unit.restaurant("c")), no_race).unwrap();
    let own = epoch(|unit| {
        mentioned(unit, "a", "1");
        mentioned(unit, "b", "2");
        mentioned(unit, "c", "2");
    });
    let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
    memory.late_races.borrow_mut().push(|tables| {
        tables.write(&epoch(|unit| ["a", "c"].iter().for_each(|name| mentioned(unit, name, "3"))), no_race).unwrap();
    });
    memory.write(&own).unwrap();
    let locked =
        memory.calls.borrow().iter().filter(|(call, _)| *call == "lock_connections").copied().collect::<Vec<_>>();
    assert_eq!(locked, [("lock_connections", 2); 2]);
    let tables = memory.tables.into_inner();
    tables.check_figures();
    assert_eq!(tables.mentions.len(), 6);
}

#[test]
fn connections_about_which_something_new_is_stated_are_locked() {
    let mut tables = Tables::default();
    tables.write(&epoch(|unit| mentioned(unit, "a", "1")), no_race).unwrap();
    // Something new is stated: a fact, another mention, a newer observation.
    let changes: [fn(&mut UnitOfWork); 3] = [
        |unit| {
            let (restaurant, dish) = (unit.restaurant("a").handle(), unit.dish("d").handle());
            let connection = unit.connection(restaurant, dish).category(dish).handle();
            unit.mention(connection, Mention::new(SourceType::Post, "1", "u", "s", at(1)));
        },
        |unit| mentioned(unit, "a", "2"),
        |unit| {
            let (restaurant, dish) = (unit.restaurant("a").handle(), unit.dish("d").handle());
            let connection = unit.connection(restaurant, dish).handle();
            unit.mention(connection, Mention::new(SourceType::Post, "1", "u", "s", at(1)).observed_at(at(2)));
        },
    ];
    for change in changes {
        let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
        let both = epoch(|unit| {
            mentioned(unit, "a", "1");
            change(unit);
        });
        let written = memory.write(&both).unwrap();
        assert_eq!(memory.rows_of("lock_connections"), 1, "{:?}", memory.calls);
        assert_eq!(written.repeated, Repeated { settled: 0, others: 1 });
    }
    // Many mentions of one connection are looked up together.
    let many = epoch(|unit| ["1", "2", "3"].iter().for_each(|mention| mentioned(unit, "b", mention)));
    tables.write(&many, no_race).unwrap();
    let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
    let written = memory.write(&many).unwrap();
    assert_eq!((memory.rows_of("find_repeats"), memory.rows_of("lock_connections")), (0, 1));
    assert_eq!(written.repeated, Repeated::default());
    // A connection that is not stored is looked for in vain, unless one of its entities is new.
    for (restaurant, others) in [("c", 0), ("d", 1)] {
        let mut tables = tables.clone();
        tables.write(&epoch(|unit| _ = unit.restaurant("d")), no_race).unwrap();
        let written = transaction(&tables, no_race).write(&epoch(|unit| mentioned(unit, restaurant, "1"))).unwrap();
        assert_eq!(written.repeated, Repeated { settled: 0, others });
    }
    // Recent mentions are counted, and a count that has become wrong is corrected.
    let recent = epoch(|unit| {
        let (restaurant, dish) = (unit.restaurant("a").handle(), unit.dish("d").handle());
        let connection = unit.connection(restaurant, dish).handle();
        unit.mention(connection, Mention::new(SourceType::Post, "recent", "u", "s", at(55)).upvotes(3));
    });
    tables.write(&recent, no_race).unwrap();
    for (wrong, locked) in [(0, 0), (1, 1)] {
        let mut tables = tables.clone();
        for row in tables.connections.values_mut().filter(|row| row.2.recent_mention_count > 0) {
            row.2.recent_mention_count += wrong;
        }
        let memory = Memory { expects_repeats: true, ..transaction(&tables, no_race) };
        memory.write(&recent).unwrap();
        assert_eq!(memory.rows_of("lock_connections"), locked);
        memory.tables.borrow().check_figures();
    }
}
