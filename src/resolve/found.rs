//! The data found in the database for queries.

use strsim::osa_distance;
use uuid::Uuid;

use super::place::Address;
use super::query::Query;
use super::score::{ALIAS_CONFIDENCE, TEXT_CONFIDENCE, confidence};
use super::settings::{Band, ResolverSettings};

/// A stored entity.
#[derive(Debug, Clone)]
pub(crate) struct KnownEntity {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) address: Option<String>,
}

/// An entity that was found by an alias.
#[derive(Debug)]
pub(crate) struct AliasMatch {
    pub(crate) entity: KnownEntity,
    /// Whether the author's text is known to be a name of it.
    pub(crate) known: bool,
    /// Whether the name itself is an alias, not only the author's text.
    pub(crate) by_name: bool,
}

impl AliasMatch {
    /// The probability that it is the entity at this place.
    pub(crate) fn confidence(&self, place: &Address) -> f64 {
        let alone = if self.by_name { ALIAS_CONFIDENCE } else { TEXT_CONFIDENCE };
        confidence(alone, place, &Address::parse(self.entity.address.as_deref(), None))
    }
}

/// The data found in the database for one query.
#[derive(Debug, Default)]
pub(crate) enum Found {
    /// The entity of that name, its own name if a merge gave it another, and whether the author's text is known to be a
    /// name of it.
    Exact(Uuid, Option<String>, bool),
    /// Entities with the name or the author's text as an alias; and if evidence contradicts all of these, others as for
    /// `Fuzzy`.
    Alias(Vec<AliasMatch>, Vec<KnownEntity>),
    /// Entities with a similar name or at the same address, without duplicates, perhaps none.
    Fuzzy(Vec<KnownEntity>),
    #[default]
    Nothing,
}

impl Found {
    /// Whether to search for similar names: nothing is known, or evidence contradicts all that is known.
    pub(crate) fn is_open(&self, query: &Query, settings: &ResolverSettings) -> bool {
        match self {
            Self::Nothing | Self::Fuzzy(_) => true,
            Self::Exact(..) => false,
            Self::Alias(called, _) => {
                let place = Address::parse(query.address.as_deref(), query.city.as_deref());
                let confidence = |matched: &AliasMatch| matched.confidence(&place);
                query.has_evidence() && called.iter().all(|called| settings.band(confidence(called)) != Band::Existing)
            }
        }
    }

    /// Whether the name is one of these with one typing error: then nothing else is more likely, whatever else is
    /// similar. A different number is not a typing error, and evidence may contradict the entity.
    pub(crate) fn has_one_error(&self, query: &Query) -> bool {
        let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
        let name = &*query.key.name;
        let near = |entity: &KnownEntity| osa_distance(&entity.name, name) <= 1 && digits(&entity.name) == digits(name);
        !query.has_evidence() && matches!(self, Self::Fuzzy(entities) if entities.iter().any(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EntityType;

    #[test]
    fn a_name_with_one_typing_error_ends_the_search_unless_it_may_be_another_place() {
        let has_one_error = |stored: &str, query: &Query| {
            let entity = KnownEntity { id: Uuid::nil(), name: stored.to_owned(), address: None };
            Found::Fuzzy(vec![entity]).has_one_error(query)
        };
        let query = |name: &str| Query::new(EntityType::Restaurant, name);
        assert!(has_one_error("blue door", &query("blue doer")));
        assert!(!has_one_error("blue door", &query("blau doer")), "two errors are more than one");
        assert!(!has_one_error("13th street deli", &query("12th street deli")), "another number is another street");
        assert!(!has_one_error("deli 7", &query("deli")), "an added number is another deli");
        assert!(
            !has_one_error("blue door", &query("blue doer").address("12 Oak St")),
            "an address asked for may be elsewhere"
        );
        assert!(!Found::Nothing.has_one_error(&query("blue door")));
    }
}
