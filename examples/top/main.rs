//! Shows on a terminal what a running engine is doing.
//!
//! `cargo run --release --example top -- --attach http://127.0.0.1:9187` shows the engine of an `ingest
//! --metrics-address 127.0.0.1:9187`, or of any program with `observability/endpoint.rs`; without `--attach` it shows
//! its own engine. The files beside this one: `args` (the command line) and `demo` (its own engine).
//!
//! Tests know these: `source` (queries the engine), `history` (from totals to rates), `view` (the picture), `format`
//! (figures), `svg` (the picture as a file). So they are parts of the library `examples/lib.rs`.

mod args;
mod demo;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use clap::Parser;
use graphsink_examples::observability::endpoint;
use graphsink_examples::top::history::History;
use graphsink_examples::top::source::{Answer, Source};
use graphsink_examples::top::svg;
use graphsink_examples::top::view::{self, Scene};
use ratatui::buffer::Cell;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal, backend::TestBackend};
use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use demo::Demo;

type AnyError = Box<dyn Error + Send + Sync>;

/// Maximum delay of a key or an answer before the picture is updated.
const PERIOD: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), AnyError> {
    if !args.once && !io::stdout().is_terminal() {
        return Err("standard output is not a terminal; --once prints one picture".into());
    }
    if let Some(address) = args.attach.clone() {
        return show(args, address).await;
    }
    eprintln!("starting a demo engine; --attach shows a running one");
    let demo = Demo::start().await?;
    let shown = show(args, demo.address()).await;
    demo.end().await?;
    shown
}

/// Reading keys and waiting for answers block, so they run in a blocking thread.
async fn show(args: Args, address: String) -> Result<(), AnyError> {
    let source = Source::new(&address);
    tokio::task::spawn_blocking(move || if args.once { once(&args, &source) } else { live(&args, source) }).await?
}

/// Waits for some answers, and writes one picture.
fn once(args: &Args, source: &Source) -> Result<(), AnyError> {
    let (mut history, address, started) = (History::default(), source.url().to_owned(), Instant::now());
    for frame in 0..args.frames {
        if frame > 0 {
            thread::sleep(args.interval());
        }
        history.absorb(started.elapsed(), source.look());
    }
    if let (None, Some(lost)) = (history.latest(), history.lost()) {
        return Err(format!("{address}: {}", lost.error).into());
    }
    let (width, height) = args.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    let scene = Scene { history: &history, address: &address, paused: false, now: started.elapsed() };
    terminal.draw(|frame| view::draw(frame, &scene))?;
    let cells = terminal.backend().buffer();
    if let Some(path) = &args.svg {
        return fs::write(path, svg::svg(cells)).map_err(|error| format!("{}: {error}", path.display()).into());
    }
    for row in cells.content().chunks(usize::from(width)) {
        println!("{}", row.iter().map(Cell::symbol).collect::<String>().trim_end());
    }
    Ok(())
}

/// Shows the engine until the user quits.
fn live(args: &Args, source: Source) -> Result<(), AnyError> {
    let (address, paused, started) = (source.url().to_owned(), Arc::new(AtomicBool::new(false)), Instant::now());
    let answers = source.watch(started, args.interval(), Arc::clone(&paused))?;
    let ended = ended_by_signal()?;
    // Panics restore the terminal as well.
    let mut terminal = ratatui::try_init()?;
    let shown = Screen { history: History::default(), address, paused, ended, started }.show(&mut terminal, &answers);
    ratatui::try_restore()?;
    shown
}

/// True once the program is told to end, other than by the keyboard.
fn ended_by_signal() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, ended) = (signal(kind)?, Arc::clone(&ended));
        tokio::spawn(async move {
            signal.recv().await;
            ended.store(true, Ordering::Relaxed);
        });
    }
    Ok(ended)
}

/// The displayed data and the user's choices.
#[derive(Debug)]
struct Screen {
    history: History,
    address: String,
    paused: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    started: Instant,
}

impl Screen {
    fn show(mut self, terminal: &mut DefaultTerminal, answers: &Receiver<Answer>) -> Result<(), AnyError> {
        while !self.ended.load(Ordering::Relaxed) {
            let scene = Scene {
                history: &self.history,
                address: &self.address,
                paused: self.paused.load(Ordering::Relaxed),
                now: self.started.elapsed(),
            };
            terminal.draw(|frame| view::draw(frame, &scene))?;
            // A resize of the terminal counts as an event, and leads to a redraw.
            if event::poll(PERIOD)?
                && let Event::Key(key) = event::read()?
                && self.is_last(key)
            {
                break;
            }
            self.take(answers)?;
        }
        Ok(())
    }

    fn take(&mut self, answers: &Receiver<Answer>) -> Result<(), AnyError> {
        loop {
            match answers.try_recv() {
                Ok(Answer { at, report }) => self.history.absorb(at, report),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err("the thread that queries the engine has ended".into()),
            }
        }
    }

    /// Executes a key. Returns whether it quits.
    fn is_last(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if control => return true,
            KeyCode::Char('p') => {
                self.paused.fetch_xor(true, Ordering::Relaxed);
            }
            KeyCode::Char('r') => self.history.reset_peak(),
            _ => {}
        }
        false
    }
}
