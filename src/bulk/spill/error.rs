//! Errors of spilled files.

use std::io;
use std::path::{Path, PathBuf};

/// Why a bulk load cannot keep its sorted data. The database is as it was before.
///
/// ```
/// use graphsink::SpillError;
///
/// fn advice(error: &SpillError) -> &'static str {
///     match error {
///         SpillError::Directory { .. } => "choose a directory that can be written",
///         SpillError::NoRoom { .. } | SpillError::Write { .. } => "make room on the disk, or choose another one",
///         _ => "run the load again",
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The directory cannot be used.
    #[error(
        "nothing can be spilled to {}: name a directory that exists, can be written, and is on a disk with file locks",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The disk has less free space than the load is expected to need.
    #[error(
        "{} has {} MiB free, and the load is expected to need {} MiB there: make room, or spill to another directory",
        path.display(), free >> 20, needed.div_ceil(1 << 20)
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes: see [`BulkSettings::expected_input_bytes`](crate::BulkSettings::expected_input_bytes).
        needed: u64,
    },
    /// A file could not be written.
    #[error("cannot write {}: make room there, or spill to another directory, and run the load again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {} again: check the disk, and run the load again", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The data read differs from the data written.
    #[error(
        "{} is not what was written to it: check the disk and other programs that write there, and run the load again",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The load ended meanwhile, for another reason.
    #[error("the load has ended, and its files were removed")]
    Ended,
}

impl SpillError {
    pub(super) fn directory(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Directory { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }

    pub(super) fn corrupt(path: &Path) -> Self {
        Self::Corrupt { path: path.to_owned() }
    }
}
