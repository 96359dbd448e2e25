//! The resolver against a real server: tiers, decisions, remembered answers, races.

mod input;
mod measured;
mod merged;
mod plans;
mod quality;
mod races;
mod remembered;
mod tiers;

use graphsink::resolve::{Decision, Query, Resolution, Resolver, ResolverSettings, Tier};
use graphsink::{Committed, Engine, EntityType, PlaceObservation, UnitOfWork};
use uuid::Uuid;

use crate::support::{Database, as_of, commit};

/// A database with an engine and a resolver on it.
struct Setup {
    database: Database,
    engine: Engine,
    resolver: Resolver,
}

async fn setup(settings: ResolverSettings) -> Setup {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let resolver = Resolver::attach(&engine, settings).await.unwrap();
    Setup { database, engine, resolver }
}

fn place(name: &str) -> Query {
    Query::new(EntityType::Restaurant, name)
}

/// A restaurant with aliases and an address.
async fn add(engine: &Engine, name: &str, aliases: &[&str], address: Option<&str>) -> Uuid {
    let mut unit = UnitOfWork::new();
    let mut builder = unit.restaurant(name).aliases(aliases);
    if let Some(address) = address {
        builder = builder.place(PlaceObservation::new(as_of()).address(address));
    }
    builder.handle();
    commit(engine, unit).await.entities[0].id
}

async fn one(resolver: &Resolver, query: Query) -> Resolution {
    resolver.resolve(&[query]).await.unwrap().remove(0)
}

/// Puts a decision into a unit of its own and commits it.
async fn write(engine: &Engine, resolution: &Resolution) -> Committed {
    let mut unit = UnitOfWork::new();
    resolution.put(&mut unit).expect("the name is decided");
    commit(engine, unit).await
}

/// The id and the tier of an existing entity.
fn existing(resolution: &Resolution) -> (Uuid, Tier) {
    match &resolution.decision {
        Decision::Existing { entity, .. } => (entity.id, entity.tier),
        other => panic!("expected an existing entity, got {other:?}"),
    }
}

fn is_new(resolution: &Resolution) -> bool {
    matches!(resolution.decision, Decision::New { .. })
}
