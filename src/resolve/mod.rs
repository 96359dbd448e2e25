//! Which entity is this name? Asked for whole batches, against one consistent picture of the database.
//!
//! # The model
//!
//! A [`Resolver`] takes a batch of [`Query`]s and gives a [`Resolution`] for each. Three tiers are asked one after the
//! other, each for the whole batch at once; the number of round trips does not depend on the number of names. The type is
//! always part of the match: "italian" the dish attribute is never "italian" the restaurant attribute.
//!
//! | tier | finds | confidence |
//! |---|---|---|
//! | [`Exact`](Tier::Exact) | the entity of that type and name | 1: the key *is* the entity, whatever the evidence |
//! | [`Alias`](Tier::Alias) | entities of that type with the name, or the author's text, among their aliases | 0.97, by the text alone 0.96, moved by evidence |
//! | [`Fuzzy`](Tier::Fuzzy) | entities whose *name* has a trigram similarity of at least 0.3, and restaurants at the same house number and street | soft TF-IDF with Jaro-Winkler, or Levenshtein, moved by evidence |
//!
//! The confidence decides ([`ResolverSettings`]): above 0.85 the existing entity, below 0.7 a new one, and between
//! them what [`GreyZone`] says. An alias that several entities share equally is never taken for granted: it is in the
//! grey zone too. An alias that evidence refutes ends no search: the fuzzy tier is asked as well.
//! What a query of the batch says authors call an entity of the database is heard as its alias by the others, and names that
//! nobody knows and that match each other become one new entity.
//! [`Resolution::put`] writes the decision into a [`UnitOfWork`](crate::UnitOfWork), like any other caller would.
//!
//! [`Resolver::find`] is for those who only search: it decides nothing, adds nothing, and answers from 0.6 on.
//!
//! ```no_run
//! use graphsink::resolve::{Query, Resolver, ResolverSettings};
//! use graphsink::{Config, Engine, EntityType, UnitOfWork};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(Config::builder("postgresql://localhost/evidence").build()?).await?;
//! let resolver = Resolver::attach(&engine, ResolverSettings::default()).await?;
//!
//! let place = Query::new(EntityType::Restaurant, "franklin bbq").original("Franklin's").city("Austin");
//! let dish = Query::new(EntityType::DishOrCategory, "brisket");
//! let answers = resolver.resolve(&[place, dish]).await?;
//! let mut unit = UnitOfWork::new();
//! if let (Some(place), Some(dish)) = (answers[0].put(&mut unit), answers[1].put(&mut unit)) {
//!     unit.connection(place, dish);
//! }
//! engine.submit(unit).await?.await.into_result()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Whole inputs
//!
//! Whoever loads a file wants the same database from it whatever its order, and again the second time. [`Names`] takes
//! the names of all its units, decides each of them once, and [`ResolvedNames::apply`] puts the decisions into the units:
//!
//! ```no_run
//! use graphsink::resolve::{Names, Resolver, ResolverSettings, Tier};
//! use graphsink::{Engine, UnitOfWork};
//!
//! # async fn run(engine: Engine, units: impl Fn() -> Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = ResolverSettings::default().deepest(Tier::Alias);
//! let mut names = Names::new(Resolver::attach(&engine, settings).await?);
//! for unit in units() {
//!     names.add(&unit);
//! }
//! let names = names.resolve().await?;
//! for mut unit in units() {
//!     names.apply(&mut unit);
//!     engine.submit(unit).await?;
//! }
//! println!("{:?}, {} to look at", names.counts(), names.flagged().len());
//! # Ok(())
//! # }
//! ```
//!
//! A name that is taken for another entity becomes one of its aliases, so that it is found again. What is flagged is
//! written as an entity of its own: nothing of the input is lost, and whoever reviews it can merge later.
//!
//! # What holds
//!
//! - **One snapshot.** All that a batch's answers say was true at one moment, of committed rows only. What is
//!   remembered from earlier batches was true at an earlier one, no longer ago than the time to live.
//! - **Nobody is held up.** Lookups take no locks.
//! - **Whoever was told of a commit by the attached engine never gets an answer from before it.** Other processes'
//!   writes are seen within the time to live.
//! - **Resolving does not reserve.** Two resolvers that find nothing for one name both decide to create it. The engine
//!   makes one entity of it, because the key is the entity, and both units are committed. If they chose *different*
//!   spellings at the same moment there are two entities, as nothing in the database forbids them; later batches find
//!   both, and take the likelier.
//! - **The order of a batch does not matter**, nor how often a name is in it.
//! - **Of equally good entities the one with the smallest name is taken**, in code-point order. Ids, which differ from database
//!   to database, decide nothing.
//! - **A whole input ([`Names`]) is decided by the known entities and its own names alone**, in any order and on any server: no
//!   sample, no index that finds what is probably similar, no time budget. The cost: what no name or alias leads to is compared
//!   with all entities of its type, which are read twice, page by page (some seconds for a million). Loaded again, the
//!   input finds everything by name or alias.
//!
//! # What the fuzzy tier does not find
//!
//! Names that share less than [`similarity_min`](ResolverSettings::similarity_min) of their trigrams, and no house, are never
//! compared. Single names and batches are answered in bounded time, so [`Resolver::resolve`] may miss more:
//!
//! - **Misspelt aliases.** Aliases are compared exactly: an array has no trigram index, and one of its own on each alias
//!   would cost every writer. What the author wrote of a name that was taken for an entity is an alias of it, so it has to
//!   be judged once only. (The loader and [`Names`] give it the name as well; [`Resolution::put`] has room for one alias.)
//! - **Names with several errors, in another case and in another order of words**, where they are common. A name with one
//!   typing error is found by its beginning or its end, which are right (from a beginning or an end of two letters on, as
//!   long as not more than 2,000 names share it). Anything else is looked for by its rare pieces of three or four
//!   letters, in about a millisecond a name and no longer: in a large database what is misspelt where it is rare is
//!   not found that way, unless an address finds it. `benches/resolve` prints the share that is found.
//!
//! Confidences depend on how common words are: of single names in a sample that is drawn anew every ten minutes, of
//! [`Names`] in all entities of these types.
//!
//! Scores are computed in the caller's task, some tens of microseconds for each name that the fuzzy tier is asked for. A batch is
//! looked up by a handful of statements, each of which has to end within `statement_timeout`: some thousands of names are as
//! cheap, for each, as more. [`Names`] takes inputs of any length, and looks a thousand up at a time.

mod batch_aliases;
mod cache;
mod corpus;
mod error;
mod halves;
mod in_batch;
mod lookup;
mod names;
mod place;
mod probes;
mod query;
mod resolved;
mod scan;
mod score;
mod session;
mod settings;
mod text;
mod trigrams;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use batch_aliases::BatchAliases;
use cache::{Cache, Ranked};
use corpus::Corpus;
pub use error::ResolveError;
use lookup::{Database, Found, StoredEntity};
pub use names::Names;
use place::Address;
pub use query::{Candidate, Decision, Query, Resolution, Tier};
pub use resolved::{FlaggedCandidate, FlaggedName, NameCounts, ResolvedNames};
use score::{Name, WordCounts};
use settings::Band;
pub use settings::{GreyZone, ResolverSettings};

use crate::commits::CommitListener;
use crate::config::Config;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::telemetry;
use crate::unit::{NAME_CHARS_MAX, is_blank};

/// An alias was given by somebody who could have been wrong.
const ALIAS_CONFIDENCE: f64 = 0.97;
/// What the author wrote says a little less than the name that somebody made of it: "the place" may be any.
const TEXT_CONFIDENCE: f64 = 0.96;
/// How old a sample of names may be before another one is drawn, in the background.
const SAMPLE_GOOD_FOR: Duration = Duration::from_mins(10);

/// Answers which entities names mean. Cheap to clone, usable from any task. See the [module](self).
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
    inner: Arc<Inner>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

struct Inner {
    settings: ResolverSettings,
    database: Database,
    cache: Arc<Cache>,
    /// The last sample, and when it was drawn.
    corpus: RwLock<Option<(Instant, Arc<Corpus>)>>,
    sampling: AtomicBool,
    /// Rows of the largest unit.
    unit_rows_max: usize,
    /// Drives the connections.
    runtime: Handle,
}

impl Resolver {
    /// A resolver for the database of an engine, whose commits end the answers that it remembers. It has connections of
    /// its own, with the engine's settings, on the engine's runtime: it works until the engine ends.
    ///
    /// # Errors
    /// When a setting cannot work, the database cannot be reached, or an index is missing.
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

    /// A resolver without an engine: all writes are other processes' writes. To be called on a tokio runtime, which
    /// then drives the connections.
    ///
    /// # Errors
    /// Like [`attach`](Self::attach).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
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
        telemetry::describe_resolver();
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
    /// When a text can be no name, or the database cannot be read. Nothing is written in any case.
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
            telemetry::resolver_decided(label, decisions.iter().filter(|decision| kind(decision) == wanted).count());
        }
        let resolutions = decisions.into_iter().zip(&ranked).map(|(decision, ranked)| {
            let candidates = if settings.with_candidates { ranked.candidates.clone() } else { Vec::new() };
            Resolution { decision, candidates }
        });
        Ok(resolutions.collect())
    }

    /// The likeliest entity for each name, where there is one at all. Never leads to anything being created or added.
    ///
    /// # Errors
    /// When a text can be no name, or the database cannot be read.
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

    /// What each name may mean: what is remembered, and for the rest one lookup.
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
        telemetry::resolver_remembered(queries.len() - waiting.len(), waiting.len());
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
            telemetry::resolver_looked_up(start.elapsed());
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

    fn decide(&self, query: &Query, ranked: &Ranked) -> Decision {
        let settings = &self.inner.settings;
        let new = || Decision::New { key: query.key.clone(), alias: None };
        let Some(best) = ranked.candidates.first() else { return new() };
        let existing = || {
            let alias = if ranked.known { None } else { query.other_than(&best.name) };
            Decision::Existing { entity: best.clone(), alias }
        };
        // Nothing tells the best from the next.
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

    /// The sample of names: the last one, while another is drawn if it is old.
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

/// By which tier names were found, for the metrics.
fn count_found<'a>(ranked: &(impl Iterator<Item = &'a Ranked> + Clone)) {
    for tier in [None, Some(Tier::Exact), Some(Tier::Alias), Some(Tier::Fuzzy)] {
        let names = ranked.clone().filter(|ranked| ranked.tier() == tier).count();
        telemetry::resolver_found(tier.map_or("none", Tier::as_str), names);
    }
}

/// Ranks what was found for a query.
fn rank(query: &Query, found: Found, counts: &WordCounts) -> Ranked {
    match found {
        Found::Nothing => Ranked::default(),
        Found::Exact(id, other_name, known) => {
            let name = other_name.map_or_else(|| Arc::clone(&query.key.name), Arc::from);
            let candidates = vec![Candidate { id, name, tier: Tier::Exact, confidence: 1.0 }];
            Ranked { candidates, known, by_name: Vec::new() }
        }
        Found::Alias(entities, others) => {
            let place = Address::parse(query.address.as_deref(), query.city.as_deref());
            let mut by_name: Vec<Candidate> = entities
                .iter()
                .filter(|called| called.by_name)
                .map(|called| candidate(called.entity.clone(), Tier::Alias, ALIAS_CONFIDENCE))
                .collect();
            by_name.sort_by(likelier);
            let mut known_by: Vec<(Candidate, bool)> = entities
                .into_iter()
                .map(|called| {
                    let confidence = called.confidence(&place);
                    (candidate(called.entity, Tier::Alias, confidence), called.known)
                })
                .collect();
            known_by.extend(similar(query, others, counts).into_iter().map(|candidate| (candidate, false)));
            known_by.sort_by(|(left, _), (right, _)| likelier(left, right));
            let known = known_by.first().is_some_and(|(_, known)| *known);
            Ranked { candidates: known_by.into_iter().map(|(candidate, _)| candidate).collect(), known, by_name }
        }
        Found::Fuzzy(entities) => {
            Ranked { candidates: similar(query, entities, counts), known: false, by_name: Vec::new() }
        }
    }
}

/// Entities by how similar their names are, and what evidence says; the likeliest first.
fn similar(query: &Query, entities: Vec<StoredEntity>, counts: &WordCounts) -> Vec<Candidate> {
    let place = Address::parse(query.address.as_deref(), query.city.as_deref());
    let mut names = vec![Name::new(&query.key.name, counts)];
    names.extend(query.original.as_ref().map(|original| Name::new(original, counts)));
    let mut candidates: Vec<Candidate> = entities
        .into_iter()
        .map(|entity| {
            let theirs = Address::parse(entity.address.as_deref(), None);
            let likely = scan::likelihood(&names, &place, &Name::new(&entity.name, counts), &theirs);
            candidate(entity, Tier::Fuzzy, likely)
        })
        .collect();
    candidates.sort_by(likelier);
    candidates
}

fn candidate(entity: StoredEntity, tier: Tier, confidence: f64) -> Candidate {
    Candidate { id: entity.id, name: entity.name.into(), tier, confidence }
}

/// By confidence; of equal ones the entity whose name is the smaller in code-point order, all being of one type. Ids differ
/// from database to database, so they decide nothing.
fn likelier(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.confidence.total_cmp(&left.confidence).then_with(|| left.name.cmp(&right.name))
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

/// Runs something on a runtime and waits for it on any.
async fn on<T, E>(runtime: &Handle, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
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
