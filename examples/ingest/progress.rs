//! How far the load has come: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use graphsink::Engine;
use graphsink::loader::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::number::grouped;

const BAR_PERIOD: Duration = Duration::from_millis(200);
/// Seldom enough not to fill the log of a long run.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// How much there is to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// As many bytes of files.
    Bytes(u64),
    /// As many lines.
    Lines(u64),
    /// Until the end.
    Unknown,
}

/// Shows the progress until it is ended.
#[derive(Debug)]
pub(crate) struct Watch {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Scene {
    engine: Engine,
    progress: Arc<Progress>,
    extent: Extent,
    started: Instant,
}

impl Watch {
    pub(crate) fn start(engine: Engine, progress: Arc<Progress>, extent: Extent) -> Self {
        let (end, mut ended) = oneshot::channel();
        let scene = Scene { engine, progress, extent, started: Instant::now() };
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
        // The task is gone only when it panicked: nothing is left to end.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

impl Scene {
    /// What was read and what there is, in the same measure.
    fn position(&self) -> (u64, Option<u64>) {
        match self.extent {
            Extent::Bytes(bytes) => (self.progress.bytes(), Some(bytes)),
            Extent::Lines(lines) => (self.progress.lines(), Some(lines)),
            Extent::Unknown => (self.progress.lines(), None),
        }
    }

    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.position().1 {
            Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3}%  {msg}  ETA {eta}"),
            None => (ProgressBar::new_spinner(), "{spinner}  {msg}"),
        };
        bar.with_style(ProgressStyle::with_template(template).expect("a template that was tried"))
    }

    fn draw(&self, bar: &ProgressBar) {
        bar.set_message(self.message());
        bar.set_position(self.position().0);
        bar.tick();
    }

    fn message(&self) -> String {
        let stats = self.engine.stats();
        let rows = stats.entities.received + stats.connections.received + stats.mentions.received;
        let per_second = (rows as f64 / self.started.elapsed().as_secs_f64()) as u64;
        let mut parts = vec![
            format!("{} lines", grouped(self.progress.lines())),
            format!("{} units committed", grouped(stats.units_committed)),
            format!("{} rows/s", grouped(per_second)),
        ];
        for (count, what) in [(stats.units_rejected, "rejected"), (stats.units_unavailable, "unavailable")] {
            if count > 0 {
                parts.push(format!("{} {what}", grouped(count)));
            }
        }
        parts.join("  ")
    }

    fn line(&self) -> String {
        let elapsed = self.started.elapsed().as_secs_f64();
        let line = format!("{elapsed:6.1} s  {}", self.message());
        match self.position() {
            (read, Some(length)) if read > 0 && length > 0 => {
                let share = (read as f64 / length as f64).min(1.0);
                format!("{line}  {:.0}%  ETA {:.0} s", share * 100.0, elapsed * (1.0 - share) / share)
            }
            _ => line,
        }
    }
}
