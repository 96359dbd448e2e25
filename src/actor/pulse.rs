//! When each actor was last seen at work: what tells a living engine from one that hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::label::ActorKind;

/// Kept by the actors themselves: the supervisor notes its own beat and asks its children for theirs, through the
/// mailboxes that their work comes through. So an actor that hangs, and one whose thread hangs, is not seen.
#[derive(Debug)]
pub(crate) struct Pulse {
    started: Instant,
    /// Milliseconds after the start, by actor.
    seen: [AtomicU64; ActorKind::ALL.len()],
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), seen: Default::default() }
    }

    /// An actor is at work.
    pub(super) fn beat(&self, actor: ActorKind) {
        self.seen[actor as usize].store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago an actor was seen.
    pub(crate) fn age(&self, actor: ActorKind) -> Duration {
        let seen = Duration::from_millis(self.seen[actor as usize].load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(seen)
    }
}
