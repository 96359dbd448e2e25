//! Units of work from any number of inputs, one after another, in bounded memory.
//!
//! Held in memory are one line of at most [`LINE_BYTES_MAX`] and the lines of the unit that is being
//! put together, at most [`UNIT_ROWS_MAX`] rows and [`UNIT_LINES_BYTES_MAX`] bytes of them.
//!
//! A bad line is an item, not the end. A read error (such as a truncated gzip file) is the last item, after everything
//! before it.

use std::collections::VecDeque;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::diagnosis::unit_of_bad_line;
use super::group::{Group, GroupContent, SourceLine, UNIT_LINES_BYTES_MAX, UnreadLine};
use super::input::{Input, LINE_BYTES_MAX, Progress, ReadError, read_line};
use super::line::{Added, Line};
use super::reason::{LineError, LineReason};
use crate::config::UNIT_ROWS_DEFAULT;
use crate::record::Table;
use crate::unit::{Row, UnitOfWork};

/// Rows of one unit unless [`Units::unit_rows_max`] says otherwise: the engine's own default.
pub const UNIT_ROWS_MAX: usize = UNIT_ROWS_DEFAULT;

/// One unit of the input.
///
/// ```
/// use graphsink::loader::{Input, Sample, Units};
///
/// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
/// for unit in Units::new([sample]) {
///     match unit.unwrap().content {
///         Ok(unit) => assert!(unit.rows() > 0),
///         Err(errors) => panic!("{errors:?}"),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct InputUnit {
    /// Its origin.
    pub origin: Origin,
    /// The unit, or every line that prevents it.
    pub content: Result<UnitOfWork, Vec<LineError>>,
}

/// The lines of a unit.
///
/// ```
/// use graphsink::loader::{Input, Sample, Units};
///
/// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
/// let unit = Units::new([sample]).next().unwrap().unwrap();
/// assert_eq!((&*unit.origin.input, unit.origin.lines[0].number), ("sample", 1));
/// ```
///
/// With serde it can be stored until the unit's outcome is known, which in a bulk load is at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The input's name.
    pub input: Arc<str>,
    /// The unit's name in the lines; `None` if the line is a unit by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Arc<str>>,
    /// The lines, at least one.
    pub lines: Vec<SourceLine>,
    /// Whether this is the rest of a unit that was too large: it must not be counted again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

impl Origin {
    /// The line from which a row of the unit came.
    ///
    /// ```
    /// use graphsink::loader::{Input, Sample, Units};
    ///
    /// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
    /// use graphsink::{Row, Table};
    ///
    /// let unit = Units::new([sample]).next().unwrap().unwrap();
    /// assert_eq!(unit.origin.line_of(Row { table: Table::Entities, index: 0 }), Some(1));
    /// ```
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
///
/// ```
/// use graphsink::loader::{Input, Sample, Units};
///
/// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
/// let units: Result<Vec<_>, _> = Units::new([sample]).collect();
/// assert!(!units.unwrap().is_empty());
/// ```
pub struct Units {
    inputs: VecDeque<Input>,
    open: Option<OpenInput>,
    /// Consecutive lines of one unit so far.
    group: Option<Group>,
    ready: VecDeque<InputUnit>,
    failed: Option<ReadError>,
    progress: Arc<Progress>,
    keep_records: bool,
    unit_rows_max: usize,
    /// The last line read.
    record: Vec<u8>,
}

struct OpenInput {
    name: Arc<str>,
    lines: Box<dyn BufRead + Send>,
    /// Number of lines read so far, including blank ones.
    number: u64,
}

impl Units {
    /// Reads these inputs one after the other. Nothing is opened before the first unit is requested.
    ///
    /// ```
    /// use graphsink::loader::{Input, Sample, Units};
    ///
    /// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
    /// assert!(Units::new([sample]).next().is_some());
    /// ```
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
    ///
    /// ```
    /// use graphsink::loader::{Input, Sample, Units};
    ///
    /// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
    /// let unit = Units::new([sample]).keep_records(false).next().unwrap().unwrap();
    /// assert!(unit.origin.lines[0].record.is_empty(), "less memory");
    /// ```
    #[must_use]
    pub fn keep_records(mut self, keep: bool) -> Self {
        self.keep_records = keep;
        self
    }

    /// Number of rows beyond which a unit is rejected without being collected. Default: [`UNIT_ROWS_MAX`].
    ///
    /// ```
    /// use graphsink::loader::{Input, Sample, Units};
    ///
    /// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
    /// // As many as the engine takes.
    /// assert!(Units::new([sample]).unit_rows_max(500).next().is_some());
    /// ```
    #[must_use]
    pub fn unit_rows_max(mut self, rows: usize) -> Self {
        self.unit_rows_max = rows;
        self
    }

    /// The progress of reading.
    ///
    /// ```
    /// use graphsink::loader::{Input, Sample, Units};
    ///
    /// let sample = Input::Reader { name: "sample".to_owned(), reader: Box::new(Sample::new(7, 3).into_reader()) };
    /// let units = Units::new([sample]);
    /// let progress = units.progress();
    /// assert!(units.count() > 0);
    /// assert_eq!(progress.lines(), 3);
    /// ```
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Reads one line, or opens the next input. Returns false if there is nothing more to read.
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

    /// Adds one line to its group, or ends the group.
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
            // It may belong to the unit of the lines around it, which depends on the next line.
            (None, Some(group)) if unread.line.is_err() => group.strays.push(unread),
            (None, _) => {
                self.close_group();
                self.emit_alone(unread);
            }
        }
        self.shed_too_large();
    }

    /// Releases a group that grew too large: first its lines, then each further line.
    fn shed_too_large(&mut self) {
        let Some(group) = &mut self.group else { return };
        if group.stray_bytes() > UNIT_LINES_BYTES_MAX {
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

    /// Handles an input that was cut off: a unit of several lines may lack some.
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
                // A failed input is the end, because later inputs may depend on it.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::io::{self, Read};

    pub(in crate::loader) fn line(unit: Option<&str>, id: &str) -> String {
        let unit = unit.map_or_else(String::new, |unit| format!(r#""unit":"{unit}","#));
        let source =
            format!(r#"{{"type":"post","id":"{id}","url":"u","subreddit":"s","created_at":"2024-01-01T00:00:00Z"}}"#);
        format!(
            r#"{{{unit}"restaurant":{{"normalized_name":"r"}},"dish_or_category":{{"normalized_name":"d"}},"source":{source}}}"#
        )
    }

    pub(in crate::loader) fn bytes(name: &str, bytes: impl Into<Vec<u8>>) -> Input {
        Input::Reader { name: name.to_owned(), reader: Box::new(io::Cursor::new(bytes.into())) }
    }

    /// Each unit as "id: lines", followed by "!rules" if it is bad.
    pub(in crate::loader) fn units(units: Units) -> Vec<String> {
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
    fn consecutive_lines_of_one_unit_id_are_one_unit() {
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
        // A line without a readable unit id belongs to the unit around it.
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
    fn a_unit_that_is_too_large_is_not_kept_in_memory() {
        let (a, b) = (line(Some("a"), "1"), line(Some("b"), "2"));
        let input = || bytes("in", [&*a, &*a, &*a, &*a, &*b].join("\n"));
        // Each line has four rows.
        assert_eq!(units(Units::new([input()]).unit_rows_max(16)), ["a:1,2,3,4", "b:5"]);
        assert_eq!(
            units(Units::new([input()]).unit_rows_max(10)),
            ["a:1,2,3 !unit_too_large@3", "a:4+ !unit_too_large@4", "b:5"]
        );
        assert_eq!(
            units(Units::new([bytes("in", b.as_str())]).unit_rows_max(1)),
            ["b:1"],
            "a unit of one line is left to the engine"
        );
    }

    #[test]
    fn each_row_of_a_unit_leads_back_to_its_line() {
        let text = [line(Some("a"), "1"), String::new(), line(Some("a"), "2")].join("\r\n");
        let unit = Units::new([bytes("in", text)]).next().unwrap().unwrap();
        let line = |table, index| unit.origin.line_of(Row { table, index });
        assert_eq!((line(Table::Entities, 1), line(Table::Entities, 2)), (Some(1), Some(3)));
        assert_eq!((line(Table::Mentions, 0), line(Table::Mentions, 1)), (Some(1), Some(3)));
        assert_eq!(line(Table::Connections, 2), None);
        assert_eq!(unit.origin.lines[1].record, super::tests::line(Some("a"), "2").into_bytes(), "without CR LF");
    }

    #[test]
    fn records_are_empty_where_keeping_them_is_turned_off() {
        let text = format!("{}\nx", line(None, "1"));
        let read: Vec<_> = Units::new([bytes("in", text)]).keep_records(false).map(Result::unwrap).collect();
        assert!(read.iter().all(|unit| unit.origin.lines[0].record.is_empty()));
    }

    #[test]
    fn a_unit_cut_off_by_the_end_of_a_broken_input_is_bad() {
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
