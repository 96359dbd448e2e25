//! The product's algorithm on tables in memory.
//!
//! The laws: however units are grouped into epochs, and whatever other writers commit in between, the tables are what
//! the units leave when each is written alone; figures equal those of all mentions; every unit hears
//! what the transaction did to its rows, which is told here from the tables before and after. The order of the calls
//! is checked by the tables themselves: no lock out of order, no row written that changes nothing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use uuid::Uuid;

use super::tables::*;
use super::*;
use crate::hash::{HashMap, HashSet};
use crate::outcome::{Committed, CommittedRow, Disposition, RejectReason, Rejection};
use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, EntityFacts, EntityKey, EntityType, Mention, SourceType,
    StoredMetrics, Table, Timestamp,
};
use crate::unit::{ConnectionRecordName, EntityRecord, Field, PlaceObservation, UnitOfWork};

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

#[derive(Debug, Clone, Default, PartialEq)]
struct Tables {
    entities: BTreeMap<EntityKey, (Uuid, EntityFacts<Uuid>)>,
    connections: BTreeMap<ConnectionKey<Uuid>, (Uuid, ConnectionFacts<Uuid>, StoredMetrics)>,
    mentions: BTreeMap<MentionKey, (Uuid, Mention)>,
    /// Connections, and mentions, that are looked up in the indexes for long histories.
    indexed: BTreeSet<Uuid>,
    /// Changes with everything that may make an id wrong.
    generation: u64,
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

    /// The mentions that a question finds: by the index for long histories, or all of them.
    fn found(&self, connection: Uuid, history_indexed: bool) -> impl Iterator<Item = (Uuid, &Mention)> {
        self.mentions_of(connection).filter(move |(id, _)| !history_indexed || self.indexed.contains(id))
    }

    /// What an engine leaves that knows nothing of long histories: a connection and all of its mentions indexed, or some
    /// mentions of a connection that is not.
    fn index_as_of_old(&mut self, whole: bool) {
        let Some((connection, ..)) = self.connections.values().next().cloned() else { return };
        let mentions: Vec<Uuid> = self.mentions_of(connection).map(|(id, _)| id).collect();
        if whole {
            self.indexed.insert(connection);
        }
        self.indexed.extend(mentions.iter().step_by(if whole { 1 } else { 2 }));
    }

    /// One transaction. `race` is what others commit after its lookups.
    fn write(&mut self, epoch: &Epoch, race: impl FnOnce(&mut Self)) -> Result<(Vec<Committed>, Self), Rejected> {
        self.write_with(epoch, race, None)
    }

    /// The same, of an engine that remembers names.
    fn write_with(
        &mut self,
        epoch: &Epoch,
        race: impl FnOnce(&mut Self),
        known: Option<&Arc<KnownNames>>,
    ) -> Result<(Vec<Committed>, Self), Rejected> {
        let memory = Memory { known: known.cloned(), ..Memory::new(std::mem::take(self), race) };
        let written = memory.write(epoch);
        let Memory { tables, before, .. } = memory;
        *self = tables.into_inner();
        let (written, before) = (written?, before.into_inner());
        self.check_dispositions(&before, &written);
        if let Some(known) = known {
            known.remember(&written.learned);
        }
        Ok((written.units, before))
    }

    /// Deletes an entity, and what names it.
    fn delete(&mut self, entity_type: EntityType, name: &str) {
        let Some((gone, _)) = self.entities.remove(&EntityKey::new(entity_type, name)) else { return };
        self.generation += 1;
        self.connections.retain(|key, _| {
            key.restaurant != gone && key.dish != gone && key.dish_attributes.iter().all(|own| *own != gone)
        });
        for (_, facts, _) in self.connections.values_mut() {
            facts.categories.remove(&gone);
        }
        for (_, facts) in self.entities.values_mut() {
            facts.restaurant_attributes.remove(&gone);
        }
        let connections: HashSet<Uuid> = self.connections.values().map(|row| row.0).collect();
        self.mentions.retain(|key, _| connections.contains(&key.0));
    }

    /// Takes everything back that is said of an entity.
    fn take_back(&mut self, entity_type: EntityType, name: &str) {
        if let Some((_, facts)) = self.entities.get_mut(&EntityKey::new(entity_type, name)) {
            *facts = EntityFacts { place: facts.place.take(), ..EntityFacts::default() };
            self.generation += 1;
        }
    }

    /// Two entities get each other's names, or one that of another that is not there.
    fn swap(&mut self, entity_type: EntityType, names: [&str; 2]) {
        let keys = names.map(|name| EntityKey::new(entity_type, name));
        let rows = keys.each_ref().map(|key| self.entities.remove(key));
        self.generation += u64::from(rows.iter().any(Option::is_some));
        for (mut row, key) in rows.into_iter().zip(keys.into_iter().rev()) {
            // What a restaurant of the other name has is refused to one that says it again, which no law is about.
            if let Some(place) = row.as_mut().and_then(|row| row.1.place.as_mut()) {
                Arc::make_mut(place).google_place_id = None;
            }
            self.entities.extend(row.map(|row| (key, row)));
        }
    }

    /// How many rows of each kind the epoch inserted, updated and left, told from the tables.
    fn check_dispositions(&self, before: &Self, written: &Written) {
        fn changed<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> (usize, usize) {
            let updated =
                after.iter().filter(|(key, row)| before.get(key).is_some_and(|before| before != *row)).count();
            (after.len() - before.len(), updated)
        }
        let told = |table: Table| {
            let of = |disposition| written.dispositions.iter().filter(|own| **own == (table, disposition)).count();
            (of(Disposition::Inserted), of(Disposition::Updated))
        };
        assert_eq!(told(Table::Entities), changed(&before.entities, &self.entities));
        assert_eq!(told(Table::Connections), changed(&before.connections, &self.connections));
        assert_eq!(told(Table::Mentions), changed(&before.mentions, &self.mentions));
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
            let indexed = self.indexed.contains(id);
            let all = self.mentions_of(*id).all(|(mention, _)| self.indexed.contains(&mention));
            assert!(all || !indexed, "a long history is indexed whole");
            assert!(indexed || !is_long(metrics.mention_count as usize), "a long history is indexed");
        }
        let connections: HashSet<Uuid> = self.connections.values().map(|row| row.0).collect();
        assert!(self.mentions.keys().all(|key| connections.contains(&key.0)), "every mention has its connection");
    }
}

// ---- one transaction ----------------------------------------------------------------------------

/// Tables within one transaction.
struct Memory<R> {
    tables: RefCell<Tables>,
    /// As they were when the race was over.
    before: RefCell<Tables>,
    /// What others commit after the lookups.
    race: RefCell<Option<R>>,
    /// What others commit after connections were locked, each time.
    late_races: RefCell<Vec<R>>,
    /// How many rows each statement was asked to touch, in order.
    calls: RefCell<Vec<(&'static str, usize)>>,
    /// How many names were asked for, in how many calls.
    asked: Cell<(usize, usize)>,
    known: Option<Arc<KnownNames>>,
}

#[derive(Debug, PartialEq, Eq)]
enum MemoryError {
    Race,
    Vanished,
}

impl From<VanishedRow> for MemoryError {
    fn from(_: VanishedRow) -> Self {
        Self::Vanished
    }
}

impl<R: FnOnce(&mut Tables)> Memory<R> {
    fn new(tables: Tables, race: R) -> Self {
        Self {
            before: RefCell::default(),
            tables: RefCell::new(tables),
            race: RefCell::new(Some(race)),
            late_races: RefCell::default(),
            calls: RefCell::default(),
            asked: Cell::default(),
            known: None,
        }
    }

    fn try_write(&self, epoch: &Epoch) -> Result<Written, WriteError<MemoryError>> {
        let names = Names { known: self.known.as_deref(), session: 0 };
        let written = write_epoch(self, epoch, names, Clock { as_of: as_of(), score_tolerance: 0.0 });
        futures::FutureExt::now_or_never(written).expect("nothing in memory waits")
    }

    fn write(&self, epoch: &Epoch) -> Result<Written, Rejected> {
        self.try_write(epoch).map_err(|error| match error {
            WriteError::Rejected(rejected) => rejected,
            WriteError::Tables(error) => panic!("{error:?}"),
        })
    }

    fn called(&self, statement: &'static str, rows: usize) {
        self.calls.borrow_mut().push((statement, rows));
    }

    fn rows_of(&self, statement: &str) -> usize {
        self.calls.borrow().iter().filter(|(own, _)| *own == statement).map(|(_, rows)| rows).sum()
    }
}

fn google_id(facts: &EntityFacts<Uuid>) -> Option<String> {
    facts.place.as_ref()?.google_place_id.clone()
}

impl<R: FnOnce(&mut Tables)> GraphTables for Memory<R> {
    type Error = MemoryError;

    fn is_race(error: &MemoryError) -> bool {
        *error == MemoryError::Race
    }

    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, MemoryError> {
        let entities_by_key = self.look_up_names(&lookup.entities_by_key).await?;
        let mut tables = self.tables.borrow_mut();
        let generation = lookup.reads_generation.then(|| Generation::new(tables.generation.to_string()));
        let mut found = Found { entities_by_key, generation_after: generation.clone(), generation, ..Found::default() };
        for (_, id) in &lookup.entities_by_id {
            found.entities_by_id.extend(tables.entity_by_id(*id).map(|stored| (*id, stored)));
        }
        for (key, row) in &tables.connections {
            if lookup.connections_by_id.contains(&row.0) {
                found.connection_keys.insert(row.0, key.clone());
            }
        }
        if let Some(race) = self.race.take() {
            race(&mut tables);
        }
        *self.before.borrow_mut() = tables.clone();
        Ok(found)
    }

    async fn look_up_names(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, MemoryError> {
        let (asked, calls) = self.asked.get();
        self.asked.set((asked + names.len(), calls + 1));
        let tables = self.tables.borrow();
        let found = names.iter().filter_map(|KeyLookup { slot, entity_type, name, with_facts }| {
            let (id, stored) = tables.entities.get(&EntityKey::new(*entity_type, *name))?;
            let facts = with_facts.then(|| stored.clone());
            Some((*slot, FoundByKey { id: *id, merged_into: None, facts }))
        });
        Ok(found.collect())
    }

    async fn insert_or_lock_entities(&self, writes: &[EntityWrite]) -> Result<Vec<Uuid>, MemoryError> {
        self.called("insert_or_lock_entities", writes.len());
        assert!(writes.is_sorted_by(|left, right| left.key < right.key), "locks are taken in the order of the keys");
        let mut inserted = Vec::new();
        for write in writes {
            self.tables.borrow_mut().entities.entry(write.key.clone()).or_insert_with(|| {
                inserted.push(write.id);
                let mut facts = write.facts.clone();
                if let Some(place) = &mut facts.place {
                    Arc::make_mut(place).google_place_id = None;
                }
                (write.id, facts)
            });
        }
        Ok(inserted)
    }

    async fn read_entities(&self, keys: &[EntityKey]) -> Result<Vec<StoredEntity>, MemoryError> {
        let tables = self.tables.borrow();
        let read = |key: &EntityKey| {
            let (id, facts) = tables.entities.get(key)?.clone();
            Some(StoredEntity { id, key: key.clone(), facts: Some(facts) })
        };
        Ok(keys.iter().filter_map(read).collect())
    }

    async fn lock_place_ids(&self, place_ids: PlaceIds) -> Result<(), MemoryError> {
        self.called(
            match place_ids {
                PlaceIds::Untouched => "place ids untouched",
                PlaceIds::Taken => "place ids taken",
                PlaceIds::GivenUp => "place ids given up",
            },
            1,
        );
        Ok(())
    }

    async fn give_up_place_ids(&self, entities: &[Uuid]) -> Result<(), MemoryError> {
        self.called("give_up_place_ids", entities.len());
        let mut tables = self.tables.borrow_mut();
        for id in entities {
            let facts = tables.entities.values_mut().find(|row| row.0 == *id).map(|row| &mut row.1).unwrap();
            Arc::make_mut(facts.place.as_mut().unwrap()).google_place_id = None;
        }
        Ok(())
    }

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), MemoryError> {
        assert!(writes.is_sorted_by_key(|write| google_id(&write.facts)), "Google ids are locks too");
        let mut tables = self.tables.borrow_mut();
        let mut changes = (self.rows_of("give_up_place_ids") > 0, false);
        for write in writes {
            if let Some(taken) = google_id(&write.facts) {
                changes.1 = true;
                let held = tables
                    .entities
                    .iter()
                    .any(|(key, row)| *key != write.key && google_id(&row.1).as_ref() == Some(&taken));
                assert!(!held, "{taken} would be held twice for a moment");
            }
            let row = tables.entities.get_mut(&write.key).unwrap();
            assert_eq!(row.0, write.id, "an id is for good");
            assert_ne!(row.1, write.facts, "a row that changes nothing is not written");
            changes.0 |= google_id(&row.1).is_some_and(|before| google_id(&write.facts) != Some(before));
            row.1 = write.facts.clone();
        }
        let expected = match changes {
            (true, _) => "place ids given up",
            (false, true) => "place ids taken",
            (false, false) => "place ids untouched",
        };
        assert_eq!(self.rows_of(expected), 1);
        Ok(())
    }

    async fn lock_connections(
        &self,
        keys: &[(u32, &ConnectionKey<Uuid>)],
        round: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, MemoryError> {
        assert!(keys.is_sorted_by(|left, right| left.1 < right.1), "locks are taken in the order of the keys");
        let again = self.calls.borrow().iter().any(|(statement, _)| *statement == "lock_connections");
        assert_eq!(again, round == LockRound::Again);
        assert_eq!(self.rows_of("update_connections"), 0, "no connection is locked after one was changed");
        self.called("lock_connections", keys.len());
        let mut tables = self.tables.borrow_mut();
        let stored = keys.iter().filter_map(|(place, key)| {
            let (id, facts, metrics) = tables.connections.get(*key)?.clone();
            Some((*place, StoredConnection { id, facts, metrics, history_indexed: tables.indexed.contains(&id) }))
        });
        let stored = stored.collect();
        if let Some(race) = self.late_races.borrow_mut().pop() {
            race(&mut tables);
        }
        Ok(stored)
    }

    async fn insert_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), MemoryError> {
        self.called("insert_connections", rows.len());
        let mut tables = self.tables.borrow_mut();
        if rows.iter().any(|row| tables.connections.contains_key(row.key)) {
            return Err(MemoryError::Race);
        }
        for row in rows {
            let new = (row.id, row.facts.clone().into_owned(), stored_form(&row.metrics));
            tables.connections.insert(row.key.clone(), new);
            tables.indexed.extend(row.history_indexed.then_some(row.id));
        }
        Ok(())
    }

    async fn read_history(&self, questions: &HistoryQuestions<'_>) -> Result<HistoryAnswers, MemoryError> {
        let tables = self.tables.borrow();
        let mut answers = HistoryAnswers::default();
        for question in &questions.mentions {
            let key = (question.connection, question.source_type, question.source_id.into());
            let stored = tables.mentions.get(&key).cloned();
            answers.mentions.extend(stored.map(|(id, mention)| (question.mention, StoredMention { id, mention })));
        }
        for (place, question) in (0..).zip(&questions.threads) {
            let found = tables.found(question.connection, question.history_indexed);
            let mut threads = found.map(|(_, mention)| &*mention.thread_id);
            if threads.any(|thread| thread == question.thread_id) {
                answers.threads.push(place);
            }
        }
        for RecentQuestion { place, connection, history_indexed } in &questions.recent {
            let is_recent = |mention: &Mention| (questions.since..=questions.as_of).contains(&mention.created_at);
            let found = tables.found(*connection, *history_indexed);
            let count = found.filter(|(_, mention)| is_recent(mention)).count();
            answers.recent.push((*place, count as i32));
        }
        Ok(answers)
    }

    async fn insert_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), MemoryError> {
        for row in rows {
            let mention = row.block.mention_of(row.record);
            let key = (row.connection, mention.source_type, mention.source_id.into());
            let before = self.tables.borrow_mut().mentions.insert(key, (row.id, Mention::from(mention)));
            assert_eq!(before, None, "a mention is inserted once");
            self.tables.borrow_mut().indexed.extend(row.history_indexed.then_some(row.id));
        }
        self.called("insert_mentions", rows.len());
        Ok(())
    }

    async fn update_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), MemoryError> {
        for row in rows {
            let mention = row.block.mention_of(row.record);
            let key = (row.connection, mention.source_type, mention.source_id.into());
            let before = self.tables.borrow_mut().mentions.insert(key, (row.id, Mention::from(mention)));
            assert_eq!(before.map(|(id, _)| id), Some(row.id), "an id is for good");
        }
        self.called("update_mentions", rows.len());
        Ok(())
    }

    async fn index_histories(&self, connections: &[Uuid]) -> Result<(), MemoryError> {
        assert_eq!(self.rows_of("update_connections"), 0, "connections say so in the same version");
        self.called("index_histories", connections.len());
        let mut tables = self.tables.borrow_mut();
        for connection in connections {
            assert!(!tables.indexed.contains(connection), "a history becomes long once");
            let mentions: Vec<Uuid> = tables.mentions_of(*connection).map(|(id, _)| id).collect();
            tables.indexed.extend(mentions);
        }
        Ok(())
    }

    async fn reread(&self, questions: &RereadQuestions) -> Result<RereadAnswers, MemoryError> {
        let written = ["insert_mentions", "update_mentions", "index_histories"];
        let calls = self.calls.borrow();
        assert!(written.iter().all(|own| calls.iter().any(|(call, _)| call == own)), "mentions are written before");
        let tables = self.tables.borrow();
        let whole = |id: Uuid| ConnectionMetrics::from_mentions(tables.mentions_of(id), as_of());
        let mut answers = RereadAnswers::default();
        for (place, id) in (0_u32..).zip(&questions.threads) {
            answers.threads.push((place, whole(*id).source_diversity));
        }
        for ((place, id), indexed) in (0_u32..).zip(&questions.newest).zip(&questions.newest_indexed) {
            let times = tables.found(*id, *indexed).map(|(_, mention)| mention.created_at);
            answers.newest.push((place, times.max()));
        }
        for (place, id) in (0_u32..).zip(&questions.top) {
            let rows = tables.mentions_of(*id).map(|(id, mention)| (place, top_mention(id, mention.clone())));
            answers.top.extend(rows);
        }
        Ok(answers)
    }

    async fn update_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), MemoryError> {
        self.called("update_connections", rows.len());
        for row in rows {
            let new = (row.id, row.facts.clone().into_owned(), stored_form(&row.metrics));
            let before = self.tables.borrow_mut().connections.insert(row.key.clone(), new.clone()).unwrap();
            let mut tables = self.tables.borrow_mut();
            let becomes_indexed = row.history_indexed && tables.indexed.insert(row.id);
            if !row.history_indexed {
                tables.indexed.remove(&row.id);
            }
            assert!(before != new || becomes_indexed, "a row that changes nothing is not written");
            assert_eq!(before.0, new.0, "an id is for good");
        }
        Ok(())
    }
}

// ---- units -------------------------------------------------------------------------------------

/// One thing that a unit says. `by_id`: by the id, if the row exists by then.
#[derive(Debug, Clone)]
enum Drawn {
    Restaurant {
        name: u8,
        by_id: bool,
        alias: Option<u8>,
        attribute: Option<u8>,
        place: Option<(u8, bool, i64)>,
    },
    Dish {
        name: u8,
        by_id: bool,
        alias: Option<u8>,
    },
    Connection {
        of: (u8, u8, Option<u8>),
        by_id: bool,
        ends_by_id: bool,
        category: Option<u8>,
        menu: bool,
    },
    Mention {
        of: (u8, u8, Option<u8>),
        by_id: bool,
        source: u8,
        thread: u8,
        upvotes: i32,
        created: i64,
        observed: i64,
    },
    /// Some more than half of what a short history has.
    Mentions {
        of: (u8, u8, Option<u8>),
        from: u8,
        thread: u8,
        observed: i64,
    },
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
        1 => (of(), 0_u8..3, 0_u8..9, 0_i64..3)
            .prop_map(|(of, from, thread, observed)| Drawn::Mentions { of, from, thread, observed }),
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
            Drawn::Mentions { of, from, thread, observed } => {
                let own = connection(&mut unit, of, false);
                for number in 0..18 {
                    let source = format!("m{}", from * 10 + number);
                    let mention = Mention::new(SourceType::Post, source, "u", "s", at((number * 7 + thread).into()))
                        .thread(format!("t{}", (number + thread) % 11))
                        .observed_at(at(200 + observed));
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
    for (entity, CommittedRow { id, .. }) in unit.block.entities.iter().zip(&committed.entities) {
        match entity {
            EntityRecord::Key(entity_type, name) => {
                assert_eq!(tables.entities[&EntityKey::new(*entity_type, unit.block.text(*name))].0, *id);
            }
            EntityRecord::Id(named) => assert_eq!(named, id),
        }
    }
    for (connection, CommittedRow { id, .. }) in unit.block.connections.iter().zip(&committed.connections) {
        assert!(tables.connections.values().any(|row| row.0 == *id));
        if let ConnectionRecordName::Id(named) = connection.name {
            assert_eq!(named, *id);
        }
    }
    for (place, CommittedRow { id, .. }) in committed.mentions.iter().enumerate() {
        let mention = unit.block.mention(place);
        let row = tables.mentions.iter().find(|(_, row)| row.0 == *id).unwrap();
        assert_eq!((row.0.1, &*row.0.2), (mention.source_type, mention.source_id));
        let is_won = mention.precedence(&(&row.1.1).into()).is_le();
        assert!(is_won, "the row is this observation, or one that wins against it");
    }
    let given = (committed.entities.len(), committed.connections.len(), committed.mentions.len());
    let named = Table::ALL.map(|table| unit.block.rows_of(table));
    assert_eq!([given.0, given.1, given.2], named);
}

fn no_race(_: &mut Tables) {}

/// Writes units in epochs of the given sizes; before every second epoch's locks, another writer is
/// faster with the first unit of the next.
fn check_any_grouping(units: &[Vec<Drawn>], sizes: &[usize], races: bool, known: usize) -> TestCaseResult {
    let mut grouped = Tables::default();
    let known = Arc::new(KnownNames::new(known));
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
                tables.write(&faster, no_race).unwrap();
            }
        };
        let (committed, _) = grouped.write_with(&epoch, faster, Some(&known)).unwrap();
        for (unit, committed) in epoch.units().iter().zip(&committed) {
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

    // All of it once more changes nothing, and says so.
    let everything = Epoch::from_units(units.iter().map(|said| unit(said, &grouped)).collect());
    let (committed, before) = grouped.write_with(&everything, no_race, Some(&known)).unwrap();
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
        known in 1_usize..12,
    ) {
        check_any_grouping(&units, &sizes, races, known)?;
    }

    #[test]
    fn names_that_are_known_lead_where_lookups_lead(steps in vec(step(), 1..24), known in 1_usize..12) {
        check_known_names(&steps, known)?;
    }
}

/// What happens between, before and after epochs.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Vec<Drawn>>),
    /// An epoch that is written, and rolled back.
    RollBack(Vec<Drawn>),
    /// Other programs' deeds.
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

/// As [`unit`] names them.
fn name(entity_type: EntityType, number: u8) -> String {
    let letter = match entity_type {
        EntityType::Restaurant => 'r',
        EntityType::DishOrCategory => 'd',
        EntityType::DishAttribute => 'a',
        EntityType::RestaurantAttribute => 'p',
    };
    format!("{letter}{number}")
}

/// The same steps, by an engine that remembers so many names and by one that remembers none.
fn check_known_names(steps: &[Step], known: usize) -> TestCaseResult {
    let known = Arc::new(KnownNames::new(known));
    let mut worlds = [(Tables::default(), Some(&known)), (Tables::default(), None)];
    for step in steps {
        for (tables, known) in &mut worlds {
            match step {
                Step::Commit(units) => {
                    let epoch = Epoch::from_units(units.iter().map(|said| unit(said, tables)).collect());
                    let (committed, _) = tables.write_with(&epoch, no_race, *known).unwrap();
                    for (unit, committed) in epoch.units().iter().zip(&committed) {
                        check_ids(unit, committed, tables);
                    }
                    tables.check_figures();
                }
                Step::RollBack(said) => {
                    let epoch = Epoch::from_units(vec![unit(said, tables)]);
                    let memory = Memory { known: known.cloned(), ..Memory::new(tables.clone(), no_race) };
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

// ---- single cases ------------------------------------------------------------------------------

fn epoch(build: impl FnOnce(&mut UnitOfWork)) -> Epoch {
    let mut unit = UnitOfWork::new();
    build(&mut unit);
    unit.validate(1_000).unwrap();
    Epoch::from_units(vec![Arc::new(unit.prepare())])
}

/// A transaction on a copy of the tables, up to its commit.
fn transaction(tables: &Tables, race: fn(&mut Tables)) -> Memory<fn(&mut Tables)> {
    Memory::new(tables.clone(), race)
}

#[test]
fn what_is_merely_referenced_is_neither_locked_nor_written() {
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
        (memory.rows_of("insert_or_lock_entities"), written.dispositions)
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
    // Once to a new restaurant, once to one that exists; for another id, and for none.
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
    // A row that is not of the epoch holds what "a" wants: none of the epoch gives it up, and no two rows may hold it.
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
fn a_row_that_is_gone_when_it_is_to_be_locked_is_noticed() {
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
fn a_connection_that_another_writer_inserts_after_the_locks_is_found_the_second_time() {
    fn of_others(tables: &mut Tables) {
        let other = epoch(|unit| mentioned(unit, "b", "theirs"));
        tables.write(&other, no_race).unwrap();
    }
    let own = epoch(|unit| {
        for name in ["a", "b"] {
            mentioned(unit, name, "ours");
        }
    });
    // Of an entity that is new no other writer can insert a connection.
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
    const RACES_MAX: usize = 10;
    /// The connection of the first restaurant that has none.
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
fn connections_of_entities_that_are_new_are_not_looked_for() {
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
fn a_name_that_is_known_is_asked_for_again_only_when_ids_may_have_become_wrong() {
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
    assert_eq!(write(&mut tables, "1"), ((2, 1), 0, 2), "both are new");
    assert_eq!(write(&mut tables, "2"), ((0, 1), 2, 0));
    let before = tables.id(EntityType::Restaurant, "r");
    tables.delete(EntityType::Restaurant, "r");
    assert_eq!(write(&mut tables, "3"), ((2, 2), 0, 2), "with one more call");
    assert!(tables.id(EntityType::Restaurant, "r").is_some_and(|id| Some(id) != before));
    assert_eq!(write(&mut tables, "4"), ((0, 1), 2, 0));
    // Where facts are stated the row is read, unless all of them are known to be there, and always where a place is.
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

fn mentioned(unit: &mut UnitOfWork, restaurant: &str, mention: &str) {
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
fn units_are_rejected_for_ids_of_nothing_and_of_another_type_and_no_other_unit_is() {
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

    let rejected = |units: Vec<Arc<crate::unit::Unit>>| {
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
