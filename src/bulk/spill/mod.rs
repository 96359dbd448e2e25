//! Files that a load spills to: checksummed blocks, and records of bytes that are sorted outside of memory.
//!
//! Nothing here knows what a record means. A [`Sorter`] takes records in any order, keeps what fits into its memory,
//! and writes sorted runs of the rest; [`Sorted`] reads them as one stream in the order of their bytes, each record
//! once. A [`Spool`] keeps records in the order in which they came.
//!
//! What is written is read by the same process or by none: a load that ends for any reason takes its [`SpillDirectory`]
//! with it, and of one that was killed the next load removes it. So formats are free to change, and what is counted
//! here (blocks, records) is kept in memory. A byte that changes on the disk is an error, never another row.

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
