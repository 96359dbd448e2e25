//! The texts that authors of a batch use for known entities, which count as their aliases in the rest of the batch.
//!
//! "Franklin's" is new to the database, and another query of the same batch states that authors write it for "franklin
//! barbecue", which exists. For the next batch it would be an alias of that entity, so it is for this one.
//!
//! This does not apply if the name comes with an address or a city and the other query with none: the entity's own
//! address may then contradict it.
//!
//! Only one step: a decision made here gives others no aliases, so the order of a batch does not matter.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::Ranked;
use super::place::Address;
use super::query::{Candidate, Decision, Query, Tier};
use super::ranking::likelier;
use super::score::{ALIAS_CONFIDENCE, TEXT_CONFIDENCE};
use super::score::{Name, TIED_SIMILARITY, WordCounts, confidence};
use crate::record::EntityType;

/// Texts, their entities, and the queries that state them.
#[derive(Debug, Default)]
pub(crate) struct BatchAliases<'a>(HashMap<(EntityType, &'a str), Vec<(&'a Query, &'a Candidate)>>);

impl<'a> BatchAliases<'a> {
    /// Adds a text as an alias of an entity, because of this query.
    pub(crate) fn add(&mut self, text: &'a str, query: &'a Query, entity: &'a Candidate) {
        self.0.entry((query.key.entity_type, text)).or_default().push((query, entity));
    }

    /// The aliases that decisions add to entities of the database.
    pub(crate) fn of(decided: impl Iterator<Item = (&'a Query, &'a Decision)>) -> Self {
        let mut batch_aliases = Self::default();
        for (query, decision) in decided {
            if let Decision::Existing { entity, alias: Some(alias) } = decision {
                batch_aliases.add(alias, query, entity);
            }
        }
        batch_aliases
    }

    /// The entities that a name may mean according to other queries of the batch; `None` if the database already had
    /// all of them among its candidates.
    pub(crate) fn ranked(&self, query: &Query, considered: &Ranked, counts: &WordCounts) -> Option<Ranked> {
        let own = Address::parse(query.address.as_deref(), query.city.as_deref());
        let mut candidates: Vec<Candidate> = Vec::new();
        for (text, is_name) in [(&query.key.name, true), (query.text(), false)] {
            for (bringer, entity) in self.0.get(&(query.key.entity_type, &**text)).into_iter().flatten() {
                // The database's answer already considered its address.
                if considered.candidates.iter().any(|candidate| candidate.id == entity.id) {
                    continue;
                }
                // Only the database knows the place of that entity, so nothing here can confirm this place.
                if query.has_evidence() && !bringer.has_evidence() {
                    continue;
                }
                let theirs = Address::parse(bringer.address.as_deref(), bringer.city.as_deref());
                let alone = if is_name {
                    ALIAS_CONFIDENCE
                } else {
                    let names = [&query.key.name, &entity.name].map(|name| Name::new(name, counts));
                    // A text like "the place" may mean any place.
                    let localities = [own.locality(), theirs.locality()];
                    if names[0].similarity(&names[1], localities) < TIED_SIMILARITY {
                        continue;
                    }
                    TEXT_CONFIDENCE
                };
                let confidence = confidence(alone, &own, &theirs);
                match candidates.iter_mut().find(|candidate| candidate.id == entity.id) {
                    Some(candidate) => candidate.confidence = candidate.confidence.max(confidence),
                    None => candidates.push(Candidate {
                        id: entity.id,
                        name: Arc::clone(&entity.name),
                        tier: Tier::Alias,
                        confidence,
                    }),
                }
            }
        }
        candidates.sort_by(likelier);
        (!candidates.is_empty()).then_some(Ranked { candidates, known: false, by_name: Vec::new() })
    }
}
