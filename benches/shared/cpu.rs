//! CPU time of this process by thread name, where the kernel reports it (Linux).

use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the threads of producers and hand-written clients.
pub const PRODUCERS: &str = "bench";

/// CPU time by thread name.
#[derive(Debug, Default)]
pub struct Cpu(BTreeMap<String, Duration>);

impl Cpu {
    pub fn now() -> Self {
        let mut by_name = BTreeMap::new();
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            // A thread may end while it is read.
            let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
            let Ok(times) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = times.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            *by_name.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
        }
        Self(by_name)
    }

    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (name, time) in &mut self.0 {
            *time = time.saturating_sub(before.of(name));
        }
        self
    }

    pub fn of(&self, name: &str) -> Duration {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }
}
