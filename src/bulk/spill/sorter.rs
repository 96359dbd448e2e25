//! Sorts more records than memory holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{BlockWriter, SpillFile};
use super::directory::SpillDirectory;
use super::error::SpillError;
use super::merge::{Merged, Run};

/// Maximum number of files that are read at once, whatever the memory: the rest of the process needs some of its open
/// files, and up to three such merges run at once. This is the number for a load with default settings.
const FILES_AT_ONCE: usize = 128;

/// Accepts records in any order, and returns them in the order of their bytes, without duplicates.
///
/// The memory consists of a buffer of records and a buffer of their positions. When one of them is full the records are
/// sorted and duplicates are removed. If less than half remains, the sorter continues in memory; otherwise it writes
/// everything to disk as a run.
#[derive(Debug)]
pub(in crate::bulk) struct Sorter {
    directory: Arc<SpillDirectory>,
    records: Records,
    /// Maximum bytes of records in memory.
    bytes_max: usize,
    /// Maximum number of records in memory.
    records_max: usize,
    runs: Vec<Run>,
    /// Number of records in all runs.
    count: u64,
}

/// Records in memory.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// The position of a record in memory.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its first bytes, which decide most comparisons without reading the others.
    head: u128,
    start: u32,
    length: u32,
}

impl Records {
    fn push(&mut self, record: &[u8]) {
        let mut head = [0; 16];
        let known = record.len().min(16);
        head[..known].copy_from_slice(&record[..known]);
        let (start, length) = (self.bytes.len() as u32, record.len() as u32);
        self.places.push(Place { head: u128::from_be_bytes(head), start, length });
        self.bytes.extend_from_slice(record);
    }

    fn bytes_of(bytes: &[u8], place: Place) -> &[u8] {
        &bytes[place.start as usize..][..place.length as usize]
    }

    /// The record of this rank, once the records are sorted.
    pub(super) fn get(&self, rank: usize) -> Option<&[u8]> {
        self.places.get(rank).map(|place| Self::bytes_of(&self.bytes, *place))
    }

    /// Sorts, and removes duplicates.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let whole = |place: &Place| Self::bytes_of(bytes, *place);
        self.places
            .sort_unstable_by(|left, right| left.head.cmp(&right.head).then_with(|| whole(left).cmp(whole(right))));
        self.places.dedup_by(|left, right| left.head == right.head && whole(left) == whole(right));
    }

    /// Moves the bytes of the remaining records together.
    fn compact(&mut self) {
        self.places.sort_unstable_by_key(|place| place.start);
        let mut end = 0;
        for place in &mut self.places {
            let (start, length) = (place.start as usize, place.length as usize);
            self.bytes.copy_within(start..start + length, end);
            place.start = end as u32;
            end += length;
        }
        self.bytes.truncate(end);
    }

    /// Bytes of the records that remain after sorting.
    fn bytes_left(&self) -> usize {
        self.places.iter().map(|place| place.length as usize).sum()
    }

    fn clear(&mut self) {
        self.places.clear();
        self.bytes.clear();
    }
}

impl Sorter {
    /// A sorter that keeps `memory` bytes in memory. `usual`: bytes of a usual record, by which memory is divided
    /// between records and their positions.
    pub(in crate::bulk) fn new(directory: &Arc<SpillDirectory>, memory: usize, usual: usize) -> Self {
        // Positions are numbers of 32 bits.
        let memory = memory.min(u32::MAX as usize);
        let records_max = (memory / (usual + size_of::<Place>())).max(1);
        let bytes_max = memory.saturating_sub(records_max * size_of::<Place>());
        // Unused capacity takes no memory: the system provides pages when they are first written.
        let records = Records { bytes: Vec::with_capacity(bytes_max), places: Vec::with_capacity(records_max) };
        Self { directory: Arc::clone(directory), records, bytes_max, records_max, runs: Vec::new(), count: 0 }
    }

    /// Adds a record.
    pub(in crate::bulk) fn push(&mut self, record: &[u8]) -> Result<(), SpillError> {
        let places = &self.records.places;
        let is_full = places.len() == self.records_max || self.records.bytes.len() + record.len() > self.bytes_max;
        if is_full && !places.is_empty() {
            self.make_room(record.len())?;
        }
        self.records.push(record);
        Ok(())
    }

    fn make_room(&mut self, wanted: usize) -> Result<(), SpillError> {
        self.records.sort();
        let left = self.records.bytes_left();
        if self.records.places.len() <= self.records_max / 2 && left + wanted <= self.bytes_max / 2 {
            self.records.compact();
            return Ok(());
        }
        self.spill()
    }

    /// Writes the records in memory, which are sorted, as a run.
    fn spill(&mut self) -> Result<(), SpillError> {
        let mut writer = BlockWriter::create(&self.directory)?;
        self.count += self.records.places.len() as u64;
        for place in &self.records.places {
            writer.write_varint(u64::from(place.length))?;
            writer.write(Records::bytes_of(&self.records.bytes, *place))?;
        }
        self.runs.push(Run::File(writer.finish()?));
        self.records.clear();
        if self.records.bytes.capacity() > self.bytes_max {
            // It held a record that is larger than the memory limit.
            self.records.bytes = Vec::with_capacity(self.bytes_max);
        }
        Ok(())
    }

    /// Finishes after the last record. Records in memory are spilled as well, unless memory holds all of them.
    pub(in crate::bulk) fn finish(mut self) -> Result<Sorted, SpillError> {
        self.records.sort();
        if self.runs.is_empty() {
            let mut records = self.records;
            self.count = records.places.len() as u64;
            records.bytes.shrink_to_fit();
            records.places.shrink_to_fit();
            self.runs.push(Run::Memory(Arc::new(records)));
        } else if !self.records.places.is_empty() {
            self.spill()?;
        }
        Ok(Sorted { runs: self.runs, directory: self.directory, count: self.count })
    }
}

/// Records in the order of their bytes, without duplicates.
#[derive(Debug, Clone)]
pub(in crate::bulk) struct Sorted {
    runs: Vec<Run>,
    directory: Arc<SpillDirectory>,
    count: u64,
}

impl Sorted {
    /// Reads them; files are removed as soon as they are read to their ends, unless there is another copy of this.
    /// `memory`: bytes for reading. If there are more runs than this allows, some are first merged into one.
    pub(in crate::bulk) fn into_merged(mut self, memory: usize) -> Result<Merged, SpillError> {
        self.reduce_to(memory)?;
        Merged::new(self.runs)
    }

    /// Merges runs until they can be read with this memory. Records that are read with little memory more than once
    /// should be reduced first.
    pub(in crate::bulk) fn reduce_to(&mut self, memory: usize) -> Result<(), SpillError> {
        let at_once = (memory / self.directory.block_bytes().max(1)).clamp(2, FILES_AT_ONCE);
        while self.runs.len() > at_once {
            // One block is the writer's. As few runs as possible are merged here, because they are read and written
            // once more.
            let excess = self.runs.len() - at_once + 1;
            let now: Vec<Run> = self.runs.drain(..excess.min(at_once - 1).max(2)).collect();
            let read = Arc::default();
            let (merged, written) = write_run(&self.directory, Merged::new(now)?.counted(Arc::clone(&read)))?;
            // Records that were in several of them are now there once.
            self.count -= read.load(Ordering::Relaxed) - written;
            self.runs.push(Run::File(merged));
        }
        Ok(())
    }

    /// Number of records to be read, counted in each run. [Reducing](Self::reduce_to) changes it.
    pub(in crate::bulk) const fn count(&self) -> u64 {
        self.count
    }

    /// Number of runs.
    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }
}

/// Writes a run, and returns its number of records.
fn write_run(directory: &Arc<SpillDirectory>, mut merged: Merged) -> Result<(Arc<SpillFile>, u64), SpillError> {
    let mut writer = BlockWriter::create(directory)?;
    let mut count = 0;
    while let Some(record) = merged.next()? {
        writer.write_varint(record.len() as u64)?;
        writer.write(record)?;
        count += 1;
    }
    Ok((writer.finish()?, count))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sorted(directory: &Arc<SpillDirectory>, records: &[Vec<u8>], memory: usize, usual: usize) -> Sorted {
        let mut sorter = Sorter::new(directory, memory, usual);
        for record in records {
            sorter.push(record).unwrap();
        }
        sorter.finish().unwrap()
    }

    fn read(mut merged: Merged) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Some(record) = merged.next().unwrap() {
            records.push(record.to_vec());
        }
        assert!(merged.next().unwrap().is_none(), "the end is final");
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// Holds for any memory and any records. Few letters, and lengths about that of a head, give records that begin
        /// alike, are equal, or continue one another.
        #[test]
        fn the_order_does_not_depend_on_the_memory(
            records in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 255]), 0..4),
                    prop::collection::vec(prop::sample::select(vec![0_u8, 255]), 14..19),
                    prop::collection::vec(any::<u8>(), 0..120),
                ],
                0..120,
            ),
            memory in prop_oneof![0_usize..400, 400_usize..20_000],
            usual in 1_usize..100,
            block_bytes in 1_usize..200,
            merge_memory in 0_usize..2_000,
        ) {
            let parent = tempfile::tempdir().unwrap();
            let directory = SpillDirectory::create(parent.path(), block_bytes).unwrap();
            let expected: Vec<Vec<u8>> = records.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            let sorted = sorted(&directory, &records, memory, usual);
            prop_assert_eq!(read(sorted.clone().into_merged(merge_memory).unwrap()), expected.clone());
            prop_assert_eq!(read(sorted.into_merged(usize::MAX).unwrap()), expected);
            let load = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path());
            let files = load.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
            prop_assert_eq!(files.count(), 0, "files that were read are removed");
        }
    }

    #[test]
    fn repeated_records_are_not_spilled() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        let records: Vec<Vec<u8>> = (0..100_000_u32).map(|number| (number % 50).to_be_bytes().to_vec()).collect();
        let sorted = sorted(&directory, &records, 8 << 10, 4);
        assert_eq!((sorted.runs(), directory.state().bytes_written()), (1, 0));
        assert_eq!(read(sorted.into_merged(0).unwrap()).len(), 50);
    }

    #[test]
    fn memory_is_bounded_and_many_runs_are_merged_in_passes() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 256).unwrap();
        let mut sorter = Sorter::new(&directory, 16 << 10, 12);
        let mut state = 1_u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sorter.push(&state.to_be_bytes()).unwrap();
            let Records { bytes, places } = &sorter.records;
            assert!(bytes.capacity() + places.capacity() * size_of::<Place>() <= 16 << 10);
        }
        let all = sorter.finish().unwrap();
        assert!(all.runs() > 100, "{}", all.runs());
        let mut reduced = all.clone();
        reduced.reduce_to(5 * 256).unwrap();
        assert!(reduced.runs() <= 5);
        let all = read(reduced.into_merged(5 * 256).unwrap());
        assert!(all.len() == 50_000 && all.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn the_number_of_open_files_is_bounded_whatever_the_memory() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 256).unwrap();
        let records: Vec<Vec<u8>> = (0..3_000_u32).rev().map(|number| number.to_be_bytes().to_vec()).collect();
        let sorted = sorted(&directory, &records, 200, 4);
        assert!(sorted.runs() > 300, "{}", sorted.runs());
        let merged = sorted.into_merged(usize::MAX).unwrap();
        assert!(merged.runs() <= 128, "{}", merged.runs());
        assert_eq!(read(merged), records.into_iter().rev().collect::<Vec<_>>());
    }

    /// Equal records of several runs become one when the runs are merged.
    #[test]
    fn the_count_of_records_equals_those_read_after_merging() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 256).unwrap();
        let records: Vec<Vec<u8>> = (0..4_000_u32).map(|number| (number % 100).to_be_bytes().to_vec()).collect();
        for memory in [1_000, usize::MAX] {
            let mut sorted = sorted(&directory, &records, 200, 4);
            sorted.reduce_to(memory).unwrap();
            let (expected, count) = (sorted.count(), Arc::default());
            let merged = sorted.into_merged(memory).unwrap().counted(Arc::clone(&count));
            assert_eq!(read(merged).len(), 100);
            assert_eq!(count.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn a_record_larger_than_all_memory_is_a_run_of_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        let records = [vec![2; 100], vec![1; 1 << 20], vec![3; 100]];
        let sorted = sorted(&directory, &records, 4 << 10, 100);
        assert!(sorted.runs() > 1);
        assert_eq!(read(sorted.into_merged(4 << 10).unwrap()), [vec![1; 1 << 20], vec![2; 100], vec![3; 100]]);
    }
}
