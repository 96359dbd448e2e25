//! References to merged entities by units, merges and resolvers; rows that other programs delete and create.

use graphsink::{
    Committed, Disposition, EntityMerge, EntityName, EntityType, Mention, MergeOutcome, MergeRejection, Outcome,
    RejectReason, SourceType, UnitOfWork,
};
use uuid::Uuid;

use super::{dangling, dish, merge_one, restaurant};
use crate::database::assert_group_by;
use crate::support::{Database, as_of, commit, outcome, within};

fn mention(source: &str) -> Mention {
    Mention::new(SourceType::Post, source, "https://example.org", "food", as_of())
}

/// A mention of a dish at a restaurant.
fn unit(restaurant: &str, dish: &str, source: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let (restaurant, dish) = (unit.restaurant(restaurant).handle(), unit.dish(dish).handle());
    let connection = unit.connection(restaurant, dish).handle();
    unit.mention(connection, mention(source));
    unit
}

fn ids(committed: &Committed) -> (Uuid, Uuid, Uuid) {
    (committed.entities[0].id, committed.entities[1].id, committed.connections[0].id)
}

#[tokio::test(flavor = "multi_thread")]
async fn late_units_of_a_merged_entity_are_written_to_the_survivor() {
    let database = Database::migrated().await;
    let (engine, other) = (database.engine().await, database.engine().await);
    let mut before = Vec::new();
    for name in ["a", "b", "c"] {
        before.push(ids(&commit(&engine, unit(name, "pie", name)).await));
    }
    let ((a, pie, of_a), (b, _, of_b), (c, _, of_c)) = (before[0], before[1], before[2]);
    // A chain: its second merge names the entity that the first one took.
    let merges = vec![EntityMerge::new(restaurant("c"), b), EntityMerge::new(restaurant("b"), restaurant("a"))];
    let outcomes = within(engine.merge(merges.clone())).await;
    assert!(matches!(outcomes[0], MergeOutcome::Merged { from, into } if (from, into) == (c, a)), "{outcomes:?}");
    assert!(matches!(outcomes[1], MergeOutcome::Merged { from, into } if (from, into) == (b, a)), "{outcomes:?}");
    for outcome in within(other.merge(merges)).await {
        assert!(matches!(outcome, MergeOutcome::AlreadyMerged { into } if into == a), "{outcome:?}");
    }

    let client = database.client().await;
    let row = client.query_one("select connection_id, mention_count from connections", &[]).await.unwrap();
    let connection: Uuid = row.get(0);
    assert_eq!(row.get::<_, i32>(1), 3);
    assert!([of_a, of_b, of_c].contains(&connection));
    for (number, engine) in [&engine, &other].into_iter().enumerate() {
        for name in ["a", "b", "c"] {
            let committed = commit(engine, unit(name, "pie", &format!("by key {name} {number}"))).await;
            assert_eq!(ids(&committed), (a, pie, connection), "{name}");
            assert_eq!(committed.entities[0].disposition, Disposition::Unchanged);
        }
        for id in [a, b, c] {
            let mut unit = UnitOfWork::new();
            let handle = unit.existing_entity(id).alias("said late").handle();
            let dish = unit.dish("pie").handle();
            let made = unit.connection(handle, dish).handle();
            unit.mention(made, mention(&format!("by id {id} {number}")));
            let committed = commit(engine, unit).await;
            assert_eq!((committed.entities[0].id, committed.connections[0].id), (a, connection));
        }
        for id in [of_a, of_b, of_c] {
            let mut unit = UnitOfWork::new();
            unit.mention(id, mention(&format!("by connection {id} {number}")));
            assert_eq!(commit(engine, unit).await.connections[0].id, connection);
        }
    }
    // All names of one entity in one unit.
    let mut unit = UnitOfWork::new();
    let mut handles = Vec::new();
    for (name, id) in [("a", a), ("b", b), ("c", c)] {
        handles.push(unit.restaurant(name).alias(format!("{name}!")).handle());
        handles.push(unit.existing_entity(id).alias(format!("{name}?")).handle());
    }
    let pie = unit.dish("pie").handle();
    for (number, handle) in handles.into_iter().enumerate() {
        let made = unit.connection(handle, pie).handle();
        unit.mention(made, mention(&format!("one of many {}", number / 2)));
    }
    let committed = commit(&engine, unit).await;
    assert!(committed.entities[..6].iter().all(|row| row.id == a), "{committed:?}");
    assert!(committed.connections.iter().all(|row| row.id == connection), "{committed:?}");

    let row = client.query_one("select aliases from entities where type = 'restaurant'", &[]).await.unwrap();
    let aliases: Vec<String> = row.get(0);
    assert_eq!(aliases, ["a!", "a?", "b", "b!", "b?", "c", "c!", "c?", "said late"]);
    let row = client.query_one("select mention_count from connections", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 3 + 2 * 9 + 3);
    assert_group_by(&client, as_of()).await;
    assert_eq!(dangling(&client).await, Vec::<String>::new());
    let generation: i64 =
        client.query_one("select last_value from graphsink_merge_generation", &[]).await.unwrap().get(0);
    assert!(generation >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_merges_are_rejected_and_harm_no_other_merge() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let (a, pie, _) = ids(&commit(&engine, unit("a", "pie", "1")).await);
    let (b, _, _) = ids(&commit(&engine, unit("b", "pie", "2")).await);
    let missing = Uuid::now_v7();
    let merges = vec![
        EntityMerge::new(a, a),
        EntityMerge::new(restaurant("a"), a),
        EntityMerge::new(missing, a),
        EntityMerge::new(a, restaurant("no\0body")),
        EntityMerge::new(dish("a"), dish("pie")),
        EntityMerge::new(a, pie),
        EntityMerge::new(a, b),
        EntityMerge::new(b, a),
    ];
    let outcomes = within(engine.merge(merges)).await;
    let rejections: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            MergeOutcome::Rejected(rejection) => Some(rejection.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        rejections,
        [
            MergeRejection::Itself(a),
            MergeRejection::Itself(a),
            MergeRejection::Missing(EntityName::Id(missing)),
            MergeRejection::Missing(restaurant("no\0body").into()),
            MergeRejection::Missing(dish("a").into()),
            MergeRejection::DifferentTypes { from: EntityType::Restaurant, into: EntityType::DishOrCategory },
        ]
    );
    assert!(matches!(outcomes[6], MergeOutcome::Merged { from, into } if (from, into) == (a, b)), "{outcomes:?}");
    assert!(matches!(outcomes[7], MergeOutcome::AlreadyMerged { into } if into == b), "{outcomes:?}");
    assert!(within(engine.merge(Vec::new())).await.is_empty());
}

/// A merge that only PostgreSQL refuses is rejected alone, however many are requested at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_merges_at_once_each_have_their_outcome() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    for number in 0..250 {
        commit(&engine, unit(&format!("from {number}"), "pie", &format!("f{number}"))).await;
        commit(&engine, unit(&format!("into {}", number % 50), "pie", &format!("i{number}"))).await;
    }
    let client = database.client().await;
    client
        .batch_execute(
            "create function stay() returns trigger language plpgsql as $$ begin raise exception 'stays'; end $$;
             create trigger stay before delete on entities for each row
                 when (old.name in ('from 17', 'from 180')) execute function stay()",
        )
        .await
        .unwrap();
    let merge = |number: usize| {
        EntityMerge::new(restaurant(&format!("from {number}")), restaurant(&format!("into {}", number % 50)))
    };
    let outcomes = within(engine.merge((0..250).map(merge).collect())).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            MergeOutcome::Rejected(MergeRejection::Database(rejection)) => {
                assert!([17, 180].contains(&number), "{number}: {rejection}");
                assert_eq!(rejection.sqlstate, "P0001");
            }
            MergeOutcome::Merged { .. } => assert!(![17, 180].contains(&number)),
            other => panic!("{number}: {other:?}"),
        }
    }
    let restaurants: i64 =
        client.query_one("select count(*) from entities where type = 'restaurant'", &[]).await.unwrap().get(0);
    let mentions: i64 = client.query_one("select count(*) from mentions", &[]).await.unwrap().get(0);
    assert_eq!((restaurants, mentions), (52, 500));
    assert_group_by(&client, as_of()).await;
    assert_eq!(dangling(&client).await, Vec::<String>::new());
}

/// Other programs delete a target, and create an entity with the key of a merged one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_take_precedence_over_redirects_and_dangling_redirects_are_ignored() {
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let client = database.client().await;
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let mut unit = UnitOfWork::new();
        unit.restaurant(name);
        made.push(commit(&engine, unit).await.entities[0].id);
    }
    let [a, b, c] = made[..] else { panic!("three") };
    assert_eq!(merge_one(&engine, b, a).await.survivor(), Some(a));

    // A unit creates b again: it is a row of its own, and its first id still leads to a.
    let again = Uuid::now_v7();
    let create = "insert into entities (entity_id, name, type) values ($1, 'b', 'restaurant')";
    client.execute(create, &[&again]).await.unwrap();
    let entity = async |name: EntityName| {
        let mut unit = UnitOfWork::new();
        match name {
            EntityName::Id(id) => unit.existing_entity(id).handle(),
            EntityName::Key(key) => unit.restaurant(&*key.name).handle(),
        };
        match outcome(&engine, unit).await {
            Outcome::Committed(committed) => Some(committed.entities[0].id),
            Outcome::Rejected(rejection) => {
                assert!(matches!(rejection.reason, RejectReason::MissingRow { .. }), "{rejection:?}");
                None
            }
            Outcome::Unavailable(unavailable) => panic!("{unavailable}"),
        }
    };
    assert_eq!(entity(restaurant("b").into()).await, Some(again));
    assert_eq!(entity(b.into()).await, Some(a));
    // The key leads to the later one.
    assert_eq!(merge_one(&engine, restaurant("b"), c).await.survivor(), Some(c));
    assert_eq!(entity(restaurant("b").into()).await, Some(c));
    assert_eq!(entity(b.into()).await, Some(a));
    assert_eq!(entity(again.into()).await, Some(c));

    // Another program deletes c: redirects to it lead nowhere, and the key is free.
    client.execute("delete from entities where entity_id = $1", &[&c]).await.unwrap();
    assert_eq!(entity(again.into()).await, None);
    assert!(matches!(
        merge_one(&engine, again, a).await,
        MergeOutcome::Rejected(MergeRejection::Missing(EntityName::Id(id))) if id == again
    ));
    let third = entity(restaurant("b").into()).await.unwrap();
    assert!(![a, b, c, again].contains(&third));
    assert_eq!(merge_one(&engine, third, a).await.survivor(), Some(a));
    assert_eq!(entity(restaurant("b").into()).await, Some(a));
}
