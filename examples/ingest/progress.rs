//! The progress of the load: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use graphsink::loader::Progress;
use graphsink::{BulkLoad, BulkPhase, BulkProgress, Engine};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::number::grouped;

const BAR_PERIOD: Duration = Duration::from_millis(200);
/// Seldom enough not to fill the log of a long run.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// The size of the input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// This many bytes of files.
    Bytes(u64),
    /// This many lines.
    Lines(u64),
    /// Unknown until the end.
    Unknown,
}

/// Shows the progress until it is ended.
#[derive(Debug)]
pub(crate) struct Watch {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The observed load.
#[derive(Debug)]
pub(crate) enum Watched {
    Engine(Engine),
    Bulk(BulkLoad),
}

struct Scene {
    watched: Watched,
    progress: Arc<Progress>,
    extent: Extent,
    started: Instant,
}

/// A snapshot of the progress, with its text.
struct Look {
    done: u64,
    total: Option<u64>,
    /// Time since its beginning.
    elapsed: Duration,
    message: String,
}

impl Watch {
    pub(crate) fn start(watched: Watched, progress: Arc<Progress>, extent: Extent) -> Self {
        let (end, mut ended) = oneshot::channel();
        let scene = Scene { watched, progress, extent, started: Instant::now() };
        let task = tokio::spawn(async move {
            let bar = io::stderr().is_terminal().then(|| scene.bar());
            let period = if bar.is_some() { BAR_PERIOD } else { LINE_PERIOD };
            while tokio::time::timeout(period, &mut ended).await.is_err() {
                match &bar {
                    Some(bar) => scene.draw(bar),
                    None => eprintln!("{}", scene.line()),
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        Self { end, task }
    }

    pub(crate) async fn end(self) {
        // The task has ended only if it panicked: nothing is left to end.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

impl Scene {
    fn look(&self) -> Look {
        match &self.watched {
            Watched::Engine(engine) => {
                let stats = engine.stats();
                let rows = stats.entities.received + stats.connections.received + stats.mentions.received;
                let parts = [
                    format!("{} units committed", grouped(stats.units_committed)),
                    format!("{} rows/s", per_second(rows, self.started.elapsed())),
                ];
                let not = [(stats.units_rejected, "rejected"), (stats.units_unavailable, "unavailable")];
                self.reading(parts, not)
            }
            Watched::Bulk(load) => self.look_at(&load.progress()),
        }
    }

    /// The amount read and the total, in the same unit.
    fn reading(&self, parts: [String; 2], not: [(u64, &str); 2]) -> Look {
        let (done, total) = match self.extent {
            Extent::Bytes(bytes) => (self.progress.bytes(), Some(bytes)),
            Extent::Lines(lines) => (self.progress.lines(), Some(lines)),
            Extent::Unknown => (self.progress.lines(), None),
        };
        let mut all = vec![format!("{} lines", grouped(self.progress.lines()))];
        all.extend(parts);
        all.extend(
            not.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", grouped(*count))),
        );
        Look { done, total, elapsed: self.started.elapsed(), message: all.join("  ") }
    }

    fn look_at(&self, progress: &BulkProgress) -> Look {
        let spilled = format!("{} MiB in files", grouped(progress.spilled_bytes >> 20));
        let BulkProgress { phase, step, done, total, .. } = progress;
        let message = match phase {
            BulkPhase::Reading => {
                let rate = format!("{} rows/s", per_second(progress.rows_received, self.started.elapsed()));
                let mut look = self.reading([rate, spilled], [(progress.rejected, "rejected"), (0, "")]);
                look.message = format!("reading  {}", look.message);
                return look;
            }
            BulkPhase::Sorting => format!("sorting  {} units", grouped(progress.units)),
            BulkPhase::Preparing => "preparing the tables: waits for those that read them".to_owned(),
            BulkPhase::Replacing if *total == 0 => "replacing the tables: waits for those that read them".to_owned(),
            BulkPhase::Replacing => format!("checking {step} ({} of {total})", (done + 1).min(*total)),
            BulkPhase::Writing => format!("writing {step}  {} rows  {spilled}", grouped(progress.rows_written)),
            BulkPhase::Building => format!("building {step} ({} of {total})", (done + 1).min(*total)),
            phase => phase.as_str().to_owned(),
        };
        Look { done: *done, total: Some(*total).filter(|total| *total > 0), elapsed: progress.elapsed, message }
    }

    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.look().total {
            Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3}%  {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner}  {msg}"),
        };
        bar.with_style(ProgressStyle::with_template(template).expect("a template that was tried"))
    }

    fn draw(&self, bar: &ProgressBar) {
        let look = self.look();
        bar.set_length(look.total.unwrap_or(0));
        bar.set_position(look.done);
        let left = look.left().map_or_else(String::new, |left| format!("  ETA {left:.0} s"));
        bar.set_message(look.message + &left);
        bar.tick();
    }

    fn line(&self) -> String {
        let look = self.look();
        let line = format!("{:6.1} s  {}", self.started.elapsed().as_secs_f64(), look.message);
        match look.left() {
            Some(left) => format!("{line}  {:.0}%  ETA {left:.0} s", look.share() * 100.0),
            None => line,
        }
    }
}

impl Look {
    /// The completed share of the phase.
    fn share(&self) -> f64 {
        self.total.map_or(0.0, |total| (self.done as f64 / total as f64).min(1.0))
    }

    /// Estimated seconds for the rest of the phase at this pace.
    fn left(&self) -> Option<f64> {
        let share = self.share();
        (share > 0.0).then(|| self.elapsed.as_secs_f64() * (1.0 - share) / share)
    }
}

fn per_second(count: u64, elapsed: Duration) -> String {
    grouped((count as f64 / elapsed.as_secs_f64()) as u64)
}
