//! The cache of answers.
//!
//! Only answers from snapshots of committed rows are cached, so an id of a transaction that was rolled back never gets
//! here. The remaining race is between a snapshot and a commit: a lookup reads, another transaction commits, and the
//! lookup caches an outdated answer. So nothing is removed; instead everything has a generation:
//!
//! 1. a lookup notes the generation *before* it takes its snapshot, and caches its answers with it;
//! 2. a visible commit takes the next generation and writes it to the slot of each changed name's hash;
//! 3. an answer is valid only if none of its names has a later generation.
//!
//! Properties:
//! - An answer from a snapshot without the commit has a generation before the commit's, whenever it is cached.
//! - A unit's outcome is delivered after step 2, so after an outcome no answer is from before its commit.
//! - Names that share a slot, and lookups between a commit and step 2, only invalidate an answer that was still true.
//!
//! "Nothing similar exists" and similar names depend on all names of a type: any new name or alias of that type
//! invalidates them. Exact names and aliases depend only on their own text.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::query::{Candidate, Query, Tier};
use crate::commits::{ChangedEntity, CommitListener};
use crate::record::EntityType;

/// Number of slots for names. With more slots, fewer unrelated commits invalidate an answer.
const SLOTS: usize = 1 << 16;

/// The answer for a name.
#[derive(Debug, Default)]
pub(crate) struct Ranked {
    /// The likeliest first.
    pub(crate) candidates: Vec<Candidate>,
    /// Whether the author's text is known to be a name of the likeliest.
    pub(crate) known: bool,
    /// Candidates that have the name itself as an alias, with their confidence without evidence; the oldest first.
    pub(crate) by_name: Vec<Candidate>,
}

impl Ranked {
    pub(crate) fn tier(&self) -> Option<Tier> {
        self.candidates.first().map(|candidate| candidate.tier)
    }
}

/// The moment before a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    generation: u64,
    at: Instant,
}

#[derive(Debug, Clone)]
struct Remembered {
    ranked: Arc<Ranked>,
    before: Before,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    entity_type: EntityType,
    name: Arc<str>,
    original: Option<Arc<str>>,
}

/// The answers, and the generations that determine which of them are valid.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Option<quick_cache::sync::Cache<Key, Remembered>>,
    time_to_live: Duration,
    generation: AtomicU64,
    names: Box<[AtomicU64]>,
    types: [AtomicU64; EntityType::ALL.len()],
    everything: AtomicU64,
}

impl Cache {
    /// A cache of at most `entries` answers.
    pub(crate) fn new(entries: usize, time_to_live: Duration) -> Self {
        Self {
            entries: (entries > 0).then(|| quick_cache::sync::Cache::new(entries)),
            time_to_live,
            generation: AtomicU64::new(0),
            names: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            types: Default::default(),
            everything: AtomicU64::new(0),
        }
    }

    /// Must be called before the snapshot from which answers come.
    pub(crate) fn before_snapshot(&self) -> Before {
        Before { generation: self.generation.load(Ordering::SeqCst), at: Instant::now() }
    }

    /// The cached answer for a query, if valid.
    pub(crate) fn get(&self, query: &Query) -> Option<Arc<Ranked>> {
        let remembered = self.entries.as_ref()?.get(&key(query))?;
        let ranked = &remembered.ranked;
        // An exact name needs no evidence; all other answers were ranked without evidence.
        if query.has_evidence() && ranked.tier() != Some(Tier::Exact) {
            return None;
        }
        self.counts(query, ranked, remembered.before).then(|| Arc::clone(ranked))
    }

    /// Caches an answer from a snapshot.
    pub(crate) fn put(&self, query: &Query, ranked: &Arc<Ranked>, before: Before) {
        let Some(entries) = &self.entries else { return };
        if query.has_evidence() && ranked.tier() != Some(Tier::Exact) {
            return;
        }
        entries.insert(key(query), Remembered { ranked: Arc::clone(ranked), before });
    }

    fn counts(&self, query: &Query, ranked: &Ranked, before: Before) -> bool {
        let mut generations = vec![&self.everything, self.slot(&query.key.name)];
        generations.extend(query.original.as_ref().map(|original| self.slot(original)));
        if !matches!(ranked.tier(), Some(Tier::Exact | Tier::Alias)) {
            generations.push(&self.types[query.key.entity_type as usize]);
        }
        before.at.elapsed() < self.time_to_live
            && generations.iter().all(|changed| changed.load(Ordering::SeqCst) <= before.generation)
    }

    fn slot(&self, name: &str) -> &AtomicU64 {
        &self.names[FixedState::default().hash_one(name) as usize % SLOTS]
    }
}

impl CommitListener for Cache {
    fn committed(&self, changed: &mut dyn Iterator<Item = ChangedEntity<'_>>) {
        let mut generation = None;
        for entity in changed {
            let generation = *generation.get_or_insert_with(|| self.generation.fetch_add(1, Ordering::SeqCst) + 1);
            let touch = |slot: &AtomicU64| slot.fetch_max(generation, Ordering::SeqCst);
            for alias in entity.aliases() {
                touch(self.slot(alias));
            }
            match entity.key() {
                Some((entity_type, name)) => {
                    touch(self.slot(name));
                    touch(&self.types[entity_type as usize]);
                }
                // The unit did not state its type.
                None => {
                    for slot in &self.types {
                        touch(slot);
                    }
                }
            }
        }
    }

    fn unknown(&self) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.everything.fetch_max(generation, Ordering::SeqCst);
    }
}

fn key(query: &Query) -> Key {
    Key {
        entity_type: query.key.entity_type,
        name: Arc::clone(&query.key.name),
        original: query.original.as_ref().map(Arc::clone),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::unit::{EntityBuilder, UnitOfWork};

    const LONG: Duration = Duration::from_hours(1);

    fn query(name: &str) -> Query {
        Query::new(EntityType::Restaurant, name)
    }

    fn ranked(tier: Option<Tier>) -> Arc<Ranked> {
        let candidate = |tier| Candidate { id: Uuid::from_u128(7), name: "x".into(), tier, confidence: 1.0 };
        Arc::new(Ranked { candidates: tier.map(candidate).into_iter().collect(), known: true, by_name: Vec::new() })
    }

    fn commit(cache: &Cache, entity_type: EntityType, name: &str, aliases: &[&str]) {
        let mut unit = UnitOfWork::new();
        aliases.iter().fold(unit.entity(entity_type, name), EntityBuilder::alias).handle();
        cache.committed(&mut std::iter::once(ChangedEntity::new(unit.prepare().get(), 0)));
    }

    fn remember(cache: &Cache, name: &str, tier: Option<Tier>) {
        cache.put(&query(name), &ranked(tier), cache.before_snapshot());
    }

    #[test]
    fn a_cached_answer_is_valid_until_a_commit_touches_its_name() {
        for tier in [Some(Tier::Exact), Some(Tier::Alias)] {
            let cache = Cache::new(10, LONG);
            remember(&cache, "blue door", tier);
            commit(&cache, EntityType::Restaurant, "red door", &[]);
            assert!(cache.get(&query("blue door")).is_some());
            commit(&cache, EntityType::Restaurant, "red door", &["blue door"]);
            assert!(cache.get(&query("blue door")).is_none());
            remember(&cache, "blue door", tier);
            assert!(cache.get(&query("blue door")).is_some());
            cache.unknown();
            assert!(cache.get(&query("blue door")).is_none());
        }
    }

    #[test]
    fn answers_that_depend_on_all_names_of_a_type_end_with_a_commit_of_any() {
        for tier in [Some(Tier::Fuzzy), None] {
            let cache = Cache::new(10, LONG);
            remember(&cache, "blue door", tier);
            commit(&cache, EntityType::DishAttribute, "smoky", &[]);
            assert!(cache.get(&query("blue door")).is_some());
            commit(&cache, EntityType::Restaurant, "smoky", &[]);
            assert!(cache.get(&query("blue door")).is_none());
        }
    }

    #[test]
    fn an_answer_read_before_a_commit_and_cached_after_it_is_not_used() {
        let cache = Cache::new(10, LONG);
        let before = cache.before_snapshot();
        commit(&cache, EntityType::Restaurant, "blue door", &[]);
        cache.put(&query("blue door"), &ranked(None), before);
        assert!(cache.get(&query("blue door")).is_none());
        // The next lookup reads after the commit.
        cache.put(&query("blue door"), &ranked(Some(Tier::Exact)), cache.before_snapshot());
        assert!(cache.get(&query("blue door")).is_some());
    }

    #[test]
    fn answers_are_cached_by_the_original_text_too() {
        let cache = Cache::new(10, LONG);
        let query = query("blue door").original("Blue Door!");
        cache.put(&query, &ranked(Some(Tier::Exact)), cache.before_snapshot());
        assert!(cache.get(&query).is_some());
        commit(&cache, EntityType::Restaurant, "else", &["Blue Door!"]);
        assert!(cache.get(&query).is_none());
    }

    #[test]
    fn of_queries_with_evidence_only_exact_matches_are_cached() {
        let cache = Cache::new(10, LONG);
        remember(&cache, "exact", Some(Tier::Exact));
        remember(&cache, "alias", Some(Tier::Alias));
        assert!(cache.get(&query("exact").city("x")).is_some());
        assert!(cache.get(&query("alias").city("x")).is_none());
        cache.put(&query("new").city("x"), &ranked(None), cache.before_snapshot());
        assert!(cache.get(&query("new")).is_none());
    }

    #[test]
    fn answers_expire_and_a_cache_of_size_zero_holds_none() {
        let cache = Cache::new(10, Duration::ZERO);
        remember(&cache, "blue door", Some(Tier::Exact));
        assert!(cache.get(&query("blue door")).is_none());
        let cache = Cache::new(0, LONG);
        remember(&cache, "blue door", Some(Tier::Exact));
        assert!(cache.get(&query("blue door")).is_none());
    }
}
