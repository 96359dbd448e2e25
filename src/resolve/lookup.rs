//! What is asked of the database: SQL, connections, one snapshot for a batch.
//!
//! | round trip | |
//! |---|---|
//! | 1 | `begin` (one read-only snapshot), exact names and aliases of the whole batch |
//! | 2 | of what was not found: names that begin or end so, and restaurants by address |
//! | 3 | of what is no typing error of these: similar names |
//! | 4 | `commit` |
//!
//! Nothing is locked: writers are never held up. Values are parameters without exception; the only text put together
//! here are the quoted names of two schemas.
//!
//! **Plans are pinned**, as the engine's are (see `ARCHITECTURE.md`), and for the same reason, but with bitmap scans,
//! without which no GIN index can be used. That opens the trap that the engine closes by forbidding them: an equality
//! of names could be looked up through the trigram index. So names are compared as rows from both sides, which is
//! equality, and which only the unique index on (name, type) can serve; and elsewhere the type is compared as text, so
//! that no index on it is read beside the one that selects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection, Pool, PooledConnection, RunError};
use bb8_postgres::PostgresConnectionManager;
use strsim::osa_distance;
use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::ResolveError;
use super::corpus::Corpus;
use super::halves::{Range, halves};
use super::place::Address;
use super::probes::probes;
use super::query::{Query, Tier};
use super::settings::ResolverSettings;
use crate::config::Config;
use crate::record::EntityType;
use crate::store::{StoreError, quote_identifier};
use crate::tls::MakeTls;

/// Names in the sample that tells common words from rare ones. Read in a few tens of milliseconds.
const SAMPLE: i64 = 20_000;
/// Entities that may share one alias before the rest is left out.
const SHARED_ALIAS_MAX: i64 = 5;
/// What a batch may take beyond the timeouts of its statements.
const NETWORK: Duration = Duration::from_secs(1);

/// The order by text is that by id, without the primary key as a way to it. Entities that have the name itself as an
/// alias come first, so that however many share the author's text, they are among the answers.
///
/// `limit 1` stops before redirects are looked at where there is an entity; where a merge took the entity of this name, the answer is what it was merged into.
const KNOWN: &str = "
    select k.ord, e.entity_id, k.original = e.name or k.original = any(e.aliases), a.entity_id, a.name, a.address,
           a.known, nullif(e.name, k.name), a.by_name
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as k(type, name, original, ord)
    left join lateral (
        select e.entity_id, e.name, e.aliases from {schema}.entities e
        where (e.name, e.type) >= (k.name, k.type::{schema}.entity_type)
          and (e.name, e.type) <= (k.name, k.type::{schema}.entity_type)
        union all
        select e.entity_id, e.name, e.aliases
        from {schema}.entity_redirects r join {schema}.entities e on e.entity_id = r.into_id
        where (r.name, r.type) >= (k.name, k.type::{schema}.entity_type)
          and (r.name, r.type) <= (k.name, k.type::{schema}.entity_type)
        limit 1) as e on true
    left join lateral (
        select a.entity_id, a.name, a.address, k.original = a.name or k.original = any(a.aliases) as known,
               k.name = any(a.aliases) as by_name
        from {schema}.entities a
        where $4 and e.entity_id is null and a.aliases && array[k.name, k.original] and a.type::text = k.type
        order by by_name desc, a.entity_id::text
        limit $5) as a on true
    where e.entity_id is not null or a.entity_id is not null";

/// Names a third as long, or three times, are similar to nobody.
const SIMILAR: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[]) as p(ord, type, name, pattern)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where e.name ~~* p.pattern and e.type::text = p.type
          and octet_length(e.name) * 3 >= octet_length(p.name) and octet_length(e.name) <= octet_length(p.name) * 3
          and {trigrams}.similarity(e.name, p.name) >= $5
        order by {trigrams}.similarity(e.name, p.name) desc, e.entity_id
        limit $6) as s";

/// Names that begin with some letters, or read backwards begin with some. Of another length they are no misspelt ones.
///
/// Sorted by similarity as above, but most are sorted out by what costs less.
const RANGE: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::text[]) as p(ord, type, name, low, high)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where {column} >= p.low and {column} < p.high and e.type::text = p.type
          and octet_length(e.name) between octet_length(p.name) - 4 and octet_length(p.name) + 4
          and {trigrams}.similarity(e.name, p.name) >= $6
        order by {trigrams}.similarity(e.name, p.name) desc, e.entity_id
        limit $7) as s";

/// All that is at one house number, whatever the street: the streets are compared by [`Address`].
const NEIGHBOURS: &str = "
    select p.ord, s.entity_id, s.name, s.address
    from unnest($1::int4[], $2::text[], $3::text[], $4::text[]) as p(ord, name, number, street)
    cross join lateral (
        select e.entity_id, e.name, e.address
        from {schema}.entities e
        where e.address ~>=~ (p.number || ' ') and e.address ~<~ (p.number || '!') and e.address ~~* p.street
          and e.type::text = 'restaurant'
        order by {trigrams}.similarity(e.name, p.name) desc, e.entity_id
        limit $5) as s";

/// An entity as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntity {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) address: Option<String>,
}

/// An entity that an alias led to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) entity: StoredEntity,
    /// Whether it is known to be called what the author wrote.
    pub(crate) known: bool,
    /// Whether the name itself is an alias, and not the author's text alone.
    pub(crate) by_name: bool,
}

/// What the database has for one query.
#[derive(Debug, Default)]
pub(crate) enum Found {
    /// The entity of that name, its own name if a merge gave it another, and whether it is known to be called what the
    /// author wrote.
    Exact(Uuid, Option<String>, bool),
    /// Entities with the name or the author's text as an alias.
    Alias(Vec<Called>),
    /// Entities with a similar name or at the same address, each once, perhaps none.
    Fuzzy(Vec<StoredEntity>),
    #[default]
    Nothing,
}

impl Found {
    /// Whether the name is one of these with one typing error: nothing else is likelier, whatever else is similar.
    fn has_one_error(&self, query: &Query) -> bool {
        let near = |entity: &StoredEntity| osa_distance(&entity.name, &query.key.name) <= 1;
        matches!(self, Self::Fuzzy(entities) if entities.iter().any(near))
    }
}

/// A pool of connections for reading.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: Pool<Manager>,
    failures: Failures,
    begin: Arc<str>,
    patience: Duration,
    connect_timeout: Duration,
    schema: Arc<str>,
    deepest: Tier,
    similarity_min: f32,
    candidates_max: i64,
}

impl Database {
    /// Connects lazily; connections are driven by the runtime that this is called on.
    pub(crate) async fn new(config: &Config, settings: &ResolverSettings) -> Result<Self, StoreError> {
        let schema: Arc<str> = quote_identifier(config.schema()).into();
        let hosts = config.postgres.get_hosts().len().max(config.postgres.get_hostaddrs().len()).max(1);
        let manager = Manager {
            inner: PostgresConnectionManager::new(config.postgres.clone(), config.tls.make()),
            schema: Arc::clone(&schema),
            patience: config.connect_timeout * (hosts as u32 + 1),
        };
        let failures = Failures::default();
        let pool = Pool::builder()
            .max_size(settings.connections)
            .connection_timeout(config.connect_timeout)
            .test_on_check_out(false)
            .retry_connection(false)
            .error_sink(Box::new(failures.clone()))
            .build(manager)
            .await?;
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
            failures,
            begin: begin.into(),
            patience: config.statement_timeout + NETWORK,
            connect_timeout: config.connect_timeout,
            schema,
            deepest: settings.deepest,
            similarity_min: settings.similarity_min as f32,
            candidates_max: settings.candidates_max as i64,
        })
    }

    /// Checks that the indexes are there without which a lookup would read whole tables.
    pub(crate) async fn check(&self) -> Result<(), ResolveError> {
        let mut needed = vec!["entities_name_type_key"];
        if self.deepest >= Tier::Alias {
            needed.push("entities_aliases_idx");
        }
        if self.deepest >= Tier::Fuzzy {
            needed.extend(["entities_name_trgm_idx", "entities_name_backwards_idx", "entities_house_number_idx"]);
        }
        let connection = self.connection().await?;
        for index in needed {
            let name = format!("{}.{index}", self.schema);
            let row = self.answer(connection.client.query_one("select to_regclass($1) is not null", &[&name])).await?;
            let found: bool = row.try_get(0).map_err(StoreError::from)?;
            if !found {
                return Err(ResolveError::MissingIndex { index });
            }
        }
        Ok(())
    }

    /// Looks a batch up, in one snapshot. The answers are in the order of the queries.
    pub(crate) async fn look_up(&self, queries: &[Query], corpus: &Corpus) -> Result<Vec<Found>, StoreError> {
        match self.try_look_up(queries, corpus).await {
            // A connection that died in the pool: reading twice does no harm.
            Err(error) if error.is_retryable() => self.try_look_up(queries, corpus).await,
            result => result,
        }
    }

    async fn try_look_up(&self, queries: &[Query], corpus: &Corpus) -> Result<Vec<Found>, StoreError> {
        let mut connection = self.connection().await?;
        connection.in_transaction = true;
        let snapshot = Snapshot { database: self, connection: &connection };
        let found = self.answer(snapshot.known(queries)).await?;
        let found = if self.deepest == Tier::Fuzzy {
            let mut found = found;
            self.answer(snapshot.fuzzy(queries, &mut found, corpus)).await?;
            found
        } else {
            found
        };
        self.answer(connection.client.batch_execute("commit")).await?;
        connection.in_transaction = false;
        Ok(found)
    }

    /// Draws a sample of all names.
    pub(crate) async fn sample(&self) -> Result<Corpus, StoreError> {
        let connection = self.connection().await?;
        let client = &connection.client;
        // A row of a table that was never analyzed is taken to have 200 bytes.
        let rows = "select case when c.reltuples > 0 then c.reltuples else pg_relation_size(c.oid) / 200 end::float8
                    from pg_catalog.pg_class c where c.oid = to_regclass($1)";
        let entities = format!("{}.entities", self.schema);
        let rows: f64 = self.answer(client.query_one(rows, &[&entities])).await?.try_get(0)?;
        let percent = (100.0 * SAMPLE as f64 / rows.max(1.0)).min(100.0) as f32;
        // Always the same pages, so that confidences do not move without a reason.
        let sample = format!(
            "select name from {}.entities tablesample system ($1::float4) repeatable (1) limit $2::int8",
            self.schema
        );
        let names = self.answer(client.query(&sample, &[&percent, &SAMPLE])).await?;
        let names: Vec<&str> = names.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Corpus::new(names, rows))
    }

    async fn connection(&self) -> Result<PooledConnection<'_, Manager>, StoreError> {
        tokio::select! {
            connection = self.pool.get() => connection.map_err(|error| match error {
                RunError::User(error) => error,
                RunError::TimedOut => StoreError::NoConnection(self.connect_timeout),
            }),
            error = self.failures.next() => Err(error),
        }
    }

    /// Waits for an answer, but not for ever.
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
    connection: &'a Connection,
}

impl Snapshot<'_> {
    /// Begins, and looks for exact names and aliases.
    async fn known(&self, queries: &[Query]) -> Result<Vec<Found>, StoreError> {
        let types: Vec<&str> = queries.iter().map(|query| query.key.entity_type.as_str()).collect();
        let names: Vec<&str> = queries.iter().map(|query| &*query.key.name).collect();
        let originals: Vec<&str> = queries.iter().map(|query| &**query.text()).collect();
        let aliases = self.database.deepest >= Tier::Alias;
        let parameters: [&(dyn ToSql + Sync); 5] = [&types, &names, &originals, &aliases, &SHARED_ALIAS_MAX];
        let client = &self.connection.client;
        // The driver sends both before the first is answered.
        let begin = client.batch_execute(&self.database.begin);
        let rows = client.query(&self.connection.known, &parameters);
        let (started, rows) = futures::join!(begin, rows);
        started.map_err(StoreError::Begin)?;
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
            let entity = Called { entity: stored(&row, 3)?, known: is(6)?, by_name: is(8)? };
            match found {
                Found::Alias(entities) => entities.push(entity),
                _ => *found = Found::Alias(vec![entity]),
            }
        }
        Ok(found)
    }

    /// Looks for names with one error and for what is at the same address, then for similar names of what is left.
    async fn fuzzy(&self, queries: &[Query], found: &mut [Found], corpus: &Corpus) -> Result<(), StoreError> {
        let sought: Vec<usize> = (0..queries.len()).filter(|index| matches!(found[*index], Found::Nothing)).collect();
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
        let near: [&(dyn ToSql + Sync); 5] = [&ords, &names, &numbers, &streets, &self.database.candidates_max];
        let near = self.query(self.connection.neighbours.as_ref(), &near, ords.is_empty());
        let beginning = self.range(self.connection.beginning.as_ref(), &beginnings);
        let end = self.range(self.connection.end.as_ref(), &ends);
        let (beginning, end, near) = futures::join!(beginning, end, near);
        add_similar(found, beginning?.iter().chain(&end?).chain(&near?))?;
        let left = sought.into_iter().filter(|index| !found[*index].has_one_error(&queries[*index]));
        let similar = self.similar(queries, left, corpus).await?;
        add_similar(found, &similar)
    }

    /// Names that share a rare piece.
    async fn similar(
        &self,
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
        let database = self.database;
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&ords, &types, &names, &patterns, &database.similarity_min, &database.candidates_max];
        self.query(self.connection.similar.as_ref(), &parameters, ords.is_empty()).await
    }

    async fn range(&self, statement: Option<&Statement>, ranges: &Ranges<'_>) -> Result<Vec<Row>, StoreError> {
        let Ranges { ords, types, names, lows, highs } = ranges;
        let database = self.database;
        let parameters: [&(dyn ToSql + Sync); 7] =
            [ords, types, names, lows, highs, &database.similarity_min, &database.candidates_max];
        self.query(statement, &parameters, ords.is_empty()).await
    }

    async fn query(
        &self,
        statement: Option<&Statement>,
        parameters: &[&(dyn ToSql + Sync)],
        nothing: bool,
    ) -> Result<Vec<Row>, StoreError> {
        match statement {
            Some(statement) if !nothing => Ok(self.connection.client.query(statement, parameters).await?),
            _ => Ok(Vec::new()),
        }
    }
}

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

/// Adds candidates to what was found, each once.
fn add_similar<'a>(found: &mut [Found], rows: impl IntoIterator<Item = &'a Row>) -> Result<(), StoreError> {
    for row in rows {
        let ord: i32 = row.try_get(0)?;
        let entity = stored(row, 1)?;
        match &mut found[ord as usize] {
            Found::Fuzzy(entities) if entities.iter().any(|known| known.id == entity.id) => {}
            Found::Fuzzy(entities) => entities.push(entity),
            found => *found = Found::Fuzzy(vec![entity]),
        }
    }
    Ok(())
}

fn stored(row: &Row, first: usize) -> Result<StoredEntity, tokio_postgres::Error> {
    Ok(StoredEntity { id: row.try_get(first)?, name: row.try_get(first + 1)?, address: row.try_get(first + 2)? })
}

/// A connection with its statements.
#[derive(Debug)]
struct Connection {
    client: Client,
    known: Statement,
    /// Absent where `pg_trgm` is.
    similar: Option<Statement>,
    beginning: Option<Statement>,
    end: Option<Statement>,
    neighbours: Option<Statement>,
    /// From before `begin` to the confirmed `commit`: a connection that is dropped in between is not used again.
    in_transaction: bool,
}

/// Why a connection did not come about. The pool would say "timed out", later.
#[derive(Debug, Clone, Default)]
struct Failures {
    last: Arc<Mutex<Option<StoreError>>>,
    happened: Arc<Notify>,
}

impl Failures {
    /// The next failure from now on. Of several who wait one hears it, and the others wait on.
    async fn next(&self) -> StoreError {
        loop {
            self.happened.notified().await;
            if let Some(error) = self.last.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return error;
            }
        }
    }
}

impl ErrorSink<StoreError> for Failures {
    fn sink(&self, error: StoreError) {
        tracing::warn!(error = %error, "a connection of the resolver's pool failed");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.happened.notify_waiters();
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<StoreError>> {
        Box::new(self.clone())
    }
}

/// Makes connections for the pool.
#[derive(Debug, Clone)]
struct Manager {
    inner: PostgresConnectionManager<MakeTls>,
    schema: Arc<str>,
    patience: Duration,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = StoreError;

    async fn connect(&self) -> Result<Connection, StoreError> {
        let connect = async {
            let client = self.inner.connect().await.map_err(|error| StoreError::Connect(Arc::new(error)))?;
            self.prepare(client).await.map_err(StoreError::Begin)
        };
        tokio::time::timeout(self.patience, connect).await.map_err(|_| StoreError::NoConnection(self.patience))?
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), StoreError> {
        Ok(self.inner.is_valid(&mut connection.client).await?)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.in_transaction || self.inner.has_broken(&mut connection.client)
    }
}

impl Manager {
    async fn prepare(&self, client: Client) -> Result<Connection, tokio_postgres::Error> {
        let find = "select quote_ident(n.nspname) from pg_catalog.pg_extension e
                    join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm'";
        let trigrams: Option<String> = client.query_opt(find, &[]).await?.map(|row| row.try_get(0)).transpose()?;
        let text =
            |template: &str, trigrams: &str| template.replace("{schema}", &self.schema).replace("{trigrams}", trigrams);
        let known = client.prepare(&text(KNOWN, "")).await?;
        let (mut similar, mut beginning, mut end, mut neighbours) = (None, None, None, None);
        if let Some(trigrams) = trigrams {
            let range = |column: &str| text(RANGE, &trigrams).replace("{column}", column);
            beginning = Some(client.prepare(&range("e.name")).await?);
            end = Some(client.prepare(&range("reverse(e.name)")).await?);
            similar = Some(client.prepare(&text(SIMILAR, &trigrams)).await?);
            neighbours = Some(client.prepare(&text(NEIGHBOURS, &trigrams)).await?);
        }
        Ok(Connection { client, known, similar, beginning, end, neighbours, in_transaction: false })
    }
}
