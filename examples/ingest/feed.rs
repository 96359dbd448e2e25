//! From the reader to the engine: one thread reads and parses, tasks submit, outcomes are tallied.
//!
//! Nothing is kept of a unit once it has its outcome, so memory depends on what the engine lets in
//! at the same time, not on the length of the input.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use graphsink::loader::{InputUnit, Origin, ReadError, Units};
use graphsink::resolve::ResolvedNames;
use graphsink::{Engine, Outcome, Receipt, SubmitError};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::AnyError;
use crate::stop::Stop;
use crate::tally::{Rejects, Tally};

/// Units that are read ahead. Enough to keep the producers busy while the reader waits for a disk,
/// little enough that it does not matter to memory.
pub(crate) const UNITS_READ_AHEAD: usize = 256;

/// What is needed to load units.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) producers: usize,
    /// What the input's names mean, if that was asked.
    pub(crate) names: Option<ResolvedNames>,
    pub(crate) rejects: Option<Rejects>,
    pub(crate) stop: &'a Stop,
}

/// What became of it.
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
    /// An input could not be read on.
    Unreadable(ReadError),
    /// The run broke down otherwise.
    Failed(AnyError),
}

/// Units on their way from the reader to whichever producer is free.
type Source = Arc<Mutex<mpsc::Receiver<InputUnit>>>;

impl Feed<'_> {
    pub(crate) async fn run(self, units: Units) -> Fed {
        let (sender, receiver) = mpsc::channel(UNITS_READ_AHEAD);
        let source = Arc::new(Mutex::new(receiver));
        let (ended, mut end) = oneshot::channel();
        let stop = self.stop.clone();
        // A thread of its own, not of the runtime: it may be waiting for standard input when the
        // program ends, and must not hold that up.
        let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // The answer is not waited for when the run has failed already.
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
            // The reader may still wait for standard input: then it does not know that it ended.
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

/// A unit whose outcome has arrived.
struct Answer {
    origin: Origin,
    accepted: Instant,
    answered: Instant,
    outcome: Outcome,
}

impl Producer {
    async fn run(mut self) -> (Tally, Result<(), AnyError>) {
        let result = self.produce().await;
        if result.is_err() {
            // The reader ends as well when its units are not taken.
            self.source.lock().await.close();
        }
        (self.tally, result)
    }

    async fn produce(&mut self) -> Result<(), AnyError> {
        let mut in_flight = FuturesUnordered::new();
        let (engine, source) = (self.engine.clone(), Arc::clone(&self.source));
        let mut stop = self.stop.clone();
        loop {
            let unit = tokio::select! {
                biased;
                Some(answer) = in_flight.next() => {
                    self.note(answer)?;
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
            // The engine may be full: outcomes must be taken in the meantime.
            let submitted = loop {
                tokio::select! {
                    biased;
                    submitted = &mut submit => break submitted,
                    Some(answer) = in_flight.next() => self.tally.note(answer, self.rejects.as_deref())?,
                }
            };
            match submitted {
                Ok(receipt) => in_flight.push(answer(origin, receipt)),
                Err(SubmitError::Invalid(invalid)) => {
                    self.tally.refused_unit(&origin, &invalid, self.rejects.as_deref())?;
                }
                Err(closed) => {
                    self.tally.not_accepted();
                    while let Some(answer) = in_flight.next().await {
                        self.note(answer)?;
                    }
                    return Err(closed.into());
                }
            }
        }
        while let Some(answer) = in_flight.next().await {
            self.note(answer)?;
        }
        Ok(())
    }

    fn note(&mut self, answer: Answer) -> Result<(), AnyError> {
        self.tally.note(answer, self.rejects.as_deref())
    }
}

async fn answer(origin: Origin, receipt: Receipt) -> Answer {
    let accepted = Instant::now();
    let outcome = receipt.await;
    Answer { origin, accepted, answered: Instant::now(), outcome }
}

impl Tally {
    fn note(&mut self, answer: Answer, rejects: Option<&Rejects>) -> Result<(), AnyError> {
        let Answer { origin, accepted, answered, outcome } = answer;
        self.answered(answered, answered - accepted);
        match outcome {
            Outcome::Committed(_) => self.committed(1),
            Outcome::Rejected(rejection) => self.rejected(&origin, &rejection, rejects)?,
            Outcome::Unavailable(unavailable) => self.unavailable(&origin, &unavailable),
        }
        Ok(())
    }
}
