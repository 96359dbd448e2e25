//! Collects the lines of one unit as they come.

use std::sync::Arc;

use super::line::{Added, Line};
use super::reason::{LineError, LineReason};
use crate::unit::UnitOfWork;

/// Bytes of lines of one unit. Beyond it the unit is rejected, so that an input which names one unit
/// throughout does not have to fit into memory.
pub const UNIT_LINES_BYTES_MAX: usize = 64 << 20;

/// A line of the input, unchanged.
///
/// ```
/// use graphsink::loader::{Input, Units};
///
/// let line = Input::Reader { name: "a test".to_owned(), reader: Box::new(&b"{}\n"[..]) };
/// let unit = Units::new([line]).next().unwrap().unwrap();
/// assert_eq!((unit.origin.lines[0].number, &*unit.origin.lines[0].record), (1, &b"{}"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct SourceLine {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes without the line feed. Empty if it was too long, or records are not kept. With serde it is text.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "as_text")]
    pub record: Vec<u8>,
    /// The unit's rows up to this line, to determine from which line a row came.
    pub(super) rows: Added,
}

/// Bytes as text, because every valid line is text.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}

/// A line that is not yet part of a unit.
pub(super) struct UnreadLine {
    pub(super) number: u64,
    pub(super) record: Vec<u8>,
    /// Length of the line, even if the record is not kept.
    pub(super) bytes: usize,
    pub(super) line: Result<Line, LineReason>,
}

/// Consecutive lines of one unit.
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) unit: UnitOfWork,
    pub(super) lines: Vec<SourceLine>,
    pub(super) errors: Vec<LineError>,
    /// Lines since the group's last line that are too malformed to name their unit.
    pub(super) strays: Vec<UnreadLine>,
    pub(super) rows: Added,
    pub(super) bytes: usize,
    pub(super) rows_max: usize,
    /// Whether the group was too large, so that its earlier lines were released.
    pub(super) shed: bool,
}

pub(super) struct GroupContent {
    pub(super) id: Option<Arc<str>>,
    pub(super) lines: Vec<SourceLine>,
    pub(super) content: Result<UnitOfWork, Vec<LineError>>,
    pub(super) continues: bool,
}

impl Group {
    pub(super) fn new(id: Arc<str>, rows_max: usize) -> Self {
        Self {
            id,
            unit: UnitOfWork::new(),
            lines: Vec::new(),
            errors: Vec::new(),
            strays: Vec::new(),
            rows: Added::default(),
            bytes: 0,
            rows_max,
            shed: false,
        }
    }

    /// Adds a line of this unit, and the strays between it and the previous line.
    pub(super) fn absorb(&mut self, unread: UnreadLine) {
        for stray in std::mem::take(&mut self.strays) {
            self.add(stray);
        }
        self.add(unread);
    }

    pub(super) fn add(&mut self, unread: UnreadLine) {
        self.bytes += unread.bytes;
        match unread.line {
            Ok(line) => {
                let added = line.add_to(&mut self.unit);
                self.rows.entities += added.entities;
                self.rows.connections += added.connections;
                self.rows.mentions += added.mentions;
            }
            Err(reason) => self.errors.push(LineError { line: unread.number, reason }),
        }
        // Most units have one line, which is kept until the unit's outcome.
        if self.lines.is_empty() {
            self.lines.reserve_exact(1);
        }
        self.lines.push(SourceLine { number: unread.number, record: unread.record, rows: self.rows });
    }

    pub(super) fn is_too_large(&self) -> bool {
        // A single line is judged by the engine alone, by its own limit.
        (self.shed || self.lines.len() > 1) && (self.unit.rows() > self.rows_max || self.bytes > UNIT_LINES_BYTES_MAX)
            || self.shed && !self.lines.is_empty()
    }

    pub(super) fn stray_bytes(&self) -> usize {
        // A line has a size even if its bytes were skipped.
        self.strays.iter().map(|stray| stray.bytes + size_of::<UnreadLine>()).sum()
    }

    /// Rejects the group's lines, but keeps the information that further lines belong to it.
    pub(super) fn shed(&mut self) -> GroupContent {
        let rest = Self {
            shed: true,
            strays: std::mem::take(&mut self.strays),
            ..Self::new(Arc::clone(&self.id), self.rows_max)
        };
        let mut group = std::mem::replace(self, rest);
        let reason = LineReason::UnitTooLarge { rows: group.rows_max, bytes: UNIT_LINES_BYTES_MAX };
        let last = group.lines.last().map_or(0, |line| line.number);
        if group.errors.is_empty() {
            group.errors.push(LineError { line: last, reason });
        }
        group.finish()
    }

    pub(super) fn finish(self) -> GroupContent {
        let content = if self.errors.is_empty() { Ok(self.unit) } else { Err(self.errors) };
        GroupContent { id: Some(self.id), lines: self.lines, content, continues: self.shed }
    }
}
