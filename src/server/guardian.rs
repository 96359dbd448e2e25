//! The last will: stops the server and removes a temporary directory when the owner could not.
//!
//! The guardian is a `sh` process that reads a pipe whose other end only the owner holds.
//!
//! 1. The owner starts the guardian before any process of PostgreSQL.
//! 2. The owner starts each process of PostgreSQL behind a gate, a `sh` that waits for one line and then becomes the
//!    program. It tells the guardian the process id and opens the gate.
//! 3. The owner tells the guardian when that process is gone and its id may be another process's.
//! 4. The pipe ends when the owner drops it, exits, or is killed. The guardian then stops the process it knows of, removes
//!    the directory if it is temporary, and ends.
//!
//! Properties: no process of PostgreSQL runs that the guardian does not know, because a gate whose owner dies does not
//! open. The guardian signals no stranger, because the owner withdraws an id as soon as the process is collected. It is a
//! process group of its own, so Ctrl-C in a terminal does not reach it, and it keeps neither terminal nor output of the
//! owner open.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::account::Account;
use super::process;

const SCRIPT: &str = include_str!("guardian.sh");

/// Waits for a line, then becomes the program. `exec` keeps the process id that the guardian was told.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// The running guardian. Dropping it executes the will and waits for that.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
}

/// A program to run under the guardian's eyes.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) arguments: Vec<OsString>,
    pub(super) account: &'a Account,
    /// Its current directory; the owner's may be closed to the account.
    pub(super) directory: &'a Path,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Guardian {
    /// Starts it; `temporary` is the directory to remove at the end.
    ///
    /// It runs as the owner, not as PostgreSQL's user, because only the owner may be able to remove the directory.
    pub(super) fn start(temporary: Option<&Path>) -> io::Result<Self> {
        let process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "graphsink-guardian"])
            .arg(temporary.unwrap_or_else(|| Path::new("")))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process })
    }

    /// Starts `program` as a process group of its own, with the process known before it runs.
    pub(super) fn spawn(&mut self, program: Program<'_>) -> io::Result<Child> {
        let mut command = Command::new("/bin/sh");
        program.account.apply(&mut command);
        process::without_pg_variables(&mut command);
        let mut child = command
            .args(["-c", GATE, "sh"])
            .arg(program.path)
            .args(program.arguments)
            .current_dir(program.directory)
            // Messages in English, which error detection relies on; macOS needs it to start at all.
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(program.stdout)
            .stderr(program.stderr)
            .spawn()?;
        self.watch(Some(child.id()));
        // If the gate is gone already, waiting for the child tells the caller.
        let _ = child.stdin.take().map(|mut gate| gate.write_all(b"go\n"));
        Ok(child)
    }

    /// Says which process to stop at the end.
    pub(super) fn watch(&mut self, pid: Option<u32>) {
        let line = format!("{}\n", pid.unwrap_or(0));
        let told = self.process.stdin.as_mut().map(|pipe| pipe.write_all(line.as_bytes()));
        if let Some(Err(error)) = told {
            // It was killed. The server still stops with its owner unless that is killed too.
            tracing::warn!(%error, "the guardian of the embedded PostgreSQL is gone");
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            tracing::warn!(%error, "could not wait for the guardian of the embedded PostgreSQL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn sleeper(guardian: &mut Guardian) -> Child {
        let program = Program {
            path: Path::new("/bin/sh"),
            // INT does what it does to `initdb`: it ends the process.
            arguments: ["-c", "trap 'exit 3' INT; while :; do sleep 0.05; done"].map(OsString::from).to_vec(),
            account: &Account::Owner,
            directory: Path::new("/"),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        guardian.spawn(program).unwrap()
    }

    #[test]
    fn the_will_ends_the_process_and_removes_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        let mut guardian = Guardian::start(Some(directory.path())).unwrap();
        let mut child = sleeper(&mut guardian);
        assert!(child.try_wait().unwrap().is_none());
        drop(guardian);
        // By the trap, or by the signal itself where the shell had not come to the trap yet.
        assert!(!child.wait().unwrap().success());
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_process_that_is_no_longer_watched_is_left_alone() {
        let mut guardian = Guardian::start(None).unwrap();
        let mut child = sleeper(&mut guardian);
        guardian.watch(None);
        let started = Instant::now();
        drop(guardian);
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_closed_gate_lets_nothing_run() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GATE, "sh", "/bin/sh", "-c", "exit 42"]);
        let mut gate = command.stdin(Stdio::piped()).spawn().unwrap();
        drop(gate.stdin.take());
        assert_eq!(gate.wait().unwrap().code(), Some(1));
    }
}
