//! Merges of entities against a real server.
//!
//! - `canonical` is the reference: every record with its names replaced by the names of surviving entities.
//! - `laws`: units and merges in any order leave the graph of the reference.
//! - `late`: references to merged entities.
//! - `load`: merges while several engines write.
//! - `plans`: the indexes that merges read.
//! - `faults`: cuts at the commit, a killed process, locks of other programs, a shutdown.

mod faults;
mod late;
mod laws;
mod load;
mod plans;

use graphsink::{Engine, EntityMerge, EntityName, EntityType, MergeOutcome};
use graphsink_testing::canonical;
use tokio_postgres::Client;

use crate::model::EntityKey;
use crate::support::within;

fn named(key: &EntityKey) -> EntityName {
    graphsink::EntityKey::new(key.entity_type, key.name.as_str()).into()
}

fn restaurant(name: &str) -> graphsink::EntityKey {
    graphsink::EntityKey::new(EntityType::Restaurant, name)
}

fn dish(name: &str) -> graphsink::EntityKey {
    graphsink::EntityKey::new(EntityType::DishOrCategory, name)
}

async fn merge_one(engine: &Engine, from: impl Into<EntityName>, into: impl Into<EntityName>) -> MergeOutcome {
    within(engine.merge(vec![EntityMerge::new(from, into)])).await.remove(0)
}

/// Redirects lead from merged entities to existing ones in one step, and no other row refers to a merged one.
const DANGLING: &str = "
    select 'entity redirect ' || r.from_id from entity_redirects r
    where exists (select from entities e where e.entity_id = r.from_id)
       or not exists (select from entities e where e.entity_id = r.into_id and e.type = r.type)
       or exists (select from entities e where (e.name, e.type) = (r.name, r.type))
       or not exists (select from entities e where e.entity_id = r.into_id and r.name = any(e.aliases))
    union all
    select 'connection redirect ' || r.from_id from connection_redirects r
    where exists (select from connections c where c.connection_id = r.from_id)
       or not exists (select from connections c where c.connection_id = r.into_id)
    union all
    select 'connection ' || c.connection_id from connections c, unnest(c.categories || c.dish_attributes) as id
    where not exists (select from entities e where e.entity_id = id)
    union all
    select 'restaurant ' || e.entity_id from entities e, unnest(e.restaurant_attributes) as id
    where not exists (select from entities a where a.entity_id = id)";

async fn dangling(client: &Client) -> Vec<String> {
    client.query(DANGLING, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
