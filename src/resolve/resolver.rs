//! The resolver's handle.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::batch_aliases::BatchAliases;
use super::cache::{Cache, Ranked};
use super::corpus::Corpus;
use super::error::ResolveError;
use super::in_batch;
use super::lookup::Database;
use super::query::{Candidate, Decision, Query, Resolution, Tier};
use super::ranking::{count_found, rank};
use super::settings::{Band, GreyZone, ResolverSettings};
use crate::commits::CommitListener;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::StoreError;
use crate::telemetry;
use crate::unit::is_blank;
use crate::unit::limits::NAME_CHARS_MAX;

/// Maximum age of a sample of names, before another one is drawn in the background.
const SAMPLE_GOOD_FOR: Duration = Duration::from_mins(10);

/// Resolves names to entities. Cheap to clone, usable from any task. See the [module](super).
///
/// ```no_run
/// # async fn run(resolver: graphsink::resolve::Resolver) -> Result<(), Box<dyn std::error::Error>> {
/// use graphsink::EntityType;
/// use graphsink::resolve::Query;
///
/// let task = resolver.clone();
/// let found = task.find(&[Query::new(EntityType::DishOrCategory, "brisket")]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Resolver {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) settings: ResolverSettings,
    pub(super) database: Database,
    pub(super) cache: Arc<Cache>,
    /// The last sample, and when it was drawn.
    pub(super) corpus: RwLock<Option<(Instant, Arc<Corpus>)>>,
    pub(super) sampling: AtomicBool,
    /// Maximum number of rows of a unit.
    pub(super) unit_rows_max: usize,
    /// Drives the connections.
    pub(super) runtime: Handle,
}

impl Resolver {
    /// A resolver for the database of an engine, whose commits invalidate cached answers. It has its own connections,
    /// with the engine's settings, on the engine's runtime, and works until the engine ends.
    ///
    /// # Errors
    /// Fails when a setting is invalid, the database cannot be reached, or an index is missing.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// use graphsink::resolve::{Resolver, ResolverSettings};
    ///
    /// let resolver = Resolver::attach(&engine, ResolverSettings::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn attach(engine: &Engine, settings: ResolverSettings) -> Result<Self, ResolveError> {
        let resolver = Self::start(engine.config(), settings, engine.runtime().clone()).await?;
        let cache: Weak<dyn CommitListener> = Arc::downgrade(&(Arc::clone(&resolver.inner.cache) as Arc<_>));
        engine.listen(cache);
        Ok(resolver)
    }

    /// A resolver without an engine: all writes are those of other processes. It must be called on a tokio runtime,
    /// which then drives the connections.
    ///
    /// # Errors
    /// Like [`attach`](Self::attach).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use graphsink::Config;
    /// use graphsink::resolve::{Resolver, ResolverSettings};
    ///
    /// let config = Config::builder("postgresql://reader@replica/evidence").build()?;
    /// let resolver = Resolver::connect(&config, ResolverSettings::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(config: &Config, settings: ResolverSettings) -> Result<Self, ResolveError> {
        Self::start(config, settings, Handle::current()).await
    }

    async fn start(config: &Config, settings: ResolverSettings, runtime: Handle) -> Result<Self, ResolveError> {
        settings.check()?;
        telemetry::describe(telemetry::resolver::METRICS);
        let unit_rows_max = config.max_unit_rows();
        let (config, asked) = (config.clone(), settings.clone());
        let database = on(&runtime, async move {
            let database = Database::new(&config, &asked).await?;
            database.check().await?;
            Ok::<_, ResolveError>(database)
        });
        let database = database.await?;
        let cache = Arc::new(Cache::new(settings.cache_entries, settings.time_to_live));
        let (corpus, sampling) = (RwLock::new(None), AtomicBool::new(false));
        let inner = Inner { settings, database, cache, corpus, sampling, unit_rows_max, runtime };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Decides what each name means. The answers are in the order of the queries.
    ///
    /// # Errors
    /// Fails when a text cannot be a name, or the database cannot be read. Nothing is written in any case.
    ///
    /// ```no_run
    /// # async fn run(resolver: graphsink::resolve::Resolver) -> Result<(), Box<dyn std::error::Error>> {
    /// use graphsink::resolve::{Decision, Query};
    /// use graphsink::EntityType;
    ///
    /// let name = Query::new(EntityType::Restaurant, "franklin barbeque").original("Franklin's").city("Austin");
    /// for resolution in resolver.resolve(&[name]).await? {
    ///     match resolution.decision {
    ///         Decision::Existing { entity, .. } => println!("{} ({:.2})", entity.name, entity.confidence),
    ///         Decision::New { key, .. } => println!("{} is new", key.name),
    ///         Decision::Ambiguous { candidates } => println!("one of {}?", candidates.len()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolve(&self, queries: &[Query]) -> Result<Vec<Resolution>, ResolveError> {
        let ranked = self.rank(queries).await?;
        let corpus = self.corpus().await?;
        let mut decisions: Vec<Decision> =
            queries.iter().zip(&ranked).map(|(query, ranked)| self.decide(query, ranked)).collect();
        let settings = &self.inner.settings;
        let is_new = |decision: &Decision| matches!(decision, Decision::New { .. });
        if settings.deepest >= Tier::Alias {
            let batch_aliases = BatchAliases::of(queries.iter().zip(&decisions));
            let called = |((query, decision), ranked): ((&Query, &Decision), &Arc<Ranked>)| {
                is_new(decision).then(|| batch_aliases.ranked(query, ranked, &corpus.words)).flatten()
            };
            let called: Vec<_> = queries.iter().zip(&decisions).zip(&ranked).map(called).collect();
            for ((query, decision), called) in queries.iter().zip(&mut decisions).zip(called) {
                if let Some(called) = called {
                    *decision = self.decide(query, &called);
                }
            }
        }
        let new = queries.iter().zip(&decisions).filter(|(_, decision)| is_new(decision)).map(|(query, _)| query);
        let centres = in_batch::centres(new, settings, &corpus.words);
        for (query, decision) in queries.iter().zip(&mut decisions) {
            if is_new(decision) {
                let key = centres[&query.key].clone();
                let alias = query.other_than(&key.name);
                *decision = Decision::New { key, alias };
            }
        }
        for (label, wanted) in [("existing", 0), ("new", 1), ("ambiguous", 2)] {
            let kind = |decision: &Decision| match decision {
                Decision::Existing { .. } => 0,
                Decision::New { .. } => 1,
                Decision::Ambiguous { .. } => 2,
            };
            let count = decisions.iter().filter(|decision| kind(decision) == wanted).count();
            telemetry::resolver::decisions(label).increment(count as u64);
        }
        let resolutions = decisions.into_iter().zip(&ranked).map(|(decision, ranked)| {
            let candidates = if settings.with_candidates { ranked.candidates.clone() } else { Vec::new() };
            Resolution { decision, candidates }
        });
        Ok(resolutions.collect())
    }

    /// The likeliest entity for each name, if there is one. Never creates or adds anything.
    ///
    /// # Errors
    /// Fails when a text cannot be a name, or the database cannot be read.
    ///
    /// ```no_run
    /// # async fn run(resolver: graphsink::resolve::Resolver) -> Result<(), Box<dyn std::error::Error>> {
    /// use graphsink::EntityType;
    /// use graphsink::resolve::Query;
    ///
    /// if let [Some(found)] = &resolver.find(&[Query::new(EntityType::Restaurant, "franklin barbeque")]).await?[..] {
    ///     println!("{}: {} by {}", found.id, found.name, found.tier.as_str());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn find(&self, queries: &[Query]) -> Result<Vec<Option<Candidate>>, ResolveError> {
        let ranked = self.rank(queries).await?;
        let good_enough = |candidate: &&Candidate| candidate.confidence >= self.inner.settings.read_only;
        Ok(ranked.iter().map(|ranked| ranked.candidates.first().filter(good_enough).cloned()).collect())
    }

    /// The possible meanings of each name: cached answers, and one lookup for the rest.
    async fn rank(&self, queries: &[Query]) -> Result<Vec<Arc<Ranked>>, ResolveError> {
        if let Some(index) = queries.iter().position(|query| !is_possible(query)) {
            return Err(ResolveError::InvalidText { index });
        }
        let inner = &self.inner;
        let mut places: HashMap<&Query, usize> = HashMap::new();
        let mut missing = Vec::new();
        let mut ranked: Vec<Option<Arc<Ranked>>> = Vec::with_capacity(queries.len());
        let mut waiting = Vec::new();
        for (index, query) in queries.iter().enumerate() {
            let remembered = inner.cache.get(query);
            if remembered.is_none() {
                let place = *places.entry(query).or_insert_with(|| {
                    missing.push(query.clone());
                    missing.len() - 1
                });
                waiting.push((index, place));
            }
            ranked.push(remembered);
        }
        telemetry::resolver::cache("hit").increment((queries.len() - waiting.len()) as u64);
        telemetry::resolver::cache("miss").increment(waiting.len() as u64);
        if !missing.is_empty() {
            let corpus = self.corpus().await?;
            let start = Instant::now();
            let before = inner.cache.before_snapshot();
            let missing = Arc::new(missing);
            let lookup = {
                let (database, queries, corpus) = (inner.database.clone(), Arc::clone(&missing), Arc::clone(&corpus));
                // In a box: callers' futures would be large.
                Box::pin(async move { database.look_up(&queries, &corpus).await })
            };
            let found = on(&inner.runtime, lookup).await?;
            telemetry::resolver::lookup_seconds().record(start.elapsed());
            let looked_up: Vec<Arc<Ranked>> = missing
                .iter()
                .zip(found)
                .map(|(query, found)| {
                    let ranked = Arc::new(rank(query, found, &corpus.words));
                    inner.cache.put(query, &ranked, before);
                    ranked
                })
                .collect();
            for (index, place) in waiting {
                ranked[index] = Some(Arc::clone(&looked_up[place]));
            }
        }
        let ranked: Vec<Arc<Ranked>> = ranked.into_iter().map(Option::unwrap_or_default).collect();
        count_found(&ranked.iter().map(|ranked| &**ranked));
        Ok(ranked)
    }

    pub(super) fn decide(&self, query: &Query, ranked: &Ranked) -> Decision {
        let settings = &self.inner.settings;
        let new = || Decision::New { key: query.key.clone(), alias: None };
        let Some(best) = ranked.candidates.first() else { return new() };
        let existing = || {
            let alias = if ranked.known { None } else { query.other_than(&best.name) };
            Decision::Existing { entity: best.clone(), alias }
        };
        // The best cannot be distinguished from the next.
        let is_shared = ranked.candidates.get(1).is_some_and(|next| next.confidence >= best.confidence);
        // The key is the entity, whatever the thresholds.
        let band = match settings.band(best.confidence) {
            _ if best.tier == Tier::Exact => Band::Existing,
            Band::Existing if is_shared => Band::Grey,
            band => band,
        };
        match (band, settings.grey_zone) {
            (Band::Existing, _) | (Band::Grey, GreyZone::Accept) => existing(),
            (Band::New, _) | (Band::Grey, GreyZone::Create) => new(),
            (Band::Grey, GreyZone::Flag) => Decision::Ambiguous { candidates: ranked.candidates.clone() },
        }
    }

    /// The sample of names: the last one, while another is drawn if it is too old.
    async fn corpus(&self) -> Result<Arc<Corpus>, StoreError> {
        if self.inner.settings.deepest < Tier::Fuzzy {
            return Ok(Arc::default());
        }
        let last = self.inner.corpus.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((drawn, corpus)) = last else {
            let resolver = self.clone();
            return on(&self.inner.runtime, async move { resolver.sample().await }).await;
        };
        if drawn.elapsed() > SAMPLE_GOOD_FOR && !self.inner.sampling.swap(true, Ordering::AcqRel) {
            let resolver = self.clone();
            self.inner.runtime.spawn(async move {
                if let Err(error) = resolver.sample().await {
                    tracing::warn!(error = %error, "no new sample of names could be drawn");
                }
                resolver.inner.sampling.store(false, Ordering::Release);
            });
        }
        Ok(corpus)
    }

    async fn sample(&self) -> Result<Arc<Corpus>, StoreError> {
        let corpus = Arc::new(self.inner.database.sample().await?);
        let mut last = self.inner.corpus.write().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), Arc::clone(&corpus)));
        Ok(corpus)
    }
}

/// Whether an entity could have such a name and alias.
fn is_possible(query: &Query) -> bool {
    let possible = |text: &str| {
        !is_blank(text)
            && !text.contains('\0')
            && (text.len() <= NAME_CHARS_MAX || text.chars().count() <= NAME_CHARS_MAX)
    };
    possible(&query.key.name) && query.original.as_deref().is_none_or(possible)
}

/// Runs a future on a runtime and waits for it on any.
pub(super) async fn on<T, E>(
    runtime: &Handle,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match runtime.spawn(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::ShutDown.into()),
    }
}
