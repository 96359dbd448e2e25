//! Units and merges, in any order and by several engines, leave the graph of the reference.

use graphsink::EntityMerge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::canonical::{Canonical, fits};
use super::{dangling, named};
use crate::database::{self, check_group_by, differences, report};
use crate::generate::{self, Space};
use crate::model::{self, EntityKey, Ids, Record};
use crate::support::{Database, as_of, outcome, seed, within};

#[derive(Debug, Clone)]
enum Step {
    Say(Vec<Record>),
    /// Both entities, and whether they are named by their ids, if those are known.
    Merge(Vec<(EntityKey, EntityKey, bool)>),
    /// The last merge once more.
    MergeAgain,
}

#[derive(Debug, Clone)]
struct Plan {
    steps: Vec<Step>,
    engines: usize,
    max_batch_rows: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let space = Space::tiny(as_of());
    let merge = (generate::two_entities(space), any::<bool>()).prop_map(|((from, into), by_id)| (from, into, by_id));
    let step = prop_oneof![
        5 => vec(generate::record(space), 1..12).prop_map(Step::Say),
        3 => vec(merge, 1..4).prop_map(Step::Merge),
        1 => Just(Step::MergeAgain),
    ];
    (vec(step, 2..14), 1_usize..=2, 1_usize..60).prop_map(|(steps, engines, max_batch_rows)| Plan {
        steps,
        engines,
        max_batch_rows,
    })
}

/// Carries the plan out on empty tables.
async fn carry_out(database: &Database, plan: &Plan) -> Result<(), String> {
    let client = database.client().await;
    let tables = "entities, connections, mentions, entity_redirects, connection_redirects";
    client.batch_execute(&format!("truncate {tables}")).await.unwrap();
    let mut engines = Vec::new();
    for _ in 0..plan.engines {
        engines.push(database.small_engine(plan.max_batch_rows, 2).await);
    }
    let mut canonical = Canonical::default();
    // Also ids of merged entities: their meaning never changes.
    let mut ids = Ids::default();
    let mut last = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        let engine = &engines[number % engines.len()];
        let merges = match step {
            Step::Say(records) => {
                let said = outcome(engine, model::unit(records, &ids)).await;
                if said.committed().is_none() {
                    return Err(format!("step {number}: {said:?}"));
                }
                canonical.say(records);
                Vec::new()
            }
            Step::Merge(merges) => merges.clone(),
            Step::MergeAgain => std::mem::take(&mut last),
        };
        let name = |key: &EntityKey, by_id: bool| match ids.entities.get(key).filter(|_| by_id) {
            Some(id) => (*id).into(),
            None => named(key),
        };
        let asked = merges.iter().map(|(from, into, by_id)| EntityMerge::new(name(from, *by_id), name(into, *by_id)));
        let outcomes = within(engine.merge(asked.collect())).await;
        for ((from, into, _), outcome) in merges.iter().zip(&outcomes) {
            let expected = canonical.merge(from, into);
            if !fits(expected, outcome) {
                return Err(format!("step {number}, {from:?} into {into:?}: {outcome:?}, not {expected:?}"));
            }
        }
        last = merges;
        let now = database::ids(&client).await;
        ids.entities.extend(now.entities);
        ids.connections.extend(now.connections);
        let mut wrong = check_group_by(&client, as_of()).await;
        wrong.extend(dangling(&client).await);
        if !wrong.is_empty() {
            return Err(report(&format!("after step {number}"), &wrong));
        }
    }
    let wrong = differences(&canonical.graph(as_of()), &database::read(&client).await);
    if wrong.is_empty() { Ok(()) } else { Err(report("the database is not what the model says", &wrong)) }
}

#[test]
fn units_and_merges_in_any_order_leave_the_graph_of_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let database = runtime.block_on(Database::migrated());
    let mut runner = generate::runner(seed("merges"), 64);
    let result = runner.run(&plan(), |plan| runtime.block_on(carry_out(&database, &plan)).map_err(TestCaseError::fail));
    // `Display` shows the smallest failing plan.
    if let Err(failure) = result {
        panic!("{failure}");
    }
    runtime.block_on(database.assert_no_deadlocks());
}
