//! Points at which tests make the engine's own code panic (feature `failpoints`; without it they do nothing).
//!
//! The names, by file: `supervisor::*`, `batcher::*`, `coordinator::*`, `store::*`, `bulk::*`. `tests/failpoints`
//! triggers them; the list there must name all of them.

/// Performs the action that the crate [`fail`] has configured for `name`.
#[cfg(feature = "failpoints")]
pub(crate) fn failpoint(name: &'static str) {
    fail::fail_point!(name);
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) const fn failpoint(_name: &'static str) {}
