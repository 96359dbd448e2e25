//! Ctrl-C: once for an orderly stop, twice to quit.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The user's request to end the run.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    asked: watch::Receiver<bool>,
    ignored: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT and SIGTERM from now on.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (sender, asked) = watch::channel(false);
        let ignored = Arc::new(AtomicBool::new(false));
        let stop = Self { asked, ignored: Arc::clone(&ignored) };
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ignored.load(Ordering::Relaxed) {
                    continue;
                }
                if sender.send_replace(true) {
                    eprintln!("quitting at once: each unit in flight is committed completely or not at all");
                    // An embedded server stops with its owner, even then.
                    process::exit(1);
                }
                eprintln!("stopping: finishing units in flight (Ctrl-C again quits at once)");
            }
        });
        Ok(stop)
    }

    /// Leaves Ctrl-C to a program that runs in the foreground.
    pub(crate) fn ignore(&self) {
        self.ignored.store(true, Ordering::Relaxed);
    }

    /// Whether the user requested the end.
    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until the user requests the end.
    pub(crate) async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            // The listener ended with the runtime; no request can come any more.
            std::future::pending::<()>().await;
        }
    }
}
