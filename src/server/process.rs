//! The few process operations that std does not offer, without `unsafe`.
//!
//! On Linux they read `/proc`, because slim container images have no `ps`; on other systems they call `ps`.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

/// The signals that are sent to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGINT: a fast shutdown to the postmaster, an orderly abort to `initdb`.
    Int,
    /// SIGQUIT: an immediate shutdown; the next start recovers.
    Quit,
    /// SIGSTOP: the process is suspended and starts nothing.
    Stop,
    /// SIGKILL.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Kill => "KILL",
        }
    }
}

/// Sends `signal` to `pids`; processes that have ended are ignored.
///
/// `kill` is built into every `sh`, so this needs no tool of the system.
pub(super) fn send(signal: Signal, pids: &[u32]) -> io::Result<()> {
    Command::new("/bin/sh")
        .args(["-c", r#"signal=$1; shift; for pid; do kill -s "$signal" "$pid"; done"#, "sh", signal.name()])
        .args(pids.iter().map(ToString::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(drop)
}

/// Whether `pid` runs; a zombie does not.
pub(super) fn is_running(pid: u32) -> bool {
    look_up(pid).is_some()
}

/// Whether `pid` runs and is a PostgreSQL server.
pub(super) fn is_postgres(pid: u32) -> bool {
    look_up(pid).is_some_and(|entry| entry.name.starts_with("postgres") || entry.name.starts_with("postmaster"))
}

/// The processes whose parent is `pid`.
pub(super) fn children(pid: u32) -> Vec<u32> {
    all().into_iter().filter(|entry| entry.parent == pid).map(|entry| entry.pid).collect()
}

/// Removes libpq's and the server's variables (`PGPORT`, `PGDATA`, `PGOPTIONS`, ..): they must not steer a private server.
pub(super) fn without_pg_variables(command: &mut Command) {
    let is_pg = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("PG"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_pg(name)) {
        command.env_remove(name);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    pid: u32,
    parent: u32,
    name: String,
}

#[cfg(target_os = "linux")]
fn look_up(pid: u32) -> Option<Entry> {
    parse_proc_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(target_os = "linux")]
fn all() -> Vec<Entry> {
    let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
    listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(look_up).collect()
}

#[cfg(not(target_os = "linux"))]
fn look_up(pid: u32) -> Option<Entry> {
    all().into_iter().find(|entry| entry.pid == pid)
}

#[cfg(not(target_os = "linux"))]
fn all() -> Vec<Entry> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat=,comm="]).output();
    let Ok(output) = listed else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_ps_line).collect()
}

/// One line of `/proc/PID/stat`: `pid (name) state parent ..`; the name may hold spaces and parentheses.
#[cfg(any(target_os = "linux", test))]
fn parse_proc_stat(line: &str) -> Option<Entry> {
    let (pid, rest) = line.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let (state, parent) = (fields.next()?, fields.next()?);
    let alive = !matches!(state, "Z" | "X" | "x");
    alive.then_some(Entry { pid: pid.parse().ok()?, parent: parent.parse().ok()?, name: name.to_owned() })
}

/// One line of `ps -o pid=,ppid=,stat=,comm=`; `comm` may be a path.
#[cfg(any(not(target_os = "linux"), test))]
fn parse_ps_line(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace();
    let (pid, parent, state) = (fields.next()?, fields.next()?, fields.next()?);
    let command = fields.next()?;
    let name = command.rsplit('/').next().unwrap_or(command);
    let alive = !state.starts_with('Z');
    alive.then_some(Entry { pid: pid.parse().ok()?, parent: parent.parse().ok()?, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32, name: &str) -> Entry {
        Entry { pid, parent, name: name.to_owned() }
    }

    #[test]
    fn proc_stat_is_parsed_for_process_names_with_spaces_and_parentheses() {
        assert_eq!(parse_proc_stat("17 (postgres) S 1 17 17 0 -1"), Some(entry(17, 1, "postgres")));
        assert_eq!(parse_proc_stat("18 (a) b (c) R 17 1"), Some(entry(18, 17, "a) b (c")));
        assert_eq!(parse_proc_stat("19 (postgres) Z 1 17"), None);
        assert_eq!(parse_proc_stat(""), None);
    }

    #[test]
    fn lines_of_ps_are_parsed() {
        assert_eq!(parse_ps_line("  17     1 Ss   /opt/pg/bin/postgres"), Some(entry(17, 1, "postgres")));
        assert_eq!(parse_ps_line("  19     1 Z+   (postgres)"), None);
        assert_eq!(parse_ps_line(""), None);
    }

    #[test]
    fn this_process_is_running_and_its_child_is_found_until_it_is_killed() {
        let mut child = Command::new("/bin/sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        assert!(is_running(child.id()));
        assert!(children(std::process::id()).contains(&child.id()));
        let mut pids = children(child.id());
        pids.push(child.id());
        send(Signal::Kill, &pids).unwrap();
        child.wait().unwrap();
        assert!(!is_running(child.id()));
    }
}
