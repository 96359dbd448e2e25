//! Groups unknown names of one batch that mean the same.
//!
//! Star clustering. Names are processed in a fixed order (first those that match the most others, among these the
//! shortest, among these by code point): a name that matches no centre becomes a centre, the others join the centre
//! that they match best. A centre gives its name to the new entity.
//!
//! Properties:
//! - The result depends only on the set of names: not on their order, nor on how often each occurs.
//! - Every name matches its centre directly. There are no chains, in which a first name resembles a second and that a
//!   third that is unrelated to the first.
//! - No two centres match, so resolving the centres again changes nothing.
//! - A name is compared with all names that share a text or a house with it, or enough trigrams
//!   ([`trigrams`](super::trigrams)): the work grows with the number of names that have its rarer trigrams in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::place::Address;
use super::query::{Query, Tier};
use super::score::{ALIAS_CONFIDENCE, TEXT_CONFIDENCE};
use super::score::{Name, TIED_SIMILARITY, WordCounts, confidence};
use super::settings::{Band, ResolverSettings};
use super::trigrams::{TrigramIndex, trigrams};
use crate::record::EntityKey;

/// An address and a city.
type Evidence = (Option<Arc<str>>, Option<Arc<str>>);

/// All data of the batch about one name.
#[derive(Debug, Default)]
struct Member {
    texts: BTreeSet<Arc<str>>,
    evidence: BTreeSet<Evidence>,
}

/// A name prepared for comparison.
struct Compared {
    key: EntityKey,
    name: Name,
    texts: BTreeSet<Arc<str>>,
    addresses: Vec<Address>,
}

/// For each name the key of the entity to be created for it.
pub(crate) fn centres<'a>(
    queries: impl IntoIterator<Item = &'a Query>,
    settings: &ResolverSettings,
    counts: &WordCounts,
) -> HashMap<EntityKey, EntityKey> {
    let mut members: BTreeMap<EntityKey, Member> = BTreeMap::new();
    for query in queries {
        let member = members.entry(query.key.clone()).or_default();
        member.texts.insert(Arc::clone(&query.key.name));
        member.texts.insert(Arc::clone(query.text()));
        member.evidence.insert((query.address.clone(), query.city.clone()));
    }
    let mut members: Vec<(EntityKey, Member)> = members.into_iter().collect();
    members.sort_by_cached_key(|(key, _)| (key.entity_type, key.name.chars().count(), Arc::clone(&key.name)));
    let compared: Vec<Compared> = members.into_iter().map(|(key, member)| Compared::new(key, member, counts)).collect();
    let matches = matches(&compared, settings);
    // A stable sort: among names with equal numbers of matches the order stays.
    let mut order: Vec<usize> = (0..compared.len()).collect();
    order.sort_by_key(|name| std::cmp::Reverse(matches[*name].len()));
    let mut is_centre = vec![false; compared.len()];
    for name in order {
        is_centre[name] = matches[name].iter().all(|(other, _)| !is_centre[*other]);
    }
    let centre_of = |name: usize| {
        let centres = matches[name].iter().filter(|(other, _)| is_centre[*other]);
        // Among equal ones the first.
        let best = centres.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        if is_centre[name] { name } else { best.map_or(name, |(centre, _)| *centre) }
    };
    (0..compared.len()).map(|name| (compared[name].key.clone(), compared[centre_of(name)].key.clone())).collect()
}

/// For each name the others that it matches, with the confidence.
fn matches(names: &[Compared], settings: &ResolverSettings) -> Vec<Vec<(usize, f64)>> {
    let mut matches: Vec<Vec<(usize, f64)>> = vec![Vec::new(); names.len()];
    let ways = Ways::new(names, settings);
    for (index, name) in names.iter().enumerate() {
        for other in ways.candidates(index, names) {
            if names[other].key.entity_type == name.key.entity_type {
                let confidence = name.matches(&names[other], settings.deepest);
                if settings.band(confidence) == Band::Existing {
                    matches[index].push((other, confidence));
                    matches[other].push((index, confidence));
                }
            }
        }
    }
    matches
}

/// Indexes for finding the names that a name may match, without comparing all of them.
struct Ways {
    texts: HashMap<Arc<str>, Vec<usize>>,
    /// The trigrams of all names, if similar names count.
    similar: Option<(TrigramIndex, Vec<Vec<u64>>)>,
    houses: HashMap<(String, String), Vec<usize>>,
}

impl Ways {
    fn new(names: &[Compared], settings: &ResolverSettings) -> Self {
        let mut texts: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        let mut houses: HashMap<(String, String), Vec<usize>> = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if settings.deepest >= Tier::Alias {
                for text in &name.texts {
                    texts.entry(Arc::clone(text)).or_default().push(index);
                }
            }
            if settings.deepest >= Tier::Fuzzy {
                for house in name.houses() {
                    houses.entry(house).or_default().push(index);
                }
            }
        }
        let similar = (settings.deepest >= Tier::Fuzzy).then(|| {
            let trigrams: Vec<Vec<u64>> = names.iter().map(|name| trigrams(&name.key.name)).collect();
            (TrigramIndex::new(trigrams.clone(), settings.similarity_min), trigrams)
        });
        Self { texts, similar, houses }
    }

    /// The candidates before a name.
    fn candidates(&self, index: usize, names: &[Compared]) -> BTreeSet<usize> {
        let name = &names[index];
        let of_texts = name.texts.iter().filter_map(|text| self.texts.get(text)).flatten().copied();
        let at_houses = name.houses().filter_map(|house| self.houses.get(&house)).flatten().copied();
        let similar = self.similar.iter().flat_map(|(similar, trigrams)| similar.similar(&trigrams[index]));
        of_texts.chain(at_houses).chain(similar).filter(|other| *other < index).collect()
    }
}

impl Compared {
    fn new(key: EntityKey, member: Member, counts: &WordCounts) -> Self {
        let addresses =
            member.evidence.iter().map(|(address, city)| Address::parse(address.as_deref(), city.as_deref()));
        Self { name: Name::new(&key.name, counts), texts: member.texts, addresses: addresses.collect(), key }
    }

    fn houses(&self) -> impl Iterator<Item = (String, String)> {
        self.addresses.iter().flat_map(Address::houses)
    }

    /// The greatest confidence over all pairs of evidence for the two names: they share a text, or their names are
    /// similar.
    fn matches(&self, other: &Self, deepest: Tier) -> f64 {
        let by_name = self.texts.contains(&other.key.name) || other.texts.contains(&self.key.name);
        let by_text = by_name || !self.texts.is_disjoint(&other.texts);
        if !by_text && deepest < Tier::Fuzzy {
            return 0.0;
        }
        let mut most = 0.0_f64;
        for own in &self.addresses {
            for address in &other.addresses {
                let similarity = self.name.similarity(&other.name, [own.locality(), address.locality()]);
                let called = match (by_name, by_text) {
                    (true, _) => ALIAS_CONFIDENCE,
                    // A text like "the place" may mean any place: it does not connect names that have nothing in
                    // common.
                    (false, true) if similarity >= TIED_SIMILARITY => TEXT_CONFIDENCE,
                    _ => 0.0,
                };
                let similar = if deepest < Tier::Fuzzy { 0.0 } else { similarity };
                most = most.max(confidence(called.max(similar), own, address));
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::EntityType;

    fn query(name: &str) -> Query {
        Query::new(EntityType::Restaurant, name)
    }

    fn resolved(queries: &[Query]) -> BTreeMap<EntityKey, EntityKey> {
        centres(queries, &ResolverSettings::default(), &WordCounts::default()).into_iter().collect()
    }

    fn groups(queries: &[Query]) -> usize {
        resolved(queries).into_values().collect::<BTreeSet<_>>().len()
    }

    #[test]
    fn matching_names_of_a_batch_become_one_entity() {
        let queries = ["the blue door", "blue door", "blue doer", "red lantern"].map(query);
        let resolved = resolved(&queries);
        let name = |index: usize| resolved[&queries[index].key].name.to_string();
        assert_eq!([name(0), name(1), name(2), name(3)], ["blue door", "blue door", "blue door", "red lantern"]);
    }

    #[test]
    fn names_of_different_types_never_match() {
        let attribute = Query::new(EntityType::DishAttribute, "italian");
        assert_eq!(groups(&[attribute, Query::new(EntityType::RestaurantAttribute, "italian")]), 2);
    }

    #[test]
    fn original_texts_tie_names_together() {
        assert_eq!(groups(&[query("franklin bbq").original("Franklin's"), query("Franklin's")]), 1);
        assert_eq!(groups(&[query("franklin bbq"), query("la barbecue")]), 2);
    }

    #[test]
    fn texts_that_fit_two_addresses_tie_no_names_together() {
        let said = |name: &str, text: &str| query(name).original(text);
        assert_eq!(groups(&[said("franklin bbq", "this place"), said("la barbecue", "this place")]), 2);
        assert_eq!(groups(&[said("franklin bbq", "Franklin's"), said("franklin barbeque", "Franklin's")]), 1);
        let alike = [
            said("joes pizza", "Joe's").address("12 Oak St, Here"),
            said("joes pizzas", "Joe's").address("90 Elm St, There"),
        ];
        assert_eq!(groups(&alike), 2, "different addresses are two restaurants");
    }

    #[test]
    fn an_address_ties_names_together_and_keeps_them_apart() {
        let at = |name: &str, address: &str| query(name).address(address);
        assert_eq!(groups(&[query("virgils"), query("virgils real smokehouse")]), 2);
        assert_eq!(groups(&[at("virgils", "12 Oak St"), at("virgils real smokehouse", "12 Oak Street")]), 1);
        assert_eq!(groups(&[at("blue door cafe", "12 Oak St, Here"), at("blue doors cafe", "90 Elm St, There")]), 2);
    }

    #[test]
    fn without_the_fuzzy_tier_only_equal_texts_match() {
        let queries = [query("blue door"), query("blue doer"), query("x").original("blue door")];
        let groups = |deepest| {
            centres(&queries, &ResolverSettings::default().deepest(deepest), &WordCounts::default())
                .into_values()
                .collect::<BTreeSet<_>>()
                .len()
        };
        assert_eq!([groups(Tier::Exact), groups(Tier::Alias), groups(Tier::Fuzzy)], [3, 2, 1]);
    }

    #[test]
    fn a_name_among_many_that_share_most_of_its_letters_finds_its_twin() {
        let mut queries: Vec<Query> = (0..1_000).map(|number| query(&format!("{number} cafe restaurant"))).collect();
        queries.extend(["zanzibar cafe restaurant", "zanzibarr cafe restaurant"].map(query));
        let [first, second] = [queries.len() - 2, queries.len() - 1].map(|index| &queries[index].key);
        let resolved = resolved(&queries);
        assert_eq!(resolved[first], resolved[second]);
    }

    fn any_query() -> impl Strategy<Value = Query> {
        let word = prop::sample::select(vec!["blue", "bleu", "door", "doors", "the", "cafe", "red", "lantern"]);
        let name = prop::collection::vec(word, 1..4).prop_map(|words| words.join(" "));
        let address = prop::option::of(prop::sample::select(vec!["12 Oak St", "12 Oak Street", "90 Elm St"]));
        (name, address, any::<bool>()).prop_map(|(name, address, typed)| {
            let entity_type = if typed { EntityType::Restaurant } else { EntityType::DishOrCategory };
            let query = Query::new(entity_type, name);
            match address {
                Some(address) => query.address(address),
                None => query,
            }
        })
    }

    proptest! {
        #[test]
        fn groups_do_not_depend_on_order_or_repetition(
            (queries, shuffled) in prop::collection::vec(any_query(), 1..20)
                .prop_flat_map(|queries| (Just(queries.clone()), Just(queries).prop_shuffle())),
            repeated in 0..4_usize,
        ) {
            let mut shuffled = shuffled;
            shuffled.extend(queries.iter().take(repeated).cloned());
            prop_assert_eq!(resolved(&queries), resolved(&shuffled));
        }

        #[test]
        fn centres_of_groups_are_their_own_centres(queries in prop::collection::vec(any_query(), 1..20)) {
            let first = resolved(&queries);
            let centres: BTreeSet<EntityKey> = first.into_values().collect();
            // The centres again, with everything that was stated about them.
            let again: Vec<Query> = queries.into_iter().filter(|query| centres.contains(&query.key)).collect();
            for (key, centre) in resolved(&again) {
                prop_assert_eq!(key, centre);
            }
        }
    }
}
