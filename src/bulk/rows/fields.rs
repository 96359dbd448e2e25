//! The encoding of a record's fields.

use crate::bulk::spill::SpillError;
use crate::record::Timestamp;
use crate::unit::NameHash;

/// Appends fields to a record. Names come first and in the order of their bytes, so that records are sorted by them.
pub(in crate::bulk) trait PutFields {
    fn put(&mut self, bytes: &[u8]);

    fn put_name(&mut self, name: NameHash) {
        self.put(&name.to_be_bytes());
    }

    fn put_byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    /// A number in as few bytes as possible.
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.put_byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.put_byte(number as u8);
    }

    fn put_int(&mut self, number: i64) {
        self.put(&number.to_be_bytes());
    }

    /// A time in whole microseconds, as all times are.
    fn put_time(&mut self, time: Timestamp) {
        self.put_int(time.timestamp_micros());
    }

    fn put_text(&mut self, text: &str) {
        self.put_number(text.len() as u64);
        self.put(text.as_bytes());
    }

    fn put_maybe_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.put_number(text.len() as u64 + 1);
                self.put(text.as_bytes());
            }
            None => self.put_number(0),
        }
    }

    fn put_names(&mut self, names: impl IntoIterator<Item = NameHash>);
}

impl PutFields for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_names(&mut self, names: impl IntoIterator<Item = NameHash>) {
        let start = self.len();
        self.put(&[0; 4]);
        let mut count = 0_u32;
        for name in names {
            self.put_name(name);
            count += 1;
        }
        self[start..start + 4].copy_from_slice(&count.to_be_bytes());
    }
}

/// An invalid record. Blocks are checksummed, so only a bug in graphsink can produce one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bulk) struct Malformed;

impl From<Malformed> for SpillError {
    fn from(Malformed: Malformed) -> Self {
        Self::Corrupt { path: "a spilled record".into() }
    }
}

/// The unread rest of a record.
#[derive(Debug, Clone, Copy)]
pub(in crate::bulk) struct Fields<'a>(pub(in crate::bulk) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(in crate::bulk) fn name(&mut self) -> Result<NameHash, Malformed> {
        self.array().map(NameHash::from_be_bytes)
    }

    pub(in crate::bulk) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(in crate::bulk) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    pub(in crate::bulk) fn int(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(in crate::bulk) fn upvotes(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(in crate::bulk) fn time(&mut self) -> Result<Timestamp, Malformed> {
        Timestamp::from_timestamp_micros(self.int()?).ok_or(Malformed)
    }

    fn text_of(&mut self, length: u64) -> Result<&'a str, Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }

    pub(in crate::bulk) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.number()?;
        self.text_of(length)
    }

    pub(in crate::bulk) fn maybe_text(&mut self) -> Result<Option<&'a str>, Malformed> {
        match self.number()? {
            0 => Ok(None),
            length => self.text_of(length - 1).map(Some),
        }
    }

    pub(in crate::bulk) fn names(&mut self) -> Result<impl Iterator<Item = NameHash> + use<'a>, Malformed> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        let bytes = self.take(count.checked_mul(16).ok_or(Malformed)?)?;
        Ok(bytes.as_chunks::<16>().0.iter().map(|name| NameHash::from_be_bytes(*name)))
    }

    /// All unread bytes.
    pub(in crate::bulk) const fn rest(self) -> &'a [u8] {
        self.0
    }
}
