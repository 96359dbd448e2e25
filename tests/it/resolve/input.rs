//! Names of a whole input, decided before it is written.

use graphsink::resolve::{Names, ResolvedNames, ResolverSettings, Tier};
use graphsink::{InvalidUnit, PlaceObservation, UnitOfWork};

use super::{Setup, add, setup};
use crate::support::{as_of, commit};

/// Restaurants with original texts.
fn units(names: &[(&str, &str)]) -> Vec<UnitOfWork> {
    let unit = |(name, text): &(&str, &str)| {
        let mut unit = UnitOfWork::new();
        unit.restaurant(*name).alias(*text).handle();
        unit
    };
    names.iter().map(unit).collect()
}

async fn resolve(setup: &Setup, units: &[UnitOfWork]) -> ResolvedNames {
    let mut names = Names::new(setup.resolver.clone());
    for unit in units {
        names.add(unit);
    }
    names.resolve().await.unwrap()
}

async fn write(setup: &Setup, names: &ResolvedNames, units: &[UnitOfWork]) {
    for unit in units {
        let mut unit = unit.clone();
        names.apply(&mut unit);
        commit(&setup.engine, unit).await;
    }
}

/// Names with their aliases.
async fn stored(setup: &Setup) -> Vec<(String, Vec<String>)> {
    let client = setup.database.client().await;
    let rows = client.query("select name, aliases from entities order by 1", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_name_that_matches_an_entity_becomes_its_alias() {
    let setup = setup(ResolverSettings::default()).await;
    add(&setup.engine, "franklin barbecue", &["Franklin's"], None).await;
    let units = units(&[
        ("franklins", "Franklin's"),
        ("franklin barbeque", "franklin barbecue"),
        ("blue door", "The Blue Door!"),
        ("blue doer", "The Blue Doer"),
    ]);
    let names = resolve(&setup, &units).await;
    let counts = names.counts();
    assert_eq!((counts.alias, counts.fuzzy, counts.same_as_new, counts.new, counts.flagged), (1, 1, 1, 1, 0));
    write(&setup, &names, &units).await;
    let alias = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let expected = [
        ("blue doer".to_owned(), alias(&["The Blue Doer", "The Blue Door!", "blue door"])),
        ("franklin barbecue".to_owned(), alias(&["Franklin's", "franklin barbeque", "franklins"])),
    ];
    assert_eq!(stored(&setup).await, expected);
    let again = resolve(&setup, &units).await.counts();
    assert_eq!((again.exact, again.alias), (1, 3), "{again:?}");
}

#[tokio::test]
async fn a_name_that_would_be_an_alias_of_two_stays_an_entity() {
    let setup = setup(ResolverSettings::default().deepest(Tier::Alias)).await;
    add(&setup.engine, "franklin barbecue", &["Franklin's"], None).await;
    add(&setup.engine, "franklin diner", &[], None).await;
    // By alias the first one is the barbecue; the second one makes it an alias of the diner.
    let units = units(&[("Franklin's", "FRANKLIN"), ("franklin diner", "Franklin's")]);
    let names = resolve(&setup, &units).await;
    let [flagged] = names.flagged() else { panic!("{:?}", names.flagged()) };
    assert_eq!((&*flagged.key.name, &*flagged.texts), ("Franklin's", &["FRANKLIN".into()][..]));
    let candidates: Vec<_> = flagged.candidates.iter().map(|candidate| (&*candidate.name, candidate.tier)).collect();
    assert_eq!(candidates, [("franklin barbecue", Some(Tier::Alias)), ("franklin diner", None)]);
    write(&setup, &names, &units).await;
    let before = stored(&setup).await;
    assert_eq!(before.len(), 3, "{before:?}");
    let again = resolve(&setup, &units).await;
    write(&setup, &again, &units).await;
    assert_eq!((again.counts().exact, stored(&setup).await), (2, before));
}

#[tokio::test]
async fn the_name_weighs_more_than_the_original_text() {
    let setup = setup(ResolverSettings::default().deepest(Tier::Alias)).await;
    // More entities share the text than are looked at.
    for number in 0..8 {
        add(&setup.engine, &format!("place {number}"), &["The Place"], None).await;
    }
    add(&setup.engine, "the one", &["place nine"], None).await;
    let names = resolve(&setup, &units(&[("place nine", "The Place"), ("unknown", "The Place")])).await;
    let counts = names.counts();
    assert_eq!((counts.alias, counts.flagged), (1, 1), "{counts:?}");
}

#[tokio::test]
async fn names_that_the_input_gives_a_known_entity_apply_to_the_whole_input() {
    let setup = setup(ResolverSettings::default().deepest(Tier::Alias)).await;
    add(&setup.engine, "franklin barbecue", &[], None).await;
    add(&setup.engine, "blue door", &[], None).await;
    let all = [
        ("franklin barbecue", "Aaron's"),
        ("Aaron's", "AARON"),
        ("blue door", "B"),
        ("franklin barbecue", "B"),
        ("B", "b"),
    ];
    let mut units = units(&all);
    for _ in 0..units.len() {
        units.rotate_left(1);
        let names = resolve(&setup, &units).await;
        let counts = names.counts();
        assert_eq!((counts.exact, counts.alias, counts.flagged, counts.new), (2, 1, 1, 0), "{counts:?}");
        assert_eq!(&*names.flagged()[0].key.name, "B");
    }
    let names = resolve(&setup, &units).await;
    write(&setup, &names, &units).await;
    let again = resolve(&setup, &units).await.counts();
    assert_eq!((again.exact, again.alias, again.new), (3, 1, 0), "{again:?}");
    assert_eq!(stored(&setup).await.len(), 3);
}

#[tokio::test]
async fn addresses_are_evidence_except_those_of_bad_units() {
    let setup = setup(ResolverSettings::default()).await;
    add(&setup.engine, "virgils", &[], Some("12 Oak St")).await;
    let mut unit = UnitOfWork::new();
    unit.restaurant("virgils real smokehouse").place(PlaceObservation::new(as_of()).address("12 Oak Street")).handle();
    let names = resolve(&setup, &[unit]).await;
    assert_eq!(names.counts().fuzzy, 1, "{:?}", names.counts());
    let mut bad = UnitOfWork::new();
    bad.restaurant("virgil").alias(" ").handle();
    assert!(matches!(bad.validate(10), Err(InvalidUnit::BlankAlias { .. })));
    assert_eq!(resolve(&setup, &[bad]).await.counts(), ResolvedNames::default().counts());
}
