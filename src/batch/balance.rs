//! A balance of evidence for and against an expectation, shared by all lanes of an engine.

use std::sync::atomic::{AtomicI32, Ordering};

/// Starts at zero.
#[derive(Debug, Default)]
pub(super) struct Balance(AtomicI32);

impl Balance {
    pub(super) fn get(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds evidence, within limits: what is long past counts no more.
    pub(super) fn add(&self, change: i64, min: i32, max: i32) {
        let add = |balance| (i64::from(balance) + change).clamp(i64::from(min), i64::from(max)) as i32;
        // Always succeeds: the closure returns a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| Some(add(balance)));
    }
}
