//! The names of a whole input, each decided once, before anything of the input is written.
//!
//! Deciding name by name while writing would make what is found depend on what was written before: on the order of the
//! input, and on how far the writer had come. So an input is read twice: [`Names`] takes the names of every unit and
//! looks them up while it is being read, [`Names::resolve`] decides them all at once, and [`ResolvedNames::apply`] puts
//! the decisions into the units when they are read again to be written.
//!
//! Properties:
//! - A decision depends on the database before the input, and on the set of its names: not on their order, nor on how
//!   often they occur, nor on timing.
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

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::brought::Brought;
use super::cache::Ranked;
use super::corpus::Corpus;
use super::query::{Candidate, Decision, Query, Tier};
use super::{ResolveError, Resolver, in_batch, likelier};
use crate::hash::{HashMap, HashSet};
use crate::record::EntityKey;
use crate::store::StoreError;
use crate::telemetry;
use crate::unit::UnitOfWork;

/// Names of one lookup. Enough to make round trips cheap, little enough to answer long before any timeout.
const LOOKUP_NAMES: usize = 1_000;

/// Answers to queries that follow each other, and the position of the first of these.
type LookedUp = (usize, Vec<Arc<Ranked>>);

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
            let texts: BTreeSet<Option<&Arc<str>>> = match aliases {
                [] => BTreeSet::from([None]),
                aliases => aliases.iter().map(|alias| (by_text && *alias != key.name).then_some(alias)).collect(),
            };
            let addresses: BTreeSet<Option<&str>> = match places {
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
        let mut ranked: Vec<Arc<Ranked>> = vec![Arc::default(); self.queries.len()];
        while let Some(looked_up) = self.lookups.join_next().await {
            let (first, answers) = match looked_up {
                Ok(answers) => answers?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(StoreError::ShutDown.into()),
            };
            for (place, answer) in ranked[first..].iter_mut().zip(answers) {
                *place = answer;
            }
        }
        let corpus = self.resolver.corpus().await?;
        let (resolver, queries) = (self.resolver, self.queries);
        // Comparing names with each other may take a while.
        let decided = tokio::task::spawn_blocking(move || decide(&resolver, &queries, &ranked, &corpus));
        match decided.await {
            Ok(names) => Ok(names),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::ShutDown.into()),
        }
    }

    /// Looks up what is new since the last time, in the background.
    fn look_up(&mut self) {
        for chunk in self.queries[self.sent..].chunks(LOOKUP_NAMES) {
            let (resolver, queries, turns) = (self.resolver.clone(), chunk.to_vec(), Arc::clone(&self.turns));
            let first = self.sent;
            let lookup = async move {
                let _turn = turns.acquire().await;
                let (ranked, _) = resolver.rank(&queries).await?;
                Ok((first, ranked))
            };
            self.lookups.spawn_on(lookup, &self.resolver.inner.runtime);
            self.sent += chunk.len();
        }
    }
}

/// How the names of an input were decided; each name counts once, however often it occurs.
///
/// ```
/// use graphsink::resolve::NameCounts;
///
/// fn known(counts: &NameCounts) -> u64 {
///     counts.exact + counts.alias + counts.fuzzy
/// }
/// assert_eq!(known(&NameCounts::default()), 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NameCounts {
    /// Entities of the database by that name.
    pub exact: u64,
    /// Taken for an entity of the database by an alias.
    pub alias: u64,
    /// Taken for an entity of the database by a similar name or an address.
    pub fuzzy: u64,
    /// Taken for another new name of the input.
    pub same_as_new: u64,
    /// New entities.
    pub new: u64,
    /// New entities that may be one of others: see [`ResolvedNames::flagged`].
    pub flagged: u64,
}

/// A name that is like others, but not enough, or like several.
///
/// ```
/// fn ask(flagged: &graphsink::resolve::FlaggedName) {
///     println!("{} {:?}, as authors write {:?}: which one?", flagged.key.entity_type, flagged.key.name, flagged.texts);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FlaggedName {
    /// Its type and name.
    pub key: EntityKey,
    /// What authors wrote for it, in order.
    pub texts: Vec<Arc<str>>,
    /// Where the input says that it is, in order.
    pub addresses: Vec<Arc<str>>,
    /// What it may be, the likeliest first.
    pub candidates: Vec<FlaggedCandidate>,
}

/// What a flagged name may be.
///
/// ```
/// fn show(candidate: &graphsink::resolve::FlaggedCandidate) {
///     println!("{} ({:.2}), {:?}", candidate.name, candidate.confidence, candidate.id);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FlaggedCandidate {
    /// The entity's name.
    pub name: Arc<str>,
    /// Its id; nothing when it is new itself.
    pub id: Option<Uuid>,
    /// How it was found; nothing when the input itself gives it the flagged name as an alias.
    pub tier: Option<Tier>,
    /// From 0 to 1: how likely it is the one.
    pub confidence: f64,
}

/// The decisions on all names of an input.
///
/// ```
/// use graphsink::resolve::{NameCounts, ResolvedNames};
///
/// assert_eq!(ResolvedNames::default().counts(), NameCounts::default());
/// ```
#[derive(Debug, Default)]
pub struct ResolvedNames {
    taken_for: HashMap<EntityKey, Arc<str>>,
    counts: NameCounts,
    flagged: Vec<FlaggedName>,
}

impl ResolvedNames {
    /// Gives the entities of a unit the names that were decided; each name that is another's becomes an alias. The
    /// unit's rows stay where they are, and so do its labels.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    /// use graphsink::resolve::ResolvedNames;
    ///
    /// fn decided(names: &ResolvedNames, mut unit: UnitOfWork) -> UnitOfWork {
    ///     names.apply(&mut unit);
    ///     unit
    /// }
    /// ```
    pub fn apply(&self, unit: &mut UnitOfWork) {
        if !self.taken_for.is_empty() {
            unit.rename(|key| self.taken_for.get(key));
        }
    }

    /// How many names were decided in which way.
    ///
    /// ```
    /// fn log(names: &graphsink::resolve::ResolvedNames) {
    ///     println!("{} new, {} to look at", names.counts().new, names.counts().flagged);
    /// }
    /// ```
    #[must_use]
    pub const fn counts(&self) -> NameCounts {
        self.counts
    }

    /// Names that are worth a look, by type and name.
    ///
    /// ```
    /// fn review(names: &graphsink::resolve::ResolvedNames) {
    ///     for flagged in names.flagged() {
    ///         println!("{:?} may be {:?}", flagged.key.name, flagged.candidates.first().map(|candidate| &candidate.name));
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn flagged(&self) -> &[FlaggedName] {
        &self.flagged
    }
}

/// All that the input says of one name, and what the database has.
#[derive(Debug, Default)]
struct Asked {
    queries: Vec<usize>,
    texts: BTreeSet<Arc<str>>,
    addresses: BTreeSet<Arc<str>>,
}

fn decide(resolver: &Resolver, queries: &[Query], of_queries: &[Arc<Ranked>], corpus: &Corpus) -> ResolvedNames {
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
        let ranked = best_of(asked.queries.iter().map(|query| &*of_queries[*query]));
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
        let mut brought = Brought::default();
        for (asked, entity) in &known {
            for query in asked.queries.iter().map(|query| &queries[*query]) {
                brought.add(&query.key.name, query, entity);
                brought.add(query.text(), query, entity);
            }
        }
        let left = std::mem::take(&mut new);
        for key in left {
            let asked = &names[key];
            let called: Vec<Ranked> = asked
                .queries
                .iter()
                .filter_map(|query| brought.ranked(&queries[*query], &of_queries[*query], corpus))
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
    for (key, centre) in in_batch::centres(unknown, settings, corpus) {
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
    let tier = ranked.clone().filter_map(Ranked::tier).min();
    let by_name = ranked.clone().any(|ranked| !ranked.by_name.is_empty());
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

impl From<Candidate> for FlaggedCandidate {
    fn from(candidate: Candidate) -> Self {
        let Candidate { id, name, tier, confidence } = candidate;
        Self { name, id: Some(id), tier: Some(tier), confidence }
    }
}
