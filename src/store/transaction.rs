//! The tables of an epoch in PostgreSQL: each call sends one statement, or a few at once.
//!
//! Properties:
//! - No merge takes place between the lookup, which is one message with `begin`, and the commit, so redirects that were
//!   read stay valid. The merges' lock comes before all others.
//! - One statement locks the existing rows of a table, and one inserts the new ones.
//! - Merge rules live in `record`, and nowhere in SQL.
//! - Where rows are copied, foreign keys are checked once, behind the insertion of mentions ([`LateKeyChecks`]).
//! - The server is kept at work: questions are sent behind insertions, and mentions, which take the server longest,
//!   are begun before the figures of connections are worked out. But no `copy` is sent behind something unanswered
//!   (`Session::copy`).
//! - The best five mentions are kept from the stored five and the epoch's candidates: the order by score does not
//!   depend on the time, because all scores decay at one rate. Only when a stored best mention loses votes, or ties
//!   with a new one (`source_id` is not stored), are they read again, which reads all mentions of that connection.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::health::{Copying, LateKeyChecks};
use super::session::{
    BeginningCopy, ROLLBACK_TO_SAVEPOINT, ROLLBACK_TO_SAVEPOINT_OF_ENTITIES, SAVEPOINT, SAVEPOINT_OF_ENTITIES, Session,
};
use super::statement::{self, Statement};
use super::table::{
    Arrays, Cells, Connections, Entities, Mentions, NextRow, Purpose, StoredTime, Table, copy_pieces, read_connection,
    read_connection_key, read_entity_key, read_facts, read_mention, read_mention_ref, read_seen_connection, uuid_array,
};
use crate::batch::{
    Clock, ConnectionWrite, EntityWrite, Found, FoundByKey, Generation, GraphTables, HistoryAnswers, HistoryQuestions,
    KeyLookup, LockRound, Lookup, MentionRow, MentionRows, NewConnections, PlaceIds, RepeatAnswers, RepeatQuestion,
    RereadAnswers, RereadQuestions, StoredConnection, StoredEntity, UnlockedConnections, VanishedRow,
    refresh_connections, top_mention,
};
use crate::error::{ErrorClass, StoreError};
use crate::hash::HashMap;
use crate::outcome::Disposition;
use crate::record::{ConnectionKey, EntityKey, SortedSet};

/// Number of rows from which `copy` is faster than `insert`, in spite of its own round trip: it writes whole pages,
/// with one WAL record for each.
const COPY_FROM_ROWS: usize = 128;

impl From<VanishedRow> for StoreError {
    fn from(_: VanishedRow) -> Self {
        Self::VanishedRow
    }
}

/// The tables within one transaction.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    session: &'a Session,
    begin: &'a str,
    attempt: Uuid,
    /// Whether rows may be copied.
    copies: bool,
    /// If foreign keys are not checked before the mentions are written.
    late_checks: Option<&'a LateKeyChecks>,
    /// Whether there are new rows with foreign keys.
    inserts: AtomicBool,
}

/// The parameters of a statement.
type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

impl GraphTables for Transaction<'_> {
    type Error = StoreError;

    fn is_race(error: &StoreError) -> bool {
        error.is_race()
    }

    fn is_refusal(error: &StoreError) -> bool {
        error.class() == ErrorClass::Poison
    }

    async fn has_work(&self) {
        self.session.has_work().await;
    }

    /// One round trip with `begin`, the attempt's row and a share of the merges' lock.
    async fn look_up(&self, lookup: &Lookup<'_>) -> Result<Found, StoreError> {
        let Lookup { entities_by_key, entities_by_id, connections_by_id, reads_generation, goes_with_known, .. } =
            lookup;
        let (settled, merge_lock) = (&self.session.settled_attempts, self.session.merge_lock());
        let ids: Vec<Uuid> = entities_by_id.iter().map(|(_, id)| *id).collect();
        let record: [&(dyn ToSql + Sync); 4] = [&self.attempt, settled, &merge_lock, &false];
        let postpone = self.late_checks.map(|late| &*late.postpone);
        let (begun, postponed, recorded, generation, redirects, by_key, rows_by_id, generation_after, connection_rows) = futures::join!(
            self.session.batch("begin", self.begin),
            self.session.batch_if_any("postpone_key_checks", postpone),
            self.session.record_attempt(&record),
            // After the lock, and before the names.
            self.query(&statement::READ_GENERATION, vec![], !reads_generation),
            self.query(&statement::READ_REDIRECTS, vec![], !lookup.goes_with_guesses),
            self.look_up_names(entities_by_key),
            self.query(&statement::ENTITIES_BY_ID, vec![&ids], ids.is_empty()),
            self.query(&statement::READ_GENERATION, vec![], !goes_with_known),
            self.query(&statement::CONNECTION_KEYS_BY_ID, vec![connections_by_id], connections_by_id.is_empty()),
        );
        begun.map_err(StoreError::begin)?;
        postponed?;
        all_written(recorded?, 1)?;
        // Answers are read in the order of sending: the statements after an error fail only because of it.
        let generation = read_generation(&generation?)?;
        let has_redirects = redirects?.first().map_or(Ok(false), |row| row.try_get(0))?;
        let mut found = Found { generation, has_redirects, entities_by_key: by_key?, ..Found::default() };
        for row in rows_by_id? {
            found.entities_by_id.insert(row.try_get(0)?, entity_by_id(&row)?);
        }
        found.generation_after = read_generation(&generation_after?)?;
        for row in connection_rows? {
            found.connection_keys.insert(row.try_get(0)?, read_connection_key(&mut Cells::new(&row, 1))?);
        }
        Ok(found)
    }

    async fn look_up_names(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, StoreError> {
        let keys = EntityKeys::new(names);
        let rows = self.query(&statement::ENTITIES_BY_KEY, keys.parameters(), names.is_empty()).await?;
        let found = rows.iter().map(|row| {
            let name = &names[ordinal(row)? as usize];
            Ok((name.slot, entity_by_key(row, name)?))
        });
        found.collect()
    }

    async fn insert_and_lock_entities(
        &self,
        new: &[EntityWrite],
        existing: &[EntityWrite],
    ) -> Result<Vec<StoredEntity>, StoreError> {
        if new.is_empty() {
            return self.lock_entities(existing).await;
        }
        let savepoint = self.session.batch("savepoint", SAVEPOINT_OF_ENTITIES);
        if self.copies(new.len()) {
            let beginning = self.session.begin_copy();
            savepoint.await?;
            let copied = self.copy::<Entities>(&statement::COPY_ENTITIES, beginning, new.len(), new.iter());
            let (copied, locked) = futures::join!(copied, self.lock_entities(existing));
            copied?;
            return locked;
        }
        let inserted = self.write::<Entities>(&statement::INSERT_ENTITIES, Purpose::Insert, new);
        let (begun, inserted, locked) = futures::join!(savepoint, inserted, self.lock_entities(existing));
        begun?;
        inserted?;
        locked
    }

    async fn look_up_raced(&self, names: &[KeyLookup<'_>]) -> Result<HashMap<u32, FoundByKey>, StoreError> {
        let rollback = self.session.batch("rollback_to_savepoint", ROLLBACK_TO_SAVEPOINT_OF_ENTITIES);
        let (returned, found) = futures::join!(rollback, self.look_up_names(names));
        returned?;
        found
    }

    async fn lock_place_ids(&self, place_ids: PlaceIds) -> Result<(), StoreError> {
        let statement = match place_ids {
            PlaceIds::Untouched => return Ok(()),
            PlaceIds::Taken => &statement::LOCK_SHARED,
            PlaceIds::GivenUp => &statement::LOCK_ALONE,
        };
        self.query(statement, vec![&self.session.place_lock()], false).await.map(drop)
    }

    async fn give_up_place_ids(&self, entities: &[Uuid]) -> Result<(), StoreError> {
        self.execute(&statement::GIVE_UP_PLACE_IDS, vec![&entities], entities.len()).await
    }

    async fn update_entities(&self, writes: &[EntityWrite]) -> Result<(), StoreError> {
        self.write::<Entities>(&statement::UPDATE_ENTITIES, Purpose::Update, writes).await
    }

    async fn find_repeats(&self, questions: &[RepeatQuestion<'_>]) -> Result<RepeatAnswers, StoreError> {
        let restaurants: Vec<Uuid> = questions.iter().map(|question| question.key.restaurant).collect();
        let dishes: Vec<Uuid> = questions.iter().map(|question| question.key.dish).collect();
        let attributes: Vec<_> = questions.iter().map(|question| uuid_set(&question.key.dish_attributes)).collect();
        let types: Vec<&str> = questions.iter().map(|question| question.own.source_type.as_str()).collect();
        let sources: Vec<&str> = questions.iter().map(|question| question.own.source_id).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&restaurants, &dishes, &attributes, &types, &sources];
        let mut answers = RepeatAnswers::default();
        for row in self.session.query(&statement::FIND_REPEATS, &parameters).await? {
            let RepeatQuestion { mention, connection, own, .. } = questions[ordinal(&row)? as usize];
            let mut cells = Cells::new(&row, 1);
            let seen = read_seen_connection(connection, &mut cells)?;
            let (id, stored) = read_mention_ref(&mut cells)?;
            if own.precedence(&stored).is_le() {
                answers.mentions.push((mention, id));
                answers.connections.push(seen);
            }
        }
        Ok(answers)
    }

    async fn lock_connections(
        &self,
        keys: &[(u32, &ConnectionKey<Uuid>)],
        may_race: bool,
        round: LockRound,
    ) -> Result<Vec<(u32, StoredConnection)>, StoreError> {
        let (name, sql) = match round {
            LockRound::First => ("savepoint", SAVEPOINT),
            LockRound::Again => ("rollback_to_savepoint", ROLLBACK_TO_SAVEPOINT),
        };
        if !may_race {
            return Ok(Vec::new());
        }
        if keys.is_empty() {
            self.session.batch(name, sql).await?;
            return Ok(Vec::new());
        }
        let restaurants: Vec<Uuid> = keys.iter().map(|(_, key)| key.restaurant).collect();
        let dishes: Vec<Uuid> = keys.iter().map(|(_, key)| key.dish).collect();
        let attributes: Vec<Option<String>> = keys.iter().map(|(_, key)| uuid_set(&key.dish_attributes)).collect();
        let (placed, rows) = futures::join!(
            self.session.batch(name, sql),
            self.query(&statement::LOCK_CONNECTIONS, vec![&restaurants, &dishes, &attributes], false),
        );
        placed?;
        let read = |row| Ok((keys[ordinal(row)? as usize].0, read_connection(&mut Cells::new(row, 1))?));
        rows?.iter().map(read).collect()
    }

    async fn insert_connections(&self, rows: NewConnections<'_>) -> Result<(), StoreError> {
        self.inserts.fetch_or(rows.len() > 0, Ordering::Relaxed);
        if self.copies(rows.len()) {
            return self.copy(&statement::COPY_CONNECTIONS, self.session.begin_copy(), rows.len(), rows).await;
        }
        let rows: Vec<_> = rows.collect();
        self.write::<Connections>(&statement::INSERT_CONNECTIONS, Purpose::Insert, &rows).await
    }

    async fn read_history(&self, questions: &HistoryQuestions<'_>) -> Result<HistoryAnswers, StoreError> {
        let HistoryQuestions { mentions, recent, since, as_of } = questions;
        let owners: Vec<Uuid> = mentions.iter().map(|mention| mention.connection).collect();
        let types: Vec<&str> = mentions.iter().map(|mention| mention.source_type.as_str()).collect();
        let sources: Vec<&str> = mentions.iter().map(|mention| mention.source_id).collect();
        let threads: Vec<Option<&str>> = mentions.iter().map(|mention| mention.thread_id).collect();
        let indexed: Vec<bool> = mentions.iter().map(|mention| mention.history_indexed).collect();
        let recent_owners: Vec<Uuid> = recent.iter().map(|question| question.connection).collect();
        let recent_indexed: Vec<bool> = recent.iter().map(|question| question.history_indexed).collect();
        let (known, counts) = futures::join!(
            self.query(
                &statement::READ_MENTIONS,
                vec![&owners, &types, &sources, &threads, &indexed],
                mentions.is_empty()
            ),
            self.query(
                &statement::COUNT_RECENT,
                vec![&recent_owners, &recent_indexed, since, as_of],
                recent.is_empty()
            ),
        );
        let mut answers = HistoryAnswers::default();
        for row in known? {
            let (place, is_there, has_thread) = (ordinal(&row)?, row.try_get(1)?, row.try_get(2)?);
            if is_there {
                answers.mentions.push((mentions[place as usize].mention, read_mention(&mut Cells::new(&row, 3))?));
            }
            if has_thread {
                answers.threads.push(place);
            }
        }
        for row in counts? {
            answers.recent.push((recent[ordinal(&row)? as usize].place, row.try_get(1)?));
        }
        Ok(answers)
    }

    async fn insert_mentions(&self, rows: MentionRows<'_>) -> Result<(), StoreError> {
        self.inserts.fetch_or(rows.len() > 0, Ordering::Relaxed);
        let inserted = async {
            if self.copies(rows.len()) {
                return self.copy(&statement::COPY_MENTIONS, self.session.begin_copy(), rows.len(), rows).await;
            }
            let rows: Vec<_> = rows.collect();
            self.write::<Mentions>(&statement::INSERT_MENTIONS, Purpose::Insert, &rows).await
        };
        let late = self.late_checks.filter(|_| self.inserts.load(Ordering::Relaxed));
        let check = self.session.batch_if_any("check_keys", late.map(|late| &*late.check));
        let (inserted, checked) = futures::join!(inserted, check);
        inserted?;
        Ok(checked?)
    }

    async fn update_mentions(&self, rows: &[MentionRow<'_>]) -> Result<(), StoreError> {
        self.write::<Mentions>(&statement::UPDATE_MENTIONS, Purpose::Update, rows).await
    }

    async fn index_histories(&self, connections: &[Uuid]) -> Result<(), StoreError> {
        if connections.is_empty() {
            return Ok(());
        }
        self.session.execute(&statement::INDEX_HISTORIES, &[&connections]).await?;
        Ok(())
    }

    async fn reread(&self, questions: &RereadQuestions) -> Result<RereadAnswers, StoreError> {
        let RereadQuestions { threads, newest, newest_indexed, top } = questions;
        let (thread_rows, newest_rows, top_rows) = futures::join!(
            self.query(&statement::REREAD_THREADS, vec![threads], threads.is_empty()),
            self.query(&statement::REREAD_NEWEST, vec![newest, newest_indexed], newest.is_empty()),
            self.query(&statement::REREAD_TOP, vec![top], top.is_empty()),
        );
        let mut answers = RereadAnswers::default();
        for row in thread_rows? {
            answers.threads.push((ordinal(&row)?, row.try_get(1)?));
        }
        for row in newest_rows? {
            answers.newest.push((ordinal(&row)?, time(&row, 1)?));
        }
        for row in top_rows? {
            let stored = read_mention(&mut Cells::new(&row, 1))?;
            answers.top.push((ordinal(&row)?, top_mention(stored.id, stored.mention)));
        }
        Ok(answers)
    }

    async fn update_connections(&self, rows: &[ConnectionWrite<'_>]) -> Result<(), StoreError> {
        self.write::<Connections>(&statement::UPDATE_CONNECTIONS, Purpose::Update, rows).await
    }
}

impl<'a> Transaction<'a> {
    /// The transaction of an attempt at an epoch with so many mentions.
    pub(super) fn new(
        session: &'a Session,
        begin: &'a str,
        attempt: Uuid,
        copying: &'a Copying,
        mentions: usize,
    ) -> Self {
        // Without a name, a copy is sent only after it was prepared, and statements sent meanwhile would overtake it:
        // figures that are reread would then miss its rows.
        let copies = copying.is_allowed && session.has_named_statements();
        let late_checks = copying.late_checks.as_ref().filter(|_| copies && mentions >= COPY_FROM_ROWS);
        Self { session, begin, attempt, copies, late_checks, inserts: AtomicBool::new(false) }
    }

    /// Updates the figures of the next connections, in lock order; returns their keys, and the number of changes.
    pub(super) async fn refresh(
        &self,
        after: &ConnectionKey<Uuid>,
        limit: i64,
        clock: Clock,
    ) -> Result<(Vec<ConnectionKey<Uuid>>, usize), StoreError> {
        let (attributes, merge_lock) = (uuid_array(&after.dish_attributes), self.session.merge_lock());
        let (begun, turn, rows) = futures::join!(
            self.session.batch("begin", self.begin),
            self.query(&statement::LOCK_SHARED, vec![&merge_lock], false),
            self.query(&statement::CONNECTIONS_AFTER, vec![&after.restaurant, &after.dish, &attributes, &limit], false),
        );
        begun.map_err(StoreError::begin)?;
        turn?;
        let keys =
            rows?.iter().map(|row| read_connection_key(&mut Cells::new(row, 0))).collect::<Result<Vec<_>, _>>()?;
        let connections = refresh_connections(self, UnlockedConnections::of_keys(keys.clone()), clock).await?;
        let updated = connections.dispositions().0.filter(|disposition| *disposition == Disposition::Updated).count();
        Ok((keys, updated))
    }

    async fn lock_entities(&self, entities: &[EntityWrite]) -> Result<Vec<StoredEntity>, StoreError> {
        let types: Vec<&str> = entities.iter().map(|entity| entity.key.entity_type.as_str()).collect();
        let names: Vec<&str> = entities.iter().map(|entity| &*entity.key.name).collect();
        let rows = self.query(&statement::LOCK_ENTITIES, vec![&types, &names], entities.is_empty()).await?;
        let locked = rows.iter().map(|row| {
            let key = entities[ordinal(row)? as usize].key.clone();
            let mut cells = Cells::new(row, 1);
            Ok(StoredEntity { id: cells.next()?, key, facts: Some(read_facts(&mut cells)?) })
        });
        locked.collect()
    }

    /// Whether so many rows are copied rather than inserted from arrays.
    fn copies(&self, rows: usize) -> bool {
        self.copies && rows >= COPY_FROM_ROWS
    }

    /// Copies rows. `count` is their number.
    async fn copy<T: Table>(
        &self,
        statement: &Statement,
        beginning: BeginningCopy<'_>,
        count: usize,
        rows: impl NextRow<T>,
    ) -> Result<(), StoreError> {
        all_written(self.session.copy(statement, beginning, copy_pieces(count, rows)).await?, count)
    }

    /// Writes rows unless there are none; each must exist.
    async fn write<'r, T: Table>(
        &self,
        statement: &Statement,
        purpose: Purpose,
        rows: &'r [T::Row<'r>],
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let arrays = Arrays::new::<T>(purpose, rows);
        self.execute(statement, arrays.parameters(), rows.len()).await
    }

    /// Runs a query unless its parameters are empty.
    async fn query(
        &self,
        statement: &Statement,
        parameters: Parameters<'_>,
        nothing: bool,
    ) -> Result<Vec<Row>, StoreError> {
        if nothing {
            return Ok(Vec::new());
        }
        Ok(self.session.query(statement, &parameters).await?)
    }

    /// Touches rows unless there are none; each must exist.
    async fn execute(&self, statement: &Statement, parameters: Parameters<'_>, rows: usize) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        all_written(self.session.execute(statement, &parameters).await?, rows)
    }
}

/// Keys of entities to look up, column by column.
pub(super) struct EntityKeys<'a> {
    types: Vec<&'static str>,
    names: Vec<&'a str>,
    with_facts: Vec<bool>,
}

impl<'a> EntityKeys<'a> {
    pub(super) fn new(lookups: &[KeyLookup<'a>]) -> Self {
        Self {
            types: lookups.iter().map(|lookup| lookup.entity_type.as_str()).collect(),
            names: lookups.iter().map(|lookup| lookup.name).collect(),
            with_facts: lookups.iter().map(|lookup| lookup.with_facts).collect(),
        }
    }

    pub(super) fn parameters(&self) -> Parameters<'_> {
        vec![&self.types, &self.names, &self.with_facts]
    }
}

/// Checks that all sent rows were written: another program may have deleted a row, or a trigger may have left one out.
pub(super) fn all_written(written: u64, sent: usize) -> Result<(), StoreError> {
    if written == sent as u64 { Ok(()) } else { Err(StoreError::VanishedRow) }
}

/// The generation, if there is a reliable one.
fn read_generation(rows: &[Row]) -> Result<Option<Generation>, tokio_postgres::Error> {
    rows.first().map(|row| row.try_get::<_, &str>(0).map(Generation::new)).transpose()
}

/// Ids in the first column.
pub(super) fn ids(rows: &[Row]) -> Result<Vec<Uuid>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The ordinal in the first column, from 0.
pub(super) fn ordinal(row: &Row) -> Result<u32, tokio_postgres::Error> {
    // `with ordinality` counts from 1.
    row.try_get::<_, i64>(0).map(|ordinal| (ordinal - 1) as u32)
}

/// An optional time.
pub(super) fn time(row: &Row, column: usize) -> Result<Option<crate::record::Timestamp>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<StoredTime>>(column)?.map(|time| time.0))
}

/// A set of ids as the text of a `uuid[]`; `None` for the empty set, which is the most frequent and which the server
/// then need not parse.
pub(super) fn uuid_set(ids: &SortedSet<Uuid>) -> Option<String> {
    (!ids.is_empty()).then(|| uuid_array(ids))
}

/// Reads a row of [`statement::ENTITIES_BY_KEY`].
pub(super) fn entity_by_key(row: &Row, lookup: &KeyLookup<'_>) -> Result<FoundByKey, tokio_postgres::Error> {
    let merged_into = row.try_get::<_, Option<&str>>(row.len() - 1)?;
    let mut cells = Cells::new(row, 1);
    Ok(FoundByKey {
        id: cells.next()?,
        merged_into: merged_into.map(|name| EntityKey::new(lookup.entity_type, name)),
        facts: if lookup.with_facts { Some(read_facts(&mut cells)?) } else { None },
    })
}

/// Reads a row of [`statement::ENTITIES_BY_ID`].
pub(super) fn entity_by_id(row: &Row) -> Result<StoredEntity, StoreError> {
    let mut cells = Cells::new(row, 1);
    let (id, facts) = (cells.next()?, read_facts(&mut cells)?);
    Ok(StoredEntity { id, key: read_entity_key(&mut cells)?, facts: Some(facts) })
}
