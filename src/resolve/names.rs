//! The names of a whole input, each decided once, before anything of the input is written.
//!
//! Deciding name by name while writing would make what is found depend on what was written before: on the order of the
//! input, and on how far the writer had come. So an input is read twice: [`Names`] takes the names of every unit and
//! looks them up while it is being read, [`Names::resolve`] decides them all at once, and [`ResolvedNames::apply`] puts
//! the decisions into the units when they are read again to be written.
//!
//! Properties:
//! - A decision depends on the entities before the input (their names, aliases and addresses), and on the set of its
//!   names: not on their order, nor on how often they occur, nor on ids, statistics or timing. Names that no alias leads
//!   to are compared with every entity of their type ([`scan`](super::scan)), not with what an index finds in bounded time.
//!   Of entities that are equally good the one with the smallest name is taken.
//! - Each name (of a type) is decided once, from all that the input says of it.
//! - **What was written once is found again.** A name that is taken for another entity becomes one of its aliases, also
//!   when the author wrote something else, and an entity that has the name as an alias is taken whatever the evidence.
//!   Where two entities would then have one name as an alias, nobody could tell
//!   later which one it was taken for: such a name stays an entity of its own and is flagged. So after the units are
//!   committed each name is found exactly, or by an alias of one entity alone, and the same input decides the same again.
//! - Where the policy for the grey zone is [`GreyZone::Flag`](super::GreyZone::Flag), a flagged name is an entity of its
//!   own, so nothing of the input is lost, and is listed for somebody to review.
//!
//! Memory grows with the number of different names, about half a kilobyte each, not with the length of the input.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::batch_aliases::BatchAliases;
use super::cache::Ranked;
use super::error::ResolveError;
use super::found::Found;
use super::query::{Candidate, Decision, Query, Tier};
use super::ranking::{count_found, likelier, rank};
use super::resolved::{FlaggedCandidate, FlaggedName, NameCounts, ResolvedNames};
use super::resolver::{Resolver, on};
use super::score::WordCounts;
use super::{in_batch, scan};
use crate::error::StoreError;
use crate::hash::{HashMap, HashSet};
use crate::record::EntityKey;
use crate::telemetry;
use crate::unit::UnitOfWork;

/// Names of one lookup. Enough to make round trips cheap, little enough to answer long before any timeout.
const LOOKUP_NAMES: usize = 1_000;

/// Answers to queries that follow each other, and the position of the first of these.
type LookedUp = (usize, Vec<Found>);

/// Names that are being collected. See the [module](super#whole-inputs).
///
/// ```no_run
/// use graphsink::UnitOfWork;
/// use graphsink::resolve::{Names, Resolver};
///
/// # async fn run(resolver: Resolver, units: Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut names = Names::new(resolver);
/// units.iter().for_each(|unit| names.add(unit));
/// let names = names.resolve().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Names {
    resolver: Resolver,
    queries: Vec<Query>,
    seen: HashSet<Query>,
    /// Queries that were sent to be looked up.
    sent: usize,
    lookups: JoinSet<Result<LookedUp, ResolveError>>,
    /// As many lookups at once as there are connections: the others would time out waiting for one.
    turns: Arc<Semaphore>,
}

impl Names {
    /// No names yet, to be decided by this resolver: by its tiers, thresholds and policy.
    ///
    /// ```no_run
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::{Names, Resolver};
    ///
    /// # async fn run(resolver: Resolver, units: Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
    /// let names = Names::new(resolver);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        let turns = Arc::new(Semaphore::new(resolver.inner.settings.connections as usize));
        Self { resolver, queries: Vec::new(), seen: HashSet::default(), sent: 0, lookups: JoinSet::new(), turns }
    }

    /// Takes the names of a unit: of its entities that are named by type and name. Aliases are taken for what the author
    /// wrote, addresses for evidence. A unit that breaks a rule is passed over, as nothing of it will be written.
    ///
    /// ```no_run
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::{Names, Resolver};
    ///
    /// # async fn run(resolver: Resolver, units: Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut names = Names::new(resolver);
    /// for unit in &units {
    ///     names.add(unit);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&mut self, unit: &UnitOfWork) {
        if unit.validate(self.resolver.inner.unit_rows_max).is_err() {
            return;
        }
        let by_text = self.resolver.inner.settings.deepest > Tier::Exact;
        for (key, aliases, places) in unit.named_by_key() {
            // Each once: a unit of many lines repeats them with every line.
            let texts: BTreeSet<Option<&Arc<str>>> = match &*aliases {
                [] => BTreeSet::from([None]),
                aliases => aliases.iter().map(|alias| (by_text && *alias != key.name).then_some(alias)).collect(),
            };
            let addresses: BTreeSet<Option<&str>> = match &*places {
                [] => BTreeSet::from([None]),
                places => places.iter().map(|place| place.address.as_deref().filter(|_| by_text)).collect(),
            };
            for text in &texts {
                for address in &addresses {
                    let query = Query {
                        key: key.clone(),
                        original: text.map(Arc::clone),
                        address: address.map(Arc::from),
                        city: None,
                    };
                    if !self.seen.contains(&query) {
                        self.seen.insert(query.clone());
                        self.queries.push(query);
                    }
                }
            }
        }
        if self.queries.len() - self.sent >= LOOKUP_NAMES {
            self.look_up();
        }
    }

    /// Decides all names.
    ///
    /// # Errors
    /// When the database cannot be read. Nothing is written in any case.
    ///
    /// ```no_run
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::{Names, Resolver};
    ///
    /// # async fn run(resolver: Resolver, units: Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut names = Names::new(resolver);
    /// names.add(&units[0]);
    /// println!("{:?}", names.resolve().await?.counts());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolve(mut self) -> Result<ResolvedNames, ResolveError> {
        self.look_up();
        self.seen = HashSet::default();
        let mut found: Vec<Found> = Vec::new();
        found.resize_with(self.queries.len(), Found::default);
        while let Some(looked_up) = self.lookups.join_next().await {
            let (first, answers) = joined(looked_up)??;
            for (place, answer) in found[first..].iter_mut().zip(answers) {
                *place = answer;
            }
        }
        let (resolver, queries) = (self.resolver, Arc::new(self.queries));
        let counts = scan(&resolver, &queries, &mut found).await?;
        // Comparing names with each other may take a while.
        let decided = tokio::task::spawn_blocking(move || {
            let ranked: Vec<Ranked> =
                queries.iter().zip(found).map(|(query, found)| rank(query, found, &counts)).collect();
            count_found(&ranked.iter());
            decide(&resolver, &queries, &ranked, &counts)
        });
        Ok(joined(decided.await)?)
    }

    /// Looks up what is new since the last time, in the background.
    fn look_up(&mut self) {
        for chunk in self.queries[self.sent..].chunks(LOOKUP_NAMES) {
            let (resolver, queries, turns) = (self.resolver.clone(), chunk.to_vec(), Arc::clone(&self.turns));
            let first = self.sent;
            let lookup = async move {
                let _turn = turns.acquire().await;
                let start = Instant::now();
                let found = resolver.inner.database.look_up_known(&queries).await?;
                telemetry::resolver_looked_up(start.elapsed());
                telemetry::resolver_remembered(0, queries.len());
                Ok((first, found))
            };
            self.lookups.spawn_on(lookup, &self.resolver.inner.runtime);
            self.sent += chunk.len();
        }
    }
}

/// Compares with all entities what is not known by name or alias; says how common the words of their names are.
async fn scan(resolver: &Resolver, queries: &Arc<Vec<Query>>, found: &mut [Found]) -> Result<WordCounts, ResolveError> {
    let settings = &resolver.inner.settings;
    if settings.deepest < Tier::Fuzzy {
        return Ok(WordCounts::default());
    }
    let open: Vec<usize> =
        (0..queries.len()).filter(|query| found[*query].is_open(&queries[*query], settings)).collect();
    let (database, asked) = (resolver.inner.database.clone(), Arc::clone(queries));
    let sought = on(&resolver.inner.runtime, async move { database.scan(&asked, &open).await }).await?;
    let (similar, counts) = sought.found();
    for (query, similar) in similar {
        scan::add(&mut found[query], similar);
    }
    Ok(counts)
}

/// What a task came to; its panic goes on in this one.
fn joined<T>(task: Result<T, tokio::task::JoinError>) -> Result<T, StoreError> {
    task.map_err(|error| {
        if error.is_panic() {
            std::panic::resume_unwind(error.into_panic());
        }
        StoreError::ShutDown
    })
}

/// All that the input says of one name, and what the database has.
#[derive(Debug, Default)]
struct Asked {
    queries: Vec<usize>,
    texts: BTreeSet<Arc<str>>,
    addresses: BTreeSet<Arc<str>>,
}

fn decide(resolver: &Resolver, queries: &[Query], of_queries: &[Ranked], counts: &WordCounts) -> ResolvedNames {
    let mut names: HashMap<&EntityKey, Asked> = HashMap::default();
    for (index, query) in queries.iter().enumerate() {
        let asked = names.entry(&query.key).or_default();
        asked.queries.push(index);
        asked.texts.extend(query.original.as_ref().map(Arc::clone));
        asked.addresses.extend(query.address.as_ref().map(Arc::clone));
    }
    let mut decided = ResolvedNames::default();
    let mut taken_for: HashMap<EntityKey, Taken> = HashMap::default();
    let mut new: HashSet<&EntityKey> = HashSet::default();
    // An alias of entities that it is not taken for: as one of another it could not be told apart later.
    let mut held: HashSet<&EntityKey> = HashSet::default();
    // What is taken for entities of the database, and how: heard by the rest of the input.
    let mut known: Vec<(&Asked, Candidate)> = Vec::new();
    for (key, asked) in &names {
        let ranked = best_of(asked.queries.iter().map(|query| &of_queries[*query]));
        match resolver.decide(&queries[asked.queries[0]], &ranked) {
            Decision::Existing { entity, .. } => {
                known.push((asked, entity.clone()));
                if entity.tier == Tier::Exact {
                    decided.counts.exact += 1;
                } else {
                    taken_for.insert((*key).clone(), entity.into());
                }
            }
            Decision::New { .. } => {
                new.insert(*key);
                if asked.queries.iter().any(|query| !of_queries[*query].by_name.is_empty()) {
                    held.insert(*key);
                }
            }
            Decision::Ambiguous { candidates } => {
                let candidates = candidates.into_iter().map(FlaggedCandidate::from).collect();
                decided.flagged.push(flagged(key, asked, candidates));
            }
        }
    }
    let settings = &resolver.inner.settings;
    if settings.deepest >= Tier::Alias {
        let mut batch_aliases = BatchAliases::default();
        for (asked, entity) in &known {
            for query in asked.queries.iter().map(|query| &queries[*query]) {
                batch_aliases.add(&query.key.name, query, entity);
                batch_aliases.add(query.text(), query, entity);
            }
        }
        let left = std::mem::take(&mut new);
        for key in left {
            let asked = &names[key];
            let called: Vec<Ranked> = asked
                .queries
                .iter()
                .filter_map(|query| batch_aliases.ranked(&queries[*query], &of_queries[*query], counts))
                .collect();
            match resolver.decide(&queries[asked.queries[0]], &best_of(called.iter())) {
                Decision::Existing { entity, .. } if !held.contains(key) => {
                    taken_for.insert(key.clone(), entity.into());
                }
                Decision::Ambiguous { candidates } if !held.contains(key) => {
                    let candidates = candidates.into_iter().map(FlaggedCandidate::from).collect();
                    decided.flagged.push(flagged(key, asked, candidates));
                }
                _ => {
                    new.insert(key);
                }
            }
        }
    }
    let unknown = queries.iter().filter(|query| new.contains(&query.key));
    for (key, centre) in in_batch::centres(unknown, settings, counts) {
        if key != centre && !held.contains(&key) {
            let candidate =
                FlaggedCandidate { name: Arc::clone(&centre.name), id: None, tier: None, confidence: settings.accept };
            taken_for.insert(key, Taken { name: centre.name, candidate });
        }
    }
    decided.flagged.extend(leave_contested(&mut taken_for, &names));
    decided.flagged.sort_by(|a, b| a.key.cmp(&b.key));
    decided.counts.flagged = decided.flagged.len() as u64;
    for taken in taken_for.values() {
        *match taken.candidate.tier {
            Some(Tier::Fuzzy) => &mut decided.counts.fuzzy,
            Some(_) => &mut decided.counts.alias,
            None => &mut decided.counts.same_as_new,
        } += 1;
    }
    let NameCounts { exact, alias, fuzzy, same_as_new, flagged, .. } = decided.counts;
    decided.counts.new = names.len() as u64 - exact - alias - fuzzy - same_as_new - flagged;
    for (label, count) in
        [("existing", exact + alias + fuzzy), ("new", decided.counts.new + same_as_new), ("ambiguous", flagged)]
    {
        telemetry::resolver_decided(label, count as usize);
    }
    decided.taken_for = taken_for.into_iter().map(|(key, taken)| (key, taken.name)).collect();
    decided
}

/// The entity that a name was taken for.
struct Taken {
    name: Arc<str>,
    candidate: FlaggedCandidate,
}

impl From<Candidate> for Taken {
    fn from(entity: Candidate) -> Self {
        Self { name: Arc::clone(&entity.name), candidate: entity.into() }
    }
}

/// All candidates of one name: of the first tier that found any, each with the best that any of the queries says for it.
///
/// Entities that have the name itself as an alias come before all others, and no evidence is heard: it may be what this
/// input said the first time, and the addresses that it brought may have changed what the evidence says.
fn best_of<'a>(ranked: impl Iterator<Item = &'a Ranked> + Clone) -> Ranked {
    let by_name = ranked.clone().any(|ranked| !ranked.by_name.is_empty());
    // Evidence may have put others before those of the alias.
    let tier = if by_name { Some(Tier::Alias) } else { ranked.clone().filter_map(Ranked::tier).min() };
    let found = ranked.flat_map(|ranked| if by_name { &ranked.by_name } else { &ranked.candidates });
    let mut candidates: Vec<Candidate> = Vec::new();
    for candidate in found.filter(|candidate| Some(candidate.tier) == tier) {
        match candidates.iter_mut().find(|known| known.id == candidate.id) {
            Some(known) => known.confidence = known.confidence.max(candidate.confidence),
            None => candidates.push(candidate.clone()),
        }
    }
    candidates.sort_by(likelier);
    Ranked { candidates, known: false, by_name: Vec::new() }
}

/// Takes back what could not be found again: names that the input makes aliases of another entity as well, because
/// authors wrote them for that one. Until there are none: a name that is on its own again is called otherwise itself.
fn leave_contested(taken_for: &mut HashMap<EntityKey, Taken>, names: &HashMap<&EntityKey, Asked>) -> Vec<FlaggedName> {
    let mut left = Vec::new();
    loop {
        let mut rivals: HashMap<EntityKey, BTreeSet<Arc<str>>> = HashMap::default();
        for (key, asked) in names {
            let called = taken_for.get(*key).map_or(&key.name, |taken| &taken.name);
            for text in &asked.texts {
                let other = EntityKey { entity_type: key.entity_type, name: Arc::clone(text) };
                if taken_for.get(&other).is_some_and(|taken| taken.name != *called) {
                    rivals.entry(other).or_default().insert(Arc::clone(called));
                }
            }
        }
        if rivals.is_empty() {
            return left;
        }
        for (key, rivals) in rivals {
            let Some(taken) = taken_for.remove(&key) else { continue };
            let confidence = taken.candidate.confidence;
            let rivals = rivals.into_iter().map(|name| FlaggedCandidate { name, id: None, tier: None, confidence });
            let candidates = std::iter::once(taken.candidate.clone()).chain(rivals).collect();
            left.push(flagged(&key, &names[&key], candidates));
        }
    }
}

fn flagged(key: &EntityKey, asked: &Asked, candidates: Vec<FlaggedCandidate>) -> FlaggedName {
    FlaggedName {
        key: key.clone(),
        texts: asked.texts.iter().map(Arc::clone).collect(),
        addresses: asked.addresses.iter().map(Arc::clone).collect(),
        candidates,
    }
}
