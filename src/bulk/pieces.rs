//! The rows of a merge on their way to the copy: encoded on the merge's thread, and handed over in pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use super::rows::RowSink;
use super::spill::SpillError;
use crate::store::{CopyPieces, StoredTable, encoder};

/// Number of pieces that a merge may be ahead of the copy.
const PIECES_AHEAD: usize = 8;

/// Why a merge ended early.
#[derive(Debug)]
pub(super) enum MergeError {
    Spill(SpillError),
    /// The copy takes no more pieces, for a reason of its own.
    NotTaken,
}

impl From<SpillError> for MergeError {
    fn from(error: SpillError) -> Self {
        Self::Spill(error)
    }
}

/// The pieces of a merge.
pub(super) type Pieces = mpsc::Receiver<Result<Bytes, MergeFailed>>;

/// The pieces as a stream.
pub(super) fn stream(mut pieces: Pieces) -> impl Stream<Item = Result<Bytes, MergeFailed>> {
    futures::stream::poll_fn(move |context| pieces.poll_recv(context))
}

/// Sent in place of a piece: the rows are incomplete.
#[derive(Debug)]
pub(super) struct MergeFailed;

/// Encodes rows, and hands full pieces to the copy.
pub(super) struct PieceSink<T: StoredTable> {
    encoder: CopyPieces<T>,
    /// Rows not yet counted.
    rows: u64,
    written: Arc<AtomicU64>,
    pieces: mpsc::Sender<Result<Bytes, MergeFailed>>,
}

impl<T: StoredTable> PieceSink<T> {
    /// A sink that counts rows in `written` when their piece is handed over, and the pieces.
    pub(super) fn new(written: Arc<AtomicU64>) -> (Self, Pieces) {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        (Self { encoder: encoder(), rows: 0, written, pieces: sender }, pieces)
    }

    fn send(&mut self, piece: Bytes) -> Result<(), MergeError> {
        self.written.fetch_add(std::mem::take(&mut self.rows), Ordering::Relaxed);
        self.pieces.blocking_send(Ok(piece)).map_err(|_| MergeError::NotTaken)
    }

    /// Sends the end of the rows, if they are complete.
    pub(super) fn end<R>(mut self, merged: Result<R, MergeError>) -> Result<R, MergeError> {
        match merged {
            Ok(given) => {
                self.written.fetch_add(std::mem::take(&mut self.rows), Ordering::Relaxed);
                let last = self.encoder.finish();
                self.pieces.blocking_send(Ok(last)).map_err(|_| MergeError::NotTaken)?;
                Ok(given)
            }
            Err(error) => {
                // The copy may have ended by itself.
                let _ = self.pieces.blocking_send(Err(MergeFailed));
                Err(error)
            }
        }
    }
}

impl<T: StoredTable> RowSink<T> for PieceSink<T> {
    type Error = MergeError;

    fn push<'a>(&mut self, row: &'a T::Row<'a>) -> Result<(), MergeError> {
        let full = self.encoder.push(row);
        self.rows += 1;
        match full {
            Some(piece) => self.send(piece),
            None => Ok(()),
        }
    }
}
