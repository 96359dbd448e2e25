//! The names of a whole input, each decided once, before any part of the input is written.
//!
//! If names were decided one by one while writing, the results would depend on earlier writes: on the order of the
//! input, and on the writer's progress. So an input is read twice: [`Names`] takes the names of every unit and looks
//! them up while it is being read, [`Names::resolve`] decides them all at once, and [`ResolvedNames::apply`] puts the
//! decisions into the units when they are read again to be written.
//!
//! Properties:
//! - A decision depends on the entities before the input (their names, aliases and addresses), and on the set of its
//!   names: not on their order, nor on how often they occur, nor on ids, statistics or timing. Names without a match by
//!   alias are compared with every entity of their type ([`scan`](super::scan)), not only with those that an index
//!   finds in bounded time. Among equally good entities the one with the smallest name is chosen.
//! - Each name (of a type) is decided once, from all of the input's data about it.
//! - **A name that was written once is found again.** A name that is resolved to another entity becomes one of its
//!   aliases, even if the author wrote something else, and an entity that has the name as an alias is chosen whatever
//!   the evidence. If two entities would then have one name as an alias, the decision could not be reproduced later:
//!   such a name stays a separate entity and is flagged. So after the units are committed each name is found exactly,
//!   or by an alias of only one entity, and the same input is decided the same way again.
//! - If the policy for the grey zone is [`GreyZone::Flag`](super::GreyZone::Flag), a flagged name is a separate entity,
//!   so nothing of the input is lost, and is listed for a review.
//!
//! Memory grows with the number of different names, about half a kilobyte each, not with the length of the input.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cache::Ranked;
use super::deciding::decide;
use super::error::ResolveError;
use super::found::Found;
use super::query::{Query, Tier};
use super::ranking::{count_found, rank};
use super::resolved::ResolvedNames;
use super::resolver::{Resolver, on};
use super::scan;
use super::score::WordCounts;
use crate::error::StoreError;
use crate::hash::HashSet;
use crate::telemetry;
use crate::unit::UnitOfWork;

/// Number of names in a lookup: enough to make round trips cheap, and few enough to answer long before any timeout.
const LOOKUP_NAMES: usize = 1_000;

/// Answers to consecutive queries, and the position of the first of these.
type LookedUp = (usize, Vec<Found>);

/// Collects names. See the [module](super#whole-inputs).
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
#[must_use = "nothing is decided before `resolve`"]
pub struct Names {
    resolver: Resolver,
    queries: Vec<Query>,
    seen: HashSet<Query>,
    /// Number of queries whose lookup was started.
    sent: usize,
    lookups: JoinSet<Result<LookedUp, ResolveError>>,
    /// One permit per connection for concurrent lookups: further ones would time out waiting for a connection.
    turns: Arc<Semaphore>,
}

impl Names {
    /// An empty collection, to be decided by this resolver: by its tiers, thresholds and policy.
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
    pub fn new(resolver: Resolver) -> Self {
        let turns = Arc::new(Semaphore::new(resolver.inner.settings.connections as usize));
        Self { resolver, queries: Vec::new(), seen: HashSet::default(), sent: 0, lookups: JoinSet::new(), turns }
    }

    /// Takes the names of a unit: those of its entities that are named by type and name. Aliases count as authors'
    /// texts, addresses as evidence. A unit that breaks a rule is skipped, because nothing of it will be written.
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
            // Without duplicates: a unit of many lines repeats them with every line.
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
    /// Fails when the database cannot be read. Nothing is written in any case.
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
        // Comparing names with each other may take long.
        let decided = tokio::task::spawn_blocking(move || {
            let ranked: Vec<Ranked> =
                queries.iter().zip(found).map(|(query, found)| rank(query, found, &counts)).collect();
            count_found(&ranked.iter());
            decide(&resolver, &queries, &ranked, &counts)
        });
        Ok(joined(decided.await)?)
    }

    /// Looks up the names added since the last time, in the background.
    fn look_up(&mut self) {
        for chunk in self.queries[self.sent..].chunks(LOOKUP_NAMES) {
            let (resolver, queries, turns) = (self.resolver.clone(), chunk.to_vec(), Arc::clone(&self.turns));
            let first = self.sent;
            let lookup = async move {
                let _turn = turns.acquire().await;
                let start = Instant::now();
                let found = resolver.inner.database.look_up_known(&queries).await?;
                telemetry::resolver::lookup_seconds().record(start.elapsed());
                telemetry::resolver::cache("miss").increment(queries.len() as u64);
                Ok((first, found))
            };
            self.lookups.spawn_on(lookup, &self.resolver.inner.runtime);
            self.sent += chunk.len();
        }
    }
}

/// Compares names unknown by name or alias with all entities; returns the frequency of their words.
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

/// The result of a task; its panic is resumed in this one.
fn joined<T>(task: Result<T, tokio::task::JoinError>) -> Result<T, StoreError> {
    task.map_err(|error| {
        if error.is_panic() {
            std::panic::resume_unwind(error.into_panic());
        }
        StoreError::ShutDown
    })
}
