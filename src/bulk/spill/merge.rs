//! The merge of several sorted runs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

use super::block::{BlockReader, SpillFile};
use super::error::SpillError;
use super::sorter::Records;

/// Sorted records without duplicates.
#[derive(Debug, Clone)]
pub(super) enum Run {
    File(Arc<SpillFile>),
    Memory(Arc<Records>),
}

/// Reads several runs in the order of the records' bytes; a record that is in several runs is read once.
#[derive(Debug)]
pub(in crate::bulk) struct Merged {
    /// The next record of each run that has one.
    heads: BinaryHeap<Head>,
    current: Vec<u8>,
    has_begun: bool,
    /// Counts the records read from each run.
    count: Option<Arc<AtomicU64>>,
}

impl Merged {
    pub(super) fn new(runs: Vec<Run>) -> Result<Self, SpillError> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for run in runs {
            let mut head = Head { record: Vec::new(), rest: Rest::open(run)? };
            if head.advance()? {
                heads.push(head);
            }
        }
        Ok(Self { heads, current: Vec::new(), has_begun: false, count: None })
    }

    /// Counts records while they are read.
    pub(in crate::bulk) fn counted(self, count: Arc<AtomicU64>) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Number of runs that are not at their ends.
    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.heads.len()
    }

    /// The next record.
    pub(in crate::bulk) fn next(&mut self) -> Result<Option<&[u8]>, SpillError> {
        while let Some(mut first) = self.heads.peek_mut() {
            let is_new = !self.has_begun || first.record != self.current;
            if is_new {
                // The run's next record overwrites the current one.
                std::mem::swap(&mut self.current, &mut first.record);
                self.has_begun = true;
            }
            if let Some(count) = &self.count {
                count.fetch_add(1, AtomicOrdering::Relaxed);
            }
            if !first.advance()? {
                // This drops its file as well.
                PeekMut::pop(first);
            }
            if is_new {
                return Ok(Some(&self.current));
            }
        }
        Ok(None)
    }
}

/// A run's next record, and the rest of the run.
#[derive(Debug)]
struct Head {
    record: Vec<u8>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    File(BlockReader),
    Memory(Arc<Records>, usize),
}

impl Rest {
    fn open(run: Run) -> Result<Self, SpillError> {
        match run {
            Run::File(file) => BlockReader::open(file).map(Self::File),
            Run::Memory(records) => Ok(Self::Memory(records, 0)),
        }
    }
}

impl Head {
    /// Advances to the run's next record; returns false at its end.
    fn advance(&mut self) -> Result<bool, SpillError> {
        self.record.clear();
        match &mut self.rest {
            Rest::File(reader) => {
                let Some(length) = reader.read_varint()? else { return Ok(false) };
                let length = usize::try_from(length).map_err(|_| SpillError::corrupt(reader.path()))?;
                reader.read_into(length, &mut self.record)?;
            }
            Rest::Memory(records, next) => {
                let Some(record) = records.get(*next) else { return Ok(false) };
                self.record.extend_from_slice(record);
                *next += 1;
            }
        }
        Ok(true)
    }
}

/// Reversed, so that the heap's greatest is the smallest record.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.record.cmp(&self.record)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Eq for Head {}
