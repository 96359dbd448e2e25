//! One transaction on tables in memory, which check the order of the calls.

use super::*;

/// Tables within one transaction.
pub(super) struct Memory<R> {
    pub(super) tables: RefCell<Tables>,
    /// The tables after the race.
    pub(super) before: RefCell<Tables>,
    /// Commits of others after the lookups.
    pub(super) race: RefCell<Option<R>>,
    /// Commits of others before entities are inserted, each time.
    pub(super) entity_races: RefCell<Vec<R>>,
    /// Commits of others after repeats were looked for.
    pub(super) repeat_races: RefCell<Vec<R>>,
    /// Commits of others after connections were locked, each time.
    pub(super) late_races: RefCell<Vec<R>>,
    /// The number of rows of each statement, in order.
    pub(super) calls: RefCell<Vec<(&'static str, usize)>>,
    /// Entities that gave up their Google ids.
    pub(super) given_up: RefCell<HashSet<Uuid>>,
    /// The number of requested names, and the number of calls.
    pub(super) asked: Cell<(usize, usize)>,
    pub(super) known: Option<Arc<KnownNames>>,
    pub(super) novelty: Option<Arc<Novelty>>,
    /// Whether names lead to other entities.
    pub(super) has_redirects: bool,
    /// The number of new entities, or connections, above which they are refused.
    pub(super) rows_max: usize,
    pub(super) expects_repeats: bool,
    /// Whether rows are hidden from this role.
    pub(super) hides_names: Cell<bool>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemoryError {
    Race,
    /// A row is refused for itself.
    Refused,
    Vanished,
}

impl From<VanishedRow> for MemoryError {
    fn from(_: VanishedRow) -> Self {
        Self::Vanished
    }
}

impl<R: FnOnce(&mut Tables)> Memory<R> {
    pub(super) fn new(tables: Tables, race: R) -> Self {
        Self {
            before: RefCell::default(),
            tables: RefCell::new(tables),
            race: RefCell::new(Some(race)),
            entity_races: RefCell::default(),
            repeat_races: RefCell::default(),
            late_races: RefCell::default(),
            calls: RefCell::default(),
            given_up: RefCell::default(),
            asked: Cell::default(),
            known: None,
            novelty: None,
            has_redirects: false,
            rows_max: usize::MAX,
            expects_repeats: false,
            hides_names: Cell::default(),
        }
    }

    pub(super) fn try_write(&self, epoch: &Epoch) -> Result<Written, WriteError<MemoryError>> {
        let names = Names { known: self.known.as_deref(), session: 0 };
        let remembered = Remembered {
            names,
            novelty: self.novelty.as_deref(),
            may_guess: true,
            expects_repeats: self.expects_repeats,
        };
        let clock = Clock { as_of: as_of(), score_tolerance: 0.0 };
        let written = write_epoch(self, epoch, remembered, clock);
        futures::FutureExt::now_or_never(written).expect("nothing in memory waits")
    }

    pub(super) fn write(&self, epoch: &Epoch) -> Result<Written, Rejected> {
        self.try_write(epoch).map_err(|error| match error {
            WriteError::Rejected(rejected) => rejected,
            WriteError::Tables(error) => panic!("{error:?}"),
        })
    }

    pub(super) fn called(&self, statement: &'static str, rows: usize) {
        self.calls.borrow_mut().push((statement, rows));
    }

    pub(super) fn rows_of(&self, statement: &str) -> usize {
        self.calls.borrow().iter().filter(|(own, _)| *own == statement).map(|(_, rows)| rows).sum()
    }
}

pub(super) fn google_id(facts: &EntityFacts<Uuid>) -> Option<String> {
    facts.place.as_ref()?.google_place_id.clone()
}

impl<R: FnOnce(&mut Tables)> GraphTables for Memory<R> {
    type Error = MemoryError;

    fn is_race(error: &MemoryError) -> bool {
        *error == MemoryError::Race
    }

    fn is_refusal(error: &MemoryError) -> bool {
        *error == MemoryError::Refused
    }

    async fn has_work(&self) {}

    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, MemoryError> {
        let entities_by_key = self.look_up_names(&lookup.entities_by_key).await?;
        let mut tables = self.tables.borrow_mut();
        let generation = lookup.reads_generation.then(|| Generation::new(tables.generation.to_string()));
        let mut found = Found {
            entities_by_key,
            generation_after: generation.clone(),
            generation,
            has_redirects: lookup.goes_with_guesses && self.has_redirects,
            ..Found::default()
        };
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
        let visible = names.iter().filter(|_| !self.hides_names.get());
        let found = visible.filter_map(|KeyLookup { slot, entity_type, name, with_facts }| {
            let (id, stored) = tables.entities.get(&EntityKey::new(*entity_type, *name))?;
            let facts = with_facts.then(|| stored.clone());
            Some((*slot, FoundByKey { id: *id, merged_into: None, facts }))
        });
        Ok(found.collect())
    }

    async fn insert_and_lock_entities(
        &self,
        new: &[EntityWrite],
        existing: &[EntityWrite],
    ) -> Result<Vec<StoredEntity>, MemoryError> {
        for writes in [new, existing] {
            assert!(
                writes.is_sorted_by(|left, right| left.key < right.key),
                "locks are taken in the order of the keys"
            );
        }
        let mut tables = self.tables.borrow_mut();
        if let Some(race) = self.entity_races.borrow_mut().pop() {
            race(&mut tables);
            *self.before.borrow_mut() = tables.clone();
        }
        if new.len() > self.rows_max {
            self.called("refused entities", new.len());
            return Err(MemoryError::Refused);
        }
        if new.iter().any(|write| tables.entities.contains_key(&write.key)) {
            self.called("raced entities", new.len());
            return Err(MemoryError::Race);
        }
        self.called("insert_entities", new.len());
        self.called("lock_entities", existing.len());
        for write in new {
            let mut facts = write.facts.clone();
            if let Some(place) = &mut facts.place {
                Arc::make_mut(place).google_place_id = None;
            }
            tables.entities.insert(write.key.clone(), (write.id, facts));
        }
        let locked = existing.iter().filter_map(|write| {
            let (id, facts) = tables.entities.get(&write.key)?.clone();
            Some(StoredEntity { id, key: write.key.clone(), facts: Some(facts) })
        });
        Ok(locked.collect())
    }

    async fn look_up_raced(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, MemoryError> {
        assert_eq!(self.rows_of("insert_entities"), 0, "the transaction returns to before the insertion");
        self.look_up_names(names).await
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
        self.given_up.borrow_mut().extend(entities);
        let mut tables = self.tables.borrow_mut();
        for id in entities {
            let facts = tables.entities.values_mut().find(|row| row.0 == *id).map(|row| &mut row.1).unwrap();
            Arc::make_mut(facts.place.as_mut().unwrap()).google_place_id = None;
        }
        Ok(())
    }

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), MemoryError> {
        assert!(writes.is_sorted_by_key(|write| google_id(&write.facts)), "Google ids are locked in their order");
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
            assert_eq!(row.0, write.id, "an id never changes");
            // Giving up an id may be the only change, which the tables do not show any more.
            let changes_something = row.1 != write.facts || self.given_up.borrow().contains(&row.0);
            assert!(changes_something, "a row that changes nothing is not written");
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

    async fn find_repeats(&self, questions: &[RepeatQuestion<'_>]) -> Result<RepeatAnswers, MemoryError> {
        assert!(self.expects_repeats && self.rows_of("lock_connections") == 0);
        self.called("find_repeats", questions.len());
        let mut tables = self.tables.borrow_mut();
        let mut answers = RepeatAnswers::default();
        for RepeatQuestion { mention, connection, key, own } in questions {
            let Some((id, facts, metrics)) = tables.connections.get(*key).cloned() else { continue };
            let stored = tables.mentions.get(&(id, own.source_type, own.source_id.into()));
            let Some((mention_id, _)) = stored.filter(|(_, stored)| own.precedence(&stored.into()).is_le()) else {
                continue;
            };
            answers.mentions.push((*mention, *mention_id));
            let (figures, history_indexed) = (StandingFigures::of(&metrics), tables.indexed.contains(&id));
            answers.connections.push(SeenConnection { place: *connection, id, facts, figures, history_indexed });
        }
        if let Some(race) = self.repeat_races.borrow_mut().pop() {
            race(&mut tables);
            *self.before.borrow_mut() = tables.clone();
        }
        Ok(answers)
    }

    async fn lock_connections(
        &self,
        keys: &[(u32, &ConnectionKey<Uuid>)],
        may_race: bool,
        round: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, MemoryError> {
        assert!(keys.is_sorted_by(|left, right| left.1 < right.1), "locks are taken in the order of the keys");
        let again = self.calls.borrow().iter().any(|(statement, _)| *statement == "lock_connections");
        assert_eq!(again, round == LockRound::Again);
        assert!(may_race || keys.is_empty());
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

    async fn insert_connections(&self, rows: NewConnections<'_>) -> Result<(), MemoryError> {
        let rows: Vec<_> = rows.collect();
        assert!(rows.is_sorted_by(|left, right| left.key < right.key), "locks are taken in the order of the keys");
        self.called("insert_connections", rows.len());
        if rows.len() > self.rows_max {
            return Err(MemoryError::Refused);
        }
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
        for (place, question) in (0..).zip(&questions.mentions) {
            let key = (question.connection, question.source_type, question.source_id.into());
            let stored = tables.mentions.get(&key).cloned();
            let own = stored.as_ref().map(|(_, mention)| &*mention.thread_id);
            let found = tables.found(question.connection, question.history_indexed);
            let mut threads = found.map(|(_, mention)| &*mention.thread_id).chain(own);
            if question.thread_id.is_some_and(|asked| threads.any(|thread| thread == asked)) {
                answers.threads.push(place);
            }
            answers.mentions.extend(stored.map(|(id, mention)| (question.mention, StoredMention { id, mention })));
        }
        for RecentQuestion { place, connection, history_indexed } in &questions.recent {
            let is_recent = |mention: &Mention| (questions.since..=questions.as_of).contains(&mention.created_at);
            let found = tables.found(*connection, *history_indexed);
            let count = found.filter(|(_, mention)| is_recent(mention)).count();
            answers.recent.push((*place, count as i32));
        }
        Ok(answers)
    }

    async fn insert_mentions(&self, rows: MentionRows<'_>) -> Result<(), MemoryError> {
        self.called("insert_mentions", rows.len());
        for row in rows {
            let mention = row.texts.mention(row.record);
            let key = (row.connection, mention.source_type, mention.source_id.into());
            let before = self.tables.borrow_mut().mentions.insert(key, (row.id, Mention::from(mention)));
            assert_eq!(before, None, "a mention is inserted once");
            self.tables.borrow_mut().indexed.extend(row.history_indexed.then_some(row.id));
        }
        Ok(())
    }

    async fn update_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), MemoryError> {
        for row in rows {
            let mention = row.texts.mention(row.record);
            let key = (row.connection, mention.source_type, mention.source_id.into());
            let before = self.tables.borrow_mut().mentions.insert(key, (row.id, Mention::from(mention)));
            assert_eq!(before.map(|(id, _)| id), Some(row.id), "an id never changes");
        }
        self.called("update_mentions", rows.len());
        Ok(())
    }

    async fn index_histories(&self, connections: &[Uuid]) -> Result<(), MemoryError> {
        assert_eq!(self.rows_of("update_connections"), 0, "a connection changes with its history in one version");
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
        assert!(
            written.iter().all(|own| calls.iter().any(|(call, _)| call == own)),
            "mentions are written before figures are read again"
        );
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
        assert!(rows.len() <= crate::batch::write::ROWS_AT_ONCE);
        for row in rows {
            let new = (row.id, row.facts.clone().into_owned(), stored_form(&row.metrics));
            let before = self.tables.borrow_mut().connections.insert(row.key.clone(), new.clone()).unwrap();
            let mut tables = self.tables.borrow_mut();
            let becomes_indexed = row.history_indexed && tables.indexed.insert(row.id);
            if !row.history_indexed {
                tables.indexed.remove(&row.id);
            }
            assert!(before != new || becomes_indexed, "a row that changes nothing is not written");
            assert_eq!(
                row.keeps_top_mentions,
                before.2.top_mentions == new.2.top_mentions,
                "figures are sent only if they change"
            );
            assert_eq!(before.0, new.0, "an id never changes");
        }
        Ok(())
    }
}
