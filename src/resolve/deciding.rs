//! Decides what each name of a whole input means, once all names are known.
//!
//! 1. By the database's data for the name.
//! 2. If it is new to the database: by the texts that authors write, in the rest of the input, for existing entities.
//! 3. If it is still new: by the other new names.
//! 4. Decisions that could not be reproduced later are revoked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::batch_aliases::BatchAliases;
use super::cache::Ranked;
use super::in_batch;
use super::query::{Candidate, Decision, Query, Tier};
use super::ranking::likelier;
use super::resolved::{FlaggedCandidate, FlaggedName, NameCounts, ResolvedNames};
use super::resolver::Resolver;
use super::score::WordCounts;
use crate::hash::{HashMap, HashSet};
use crate::record::EntityKey;
use crate::telemetry;

/// Decides all names of an input. `of_queries` has the database's data for each query.
pub(crate) fn decide(
    resolver: &Resolver,
    queries: &[Query],
    of_queries: &[Ranked],
    counts: &WordCounts,
) -> ResolvedNames {
    let names = by_name(queries);
    let mut input = Input {
        resolver,
        queries,
        of_queries,
        counts,
        names: &names,
        exact: 0,
        taken_for: HashMap::default(),
        new: HashSet::default(),
        held: HashSet::default(),
        flagged: Vec::new(),
    };
    let known = input.by_the_database();
    if resolver.inner.settings.deepest >= Tier::Alias {
        input.by_other_queries(&known);
    }
    input.by_each_other();
    input.leave_contested();
    input.resolved()
}

/// All data of the input about one name, and the database's data.
#[derive(Debug, Default)]
struct Asked {
    queries: Vec<usize>,
    texts: BTreeSet<Arc<str>>,
    addresses: BTreeSet<Arc<str>>,
}

fn by_name(queries: &[Query]) -> HashMap<&EntityKey, Asked> {
    let mut names: HashMap<&EntityKey, Asked> = HashMap::default();
    for (index, query) in queries.iter().enumerate() {
        let asked = names.entry(&query.key).or_default();
        asked.queries.push(index);
        asked.texts.extend(query.original.as_ref().map(Arc::clone));
        asked.addresses.extend(query.address.as_ref().map(Arc::clone));
    }
    names
}

/// An input whose names are being decided.
struct Input<'a> {
    resolver: &'a Resolver,
    queries: &'a [Query],
    of_queries: &'a [Ranked],
    counts: &'a WordCounts,
    names: &'a HashMap<&'a EntityKey, Asked>,
    /// Number of names that are names of entities of the database.
    exact: u64,
    taken_for: HashMap<EntityKey, Taken>,
    /// Names that are not known so far.
    new: HashSet<&'a EntityKey>,
    /// Names that are aliases of entities for which they were not chosen: as an alias of another entity such a name
    /// would be ambiguous later.
    held: HashSet<&'a EntityKey>,
    flagged: Vec<FlaggedName>,
}

impl<'a> Input<'a> {
    /// Returns the names that are resolved to entities of the database, with these.
    fn by_the_database(&mut self) -> Vec<(&'a Asked, Candidate)> {
        let mut known = Vec::new();
        for (key, asked) in self.names {
            let ranked = best_of(asked.queries.iter().map(|query| &self.of_queries[*query]));
            match self.resolver.decide(&self.queries[asked.queries[0]], &ranked) {
                Decision::Existing { entity, .. } => {
                    known.push((asked, entity.clone()));
                    if entity.tier == Tier::Exact {
                        self.exact += 1;
                    } else {
                        self.taken_for.insert((*key).clone(), entity.into());
                    }
                }
                Decision::New { .. } => {
                    self.new.insert(*key);
                    if asked.queries.iter().any(|query| !self.of_queries[*query].by_name.is_empty()) {
                        self.held.insert(*key);
                    }
                }
                Decision::Ambiguous { candidates } => self.flag(key, asked, candidates),
            }
        }
        known
    }

    /// Resolves new names that the rest of the input has as aliases of known entities.
    fn by_other_queries(&mut self, known: &[(&Asked, Candidate)]) {
        let mut batch_aliases = BatchAliases::default();
        for (asked, entity) in known {
            for query in asked.queries.iter().map(|query| &self.queries[*query]) {
                batch_aliases.add(&query.key.name, query, entity);
                batch_aliases.add(query.text(), query, entity);
            }
        }
        for key in std::mem::take(&mut self.new) {
            let asked = &self.names[key];
            let called: Vec<Ranked> = asked
                .queries
                .iter()
                .filter_map(|query| batch_aliases.ranked(&self.queries[*query], &self.of_queries[*query], self.counts))
                .collect();
            match self.resolver.decide(&self.queries[asked.queries[0]], &best_of(called.iter())) {
                Decision::Existing { entity, .. } if !self.held.contains(key) => {
                    self.taken_for.insert(key.clone(), entity.into());
                }
                Decision::Ambiguous { candidates } if !self.held.contains(key) => self.flag(key, asked, candidates),
                _ => {
                    self.new.insert(key);
                }
            }
        }
    }

    /// Groups new names that mean the same.
    fn by_each_other(&mut self) {
        let settings = &self.resolver.inner.settings;
        let unknown = self.queries.iter().filter(|query| self.new.contains(&query.key));
        for (key, centre) in in_batch::centres(unknown, settings, self.counts) {
            if key != centre && !self.held.contains(&key) {
                let (name, confidence) = (Arc::clone(&centre.name), settings.accept);
                let candidate = FlaggedCandidate { name, id: None, tier: None, confidence };
                self.taken_for.insert(key, Taken { name: centre.name, candidate });
            }
        }
    }

    /// Revokes decisions that could not be reproduced: for names that the input also makes aliases of another entity,
    /// because authors wrote them for that one. This repeats until there are none, because a revoked name itself loses
    /// its alias.
    fn leave_contested(&mut self) {
        loop {
            let rivals = self.rivals();
            if rivals.is_empty() {
                return;
            }
            for (key, rivals) in rivals {
                let Some(taken) = self.taken_for.remove(&key) else { continue };
                let confidence = taken.candidate.confidence;
                let rivals = rivals.into_iter().map(|name| FlaggedCandidate { name, id: None, tier: None, confidence });
                let candidates = std::iter::once(taken.candidate.clone()).chain(rivals).collect();
                self.flagged.push(flagged(&key, &self.names[&key], candidates));
            }
        }
    }

    /// For resolved names: the other entities whose aliases they would become.
    fn rivals(&self) -> HashMap<EntityKey, BTreeSet<Arc<str>>> {
        let mut rivals: HashMap<EntityKey, BTreeSet<Arc<str>>> = HashMap::default();
        for (key, asked) in self.names {
            let called = self.taken_for.get(*key).map_or(&key.name, |taken| &taken.name);
            for text in &asked.texts {
                let other = EntityKey { entity_type: key.entity_type, name: Arc::clone(text) };
                if self.taken_for.get(&other).is_some_and(|taken| taken.name != *called) {
                    rivals.entry(other).or_default().insert(Arc::clone(called));
                }
            }
        }
        rivals
    }

    fn flag(&mut self, key: &EntityKey, asked: &Asked, candidates: Vec<Candidate>) {
        let candidates = candidates.into_iter().map(FlaggedCandidate::from).collect();
        self.flagged.push(flagged(key, asked, candidates));
    }

    fn resolved(mut self) -> ResolvedNames {
        self.flagged.sort_by(|a, b| a.key.cmp(&b.key));
        let mut counts = NameCounts { exact: self.exact, flagged: self.flagged.len() as u64, ..NameCounts::default() };
        for taken in self.taken_for.values() {
            *match taken.candidate.tier {
                Some(Tier::Fuzzy) => &mut counts.fuzzy,
                Some(_) => &mut counts.alias,
                None => &mut counts.same_as_new,
            } += 1;
        }
        let existing = counts.exact + counts.alias + counts.fuzzy;
        counts.new = self.names.len() as u64 - existing - counts.same_as_new - counts.flagged;
        let labelled =
            [("existing", existing), ("new", counts.new + counts.same_as_new), ("ambiguous", counts.flagged)];
        for (label, count) in labelled {
            telemetry::resolver::decisions(label).increment(count);
        }
        let taken_for = self.taken_for.into_iter().map(|(key, taken)| (key, taken.name)).collect();
        ResolvedNames { taken_for, counts, flagged: self.flagged }
    }
}

/// The entity to which a name was resolved.
struct Taken {
    name: Arc<str>,
    candidate: FlaggedCandidate,
}

impl From<Candidate> for Taken {
    fn from(entity: Candidate) -> Self {
        Self { name: Arc::clone(&entity.name), candidate: entity.into() }
    }
}

/// All candidates of one name: those of the first tier that found any, each with its best confidence over the queries.
///
/// Entities that have the name itself as an alias come before all others, whatever the evidence: the alias may come
/// from the first load of this input, and the addresses that this load stored may have changed the result of the
/// evidence.
fn best_of<'a>(ranked: impl Iterator<Item = &'a Ranked> + Clone) -> Ranked {
    let by_name = ranked.clone().any(|ranked| !ranked.by_name.is_empty());
    // Evidence may have ranked others before those of the alias.
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

fn flagged(key: &EntityKey, asked: &Asked, candidates: Vec<FlaggedCandidate>) -> FlaggedName {
    FlaggedName {
        key: key.clone(),
        texts: asked.texts.iter().map(Arc::clone).collect(),
        addresses: asked.addresses.iter().map(Arc::clone).collect(),
        candidates,
    }
}
