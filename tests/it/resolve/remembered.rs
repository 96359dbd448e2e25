//! Remembered answers, and their validity.

use std::time::Duration;

use graphsink::resolve::{Resolver, ResolverSettings, Tier};
use graphsink::{Outcome, PlaceObservation, UnitOfWork};

use super::{add, existing, is_new, one, place, setup};
use crate::support::{as_of, outcome};

fn for_ever() -> ResolverSettings {
    ResolverSettings::default().time_to_live(Duration::from_hours(1))
}

#[tokio::test]
async fn own_commits_are_seen_at_once_and_foreign_ones_after_the_time_limit() {
    let setup = setup(for_ever()).await;
    let stranger = setup.database.engine().await;
    assert!(is_new(&one(&setup.resolver, place("blue door")).await));
    // An entity of another engine: the answer is remembered.
    let theirs = add(&stranger, "blue door", &[], None).await;
    assert!(is_new(&one(&setup.resolver, place("blue door")).await), "remembered");
    let impatient = Resolver::attach(&setup.engine, for_ever().time_to_live(Duration::ZERO)).await.unwrap();
    assert_eq!(existing(&one(&impatient, place("blue door")).await), (theirs, Tier::Exact));
    // The own engine's commit of the same key ends the remembered answer.
    let ours = add(&setup.engine, "blue door", &["Blue!"], None).await;
    assert_eq!(ours, theirs);
    assert_eq!(existing(&one(&setup.resolver, place("blue door")).await), (ours, Tier::Exact));
}

#[tokio::test]
async fn every_tier_is_remembered_until_a_commit_touches_it() {
    let setup = setup(for_ever()).await;
    let id = add(&setup.engine, "franklin barbecue", &["Franklin's"], None).await;
    let names = ["franklin barbecue", "Franklin's", "franklin barbeque"];
    let tiers = [Tier::Exact, Tier::Alias, Tier::Fuzzy];
    for (name, tier) in names.into_iter().zip(tiers) {
        assert_eq!(existing(&one(&setup.resolver, place(name)).await), (id, tier));
    }
    // A change that the engine does not see.
    let client = setup.database.client().await;
    client.execute("update entities set name = 'gone', aliases = '{}'", &[]).await.unwrap();
    for (name, tier) in names.into_iter().zip(tiers) {
        assert_eq!(existing(&one(&setup.resolver, place(name)).await), (id, tier), "{name} is remembered");
    }
    // A commit of an unrelated name invalidates fuzzy answers only.
    add(&setup.engine, "red lantern", &[], None).await;
    assert_eq!(existing(&one(&setup.resolver, place(names[0])).await).1, Tier::Exact);
    assert_eq!(existing(&one(&setup.resolver, place(names[1])).await).1, Tier::Alias);
    assert!(is_new(&one(&setup.resolver, place(names[2])).await));
    // Answers that the commit touched are looked up again.
    let another = add(&setup.engine, "another", &["Franklin's"], None).await;
    assert_eq!(existing(&one(&setup.resolver, place(names[1])).await), (another, Tier::Alias));
}

#[tokio::test]
async fn a_unit_that_changes_nothing_invalidates_no_answer() {
    let setup = setup(for_ever()).await;
    let id = add(&setup.engine, "blue door", &["Blue"], None).await;
    assert_eq!(existing(&one(&setup.resolver, place("blue door")).await).0, id);
    let client = setup.database.client().await;
    add(&setup.engine, "blue door", &["Blue"], None).await;
    client.execute("update entities set entity_id = gen_random_uuid()", &[]).await.unwrap();
    assert_eq!(existing(&one(&setup.resolver, place("blue door")).await).0, id, "still remembered");
}

/// The ids of a rejected unit exist in its transaction only.
#[tokio::test]
async fn the_resolver_never_returns_an_id_of_a_rejected_unit() {
    let setup = setup(for_ever()).await;
    let mut holder = UnitOfWork::new();
    let observed = || PlaceObservation::new(as_of()).google_place_id("taken");
    holder.restaurant("holder").place(observed()).handle();
    assert!(matches!(outcome(&setup.engine, holder).await, Outcome::Committed(_)));
    let query = || place("blue door");
    assert!(is_new(&one(&setup.resolver, query()).await));
    let mut unit = UnitOfWork::new();
    let resolution = one(&setup.resolver, query()).await;
    resolution.put(&mut unit).unwrap();
    unit.restaurant("claimant").place(observed()).handle();
    assert!(matches!(outcome(&setup.engine, unit).await, Outcome::Rejected(_)));
    for name in ["blue door", "claimant"] {
        assert!(is_new(&one(&setup.resolver, place(name)).await), "{name}");
    }
    let client = setup.database.client().await;
    let entities: i64 = client.query_one("select count(*) from entities", &[]).await.unwrap().get(0);
    assert_eq!(entities, 1);
}

/// A dead session in the pool costs only a new one.
#[tokio::test]
async fn lost_sessions_of_the_resolver_are_replaced() {
    let setup = setup(ResolverSettings::default().connections(1).cache_entries(0)).await;
    let id = add(&setup.engine, "blue door", &[], None).await;
    let client = setup.database.client().await;
    for _ in 0..3 {
        assert_eq!(existing(&one(&setup.resolver, place("blue door")).await).0, id);
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid()";
        client.execute(kill, &[]).await.unwrap();
    }
    assert_eq!(existing(&one(&setup.resolver, place("blue door")).await).0, id);
}
