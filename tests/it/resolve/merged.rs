//! Names of merged entities.

use graphsink::resolve::{Query, Resolver, ResolverSettings, Tier};
use graphsink::{EntityKey, EntityMerge, EntityType};

use super::{Setup, add, existing, is_new, one, place, setup, write};
use crate::support::within;

/// A resolver that remembers the answer, one that does not, one that looks for exact names only, and one without an
/// engine, which is not informed of merges.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_merged_entity_resolve_to_the_survivor() {
    let Setup { database, engine, resolver } = setup(ResolverSettings::default()).await;
    let stays = add(&engine, "franklin barbecue", &["the franklin"], None).await;
    let goes = add(&engine, "franklins bbq place", &["frankie"], None).await;
    let gone = add(&engine, "aaron franklin", &[], None).await;
    let names = ["franklins bbq place", "frankie", "aaron franklin", "franklins bbq plaec"];
    let remembered = resolver.find(&names.map(place)).await.unwrap();
    let before: Vec<_> = remembered.iter().flatten().map(|candidate| candidate.id).collect();
    assert_eq!(before, [goes, goes, gone, goes]);

    let restaurant = |name: &str| EntityKey::new(EntityType::Restaurant, name);
    let merges = vec![EntityMerge::new(gone, goes), EntityMerge::new(restaurant("franklins bbq place"), stays)];
    let outcomes = within(engine.merge(merges)).await;
    assert!(outcomes.iter().all(|outcome| outcome.survivor() == Some(stays)), "{outcomes:?}");

    let config = database.config().build().unwrap();
    let exact = Resolver::attach(&engine, ResolverSettings::default().deepest(Tier::Exact)).await.unwrap();
    let forgetful = Resolver::attach(&engine, ResolverSettings::default().cache_entries(0)).await.unwrap();
    let apart = Resolver::connect(&config, ResolverSettings::default()).await.unwrap();
    for resolver in [&resolver, &forgetful, &apart, &exact] {
        for name in ["franklins bbq place", "aaron franklin"] {
            let found = resolver.find(&[place(name)]).await.unwrap().remove(0).expect("the name is known");
            assert_eq!((found.id, &*found.name, found.tier), (stays, "franklin barbecue", Tier::Exact), "{name}");
            assert_eq!(existing(&one(resolver, place(name)).await), (stays, Tier::Exact));
        }
        let found = resolver.find(&[place("frankie"), place("franklins bbq plaec")]).await.unwrap();
        for found in found.iter().flatten() {
            assert_eq!(found.id, stays, "{found:?}");
        }
    }
    assert_eq!(existing(&one(&resolver, place("frankie")).await), (stays, Tier::Alias));
    let committed = write(&engine, &one(&resolver, place("aaron franklin")).await).await;
    assert_eq!(committed.entities[0].id, stays);
    // The name was that of a restaurant.
    assert!(is_new(&one(&resolver, Query::new(EntityType::DishOrCategory, "aaron franklin")).await));
}
