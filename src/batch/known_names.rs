//! Ids of entities by their names, and their stored facts, remembered from one epoch to the next: known names are not
//! looked up again.
//!
//! An entity is known if its id is known, and every alias and attribute that the epoch states about it. Facts only
//! grow, so a fact that was stored stays stored. If an epoch states the place of a restaurant, the row is always read,
//! because the newest place wins. Remembered data is valid as long as the tables' [`Generation`] stays the same. Every
//! transaction changes it that deletes an entity, changes the name, type or id of one, or removes an alias or an
//! attribute (migration `tables/V5`):
//!
//! 1. An epoch omits known entities from its lookup.
//! 2. Its transaction takes its share of the merges' lock, then reads the generation, then looks up the other names,
//!    each in a separate statement: later statements see at least as much.
//! 3. If the generation is that of the remembered data, and still the same after the lookups, the known entities count
//!    as found. Otherwise all names are looked up by one statement, with one more round trip.
//! 4. When the commit is confirmed, the data looked up or written is remembered, under the generation that was read
//!    before.
//!
//! Properties:
//! - Remembered data that is used was true at the moment of reading the generation, which is one of the transaction's
//!   first statements. It is as good as a lookup by that statement.
//! - Known and looked-up data is true at one moment, as if one statement had looked up everything: otherwise two names
//!   could mean one entity that was renamed in between. Names that are taken to be new (`novelty.rs`) are decided when
//!   they are inserted.
//! - Data read before a deletion is never remembered under the generation after it, because it has the earlier
//!   generation; data read after it may be discarded too early.
//! - When a slow transaction that read an older generation is committed, it discards the data remembered under the
//!   newer one. That costs lookups, and nothing else.
//!
//! Events between two epochs, and their effect:
//! - **Deletions, renames, removed facts, truncation**, by hand, by another program, by an engine of an earlier
//!   version: the generation is a row that changes in the same transaction, so it is visible exactly when they are. If
//!   they are rolled back, so is it. The triggers always fire, also with `session_replication_role = replica` and for
//!   logical replication.
//! - **Merges** delete rows, and so change the generation; this engine's lock excludes them from before the generation
//!   is read until the commit. A name that redirects lead elsewhere is not remembered, nor are facts stated with it: a
//!   new row with this name takes precedence, and a new row does not change the generation.
//! - **Between reading the generation and the commit** a deletion has the same effect as after a lookup: the foreign
//!   keys make it wait for this transaction, or this transaction fail with 23503. Then everything is discarded, and the
//!   next attempt looks up all names (`store/attempt/retry.rs`). Ids in arrays have no foreign keys, whether they were looked
//!   up or not.
//! - **Dropped, disabled or changed triggers, rewritten or recreated tables** (a restored dump): the generation
//!   includes the identity of the triggers and of the table's file. Unless all three triggers exist and always fire,
//!   there is no generation, and nothing is remembered. The same applies if another program's trigger may change rows
//!   before they are written.
//! - **A server that lost confirmed data**, such as a standby that lagged behind: either it is another server, which
//!   the generation shows, or it ended all sessions, and data from before the newest session is discarded.
//! - **Other engines** insert rows and add facts, which invalidates nothing.
//!
//! Deadlocks: a transaction that deletes entities locks the generation's row until its end. Epochs read it without a
//! lock, so they never wait for it.
//!
//! Why a row and not a sequence: a sequence would have to be advanced behind a lock that epochs share, or an epoch
//! would read the new number and still the old row. A row becomes visible together with the change, and epochs need not
//! wait. Why row triggers: statement triggers fire for statements that touch nothing, not for what `before` triggers
//! rename, and not for logical replication. Deferred ones would hold the row's lock for a shorter time, but a
//! transaction that has any pending can neither truncate nor alter the table.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::unit::{AsItIs, NameHash};

/// The state of the tables when data was read: equal generations mean that no remembered data became invalid in
/// between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation(Box<str>);

impl Generation {
    pub(crate) fn new(said: impl Into<Box<str>>) -> Self {
        Self(said.into())
    }
}

/// The remembered names, up to a maximum. Shared by all lanes of an engine.
#[derive(Debug)]
pub(crate) struct KnownNames {
    /// Capacity of each of the two maps.
    half: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The generation of all remembered data; `None` if there is none.
    generation: Option<Generation>,
    /// The number of the newest session for which names were requested.
    session: u64,
    /// Recently used data; the other map has data used before that: ids of names, and facts, which have no id. A full
    /// map replaces the other one.
    young: HashMap<NameHash, Uuid, AsItIs>,
    old: HashMap<NameHash, Uuid, AsItIs>,
}

/// The remembered data that an epoch may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Without it all names are looked up.
    pub(crate) known: Option<&'a KnownNames>,
    /// The number of the session on which it is written. Later sessions have greater numbers.
    pub(crate) session: u64,
}

/// The remembered data about an epoch's names.
#[derive(Debug)]
pub(super) struct Assumed<T> {
    /// The generation for which it is valid; `None` if nothing is remembered.
    pub(super) generation: Option<Generation>,
    /// The newest session.
    pub(super) session: u64,
    /// The known names with their ids.
    pub(super) names: Vec<(T, Uuid)>,
}

/// The data that an epoch looked up or wrote, to be remembered once it is committed.
#[derive(Debug, Default)]
pub(crate) struct LearnedNames {
    pub(super) generation: Option<Generation>,
    /// The newest session when the epoch began.
    pub(super) session: u64,
    pub(super) ids: Vec<(NameHash, Uuid)>,
    pub(super) facts: Vec<NameHash>,
    /// Numbers of known and of unknown names.
    pub(crate) hits: usize,
    pub(crate) misses: usize,
}

impl KnownNames {
    /// Remembers up to `max` names and facts.
    pub(crate) fn new(max: usize) -> Self {
        Self { half: max.div_ceil(2), known: Mutex::default() }
    }

    /// Whether anything is remembered.
    pub(crate) const fn is_on(&self) -> bool {
        self.half > 0
    }

    /// Removes the known names from `names`. `hashes` gives the hash of a name and passes on those of its facts; it
    /// returns false if the name must be looked up anyway.
    pub(super) fn take_known<T>(
        &self,
        session: u64,
        names: &mut Vec<T>,
        hashes: impl Fn(&T, &mut Vec<NameHash>) -> bool,
    ) -> Assumed<T> {
        let mut known = self.lock();
        if session > known.session {
            *known = Known { session, ..Known::default() };
        }
        let (mut ids, mut of_name) = (Vec::new(), Vec::new());
        let taken = names.extract_if(.., |name| {
            of_name.clear();
            let knowable = known.generation.is_some() && hashes(name, &mut of_name);
            let id = if knowable { known.use_all(&of_name, self.half) } else { None };
            ids.extend(id);
            id.is_some()
        });
        let names = taken.collect::<Vec<T>>().into_iter().zip(ids.iter().copied()).collect();
        Assumed { generation: known.generation.clone(), session: known.session, names }
    }

    /// Remembers the data that a committed epoch learned.
    pub(crate) fn remember(&self, learned: &LearnedNames) {
        let Some(generation) = &learned.generation else { return };
        let mut known = self.lock();
        if learned.session != known.session || learned.ids.is_empty() {
            return;
        }
        if known.generation.as_ref() != Some(generation) {
            *known = Known { generation: Some(generation.clone()), session: known.session, ..Known::default() };
        }
        let facts = learned.facts.iter().map(|fact| (*fact, Uuid::nil()));
        for (hash, id) in learned.ids.iter().copied().chain(facts) {
            known.old.remove(&hash);
            known.insert(hash, id, self.half);
        }
    }

    /// Discards everything: a remembered id may have been invalid.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        *known = Known { session: known.session, ..Known::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The id of a name, if the name and all facts that follow are remembered; then they count as recently used.
    fn use_all(&mut self, of_name: &[NameHash], half: usize) -> Option<Uuid> {
        let mut id = None;
        let mut are_young = true;
        for hash in of_name {
            let young = self.young.get(hash);
            are_young &= young.is_some();
            let found = *young.or_else(|| self.old.get(hash))?;
            id = id.or(Some(found));
        }
        if !are_young {
            for hash in of_name {
                if let Some(id) = self.old.remove(hash) {
                    self.insert(*hash, id, half);
                }
            }
        }
        id
    }

    fn insert(&mut self, hash: NameHash, id: Uuid, half: usize) {
        if self.young.len() >= half && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u32) -> Generation {
        Generation::new(number.to_string())
    }

    fn remember(known: &KnownNames, number: u32, session: u64, names: impl IntoIterator<Item = u128>) {
        let ids = names.into_iter().map(|name| (name, Uuid::from_u128(name))).collect();
        let generation = Some(generation(number));
        known.remember(&LearnedNames { generation, session, ids, ..LearnedNames::default() });
    }

    /// The remembered ones among `names`, and the generation.
    fn known_of(
        known: &KnownNames,
        session: u64,
        names: impl IntoIterator<Item = u128>,
    ) -> (Vec<u128>, Option<Generation>) {
        let mut asked: Vec<u128> = names.into_iter().collect();
        let Assumed { generation, names, .. } = known.take_known(session, &mut asked, |name, hashes| {
            hashes.push(*name);
            true
        });
        assert!(names.iter().all(|(name, id)| id.as_u128() == *name && !asked.contains(name)));
        (names.into_iter().map(|(name, _)| name).collect(), generation)
    }

    #[test]
    fn names_are_known_only_under_the_generation_they_were_learned_in() {
        let known = KnownNames::new(10);
        assert_eq!(known_of(&known, 0, [1]), (vec![], None));
        remember(&known, 1, 0, [1, 2]);
        remember(&known, 1, 0, [3]);
        assert_eq!(known_of(&known, 0, [4, 3, 1]), (vec![3, 1], Some(generation(1))));
        remember(&known, 2, 0, [5]);
        assert_eq!(known_of(&known, 0, 1..6), (vec![5], Some(generation(2))));
        // A slow transaction reports an earlier generation.
        remember(&known, 1, 0, [6]);
        assert_eq!(known_of(&known, 0, 1..7), (vec![6], Some(generation(1))));
        known.forget();
        assert_eq!(known_of(&known, 0, 1..7), (vec![], None));
        // A session older than the newest one remembers nothing, not even after everything was forgotten.
        assert_eq!(known_of(&known, 1, [1]), (vec![], None));
        known.forget();
        remember(&known, 1, 0, [1]);
        assert_eq!(known_of(&known, 0, [1]), (vec![], None));
        known.remember(&LearnedNames { ids: vec![(1, Uuid::nil())], ..LearnedNames::default() });
        assert_eq!(known_of(&known, 0, [1]), (vec![], None), "names read under no generation are not remembered");
    }

    #[test]
    fn an_entity_is_known_only_if_all_facts_stated_about_it_are() {
        let known = KnownNames::new(10);
        let learned =
            |ids, facts| LearnedNames { generation: Some(generation(1)), ids, facts, ..LearnedNames::default() };
        known.remember(&learned(vec![(1, Uuid::from_u128(1)), (2, Uuid::from_u128(2))], vec![11, 12]));
        for (hashes, knowable, is_known) in [
            (&[1, 11][..], true, true),
            (&[1, 12, 11], true, true),
            (&[2], true, true),
            (&[1, 11], false, false),
            (&[1, 13], true, false),
            (&[3, 11], true, false),
        ] {
            let mut asked = vec![hashes];
            let Assumed { names, .. } = known.take_known(0, &mut asked, |name, of_name| {
                of_name.extend_from_slice(name);
                knowable
            });
            assert_eq!((names.len(), asked.len()), (usize::from(is_known), usize::from(!is_known)), "{hashes:?}");
            assert!(names.iter().all(|(name, id)| id.as_u128() == name[0]));
        }
    }

    #[test]
    fn names_learned_before_the_newest_session_are_forgotten() {
        let known = KnownNames::new(10);
        remember(&known, 1, 0, [1]);
        assert_eq!(known_of(&known, 2, [1]).0, [0; 0]);
        remember(&known, 1, 0, [1]);
        assert_eq!(known_of(&known, 2, [1]).0, [0; 0], "learned by a session that began earlier");
        remember(&known, 1, 2, [1]);
        assert_eq!(known_of(&known, 1, [1]).0, [1], "an older session reads what a newer one learned");
    }

    #[test]
    fn the_number_of_names_is_bounded_and_names_in_use_are_kept() {
        let known = KnownNames::new(8);
        for name in 0..100 {
            remember(&known, 1, 0, [name]);
            assert_eq!(known_of(&known, 0, [0]).0, [0], "a name in use is kept");
            let all = {
                let known = known.lock();
                known.young.len() + known.old.len()
            };
            assert!(all <= 8, "{all}");
        }
        assert!(known_of(&known, 0, [99]).0 == [99] && known_of(&known, 0, 1..90).0.is_empty());
        remember(&known, 1, 0, 200..300);
        let all = {
            let known = known.lock();
            known.young.len() + known.old.len()
        };
        assert!(all <= 8, "{all}");
        assert!(!KnownNames::new(0).is_on() && KnownNames::new(1).is_on());
    }
}
