//! Checks of the server's log: errors by SQLSTATE, deadlocks and their parties, sessions, and entries that must not
//! occur.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use graphsink::server::EmbeddedServer;

use crate::AnyError;
use crate::inject::HOSTILE;
use crate::ledger::Ledger;
use crate::stage::ROLE;

/// Errors that only a bug of the engine causes: a row twice in one statement, a wrong use of the protocol or of SQL, a
/// value in the wrong format.
const BUGS: [&str; 8] = ["21000", "08P01", "22P03", "42601", "42703", "42883", "42P02", "42P18"];

#[derive(Debug, Default)]
pub(crate) struct Log {
    read_until: u64,
    /// Errors of the engines' statements, by SQLSTATE.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Deadlocks with other clients.
    pub(crate) deadlocks: u64,
    /// Sessions of the engines' role.
    pub(crate) sessions: u64,
}

impl Log {
    /// Reads the entries since the last call.
    pub(crate) fn read(&mut self, server: &EmbeddedServer, ledger: &Ledger) -> Result<(), AnyError> {
        let mut file = File::open(server.log_path())?;
        file.seek(SeekFrom::Start(self.read_until))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.read_until += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        let panics: Vec<String> = text.lines().filter(|line| line.contains("PANIC:")).map(str::to_owned).collect();
        ledger.check_none("the server panicked", &panics);
        let mut bugs = Vec::new();
        let mut own_deadlocks = Vec::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line.contains(&format!("connection authorized: user={ROLE}")) {
                self.sessions += 1;
            }
            if !line.contains(&format!(" {ROLE} ERROR:")) && !line.contains(&format!(" {ROLE} FATAL:")) {
                // The other party may be the one that gets the error of a deadlock.
                if !line.contains("deadlock detected") {
                    continue;
                }
            }
            let code = line.split_once("] ").map_or("", |(_, rest)| rest.get(..5).unwrap_or_default());
            *self.errors.entry(code.to_owned()).or_default() += 1;
            tracing::debug!(line, "the server said");
            // The lines of the entry: details have the same prefix, statements of several lines are indented.
            let mut all = line.to_owned();
            while let Some(next) = lines.next_if(|line| {
                line.starts_with('\t')
                    || [" DETAIL:", " HINT:", " CONTEXT:", " STATEMENT:"].iter().any(|word| line.contains(word))
            }) {
                all.push('\n');
                all.push_str(next);
            }
            if line.contains("deadlock detected") {
                if all.contains(HOSTILE) {
                    self.deadlocks += 1;
                } else {
                    own_deadlocks.push(all);
                }
            } else if BUGS.contains(&code) {
                bugs.push(all);
            }
        }
        ledger.check_none("engines are in a deadlock with each other", &own_deadlocks);
        ledger.check_none("the server refused what an engine must never send", &bugs);
        Ok(())
    }
}
