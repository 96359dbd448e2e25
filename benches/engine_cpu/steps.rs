//! The steps of one epoch, one by one.

use ::graphsink::UnitOfWork;
use ::graphsink::bench_internals::{CoalescedEpoch, PreparedUnits};
use criterion::{BatchSize, Criterion};

use crate::workload::{Record, Workload};

/// In the order of an epoch's way. Names of directories too: criterion puts results there.
pub(crate) const NAMES: [&str; 8] = [
    "build units",
    "validate and prepare",
    "coalesce",
    "plan, empty tables",
    "plan and encode, empty tables",
    "plan, existing connections",
    "plan and encode, existing connections",
    "plan and encode, repeated mentions",
];

pub(crate) fn measure(criterion: &mut Criterion, workload: &Workload) {
    let [build, prepare, coalesce, empty, empty_encoded, existing, existing_encoded, repeated] = NAMES;
    let as_of = workload.as_of;
    let units = || -> Vec<UnitOfWork> { workload.records.iter().map(Record::unit).collect() };
    let prepared = PreparedUnits::new(units());
    let epoch = CoalescedEpoch::new(&prepared);
    let (known, all_known) = (epoch.answers(false, as_of), epoch.answers(true, as_of));
    // What is compared must be what it says: bytes are the simplest sign of it.
    let new_rows = epoch.write(None, as_of, true);
    let same_rows = epoch.write(Some(all_known.clone()), as_of, true);
    println!(
        "an epoch of {} units: {new_rows} bytes to send if all is new, {same_rows} if nothing is",
        workload.records.len()
    );

    criterion.bench_function(build, |bencher| bencher.iter(units));
    criterion.bench_function(prepare, |bencher| bencher.iter_batched(units, PreparedUnits::new, BatchSize::LargeInput));
    criterion.bench_function(coalesce, |bencher| bencher.iter(|| CoalescedEpoch::new(&prepared)));
    for (name, encode) in [(empty, false), (empty_encoded, true)] {
        criterion.bench_function(name, |bencher| bencher.iter(|| epoch.write(None, as_of, encode)));
    }
    for (name, answers, encode) in
        [(existing, &known, false), (existing_encoded, &known, true), (repeated, &all_known, true)]
    {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || answers.clone(),
                |answers| epoch.write(Some(answers), as_of, encode),
                BatchSize::LargeInput,
            );
        });
    }
}
