//! Allocations and bytes a unit, of all threads: counts that no noise touches.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::graphsink::{Config, Engine, UnitOfWork};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

use crate::contestant::Result;
use crate::process::{DEADLINE, submit_all};
use crate::workload::{Record, Workload};

/// The allocator of the bench `throughput`, which also counts while that is wanted.
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

#[allow(unsafe_code, reason = "an allocator cannot be written without, and what crates offer distorts the CPU time")]
// SAFETY: each call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    /// Counts like an allocation of what comes of it.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// Allocations and bytes a unit.
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

fn units(workload: &Workload, mentions: usize) -> Vec<UnitOfWork> {
    let unit = |records: &[Record]| {
        let mut unit = UnitOfWork::new();
        for record in records {
            record.add_to(&mut unit);
        }
        unit
    };
    workload.records.chunks(mentions).map(unit).collect()
}

/// Of units of so many mentions: building them alone, and from there to their outcomes, which an engine without a database
/// gives them.
pub(crate) fn measure(runtime: &Runtime, workload: &Workload, mentions: usize) -> Result<[PerUnit; 2]> {
    let config = Config::builder("postgresql://localhost/nowhere").build()?;
    let engine = runtime.block_on(Engine::start_blackhole(config))?;
    let number = workload.records.len().div_ceil(mentions);
    // What grows once does so before.
    runtime.block_on(submit_all(&engine, units(workload, mentions)))?;
    let mut built = Vec::new();
    let building = counted(number, || {
        built = units(workload, mentions);
        Ok(())
    })?;
    let whole = counted(number, || runtime.block_on(submit_all(&engine, built)))?;
    runtime.block_on(engine.shutdown(DEADLINE));
    let whole = PerUnit { allocations: building.allocations + whole.allocations, bytes: building.bytes + whole.bytes };
    Ok([building, whole])
}
