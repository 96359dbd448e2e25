//! Queries an engine's `/stats` periodically, in its own thread: a slow answer must not delay the keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::observability::endpoint::Report;

/// An engine that does not answer for this long counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// The endpoint of an engine.
#[derive(Debug, Clone)]
pub struct Source {
    url: String,
    agent: ureq::Agent,
}

/// An answer, or the reason for its absence, with the time since the start.
#[derive(Debug)]
pub struct Answer {
    pub at: Duration,
    pub report: Result<Report, String>,
}

impl Source {
    /// The address may be written without `http://`.
    pub fn new(address: &str) -> Self {
        let address = address.trim_end_matches('/');
        let scheme = if address.contains("://") { "" } else { "http://" };
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
        Self { url: format!("{scheme}{address}"), agent }
    }

    /// The address in full.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Queries once.
    pub fn look(&self) -> Result<Report, String> {
        let response = self.agent.get(format!("{}/stats", self.url)).call();
        let report = response.and_then(|mut response| response.body_mut().read_json());
        report.map_err(|error| error.to_string())
    }

    /// Queries in every interval from now on, as long as there is a listener; not while paused.
    pub fn watch(self, started: Instant, interval: Duration, paused: Arc<AtomicBool>) -> io::Result<Receiver<Answer>> {
        let (sender, answers) = mpsc::channel();
        let ask = move || {
            let mut next = Instant::now();
            loop {
                if !paused.load(Ordering::Relaxed) {
                    let report = self.look();
                    if sender.send(Answer { at: started.elapsed(), report }).is_err() {
                        return;
                    }
                }
                // Missed intervals are skipped.
                next = (next + interval).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        };
        thread::Builder::new().name("source".to_owned()).spawn(ask)?;
        Ok(answers)
    }
}
