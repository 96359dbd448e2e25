//! Merges two entities now and then, and repeats each merge until its outcome is known.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use graphsink::{EntityKey, EntityMerge, EntityType, MergeOutcome, MergeRejection};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::model::{self, Record};
use crate::producer::Load;

/// Few enough merges for many entities to be left at the end of any run.
const MERGES_MAX: u64 = 16;
/// A pause, because rejections of pairs that do not exist yet would follow each other closely.
const PAUSE: Duration = Duration::from_millis(500);

/// Merges entities of the pool until `end`. No other task merges, so the order of merges is known.
pub(crate) async fn merge(load: Arc<Load>, seed: u64, end: Instant) {
    let mut random = StdRng::seed_from_u64(seed ^ 0x6d65_7267);
    while Instant::now() < end && load.ledger.totals().merged < MERGES_MAX {
        if let Some((from, into)) = pair(&load, &mut random) {
            one(&load, &mut random, &from, &into).await;
        }
        sleep(PAUSE.mul_f64(random.random_range(0.5..3.0))).await;
    }
}

/// Two entities of one type that records of the pool name.
fn pair(load: &Load, random: &mut StdRng) -> Option<(model::EntityKey, model::EntityKey)> {
    let mut entity = || {
        let name = match &load.pool[random.random_range(0..load.pool.len())] {
            Record::Entity(entity) => return entity.key.clone(),
            Record::Connection(connection) => &connection.key,
            Record::Mention(mention) => &mention.connection,
        };
        match random.random_range(0..4) {
            0 => model::key(EntityType::Restaurant, &name.restaurant),
            1 => match name.dish_attributes.first() {
                Some(attribute) => model::key(EntityType::DishAttribute, attribute),
                None => model::key(EntityType::DishOrCategory, &name.dish),
            },
            _ => model::key(EntityType::DishOrCategory, &name.dish),
        }
    };
    let (from, into) = (entity(), entity());
    (from.entity_type == into.entity_type && from != into).then_some((from, into))
}

/// One merge, from its first attempt to its outcome.
async fn one(load: &Load, random: &mut StdRng, from: &model::EntityKey, into: &model::EntityKey) {
    let named = |key: &model::EntityKey| EntityKey::new(key.entity_type, key.name.as_str());
    loop {
        let engine = load.engines.pick(random.random_range(0..64));
        match engine.merge(vec![EntityMerge::new(named(from), named(into))]).await.remove(0) {
            // `AlreadyMerged` may also mean that an earlier attempt took place.
            MergeOutcome::Merged { .. } | MergeOutcome::AlreadyMerged { .. } => {
                let mut merged = load.merged.lock().unwrap_or_else(PoisonError::into_inner);
                let is_new = merged.of(from) != merged.of(into);
                merged.fold(from, into);
                load.ledger.count(|totals| totals.merged += u64::from(is_new));
                return;
            }
            // An entity does not exist yet.
            MergeOutcome::Rejected(MergeRejection::Missing(_)) => return,
            MergeOutcome::Rejected(rejection) => {
                load.ledger.violation(format!("{from:?} into {into:?}: {rejection}"));
                return;
            }
            MergeOutcome::Unavailable(_) => {
                load.ledger.count(|totals| totals.merges_unavailable += 1);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
