//! From the reader to a bulk load: one thread reads and parses, one task submits, in the order of the input.

use std::thread;

use graphsink::loader::{InputUnit, Units};
use graphsink::resolve::ResolvedNames;
use graphsink::{BulkEnd, BulkError, BulkLoad, BulkReport, Stats, TableStats};
use tokio::sync::{mpsc, oneshot};

use crate::AnyError;
use crate::feed::{End, Fed, UNITS_READ_AHEAD, read};
use crate::origins::{KeptOrigins, Origins};
use crate::stop::Stop;
use crate::tally::{Rejects, Tally};

/// The inputs of a bulk load.
#[derive(Debug)]
pub(crate) struct BulkFeed<'a> {
    pub(crate) load: BulkLoad,
    /// The resolved names of the input, if requested.
    pub(crate) names: Option<ResolvedNames>,
    pub(crate) rejects: Option<Rejects>,
    pub(crate) origins: Origins,
    pub(crate) stop: &'a Stop,
}

impl BulkFeed<'_> {
    /// Loads all units. Returns a report if they were committed.
    pub(crate) async fn run(mut self, units: Units) -> (Fed, Option<BulkReport>) {
        let mut tally = Tally::default();
        let loaded = self.load(units, &mut tally).await;
        tally.answered();
        let (end, report) = match loaded {
            Ok(report) => self.told(&mut tally, report),
            // Before the process ends: otherwise the next load would have to remove its files.
            Err(end) => match self.load.clone().abort().await {
                // The stop came after the commit was sent.
                BulkEnd::Committed(report) => self.told(&mut tally, *report),
                BulkEnd::Failed(error) => (End::Failed(error.into()), None),
                _ => (end, None),
            },
        };
        (Fed { tally, end }, report)
    }

    /// Processes the report of a committed load.
    fn told(&mut self, tally: &mut Tally, report: BulkReport) -> (End, Option<BulkReport>) {
        let told = self.tell(tally, &report);
        (told.map_or_else(End::Failed, |()| End::Exhausted), Some(report))
    }

    async fn load(&mut self, units: Units, tally: &mut Tally) -> Result<BulkReport, End> {
        let (sender, mut receiver) = mpsc::channel(UNITS_READ_AHEAD);
        let (ended, end) = oneshot::channel();
        let stop = self.stop.clone();
        // A separate thread, like the reader of the feed.
        let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // The receiver may have been dropped if the run has already failed.
            let _ = ended.send(read(units, &sender, &stop));
        });
        reader.map_err(|error| End::Failed(error.into()))?;
        self.submit_all(&mut receiver, tally).await.map_err(End::Failed)?;
        if self.stop.is_asked() {
            return Err(End::Stopped);
        }
        match end.await {
            Ok(End::Exhausted) => {}
            Ok(end) => return Err(end),
            Err(_) => return Err(End::Failed("the reader ended without a result".into())),
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            finished = self.load.clone().finish() => finished.map_err(|error| End::Failed(error.into())),
            () = stop.asked() => Err(End::Stopped),
        }
    }

    async fn submit_all(
        &mut self,
        receiver: &mut mpsc::Receiver<InputUnit>,
        tally: &mut Tally,
    ) -> Result<(), AnyError> {
        let mut stop = self.stop.clone();
        loop {
            let unit = tokio::select! {
                unit = receiver.recv() => unit,
                () = stop.asked() => None,
            };
            let Some(InputUnit { origin, content }) = unit else { return Ok(()) };
            tally.read(&origin);
            let mut unit = match content {
                Ok(unit) => unit,
                Err(errors) => {
                    tally.refused_lines(&origin, &errors, self.rejects.as_ref())?;
                    continue;
                }
            };
            if let Some(names) = &self.names {
                names.apply(&mut unit);
            }
            tally.submitting();
            match self.load.submit(unit).await {
                Ok(_) => self.origins.push(&origin)?,
                Err(BulkError::Invalid(invalid)) => tally.refused_unit(&origin, &invalid, self.rejects.as_ref())?,
                // `finish` returns the reason.
                Err(BulkError::Ended) => {
                    return Err(self.load.clone().finish().await.err().unwrap_or(BulkError::Ended).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Counts the outcomes, and reports the rejected units.
    fn tell(&mut self, tally: &mut Tally, report: &BulkReport) -> Result<(), AnyError> {
        tally.committed(report.committed);
        let mut origins: Option<KeptOrigins> = None;
        for rejected in report.rejections()? {
            let (number, rejection) = rejected?;
            let kept = match &mut origins {
                Some(kept) => kept,
                none => none.insert(self.origins.reopen()?),
            };
            tally.rejected(&kept.of(number)?, &rejection, self.rejects.as_ref())?;
        }
        match &self.rejects {
            Some(rejects) => rejects.finish(),
            None => Ok(()),
        }
    }
}

/// The figures of a report in the form of an engine's.
pub(crate) fn stats(report: Option<&BulkReport>) -> Stats {
    let mut stats = Stats::default();
    let Some(report) = report else { return stats };
    let rows = |rows: graphsink::BulkRows| TableStats {
        received: rows.received,
        inserted: rows.written,
        ..TableStats::default()
    };
    stats.units_submitted = report.units;
    stats.units_committed = report.committed;
    stats.units_rejected = report.rejected;
    stats.entities = rows(report.entities);
    stats.connections = rows(report.connections);
    stats.mentions = rows(report.mentions);
    stats.epochs = 1;
    stats.epoch_rows_max =
        [report.entities, report.connections, report.mentions].iter().map(|rows| rows.received).sum();
    stats
}
