//! The central promise: the same set of records leaves the same database, whatever the order, the
//! batching, the number of engines and the number of repetitions.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::database::{self, check_group_by, differences, report};
use crate::generate::{self, Space};
use crate::model::{self, Ids, Record};
use crate::support::{Database, PATIENCE, as_of, seed};

/// One way to say a set of records.
#[derive(Debug, Clone)]
struct Plan {
    records: Vec<Record>,
    /// The order in which they are said, with repetitions: indexes, modulo the number of records.
    again: Vec<usize>,
    /// Records of each unit, in turn.
    unit_sizes: Vec<usize>,
    engines: usize,
    max_batch_rows: usize,
    in_flight_commits: usize,
    /// After how many units everything is flushed, the metrics checked, and ids become known.
    pause_every: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let records = vec(generate::record(Space::tiny(as_of())), 1..60).prop_shuffle();
    (records, vec(0_usize..1_000, 0..20), vec(1_usize..8, 1..8), 1_usize..=3, 1_usize..40, 1_usize..=3, 2_usize..12)
        .prop_map(|(records, again, unit_sizes, engines, max_batch_rows, in_flight_commits, pause_every)| Plan {
            records,
            again,
            unit_sizes,
            engines,
            max_batch_rows,
            in_flight_commits,
            pause_every,
        })
}

/// Carries the plan out on a fresh set of tables.
async fn carry_out(database: &Database, plan: &Plan) -> Result<(), String> {
    let client = database.client().await;
    client.batch_execute("truncate entities, connections, mentions cascade").await.unwrap();
    let mut engines = Vec::new();
    for _ in 0..plan.engines {
        engines.push(database.small_engine(plan.max_batch_rows, plan.in_flight_commits).await);
    }

    let mut said: Vec<&Record> = plan.records.iter().collect();
    said.extend(plan.again.iter().map(|index| &plan.records[index % plan.records.len()]));
    let mut ids = Ids::default();
    let mut receipts = Vec::new();
    let mut rest = &said[..];
    for (number, size) in plan.unit_sizes.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (own, others) = rest.split_at((*size).min(rest.len()));
        rest = others;
        let unit = model::unit(own.iter().copied(), &ids);
        let receipt = engines[number % engines.len()].submit(unit).await;
        receipts.push(receipt.map_err(|error| format!("unit {number} is not accepted: {error:?}"))?);
        if number % plan.pause_every == plan.pause_every - 1 {
            // Not a pause for all: metrics must be right while others write, ids come from what is there.
            let differences = check_group_by(&client, as_of()).await;
            if !differences.is_empty() {
                return Err(report("in between, metrics are not what GROUP BY gives", &differences));
            }
            ids = database::ids(&client).await;
        }
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        let outcome =
            tokio::time::timeout(PATIENCE, receipt).await.map_err(|_| format!("unit {number}: no outcome"))?;
        if outcome.committed().is_none() {
            return Err(format!("unit {number}: {outcome:?}"));
        }
    }

    let expected = model::graph(&plan.records, as_of());
    let mut wrong = differences(&expected, &database::read(&client).await);
    wrong.extend(check_group_by(&client, as_of()).await);
    if wrong.is_empty() { Ok(()) } else { Err(report("the database is not what the model says", &wrong)) }
}

#[test]
fn any_order_any_split_and_any_repetition_leave_the_graph_of_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let database = runtime.block_on(Database::migrated());
    let mut runner = generate::runner(seed("merge"), 64);
    let result = runner.run(&plan(), |plan| runtime.block_on(carry_out(&database, &plan)).map_err(TestCaseError::fail));
    // `Display` shows the smallest plan that fails.
    if let Err(failure) = result {
        panic!("{failure}");
    }
    runtime.block_on(database.assert_no_deadlocks());
}
