//! The order of a connection's attributes, as the tables check it.

use graphsink::Migrations;
use uuid::Uuid;

use crate::support::Database;

/// Returns a database to the state before the function without a subquery.
pub(super) const TAKE_BACK: &str = "
    create or replace function graphsink_is_sorted_set(ids uuid[]) returns boolean
        language sql immutable parallel safe
        return coalesce((select bool_and(ids[i] < ids[i + 1])
                         from generate_series(1, cardinality(ids) - 1) as i), true);
    drop function graphsink_is_sorted_large_set";

/// All arrays of up to five of three ids, and longer ones that are sorted but for one place.
fn arrays() -> Vec<Vec<Uuid>> {
    let mut arrays = vec![Vec::new()];
    let mut first = 0;
    for _ in 0..5 {
        let end = arrays.len();
        for place in first..end {
            for id in 1..=3 {
                arrays.push([&arrays[place][..], &[Uuid::from_u128(id)]].concat());
            }
        }
        first = end;
    }
    for length in 4..=9_u128 {
        let sorted: Vec<Uuid> = (1..=length).map(Uuid::from_u128).collect();
        for place in 1..sorted.len() {
            let (mut swapped, mut repeated) = (sorted.clone(), sorted.clone());
            swapped.swap(place - 1, place);
            repeated[place] = repeated[place - 1];
            arrays.extend([swapped, repeated]);
        }
        arrays.push(sorted);
    }
    arrays
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_take_exactly_the_strictly_ascending_arrays() {
    let database = Database::empty().await;
    Migrations::tables_only().run(&database.config().build().unwrap()).await.unwrap();
    let client = database.client().await;
    let is_sorted = client.prepare("select graphsink_is_sorted_set($1)").await.unwrap();
    let mut sorted = 0;
    for ids in arrays() {
        let expected = ids.is_sorted_by(|left, right| left < right);
        let said: bool = client.query_one(&is_sorted, &[&ids]).await.unwrap().get(0);
        assert_eq!(said, expected, "{ids:?}");
        sorted += usize::from(expected);
    }
    // The subsets of three ids, and those of four to nine.
    assert_eq!(sorted, 8 + 6);

    // In an expression, as in the constraint, the comparisons take the place of the function.
    let explain = "explain (verbose, costs off) select graphsink_is_sorted_set(dish_attributes) from connections";
    let plan: Vec<String> = client.query(explain, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("dish_attributes[1] < dish_attributes[2]"), "{plan}");
    assert!(!plan.contains("graphsink_is_sorted_set"), "{plan}");
    let constraint = "select pg_get_constraintdef(oid) from pg_constraint
                      where conname = 'connections_dish_attributes_sorted' and convalidated";
    let constraint: String = client.query_one(constraint, &[]).await.unwrap().get(0);
    assert!(constraint.contains("graphsink_is_sorted_set(dish_attributes)"), "{constraint}");
}
