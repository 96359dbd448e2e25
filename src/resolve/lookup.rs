//! The queries to the database: one snapshot for a batch.
//!
//! | round trip | |
//! |---|---|
//! | 1 | `begin` (one read-only snapshot), exact names and aliases of the whole batch |
//! | 2 | for names not found, or refuted by their address: names with the same beginning or end, and restaurants by address |
//! | 3 | for names that are not a typing error of these: similar names |
//! | 4 | `commit` |
//!
//! Nothing is locked, so writers never wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bb8::PooledConnection;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::corpus::Corpus;
use super::error::ResolveError;
use super::found::{AliasMatch, Found, KnownEntity};
use super::halves::halves;
use super::place::Address;
use super::probes::probes;
use super::query::{Query, Tier};
use super::range::Range;
use super::scan::Sought;
use super::score::WordCounts;
use super::session::{Manager, Session, Statements};
use super::settings::ResolverSettings;
use crate::config::Config;
use crate::error::StoreError;
use crate::record::EntityType;
use crate::store::{Connector, Prepared, SessionPool, StatementNames, quote_identifier};

/// Number of names in the sample that distinguishes common words from rare ones. It is read in a few tens of
/// milliseconds.
const SAMPLE: i64 = 20_000;
/// Maximum number of entities sharing one alias that are considered; those with the greatest names are omitted. The
/// omission changes a decision only if evidence refutes all of them, because the first that is not refuted is chosen.
const SHARED_ALIAS_MAX: i64 = 100;
/// Number of entities in a page of a scan: some milliseconds and a megabyte.
const PAGE: i64 = 10_000;
/// Time allowance for a batch beyond the timeouts of its statements.
const NETWORK: Duration = Duration::from_secs(1);

/// A pool of connections for reading.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: SessionPool<Manager>,
    begin: Arc<str>,
    patience: Duration,
    schema: Arc<str>,
    settings: ResolverSettings,
    statement_names: StatementNames,
}

impl Database {
    /// Connects lazily; connections are driven by the runtime on which this is called.
    pub(crate) async fn new(config: &Config, settings: &ResolverSettings) -> Result<Self, StoreError> {
        let schema: Arc<str> = quote_identifier(config.schema()).into();
        let connector = Connector::new(config);
        let statement_names = connector.statement_names().clone();
        let manager = Manager { connector };
        let pool = SessionPool::new(manager, settings.connections, config.connect_timeout).await?;
        let statement_timeout = config.statement_timeout.as_millis();
        let begin = format!(
            "begin isolation level repeatable read read only;
             set local statement_timeout = {statement_timeout};
             set local idle_in_transaction_session_timeout = {statement_timeout};
             set local plan_cache_mode = force_generic_plan;
             set local enable_nestloop = on;
             set local enable_indexscan = on;
             set local enable_indexonlyscan = on;
             set local enable_bitmapscan = on;
             set local enable_seqscan = off;
             set local enable_hashjoin = off;
             set local enable_mergejoin = off;
             set local max_parallel_workers_per_gather = 0;
             set local jit = off"
        );
        Ok(Self {
            pool,
            begin: begin.into(),
            patience: config.statement_timeout + NETWORK,
            schema,
            settings: settings.clone(),
            statement_names,
        })
    }

    /// Checks that the indexes exist without which a lookup would read whole tables.
    pub(crate) async fn check(&self) -> Result<(), ResolveError> {
        let mut needed = vec!["entities_name_type_key"];
        if self.settings.deepest >= Tier::Alias {
            needed.push("entities_aliases_idx");
        }
        if self.settings.deepest >= Tier::Fuzzy {
            needed.extend(["entities_name_trgm_idx", "entities_name_backwards_idx", "entities_house_number_idx"]);
        }
        let session = self.session().await?;
        for index in needed {
            let name = format!("{}.{index}", self.schema);
            let row = self.answer(session.client.query_typed_one(FIND_INDEX, &[(&name, Type::TEXT)])).await?;
            let found: bool = row.try_get(0).map_err(StoreError::from)?;
            if !found {
                return Err(ResolveError::MissingIndex { index });
            }
        }
        Ok(())
    }

    fn similarity_min(&self) -> f32 {
        self.settings.similarity_min as f32
    }

    fn candidates_max(&self) -> i64 {
        self.settings.candidates_max as i64
    }

    /// Looks up a batch in one snapshot. The answers are in the order of the queries.
    pub(crate) async fn look_up(&self, queries: &[Query], corpus: &Corpus) -> Result<Vec<Found>, StoreError> {
        self.twice(|| self.snapshot(queries, Some(corpus))).await
    }

    /// The same by name and alias only; [`scan`](Self::scan) handles the rest.
    pub(crate) async fn look_up_known(&self, queries: &[Query]) -> Result<Vec<Found>, StoreError> {
        self.twice(|| self.snapshot(queries, None)).await
    }

    /// Reads all entities of the queried types, in one snapshot, and compares them.
    pub(crate) async fn scan(&self, queries: &Arc<Vec<Query>>, open: &[usize]) -> Result<Sought, StoreError> {
        self.twice(|| self.try_scan(queries, open)).await
    }

    /// Retries once: a session may have died in the pool, or its statements may have been lost, and reading twice is
    /// harmless.
    async fn twice<T, F: Future<Output = Result<T, StoreError>>>(&self, read: impl Fn() -> F) -> Result<T, StoreError> {
        match read().await {
            Err(error) if error.is_retryable() => {
                self.statement_names.notice(&error);
                read().await
            }
            result => result,
        }
    }

    async fn snapshot(&self, queries: &[Query], corpus: Option<&Corpus>) -> Result<Vec<Found>, StoreError> {
        let mut session = self.session().await?;
        session.is_busy = true;
        let statements = session.statements.as_ref().expect("prepared when it was taken");
        let snapshot = Snapshot { database: self, client: &session.client, statements };
        let mut found = self.answer(snapshot.known(queries)).await?;
        if let Some(corpus) = corpus.filter(|_| self.settings.deepest == Tier::Fuzzy) {
            self.answer(snapshot.fuzzy(queries, &mut found, corpus)).await?;
        }
        self.answer(session.client.batch_execute("commit")).await?;
        session.is_busy = false;
        Ok(found)
    }

    async fn try_scan(&self, queries: &Arc<Vec<Query>>, open: &[usize]) -> Result<Sought, StoreError> {
        let types: BTreeSet<EntityType> = open.iter().map(|number| queries[*number].key.entity_type).collect();
        let open = || open.iter().map(|number| (*number, &queries[*number]));
        if types.is_empty() {
            return Ok(Sought::new(open(), WordCounts::default(), &self.settings));
        }
        let mut session = self.session().await?;
        session.is_busy = true;
        let begin = async { session.client.batch_execute(&self.begin).await.map_err(StoreError::begin) };
        self.answer(begin).await?;
        let counts = WordCounts::default();
        let counts = self.pass_by(&session, &types, counts, |counts, _, entity| counts.add(&entity.name)).await?;
        let sought = Sought::new(open(), counts, &self.settings);
        let sought = self.pass_by(&session, &types, sought, Sought::meet).await?;
        self.answer(session.client.batch_execute("commit")).await?;
        session.is_busy = false;
        Ok(sought)
    }

    /// Passes all entities of some types to `seen`, page by page.
    async fn pass_by<T: Send + 'static>(
        &self,
        session: &Session,
        types: &BTreeSet<EntityType>,
        mut seen: T,
        meet: fn(&mut T, EntityType, &KnownEntity),
    ) -> Result<T, StoreError> {
        let statements = session.statements.as_ref().expect("prepared when it was taken");
        let types: Vec<&str> = types.iter().map(|entity_type| entity_type.as_str()).collect();
        // No entity has an empty name, so all come after it.
        let mut last = (String::new(), EntityType::Restaurant.as_str().to_owned());
        loop {
            let after: [&(dyn ToSql + Sync); 4] = [&last.0, &last.1, &types, &PAGE];
            let page = self.answer(statements.page.query(&session.client, &after)).await?;
            let Some(row) = page.last() else { return Ok(seen) };
            last = (row.try_get(2)?, row.try_get(0)?);
            // Comparing takes longer than reading.
            let compared = tokio::task::spawn_blocking(move || {
                for row in &page {
                    let entity_type = row.try_get::<_, &str>(0)?.parse()?;
                    meet(&mut seen, entity_type, &stored(row, 1)?);
                }
                Ok::<_, StoreError>(seen)
            });
            seen = compared.await.map_err(|_| StoreError::Panicked)??;
        }
    }

    /// Draws a sample of all names.
    pub(crate) async fn sample(&self) -> Result<Corpus, StoreError> {
        let session = self.session().await?;
        let client = &session.client;
        // A row of a table that was never analyzed is assumed to have 200 bytes.
        let rows = "select case when c.reltuples > 0 then c.reltuples else pg_relation_size(c.oid) / 200 end::float8
                    from pg_catalog.pg_class c where c.oid = to_regclass($1)";
        let entities = format!("{}.entities", self.schema);
        let rows: f64 = self.answer(client.query_typed_one(rows, &[(&entities, Type::TEXT)])).await?.try_get(0)?;
        let percent = (100.0 * SAMPLE as f64 / rows.max(1.0)).min(100.0) as f32;
        // Always the same pages, so that confidences do not change without a reason.
        let sample = format!(
            "select name from {}.entities tablesample system ($1::float4) repeatable (1) limit $2::int8",
            self.schema
        );
        let names =
            self.answer(client.query_typed(&sample, &[(&percent, Type::FLOAT4), (&SAMPLE, Type::INT8)])).await?;
        let names: Vec<&str> = names.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Corpus::new(names, rows))
    }

    async fn session(&self) -> Result<PooledConnection<'_, Manager>, StoreError> {
        let mut session = self.pool.get().await?;
        let named = self.statement_names.are_kept();
        if session.statements.as_ref().is_none_or(|statements| statements.named != named) {
            session.is_busy = true;
            let statements = Statements::prepare(&session.client, &self.schema, named);
            let statements = tokio::time::timeout(self.patience, statements).await;
            let statements = statements.map_err(|_| StoreError::NoAnswer(self.patience))?;
            session.statements = Some(statements.map_err(StoreError::begin)?);
            session.is_busy = false;
        }
        Ok(session)
    }

    /// Waits for an answer, with a time limit.
    async fn answer<T, E: Into<StoreError>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(self.patience, answer).await;
        answer.map_err(|_| StoreError::NoAnswer(self.patience))?.map_err(Into::into)
    }
}

/// One transaction.
struct Snapshot<'a> {
    database: &'a Database,
    client: &'a Client,
    statements: &'a Statements,
}

impl Snapshot<'_> {
    /// Begins, and looks up exact names and aliases.
    async fn known(&self, queries: &[Query]) -> Result<Vec<Found>, StoreError> {
        let types: Vec<&str> = queries.iter().map(|query| query.key.entity_type.as_str()).collect();
        let names: Vec<&str> = queries.iter().map(|query| &*query.key.name).collect();
        let originals: Vec<&str> = queries.iter().map(|query| &**query.text()).collect();
        let aliases = self.database.settings.deepest >= Tier::Alias;
        let parameters: [&(dyn ToSql + Sync); 5] = [&types, &names, &originals, &aliases, &SHARED_ALIAS_MAX];
        // The driver sends both before the first is answered.
        let begin = self.client.batch_execute(&self.database.begin);
        let rows = self.statements.known.query(self.client, &parameters);
        let (started, rows) = futures::join!(begin, rows);
        started.map_err(StoreError::begin)?;
        let mut found: Vec<Found> = Vec::new();
        found.resize_with(queries.len(), Found::default);
        for row in rows? {
            let ord: i64 = row.try_get(0)?;
            let found = &mut found[ord as usize - 1];
            if let Some(id) = row.try_get(1)? {
                *found = Found::Exact(id, row.try_get(7)?, row.try_get::<_, Option<bool>>(2)?.unwrap_or(false));
                continue;
            }
            let is = |column| row.try_get::<_, Option<bool>>(column).map(Option::unwrap_or_default);
            let entity = AliasMatch { entity: stored(&row, 3)?, known: is(6)?, by_name: is(8)? };
            match found {
                Found::Alias(entities, _) => entities.push(entity),
                _ => *found = Found::Alias(vec![entity], Vec::new()),
            }
        }
        Ok(found)
    }

    /// Looks up names with one error and entities at the same address, then similar names for the rest.
    async fn fuzzy(&self, queries: &[Query], found: &mut [Found], corpus: &Corpus) -> Result<(), StoreError> {
        let Some(statements) = &self.statements.fuzzy else { return Ok(()) };
        let sought: Vec<usize> = (0..queries.len())
            .filter(|index| found[*index].is_open(&queries[*index], &self.database.settings))
            .collect();
        let (mut beginnings, mut ends) = (Ranges::default(), Ranges::default());
        let (mut ords, mut names, mut numbers, mut streets) = (vec![], vec![], vec![], vec![]);
        for &index in &sought {
            let query = &queries[index];
            let halves = halves(&query.key.name, corpus);
            beginnings.add(index, query, halves.beginning);
            ends.add(index, query, halves.end);
            if query.key.entity_type == EntityType::Restaurant && query.address.is_some() {
                for (number, street) in Address::parse(query.address.as_deref(), None).houses() {
                    ords.push(index as i32);
                    names.push(&*query.key.name);
                    numbers.push(number);
                    streets.push(format!("%{street}%"));
                }
            }
        }
        let candidates_max = self.database.candidates_max();
        let near: [&(dyn ToSql + Sync); 5] = [&ords, &names, &numbers, &streets, &candidates_max];
        let near = self.query(&statements.neighbours, &near, ords.is_empty());
        let beginning = self.range(&statements.beginning, &beginnings);
        let end = self.range(&statements.end, &ends);
        let (beginning, end, near) = futures::join!(beginning, end, near);
        add_similar(found, beginning?.iter().chain(&end?).chain(&near?))?;
        let left = sought.into_iter().filter(|index| !found[*index].has_one_error(&queries[*index]));
        let similar = self.similar(&statements.similar, queries, left, corpus).await?;
        add_similar(found, &similar)
    }

    /// Looks up names that share a rare piece.
    async fn similar(
        &self,
        statement: &Prepared,
        queries: &[Query],
        sought: impl Iterator<Item = usize>,
        corpus: &Corpus,
    ) -> Result<Vec<Row>, StoreError> {
        let (mut ords, mut types, mut names, mut patterns) = (vec![], vec![], vec![], vec![]);
        for index in sought {
            let query = &queries[index];
            for pattern in probes(&query.key.name, corpus) {
                ords.push(index as i32);
                types.push(query.key.entity_type.as_str());
                names.push(&*query.key.name);
                patterns.push(pattern);
            }
        }
        let (similarity_min, candidates_max) = (self.database.similarity_min(), self.database.candidates_max());
        let parameters: [&(dyn ToSql + Sync); 6] = [&ords, &types, &names, &patterns, &similarity_min, &candidates_max];
        self.query(statement, &parameters, ords.is_empty()).await
    }

    async fn range(&self, statement: &Prepared, ranges: &Ranges<'_>) -> Result<Vec<Row>, StoreError> {
        let Ranges { ords, types, names, lows, highs } = ranges;
        let (similarity_min, candidates_max) = (self.database.similarity_min(), self.database.candidates_max());
        let parameters: [&(dyn ToSql + Sync); 7] = [ords, types, names, lows, highs, &similarity_min, &candidates_max];
        self.query(statement, &parameters, ords.is_empty()).await
    }

    async fn query(
        &self,
        statement: &Prepared,
        parameters: &[&(dyn ToSql + Sync)],
        nothing: bool,
    ) -> Result<Vec<Row>, StoreError> {
        if nothing { Ok(Vec::new()) } else { Ok(statement.query(self.client, parameters).await?) }
    }
}

const FIND_INDEX: &str = "select to_regclass($1) is not null";

/// Columns of [`RANGE`]'s parameters.
#[derive(Default)]
struct Ranges<'a> {
    ords: Vec<i32>,
    types: Vec<&'static str>,
    names: Vec<&'a str>,
    lows: Vec<String>,
    highs: Vec<String>,
}

impl<'a> Ranges<'a> {
    fn add(&mut self, index: usize, query: &'a Query, range: Option<Range>) {
        let Some(Range { low, high }) = range else { return };
        self.ords.push(index as i32);
        self.types.push(query.key.entity_type.as_str());
        self.names.push(&query.key.name);
        self.lows.push(low);
        self.highs.push(high);
    }
}

/// Adds candidates to those found, without duplicates.
fn add_similar<'a>(found: &mut [Found], rows: impl IntoIterator<Item = &'a Row>) -> Result<(), StoreError> {
    for row in rows {
        let ord: i32 = row.try_get(0)?;
        let entity = stored(row, 1)?;
        match &mut found[ord as usize] {
            Found::Alias(called, _) if called.iter().any(|called| called.entity.id == entity.id) => {}
            Found::Fuzzy(entities) | Found::Alias(_, entities) => {
                if entities.iter().all(|known| known.id != entity.id) {
                    entities.push(entity);
                }
            }
            found => *found = Found::Fuzzy(vec![entity]),
        }
    }
    Ok(())
}

fn stored(row: &Row, first: usize) -> Result<KnownEntity, tokio_postgres::Error> {
    Ok(KnownEntity { id: row.try_get(first)?, name: row.try_get(first + 1)?, address: row.try_get(first + 2)? })
}
