//! Copying rows into bare tables.

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio_postgres::Statement;

use super::super::table::{COPY_END, COPY_HEAD, load};
use super::super::{Connections, CopyPieces, Entities, Mentions, StoredTable};
use super::session::LoadSession;
use super::transaction::{BulkTransaction, Phase, step_failed};
use crate::error::{BulkStoreError, StoreError};
use crate::record::Table;

/// Why rows were not copied.
#[derive(Debug)]
pub(crate) enum CopyError<E> {
    /// The source of the rows failed.
    Rows(E),
    /// The server did not accept them.
    Store(BulkStoreError),
}

/// The encoder of rows for [`BulkTransaction::copy`].
pub(crate) fn encoder<T: StoredTable>() -> CopyPieces<T> {
    CopyPieces::of_whole_rows()
}

/// Pieces of [`CopyPieces`], without the header of the first and the trailer of the last: they contain whole rows, and
/// can be distributed over any number of statements.
struct Rows<S> {
    pieces: S,
    /// Held back until the next piece shows that it is not the last.
    held: Option<Bytes>,
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Rows<S> {
    async fn next(&mut self) -> Option<Result<Bytes, E>> {
        loop {
            match self.pieces.next().await {
                Some(Ok(piece)) if self.held.is_none() => {
                    let head = if piece.starts_with(COPY_HEAD) { COPY_HEAD.len() } else { 0 };
                    self.held = Some(piece.slice(head..));
                }
                Some(Ok(piece)) => return self.held.replace(piece).map(Ok),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    let last = self.held.take()?;
                    let rows = last.len().saturating_sub(COPY_END.len());
                    return (rows > 0).then(|| Ok(last.slice(..rows)));
                }
            }
        }
    }
}

/// The statements that copy. They have names given by the driver, so they are prepared when the load begins: a name
/// that the session already knows, behind a pooler or after another client, would otherwise end the load when
/// everything is sorted.
#[derive(Debug)]
pub(super) struct Copies {
    /// In the order of [`Table::ALL`].
    plain: Vec<Statement>,
    /// For frozen rows.
    frozen: Vec<Statement>,
}

impl Copies {
    /// Parses them, which accesses no table.
    pub(super) async fn prepare(session: &mut LoadSession) -> Result<Self, StoreError> {
        let texts = |frozen| Table::ALL.map(|table| text(table, frozen).replace("{schema}", session.schema()));
        let (plain, frozen) = (texts(false), texts(true));
        Ok(Self { plain: session.prepare(&plain).await?, frozen: session.prepare(&frozen).await? })
    }

    fn of(&self, table: Table, frozen: bool) -> Statement {
        (if frozen { &self.frozen } else { &self.plain })[table as usize].clone()
    }
}

/// The statement that copies whole rows of a table in `{schema}`.
pub(super) fn text(table: Table, frozen: bool) -> String {
    match table {
        Table::Entities => load::<Entities>(frozen),
        Table::Connections => load::<Connections>(frozen),
        Table::Mentions => load::<Mentions>(frozen),
    }
}

impl BulkTransaction {
    /// Copies rows of a table; returns their number. The pieces are those of one [`encoder`], and each ends at the end
    /// of a row.
    pub(crate) async fn copy<E>(
        &mut self,
        table: Table,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, CopyError<E>> {
        debug_assert_eq!(self.phase, Phase::Bare);
        // Marked as failed until it is known to be sound.
        self.phase = Phase::Failed;
        let copies = self.copies.as_ref().expect("prepared when the load began");
        let statement = copies.of(table, self.is_truncated);
        let count = self.session.copy(table, &statement, pieces, self.settings.copy_bytes_max).await?;
        self.phase = Phase::Bare;
        Ok(count)
    }
}

impl LoadSession {
    /// Copies rows with a prepared statement, which is repeated after `bytes_max`; returns their number.
    pub(super) async fn copy<E>(
        &mut self,
        table: Table,
        statement: &Statement,
        pieces: impl Stream<Item = Result<Bytes, E>>,
        bytes_max: usize,
    ) -> Result<u64, CopyError<E>> {
        let failed = |error| CopyError::Store(step_failed(&format!("copying {table}"), error));
        let mut rows = Rows { pieces: std::pin::pin!(pieces.fuse()), held: None };
        let mut count = 0;
        while let Some(first) = rows.next().await {
            let first = first.map_err(CopyError::Rows)?;
            let rows_copied = self.copy_some(statement, first, &mut rows, bytes_max).await.map_err(failed)?;
            count += rows_copied.map_err(CopyError::Rows)?;
        }
        Ok(count)
    }

    /// One statement's rows.
    async fn copy_some<E>(
        &mut self,
        statement: &Statement,
        first: Bytes,
        rows: &mut Rows<impl Stream<Item = Result<Bytes, E>> + Unpin>,
        bytes_max: usize,
    ) -> Result<Result<u64, E>, StoreError> {
        self.is_busy = true;
        let sink = self.client().copy_in::<_, Bytes>(statement).await?;
        let mut sink = std::pin::pin!(sink);
        sink.feed(Bytes::from_static(COPY_HEAD)).await?;
        let (mut sent, mut next) = (0, Some(Ok(first)));
        while let Some(piece) = next {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(Err(error)),
            };
            sent += piece.len();
            sink.feed(piece).await?;
            next = if sent < bytes_max { rows.next().await } else { None };
        }
        sink.feed(Bytes::from_static(COPY_END)).await?;
        let rows = sink.finish().await?;
        self.is_busy = false;
        Ok(Ok(rows))
    }
}
