//! Compares names of an input that have no match by name or alias with all entities of the database.
//!
//! The lookups of single names ([`lookup`](super::lookup)) use indexes that find probably similar names in bounded
//! time, and may miss some. For a whole input the meaning of a name would then be a matter of chance. So the direction
//! is reversed here: the names of the input are indexed, and all entities of their types are compared with this index,
//! page by page and in one snapshot. An entity that is similar enough, or at the same house, is compared with the names
//! that it may have.
//!
//! The cost is two readings of the entities of these types in the order of their keys, whatever the input: the first
//! counts the exact frequency of each word, because a sample would be a matter of chance too. Memory: a page, and the
//! different words.

use std::cmp::Ordering;

use super::found::{Found, KnownEntity};
use super::place::Address;
use super::query::Query;
use super::score::{Name, WordCounts, confidence};
use super::settings::{Band, ResolverSettings};
use super::trigrams::{TrigramIndex, trigrams};
use crate::hash::HashMap;
use crate::record::EntityType;

/// The names, with the entities found for each so far.
pub(crate) struct Sought {
    settings: ResolverSettings,
    counts: WordCounts,
    types: HashMap<EntityType, OfType>,
}

/// Names of one type.
struct OfType {
    names: Vec<SoughtName>,
    /// The index of the texts of all names.
    index: TrigramIndex,
    /// The owner of each text.
    owners: Vec<usize>,
    /// Names with a house of this number.
    houses: HashMap<String, Vec<usize>>,
}

/// One query.
struct SoughtName {
    query: usize,
    names: Vec<Name>,
    place: Address,
    /// The likeliest first, up to the maximum of the settings.
    candidates: Vec<(f64, KnownEntity)>,
}

impl Sought {
    /// Prepares queries with their positions for comparison with entities whose names were counted.
    pub(crate) fn new<'a>(
        queries: impl IntoIterator<Item = (usize, &'a Query)>,
        counts: WordCounts,
        settings: &ResolverSettings,
    ) -> Self {
        let mut by_type: HashMap<EntityType, Vec<(usize, &Query)>> = HashMap::default();
        for (number, query) in queries {
            by_type.entry(query.key.entity_type).or_default().push((number, query));
        }
        let of_type = |queries| OfType::new(queries, &counts, settings.similarity_min);
        let types = by_type.into_iter().map(|(entity_type, queries)| (entity_type, of_type(queries))).collect();
        Self { settings: settings.clone(), counts, types }
    }

    /// Compares an entity of the database.
    pub(crate) fn meet(&mut self, entity_type: EntityType, entity: &KnownEntity) {
        let Some(of_type) = self.types.get_mut(&entity_type) else { return };
        let theirs = Address::parse(entity.address.as_deref(), None);
        let similar = of_type.index.similar(&trigrams(&entity.name));
        let mut met: Vec<usize> = similar.into_iter().map(|text| of_type.owners[text]).collect();
        met.extend(theirs.number().and_then(|number| of_type.houses.get(number)).into_iter().flatten());
        if met.is_empty() {
            return;
        }
        met.sort_unstable();
        met.dedup();
        let name = Name::new(&entity.name, &self.counts);
        for sought in met {
            of_type.names[sought].compare(&name, &theirs, entity, &self.settings);
        }
    }

    /// The entities found, by position of the query, and the frequency of words.
    pub(crate) fn found(self) -> (impl Iterator<Item = (usize, Vec<KnownEntity>)>, WordCounts) {
        let names = self.types.into_values().flat_map(|of_type| of_type.names);
        let found = names.map(|name| (name.query, name.candidates.into_iter().map(|(_, entity)| entity).collect()));
        (found, self.counts)
    }
}

impl OfType {
    fn new(queries: Vec<(usize, &Query)>, counts: &WordCounts, similarity_min: f64) -> Self {
        let (mut texts, mut owners) = (Vec::new(), Vec::new());
        let mut houses: HashMap<String, Vec<usize>> = HashMap::default();
        let mut names = Vec::with_capacity(queries.len());
        for (owner, (number, query)) in queries.into_iter().enumerate() {
            let sought = SoughtName::new(number, query, counts);
            for text in [Some(&query.key.name), query.original.as_ref()].into_iter().flatten() {
                texts.push(trigrams(text));
                owners.push(owner);
            }
            if let Some(house) = sought.place.number() {
                houses.entry(house.to_owned()).or_default().push(owner);
            }
            names.push(sought);
        }
        Self { names, index: TrigramIndex::new(texts, similarity_min), owners, houses }
    }
}

impl SoughtName {
    fn new(number: usize, query: &Query, counts: &WordCounts) -> Self {
        let texts = [Some(&query.key.name), query.original.as_ref()];
        let names = texts.into_iter().flatten().map(|text| Name::new(text, counts)).collect();
        let place = Address::parse(query.address.as_deref(), query.city.as_deref());
        Self { query: number, names, place, candidates: Vec::new() }
    }

    /// Keeps an entity if it may be the one meant, and is not less likely than those already kept.
    fn compare(&mut self, name: &Name, theirs: &Address, entity: &KnownEntity, settings: &ResolverSettings) {
        let likely = likelihood(&self.names, &self.place, name, theirs);
        if settings.band(likely) == Band::New {
            return;
        }
        let order = |(confidence, kept): &(f64, KnownEntity)| {
            likely.total_cmp(confidence).reverse().then_with(|| entity.name.cmp(&kept.name))
        };
        let place = self.candidates.partition_point(|kept| order(kept) == Ordering::Greater);
        if place < settings.candidates_max {
            self.candidates.truncate(settings.candidates_max - 1);
            self.candidates.insert(place, (likely, entity.clone()));
        }
    }
}

/// The probability that an entity is meant by any of these names.
pub(crate) fn likelihood(names: &[Name], place: &Address, name: &Name, theirs: &Address) -> f64 {
    let localities = [place.locality(), theirs.locality()];
    let similarity = names.iter().map(|own| own.similarity(name, localities)).fold(0.0, f64::max);
    confidence(similarity, place, theirs)
}

/// Adds the scan's results to those of the lookup by name and alias.
pub(crate) fn add(found: &mut Found, similar: Vec<KnownEntity>) {
    match found {
        Found::Alias(called, others) => {
            let is_other = |entity: &KnownEntity| called.iter().all(|called| called.entity.id != entity.id);
            others.extend(similar.into_iter().filter(is_other));
        }
        found => *found = Found::Fuzzy(similar),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::trigrams::is_similar;
    use super::*;

    fn entity((name, address): &(String, Option<&str>)) -> KnownEntity {
        let id = Uuid::new_v5(&Uuid::nil(), name.as_bytes());
        KnownEntity { id, name: name.clone(), address: address.map(str::to_owned) }
    }

    fn any_name() -> impl Strategy<Value = (String, Option<&'static str>)> {
        let word = prop::sample::select(vec!["blue", "bleu", "door", "doors", "the", "cafe", "red", "lantern"]);
        let name = prop::collection::vec(word, 1..4).prop_map(|words| words.join(" "));
        let address = prop::option::of(prop::sample::select(vec!["12 Oak St", "12 Oak Street, Here", "90 Elm St"]));
        (name, address)
    }

    fn query((name, address): &(String, Option<&str>)) -> Query {
        let query = Query::new(EntityType::Restaurant, name.as_str());
        match address {
            Some(address) => query.address(*address),
            None => query,
        }
    }

    /// Whether an entity is compared with a name, by definition.
    fn is_met(query: &Query, entity: &KnownEntity) -> bool {
        let number = |address: Option<&str>| Address::parse(address, None).number().map(str::to_owned);
        let at = number(query.address.as_deref());
        is_similar(&trigrams(&query.key.name), &trigrams(&entity.name), ResolverSettings::default().similarity_min)
            || at.is_some() && at == number(entity.address.as_deref())
    }

    /// The names that the scan finds.
    fn scan<'a>(queries: &[Query], entities: impl Iterator<Item = &'a KnownEntity>) -> Vec<Vec<String>> {
        let settings = ResolverSettings::default().candidates_max(3);
        let mut sought = Sought::new(queries.iter().enumerate(), WordCounts::default(), &settings);
        entities.for_each(|entity| sought.meet(EntityType::Restaurant, entity));
        let mut found: Vec<_> = sought.found().0.collect();
        found.sort_unstable_by_key(|(query, _)| *query);
        found.into_iter().map(|(_, found)| found.into_iter().map(|entity| entity.name).collect()).collect()
    }

    proptest! {
        /// The scan finds the likeliest entities in any order of the table, with ties by name. The expectation compares
        /// each pair.
        #[test]
        fn a_scan_finds_the_likeliest_entities(
            (entities, shuffled) in prop::collection::btree_map("[a-c]", any_name(), 0..20).prop_flat_map(|entities| {
                // Names are unique.
                let entities: std::collections::BTreeMap<_, _> = entities.into_values().collect();
                let entities: Vec<KnownEntity> = entities.into_iter().map(|named| entity(&named)).collect();
                (Just(entities.clone()), Just(entities).prop_shuffle())
            }),
            names in prop::collection::vec(any_name(), 1..6),
        ) {
            let queries: Vec<Query> = names.iter().map(query).collect();
            let (settings, counts) = (ResolverSettings::default(), WordCounts::default());
            let by_a_look_at_each = queries.iter().enumerate().map(|(number, query)| {
                let sought = SoughtName::new(number, query, &counts);
                let mut found: Vec<(f64, String)> = entities
                    .iter()
                    .filter(|entity| is_met(query, entity))
                    .map(|entity| {
                        let theirs = Address::parse(entity.address.as_deref(), None);
                        let likely = likelihood(&sought.names, &sought.place, &Name::new(&entity.name, &counts), &theirs);
                        (likely, entity.name.clone())
                    })
                    .filter(|(likely, _)| settings.band(*likely) != Band::New)
                    .collect();
                found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
                found.into_iter().take(3).map(|(_, name)| name).collect::<Vec<_>>()
            });
            prop_assert_eq!(scan(&queries, entities.iter()), by_a_look_at_each.collect::<Vec<_>>());
            prop_assert_eq!(scan(&queries, entities.iter()), scan(&queries, shuffled.iter()));
        }
    }
}
