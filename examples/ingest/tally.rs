//! Counts of the units' outcomes, and the file of the rejected units.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use graphsink::loader::{LineError, Origin, SourceLine};
use graphsink::{InvalidUnit, Rejection, Unavailable};
use serde::Serialize;
use serde_json::Value;

use crate::AnyError;

/// Maximum number of line errors that a unit's reason quotes.
const QUOTED_ERRORS_MAX: usize = 5;

/// Counts of one producer, or of all producers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lines: u64,
    pub(crate) units: u64,
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    pub(crate) unavailable: u64,
    /// By rule.
    pub(crate) reasons: BTreeMap<String, Reason>,
    /// The first unit whose outcome is unknown.
    pub(crate) first_unavailable: Option<String>,
    first_submit: Option<Instant>,
    last_outcome: Option<Instant>,
}

/// Units that were rejected for the same reason.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reason {
    pub(crate) units: u64,
    /// The position of the first one, and its error.
    pub(crate) first: String,
}

impl Tally {
    pub(crate) fn read(&mut self, origin: &Origin) {
        self.lines += origin.lines.len() as u64;
        self.units += u64::from(!origin.continues);
    }

    pub(crate) fn submitting(&mut self) {
        self.first_submit.get_or_insert_with(Instant::now);
    }

    /// Notes that a unit has its outcome; all of them, in a bulk load.
    pub(crate) fn answered(&mut self) {
        self.last_outcome = Some(Instant::now());
    }

    pub(crate) fn committed(&mut self, units: u64) {
        self.committed += units;
    }

    pub(crate) fn refused_lines(
        &mut self,
        origin: &Origin,
        errors: &[LineError],
        rejects: Option<&Rejects>,
    ) -> Result<(), AnyError> {
        let first = errors.first().expect("a unit without errors is a unit");
        let reason = if origin.lines.len() == 1 {
            first.reason.to_string()
        } else {
            let quoted = errors.iter().take(QUOTED_ERRORS_MAX).map(ToString::to_string);
            let unquoted = errors.len().saturating_sub(QUOTED_ERRORS_MAX);
            let more = (unquoted > 0).then(|| format!("and {unquoted} more"));
            quoted.chain(more).collect::<Vec<_>>().join("; ")
        };
        self.reject(origin, first.reason.rule(), Some(first.line), &reason, rejects)
    }

    pub(crate) fn refused_unit(
        &mut self,
        origin: &Origin,
        invalid: &InvalidUnit,
        rejects: Option<&Rejects>,
    ) -> Result<(), AnyError> {
        let line = invalid.row().and_then(|row| origin.line_of(row));
        self.reject(origin, invalid.rule(), line, &invalid.to_string(), rejects)
    }

    pub(crate) fn rejected(
        &mut self,
        origin: &Origin,
        rejection: &Rejection,
        rejects: Option<&Rejects>,
    ) -> Result<(), AnyError> {
        let line = rejection.row.and_then(|row| origin.line_of(row));
        let mut rule = format!("sqlstate_{}", rejection.sqlstate);
        if let Some(constraint) = &rejection.constraint {
            rule = format!("{rule}:{constraint}");
        }
        self.reject(origin, &rule, line, &rejection.to_string(), rejects)
    }

    pub(crate) fn unavailable(&mut self, origin: &Origin, unavailable: &Unavailable) {
        self.unavailable += 1;
        let line = origin.lines[0].number;
        self.first_unavailable
            .get_or_insert_with(|| format!("{}:{line}: {}", origin.input, crate::with_causes(unavailable)));
    }

    /// Notes that the engine accepts no more units.
    pub(crate) fn not_accepted(&mut self) {
        self.unavailable += 1;
    }

    fn reject(
        &mut self,
        origin: &Origin,
        rule: &str,
        line: Option<u64>,
        reason: &str,
        rejects: Option<&Rejects>,
    ) -> Result<(), AnyError> {
        self.rejected += u64::from(!origin.continues);
        let line = line.unwrap_or(origin.lines[0].number);
        let counted = self
            .reasons
            .entry(rule.to_owned())
            .or_insert_with(|| Reason { units: 0, first: format!("{}:{line}: {reason}", origin.input) });
        counted.units += u64::from(!origin.continues);
        match rejects {
            Some(rejects) => rejects.write(origin, rule, line, reason),
            None => Ok(()),
        }
    }

    /// Adds the counts of another producer.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.lines += other.lines;
        self.units += other.units;
        self.committed += other.committed;
        self.rejected += other.rejected;
        self.unavailable += other.unavailable;
        for (rule, reason) in other.reasons {
            self.reasons.entry(rule).and_modify(|own| own.units += reason.units).or_insert(reason);
        }
        self.first_unavailable = self.first_unavailable.take().or(other.first_unavailable);
        self.first_submit = self.first_submit.into_iter().chain(other.first_submit).min();
        self.last_outcome = self.last_outcome.max(other.last_outcome);
    }

    /// From the first submit to the last outcome.
    pub(crate) fn elapsed(&self) -> Duration {
        let elapsed =
            self.first_submit.zip(self.last_outcome).map(|(first, last)| last.saturating_duration_since(first));
        elapsed.unwrap_or_default()
    }
}

/// The file of rejected units, one JSON line each, in the order of their rejection.
#[derive(Debug)]
pub(crate) struct Rejects {
    path: String,
    file: Mutex<BufWriter<File>>,
}

#[derive(Serialize)]
struct RejectedUnit<'a> {
    line: u64,
    input: &'a str,
    rule: &'a str,
    reason: &'a str,
    record: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<Value>>,
}

impl Rejects {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Self, AnyError> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|error| format!("{name} cannot be written: {error}"))?;
        Ok(Self { path: name, file: Mutex::new(BufWriter::new(file)) })
    }

    fn write(&self, origin: &Origin, rule: &str, line: u64, reason: &str) -> Result<(), AnyError> {
        let several = origin.lines.len() > 1;
        let blamed = origin.lines.iter().find(|own| own.number == line);
        let rejected = RejectedUnit {
            line,
            input: &origin.input,
            rule,
            reason,
            record: blamed.map(record),
            unit: origin.id.as_deref(),
            lines: several.then(|| origin.lines.iter().map(|line| line.number).collect()),
            records: several.then(|| origin.lines.iter().map(record).collect()),
        };
        let mut text = serde_json::to_vec(&rejected)?;
        text.push(b'\n');
        let mut file = self.file.lock().expect("nothing panics while it writes");
        file.write_all(&text).map_err(|error| self.failed(&error))
    }

    /// Writes buffered data.
    pub(crate) fn finish(&self) -> Result<(), AnyError> {
        let mut file = self.file.lock().expect("nothing panics while it writes");
        file.flush().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> AnyError {
        format!("{} cannot be written: {error}", self.path).into()
    }
}

/// The line as JSON, or as text if it is not JSON.
fn record(line: &SourceLine) -> Value {
    serde_json::from_slice(&line.record).unwrap_or_else(|_| String::from_utf8_lossy(&line.record).into())
}
