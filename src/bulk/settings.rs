//! Settings of a bulk load, and the division of its memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::TransactionSettings;

/// Settings of a [`BulkLoad`](crate::BulkLoad), in addition to those of the [`Config`](crate::Config).
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
    /// Shorter in tests, which cannot wait five minutes.
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
    /// Maximum memory of the load in bytes, whatever the length of the input: units on their way to the sorters,
    /// sorters, and buffers for reading sorted files. Default: 256 MiB. More: fewer files, or none if the input fits.
    /// Less: more files, which are merged in passes if there are very many. A unit that is larger than its part is
    /// admitted when no other is on its way. A table's records use 4 GiB of it at most: 8 GiB are used completely, more
    /// only in part.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().memory(64 << 20);
    /// ```
    pub const fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// The directory for spilled files. It must exist. The load creates its own directory in it, which is removed with
    /// the load, and removes directories that killed loads left. Default: the system's temporary directory. On some
    /// systems that is memory: choose a directory on a disk there.
    ///
    /// Measured maximum: 0.6 bytes for each byte of JSON lines with short texts (98 MB), and 1.3 with texts of 2,000
    /// bytes, because the texts of a connection's best mentions are stored twice while mentions are written. A table's
    /// files are read together, and removed at their ends. If memory is so small that files are first merged in passes,
    /// the files of one table may be stored twice.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().spill_directory("/var/tmp");
    /// ```
    pub fn spill_directory(mut self, directory: impl AsRef<Path>) -> Self {
        directory.as_ref().clone_into(&mut self.spill_directory);
        self
    }

    /// Whether the load keeps the outcome of each unit, with the ids of its rows and its temp ids, to be read from
    /// [`BulkReport::outcomes`](crate::BulkReport::outcomes). Default: no. This takes 16 bytes a row in the spill
    /// directory, plus the labels. Rejected units are always reported.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().keep_outcomes(true);
    /// ```
    pub const fn keep_outcomes(mut self, keep: bool) -> Self {
        self.keep_outcomes = keep;
        self
    }

    /// Bytes of the input's text, if known: [`BulkLoad::begin`](crate::BulkLoad::begin) then refuses a spill directory
    /// with less than 1.5 times as much free space, instead of failing hours later. Default: unknown; then the
    /// directory must have as much space as the load has memory, which is what is spilled first. The free space is only
    /// known on Unix.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().expected_input_bytes(40 << 30);
    /// ```
    pub const fn expected_input_bytes(mut self, bytes: u64) -> Self {
        self.expected_input_bytes = Some(bytes);
        self
    }

    /// Bytes that must be free in the spill directory.
    pub(super) const fn room_needed(&self) -> u64 {
        let Some(bytes) = self.expected_input_bytes else { return self.memory as u64 };
        bytes.saturating_mul(ROOM_TENTHS) / 10
    }

    /// How long the load waits for readers of the tables, at most, when it replaces them or, in place, is about to write.
    /// Default: one hour. The load tries to lock the tables for a moment, again and again, with pauses in which other readers
    /// proceed; [`BulkProgress::step`](crate::BulkProgress::step) names the blocking sessions. When the time is over
    /// the load fails ([`BulkStoreError::Locked`](crate::BulkStoreError::Locked)), and all its work is lost. Choose
    /// a time longer than the longest backup or report.
    ///
    /// ```
    /// let settings = graphsink::BulkSettings::default().readers_wait(std::time::Duration::from_secs(6 * 3600));
    /// ```
    pub const fn readers_wait(mut self, wait: Duration) -> Self {
        self.readers_wait = wait;
        self
    }

    /// The settings for the transaction.
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

/// Space assumed for the files, in tenths of the input's bytes: slightly more than was measured with long texts, see
/// [`BulkSettings::spill_directory`].
const ROOM_TENTHS: u64 = 15;

/// Smaller blocks consist mostly of their header.
const BLOCK_MIN: usize = 512;
/// Larger blocks are not read faster.
const BLOCK_MAX: usize = 256 << 10;

/// The division of a load's memory, in bytes.
///
/// Three quarters are for sorting. A usual unit has five entities, most of which earlier units stated, one connection,
/// and one mention, whose record is two to three times as long as the connection's: with these parts their sorters are
/// full at about the same time. When no units are on their way any more and the sorters have finished, a quarter is
/// used for reading their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) entities: usize,
    pub(super) connections: usize,
    pub(super) mentions: usize,
    /// For units that were accepted and are not yet sorted.
    pub(super) in_flight: usize,
    /// For the log of rejected units.
    pub(super) log: usize,
    /// For Google ids and the restaurants that claim them, until the last unit.
    pub(super) claimants: usize,
    pub(super) merging: usize,
    /// The size of a block, which is written, read and checked at once.
    pub(super) block: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_memory_never_exceed_the_whole() {
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
    fn the_disk_space_needed_follows_from_the_input_or_from_the_memory() {
        let settings = BulkSettings::default().memory(64 << 20);
        assert_eq!(settings.room_needed(), 64 << 20);
        assert_eq!(settings.clone().expected_input_bytes(1_000).room_needed(), 100 * ROOM_TENTHS);
        assert!(settings.expected_input_bytes(u64::MAX).room_needed() > 1 << 60);
    }
}
