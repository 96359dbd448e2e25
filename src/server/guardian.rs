//! The guardian: stops the server and removes a temporary directory if the owner could not.
//!
//! The guardian is a `sh` process that reads a pipe. Only the owner holds the other end.
//!
//! 1. The owner starts the guardian before any process of PostgreSQL.
//! 2. The owner starts each process of PostgreSQL behind a gate, a `sh` that waits for one line and then becomes the
//!    program. The owner sends the process id to the guardian and opens the gate.
//! 3. The owner tells the guardian when that process has ended and its id may be reused.
//! 4. The pipe ends when the owner drops it, exits, or is killed. The guardian then stops the process known to it,
//!    removes the directory if it is temporary, and ends.
//!
//! Properties: the guardian knows every running process of PostgreSQL, because a gate whose owner dies does not open.
//! It never signals an unrelated process, because the owner withdraws an id as soon as the process is collected. It has
//! its own process group, so Ctrl-C in a terminal does not reach it, and it keeps neither the terminal nor the owner's
//! output open.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::account::Account;
use super::process;

const SCRIPT: &str = include_str!("guardian.sh");

/// Waits for a line, then becomes the program. `exec` keeps the process id that the guardian knows.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// The running guardian. Dropping it makes it act, and waits for that.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
}

/// A program to run under the guardian's supervision.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) arguments: Vec<OsString>,
    pub(super) account: &'a Account,
    /// Its current directory, because the account may have no access to the owner's.
    pub(super) directory: &'a Path,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Guardian {
    /// Starts it; `temporary` is the directory to remove at the end.
    ///
    /// It runs as the owner, not as PostgreSQL's user, because possibly only the owner can remove the directory.
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

    /// Starts `program` in its own process group; the guardian knows the process before the program runs.
    pub(super) fn spawn(&mut self, program: Program<'_>) -> io::Result<Child> {
        let mut command = Command::new("/bin/sh");
        program.account.apply(&mut command);
        process::without_pg_variables(&mut command);
        let mut child = command
            .args(["-c", GATE, "sh"])
            .arg(program.path)
            .args(program.arguments)
            .current_dir(program.directory)
            // Messages in English, on which error detection relies; macOS needs this variable to start at all.
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(program.stdout)
            .stderr(program.stderr)
            .spawn()?;
        self.watch(Some(child.id()));
        // If the gate has already ended, waiting for the child reports it.
        let _ = child.stdin.take().map(|mut gate| gate.write_all(b"go\n"));
        Ok(child)
    }

    /// Tells the guardian which process to stop at the end.
    pub(super) fn watch(&mut self, pid: Option<u32>) {
        let line = format!("{}\n", pid.unwrap_or(0));
        let told = self.process.stdin.as_mut().map(|pipe| pipe.write_all(line.as_bytes()));
        if let Some(Err(error)) = told {
            // The guardian was killed. The server still stops with its owner unless that is killed too.
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

    fn sleeper(guardian: &mut Guardian) -> Child {
        let program = Program {
            path: Path::new("/bin/sh"),
            // As with `initdb`, INT ends the process.
            arguments: ["-c", "trap 'exit 3' INT; while :; do sleep 0.05; done"].map(OsString::from).to_vec(),
            account: &Account::Owner,
            directory: Path::new("/"),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        guardian.spawn(program).unwrap()
    }

    #[test]
    fn the_guardian_ends_the_process_and_removes_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        let mut guardian = Guardian::start(Some(directory.path())).unwrap();
        let mut child = sleeper(&mut guardian);
        assert!(child.try_wait().unwrap().is_none());
        drop(guardian);
        // The trap ends it, or the signal itself if the shell had not yet set the trap.
        assert!(!child.wait().unwrap().success());
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_process_that_is_no_longer_watched_is_left_alone() {
        let mut guardian = Guardian::start(None).unwrap();
        let mut child = sleeper(&mut guardian);
        guardian.watch(None);
        drop(guardian);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_whose_gate_closes_is_not_run() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GATE, "sh", "/bin/sh", "-c", "exit 42"]);
        let mut gate = command.stdin(Stdio::piped()).spawn().unwrap();
        drop(gate.stdin.take());
        assert_eq!(gate.wait().unwrap().code(), Some(1));
    }
}
