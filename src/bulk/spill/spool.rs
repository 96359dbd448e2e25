//! Records in the order of writing.

use std::sync::Arc;

use super::block::{BlockReader, BlockWriter, SpillFile};
use super::directory::SpillDirectory;
use super::error::SpillError;

/// Writes records one after the other.
#[derive(Debug)]
pub(in crate::bulk) struct SpoolWriter(BlockWriter);

impl SpoolWriter {
    pub(in crate::bulk) fn create(directory: &Arc<SpillDirectory>) -> Result<Self, SpillError> {
        BlockWriter::create(directory).map(Self)
    }

    pub(in crate::bulk) fn push(&mut self, record: &[u8]) -> Result<(), SpillError> {
        self.0.write_varint(record.len() as u64)?;
        self.0.write(record)
    }

    pub(in crate::bulk) fn finish(self) -> Result<Spool, SpillError> {
        Ok(Spool(self.0.finish()?))
    }

    /// The records, for readers that follow: they wait for those that are not written yet, and fail with
    /// [`SpillError::Ended`] if the writer is dropped before its end.
    pub(in crate::bulk) fn spool(&self) -> Spool {
        Spool(self.0.file())
    }
}

/// Records, to be read any number of times. The file is removed when the last reader and the last copy of this
/// are dropped.
#[derive(Debug, Clone)]
pub(in crate::bulk) struct Spool(Arc<SpillFile>);

impl Spool {
    /// Reads it; it is removed when the reader has finished.
    pub(in crate::bulk) fn into_reader(self) -> SpoolReader {
        SpoolReader { file: Some(self.0), reader: None }
    }
}

/// Reads records in the order in which they were written.
#[derive(Debug)]
pub(in crate::bulk) struct SpoolReader {
    /// The file to be opened on first use.
    file: Option<Arc<SpillFile>>,
    /// `None` once everything was read.
    reader: Option<BlockReader>,
}

impl SpoolReader {
    /// Replaces the content of `record` by the next record; returns false at the end.
    pub(in crate::bulk) fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, SpillError> {
        if let Some(file) = self.file.take() {
            self.reader = Some(BlockReader::open(file)?);
        }
        let Some(reader) = &mut self.reader else { return Ok(false) };
        record.clear();
        let Some(length) = reader.read_varint()? else {
            self.reader = None;
            return Ok(false);
        };
        let length = usize::try_from(length).map_err(|_| SpillError::corrupt(reader.path()))?;
        reader.read_into(length, record)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spool(directory: &Arc<SpillDirectory>, records: &[Vec<u8>]) -> Spool {
        let mut writer = SpoolWriter::create(directory).unwrap();
        for record in records {
            writer.push(record).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(mut reader: SpoolReader) -> Result<Vec<Vec<u8>>, SpillError> {
        let (mut record, mut records) = (Vec::new(), Vec::new());
        while reader.next(&mut record)? {
            records.push(record.clone());
        }
        Ok(records)
    }

    /// The only file in the directory of a load.
    fn only_file(parent: &std::path::Path) -> std::path::PathBuf {
        let directory =
            std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        let mut files = std::fs::read_dir(directory.unwrap()).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn a_spool_returns_the_records_that_were_written(records in records(), block_bytes in 1_usize..300) {
            let parent = tempfile::tempdir().unwrap();
            let directory = SpillDirectory::create(parent.path(), block_bytes).unwrap();
            let spool = spool(&directory, &records);
            prop_assert_eq!(read(spool.clone().into_reader()).unwrap(), records.clone());
            let file = only_file(parent.path());
            prop_assert_eq!(read(spool.into_reader()).unwrap(), records);
            prop_assert!(!file.exists(), "the last reader removes it");
        }

        /// Any byte that changes, is lost, or comes from another file is an error, never another record.
        #[test]
        fn a_changed_byte_of_a_spool_is_an_error(
            records in records(),
            block_bytes in 1_usize..300,
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            cut in any::<bool>(),
        ) {
            let parent = tempfile::tempdir().unwrap();
            let directory = SpillDirectory::create(parent.path(), block_bytes).unwrap();
            let spool = spool(&directory, &records);
            let file = only_file(parent.path());
            let mut bytes = std::fs::read(&file).unwrap();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= flip;
            }
            std::fs::write(&file, &bytes).unwrap();
            let error = read(spool.into_reader()).unwrap_err();
            let is_told = matches!(&error, SpillError::Corrupt { path } if *path == file);
            prop_assert!(is_told, "{}", error);
        }
    }

    #[test]
    fn a_reader_follows_the_writer_to_its_end() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 50).unwrap();
        let mut writer = SpoolWriter::create(&directory).unwrap();
        let reader = writer.spool().into_reader();
        let reading = std::thread::spawn(move || read(reader));
        let records: Vec<Vec<u8>> = (0..200).map(|number| vec![number; usize::from(number)]).collect();
        for record in &records {
            writer.push(record).unwrap();
            std::thread::yield_now();
        }
        assert!(!reading.is_finished(), "the last block is not written");
        writer.finish().unwrap();
        assert_eq!(reading.join().unwrap().unwrap(), records);
    }

    #[test]
    fn a_reader_gets_an_error_if_its_writer_ends_early() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 50).unwrap();
        let mut writer = SpoolWriter::create(&directory).unwrap();
        let reader = writer.spool().into_reader();
        writer.push(&[1; 200]).unwrap();
        let reading = std::thread::spawn(move || read(reader));
        drop(writer);
        assert!(matches!(reading.join().unwrap(), Err(SpillError::Ended)));
    }

    #[test]
    fn a_missing_spool_file_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 100).unwrap();
        let spool = spool(&directory, &[vec![1; 1000]]);
        std::fs::remove_file(only_file(parent.path())).unwrap();
        assert!(matches!(read(spool.into_reader()), Err(SpillError::Read { .. })));
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_directory() {
        if !std::path::Path::new("/dev/full").exists() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 100).unwrap();
        let mut writer = BlockWriter::create(&directory).unwrap();
        writer.replace_file(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let mut writer = SpoolWriter(writer);
        let error = (0..100).find_map(|_| writer.push(&[7; 50]).err()).unwrap();
        assert!(matches!(error, SpillError::Write { .. }));
        assert!(error.to_string().contains("make room there"), "{error}");
    }
}
