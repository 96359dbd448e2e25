//! The engine's own process: killed with SIGKILL again and again, and with a clock that jumps.
//!
//! The process is this test binary once more, which its environment makes run one of these tests as the child.

use std::collections::BTreeMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use graphsink::{AsOf, Engine, Receipt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Supply, assert_at_rest, config, engine, migrated, server, until_gone, until_so};
use crate::database::{self, assert_group_by, assert_same};
use crate::model::{self, Record};
use crate::support::{as_of, connect, seed, within};

/// The child's database; without it this process is not the child.
const URL: &str = "GRAPHSINK_TEST_CHILD_URL";
/// The file in which a child records its actions.
const JOURNAL: &str = "GRAPHSINK_TEST_CHILD_JOURNAL";
/// The number of units so far.
const UNITS: &str = "GRAPHSINK_TEST_CHILD_UNITS";

/// Runs `test` of this module in a process of its own, as a child.
fn child(test: &str, seed: u64, url: &str, journal: &Path, units: usize) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([&format!("server_faults::processes::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(JOURNAL, journal)
        .env(UNITS, units.to_string())
        .env("GRAPHSINK_TEST_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The environment of a child.
struct Task {
    url: String,
    units: usize,
    journal: Journal,
}

impl Task {
    fn of_child() -> Option<Self> {
        let url = env::var(URL).ok()?;
        let units = env::var(UNITS).unwrap().parse().unwrap();
        let path = env::var(JOURNAL).unwrap();
        let acknowledged = read_journal(Path::new(&path)).acknowledged;
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Some(Self { url, units, journal: Journal { file, acknowledged } })
    }
}

/// The actions of the processes before this one, and those that this one adds.
struct Journal {
    file: File,
    acknowledged: BTreeMap<usize, usize>,
}

impl Journal {
    /// Each line is one write, which a killed process leaves complete or not at all.
    fn note(&mut self, what: &str, number: usize) {
        self.file.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    }
}

/// How often each unit was submitted, and acknowledged.
#[derive(Default)]
struct Noted {
    submitted: BTreeMap<usize, usize>,
    acknowledged: BTreeMap<usize, usize>,
}

fn read_journal(path: &Path) -> Noted {
    let mut noted = Noted::default();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let (what, number) = line.split_once(' ').expect("a word and a number");
        let noted = if what == "submitted" { &mut noted.submitted } else { &mut noted.acknowledged };
        *noted.entry(number.parse().unwrap()).or_default() += 1;
    }
    noted
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// Kills the child if the test ends first.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // The child may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Submits every unit that was not acknowledged yet, and records its actions; then waits to be killed, or ends.
async fn submit_all(task: Task, wait: bool, seed: u64) {
    let Task { url, units, mut journal } = task;
    let parent = std::os::unix::process::parent_id();
    let engine = engine(&url).await;
    let supply = Supply::new(seed);
    let open: Vec<usize> = (0..units).filter(|number| !journal.acknowledged.contains_key(number)).collect();
    for window in open.chunks(12) {
        let mut receipts: Vec<(usize, Receipt)> = Vec::new();
        for number in window {
            journal.note("submitted", *number);
            receipts.push((*number, engine.submit(supply.unit(*number)).await.unwrap()));
        }
        for (number, receipt) in receipts {
            let outcome = within(receipt).await;
            assert!(outcome.committed().is_some(), "unit {number}: {outcome:?}");
            journal.note("acknowledged", number);
        }
    }
    // Without its parent it would never be killed.
    while wait && std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_again_and_again_loses_and_doubles_nothing() {
    const NAME: &str = "a_process_killed_again_and_again_loses_and_doubles_nothing";
    const ROUNDS: usize = 28;
    const UNITS_PER_ROUND: usize = 60;
    let seed = seed("process killed");
    if let Some(task) = Task::of_child() {
        let wait = task.units <= ROUNDS * UNITS_PER_ROUND;
        return submit_all(task, wait, seed).await;
    }
    let mut random = StdRng::seed_from_u64(seed);
    let server = server(&[]).await;
    let url = migrated(&server, "killed_process").await;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    for round in 1..=ROUNDS {
        let before = length(&journal);
        let command = &mut child(NAME, seed, &url, &journal, round * UNITS_PER_ROUND);
        let process = Killed(command.spawn().unwrap());
        until_so("the child submits", || length(&journal) > before).await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..40_000))).await;
        drop(process);
    }
    let units = ROUNDS * UNITS_PER_ROUND + 1;
    let mut last = child(NAME, seed, &url, &journal, units);
    let status = tokio::task::spawn_blocking(move || last.status().unwrap());
    assert!(within(status).await.unwrap().success());

    let noted = read_journal(&journal);
    assert!(noted.acknowledged.keys().copied().eq(0..units), "every unit was acknowledged");
    assert!(noted.acknowledged.values().all(|times| *times == 1), "and was not submitted again from then on");
    let again = noted.submitted.values().filter(|times| **times > 1).count();
    println!("{ROUNDS} kills, {units} units, {again} of them submitted more than once");
    assert!(again > 0, "a kill hit units that were under way");
    let client = connect(&url).await;
    // A backend notices its client's death when it next sends to it.
    until_gone(&client).await;
    let supply = Supply::new(seed);
    let records: Vec<Record> = (0..units).flat_map(|number| supply.records(number)).collect();
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}

/// A clock that changes by hours every 20 ms, back and forth. Only the wall clock: no other clock may jump.
const JUMPING_CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static const long hours[] = {0, -5, 30, 3, -400, 1, -26, 800};
    int result = (int) syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) {
        struct timespec steady;
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &steady);
        time->tv_sec += 3600 * hours[(steady.tv_sec * 50 + steady.tv_nsec / 20000000) % 8];
    }
    return result;
}
";

/// The engine uses the wall clock for ids of version 7, and for `as_of`. It must not use it for deadlines, pauses or
/// the age of plans.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_disturbs_nothing() {
    const NAME: &str = "a_wall_clock_that_jumps_disturbs_nothing";
    const UNITS: usize = 1_200;
    let seed = seed("clock jumps");
    if let Some(task) = Task::of_child() {
        return submit_under_jumps(task, seed).await;
    }
    let server = server(&[]).await;
    let url = migrated(&server, "clock").await;
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    std::fs::write(&source, JUMPING_CLOCK).unwrap();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(status.expect("a C compiler, which the build of this crate needs too").success());

    let mut command = child(NAME, seed, &url, &folder.path().join("journal"), UNITS);
    command.env("LD_PRELOAD", &library);
    let status = tokio::task::spawn_blocking(move || command.status().unwrap());
    assert!(within(status).await.unwrap().success(), "the child failed, see its output above");
    let client = connect(&url).await;
    let supply = Supply::new(seed);
    let records: Vec<Record> = (0..UNITS).flat_map(|number| supply.records(number)).collect();
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}

/// Figures that follow a jumping clock are unpredictable, so they are refreshed to a fixed time in the end. All else
/// must be right by itself.
async fn submit_under_jumps(task: Task, seed: u64) {
    let supply = Supply::new(seed);
    let config = config(&task.url).as_of(AsOf::Clock).max_batch_rows(60).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    let (mut last, mut forwards, mut backwards) = (SystemTime::now(), 0, 0);
    for window in (0..task.units).collect::<Vec<_>>().chunks(20) {
        let mut receipts = Vec::new();
        for number in window {
            receipts.push(engine.submit(supply.unit(*number)).await.unwrap());
        }
        for receipt in receipts {
            let outcome = within(receipt).await;
            assert!(outcome.committed().is_some(), "{outcome:?}");
        }
        let now = SystemTime::now();
        let hour = Duration::from_hours(1);
        forwards += usize::from(now.duration_since(last).is_ok_and(|jump| jump > hour));
        backwards += usize::from(last.duration_since(now).is_ok_and(|jump| jump > hour));
        last = now;
    }
    eprintln!("the clock jumped {forwards} times forwards, {backwards} times backwards");
    assert!(forwards > 0 && backwards > 0, "the clock of this process jumps");
    assert_eq!(engine.stats().failed_attempts, 0);
    let report = within(engine.refresh_activity(as_of())).await.unwrap();
    eprintln!("{report:?}");
    let client = connect(&task.url).await;
    assert_at_rest(&[engine], &client).await;
}
