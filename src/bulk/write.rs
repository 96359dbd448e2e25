//! The task that writes: from sorted records to the commit.
//!
//! It holds the transaction from the beginning, and waits with it for the sorted input. Merges run on threads for
//! blocking work, and hand encoded pieces to the copy, some of them ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;

use super::actor::SortedInput;
use super::claims::settle;
use super::error::BulkError;
use super::ids::Ids;
use super::pieces::{MergeError, MergeFailed, PieceSink, Pieces, stream};
use super::progress::{BulkPhase, Counters};
use super::refusals::Refusals;
use super::report::{BulkReport, BulkRows};
use super::rows::{MentionMerge, Merging, PartLimits, UnitSet, merge_connections, merge_entities};
use super::runs::{SortedConnections, SortedEntities, SortedMentions, rows_of};
use super::shared::Shared;
use super::spill::{Sorted, SpillDirectory, SpillError, Spool, SpoolWriter};
use crate::config::AsOf;
use crate::failpoint::failpoint;
use crate::record::{Table, Timestamp};
use crate::store::{
    BuildStep, BuildWhat, BulkTransaction, Connections, CopyError, Entities, Mentions, ShadowTables, StoredTable,
};

/// How often a session that waits for its rows is checked.
const SESSION_CHECK: Duration = Duration::from_secs(1);

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
        match transaction.shadow_tables().await? {
            Some(shadow) => self.fill_beside(transaction, shadow, settled).await,
            None => self.fill_in_place(transaction, settled).await,
        }
    }

    /// By the transaction's own session, one table after the other.
    async fn fill_in_place(&self, transaction: &mut BulkTransaction, settled: Settled) -> Result<Written, BulkError> {
        let Settled { entities, connections, mentions, refused, written } = settled;
        let merging = self.merging(refused);
        let figures = SpoolWriter::create(&self.directory)?;
        let figures_read = figures.spool();
        transaction.prepare_tables(|holders| self.wait_for_readers(holders)).await?;
        self.counters().enter(BulkPhase::Writing);
        self.copy_entities(entities, merging.clone(), async |rows| {
            copy_in_place(transaction, Table::Entities, rows).await
        })
        .await?;
        self.copy_mentions(mentions, figures, merging.clone(), async |rows| {
            copy_in_place(transaction, Table::Mentions, rows).await
        })
        .await?;
        self.copy_connections(connections, figures_read, merging, async |rows| {
            copy_in_place(transaction, Table::Connections, rows).await
        })
        .await?;
        self.counters().enter(BulkPhase::Building);
        transaction.build(|step| self.tell(step)).await?;
        Ok(written)
    }

    /// By several sessions: tables are written and indexes built at the same time.
    async fn fill_beside(
        &self,
        transaction: &mut BulkTransaction,
        shadow: ShadowTables,
        settled: Settled,
    ) -> Result<Written, BulkError> {
        let Settled { entities, connections, mentions, refused, written } = settled;
        let merging = self.merging(refused);
        self.counters().enter(BulkPhase::Writing);
        let figures = SpoolWriter::create(&self.directory)?;
        let figures_read = figures.spool();
        let (tables, tell) = (&shadow, &|step: BuildStep<'_>| self.tell(step));
        let to_copy = AtomicUsize::new(Table::ALL.len());
        let build = async |table| {
            if to_copy.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.counters().enter(BulkPhase::Building);
            }
            Ok::<_, BulkError>(tables.build(table, tell).await?)
        };
        let of_entities = async {
            let write = async |rows| tables.copy(Table::Entities, stream(rows)).await;
            self.copy_entities(entities, merging.clone(), write).await?;
            build(Table::Entities).await
        };
        let of_mentions = async {
            let write = async |rows| tables.copy(Table::Mentions, stream(rows)).await;
            self.copy_mentions(mentions, figures, merging.clone(), write).await?;
            build(Table::Mentions).await
        };
        let of_connections = async {
            let write = async |rows| tables.copy(Table::Connections, stream(rows)).await;
            self.copy_connections(connections, figures_read, merging.clone(), write).await?;
            build(Table::Connections).await
        };
        // Those that come first get the sessions. Connections need figures, so they may not come before mentions.
        let filled = async { futures::try_join!(of_entities, of_mentions, of_connections).map(drop) };
        while_alive(transaction, Box::pin(filled)).await?;
        self.counters().enter(BulkPhase::Replacing);
        let waits_for = |holders: &str| self.wait_for_readers(holders);
        Box::pin(transaction.replace_tables(shadow, waits_for, tell)).await?;
        Ok(written)
    }

    fn wait_for_readers(&self, holders: &str) {
        self.counters().step(format!("waits for readers: {holders}"), 0, 0);
    }

    fn tell(&self, step: BuildStep<'_>) {
        self.counters().step(describe(step), step.number, step.steps);
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

    /// All figures refer to one time.
    fn merging(&self, refused: Arc<UnitSet>) -> OwnMerging {
        OwnMerging { ids: self.ids, refused, as_of: self.as_of.now() }
    }

    async fn copy_entities(
        &self,
        records: Sorted,
        merging: OwnMerging,
        write: impl AsyncFnOnce(Pieces) -> Result<u64, CopyError<MergeFailed>>,
    ) -> Result<(), BulkError> {
        let (count, reading) = (Arc::clone(&self.counters().merged), reading(self.memory));
        let merge = move |rows: &mut PieceSink<Entities>| {
            merge_entities(records.into_merged(reading)?.counted(count), merging.borrowed(), rows)
        };
        self.copy(Table::Entities, merge, write).await
    }

    /// Also computes the figures of connections from their mentions.
    async fn copy_mentions(
        &self,
        records: Sorted,
        figures: SpoolWriter,
        merging: OwnMerging,
        write: impl AsyncFnOnce(Pieces) -> Result<u64, CopyError<MergeFailed>>,
    ) -> Result<(), BulkError> {
        let (count, memory) = (Arc::clone(&self.counters().merged), self.memory);
        let directory = Arc::clone(&self.directory);
        let merge = move |rows: &mut PieceSink<Mentions>| {
            let records = records.into_merged(reading(memory))?.counted(count);
            let limits = PartLimits::of_memory(memory / 2);
            MentionMerge::new(merging.borrowed(), figures, &directory, limits).run(records, rows)
        };
        self.copy(Table::Mentions, merge, write).await
    }

    async fn copy_connections(
        &self,
        records: Sorted,
        figures: Spool,
        merging: OwnMerging,
        write: impl AsyncFnOnce(Pieces) -> Result<u64, CopyError<MergeFailed>>,
    ) -> Result<(), BulkError> {
        let (count, reading) = (Arc::clone(&self.counters().merged), reading(self.memory));
        let merge = move |rows: &mut PieceSink<Connections>| {
            let records = records.into_merged(reading)?.counted(count);
            merge_connections(records, figures.into_reader(), merging.borrowed(), rows)
        };
        self.copy(Table::Connections, merge, write).await
    }

    /// Has the rows written that a merge pushes. Returns the merge's result when all are.
    async fn copy<T: StoredTable, R: Send + 'static>(
        &self,
        table: Table,
        merge: impl FnOnce(&mut PieceSink<T>) -> Result<R, MergeError> + Send + 'static,
        write: impl AsyncFnOnce(Pieces) -> Result<u64, CopyError<MergeFailed>>,
    ) -> Result<R, BulkError> {
        self.counters().step(table.to_string(), 0, 0);
        let (mut sink, pieces) = PieceSink::new(Arc::clone(&self.counters().written[table as usize]));
        let merging = tokio::task::spawn_blocking(move || {
            failpoint("bulk::merge");
            let merged = merge(&mut sink);
            sink.end(merged)
        });
        let is_complete = match Box::pin(write(pieces)).await {
            Ok(_) => true,
            Err(CopyError::Rows(MergeFailed)) => false,
            // The merge ends as well, since nothing takes its pieces, but it may wait for figures until then.
            Err(CopyError::Store(error)) => return Err(error.into()),
        };
        match merging.await.map_err(|_| BulkError::Panicked)? {
            Ok(given) if is_complete => Ok(given),
            // The load, or the merge that computes the figures, has ended for a reason of its own, and reports it.
            Err(MergeError::Spill(SpillError::Ended)) => std::future::pending().await,
            Err(MergeError::Spill(error)) => Err(error.into()),
            Ok(_) | Err(MergeError::NotTaken) => Err(BulkError::Panicked),
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

/// Until the first piece the session is idle, and its loss would go unnoticed. Afterwards pieces come without a pause.
async fn copy_in_place(
    transaction: &mut BulkTransaction,
    table: Table,
    mut pieces: Pieces,
) -> Result<u64, CopyError<MergeFailed>> {
    let first = loop {
        tokio::select! {
            biased;
            piece = pieces.recv() => break piece,
            () = tokio::time::sleep(SESSION_CHECK) => transaction.expect_alive().await.map_err(CopyError::Store)?,
        }
    };
    transaction.copy(table, futures::stream::iter(first).chain(stream(pieces))).await
}

/// The part of the merge memory, in bytes, for reading a table's files. All three may be read at a time; the other half
/// is for the mentions of one connection.
const fn reading(memory: usize) -> usize {
    memory / 6
}

/// Finds the units to be rejected, and reduces the number of files where there are too many to be read at once. This is
/// done before rows are copied, because in place the tables are closed to readers during the copy, and the session waits.
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
#[derive(Clone)]
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
