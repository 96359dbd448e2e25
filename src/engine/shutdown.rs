//! How an engine ends.

use std::time::Duration;

use super::handle::Engine;
use super::thread::Stop;
use crate::outcome::UnavailableCause;
use crate::stats::Stats;

/// How an engine ended.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) {
/// let report = engine.shutdown(std::time::Duration::from_secs(20)).await;
/// println!("{} committed, submit {:?} again", report.stats.units_committed, report.abandoned);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The numbers ([`Receipt::number`](crate::Receipt::number)) of accepted units that had no outcome at the deadline,
    /// ascending. Each of them has the outcome [`Outcome::Unavailable`](crate::Outcome::Unavailable).
    pub abandoned: Vec<u64>,
    /// The engine's totals.
    pub stats: Stats,
}

impl Engine {
    /// Accepts no more units, including those that wait in [`submit`](Self::submit), and resolves when every accepted
    /// unit has its outcome. The engine still answers [`stats`](Self::stats) and
    /// [`refresh_activity`](Self::refresh_activity).
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// engine.drain().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(&self) {
        self.inner.close();
        self.flush().await;
    }

    /// Drains until the deadline, waits until the deadline for requested merges, and ends the engine. Units without an
    /// outcome by then get `Unavailable` and are listed in the report. Calling it again waits for the same end and
    /// gives the same report.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) {
    /// let report = engine.shutdown(std::time::Duration::from_secs(25)).await;
    /// println!("{} units committed, {} abandoned", report.stats.units_committed, report.abandoned.len());
    /// # }
    /// ```
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.inner.close();
        let in_flight = &self.inner.shared.in_flight;
        let drained = async {
            self.flush().await;
            *self.inner.shared.merging.lock().await = true;
        };
        // Whichever comes first. The timer runs on the engine's runtime, because the caller's may have none.
        let clock = self.inner.shared.runtime.spawn(async move { tokio::time::sleep(deadline).await });
        let _ = futures::future::select(std::pin::pin!(drained), clock).await;
        in_flight.abandon(&UnavailableCause::ShutDown);
        self.inner.stop(Stop::Now);
        self.inner.done.clone().await;
        // Shared by all shutdowns: each gives the same report.
        ShutdownReport { abandoned: in_flight.abandoned(), stats: self.stats() }
    }
}
