//! Places where tests make the engine's own code panic (feature `failpoints`; otherwise nothing).
//!
//! The names, by file: `supervisor::*`, `batcher::*`, `coordinator::*`, `store::*`, `bulk::*`.
//! `tests/failpoints` sets them off; the list there must name them all.

/// Does what the crate [`fail`] was told to do at `name`.
#[cfg(feature = "failpoints")]
pub(crate) fn failpoint(name: &'static str) {
    fail::fail_point!(name);
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) const fn failpoint(_name: &'static str) {}
