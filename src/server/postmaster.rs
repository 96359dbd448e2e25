//! The process: start, readiness, stop, crash.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::binaries::Binaries;
use super::cluster::{Cluster, LockFile, POLL, Status, tail};
use super::error::ServerError;
use super::guardian::{Guardian, Program};
use super::process::{self, Signal};

/// Time limit for a start. Only the recovery of much WAL takes long; a process that dies is detected at once.
const START_MAX: Duration = Duration::from_mins(10);

/// The escalation of a stop: the signals, and the time that the process has to react. A fast shutdown writes a
/// checkpoint.
const STOP: [(Signal, &str, Duration); 3] = [
    (Signal::Int, "SIGINT", Duration::from_mins(1)),
    (Signal::Quit, "SIGQUIT", Duration::from_secs(10)),
    (Signal::Kill, "SIGKILL", Duration::from_secs(10)),
];

/// A running postmaster. Dropping it stops it and blocks until it is gone.
#[derive(Debug)]
pub(super) struct Postmaster {
    process: Child,
}

impl Postmaster {
    /// Starts the server and returns when it accepts connections.
    pub(super) async fn start(
        binaries: &Binaries,
        cluster: &Cluster,
        guardian: &mut Guardian,
        settings: &[(String, String)],
        port: u16,
        log: &Path,
    ) -> Result<Self, ServerError> {
        let output = File::options().create(true).append(true).open(log).map_err(ServerError::io("open", log))?;
        let log_start = output.metadata().map_err(ServerError::io("read", log))?.len();
        let postgres = binaries.postgres();
        let spawn = || {
            guardian.spawn(Program {
                path: &postgres,
                arguments: arguments(cluster, settings, port),
                account: &cluster.account,
                directory: cluster.directory(),
                stdout: output.try_clone()?.into(),
                stderr: output.into(),
            })
        };
        let process = spawn().map_err(ServerError::io("run", &postgres))?;
        let mut postmaster = Self { process };

        let lock_file = cluster.data().join("postmaster.pid");
        let started = Instant::now();
        while !postmaster.is_ready(&lock_file) {
            let failure = match postmaster.exited()? {
                Some(status) => status.to_string(),
                None if started.elapsed() > START_MAX => format!("not ready after {} s", START_MAX.as_secs()),
                None => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            drop(postmaster);
            guardian.watch(None);
            return Err(start_error(failure, &read_from(log, log_start), port));
        }
        Ok(postmaster)
    }

    /// Stops it with a fast shutdown, and with stronger signals if that does not suffice.
    pub(super) async fn stop(&mut self) -> Result<(), ServerError> {
        for (signal, _, patience) in STOP {
            let asked = Instant::now();
            self.send(signal)?;
            while asked.elapsed() < patience {
                if self.exited()?.is_some() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Err(self.stuck())
    }

    /// Kills it and its children, as a failure of the machine would, and waits until they have ended.
    pub(super) fn crash(&mut self) -> Result<(), ServerError> {
        let (signal, _, patience) = STOP[2];
        if self.exited()?.is_some() {
            return Ok(());
        }
        // It forks a child for each client: no fork may occur between the listing and the kill.
        let sent =
            |signal, pids: &[u32]| process::send(signal, pids).map_err(ServerError::io("run", Path::new("/bin/sh")));
        sent(Signal::Stop, &[self.process.id()])?;
        let mut pids = process::children(self.process.id());
        pids.push(self.process.id());
        sent(signal, &pids)?;
        let killed = Instant::now();
        // The next start would refuse to share the memory of a surviving child.
        while self.exited()?.is_none() || pids.iter().any(|pid| process::is_running(*pid)) {
            if killed.elapsed() > patience {
                return Err(self.stuck());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn stop_blocking(&mut self) -> Result<(), ServerError> {
        for (signal, _, patience) in STOP {
            let asked = Instant::now();
            self.send(signal)?;
            while asked.elapsed() < patience {
                if self.exited()?.is_some() {
                    return Ok(());
                }
                thread::sleep(POLL);
            }
        }
        Err(self.stuck())
    }

    fn send(&mut self, signal: Signal) -> Result<(), ServerError> {
        // Once the process is collected, its id may belong to another process.
        if self.exited()?.is_some() {
            return Ok(());
        }
        process::send(signal, &[self.process.id()]).map_err(ServerError::io("run", Path::new("/bin/sh")))
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        self.process.try_wait().map_err(ServerError::io("wait for", Path::new("postgres")))
    }

    fn is_ready(&self, lock_file: &Path) -> bool {
        LockFile::read(lock_file) == Some(LockFile { pid: self.process.id(), status: Status::Ready })
    }

    fn stuck(&self) -> ServerError {
        let (_, signal, patience) = STOP[2];
        ServerError::Stop { pid: self.process.id(), signal, seconds: patience.as_secs() }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if let Err(error) = self.stop_blocking() {
            tracing::error!(%error, "an embedded PostgreSQL does not stop");
        }
    }
}

fn arguments(cluster: &Cluster, settings: &[(String, String)], port: u16) -> Vec<OsString> {
    let mut sockets = OsString::from("unix_socket_directories=");
    if let Some(folder) = cluster.usable_socket_folder() {
        // The value is a list; an item that contains a comma must be quoted.
        sockets.push(format!("\"{}\"", folder.display().to_string().replace('"', "\"\"")));
    }
    let mut arguments = vec!["-D".into(), cluster.data().into(), "-c".into(), sockets];
    let own = ["listen_addresses=127.0.0.1", "logging_collector=off", "log_destination=stderr", "lc_messages=C"];
    let own = own.into_iter().map(str::to_owned).chain([format!("port={port}")]);
    let all = settings.iter().map(|(name, value)| format!("{name}={value}")).chain(own);
    arguments.extend(all.flat_map(|setting| [OsString::from("-c"), setting.into()]));
    arguments
}

fn start_error(reason: String, log: &str, port: u16) -> ServerError {
    if log.contains("could not create any TCP/IP sockets") {
        ServerError::PortTaken { port }
    } else {
        ServerError::Start { reason, log: tail(log) }
    }
}

/// The server's log since `start`. The log explains an error; if it is unreadable, the error must still be reported.
fn read_from(log: &Path, start: u64) -> String {
    let read = || {
        let mut text = Vec::new();
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut text)?;
        std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| format!("({} could not be read: {error})", log.display()))
}
