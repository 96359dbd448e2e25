//! A model of merges: the entity that each name stands for, and all records with each name replaced by that entity's
//! name.
//!
//! All merge rules are unions or "the greatest wins", so the order of a record and a merge makes no difference: the
//! graph is that of the replaced records.

use std::collections::{BTreeMap, BTreeSet};

use graphsink::{EntityType, MergeOutcome, MergeRejection};

use crate::model::{self, ConnectionKey, EntityKey, EntitySpec, Graph, Record, Time, key};

/// The expected outcome of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Merged,
    AlreadyMerged,
    Missing,
    DifferentTypes,
    Itself,
}

/// All records, and the merges so far.
#[derive(Debug, Default)]
pub struct Canonical {
    records: Vec<Record>,
    there: BTreeSet<EntityKey>,
    into: BTreeMap<EntityKey, EntityKey>,
}

impl Canonical {
    pub fn say<'a>(&mut self, records: impl IntoIterator<Item = &'a Record> + Clone) {
        self.there.extend(model::graph(records.clone(), Time::UNIX_EPOCH).entities.into_keys());
        self.records.extend(records.into_iter().cloned());
    }

    /// Applies a merge.
    pub fn merge(&mut self, from: &EntityKey, into: &EntityKey) -> Expected {
        if !self.there.contains(from) || !self.there.contains(into) {
            return Expected::Missing;
        }
        if from.entity_type != into.entity_type {
            return Expected::DifferentTypes;
        }
        let (root, target) = (self.of(from), self.of(into));
        if root == target {
            return if from == into && root == *from { Expected::Itself } else { Expected::AlreadyMerged };
        }
        self.fold(from, into);
        Expected::Merged
    }

    /// Notes that one entity became part of another, unless it already was.
    pub fn fold(&mut self, from: &EntityKey, into: &EntityKey) {
        let (root, target) = (self.of(from), self.of(into));
        if root == target {
            return;
        }
        for other in self.into.values_mut().filter(|other| **other == root) {
            other.clone_from(&target);
        }
        self.into.insert(root.clone(), target);
        let name = root.name.clone();
        let alias = EntitySpec { key: root, by_id: false, aliases: vec![name], attributes: Vec::new(), place: None };
        self.records.push(Record::Entity(alias));
    }

    /// The entity that a name stands for by now.
    pub fn of(&self, key: &EntityKey) -> EntityKey {
        self.into.get(key).unwrap_or(key).clone()
    }

    /// All entities that were merged into another.
    pub fn merged(&self) -> impl Iterator<Item = (&EntityKey, &EntityKey)> {
        self.into.iter()
    }

    fn name(&self, entity_type: EntityType, name: &str) -> String {
        self.of(&key(entity_type, name)).name
    }

    fn connection(&self, connection: &ConnectionKey) -> ConnectionKey {
        let attributes = connection.dish_attributes.iter();
        ConnectionKey {
            restaurant: self.name(EntityType::Restaurant, &connection.restaurant),
            dish: self.name(EntityType::DishOrCategory, &connection.dish),
            dish_attributes: attributes.map(|name| self.name(EntityType::DishAttribute, name)).collect(),
        }
    }

    fn record(&self, record: &Record) -> Record {
        let names = |entity_type: EntityType, names: &[String]| {
            names.iter().map(|name| self.name(entity_type, name)).collect::<Vec<_>>()
        };
        match record.clone() {
            Record::Entity(mut entity) => {
                entity.attributes = names(EntityType::RestaurantAttribute, &entity.attributes);
                entity.key = self.of(&entity.key);
                Record::Entity(entity)
            }
            Record::Connection(mut connection) => {
                connection.key = self.connection(&connection.key);
                connection.categories = names(EntityType::DishOrCategory, &connection.categories);
                Record::Connection(connection)
            }
            Record::Mention(mut mention) => {
                mention.connection = self.connection(&mention.connection);
                Record::Mention(mention)
            }
        }
    }

    pub fn graph(&self, as_of: Time) -> Graph {
        self.graph_with([], as_of)
    }

    /// The graph with these records added.
    pub fn graph_with<'a>(&self, others: impl IntoIterator<Item = &'a Record>, as_of: Time) -> Graph {
        let others = others.into_iter().map(|record| self.record(record));
        let records: Vec<Record> = self.records.iter().map(|record| self.record(record)).chain(others).collect();
        model::graph(&records, as_of)
    }
}

/// Whether an outcome is the expected one.
pub fn fits(expected: Expected, outcome: &MergeOutcome) -> bool {
    match outcome {
        MergeOutcome::Merged { .. } => expected == Expected::Merged,
        MergeOutcome::AlreadyMerged { .. } => expected == Expected::AlreadyMerged,
        MergeOutcome::Rejected(MergeRejection::Missing(_)) => expected == Expected::Missing,
        MergeOutcome::Rejected(MergeRejection::DifferentTypes { .. }) => expected == Expected::DifferentTypes,
        MergeOutcome::Rejected(MergeRejection::Itself(_)) => expected == Expected::Itself,
        _ => false,
    }
}
