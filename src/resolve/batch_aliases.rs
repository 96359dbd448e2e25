//! What a batch says authors call entities that the database knows: heard as their aliases by the rest of the batch.
//!
//! "Franklin's" is new to the database, and another query of the same batch says that authors write it for "franklin
//! barbecue", which is there. With the next batch it would be an alias of that; so it is with this one.
//!
//! Not where the name comes with an address or a city and the other query with none: then the entity's own may speak against it.
//!
//! One step and no more: what is decided here brings nothing to others, so the order of a batch does not matter.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::Ranked;
use super::place::Address;
use super::query::{Candidate, Decision, Query, Tier};
use super::ranking::likelier;
use super::score::{ALIAS_CONFIDENCE, TEXT_CONFIDENCE};
use super::score::{Name, TIED_SIMILARITY, WordCounts, confidence};
use crate::record::EntityType;

/// Texts, the entities that are called so, and the queries that say it.
#[derive(Debug, Default)]
pub(crate) struct BatchAliases<'a>(HashMap<(EntityType, &'a str), Vec<(&'a Query, &'a Candidate)>>);

impl<'a> BatchAliases<'a> {
    /// The entity is to be called so, because of this query.
    pub(crate) fn add(&mut self, text: &'a str, query: &'a Query, entity: &'a Candidate) {
        self.0.entry((query.key.entity_type, text)).or_default().push((query, entity));
    }

    /// What decisions add to entities of the database.
    pub(crate) fn of(decided: impl Iterator<Item = (&'a Query, &'a Decision)>) -> Self {
        let mut batch_aliases = Self::default();
        for (query, decision) in decided {
            if let Decision::Existing { entity, alias: Some(alias) } = decision {
                batch_aliases.add(alias, query, entity);
            }
        }
        batch_aliases
    }

    /// The entities that a name may mean as what others of the batch call them; nothing if there are none that the
    /// database did not have among its candidates.
    pub(crate) fn ranked(&self, query: &Query, considered: &Ranked, counts: &WordCounts) -> Option<Ranked> {
        let own = Address::parse(query.address.as_deref(), query.city.as_deref());
        let mut candidates: Vec<Candidate> = Vec::new();
        for (text, is_name) in [(&query.key.name, true), (query.text(), false)] {
            for (bringer, entity) in self.0.get(&(query.key.entity_type, &**text)).into_iter().flatten() {
                // The database knows its address, and was asked.
                if considered.candidates.iter().any(|candidate| candidate.id == entity.id) {
                    continue;
                }
                // Only the database knows where that entity is, so nothing here can say that it is at this place.
                if query.has_evidence() && !bringer.has_evidence() {
                    continue;
                }
                let theirs = Address::parse(bringer.address.as_deref(), bringer.city.as_deref());
                let alone = if is_name {
                    ALIAS_CONFIDENCE
                } else {
                    let names = [&query.key.name, &entity.name].map(|name| Name::new(name, counts));
                    // "The place" may be any.
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
