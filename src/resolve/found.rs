//! What the database has for a query.

use strsim::osa_distance;
use uuid::Uuid;

use super::place::Address;
use super::query::Query;
use super::score::{ALIAS_CONFIDENCE, TEXT_CONFIDENCE, confidence};
use super::settings::{Band, ResolverSettings};

/// An entity as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct KnownEntity {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) address: Option<String>,
}

/// An entity that an alias led to.
#[derive(Debug)]
pub(crate) struct AliasMatch {
    pub(crate) entity: KnownEntity,
    /// Whether it is known to be called what the author wrote.
    pub(crate) known: bool,
    /// Whether the name itself is an alias, and not the author's text alone.
    pub(crate) by_name: bool,
}

impl AliasMatch {
    /// How likely it is the one that is at this place.
    pub(crate) fn confidence(&self, place: &Address) -> f64 {
        let alone = if self.by_name { ALIAS_CONFIDENCE } else { TEXT_CONFIDENCE };
        confidence(alone, place, &Address::parse(self.entity.address.as_deref(), None))
    }
}

/// What the database has for one query.
#[derive(Debug, Default)]
pub(crate) enum Found {
    /// The entity of that name, its own name if a merge gave it another, and whether it is known to be called what the
    /// author wrote.
    Exact(Uuid, Option<String>, bool),
    /// Entities with the name or the author's text as an alias; and where evidence speaks against all of these, others
    /// as for `Fuzzy`.
    Alias(Vec<AliasMatch>, Vec<KnownEntity>),
    /// Entities with a similar name or at the same address, each once, perhaps none.
    Fuzzy(Vec<KnownEntity>),
    #[default]
    Nothing,
}

impl Found {
    /// Whether similar names are worth a look: nothing is known, or evidence says that it is none of those.
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

    /// Whether the name is one of these with one typing error: nothing else is likelier, whatever else is similar. A
    /// number is not mistyped but another one; and evidence may say that it is not that entity.
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
    fn one_error_ends_the_search_unless_it_may_be_another_place() {
        let has_one_error = |stored: &str, query: &Query| {
            let entity = KnownEntity { id: Uuid::nil(), name: stored.to_owned(), address: None };
            Found::Fuzzy(vec![entity]).has_one_error(query)
        };
        let query = |name: &str| Query::new(EntityType::Restaurant, name);
        assert!(has_one_error("blue door", &query("blue doer")));
        assert!(!has_one_error("blue door", &query("blau doer")), "that is more than one");
        assert!(!has_one_error("13th street deli", &query("12th street deli")), "that is another street");
        assert!(!has_one_error("deli 7", &query("deli")), "that is another deli");
        assert!(!has_one_error("blue door", &query("blue doer").address("12 Oak St")), "it may be elsewhere");
        assert!(!Found::Nothing.has_one_error(&query("blue door")));
    }
}
