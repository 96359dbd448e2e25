//! The finds of each tier, and the decisions.

use std::collections::BTreeSet;

use graphsink::resolve::{Decision, GreyZone, Query, ResolveError, Resolver, ResolverSettings, Tier};
use graphsink::{EntityType, Migrations, UnitOfWork};

use super::{add, existing, is_new, one, place, setup, write};
use crate::support::{Database, commit};

#[tokio::test]
async fn each_tier_finds_names_that_the_one_before_does_not() {
    let setup = setup(ResolverSettings::default()).await;
    let franklin = add(&setup.engine, "franklin barbecue", &["Franklin's", "Franklin BBQ"], None).await;
    add(&setup.engine, "red lantern noodle house", &[], None).await;
    let resolver = &setup.resolver;
    for (query, tier) in [
        (place("franklin barbecue"), Tier::Exact),
        (place("Franklin's"), Tier::Alias),
        (place("unheard of").original("Franklin BBQ"), Tier::Alias),
        (place("franklin barbeque"), Tier::Fuzzy),
        (place("frnklin barbecue"), Tier::Fuzzy),
        (place("the Franklin Barbecue!"), Tier::Fuzzy),
    ] {
        assert_eq!(existing(&one(resolver, query.clone()).await), (franklin, tier), "{query:?}");
    }
    assert!(is_new(&one(resolver, place("blue door")).await));
    setup.database.assert_no_deadlocks().await;
}

#[tokio::test]
async fn entities_of_another_type_never_match() {
    let setup = setup(ResolverSettings::default()).await;
    let mut unit = UnitOfWork::new();
    unit.dish_attribute("italian").alias("italiano").handle();
    unit.restaurant_attribute("patio seating").alias("terrace").handle();
    unit.dish("franklin barbecue").handle();
    commit(&setup.engine, unit).await;
    let (of_dishes, of_restaurants) = (EntityType::DishAttribute, EntityType::RestaurantAttribute);
    for (own, other, names) in [
        (of_dishes, of_restaurants, ["italian", "italiano", "itallian"]),
        (of_restaurants, of_dishes, ["patio seating", "terrace", "patio seeting"]),
    ] {
        for name in names {
            assert!(!is_new(&one(&setup.resolver, Query::new(own, name)).await), "{name}");
            assert!(is_new(&one(&setup.resolver, Query::new(other, name)).await), "{name}");
            // Nor within a batch.
            let both = setup.resolver.resolve(&[Query::new(own, name), Query::new(other, name)]).await.unwrap();
            assert_eq!(both.iter().map(is_new).collect::<Vec<_>>(), [false, true], "{name}");
            let found = setup.resolver.find(&[Query::new(own, name), Query::new(other, name)]).await.unwrap();
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false], "{name}");
        }
    }
    assert!(is_new(&one(&setup.resolver, place("franklin barbeque")).await));
}

#[tokio::test]
async fn the_original_text_of_a_match_becomes_an_alias_once() {
    let setup = setup(ResolverSettings::default()).await;
    let franklin = add(&setup.engine, "franklin barbecue", &[], None).await;
    let query = place("franklin barbeque").original("Franklin Barbeque!");
    let resolution = one(&setup.resolver, query.clone()).await;
    assert_eq!(existing(&resolution), (franklin, Tier::Fuzzy));
    assert_eq!(write(&setup.engine, &resolution).await.entities[0].id, franklin);
    let client = setup.database.client().await;
    let aliases =
        async || -> Vec<String> { client.query_one("select aliases from entities", &[]).await.unwrap().get(0) };
    assert_eq!(aliases().await, ["Franklin Barbeque!"]);
    let resolution = one(&setup.resolver, query).await;
    assert_eq!(existing(&resolution), (franklin, Tier::Alias));
    assert!(matches!(resolution.decision, Decision::Existing { alias: None, .. }));
    // The exact name in another spelling.
    let resolution = one(&setup.resolver, place("franklin barbecue").original("FRANKLIN")).await;
    assert!(matches!(&resolution.decision, Decision::Existing { alias: Some(alias), .. } if &**alias == "FRANKLIN"));
}

#[tokio::test]
async fn between_the_thresholds_the_policy_of_the_caller_decides() {
    let query = || place("blue door");
    for (policy, expected) in [(GreyZone::Accept, "existing"), (GreyZone::Create, "new"), (GreyZone::Flag, "ambiguous")]
    {
        let settings = ResolverSettings::default().grey_zone(policy).accept_above(0.999).new_below(0.3);
        let setup = setup(settings).await;
        let id = add(&setup.engine, "blue door tavern", &[], None).await;
        let resolution = one(&setup.resolver, query()).await;
        let mut unit = UnitOfWork::new();
        let put = resolution.put(&mut unit);
        match &resolution.decision {
            Decision::Existing { entity, .. } => assert_eq!((entity.id, expected), (id, "existing")),
            Decision::New { key, alias } => assert_eq!((&*key.name, alias, expected), ("blue door", &None, "new")),
            Decision::Ambiguous { candidates } => {
                assert_eq!((candidates[0].id, candidates.len(), expected), (id, 1, "ambiguous"));
                assert!(put.is_none() && unit.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn an_alias_of_several_entities_matches_only_with_evidence() {
    let setup = setup(ResolverSettings::default().with_candidates(true)).await;
    let north = add(&setup.engine, "palm north", &["The Palm"], Some("12 Oak St, Springfield")).await;
    let south = add(&setup.engine, "palm south", &["The Palm"], Some("90 Elm St, Shelbyville")).await;
    let resolution = one(&setup.resolver, place("The Palm")).await;
    let Decision::Ambiguous { candidates } = &resolution.decision else { panic!("{resolution:?}") };
    assert_eq!(candidates.iter().map(|candidate| candidate.id).collect::<BTreeSet<_>>(), [north, south].into());
    let resolution = one(&setup.resolver, place("The Palm").city("Shelbyville")).await;
    assert_eq!(existing(&resolution), (south, Tier::Alias));
    assert_eq!(resolution.candidates.len(), 2, "candidates are ranked, since they were asked for");
    assert!(resolution.candidates[0].confidence > resolution.candidates[1].confidence);
}

#[tokio::test]
async fn aliases_that_evidence_rules_out_are_followed_by_a_search_for_similar_names() {
    let setup = setup(ResolverSettings::default().with_candidates(true)).await;
    // More entities share the alias than are looked at, none of them in Shelbyville.
    for number in 0..8 {
        let address = format!("{} Oak St, Springfield", 10 + number);
        add(&setup.engine, &format!("springfield branch {number}"), &["Golden Dragon"], Some(&address)).await;
    }
    let here =
        add(&setup.engine, "golden dragon shelbyville", &["Golden Dragon"], Some("90 Elm St, Shelbyville")).await;
    let query = place("Golden Dragon").address("90 Elm Street").city("Shelbyville");
    let resolution = one(&setup.resolver, query).await;
    assert_eq!(existing(&resolution).0, here, "{resolution:?}");
    let ids: BTreeSet<_> = resolution.candidates.iter().map(|candidate| candidate.id).collect();
    assert_eq!(ids.len(), resolution.candidates.len(), "each once");
    // A place that is none of them is not taken for one, although its name is their alias.
    let query = place("Golden Dragon").address("7 Harbor Road").city("Ogdenville");
    let resolution = one(&setup.resolver, query).await;
    assert!(!matches!(resolution.decision, Decision::Existing { .. }), "{resolution:?}");
    assert!(matches!(one(&setup.resolver, place("Golden Dragon")).await.decision, Decision::Ambiguous { .. }));
}

#[tokio::test]
async fn an_address_finds_entities_that_the_name_alone_does_not() {
    let setup = setup(ResolverSettings::default()).await;
    let mifune = add(&setup.engine, "umi", &[], Some("1737 Cherry Street, Springfield")).await;
    add(&setup.engine, "red lantern", &[], Some("1739 Cherry Street, Springfield")).await;
    let name = "umi harbor center east building";
    assert!(is_new(&one(&setup.resolver, place(name)).await));
    let query = place(name).address("1737 Cherry St.").city("Springfield");
    assert_eq!(existing(&one(&setup.resolver, query).await), (mifune, Tier::Fuzzy));
    let query = place("blue door").address("1737 Cherry St.").city("Springfield");
    assert!(is_new(&one(&setup.resolver, query).await), "an address alone is not enough to match");
}

#[tokio::test]
async fn find_returns_matches_without_adding_aliases() {
    let setup = setup(ResolverSettings::default()).await;
    let id = add(&setup.engine, "blue door tavern", &[], None).await;
    let query = place("blue door inn").original("The Blue Door");
    let decided = one(&setup.resolver, query.clone()).await;
    assert!(!matches!(decided.decision, Decision::Existing { .. }), "{decided:?}");
    let found = setup.resolver.find(&[query, place("nothing like it")]).await.unwrap();
    assert_eq!(found[0].as_ref().map(|candidate| candidate.id), Some(id));
    assert!(found[0].as_ref().unwrap().confidence < 0.85);
    assert_eq!(found[1], None);
    let client = setup.database.client().await;
    let row = client.query_one("select count(*), sum(cardinality(aliases))::int8 from entities", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0));
}

#[tokio::test]
async fn matching_new_names_of_a_batch_become_one_new_entity() {
    let setup = setup(ResolverSettings::default()).await;
    let mut batch = vec![
        place("the blue door"),
        place("blue door"),
        place("blue doer").original("Blue Doer"),
        place("red lantern"),
        Query::new(EntityType::DishOrCategory, "blue door"),
    ];
    for _ in 0..batch.len() {
        batch.rotate_left(1);
        let resolutions = setup.resolver.resolve(&batch).await.unwrap();
        let keys: BTreeSet<_> =
            resolutions.iter().map(|resolution| resolution.decision.new_key().unwrap().clone()).collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }
    let resolutions = setup.resolver.resolve(&batch).await.unwrap();
    let mut unit = UnitOfWork::new();
    for resolution in &resolutions {
        resolution.put(&mut unit).unwrap();
    }
    commit(&setup.engine, unit).await;
    let client = setup.database.client().await;
    let rows = client.query("select name, aliases from entities where type = 'restaurant' order by name", &[]);
    let rows = rows.await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, &str>(0), "blue door");
    assert_eq!(rows[0].get::<_, Vec<&str>>(1), ["Blue Doer", "the blue door"]);
    let again = setup.resolver.resolve(&batch).await.unwrap();
    assert!(again.iter().all(|resolution| !is_new(resolution)), "{again:?}");
}

#[tokio::test]
async fn names_that_a_batch_gives_a_known_entity_apply_to_the_whole_batch() {
    let setup = setup(ResolverSettings::default()).await;
    let franklin = add(&setup.engine, "franklin barbecue", &[], Some("900 E 11th St, Austin")).await;
    let diner = add(&setup.engine, "blue door", &[], None).await;
    let mut batch = vec![
        place("franklin barbecue").original("Aaron's"),
        place("Aaron's"),
        // No match: neither the evidence nor the text, which fits any place, ties it to the entity.
        place("red lantern").original("Aaron's"),
        place("blue door").original("The Place"),
        place("golden palace").original("The Place"),
        // Two entities have the alias.
        place("franklin barbecue").original("Q"),
        place("blue door").original("Q"),
        place("Q"),
        // An entity of another type.
        Query::new(EntityType::DishOrCategory, "Aaron's"),
    ];
    for _ in 0..batch.len() {
        batch.rotate_left(1);
        let resolutions = setup.resolver.resolve(&batch).await.unwrap();
        for (query, resolution) in batch.iter().zip(&resolutions) {
            let key = query.key();
            match (&*key.name, key.entity_type) {
                ("Aaron's", EntityType::Restaurant) => assert_eq!(existing(resolution), (franklin, Tier::Alias)),
                ("franklin barbecue", _) => assert_eq!(existing(resolution), (franklin, Tier::Exact)),
                ("blue door", _) => assert_eq!(existing(resolution), (diner, Tier::Exact)),
                ("Q", _) => assert!(matches!(resolution.decision, Decision::Ambiguous { .. }), "{resolution:?}"),
                _ => assert!(is_new(resolution), "{query:?} {resolution:?}"),
            }
        }
    }
    // An entity with another address does not match, despite its alias.
    let elsewhere = place("Aaron's").address("12 Oak St").city("Dallas");
    let bringer = place("franklin barbecue").original("Aaron's");
    // The second time, only the database has the entity's address.
    for bringer in [bringer.clone().address("900 E 11th St").city("Austin"), bringer] {
        let resolutions = setup.resolver.resolve(&[bringer, elsewhere.clone()]).await.unwrap();
        assert!(!matches!(resolutions[1].decision, Decision::Existing { .. }), "{resolutions:?}");
    }
    let exact = Resolver::attach(&setup.engine, ResolverSettings::default().deepest(Tier::Exact)).await.unwrap();
    let batch = [place("franklin barbecue").original("Aaron's"), place("Aaron's")];
    assert!(is_new(&exact.resolve(&batch).await.unwrap()[1]), "aliases are not looked up");
}

#[tokio::test]
async fn a_resolver_with_fewer_tiers_skips_the_deeper_ones() {
    let setup = setup(ResolverSettings::default()).await;
    add(&setup.engine, "franklin barbecue", &["Franklin's"], None).await;
    let names = ["franklin barbecue", "Franklin's", "franklin barbeque"];
    for (deepest, found) in [(Tier::Exact, 1), (Tier::Alias, 2), (Tier::Fuzzy, 3)] {
        let settings = ResolverSettings::default().deepest(deepest);
        let resolver = Resolver::attach(&setup.engine, settings).await.unwrap();
        let resolutions = resolver.resolve(&names.map(place)).await.unwrap();
        assert_eq!(resolutions.iter().filter(|resolution| !is_new(resolution)).count(), found, "{deepest:?}");
    }
}

#[tokio::test]
async fn a_missing_index_is_an_error_only_for_tiers_that_need_it() {
    let database = Database::empty().await;
    let config = database.config().build().unwrap();
    Migrations::tables_only().run(&config).await.unwrap();
    let connect = async |deepest| Resolver::connect(&config, ResolverSettings::default().deepest(deepest)).await;
    assert!(connect(Tier::Exact).await.is_ok());
    let error = connect(Tier::Alias).await.unwrap_err();
    assert!(matches!(error, ResolveError::MissingIndex { index: "entities_aliases_idx" }), "{error}");
    Migrations::all().run(&config).await.unwrap();
    assert!(connect(Tier::Fuzzy).await.is_ok());
}

#[tokio::test]
async fn invalid_texts_are_refused_before_any_query() {
    let setup = setup(ResolverSettings::default()).await;
    for bad in [" ", "a\0b", &"x".repeat(256)] {
        for query in [place(bad), place("fine").original(bad)] {
            let error = setup.resolver.resolve(&[place("fine"), query]).await.unwrap_err();
            assert!(matches!(error, ResolveError::InvalidText { index: 1 }), "{error}");
        }
    }
    // All other texts are ordinary values.
    let odd = ["100%", "a_b", "back\\slash", "'; drop table entities; --", "\u{5bff}\u{53f8}\u{5c4b}", "..."];
    let resolutions = setup.resolver.resolve(&odd.map(place)).await.unwrap();
    assert_eq!(resolutions.len(), odd.len());
    for (odd, resolution) in odd.iter().zip(&resolutions) {
        let id = write(&setup.engine, resolution).await.entities[0].id;
        assert_eq!(existing(&one(&setup.resolver, place(odd)).await), (id, Tier::Exact), "{odd}");
    }
}
