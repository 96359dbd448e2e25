//! Allocations and bytes for each unit, of all threads. An epoch takes some, too, and the size of epochs depends on how
//! threads take turns, so the smallest of several counts is taken.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::graphsink::{Config, Engine, UnitOfWork};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

use crate::process::{DEADLINE, PRODUCERS, produce};
use graphsink_benches::contestant::Result;
use graphsink_benches::workload::{Record, Workload};

/// The allocator of the bench `throughput`, which also counts on request.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

static IS_WANTED: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    if IS_WANTED.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator needs unsafe code, and the ones of crates distort the CPU time")]
// SAFETY: each call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    /// Counts like an allocation of the new size.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// How often is counted.
const COUNTS: usize = 7;

/// Allocations and bytes for each unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerUnit {
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

fn counted(units: usize, work: impl FnOnce() -> Result<()>) -> Result<PerUnit> {
    let so_far = || [&ALLOCATIONS, &BYTES].map(|counter| counter.load(Ordering::Relaxed) as f64);
    let before = so_far();
    IS_WANTED.store(true, Ordering::Relaxed);
    let worked = work();
    IS_WANTED.store(false, Ordering::Relaxed);
    worked?;
    let after = so_far();
    let units = units as f64;
    Ok(PerUnit { allocations: (after[0] - before[0]) / units, bytes: (after[1] - before[1]) / units })
}

fn unit(records: &[Record]) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    for record in records {
        record.add_to(&mut unit);
    }
    unit
}

/// For units of this many mentions: the cost of building them alone, and the cost from there to the outcomes of an
/// engine without a database.
pub(crate) fn measure(runtime: &Runtime, workload: &Workload, mentions: usize) -> Result<[PerUnit; 2]> {
    let config = Config::builder("postgresql://localhost/nowhere").build()?;
    let engine = runtime.block_on(Engine::start_blackhole(config))?;
    let number = workload.records.len().div_ceil(mentions);
    let units = || workload.records.chunks(mentions).map(unit);
    // Each unit is built when it is submitted, as in programs.
    let submit = || {
        std::thread::scope(|scope| {
            let producer = |first| {
                let units = workload.records.chunks(mentions).skip(first).step_by(PRODUCERS).map(unit);
                let engine = engine.clone();
                scope.spawn(move || runtime.block_on(produce(engine, units)).map_err(|error| error.to_string()))
            };
            let producers: Vec<_> = (0..PRODUCERS).map(producer).collect();
            producers.into_iter().try_for_each(|producer| producer.join().expect("no producer panics"))
        })?;
        Ok(())
    };
    // Structures that grow once do so before the count.
    submit()?;
    let building = counted(number, || {
        units().for_each(drop);
        Ok(())
    })?;
    let mut whole = counted(number, submit)?;
    for _ in 1..COUNTS {
        let next = counted(number, submit)?;
        whole.allocations = whole.allocations.min(next.allocations);
        whole.bytes = whole.bytes.min(next.bytes);
    }
    runtime.block_on(engine.shutdown(DEADLINE));
    Ok([building, whole])
}
