//! Records an engine's totals over time, for the report of a load.

use std::time::{Duration, Instant};

use graphsink::{Disposition, Distribution, Engine, Latency, Stats};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The initial time between two moments: a short load has enough of them to be drawn.
const PERIOD: Duration = Duration::from_millis(50);
/// Maximum number of moments. When it is reached, every other moment is dropped, and the time between them doubles:
/// memory does not depend on the length of the load.
const MOMENTS_MAX: usize = 400;

/// Totals at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// Seconds after the start.
    pub at: f64,
    pub mentions: u64,
    /// Rows as submitted, of all tables.
    pub received: u64,
    /// Rows of all tables by disposition, in the order of [`Disposition::ALL`], and rows saved by coalescing.
    pub rows: [u64; 4],
    pub rows_in_flight: u64,
    pub epoch_rows: Distribution,
    pub acknowledgement: Latency,
    /// Microseconds that ended transactions waited for locks.
    pub lock_wait: u64,
}

impl Moment {
    pub fn of(stats: &Stats, at: Duration) -> Self {
        let tables = [&stats.entities, &stats.connections, &stats.mentions];
        let [inserted, updated, unchanged] = Disposition::ALL.map(|disposition| {
            let of_table = |table: &&graphsink::TableStats| match disposition {
                Disposition::Inserted => table.inserted,
                Disposition::Updated => table.updated,
                Disposition::Unchanged => table.unchanged,
            };
            tables.iter().map(of_table).sum()
        });
        Self {
            at: at.as_secs_f64(),
            mentions: stats.mentions.received,
            received: tables.iter().map(|table| table.received).sum(),
            rows: [inserted, updated, unchanged, tables.iter().map(|table| table.coalesced()).sum()],
            rows_in_flight: stats.rows_in_flight,
            epoch_rows: stats.epoch_rows.clone(),
            acknowledgement: stats.acknowledgement.clone(),
            lock_wait: stats.lock_wait.microseconds().sum(),
        }
    }
}

/// Samples an engine periodically until it is ended.
#[derive(Debug)]
pub struct Recording {
    end: oneshot::Sender<()>,
    task: JoinHandle<Vec<Moment>>,
}

impl Recording {
    pub fn start(engine: Engine) -> Self {
        let (end, mut ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (started, mut period) = (Instant::now(), PERIOD);
            let mut moments = vec![Moment::of(&engine.stats(), Duration::ZERO)];
            while tokio::time::timeout(period, &mut ended).await.is_err() {
                moments.push(Moment::of(&engine.stats(), started.elapsed()));
                if moments.len() >= MOMENTS_MAX {
                    thin_out(&mut moments);
                    period *= 2;
                }
            }
            moments.push(Moment::of(&engine.stats(), started.elapsed()));
            moments
        });
        Self { end, task }
    }

    /// Everything from the start until now.
    pub async fn end(self) -> Vec<Moment> {
        // The task has ended only if it panicked: then there is nothing to show.
        let _ = self.end.send(());
        self.task.await.unwrap_or_default()
    }
}

/// Drops every other moment, but not the first.
fn thin_out(moments: &mut Vec<Moment>) {
    let mut keep = [true, false].into_iter().cycle();
    moments.retain(|_| keep.next().unwrap_or(true));
}
