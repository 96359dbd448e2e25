//! The plans at work on a database in memory: what `store/transaction.rs` does, without SQL.
//!
//! The laws: however units are grouped into epochs, and whoever writes in between, the tables are what
//! the units leave when each is written alone; figures equal those of all mentions; every unit hears
//! what the transaction did to its rows, which is told here from the tables before and after.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use uuid::Uuid;

use super::*;
use crate::hash::{HashMap, HashSet};
use crate::outcome::{Committed, CommittedRow, Disposition, RejectReason, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, ConnectionName, EntityFacts, EntityKey, EntityName, EntityType,
    Mention, RECENT_DAYS, SourceType, StoredMetrics, Table, Timestamp, days_before,
};
use crate::unit::{Field, PlaceObservation, UnitOfWork};

fn at(day: i64) -> Timestamp {
    "2024-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + chrono::TimeDelta::days(day)
}

/// What figures refer to.
fn as_of() -> Timestamp {
    at(60)
}

// ---- tables ------------------------------------------------------------------------------------

type MentionKey = (Uuid, SourceType, Arc<str>);
type Rejected = Vec<(usize, Rejection)>;
type KeysById = HashMap<Uuid, ConnectionKey<Uuid>>;

#[derive(Debug, Clone, Default, PartialEq)]
struct Tables {
    entities: BTreeMap<EntityKey, (Uuid, EntityFacts<Uuid>)>,
    connections: BTreeMap<ConnectionKey<Uuid>, (Uuid, ConnectionFacts<Uuid>, StoredMetrics)>,
    mentions: BTreeMap<MentionKey, (Uuid, Mention)>,
}

/// `top_mentions` keeps no source ids.
fn stored_form(metrics: &ConnectionMetrics<'_>) -> StoredMetrics {
    let top_mentions = serde_json::from_str(&serde_json::to_string(&metrics.top_mentions).unwrap()).unwrap();
    ConnectionMetrics { top_mentions, ..*metrics }
}

impl Tables {
    fn id(&self, entity_type: EntityType, name: &str) -> Option<Uuid> {
        self.entities.get(&EntityKey { entity_type, name: name.into() }).map(|(id, _)| *id)
    }

    fn entity_by_id(&self, id: Uuid) -> Option<StoredEntity> {
        let (key, (id, facts)) = self.entities.iter().find(|(_, row)| row.0 == id)?;
        Some(StoredEntity { id: *id, key: key.clone(), facts: Some(facts.clone()) })
    }

    fn mentions_of(&self, connection: Uuid) -> impl Iterator<Item = (Uuid, &Mention)> {
        self.mentions.iter().filter(move |(key, _)| key.0 == connection).map(|(_, (id, mention))| (*id, mention))
    }

    /// One transaction. `race` is what others commit after its lookups.
    fn write(&mut self, epoch: &Epoch, race: impl FnOnce(&mut Self)) -> Result<(Vec<Committed>, Self), Rejected> {
        let (mut entities, keys_by_id) = self.look_up(epoch)?;
        race(self);
        let before = self.clone();
        let updates = self.insert_or_lock_entities(epoch, &mut entities);
        let mut connections = ConnectionPlan::resolve(epoch, &entities, &keys_by_id);
        self.update_entities(&updates);
        self.lock_or_insert_connections(&mut connections);
        self.write_mentions(&mut connections);
        let (connection_rows, mention_rows) = connections.committed();
        let committed = epoch.committed(&entities.committed(), &connection_rows, &mention_rows);
        self.check_dispositions(&before, &entities, &connections);
        Ok((committed, before))
    }

    fn look_up(&self, epoch: &Epoch) -> Result<(EntityPlan, KeysById), Rejected> {
        let (mut by_key, mut by_id) = (HashMap::default(), HashMap::default());
        for (slot, (name, facts)) in (0_u32..).zip(epoch.entities.rows()) {
            match name {
                EntityName::Key(key) => {
                    if let Some((id, stored)) = self.entities.get(key) {
                        let facts = (!facts.is_empty()).then(|| stored.clone());
                        by_key.insert(slot, StoredEntity { id: *id, key: key.clone(), facts });
                    }
                }
                EntityName::Id(id) => by_id.extend(self.entity_by_id(*id).map(|stored| (*id, stored))),
            }
        }
        let named: HashSet<Uuid> = epoch.connections.rows().iter().filter_map(|(name, _)| name.id()).collect();
        let keys_by_id: KeysById = self
            .connections
            .iter()
            .filter(|(_, row)| named.contains(&row.0))
            .map(|(key, row)| (row.0, key.clone()))
            .collect();
        let rejected = ConnectionPlan::rejections(epoch, &keys_by_id);
        if !rejected.is_empty() {
            return Err(rejected);
        }
        Ok((EntityPlan::resolve(epoch, by_key, by_id)?, keys_by_id))
    }

    fn insert_or_lock_entities(&mut self, epoch: &Epoch, plan: &mut EntityPlan) -> EntityUpdates {
        let writes = plan.to_insert_or_lock(&epoch.entities);
        assert!(writes.is_sorted_by(|left, right| left.key < right.key), "locks are taken in the order of the keys");
        let mut inserted = Vec::new();
        for write in &writes {
            self.entities.entry(write.key.clone()).or_insert_with(|| {
                inserted.push(write.id);
                let mut facts = write.facts.clone();
                if let Some(place) = &mut facts.place {
                    Arc::make_mut(place).google_place_id = None;
                }
                (write.id, facts)
            });
        }
        let mut keys: HashSet<EntityKey> =
            writes.iter().filter(|write| write.exists).map(|write| write.key.clone()).collect();
        keys.extend(plan.inserted_or_locked(&writes, &inserted).unwrap());
        let read = |key: EntityKey| {
            let (id, facts) = self.entities[&key].clone();
            StoredEntity { id, key, facts: Some(facts) }
        };
        plan.read_under_lock(keys.into_iter().map(read).collect());
        plan.remaining_updates(&epoch.entities, &writes)
    }

    fn update_entities(&mut self, updates: &EntityUpdates) {
        let google_id = |facts: &EntityFacts<Uuid>| facts.place.as_ref()?.google_place_id.clone();
        assert!(updates.writes.is_sorted_by_key(|write| google_id(&write.facts)), "Google ids are locks too");
        let mut changes = (false, false);
        for id in &updates.give_up {
            let facts = self.entities.values_mut().find(|row| row.0 == *id).map(|row| &mut row.1).unwrap();
            Arc::make_mut(facts.place.as_mut().unwrap()).google_place_id = None;
            changes.0 = true;
        }
        for write in &updates.writes {
            if let Some(taken) = google_id(&write.facts) {
                changes.1 = true;
                let held = self
                    .entities
                    .iter()
                    .any(|(key, row)| *key != write.key && google_id(&row.1).as_ref() == Some(&taken));
                assert!(!held, "{taken} would be held twice for a moment");
            }
            let row = self.entities.get_mut(&write.key).unwrap();
            assert_eq!(row.0, write.id, "an id is for good");
            assert_ne!(row.1, write.facts, "a row that changes nothing is not written");
            changes.0 |= google_id(&row.1).is_some_and(|before| google_id(&write.facts) != Some(before));
            row.1 = write.facts.clone();
        }
        let expected = match changes {
            (true, _) => PlaceIds::GivenUp,
            (false, true) => PlaceIds::Taken,
            (false, false) => PlaceIds::Untouched,
        };
        assert_eq!(updates.place_ids, expected);
    }

    fn lock_or_insert_connections(&mut self, plan: &mut ConnectionPlan) {
        let keys: Vec<_> = plan.connections().iter().map(|node| node.key.clone()).collect();
        assert!(keys.is_sorted_by(|left, right| left < right), "locks are taken in the order of the keys");
        for (index, key) in (0_u32..).zip(&keys) {
            if let Some((id, facts, metrics)) = self.connections.get(key).cloned() {
                plan.set_stored(index, StoredConnection { id, facts, metrics });
            }
        }
        for write in plan.new_rows(as_of()) {
            let row = (write.id, write.facts.into_owned(), stored_form(&write.metrics));
            let before = self.connections.insert(keys[write.node as usize].clone(), row);
            assert_eq!(before, None, "what is there was locked");
        }
    }

    fn write_mentions(&mut self, plan: &mut ConnectionPlan) {
        let (mut recent, mut threads) = (HashMap::default(), HashMap::default());
        let existing = plan.existing().unwrap();
        for connection in &existing {
            let id = plan.stored(*connection).unwrap().id;
            let is_recent = |mention: &Mention| {
                mention.created_at <= as_of() && mention.created_at >= days_before(as_of(), RECENT_DAYS)
            };
            let count = self.mentions_of(id).filter(|(_, mention)| is_recent(mention)).count() as i32;
            recent.insert(*connection, count);
            let known: HashSet<Arc<str>> =
                self.mentions_of(id).map(|(_, mention)| Arc::clone(&mention.thread_id)).collect();
            threads.insert(*connection, known);
            let stored: Vec<(u32, StoredMention)> = plan
                .mentions_of(*connection)
                .filter_map(|(index, node)| {
                    let key = (id, node.mention.source_type, Arc::clone(&node.mention.source_id));
                    let (id, mention) = self.mentions.get(&key)?.clone();
                    Some((index, StoredMention { id, mention }))
                })
                .collect();
            for (index, stored) in stored {
                plan.set_stored_mention(index, stored);
            }
        }
        for (disposition, exists) in [(Disposition::Inserted, false), (Disposition::Updated, true)] {
            for node in plan.mentions_to(disposition) {
                let connection = plan.connections()[node.connection as usize].id;
                let key = (connection, node.mention.source_type, Arc::clone(&node.mention.source_id));
                let before = self.mentions.insert(key, (node.id, (*node.mention).clone()));
                assert_eq!(before.map(|(id, _)| id), exists.then_some(node.id));
            }
        }
        let mut updated = Vec::new();
        for connection in &existing {
            let known = threads[connection].iter().map(|thread| &**thread).collect();
            let Some(mut write) = plan.advance(*connection, recent[connection], &known, as_of(), 0.0) else { continue };
            let whole = ConnectionMetrics::from_mentions(self.mentions_of(write.id), as_of());
            if write.reread.threads {
                write.metrics.source_diversity = whole.source_diversity;
            }
            if write.reread.newest {
                write.metrics.last_mentioned_at = whole.last_mentioned_at;
            }
            if write.reread.top {
                let rows = self.mentions_of(write.id).map(|(id, mention)| top_mention(id, mention.clone()));
                write.metrics.top_mentions = rows.collect();
            }
            write.metrics.set_top(as_of());
            if !plan.changes(&write, 0.0) {
                continue;
            }
            let key = &plan.connections()[write.node as usize].key;
            updated.push((key.clone(), (write.id, write.facts.into_owned(), stored_form(&write.metrics)), write.node));
        }
        let nodes: Vec<u32> = updated.iter().map(|(_, _, node)| *node).collect();
        for (key, row, _) in updated {
            let before = self.connections.insert(key, row.clone());
            assert_ne!(before.as_ref(), Some(&row), "a row that changes nothing is not written");
            assert_eq!(before.unwrap().0, row.0, "an id is for good");
        }
        plan.mark_updated(nodes);
    }

    /// How many rows of each kind the epoch inserted, updated and left, told from the tables.
    fn check_dispositions(&self, before: &Self, entities: &EntityPlan, connections: &ConnectionPlan) {
        fn changed<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> (usize, usize) {
            let updated =
                after.iter().filter(|(key, row)| before.get(key).is_some_and(|before| before != *row)).count();
            (after.len() - before.len(), updated)
        }
        let count = |dispositions: &[Disposition]| {
            let of = |disposition| dispositions.iter().filter(|own| **own == disposition).count();
            (of(Disposition::Inserted), of(Disposition::Updated))
        };
        let (of_connections, of_mentions) = connections.dispositions();
        assert_eq!(count(&entities.dispositions().collect::<Vec<_>>()), changed(&before.entities, &self.entities));
        assert_eq!(count(&of_connections.collect::<Vec<_>>()), changed(&before.connections, &self.connections));
        assert_eq!(count(&of_mentions.collect::<Vec<_>>()), changed(&before.mentions, &self.mentions));
    }

    /// The tables with names in place of ids.
    fn natural(&self) -> Vec<String> {
        let names: HashMap<Uuid, &EntityKey> = self.entities.iter().map(|(key, row)| (row.0, key)).collect();
        let all = |ids: &crate::record::SortedSet<Uuid>| {
            let mut sorted: Vec<_> = ids.iter().map(|id| &*names[id].name).collect();
            sorted.sort_unstable();
            format!("{sorted:?}")
        };
        let mut lines = Vec::new();
        for (key, (_, facts)) in &self.entities {
            let attributes = all(&facts.restaurant_attributes);
            lines.push(format!("{key:?}: {:?} {attributes} {:?}", facts.aliases, facts.place));
        }
        for (key, (id, facts, metrics)) in &self.connections {
            let name =
                format!("{} {} {}", names[&key.restaurant].name, names[&key.dish].name, all(&key.dish_attributes));
            let ConnectionMetrics { top_mentions, .. } = metrics;
            let tops: Vec<_> = top_mentions.iter().map(|top| (top.upvotes, top.created_at, top.score)).collect();
            let figures = ConnectionMetrics { top_mentions: Vec::new(), ..metrics.clone() };
            lines.push(format!("{name}: {} {} {figures:?} {tops:?}", all(&facts.categories), facts.is_menu_item));
            lines.extend(self.mentions_of(*id).map(|(_, mention)| format!("{name}: {mention:?}")));
        }
        lines.sort();
        lines
    }

    fn check_figures(&self) {
        for (id, _, metrics) in self.connections.values() {
            let whole = stored_form(&ConnectionMetrics::from_mentions(self.mentions_of(*id), as_of()));
            assert_eq!(*metrics, whole);
        }
        let connections: HashSet<Uuid> = self.connections.values().map(|row| row.0).collect();
        assert!(self.mentions.keys().all(|key| connections.contains(&key.0)), "every mention has its connection");
    }
}

// ---- units -------------------------------------------------------------------------------------

/// One thing that a unit says. `by_id`: by the id, if the row exists by then.
#[derive(Debug, Clone)]
enum Drawn {
    Restaurant { name: u8, by_id: bool, alias: Option<u8>, attribute: Option<u8>, place: Option<(u8, bool, i64)> },
    Dish { name: u8, by_id: bool, alias: Option<u8> },
    Connection { of: (u8, u8, Option<u8>), by_id: bool, ends_by_id: bool, category: Option<u8>, menu: bool },
    Mention { of: (u8, u8, Option<u8>), by_id: bool, source: u8, thread: u8, upvotes: i32, created: i64, observed: i64 },
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let of = || (0_u8..2, 0_u8..3, proptest::option::weighted(0.3, 0_u8..2));
    let place = (0_u8..3, any::<bool>(), 0_i64..3);
    prop_oneof![
        1 => (0_u8..3, any::<bool>(), any::<Option<bool>>(), proptest::option::of(0_u8..3), proptest::option::of(place))
            .prop_map(|(name, by_id, alias, attribute, place)| {
                Drawn::Restaurant { name, by_id, alias: alias.map(u8::from), attribute, place }
            }),
        1 => (0_u8..3, any::<bool>(), proptest::option::of(0_u8..3))
            .prop_map(|(name, by_id, alias)| Drawn::Dish { name, by_id, alias }),
        1 => (of(), any::<bool>(), any::<bool>(), proptest::option::of(0_u8..3), any::<bool>())
            .prop_map(|(of, by_id, ends_by_id, category, menu)| Drawn::Connection { of, by_id, ends_by_id, category, menu }),
        3 => (of(), any::<bool>(), 0_u8..8, 0_u8..4, -2_i32..6, 0_i64..61, 0_i64..3).prop_map(
            |(of, by_id, source, thread, upvotes, created, observed)| {
                Drawn::Mention { of, by_id, source, thread, upvotes, created, observed }
            }
        ),
    ]
}

/// A unit that says all this of rows as they are named in the tables.
fn unit(said: &[Drawn], tables: &Tables) -> Arc<crate::unit::Unit> {
    let mut unit = UnitOfWork::new();
    let entity = |unit: &mut UnitOfWork, entity_type, name: String, by_id: bool| match tables.id(entity_type, &name) {
        Some(id) if by_id => unit.existing_entity(id).handle(),
        _ => unit.entity(entity_type, name).handle(),
    };
    let restaurant = |name: u8| format!("r{name}");
    let dish = |name: u8| format!("d{name}");
    let existing = |(at, of, attribute): (u8, u8, Option<u8>)| {
        let attributes = attribute.map(|name| tables.id(EntityType::DishAttribute, &format!("a{name}")));
        let key = ConnectionKey {
            restaurant: tables.id(EntityType::Restaurant, &restaurant(at))?,
            dish: tables.id(EntityType::DishOrCategory, &dish(of))?,
            dish_attributes: attributes.into_iter().collect::<Option<Vec<_>>>()?.into_iter().collect(),
        };
        tables.connections.get(&key).map(|row| row.0)
    };
    let connection = |unit: &mut UnitOfWork, of: (u8, u8, Option<u8>), by_id: bool| {
        let at = entity(unit, EntityType::Restaurant, restaurant(of.0), by_id);
        let served = entity(unit, EntityType::DishOrCategory, dish(of.1), by_id);
        let attribute = of.2.map(|name| entity(unit, EntityType::DishAttribute, format!("a{name}"), by_id));
        let mut builder = unit.connection(at, served).menu_item(false);
        if let Some(attribute) = attribute {
            builder = builder.dish_attribute(attribute);
        }
        builder.handle()
    };
    for said in said.iter().cloned() {
        match said {
            Drawn::Restaurant { name, by_id, alias, attribute, place } => {
                let attribute =
                    attribute.map(|name| entity(&mut unit, EntityType::RestaurantAttribute, format!("p{name}"), by_id));
                let own = entity(&mut unit, EntityType::Restaurant, restaurant(name), by_id);
                let mut builder = unit.again(own);
                if let Some(alias) = alias {
                    // One of them is the restaurant's own name.
                    builder = builder.alias(restaurant(alias));
                }
                if let Some(attribute) = attribute {
                    builder = builder.attribute(attribute);
                }
                if let Some((number, google, day)) = place {
                    let mut place = PlaceObservation::new(at(day)).address(number.to_string());
                    if google {
                        place = place.google_place_id(format!("{} {number}", 9 - name));
                    }
                    builder.place(place);
                }
            }
            Drawn::Dish { name, by_id, alias } => {
                let own = entity(&mut unit, EntityType::DishOrCategory, dish(name), by_id);
                if let Some(alias) = alias {
                    unit.again(own).alias(dish(alias));
                }
            }
            Drawn::Connection { of, by_id, ends_by_id, category, menu } => {
                let category = category.map(|name| entity(&mut unit, EntityType::DishOrCategory, dish(name), by_id));
                let own = match existing(of).filter(|_| by_id) {
                    Some(id) => unit.existing_connection(id).handle(),
                    None => connection(&mut unit, of, ends_by_id),
                };
                let mut builder = unit.say_more(own).menu_item(menu);
                if let Some(category) = category {
                    builder = builder.category(category);
                }
                builder.handle();
            }
            Drawn::Mention { of, by_id, source, thread, upvotes, created, observed } => {
                let source_type = if source % 2 == 0 { SourceType::Post } else { SourceType::Comment };
                let mention = Mention::new(source_type, format!("s{}", source / 2), "u", "s", at(created))
                    .thread(format!("t{thread}"))
                    .upvotes(upvotes)
                    .observed_at(at(70 + observed));
                if let Some(id) = existing(of).filter(|_| by_id) {
                    unit.mention(id, mention);
                } else {
                    let own = connection(&mut unit, of, by_id);
                    unit.mention(own, mention);
                }
            }
        }
    }
    unit.validate(1_000).unwrap();
    Arc::new(unit.prepare())
}

/// The ids that a unit was told lead to the rows that it named.
fn check_ids(unit: &crate::unit::Unit, committed: &Committed, tables: &Tables) {
    for ((name, _), CommittedRow { id, .. }) in unit.entities.iter().zip(&committed.entities) {
        match name {
            EntityName::Key(key) => assert_eq!(tables.entities[key].0, *id),
            EntityName::Id(named) => assert_eq!(named, id),
        }
    }
    for ((name, _), CommittedRow { id, .. }) in unit.connections.iter().zip(&committed.connections) {
        assert!(tables.connections.values().any(|row| row.0 == *id));
        if let ConnectionName::Id(named) = name {
            assert_eq!(named, id);
        }
    }
    for ((name, mention), CommittedRow { id, .. }) in unit.mentions.iter().zip(&committed.mentions) {
        let row = tables.mentions.iter().find(|(_, row)| row.0 == *id).unwrap();
        assert_eq!((row.0.1, &row.0.2), (name.source_type, &name.source_id));
        assert!(mention.precedence(&row.1.1).is_le(), "the row is this observation, or one that wins against it");
    }
    let given = (committed.entities.len(), committed.connections.len(), committed.mentions.len());
    assert_eq!(given, (unit.entities.len(), unit.connections.len(), unit.mentions.len()));
}

fn nobody(_: &mut Tables) {}

/// Writes units in epochs of the given sizes; before every second epoch's locks, another writer is
/// faster with the first unit of the next.
fn check_any_grouping(units: &[Vec<Drawn>], sizes: &[usize], races: bool) -> TestCaseResult {
    let mut grouped = Tables::default();
    let mut rest = units;
    let mut sizes = sizes.iter().copied().cycle();
    let mut race = races;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        rest = later;
        let epoch = Epoch::from_units(now.iter().map(|said| unit(said, &grouped)).collect());
        let faster = |tables: &mut Tables| {
            for said in now.first().into_iter().chain(later.first()).filter(|_| race) {
                let faster = Epoch::from_units(vec![unit(said, tables)]);
                tables.write(&faster, nobody).unwrap();
            }
        };
        let (committed, _) = grouped.write(&epoch, faster).unwrap();
        for (unit, committed) in epoch.units().iter().zip(&committed) {
            check_ids(unit, committed, &grouped);
        }
        grouped.check_figures();
        race = races && !race;
    }

    let mut alone = Tables::default();
    for said in units.iter().rev() {
        let epoch = Epoch::from_units(vec![unit(said, &alone)]);
        alone.write(&epoch, nobody).unwrap();
    }
    prop_assert_eq!(grouped.natural(), alone.natural());

    // All of it once more changes nothing, and says so.
    let everything = Epoch::from_units(units.iter().map(|said| unit(said, &grouped)).collect());
    let (committed, before) = grouped.write(&everything, nobody).unwrap();
    prop_assert_eq!(&grouped, &before);
    let rows = committed.iter().flat_map(|unit| unit.entities.iter().chain(&unit.connections).chain(&unit.mentions));
    prop_assert!(rows.into_iter().all(|row| row.disposition == Disposition::Unchanged));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn any_grouping_leaves_what_each_unit_alone_leaves(
        units in vec(vec(drawn(), 1..6), 1..14),
        sizes in vec(1_usize..5, 1..4),
        races in any::<bool>(),
    ) {
        check_any_grouping(&units, &sizes, races)?;
    }
}

// ---- single cases ------------------------------------------------------------------------------

fn epoch(build: impl FnOnce(&mut UnitOfWork)) -> Epoch {
    let mut unit = UnitOfWork::new();
    build(&mut unit);
    unit.validate(1_000).unwrap();
    Epoch::from_units(vec![Arc::new(unit.prepare())])
}

#[test]
fn what_is_merely_referenced_is_neither_locked_nor_written() {
    let mut tables = Tables::default();
    tables
        .write(
            &epoch(|unit| {
                unit.restaurant("r").alias("a");
            }),
            nobody,
        )
        .unwrap();
    let id = tables.id(EntityType::Restaurant, "r").unwrap();
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
        let (plan, _) = tables.look_up(&again).unwrap();
        assert!(plan.to_insert_or_lock(&again.entities).is_empty());
        assert_eq!(plan.committed()[0].disposition, Disposition::Unchanged);
    }
    let more = epoch(|unit| {
        unit.restaurant("r").alias("b");
    });
    let (plan, _) = tables.look_up(&more).unwrap();
    assert_eq!(plan.to_insert_or_lock(&more.entities).len(), 1);
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
    tables.write(&epoch(|unit| placed(unit, "a", 1, Some("g1"))), nobody).unwrap();
    let give_up = RefCell::new(Vec::new());
    // Once to a new restaurant, once to one that exists; for another id, and for none.
    for (day, others, own, to) in [(2, "b", Some("g2"), "g1"), (3, "b", None, "g2"), (4, "c", Some("g1"), "g3")] {
        let moved = epoch(|unit| {
            placed(unit, others, day, Some(to));
            placed(unit, "a", day, own);
        });
        let mut copy = tables.clone();
        let (mut plan, _) = copy.look_up(&moved).unwrap();
        let updates = copy.insert_or_lock_entities(&moved, &mut plan);
        give_up.borrow_mut().push(updates.give_up.len());
        if day < 4 {
            tables.write(&moved, nobody).unwrap();
            assert_eq!((google(&tables, "a").as_deref(), google(&tables, others).as_deref()), (own, Some(to)));
        }
    }
    // In the last case another row still holds what "a" wants: nobody of the epoch gives it up.
    assert_eq!(give_up.into_inner(), [1, 1, 0]);
}

#[test]
fn a_row_that_is_gone_when_it_is_to_be_locked_is_noticed() {
    let mut tables = Tables::default();
    let whole = || {
        epoch(|unit| {
            let restaurant = unit.restaurant("r").alias("x").handle();
            let dish = unit.dish("d").handle();
            unit.connection(restaurant, dish);
        })
    };
    tables.write(&whole(), nobody).unwrap();
    let connection = tables.connections.values().next().unwrap().0;

    let more = epoch(|unit| {
        unit.restaurant("r").alias("y");
    });
    let (mut plan, _) = tables.look_up(&more).unwrap();
    let writes = plan.to_insert_or_lock(&more.entities);
    assert!(writes[0].exists);
    assert_eq!(plan.inserted_or_locked(&writes, &[writes[0].id]), Err(VanishedRow));

    let by_id = epoch(|unit| {
        unit.existing_connection(connection);
    });
    let (entities, keys) = tables.look_up(&by_id).unwrap();
    let by_key = ConnectionPlan::of_keys(tables.connections.keys().cloned().collect());
    for mut plan in [ConnectionPlan::resolve(&by_id, &entities, &keys), by_key] {
        assert_eq!(plan.existing(), Err(VanishedRow));
        tables.lock_or_insert_connections(&mut plan);
        assert_eq!(plan.existing(), Ok(vec![0]));
    }
}

#[test]
fn new_rows_have_new_ids_in_lock_order() {
    let new = epoch(|unit| {
        for name in ["b", "a", "c"] {
            let restaurant = unit.restaurant(name).handle();
            let dish = unit.dish("d").handle();
            let connection = unit.connection(restaurant, dish).handle();
            unit.mention(connection, Mention::new(SourceType::Post, name, "u", "s", at(1)));
        }
    });
    let (entities, keys) = Tables::default().look_up(&new).unwrap();
    let plan = ConnectionPlan::resolve(&new, &entities, &keys);
    let ids: Vec<Uuid> = plan.connections().iter().map(|node| node.id).collect();
    assert!(ids.is_sorted_by(|left, right| left < right) && !ids[0].is_nil(), "{ids:?}");
    let mentions: Vec<Uuid> = plan.mentions_to(Disposition::Inserted).map(|node| node.id).collect();
    assert!(mentions.is_sorted_by(|left, right| left < right) && !mentions[0].is_nil(), "{mentions:?}");
    assert_eq!(mentions.len(), 3);
}

#[test]
fn units_are_rejected_for_ids_of_nothing_and_of_another_type_and_no_other_unit_is() {
    let mut tables = Tables::default();
    let both = epoch(|unit| {
        unit.restaurant("r");
        unit.dish("d");
    });
    tables.write(&both, nobody).unwrap();
    let restaurant = tables.id(EntityType::Restaurant, "r").unwrap();
    let dish = tables.id(EntityType::DishOrCategory, "d").unwrap();
    let nothing = Uuid::from_u128(5);
    let prepared = |build: &dyn Fn(&mut UnitOfWork)| {
        let mut unit = UnitOfWork::new();
        build(&mut unit);
        Arc::new(unit.prepare())
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

    let rejected = |units: Vec<Arc<crate::unit::Unit>>| tables.look_up(&Epoch::from_units(units)).err().unwrap();
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
