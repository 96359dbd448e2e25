//! Ranks the found entities by confidence.

use std::sync::Arc;

use super::cache::Ranked;
use super::found::{Found, KnownEntity};
use super::place::Address;
use super::query::{Candidate, Query, Tier};
use super::scan::likelihood;
use super::score::{ALIAS_CONFIDENCE, Name, WordCounts};
use crate::telemetry;

/// Ranks the entities found for a query.
pub(crate) fn rank(query: &Query, found: Found, counts: &WordCounts) -> Ranked {
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

/// Ranks entities by the similarity of their names and by evidence; the likeliest first.
fn similar(query: &Query, entities: Vec<KnownEntity>, counts: &WordCounts) -> Vec<Candidate> {
    let place = Address::parse(query.address.as_deref(), query.city.as_deref());
    let mut names = vec![Name::new(&query.key.name, counts)];
    names.extend(query.original.as_ref().map(|original| Name::new(original, counts)));
    let mut candidates: Vec<Candidate> = entities
        .into_iter()
        .map(|entity| {
            let theirs = Address::parse(entity.address.as_deref(), None);
            let likely = likelihood(&names, &place, &Name::new(&entity.name, counts), &theirs);
            candidate(entity, Tier::Fuzzy, likely)
        })
        .collect();
    candidates.sort_by(likelier);
    candidates
}

fn candidate(entity: KnownEntity, tier: Tier, confidence: f64) -> Candidate {
    Candidate { id: entity.id, name: entity.name.into(), tier, confidence }
}

/// Compares by confidence; among equal ones by the smaller name in code-point order, as all have one type. Ids differ
/// from database to database, so they decide nothing.
pub(crate) fn likelier(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.confidence.total_cmp(&left.confidence).then_with(|| left.name.cmp(&right.name))
}

/// Counts by which tier names were found, for the metrics.
pub(crate) fn count_found<'a>(ranked: &(impl Iterator<Item = &'a Ranked> + Clone)) {
    for tier in [None, Some(Tier::Exact), Some(Tier::Alias), Some(Tier::Fuzzy)] {
        let names = ranked.clone().filter(|ranked| ranked.tier() == tier).count();
        telemetry::resolver::names(tier.map_or("none", Tier::as_str)).increment(names as u64);
    }
}
