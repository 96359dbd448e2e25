//! Resident memory of a process that loads in bulk (measured on Linux only).
#![cfg(target_os = "linux")]

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use graphsink::{BulkLoad, BulkSettings, Config, Mention, SourceType, UnitOfWork};

use super::rows;
use crate::support::{Database, as_of};

const URL: &str = "GRAPHSINK_TEST_MEMORY_URL";
const UNITS: &str = "GRAPHSINK_TEST_MEMORY_UNITS";
/// The memory of the load.
const MEMORY: usize = 8 << 20;
/// Memory beside the load's: rows on their way to the server, buffers of the driver, memory that the allocator keeps.
const BESIDES: usize = 24 << 20;
/// The size of an excerpt in bytes.
const EXCERPT: usize = 2_000;

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn unit(number: usize) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant(format!("restaurant {}", number % 3_000)).handle();
    let dish = unit.dish(format!("dish {}", number % 700)).handle();
    let connection = unit.connection(restaurant, dish).handle();
    let mention = Mention::new(SourceType::Post, format!("t3_{number}"), "https://example.org/x", "food", as_of());
    // Texts that differ from each other.
    unit.mention(connection, mention.excerpt(format!("{number} ").repeat(EXCERPT / 6)));
    unit
}

/// The child of the test below; does nothing unless that test started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_whose_memory_is_measured() {
    let (Ok(url), Ok(units)) = (env::var(URL), env::var(UNITS)) else { return };
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(MEMORY).spill_directory(directory.path());
    let before = status("VmRSS");
    let load = BulkLoad::begin(Config::builder(url).build().unwrap(), settings).await.unwrap();
    for number in 0..units.parse().unwrap() {
        load.submit(unit(number)).await.unwrap();
    }
    let report = load.finish().await.unwrap();
    println!("\nmost: {} spilled: {}", status("VmHWM") - before, report.spilled_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_load_does_not_grow_with_the_input() {
    // Twelve times the load's memory, and more than all that the process may use.
    let units = 12 * MEMORY / EXCERPT;
    let database = Database::migrated().await;
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["bulk::memory::child_whose_memory_is_measured", "--exact", "--nocapture", "--test-threads=1"])
        .env(URL, &database.url)
        .env(UNITS, units.to_string())
        // Otherwise memory that one thread allocated and another freed is returned late.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::null());
    let told = tokio::task::spawn_blocking(move || command.output().unwrap());
    let told = tokio::time::timeout(Duration::from_mins(5), told).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{text}{}", String::from_utf8_lossy(&told.stderr));
    let told = text.lines().find_map(|line| line.strip_prefix("most: ")?.split_once(" spilled: ")).expect(&text);
    let (most, spilled): (usize, usize) = (told.0.parse().unwrap(), told.1.parse().unwrap());
    println!("{units} units: {} MiB at most, {} MiB spilled", most >> 20, spilled >> 20);
    assert!(spilled > MEMORY * 6, "the input is much more than the memory: {spilled}");
    assert!(most < MEMORY + BESIDES, "{} MiB", most >> 20);
    assert_eq!(rows(&database.client().await).await[2], units as i64);
}
