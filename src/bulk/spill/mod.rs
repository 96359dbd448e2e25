//! Spilled files: checksummed blocks, and records of bytes that are sorted outside of memory.
//!
//! Nothing here depends on the meaning of a record. A [`Sorter`] accepts records in any order, keeps those that fit
//! into its memory, and writes the others as sorted runs; [`Sorted`] reads all of them as one stream in the order of
//! their bytes, without duplicates. A [`Spool`] keeps records in the order of writing.
//!
//! Files are read only by the process that wrote them: the end of a load, for any reason, removes its
//! [`SpillDirectory`], and after a killed load the next load does. So formats may change freely, and the numbers of
//! blocks and records are kept in memory. A byte that changes on disk is an error, never a different row.

mod block;
mod directory;
mod error;
mod merge;
mod sorter;
mod spool;

pub(super) use directory::{SpillDirectory, SpillState};
pub use error::SpillError;
pub(super) use merge::Merged;
pub(super) use sorter::{Sorted, Sorter};
pub(super) use spool::{Spool, SpoolReader, SpoolWriter};
