//! From the reader to the engine: one thread reads and parses, tasks submit, outcomes are tallied.
//!
//! Nothing of a unit is kept once it has its outcome, so memory depends on the number of units in flight, not on the
//! length of the input.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures::FutureExt;
use graphsink::loader::{InputUnit, Origin, ReadError, Units};
use graphsink::resolve::ResolvedNames;
use graphsink::{Engine, Outcome, Receipt, SubmitError};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::AnyError;
use crate::stop::Stop;
use crate::tally::{Rejects, Tally};

/// Number of units read ahead: enough to keep the producers busy while the reader waits for a disk, and few enough not
/// to matter for memory.
pub(crate) const UNITS_READ_AHEAD: usize = 256;

/// The inputs of a load.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) producers: usize,
    /// The resolved names of the input, if requested.
    pub(crate) names: Option<ResolvedNames>,
    pub(crate) rejects: Option<Rejects>,
    pub(crate) stop: &'a Stop,
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Fed {
    pub(crate) tally: Tally,
    pub(crate) end: End,
}

/// How the reading ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything was read.
    Exhausted,
    /// The user stopped it.
    Stopped,
    /// An input could not be read further.
    Unreadable(ReadError),
    /// The run failed in another way.
    Failed(AnyError),
}

/// Units on their way from the reader to any free producer.
type Source = Arc<Mutex<mpsc::Receiver<InputUnit>>>;

impl Feed<'_> {
    pub(crate) async fn run(self, units: Units) -> Fed {
        let (sender, receiver) = mpsc::channel(UNITS_READ_AHEAD);
        let source = Arc::new(Mutex::new(receiver));
        let (ended, mut end) = oneshot::channel();
        let stop = self.stop.clone();
        // A separate thread, not of the runtime: it may be waiting for standard input when the program ends, and must
        // not delay that.
        let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // The receiver may have been dropped if the run has already failed.
            let _ = ended.send(read(units, &sender, &stop));
        });
        let rejects = self.rejects.map(Arc::new);
        let names = self.names.map(Arc::new);
        let producers = (0..self.producers).map(|_| {
            let producer = Producer {
                engine: self.engine.clone(),
                source: Arc::clone(&source),
                names: names.clone(),
                rejects: rejects.clone(),
                stop: self.stop.clone(),
                tally: Tally::default(),
            };
            tokio::spawn(producer.run())
        });
        let producers: Vec<_> = producers.collect();
        drop(source);
        let mut tally = Tally::default();
        let mut failure = reader.err().map(AnyError::from);
        for producer in producers {
            match producer.await {
                Ok((own, result)) => {
                    tally.absorb(own);
                    failure = failure.or(result.err());
                }
                Err(panic) => failure = failure.or(Some(panic.into())),
            }
        }
        if let Some(rejects) = rejects {
            failure = failure.or(rejects.finish().err());
        }
        let end = match failure {
            Some(failure) => End::Failed(failure),
            // The reader may still wait for standard input, and then does not know of the end.
            None if self.stop.is_asked() => end.try_recv().unwrap_or(End::Stopped),
            None => end.await.unwrap_or(End::Stopped),
        };
        Fed { tally, end }
    }
}

pub(crate) fn read(units: Units, sender: &mpsc::Sender<InputUnit>, stop: &Stop) -> End {
    for unit in units {
        match unit {
            Ok(unit) => {
                if stop.is_asked() || sender.blocking_send(unit).is_err() {
                    return End::Stopped;
                }
            }
            Err(error) => return End::Unreadable(error),
        }
    }
    End::Exhausted
}

/// A task that takes units and submits them, while the outcomes of earlier ones arrive.
struct Producer {
    engine: Engine,
    source: Source,
    names: Option<Arc<ResolvedNames>>,
    rejects: Option<Arc<Rejects>>,
    stop: Stop,
    tally: Tally,
}

/// A producer's accepted units, oldest first. Units that were submitted one after the other are answered nearly together,
/// so usually the oldest one is awaited; a queue takes a third of the memory of a set of futures.
#[derive(Default)]
struct Waiting {
    units: VecDeque<(Origin, Receipt)>,
    /// Number of units without an outcome when all were looked through.
    remained: usize,
}

impl Waiting {
    /// The outcome of the oldest unit; `None` if no unit is waiting.
    async fn next(&mut self) -> Option<(Origin, Outcome)> {
        let (_, receipt) = self.units.front_mut()?;
        let outcome = receipt.await;
        self.units.pop_front().map(|(origin, _)| (origin, outcome))
    }

    /// Whether so many units are waiting that outcomes may be hidden behind the oldest one, which may wait for a row that
    /// another program has locked.
    fn is_long(&self) -> bool {
        /// Number of units that are few.
        const FEW: usize = 1_024;
        self.units.len() > FEW.max(2 * self.remained)
    }

    /// Looks through all units, and notes the outcomes that have arrived.
    fn look_through(
        &mut self,
        mut note: impl FnMut((Origin, Outcome)) -> Result<(), AnyError>,
    ) -> Result<(), AnyError> {
        for _ in 0..self.units.len() {
            let Some((origin, mut receipt)) = self.units.pop_front() else { break };
            match (&mut receipt).now_or_never() {
                Some(outcome) => note((origin, outcome))?,
                None => self.units.push_back((origin, receipt)),
            }
        }
        self.remained = self.units.len();
        Ok(())
    }
}

impl Producer {
    async fn run(mut self) -> (Tally, Result<(), AnyError>) {
        let result = self.produce().await;
        if result.is_err() {
            // The reader also ends when its units are no longer taken.
            self.source.lock().await.close();
        }
        (self.tally, result)
    }

    async fn produce(&mut self) -> Result<(), AnyError> {
        let mut waiting = Waiting::default();
        let (engine, source) = (self.engine.clone(), Arc::clone(&self.source));
        let mut stop = self.stop.clone();
        loop {
            let unit = tokio::select! {
                biased;
                Some(outcome) = waiting.next() => {
                    self.note(outcome)?;
                    continue;
                }
                unit = async { source.lock().await.recv().await } => unit,
                () = stop.asked() => None,
            };
            let Some(InputUnit { origin, content }) = unit else { break };
            self.tally.read(&origin);
            let mut unit = match content {
                Ok(unit) => unit,
                Err(errors) => {
                    self.tally.refused_lines(&origin, &errors, self.rejects.as_deref())?;
                    continue;
                }
            };
            if let Some(names) = &self.names {
                names.apply(&mut unit);
            }
            self.tally.submitting();
            let submit = engine.submit(unit);
            let mut submit = pin!(submit);
            // The engine may be full: outcomes must be processed meanwhile.
            let submitted = loop {
                tokio::select! {
                    biased;
                    submitted = &mut submit => break submitted,
                    Some(outcome) = waiting.next() => self.tally.note(outcome, self.rejects.as_deref())?,
                }
            };
            match submitted {
                Ok(receipt) => {
                    waiting.units.push_back((origin, receipt));
                    if waiting.is_long() {
                        waiting.look_through(|outcome| self.note(outcome))?;
                    }
                }
                Err(SubmitError::Invalid(invalid)) => {
                    self.tally.refused_unit(&origin, &invalid, self.rejects.as_deref())?;
                }
                Err(closed) => {
                    self.tally.not_accepted();
                    while let Some(outcome) = waiting.next().await {
                        self.note(outcome)?;
                    }
                    return Err(closed.into());
                }
            }
        }
        while let Some(outcome) = waiting.next().await {
            self.note(outcome)?;
        }
        Ok(())
    }

    fn note(&mut self, outcome: (Origin, Outcome)) -> Result<(), AnyError> {
        self.tally.note(outcome, self.rejects.as_deref())
    }
}

impl Tally {
    fn note(&mut self, (origin, outcome): (Origin, Outcome), rejects: Option<&Rejects>) -> Result<(), AnyError> {
        self.answered();
        match outcome {
            Outcome::Committed(_) => self.committed(1),
            Outcome::Rejected(rejection) => self.rejected(&origin, &rejection, rejects)?,
            Outcome::Unavailable(unavailable) => self.unavailable(&origin, &unavailable),
        }
        Ok(())
    }
}
