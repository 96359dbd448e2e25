//! Speed by the share of mentions that are already stored.
//!
//! Fresh tables each time, filled with a base of mentions. Then the same number is submitted, of which a share is drawn
//! from the base. There are two kinds: *repeated* mentions equal the stored ones (a thread that was delivered again);
//! *newer* ones were observed an hour later with one more upvote, so that their rows and their connections' figures
//! change. The base and the new mentions are the same in all measurements, and so is the size of the tables at the
//! start.

use std::fmt;

use ::graphsink::Engine;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::ingest::{DEADLINE, check, ingest, now};
use crate::table::{median, table};
use graphsink_benches::contestant::Result;
use graphsink_benches::database::{Database, Layout, Tables};
use graphsink_benches::workload::{Random, Record, Workload};

/// An arbitrary number: the same draw in every round.
const SEED: u64 = 0x6475_706c_6963_6174;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repeated,
    Newer,
}

/// The kinds of measurements. The others are compared with the first one.
const CASES: [(Kind, u64); 8] = [
    (Kind::Repeated, 0),
    (Kind::Repeated, 25),
    (Kind::Repeated, 50),
    (Kind::Repeated, 75),
    (Kind::Repeated, 90),
    (Kind::Repeated, 95),
    (Kind::Newer, 50),
    (Kind::Newer, 90),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "repeated",
            Self::Newer => "newer",
        })
    }
}

impl Kind {
    fn again(self, record: &Record) -> Record {
        let mut record = record.clone();
        if self == Self::Newer {
            record.mention.observed_at += TimeDelta::hours(1);
            record.mention.upvotes += 1;
        }
        record
    }
}

/// As many records as in the base, and the number of new ones among them.
fn mixed(workload: &Workload, kind: Kind, percent: u64) -> (Vec<Record>, usize) {
    let (base, fresh) = workload.records.split_at(workload.records.len() / 2);
    let mut random = Random(SEED);
    let mut fresh = fresh.iter();
    let mut new = 0;
    let records = (0..base.len()).map(|_| {
        let again = random.next() % 100 < percent;
        let drawn = &base[(random.next() % base.len() as u64) as usize];
        match if again { None } else { fresh.next() } {
            Some(record) => {
                new += 1;
                record.clone()
            }
            None => kind.again(drawn),
        }
    });
    (records.collect(), new)
}

pub(crate) async fn measure(database: &Database, tables: Tables, rounds: usize, mentions: usize) -> Result<Value> {
    let workload = Workload::generate(2 * mentions, now());
    let base = &workload.records[..mentions];
    let mut speeds: Vec<Vec<f64>> = CASES.map(|_| Vec::new()).into();
    for _ in 0..rounds {
        for ((kind, percent), speeds) in CASES.into_iter().zip(&mut speeds) {
            database.reset(tables, Layout::Graphsink).await?;
            let engine = Engine::start(database.config().build()?).await?;
            ingest(&engine, base.to_vec()).await?;
            database.settle().await?;
            let (records, new) = mixed(&workload, kind, percent);
            let took = ingest(&engine, records).await?;
            engine.shutdown(DEADLINE).await;
            check(database, mentions + new).await?;
            speeds.push(mentions as f64 / took.as_secs_f64());
        }
    }
    // A ratio for each round, since noise affects neighbouring measurements alike.
    let to_none = |speeds: &[f64], none: &[f64]| {
        let ratios: Vec<f64> = speeds.iter().zip(none).map(|(speed, none)| speed / none).collect();
        median(&ratios)
    };
    let results = || {
        CASES
            .iter()
            .zip(&speeds)
            .map(|((kind, percent), of_case)| (kind, percent, median(of_case), to_none(of_case, &speeds[0])))
    };
    let rows = results().map(|(kind, percent, speed, ratio)| {
        [format!("{percent}% {kind}"), format!("{speed:.0}"), format!("{ratio:.2}")]
    });
    let table = table(["there already", "mentions/s", "to none"], rows);
    println!(
        "\nspeed by the share of duplicates, {mentions} mentions after as many, median of {rounds} rounds\n{table}"
    );
    let results = results().map(|(kind, percent, speed, ratio)| {
        json!({ "kind": kind.to_string(), "percent": percent, "mentions_per_second": speed, "to_none": ratio })
    });
    Ok(Value::Array(results.collect()))
}
