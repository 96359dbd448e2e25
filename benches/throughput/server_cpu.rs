//! CPU time of the server, where the kernel reports it (Linux).

use std::time::Duration;

/// CPU time of a server so far: of its postmaster, its child processes, and those that ended.
pub(crate) fn so_far(postmaster: u32) -> Duration {
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
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // Fields 4 and 14 to 17 of proc(5), which counts from one and has pid and name before these.
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}
