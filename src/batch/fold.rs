//! Folds, from merges of entities to rows: the target of each folded entity, and the resulting connections.
//!
//! The merge rules are those of `record`. The row of a folded entity is deleted; each connection that named it names
//! the other entity from then on, and connections that thereby get the same key become one connection.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{EntityWrite, StoredEntity};
use crate::hash::HashMap;
use crate::merge::{EntityMerge, MergeRejection};
use crate::record::{ConnectionFacts, ConnectionKey, EntityFacts, EntityName, EntityType, Merge, SortedSet};

/// The plan for one merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Planned {
    /// This entity is folded into another: see [`Folds::target`].
    Fold(Uuid),
    /// Both names already mean this entity.
    Done(Uuid),
    Rejected(MergeRejection),
}

/// The folded entities and their targets.
///
/// Invariant: the target of a fold is not folded itself. So there are no chains and no cycles.
#[derive(Debug, Default)]
pub(crate) struct Folds {
    into: HashMap<Uuid, Uuid>,
    types: HashMap<Uuid, EntityType>,
}

/// The part of a connection that a fold needs.
#[derive(Debug, Clone)]
pub(crate) struct KeyedConnection {
    pub(crate) id: Uuid,
    pub(crate) key: ConnectionKey<Uuid>,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) mentions: i32,
    /// See [`StoredConnection`](super::StoredConnection).
    pub(crate) history_indexed: bool,
}

/// The final state of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoldedConnection {
    pub(crate) id: Uuid,
    pub(crate) key: ConnectionKey<Uuid>,
    pub(crate) facts: ConnectionFacts<Uuid>,
    /// The current flag.
    pub(crate) history_indexed: bool,
    /// Connections that become part of it.
    pub(crate) others: Vec<Uuid>,
}

impl Folds {
    /// Plans merges as if they were carried out one after the other. `stored` returns the entity of a name: an entity
    /// with another name if the named one was folded earlier.
    pub(crate) fn plan<'a>(
        merges: &[EntityMerge],
        stored: impl Fn(&EntityName) -> Option<&'a StoredEntity>,
    ) -> (Self, Vec<Planned>) {
        let mut folds = Self::default();
        let planned = merges.iter().map(|merge| folds.add(merge, stored(&merge.from), stored(&merge.into))).collect();
        (folds, planned)
    }

    fn add(&mut self, merge: &EntityMerge, from: Option<&StoredEntity>, into: Option<&StoredEntity>) -> Planned {
        let (from, into) = match (from, into) {
            (Some(from), Some(into)) => (from, into),
            (None, _) => return Planned::Rejected(MergeRejection::Missing(merge.from.clone())),
            (_, None) => return Planned::Rejected(MergeRejection::Missing(merge.into.clone())),
        };
        let (from_type, into_type) = (from.key.entity_type, into.key.entity_type);
        if from_type != into_type {
            return Planned::Rejected(MergeRejection::DifferentTypes { from: from_type, into: into_type });
        }
        let is_whole = !self.into.contains_key(&from.id);
        if from.id == into.id && is_whole && is_own_name(&merge.from, from) && is_own_name(&merge.into, into) {
            return Planned::Rejected(MergeRejection::Itself(from.id));
        }
        let (from, into) = (self.target(from.id), self.target(into.id));
        if from == into {
            return Planned::Done(into);
        }
        for target in self.into.values_mut().filter(|target| **target == from) {
            *target = into;
        }
        self.into.insert(from, into);
        self.types.insert(from, from_type);
        Planned::Fold(from)
    }

    /// The target of an entity: itself, unless it is folded.
    pub(crate) fn target(&self, id: Uuid) -> Uuid {
        self.into.get(&id).copied().unwrap_or(id)
    }

    /// Each folded entity with its target, in order.
    pub(crate) fn pairs(&self) -> Vec<(Uuid, Uuid)> {
        let mut pairs: Vec<_> = self.into.iter().map(|(from, into)| (*from, *into)).collect();
        pairs.sort_unstable();
        pairs
    }

    /// The folded entities of one type, in order.
    pub(crate) fn of_type(&self, entity_type: EntityType) -> Vec<Uuid> {
        let of_type = self.types.iter().filter(|(_, own)| **own == entity_type);
        let mut ids: Vec<_> = of_type.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn set(&self, ids: &SortedSet<Uuid>) -> SortedSet<Uuid> {
        ids.iter().map(|id| self.target(*id)).collect()
    }

    /// The new key of a connection.
    pub(crate) fn key(&self, key: &ConnectionKey<Uuid>) -> ConnectionKey<Uuid> {
        ConnectionKey {
            restaurant: self.target(key.restaurant),
            dish: self.target(key.dish),
            dish_attributes: self.set(&key.dish_attributes),
        }
    }

    /// The rows that change among these entities: targets of folds, and entities with folded attributes.
    pub(crate) fn entities(&self, stored: Vec<StoredEntity>) -> Vec<EntityWrite> {
        let mut wanted: HashMap<Uuid, EntityFacts<Uuid>> = HashMap::default();
        for entity in &stored {
            let target = self.target(entity.id);
            let mut facts = entity.facts.clone().unwrap_or_default();
            facts.restaurant_attributes = self.set(&facts.restaurant_attributes);
            if target != entity.id {
                facts.merge_aliases([std::sync::Arc::clone(&entity.key.name)]);
            }
            wanted.entry(target).or_default().merge(facts);
        }
        let changed = stored.into_iter().filter_map(|entity| {
            if self.target(entity.id) != entity.id {
                return None;
            }
            let mut facts = wanted.remove(&entity.id)?;
            facts.aliases.remove::<str>(&entity.key.name);
            (entity.facts.as_ref() != Some(&facts)).then(|| EntityWrite::of_stored(entity.id, entity.key, facts))
        });
        changed.collect()
    }

    /// The final connections, in the order of their new keys. Of connections that become one, the one with the most
    /// mentions stays, so that the fewest mentions move.
    pub(crate) fn connections(&self, stored: Vec<KeyedConnection>) -> Vec<FoldedConnection> {
        let mut by_key: BTreeMap<ConnectionKey<Uuid>, Vec<KeyedConnection>> = BTreeMap::new();
        for connection in stored {
            by_key.entry(self.key(&connection.key)).or_default().push(connection);
        }
        let folded = by_key.into_iter().filter_map(|(key, mut group)| {
            group.sort_unstable_by_key(|connection| (std::cmp::Reverse(connection.mentions), connection.id));
            let mut facts = ConnectionFacts::default();
            for connection in &group {
                let own = &connection.facts;
                facts.merge(ConnectionFacts { categories: self.set(&own.categories), is_menu_item: own.is_menu_item });
            }
            let stays = &group[0];
            let others: Vec<Uuid> = group[1..].iter().map(|other| other.id).collect();
            let changes = !others.is_empty() || stays.key != key || stays.facts != facts;
            let (id, history_indexed) = (stays.id, stays.history_indexed);
            changes.then_some(FoldedConnection { id, key, facts, history_indexed, others })
        });
        folded.collect()
    }
}

/// Whether an entity was found under its own name, and not by a redirect from another.
fn is_own_name(name: &EntityName, entity: &StoredEntity) -> bool {
    match name {
        EntityName::Key(key) => *key == entity.key,
        EntityName::Id(id) => *id == entity.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EntityKey;

    fn id(number: u8) -> Uuid {
        Uuid::from_u128(number.into())
    }

    fn entity(number: u8, entity_type: EntityType) -> StoredEntity {
        let facts = Some(EntityFacts::default());
        StoredEntity { id: id(number), key: EntityKey::new(entity_type, number.to_string()), facts }
    }

    fn set<T: Ord>(members: impl IntoIterator<Item = T>) -> SortedSet<T> {
        members.into_iter().collect()
    }

    /// Plans merges of restaurants (1 to 9) and dishes (11 to 19). 4 was folded into 5 earlier.
    fn plan(merges: &[(u8, u8)]) -> (Folds, Vec<Planned>) {
        let restaurants = (1..4).chain(5..10).map(|number| (number, entity(number, EntityType::Restaurant)));
        let dishes = (11..20).map(|number| (number, entity(number, EntityType::DishOrCategory)));
        let mut stored: BTreeMap<Uuid, StoredEntity> =
            restaurants.chain(dishes).map(|(number, entity)| (id(number), entity)).collect();
        stored.insert(id(4), entity(5, EntityType::Restaurant));
        let merges: Vec<_> = merges.iter().map(|(from, into)| EntityMerge::new(id(*from), id(*into))).collect();
        Folds::plan(&merges, |name| match name {
            EntityName::Id(id) => stored.get(id),
            EntityName::Key(_) => None,
        })
    }

    #[test]
    fn chains_of_merges_lead_to_the_last_survivor_and_circles_are_already_done() {
        use Planned::{Done, Fold};
        let (folds, planned) = plan(&[(1, 2), (3, 1), (2, 6), (6, 1), (1, 6)]);
        assert_eq!(planned, [Fold(id(1)), Fold(id(3)), Fold(id(2)), Done(id(6)), Done(id(6))]);
        assert_eq!(folds.pairs(), [1, 2, 3].map(|from| (id(from), id(6))));
        let (folds, planned) = plan(&[(4, 1), (4, 5), (1, 5), (5, 5)]);
        assert_eq!(planned, [Fold(id(5)), Done(id(1)), Done(id(1)), Done(id(1))], "4 is 5");
        assert_eq!(folds.pairs(), [(id(5), id(1))]);
    }

    #[test]
    fn merges_with_itself_a_missing_entity_or_another_type_are_rejected() {
        let (folds, planned) = plan(&[(1, 1), (1, 99), (99, 1), (1, 11), (4, 5), (12, 11)]);
        let rejected = |rejection| Planned::Rejected(rejection);
        assert_eq!(
            planned,
            [
                rejected(MergeRejection::Itself(id(1))),
                rejected(MergeRejection::Missing(id(99).into())),
                rejected(MergeRejection::Missing(id(99).into())),
                rejected(MergeRejection::DifferentTypes {
                    from: EntityType::Restaurant,
                    into: EntityType::DishOrCategory
                }),
                Planned::Done(id(5)),
                Planned::Fold(id(12)),
            ]
        );
        assert!(folds.of_type(EntityType::Restaurant).is_empty());
        assert_eq!(folds.of_type(EntityType::DishOrCategory), [id(12)]);
    }

    #[test]
    fn the_survivor_has_the_facts_of_both_and_attributes_lead_to_it() {
        let (folds, _) = plan(&[(1, 2), (11, 12)]);
        let with = |number: u8, aliases: &[&str], attributes: &[u8]| {
            let aliases = aliases.iter().map(|alias| std::sync::Arc::from(*alias)).collect();
            let restaurant_attributes = attributes.iter().map(|attribute| id(*attribute)).collect();
            let facts = EntityFacts { aliases, restaurant_attributes, place: None };
            StoredEntity { facts: Some(facts), ..entity(number, EntityType::Restaurant) }
        };
        let stored =
            vec![with(1, &["2", "x"], &[21]), with(2, &["y"], &[22]), with(3, &[], &[22]), with(6, &[], &[11])];
        let written = folds.entities(stored);
        let written: Vec<_> = written
            .iter()
            .map(|write| {
                let aliases: Vec<&str> = write.facts.aliases.iter().map(|alias| &**alias).collect();
                (write.id, aliases.join(" "), write.facts.restaurant_attributes.as_slice().to_vec())
            })
            .collect();
        let two = (id(2), "1 x y".to_owned(), vec![id(21), id(22)]);
        assert_eq!(
            written,
            [two, (id(6), String::new(), vec![id(12)])],
            "a name is no alias of its own, 3 is unchanged"
        );
    }

    #[test]
    fn connections_that_get_the_same_key_are_joined() {
        let (folds, _) = plan(&[(1, 2), (11, 12)]);
        let connection = |number: u8, (restaurant, dish): (u8, u8), attributes: &[u8], categories: &[u8], mentions| {
            let dish_attributes = attributes.iter().map(|attribute| id(*attribute)).collect();
            let key = ConnectionKey { restaurant: id(restaurant), dish: id(dish), dish_attributes };
            let categories = categories.iter().map(|category| id(*category)).collect();
            let facts = ConnectionFacts { categories, is_menu_item: number == 101 };
            KeyedConnection { id: id(number), key, facts, mentions, history_indexed: number == 102 }
        };
        let folded = folds.connections(vec![
            connection(101, (1, 11), &[], &[11, 13], 3),
            connection(102, (2, 11), &[], &[12], 7),
            connection(103, (2, 12), &[], &[], 7),
            connection(104, (2, 12), &[31], &[13], 1),
            connection(105, (1, 13), &[], &[13], 1),
            connection(106, (3, 13), &[], &[11], 1),
        ]);
        let key = |restaurant, dish| ConnectionKey {
            restaurant: id(restaurant),
            dish: id(dish),
            dish_attributes: SortedSet::new(),
        };
        let facts = |categories: &[u8], is_menu_item| ConnectionFacts {
            categories: set(categories.iter().map(|category| id(*category))),
            is_menu_item,
        };
        assert_eq!(
            folded,
            [
                FoldedConnection {
                    id: id(102),
                    key: key(2, 12),
                    facts: facts(&[12, 13], true),
                    history_indexed: true,
                    others: vec![id(103), id(101)]
                },
                FoldedConnection {
                    id: id(105),
                    key: key(2, 13),
                    facts: facts(&[13], false),
                    history_indexed: false,
                    others: vec![]
                },
                FoldedConnection {
                    id: id(106),
                    key: key(3, 13),
                    facts: facts(&[12], false),
                    history_indexed: false,
                    others: vec![]
                },
            ],
            "104 is unchanged"
        );
    }
}
