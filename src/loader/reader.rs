//! Units of work from any number of inputs, one after another, in bounded memory.
//!
//! An input is a file, standard input or any reader; gzip (also of several members) and zstd are told
//! by their first bytes, whatever the name. Held in memory are one line of at most
//! [`LINE_BYTES_MAX`] and the lines of the unit that is being put together, at most
//! [`UNIT_ROWS_MAX`] rows and [`UNIT_BYTES_MAX`] bytes of them.
//!
//! A bad line is an item, not the end. What cannot be read on (a gzip file that ends too early) is
//! the last item, after everything before it.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{Added, Line, LineError, LineReason, unit_of_bad_line};
use crate::record::Table;
use crate::unit::{Row, UnitOfWork};

/// Bytes of the longest line that is read. A longer one is skipped without being held.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of lines of one unit. Beyond it the unit is rejected, so that an input which names one unit
/// throughout does not have to fit into memory.
pub const UNIT_BYTES_MAX: usize = 64 << 20;
/// Rows of one unit unless [`Units::unit_rows_max`] says otherwise: the engine's own default.
pub const UNIT_ROWS_MAX: usize = 10_000;

/// Bytes that one call of the operating system reads.
const READ_BYTES: usize = 256 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A skippable zstd frame (its first byte is 0x50 to 0x5f), with which some compressors begin.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Where lines come from.
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// Anything else, under a name for messages.
    Reader {
        /// The name.
        name: String,
        /// The bytes.
        reader: Box<dyn Read + Send>,
    },
}

impl Input {
    /// A path as a command line gives it: `-` is standard input.
    #[must_use]
    pub fn from_arg(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }

    /// The name in messages: the path as given, or `-`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
            Self::Reader { name, .. } => name.clone(),
        }
    }

    fn open(self, bytes: &Arc<Progress>) -> io::Result<Box<dyn BufRead + Send>> {
        let raw: Box<dyn Read + Send> = match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Stdin => Box::new(io::stdin()),
            Self::Reader { reader, .. } => reader,
        };
        let mut raw = Peeked { head: Vec::new(), raw: Counted { raw, progress: Arc::clone(bytes) } };
        let head = raw.peek(4)?;
        let skippable = head.len() == 4 && head[0] & 0xf0 == 0x50 && head[1..] == ZSTD_SKIPPABLE;
        let mut lines: Box<dyn BufRead + Send> = if head.starts_with(&GZIP_MAGIC) {
            let buffered = BufReader::with_capacity(READ_BYTES, raw);
            Box::new(BufReader::with_capacity(READ_BYTES, flate2::bufread::MultiGzDecoder::new(buffered)))
        } else if head == ZSTD_MAGIC || skippable {
            Box::new(BufReader::with_capacity(READ_BYTES, zstd::stream::read::Decoder::new(raw)?))
        } else {
            Box::new(BufReader::with_capacity(READ_BYTES, raw))
        };
        // A byte-order mark is shorter than any line of the format, but a pipe may deliver it in pieces.
        let mut mark = Vec::with_capacity(BYTE_ORDER_MARK.len());
        lines.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut mark)?;
        if mark == BYTE_ORDER_MARK {
            mark.clear();
        }
        Ok(Box::new(io::Cursor::new(mark).chain(lines)))
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Input").field(&self.name()).finish()
    }
}

/// How far the reading has come, for whoever watches from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    lines: AtomicU64,
}

impl Progress {
    /// Bytes read of all inputs as they are stored, that is before decompression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lines read that are not blank.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

/// Why an input could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{input} cannot be read beyond line {line}")]
pub struct ReadError {
    /// The input's name.
    pub input: Arc<str>,
    /// The last line that was read whole; 0 when the input could not be opened.
    pub line: u64,
    /// What the system, or the decompressor, said.
    #[source]
    pub source: io::Error,
}

/// A line as it stood in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes without the line feed. Empty where it was too long, or records are not kept.
    pub record: Vec<u8>,
    /// The unit's rows up to this line, to tell which line a row came from.
    rows: Added,
}

/// One unit of the input.
#[derive(Debug)]
pub struct InputUnit {
    /// Where it came from.
    pub origin: Origin,
    /// The unit, or every line that keeps it from being one.
    pub content: Result<UnitOfWork, Vec<LineError>>,
}

/// The lines that a unit came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The input's name.
    pub input: Arc<str>,
    /// What the lines call the unit; nothing where a line is a unit on its own.
    pub id: Option<Arc<str>>,
    /// The lines, at least one.
    pub lines: Vec<SourceLine>,
    /// Whether this is the rest of a unit that was too large: not to be counted again.
    pub continues: bool,
}

impl Origin {
    /// The line that a row of the unit came from.
    #[must_use]
    pub fn line_of(&self, row: Row) -> Option<u64> {
        let rows = |added: Added| match row.table {
            Table::Entities => added.entities,
            Table::Connections => added.connections,
            Table::Mentions => added.mentions,
        };
        self.lines.iter().find(|line| row.index < rows(line.rows)).map(|line| line.number)
    }
}

/// Iterates over the units of inputs, in the order given.
pub struct Units {
    inputs: VecDeque<Input>,
    open: Option<OpenInput>,
    /// Lines of one unit that followed each other so far.
    group: Option<Group>,
    ready: VecDeque<InputUnit>,
    failed: Option<ReadError>,
    progress: Arc<Progress>,
    keep_records: bool,
    unit_rows_max: usize,
    /// The line that was read last.
    record: Vec<u8>,
}

struct OpenInput {
    name: Arc<str>,
    lines: Box<dyn BufRead + Send>,
    /// Lines read so far, blank ones too.
    number: u64,
}

impl Units {
    /// Reads these inputs one after the other. Nothing is opened before the first unit is asked for.
    #[must_use]
    pub fn new(inputs: impl IntoIterator<Item = Input>) -> Self {
        Self {
            inputs: inputs.into_iter().collect(),
            open: None,
            group: None,
            ready: VecDeque::new(),
            failed: None,
            progress: Arc::default(),
            keep_records: true,
            unit_rows_max: UNIT_ROWS_MAX,
            record: Vec::new(),
        }
    }

    /// Whether units carry the bytes of their lines. Default: true.
    #[must_use]
    pub fn keep_records(mut self, keep: bool) -> Self {
        self.keep_records = keep;
        self
    }

    /// Rows beyond which a unit is rejected without being put together. Default: [`UNIT_ROWS_MAX`].
    #[must_use]
    pub fn unit_rows_max(mut self, rows: usize) -> Self {
        self.unit_rows_max = rows;
        self
    }

    /// How far the reading has come.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Reads one line, or opens the next input. Nothing more to read: false.
    fn advance(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let Some(open) = &mut self.open else {
            return match self.inputs.pop_front() {
                Some(input) => {
                    self.open(input);
                    true
                }
                None => false,
            };
        };
        self.record.clear();
        match read_line(&mut open.lines, &mut self.record) {
            Ok(None) => {
                self.close_group();
                self.open = None;
            }
            Ok(Some(fits)) => {
                open.number += 1;
                let number = open.number;
                let line = if fits {
                    Line::parse(&self.record)
                } else {
                    Err(LineReason::LineTooLong { limit: LINE_BYTES_MAX })
                };
                self.absorb(number, line);
            }
            Err(source) => {
                let (input, line) = (Arc::clone(&open.name), open.number);
                self.cut_off();
                self.failed = Some(ReadError { input, line, source });
            }
        }
        true
    }

    fn open(&mut self, input: Input) {
        let name: Arc<str> = input.name().into();
        match input.open(&self.progress) {
            Ok(lines) => self.open = Some(OpenInput { name, lines, number: 0 }),
            Err(source) => self.failed = Some(ReadError { input: name, line: 0, source }),
        }
    }

    /// Takes one line into the group that it belongs to, or ends the group.
    fn absorb(&mut self, number: u64, line: Result<Option<Line>, LineReason>) {
        let line = match line {
            Ok(None) => return,
            Ok(Some(line)) => Ok(line),
            Err(reason) => Err(reason),
        };
        self.progress.lines.fetch_add(1, Ordering::Relaxed);
        let named = match &line {
            Ok(line) => line.unit().map(str::to_owned),
            Err(_) => unit_of_bad_line(&self.record),
        };
        let bytes = self.record.len();
        let record = if self.keep_records { self.record.clone() } else { Vec::new() };
        let unread = UnreadLine { number, record, bytes, line };
        match (named, &mut self.group) {
            (Some(id), Some(group)) if *group.id == *id => group.absorb(unread),
            (Some(id), _) => {
                self.close_group();
                let mut group = Group::new(id.into(), self.unit_rows_max);
                group.absorb(unread);
                self.group = Some(group);
            }
            // It may lie within the unit of the lines around it: the next line tells.
            (None, Some(group)) if unread.line.is_err() => group.strays.push(unread),
            (None, _) => {
                self.close_group();
                self.emit_alone(unread);
            }
        }
        self.shed_too_large();
    }

    /// Lets go of a group that grew too large: first what it holds, then each further line.
    fn shed_too_large(&mut self) {
        let Some(group) = &mut self.group else { return };
        if group.stray_bytes() > UNIT_BYTES_MAX {
            self.close_group();
        } else if group.is_too_large() {
            let shed = group.shed();
            self.emit(shed);
        }
    }

    fn close_group(&mut self) {
        if let Some(mut group) = self.group.take() {
            let strays = std::mem::take(&mut group.strays);
            if !group.lines.is_empty() {
                self.emit(group.finish());
            }
            for stray in strays {
                self.emit_alone(stray);
            }
        }
    }

    /// The input broke off: a unit of several lines may lack some.
    fn cut_off(&mut self) {
        if let Some(group) = &mut self.group {
            let errors = group.lines.iter().map(|line| LineError { line: line.number, reason: LineReason::UnitCutOff });
            group.errors.extend(errors);
        }
        self.close_group();
    }

    fn emit_alone(&mut self, unread: UnreadLine) {
        let mut alone = Group::new("".into(), self.unit_rows_max);
        alone.add(unread);
        let mut content = alone.finish();
        content.id = None;
        self.emit(content);
    }

    fn emit(&mut self, unit: GroupContent) {
        let input = self.open.as_ref().map(|open| Arc::clone(&open.name)).expect("lines come from an open input");
        let GroupContent { id, lines, content, continues } = unit;
        self.ready.push_back(InputUnit { origin: Origin { input, id, lines, continues }, content });
    }
}

impl Iterator for Units {
    type Item = Result<InputUnit, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(unit) = self.ready.pop_front() {
                return Some(Ok(unit));
            }
            if !self.advance() {
                // An input that failed is the end: what follows may depend on it.
                self.inputs.clear();
                self.open = None;
                return self.failed.take().map(Err);
            }
        }
    }
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Units").field("inputs", &self.inputs).field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// A line that is not yet part of a unit.
struct UnreadLine {
    number: u64,
    record: Vec<u8>,
    /// Length of the line, also where the record is not kept.
    bytes: usize,
    line: Result<Line, LineReason>,
}

/// Lines of one unit that follow each other.
struct Group {
    id: Arc<str>,
    unit: UnitOfWork,
    lines: Vec<SourceLine>,
    errors: Vec<LineError>,
    /// Lines too broken to tell their unit, since the group's last line.
    strays: Vec<UnreadLine>,
    rows: Added,
    bytes: usize,
    rows_max: usize,
    /// Whether the group was too large, so that the lines before were let go.
    shed: bool,
}

struct GroupContent {
    id: Option<Arc<str>>,
    lines: Vec<SourceLine>,
    content: Result<UnitOfWork, Vec<LineError>>,
    continues: bool,
}

impl Group {
    fn new(id: Arc<str>, rows_max: usize) -> Self {
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

    /// Adds a line of this unit, and the strays that lie between it and the line before.
    fn absorb(&mut self, unread: UnreadLine) {
        for stray in std::mem::take(&mut self.strays) {
            self.add(stray);
        }
        self.add(unread);
    }

    fn add(&mut self, unread: UnreadLine) {
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
        self.lines.push(SourceLine { number: unread.number, record: unread.record, rows: self.rows });
    }

    fn is_too_large(&self) -> bool {
        // A single line is judged by the engine alone, by its own limit.
        (self.shed || self.lines.len() > 1) && (self.unit.rows() > self.rows_max || self.bytes > UNIT_BYTES_MAX)
            || self.shed && !self.lines.is_empty()
    }

    fn stray_bytes(&self) -> usize {
        // A line has a size even where its bytes were skipped.
        self.strays.iter().map(|stray| stray.bytes + size_of::<UnreadLine>()).sum()
    }

    /// Rejects what the group holds, keeping what tells that further lines belong to it.
    fn shed(&mut self) -> GroupContent {
        let rest = Self {
            shed: true,
            strays: std::mem::take(&mut self.strays),
            ..Self::new(Arc::clone(&self.id), self.rows_max)
        };
        let mut group = std::mem::replace(self, rest);
        let reason = LineReason::UnitTooLarge { rows: group.rows_max, bytes: UNIT_BYTES_MAX };
        let last = group.lines.last().map_or(0, |line| line.number);
        if group.errors.is_empty() {
            group.errors.push(LineError { line: last, reason });
        }
        group.finish()
    }

    fn finish(self) -> GroupContent {
        let content = if self.errors.is_empty() { Ok(self.unit) } else { Err(self.errors) };
        GroupContent { id: Some(self.id), lines: self.lines, content, continues: self.shed }
    }
}

/// Reads one line without its line feed (and without a carriage return before it). Nothing at the
/// end; false where the line was longer than [`LINE_BYTES_MAX`], which is then skipped.
fn read_line(lines: &mut dyn BufRead, record: &mut Vec<u8>) -> io::Result<Option<bool>> {
    let read = (&mut *lines).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', record)?;
    if read == 0 {
        return Ok(None);
    }
    if record.last() == Some(&b'\n') {
        record.pop();
        if record.last() == Some(&b'\r') {
            record.pop();
        }
    } else if record.len() > LINE_BYTES_MAX {
        *record = Vec::new();
        lines.skip_until(b'\n')?;
        return Ok(Some(false));
    }
    Ok(Some(true))
}

/// Counts the bytes that come from outside.
struct Counted {
    raw: Box<dyn Read + Send>,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.progress.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A reader whose first bytes can be looked at.
struct Peeked {
    head: Vec<u8>,
    raw: Counted,
}

impl Peeked {
    /// The first bytes, fewer only where the input is shorter.
    fn peek(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        self.raw.by_ref().take(bytes).read_to_end(&mut self.head)?;
        Ok(self.head.clone())
    }
}

impl Read for Peeked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.raw.read(buffer);
        }
        let count = buffer.len().min(self.head.len());
        buffer[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::io::Write as _;

    fn line(unit: Option<&str>, id: &str) -> String {
        let unit = unit.map_or_else(String::new, |unit| format!(r#""unit":"{unit}","#));
        let source =
            format!(r#"{{"type":"post","id":"{id}","url":"u","subreddit":"s","created_at":"2024-01-01T00:00:00Z"}}"#);
        format!(
            r#"{{{unit}"restaurant":{{"normalized_name":"r"}},"dish_or_category":{{"normalized_name":"d"}},"source":{source}}}"#
        )
    }

    fn bytes(name: &str, bytes: impl Into<Vec<u8>>) -> Input {
        Input::Reader { name: name.to_owned(), reader: Box::new(io::Cursor::new(bytes.into())) }
    }

    /// Each unit as "id: lines", and "!rules" behind it where it is bad.
    fn units(units: Units) -> Vec<String> {
        let show = |unit: Result<InputUnit, ReadError>| match unit {
            Ok(unit) => {
                let lines: Vec<String> = unit.origin.lines.iter().map(|line| line.number.to_string()).collect();
                let mut shown = format!("{}:{}", unit.origin.id.as_deref().unwrap_or("-"), lines.join(","));
                if unit.origin.continues {
                    shown += "+";
                }
                for error in unit.content.err().unwrap_or_default() {
                    write!(shown, " !{}@{}", error.reason.rule(), error.line).unwrap();
                }
                shown
            }
            Err(error) => format!("{error}: {:?}", error.source.kind()),
        };
        units.map(show).collect()
    }

    fn check(lines: &[&str], expected: &[&str]) {
        assert_eq!(units(Units::new([bytes("in", lines.join("\n"))])), expected);
    }

    #[test]
    fn lines_that_follow_each_other_are_one_unit() {
        let [a, b, alone] = [&*line(Some("a"), "1"), &*line(Some("b"), "2"), &*line(None, "3")];
        check(&[alone, alone], &["-:1", "-:2"]);
        check(&[a, a, b, alone, a], &["a:1,2", "b:3", "-:4", "a:5"]);
        check(&[a, "", " ", a, ""], &["a:1,4"]);
        check(&[], &[]);
        check(&["", "\r"], &[]);
    }

    #[test]
    fn a_bad_line_makes_its_unit_bad() {
        let [a, b, alone] = [&*line(Some("a"), "1"), &*line(Some("b"), "2"), &*line(None, "3")];
        let bad_a = r#"{"unit":"a"}"#;
        check(&[alone, "x", alone], &["-:1", "-:2 !not_json@2", "-:3"]);
        check(&[a, bad_a, a, b], &["a:1,2,3 !missing_field@2", "b:4"]);
        check(&[bad_a, a], &["a:1,2 !missing_field@1"]);
        check(&[a, bad_a], &["a:1,2 !missing_field@2"]);
        // A line that does not tell its unit belongs to the unit around it.
        check(&[a, "x", "y", a], &["a:1,2,3,4 !not_json@2 !not_json@3"]);
        check(&[a, "x", b], &["a:1", "-:2 !not_json@2", "b:3"]);
        check(&[a, "x", alone], &["a:1", "-:2 !not_json@2", "-:3"]);
        check(&[a, "x"], &["a:1", "-:2 !not_json@2"]);
        check(&["x", a], &["-:1 !not_json@1", "a:2"]);
    }

    #[test]
    fn a_unit_ends_with_its_input() {
        let a = line(Some("a"), "1");
        let inputs = [bytes("one", format!("{a}\n{a}")), bytes("two", a.as_str())];
        let read: Vec<_> = Units::new(inputs).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|unit| &*unit.origin.input).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((read[0].origin.lines.len(), read[1].origin.lines[0].number), (2, 1));
    }

    #[test]
    fn a_unit_that_is_too_large_is_let_go() {
        let (a, b) = (line(Some("a"), "1"), line(Some("b"), "2"));
        let input = || bytes("in", [&*a, &*a, &*a, &*a, &*b].join("\n"));
        // Each line has four rows.
        assert_eq!(units(Units::new([input()]).unit_rows_max(16)), ["a:1,2,3,4", "b:5"]);
        assert_eq!(
            units(Units::new([input()]).unit_rows_max(10)),
            ["a:1,2,3 !unit_too_large@3", "a:4+ !unit_too_large@4", "b:5"]
        );
        assert_eq!(units(Units::new([bytes("in", b.as_str())]).unit_rows_max(1)), ["b:1"], "left to the engine");
    }

    #[test]
    fn rows_lead_back_to_their_lines() {
        let text = [line(Some("a"), "1"), String::new(), line(Some("a"), "2")].join("\r\n");
        let unit = Units::new([bytes("in", text)]).next().unwrap().unwrap();
        let line = |table, index| unit.origin.line_of(Row { table, index });
        assert_eq!((line(Table::Entities, 1), line(Table::Entities, 2)), (Some(1), Some(3)));
        assert_eq!((line(Table::Mentions, 0), line(Table::Mentions, 1)), (Some(1), Some(3)));
        assert_eq!(line(Table::Connections, 2), None);
        assert_eq!(unit.origin.lines[1].record, super::tests::line(Some("a"), "2").into_bytes(), "without CR LF");
    }

    #[test]
    fn records_are_kept_on_request() {
        let text = format!("{}\nx", line(None, "1"));
        let read: Vec<_> = Units::new([bytes("in", text)]).keep_records(false).map(Result::unwrap).collect();
        assert!(read.iter().all(|unit| unit.origin.lines[0].record.is_empty()));
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let long = [&br#"{"unit":""#[..], &vec![b'x'; LINE_BYTES_MAX], b"\"}\n"].concat();
        let good = line(None, "1");
        let text = [&long[..], good.as_bytes(), b"\n", &long[..long.len() - 1]].concat();
        let read: Vec<_> = Units::new([bytes("in", text)]).map(Result::unwrap).collect();
        assert_eq!(read.len(), 3);
        let rule = |unit: &InputUnit| unit.content.as_ref().err().map(|errors| errors[0].reason.rule());
        assert_eq!(
            (rule(&read[0]), rule(&read[1]), rule(&read[2])),
            (Some("line_too_long"), None, Some("line_too_long"))
        );
        assert!(read[0].origin.lines[0].record.is_empty());
        let padded = good.clone() + &" ".repeat(LINE_BYTES_MAX - good.len());
        assert_eq!(units(Units::new([bytes("in", padded)])), ["-:1"], "the longest line that is read");
    }

    #[test]
    fn compression_is_told_by_content() {
        let (one, two) = (line(None, "1") + "\n", line(None, "2"));
        let gzip = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7][..], &zstd(&one), &zstd(&two)].concat();
        for stored in [
            [one.as_bytes(), two.as_bytes()].concat(),
            [gzip(&one), gzip(&two)].concat(),
            [zstd(&one), zstd(&two)].concat(),
            skippable,
            [&BYTE_ORDER_MARK[..], one.as_bytes(), two.as_bytes()].concat(),
            gzip(&format!("\u{feff}{one}{two}")),
        ] {
            let length = stored.len() as u64;
            let units_read = Units::new([bytes("in", stored)]);
            let progress = units_read.progress();
            assert_eq!(units(units_read), ["-:1", "-:2"]);
            assert_eq!((progress.bytes(), progress.lines()), (length, 2));
        }
    }

    #[test]
    fn an_input_that_breaks_off_is_the_last_item() {
        let text: String = (0..2_000).map(|id| line(None, &format!("{}", id * 7_919 % 2_003)) + "\n").collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        let whole = encoder.finish().unwrap();
        for stored in [whole[..whole.len() / 2].to_vec(), zstd::encode_all(text.as_bytes(), 1).unwrap()[..300].to_vec()]
        {
            let mut read: Vec<_> = Units::new([bytes("in", stored), bytes("next", line(None, "1"))]).collect();
            let error = read.pop().unwrap().unwrap_err();
            assert_eq!(error.line, read.len() as u64);
            assert!(read.iter().all(|unit| unit.as_ref().is_ok_and(|unit| unit.content.is_ok())));
        }
        let missing = units(Units::new([Input::from_arg("/nowhere/at all")]));
        assert_eq!(missing, ["/nowhere/at all cannot be read beyond line 0: NotFound"]);
    }

    #[test]
    fn a_unit_within_which_the_input_breaks_off_is_bad() {
        struct Broken(io::Cursor<Vec<u8>>);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::ErrorKind::ConnectionReset.into()),
                    read => Ok(read),
                }
            }
        }
        let a = line(Some("a"), "1");
        let reader = Broken(io::Cursor::new(format!("{}\n{a}\n{a}\n{{", line(None, "0")).into_bytes()));
        let input = Input::Reader { name: "in".to_owned(), reader: Box::new(reader) };
        assert_eq!(
            units(Units::new([input])),
            ["-:1", "a:2,3 !unit_cut_off@2 !unit_cut_off@3", "in cannot be read beyond line 3: ConnectionReset"]
        );
    }
}
