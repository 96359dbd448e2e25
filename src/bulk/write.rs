//! The task that writes: from sorted records to the commit.
//!
//! It holds the transaction from the beginning, and waits with it for the sorted input. Merges run on threads for
//! blocking work, and hand encoded pieces to the copy, some of them ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::actor::SortedInput;
use super::claims::settle;
use super::error::BulkError;
use super::ids::Ids;
use super::progress::{BulkPhase, Counters};
use super::refusals::Refusals;
use super::report::{BulkReport, BulkRows};
use super::rows::{MentionMerge, Merging, PartLimits, RowSink, UnitSet, merge_connections, merge_entities};
use super::runs::{SortedConnections, SortedEntities, SortedMentions, rows_of};
use super::shared::Shared;
use super::spill::{Sorted, SpillDirectory, SpillError, Spool};
use crate::config::AsOf;
use crate::failpoint::failpoint;
use crate::record::{Table, Timestamp};
use crate::store::{
    BuildStep, BuildWhat, BulkTransaction, CopyError, CopyPieces, Entities, Mentions, StoredTable, encoder,
};

/// How often a session that waits for its rows is checked.
const SESSION_CHECK: Duration = Duration::from_secs(1);
/// Number of pieces that a merge may be ahead of the copy.
const PIECES_AHEAD: usize = 8;

/// The inputs of the task.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: Arc<SpillDirectory>,
    pub(super) ids: Ids,
    pub(super) as_of: AsOf,
    /// Bytes for merging.
    pub(super) memory: usize,
}

/// The result of writing all rows.
struct Written {
    refusals: Refusals,
    outcomes: Option<Spool>,
    /// Rows, by table, of units that were rejected at the end.
    refused_rows: [u64; 3],
}

/// The data to be merged, and the units to be left out.
struct Settled {
    entities: Sorted,
    connections: Sorted,
    mentions: Sorted,
    refused: Arc<UnitSet>,
    written: Written,
}

impl Writing {
    /// Waits for the input, writes it and commits. Until the commit is sent, every error rolls back.
    pub(super) async fn run(
        self,
        mut transaction: BulkTransaction,
        input: oneshot::Receiver<SortedInput>,
    ) -> Result<BulkReport, BulkError> {
        let filled = {
            let filling = std::pin::pin!(Box::pin(self.fill(&mut transaction, input)));
            tokio::select! {
                biased;
                () = self.shared.failed() => None,
                filled = filling => Some(filled),
            }
        };
        let written = match filled {
            Some(Ok(written)) if self.shared.begin_commit() => written,
            ended => {
                // Also ends the work in other threads.
                let error = self.shared.end(ended.and_then(Result::err));
                Box::pin(transaction.roll_back()).await;
                return Err(error);
            }
        };
        self.counters().enter(BulkPhase::Committing);
        failpoint("bulk::commit");
        Box::pin(transaction.commit()).await?;
        self.counters().enter(BulkPhase::Ended);
        Ok(self.report(written))
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    async fn fill(
        &self,
        transaction: &mut BulkTransaction,
        input: oneshot::Receiver<SortedInput>,
    ) -> Result<Written, BulkError> {
        let input = while_alive(transaction, async { input.await.map_err(|_| BulkError::Panicked) }).await?;
        let settled = while_alive(transaction, self.settle(input)).await?;
        self.counters().enter(BulkPhase::Preparing);
        let waits_for = |holders: &str| self.counters().step(format!("waits for readers: {holders}"), 0, 0);
        transaction.prepare_tables(waits_for).await?;
        self.counters().enter(BulkPhase::Writing);
        let written = self.copy_all(transaction, settled).await?;
        self.counters().enter(BulkPhase::Building);
        let build = transaction.build(|step| self.counters().step(describe(step), step.number, step.steps));
        build.await?;
        Ok(written)
    }

    /// Finds the units to be rejected at the end.
    async fn settle(&self, input: SortedInput) -> Result<Settled, BulkError> {
        let (directory, memory, shared) = (Arc::clone(&self.directory), self.memory, Arc::clone(&self.shared));
        in_background(move || {
            failpoint("bulk::settle");
            settle_input(input, &directory, memory, &shared)
        })
        .await
    }

    /// Merges and copies table after table. Mentions come before connections, whose figures are computed from them.
    async fn copy_all(&self, transaction: &mut BulkTransaction, settled: Settled) -> Result<Written, BulkError> {
        let Settled { entities, connections, mentions, refused, written } = settled;
        let (merged, reading) = (&self.counters().merged, reading(self.memory));
        // All figures refer to one time.
        let as_of = self.as_of.now();

        let (merging, records, count) = (self.merging(&refused, as_of), entities, Arc::clone(merged));
        self.copy::<Entities, _>(transaction, Table::Entities, move |rows| {
            merge_entities(records.into_merged(reading)?.counted(count), merging.borrowed(), rows)
        })
        .await?;

        let (merging, records, count) = (self.merging(&refused, as_of), mentions, Arc::clone(merged));
        let directory = Arc::clone(&self.directory);
        let figures = self
            .copy::<Mentions, _>(transaction, Table::Mentions, move |rows| {
                let records = records.into_merged(reading)?.counted(count);
                MentionMerge::new(merging.borrowed(), &directory, PartLimits::of_memory(reading))?.run(records, rows)
            })
            .await?;

        let (merging, records, count) = (self.merging(&refused, as_of), connections, Arc::clone(merged));
        self.copy::<crate::store::Connections, _>(transaction, Table::Connections, move |rows| {
            let records = records.into_merged(reading)?.counted(count);
            merge_connections(records, figures.into_reader(), merging.borrowed(), rows)
        })
        .await?;
        Ok(written)
    }

    fn merging(&self, refused: &Arc<UnitSet>, as_of: Timestamp) -> OwnMerging {
        OwnMerging { ids: self.ids, refused: Arc::clone(refused), as_of }
    }

    /// Copies the rows that a merge pushes. Returns the merge's result when all rows are written.
    async fn copy<T: StoredTable, R: Send + 'static>(
        &self,
        transaction: &mut BulkTransaction,
        table: Table,
        merge: impl FnOnce(&mut PieceSink<T>) -> Result<R, MergeError> + Send + 'static,
    ) -> Result<R, BulkError> {
        self.counters().step(table.to_string(), 0, 0);
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let written = Arc::clone(&self.counters().written[table as usize]);
        let merging = tokio::task::spawn_blocking(move || {
            failpoint("bulk::merge");
            let mut sink = PieceSink { encoder: encoder(), rows: 0, written, pieces: sender };
            let merged = merge(&mut sink);
            sink.end(merged)
        });
        // Until the first piece the session is idle, and its loss would go unnoticed. Afterwards pieces come without a
        // pause.
        let first = while_alive(transaction, async { Ok(pieces.recv().await) }).await?;
        let others = futures::stream::poll_fn(move |context| pieces.poll_recv(context));
        let pieces = futures::stream::iter(first).chain(others);
        let copied = Box::pin(transaction.copy(table, pieces)).await;
        // It ends soon, whatever the result of the copy: the pieces are taken, or dropped.
        let merged = merging.await.map_err(|_| BulkError::Panicked)?;
        match (copied, merged) {
            (Err(CopyError::Store(error)), _) => Err(error.into()),
            (_, Err(MergeError::Spill(error))) => Err(error.into()),
            (Ok(_), Ok(given)) => Ok(given),
            (Ok(_) | Err(CopyError::Rows(MergeFailed)), Ok(_) | Err(MergeError::NotTaken)) => Err(BulkError::Panicked),
        }
    }

    fn report(&self, Written { refusals, outcomes, refused_rows }: Written) -> BulkReport {
        let counters = self.counters();
        let rows = |table: Table| BulkRows {
            received: counters.received(table).saturating_sub(refused_rows[table as usize]),
            written: counters.written(table),
        };
        let units = counters.units.load(Ordering::Relaxed);
        BulkReport {
            units,
            committed: units - refusals.count,
            rejected: refusals.count,
            entities: rows(Table::Entities),
            connections: rows(Table::Connections),
            mentions: rows(Table::Mentions),
            spilled_bytes: counters.spilled_bytes(),
            phases: counters.past(),
            refusals,
            outcomes,
            memory: self.memory,
        }
    }
}

/// Waits for work that does not use the session. A session that is lost meanwhile ends the load early.
async fn while_alive<T>(
    transaction: &BulkTransaction,
    work: impl Future<Output = Result<T, BulkError>>,
) -> Result<T, BulkError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(SESSION_CHECK) => transaction.expect_alive().await?,
        }
    }
}

/// The part of the merge memory, in bytes, for reading a table's files.
const fn reading(memory: usize) -> usize {
    memory / 2
}

/// Finds the units to be rejected, and reduces the number of files where there are too many to be read at once. This is
/// done before rows are copied, because during the copy the tables are closed to readers, and the session waits.
fn settle_input(
    input: SortedInput,
    directory: &Arc<SpillDirectory>,
    memory: usize,
    shared: &Shared,
) -> Result<Settled, BulkError> {
    let SortedInput { entities, connections, mentions, mut logs } = input;
    let (SortedConnections(mut connections), SortedMentions(mut mentions)) = (connections, mentions);
    // Claims and sizes are dropped here, in memory and on disk.
    let SortedEntities { mut entities, claims, sizes } = entities;
    let refused = settle(claims, &mut entities, directory, memory, |unit, refusal| {
        Shared::count(&shared.counters.rejected, 1);
        logs.refusals.push(unit, &refusal)
    })?;
    let refused_rows = rows_of(&refused, sizes)?;
    let outcomes = logs.outcomes.map(super::outcomes::OutcomeLog::finish).transpose()?;
    let written = Written { refusals: logs.refusals.finish()?, outcomes, refused_rows };
    let mut records = 0;
    for table in [&mut entities, &mut connections, &mut mentions] {
        table.reduce_to(reading(memory))?;
        records += table.count();
    }
    shared.counters.to_merge.store(records, Ordering::Relaxed);
    Ok(Settled { entities, connections, mentions, refused: Arc::new(refused), written })
}

fn describe(step: BuildStep<'_>) -> String {
    match step.what {
        BuildWhat::Index => format!("index {}", step.name),
        BuildWhat::Statistics => format!("statistics of {}", step.name),
        BuildWhat::ForeignKey => format!("foreign key {}", step.name),
    }
}

/// Runs work that reads, writes and computes on a thread for blocking work.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BulkError> + Send + 'static,
) -> Result<T, BulkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BulkError::Panicked))
}

/// The inputs of merges, owned by their thread.
struct OwnMerging {
    ids: Ids,
    refused: Arc<UnitSet>,
    as_of: Timestamp,
}

impl OwnMerging {
    fn borrowed(&self) -> Merging<'_> {
        Merging { ids: self.ids, refused: &self.refused, as_of: self.as_of }
    }
}

/// Why a merge ended early.
#[derive(Debug)]
enum MergeError {
    Spill(SpillError),
    /// The copy takes no more pieces, for a reason of its own.
    NotTaken,
}

impl From<SpillError> for MergeError {
    fn from(error: SpillError) -> Self {
        Self::Spill(error)
    }
}

/// Sent in place of a piece: the rows are incomplete.
#[derive(Debug)]
struct MergeFailed;

/// Encodes rows, and hands full pieces to the copy.
struct PieceSink<T: StoredTable> {
    encoder: CopyPieces<T>,
    /// Rows not yet counted.
    rows: u64,
    written: Arc<AtomicU64>,
    pieces: mpsc::Sender<Result<Bytes, MergeFailed>>,
}

impl<T: StoredTable> PieceSink<T> {
    fn send(&mut self, piece: Bytes) -> Result<(), MergeError> {
        self.written.fetch_add(std::mem::take(&mut self.rows), Ordering::Relaxed);
        self.pieces.blocking_send(Ok(piece)).map_err(|_| MergeError::NotTaken)
    }

    /// Sends the end of the rows, if they are complete.
    fn end<R>(mut self, merged: Result<R, MergeError>) -> Result<R, MergeError> {
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
