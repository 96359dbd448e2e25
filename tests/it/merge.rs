//! The central guarantee: the same set of records leaves the same database, whatever the order, the batching, the
//! number of engines and the number of repetitions.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use graphsink::SourceType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::database::{self, check_group_by, differences, report};
use crate::generate::{self, Space};
use crate::model::{self, ConnectionKey, Ids, MentionSpec, Record};
use crate::support::{Database, PATIENCE, as_of, commit, seed};

/// A way to submit a set of records.
#[derive(Debug, Clone)]
struct Plan {
    records: Vec<Record>,
    /// The order of submission, with repetitions: indexes, modulo the number of records.
    again: Vec<usize>,
    /// The number of records of each unit, in turn.
    unit_sizes: Vec<usize>,
    engines: usize,
    max_batch_rows: usize,
    in_flight_commits: usize,
    /// The number of units after which all are flushed, metrics are checked, and ids become known.
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

/// Carries the plan out on empty tables.
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
            // The engines do not pause here: metrics must be right while others write, and ids come from the stored
            // rows.
            let differences = check_group_by(&client, as_of()).await;
            if !differences.is_empty() {
                return Err(report("between units, metrics differ from GROUP BY", &differences));
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
    if wrong.is_empty() { Ok(()) } else { Err(report("the database differs from the model", &wrong)) }
}

#[test]
fn any_order_any_split_and_any_repetition_leave_the_graph_of_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let database = runtime.block_on(Database::migrated());
    let mut runner = generate::runner(seed("merge"), 64);
    let result = runner.run(&plan(), |plan| runtime.block_on(carry_out(&database, &plan)).map_err(TestCaseError::fail));
    // `Display` shows the smallest failing plan.
    if let Err(failure) = result {
        panic!("{failure}");
    }
    runtime.block_on(database.assert_no_deadlocks());
}

/// A name, and the votes and the age in days of each mention by its number.
type Case = (&'static str, fn(usize) -> (i32, usize));

/// A connection with more mentions than are kept as the best. One after the other loses its votes: each time the best
/// are read again from the rows, in the order of the contract.
#[tokio::test(flavor = "multi_thread")]
async fn the_best_mentions_are_reread_when_the_best_loses_votes() {
    let day = |days: usize| TimeDelta::days(days as i64);
    let cases: [Case; 4] = [
        ("no votes, so that times decide", |number| (0, number)),
        ("nothing but the source id decides", |_| (7, 3)),
        ("negative votes, of which older ones weigh less", |number| (-7, number)),
        ("votes against age", |number| (1 << number, 80 * number)),
    ];
    let database = Database::migrated().await;
    let engine = database.engine().await;
    let client = database.client().await;
    let mut records = Vec::new();
    for (dish, kind) in cases {
        let connection =
            ConnectionKey { restaurant: "r".to_owned(), dish: dish.to_owned(), dish_attributes: BTreeSet::new() };
        let mention = |number: usize| {
            let (upvotes, age) = kind(number);
            // By code point "B2" < "a1" < "é0"; in most locales "a" < "B".
            let source_id = ["é", "a", "B", "-"][number % 4].to_owned() + &number.to_string();
            MentionSpec {
                connection: connection.clone(),
                connection_by_id: false,
                source_type: if number.is_multiple_of(3) { SourceType::Post } else { SourceType::Comment },
                source_id,
                thread_id: "t".to_owned(),
                source_url: "https://example.org".to_owned(),
                subreddit: "food".to_owned(),
                content_excerpt: String::new(),
                author: None,
                upvotes,
                created_at: as_of() - day(age),
                observed_at: as_of(),
            }
        };
        let mentions: Vec<MentionSpec> = (0..16).map(mention).collect();
        let said: Vec<Record> = mentions.iter().cloned().map(Record::Mention).collect();
        commit(&engine, model::unit(&said, &Ids::default())).await;
        records.extend(said);
        for fall in 1..12 {
            let graph = model::graph(&records, as_of());
            let best = &graph.connections[&connection].metrics.top_mentions[fall % 5];
            let mut fallen = mentions
                .iter()
                .find(|mention| (&mention.source_id, mention.source_type) == (&best.source_id, best.source_type))
                .unwrap()
                .clone();
            fallen.upvotes = -1_000_000;
            fallen.observed_at = as_of() + day(fall);
            let said = [Record::Mention(fallen)];
            commit(&engine, model::unit(&said, &Ids::default())).await;
            records.extend(said);
            let mut wrong = differences(&model::graph(&records, as_of()), &database::read(&client).await);
            wrong.extend(check_group_by(&client, as_of()).await);
            assert!(wrong.is_empty(), "{dish}, fall {fall}: {}", report("differs from the model", &wrong));
        }
    }
}
