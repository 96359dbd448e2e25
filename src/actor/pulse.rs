//! The last sign of life of each actor, which distinguishes a working engine from one that hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::label::ActorKind;

/// Updated by the actors themselves: the supervisor notes its own beat and requests its children's through the
/// mailboxes of their work. So an actor that hangs, or whose thread hangs, gives no sign of life.
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

    /// Notes a sign of life of an actor.
    pub(super) fn beat(&self, actor: ActorKind) {
        self.seen[actor as usize].store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since an actor's last sign of life.
    pub(crate) fn age(&self, actor: ActorKind) -> Duration {
        let seen = Duration::from_millis(self.seen[actor as usize].load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(seen)
    }
}
