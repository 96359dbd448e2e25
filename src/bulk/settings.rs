//! Settings of a bulk load, and how its memory is divided.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::TransactionSettings;

/// Settings of a [`BulkLoad`](crate::BulkLoad), besides those of the [`Config`](crate::Config).
///
/// ```
/// use graphsink::BulkSettings;
///
/// let settings = BulkSettings::default().memory(512 << 20).spill_directory("/var/tmp").keep_outcomes(true);
/// assert_eq!(settings, BulkSettings::default().spill_directory("/var/tmp").memory(512 << 20).keep_outcomes(true));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct BulkSettings {
    pub(super) memory: usize,
    pub(super) spill_directory: PathBuf,
    pub(super) keep_outcomes: bool,
    pub(super) expected_input_bytes: Option<u64>,
    pub(super) readers_wait: Duration,
    /// Tests have no five minutes.
    #[cfg(test)]
    pub(super) fate_wait_min: Option<Duration>,
}

impl Default for BulkSettings {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            spill_directory: std::env::temp_dir(),
            keep_outcomes: false,
            expected_input_bytes: None,
            readers_wait: Duration::from_hours(1),
            #[cfg(test)]
            fate_wait_min: None,
        }
    }
}

impl BulkSettings {
    /// Bytes that the load may keep in memory, whatever the length of the input: units on their way, what is sorted,
    /// and what is read of sorted files at once. Default: 256 MiB. More: fewer files, and all in memory where the input
    /// fits. Less: more files, which are merged in passes where there are very many. A unit that is larger by itself is
    /// let in when nothing else is on its way. A table's records take 4 GiB of it at most: of 8 GiB all is used, of
    /// more a part.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().memory(64 << 20);
    /// ```
    pub const fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// The directory for files of what outgrows memory. It must exist; in it the load makes a directory of its own,
    /// which goes with the load, and removes those that killed loads left. Default: the system's temporary directory,
    /// which on some systems is memory: name one on a disk there.
    ///
    /// At most it took 0.6 bytes for each byte of JSON lines with short texts (of 98 MB), and 1.3 with texts of 2,000
    /// bytes: the texts of a connection's best mentions are there twice while mentions are written. A table's files are
    /// read together, and go at their ends. Where memory is so small that files are merged in passes first, those of
    /// one table may be there twice.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().spill_directory("/var/tmp");
    /// ```
    pub fn spill_directory(mut self, directory: impl AsRef<Path>) -> Self {
        directory.as_ref().clone_into(&mut self.spill_directory);
        self
    }

    /// Whether the load keeps what became of each unit, with the ids of its rows and its temp ids, to be read from
    /// [`BulkReport::outcomes`](crate::BulkReport::outcomes). Default: no. It takes 16 bytes a row in the spill
    /// directory, and the labels. Rejected units are always reported.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().keep_outcomes(true);
    /// ```
    pub const fn keep_outcomes(mut self, keep: bool) -> Self {
        self.keep_outcomes = keep;
        self
    }

    /// Bytes of the input's text, where that is known: [`BulkLoad::begin`](crate::BulkLoad::begin) refuses a spill
    /// directory that has not 1.5 times as much room, rather than find out hours later. Default: not known; then the
    /// directory must have as much room as the load has memory, which is what is spilled at first. Unix alone can tell
    /// how much room there is.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().expected_input_bytes(40 << 30);
    /// ```
    pub const fn expected_input_bytes(mut self, bytes: u64) -> Self {
        self.expected_input_bytes = Some(bytes);
        self
    }

    /// Bytes that the spill directory must have room for.
    pub(super) const fn room_needed(&self) -> u64 {
        let Some(bytes) = self.expected_input_bytes else { return self.memory as u64 };
        bytes.saturating_mul(ROOM_TENTHS) / 10
    }

    /// How long the load waits for readers of the tables when all is sorted and rows are to be written. Default: one
    /// hour. It is tried for a moment, again and again, with pauses in which other readers come and go;
    /// [`BulkProgress::step`](crate::BulkProgress::step) tells which sessions are in the way. When the time is over the
    /// load fails ([`BulkStoreError::Locked`](crate::BulkStoreError::Locked)), and what it sorted is lost. Longer than
    /// the longest backup or report is right.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().readers_wait(std::time::Duration::from_secs(6 * 3600));
    /// ```
    pub const fn readers_wait(mut self, wait: Duration) -> Self {
        self.readers_wait = wait;
        self
    }

    /// What of it is for the server's side.
    pub(super) fn of_transaction(&self) -> TransactionSettings {
        let settings = TransactionSettings { readers_wait: self.readers_wait, ..TransactionSettings::default() };
        #[cfg(test)]
        let settings =
            TransactionSettings { fate_wait_min: self.fate_wait_min.unwrap_or(settings.fate_wait_min), ..settings };
        settings
    }

    pub(super) const fn division(&self) -> Division {
        let memory = self.memory;
        let sorting = memory / 4 * 3;
        Division {
            entities: sorting / 8,
            connections: sorting / 4,
            mentions: sorting / 8 * 5,
            in_flight: memory / 8,
            log: memory / 64,
            claimants: memory / 16,
            merging: memory / 4,
            block: if memory >> 10 < BLOCK_MIN {
                BLOCK_MIN
            } else if memory >> 10 > BLOCK_MAX {
                BLOCK_MAX
            } else {
                memory >> 10
            },
        }
    }
}

/// Tenths of the input's bytes that its files are taken to need: somewhat more than was measured with long texts, see
/// [`BulkSettings::spill_directory`].
const ROOM_TENTHS: u64 = 15;

/// Smaller blocks are mostly head.
const BLOCK_MIN: usize = 512;
/// Larger ones are read no faster.
const BLOCK_MAX: usize = 256 << 10;

/// Parts of the memory of a load, in bytes.
///
/// Three quarters are for sorting. A usual unit has five entities, most of which were stated by others before, one
/// connection, and one mention, whose record is two to three times as long as the connection's: with these parts their
/// sorters are full at about the same time. When units are on their way no more and the sorters are done, a quarter is
/// there for what is read of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) entities: usize,
    pub(super) connections: usize,
    pub(super) mentions: usize,
    /// For units that were accepted and are not sorted in yet.
    pub(super) in_flight: usize,
    /// For refusals.
    pub(super) log: usize,
    /// For ids of Google's and the restaurants that claim them, until there are no more units.
    pub(super) claimants: usize,
    pub(super) merging: usize,
    /// What is written, read and checked at once.
    pub(super) block: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_no_more_than_the_whole() {
        for memory in [0, 1, 1 << 16, 256 << 20, usize::MAX] {
            let Division { entities, connections, mentions, in_flight, log, claimants, merging, block } =
                BulkSettings::default().memory(memory).division();
            let sorted = entities + connections + mentions;
            assert!(sorted + in_flight + log + claimants <= memory && sorted + merging <= memory, "{memory}");
            assert!((BLOCK_MIN..=BLOCK_MAX).contains(&block));
        }
        assert_eq!(BulkSettings::default().division().block, 256 << 10);
    }

    #[test]
    fn the_room_that_is_needed_follows_from_the_input_or_from_the_memory() {
        let settings = BulkSettings::default().memory(64 << 20);
        assert_eq!(settings.room_needed(), 64 << 20);
        assert_eq!(settings.clone().expected_input_bytes(1_000).room_needed(), 100 * ROOM_TENTHS);
        assert!(settings.expected_input_bytes(u64::MAX).room_needed() > 1 << 60);
    }
}
