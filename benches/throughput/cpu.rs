//! CPU time of this process by the names of its threads, and of the server, where the kernel tells (Linux).

use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the threads that run producers and hand-written clients.
pub(crate) const PRODUCERS: &str = "bench";

/// CPU time by thread name.
#[derive(Debug, Default)]
pub(crate) struct Cpu(BTreeMap<String, Duration>);

impl Cpu {
    pub(crate) fn now() -> Self {
        let mut by_name = BTreeMap::new();
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            // A thread may end while it is looked at.
            let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
            let Ok(times) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = times.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            *by_name.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
        }
        Self(by_name)
    }

    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, time) in &mut self.0 {
            *time = time.saturating_sub(before.of(name));
        }
        self
    }

    pub(crate) fn of(&self, name: &str) -> Duration {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.values().sum()
    }
}

/// CPU time of a server so far: of its postmaster, the processes under it, and those that ended.
pub(crate) fn of_server(postmaster: u32) -> Duration {
    let mut ticks = stat(postmaster).map_or(0, |stat| stat.own + stat.ended_children);
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        ticks += stat(pid).filter(|stat| stat.parent == postmaster).map_or(0, |stat| stat.own);
    }
    // A hundredth of a second: USER_HZ is the same on every Linux.
    Duration::from_millis(10 * ticks)
}

struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // Fields 4 and 14 to 17 of proc(5), which counts from one and has pid and name before these.
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}
