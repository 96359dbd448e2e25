//! Inputs: sources of bytes, decompression, and splitting into lines.
//!
//! An input is a file, standard input or any reader; gzip (also with several members) and zstd are recognized by their
//! first bytes, whatever the name.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum length of a line in bytes. A longer line is skipped without being held in memory.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes read by one system call.
const READ_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A skippable zstd frame (its first byte is 0x50 to 0x5f), with which some compressors begin.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A source of lines.
///
/// ```
/// use graphsink::loader::Input;
///
/// let lines = Input::Reader { name: "a test".to_owned(), reader: Box::new(&b"{}"[..]) };
/// assert_eq!(lines.name(), "a test");
/// ```
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// Any other reader, with a name for messages.
    Reader {
        /// The name.
        name: String,
        /// The bytes.
        reader: Box<dyn Read + Send>,
    },
}

impl Input {
    /// Parses a command-line path: `-` is standard input.
    ///
    /// ```
    /// use graphsink::loader::Input;
    ///
    /// assert_eq!(Input::from_arg("mentions.jsonl.gz").name(), "mentions.jsonl.gz");
    /// ```
    #[must_use]
    pub fn from_arg(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }

    /// The name in messages: the path as given, or `-`.
    ///
    /// ```
    /// use graphsink::loader::Input;
    ///
    /// assert_eq!(Input::from_arg("-").name(), "-");
    /// ```
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
            Self::Reader { name, .. } => name.clone(),
        }
    }

    pub(super) fn open(self, bytes: &Arc<Progress>) -> io::Result<Box<dyn BufRead + Send>> {
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

/// The progress of reading, for an observer on another thread.
///
/// ```
/// use graphsink::loader::{Input, Units};
///
/// let units = Units::new([Input::from_arg("mentions.jsonl.gz")]);
/// let progress = units.progress(); // for another thread
/// assert_eq!((progress.bytes(), progress.lines()), (0, 0));
/// ```
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    pub(super) lines: AtomicU64,
}

impl Progress {
    /// Bytes read from all inputs as stored, that is before decompression.
    ///
    /// ```
    /// assert_eq!(graphsink::loader::Progress::default().bytes(), 0);
    /// ```
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of non-blank lines read.
    ///
    /// ```
    /// assert_eq!(graphsink::loader::Progress::default().lines(), 0);
    /// ```
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

/// Why an input could not be read to its end.
///
/// ```
/// use graphsink::loader::{Input, Units};
///
/// let error = Units::new([Input::from_arg("no such file")]).next().unwrap().unwrap_err();
/// assert_eq!((error.to_string().as_str(), error.line), ("no such file cannot be read beyond line 0", 0));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{input} cannot be read beyond line {line}")]
#[non_exhaustive]
pub struct ReadError {
    /// The input's name.
    pub input: Arc<str>,
    /// The last line that was read completely; 0 if the input could not be opened.
    pub line: u64,
    /// The error of the system or of the decompressor.
    #[source]
    pub source: io::Error,
}

/// Reads one line without its line feed (and without a carriage return before it). `None` at the end; false if the line
/// was longer than [`LINE_BYTES_MAX`], which is then skipped.
pub(super) fn read_line(lines: &mut dyn BufRead, record: &mut Vec<u8>) -> io::Result<Option<bool>> {
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

/// Counts the bytes read from a source.
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

/// A reader whose first bytes can be peeked at.
struct Peeked {
    head: Vec<u8>,
    raw: Counted,
}

impl Peeked {
    /// The first bytes, fewer only if the input is shorter.
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
    use std::io::Write as _;

    use super::*;
    use crate::loader::units::tests::{bytes, line, units};
    use crate::loader::units::{InputUnit, Units};

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
        assert_eq!(units(Units::new([bytes("in", padded)])), ["-:1"], "a line of the maximum length is read");
    }

    #[test]
    fn compression_is_detected_by_content() {
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
    fn an_input_that_breaks_off_ends_with_its_error() {
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
}
