//! Resolvers that decide at the same moment.

use std::collections::BTreeSet;

use graphsink::resolve::{Resolver, ResolverSettings};
use graphsink::{Outcome, UnitOfWork};

use super::{Setup, is_new, one, place, setup};
use crate::support::{commit, within};

/// Each of two processes resolves the name, finds nothing, and writes.
#[tokio::test]
async fn two_processes_that_create_the_same_name_end_with_one_entity() {
    let Setup { database, engine, resolver } = setup(ResolverSettings::default()).await;
    let other_engine = database.engine().await;
    let other = Resolver::attach(&other_engine, ResolverSettings::default()).await.unwrap();
    for round in 0..20 {
        let query = || {
            place(&format!("{} door {round}", ["blue", "red", "green"][round % 3])).original(format!("Door {round}!"))
        };
        let (mine, theirs) = (one(&resolver, query()).await, one(&other, query()).await);
        assert!(is_new(&mine) == is_new(&theirs), "{mine:?} {theirs:?}");
        let submit = async |engine: &graphsink::Engine, resolution: &graphsink::resolve::Resolution| {
            let mut unit = UnitOfWork::new();
            let handle = resolution.put(&mut unit)?;
            let dish = unit.dish("brisket").handle();
            unit.connection(handle, dish).handle();
            let receipt = engine.submit(unit).await.unwrap();
            match within(receipt).await {
                Outcome::Committed(committed) => committed.entity(handle).map(|row| row.id),
                other => panic!("{other:?}"),
            }
        };
        let (mine, theirs) = futures::join!(submit(&engine, &mine), submit(&other_engine, &theirs));
        assert_eq!(mine, theirs);
    }
    let client = database.client().await;
    let twice = "select count(*) from (select from entities group by type, name having count(*) > 1) as twice";
    assert_eq!(client.query_one(twice, &[]).await.unwrap().get::<_, i64>(0), 0);
    database.assert_no_deadlocks().await;
}

/// The contract for different spellings: they may become two entities at one moment, and from then on one of them is
/// found.
#[tokio::test]
async fn two_spellings_created_at_once_are_two_entities_that_later_lookups_find() {
    let Setup { database, engine, resolver } = setup(ResolverSettings::default()).await;
    let other_engine = database.engine().await;
    let other = Resolver::attach(&other_engine, ResolverSettings::default()).await.unwrap();
    let (mine, theirs) = (one(&resolver, place("blue door")).await, one(&other, place("blue doors")).await);
    let mut ids = BTreeSet::new();
    for (engine, resolution) in [(&engine, &mine), (&other_engine, &theirs)] {
        let mut unit = UnitOfWork::new();
        resolution.put(&mut unit).unwrap();
        ids.insert(commit(engine, unit).await.entities[0].id);
    }
    assert_eq!(ids.len(), 2);
    let found = resolver.find(&[place("blue dor")]).await.unwrap().remove(0).unwrap();
    assert!(ids.contains(&found.id));
}

/// Lookups take no locks: they do not wait for a writer that holds one.
#[tokio::test]
async fn a_resolver_does_not_wait_for_writers() {
    let Setup { database, engine, resolver } = setup(ResolverSettings::default()).await;
    let id = super::add(&engine, "blue door", &["Blue"], None).await;
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.execute("update entities set aliases = '{Azure}' where entity_id = $1", &[&id]).await.unwrap();
    for name in ["blue door", "Blue", "bluee door"] {
        assert_eq!(super::existing(&within(one(&resolver, place(name))).await).0, id, "{name}");
    }
    assert!(is_new(&within(one(&resolver, place("Azure"))).await), "uncommitted names are not seen");
    transaction.rollback().await.unwrap();
}
