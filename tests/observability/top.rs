//! `top` shows the figures of the engine: polled from a real run, through the real endpoint, drawn into real cells.

mod history;
mod pictures;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use graphsink::{
    ActorKind, Engine, Latency, Mention, Outcome, PlaceObservation, SourceType, Stats, TableStats, UnitOfWork,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use serde_json::json;

use crate::endpoint::{Endpoint, Report};
use crate::format::{bytes, rate, short};
use crate::history::{History, Rate, WINDOW};
use crate::number::grouped;
use crate::run::after_the_run;
use crate::source::{Answer, Source};
use crate::support::{Database, PATIENCE, as_of, within};
use crate::view::{Scene, draw};

/// A figure of an engine's statistics.
type Of<T> = fn(&Stats) -> &T;

const ADDRESS: &str = "http://engine:9187";
const WIDE: (u16, u16) = (120, 40);
const USUAL: (u16, u16) = (80, 24);

fn unit(number: usize) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let mut restaurant = unit.restaurant(format!("place {}", number % 39));
    if number.is_multiple_of(200) {
        // One of them has the id, the others are rejected.
        restaurant = restaurant.place(PlaceObservation::new(as_of()).google_place_id("taken"));
    }
    let restaurant = restaurant.handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    // Some mentions are stated twice, by the same restaurant.
    let source = format!("t{}", number % 3_120);
    unit.mention(connection, Mention::new(SourceType::Post, source, "https://example.org", "food", as_of()));
    unit
}

async fn serve(engine: &Engine) -> Endpoint {
    // Not installed: the process has a recorder already.
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Endpoint::serve(([127, 0, 0, 1], 0).into(), engine.clone(), metrics).await.unwrap()
}

async fn look(source: &Source) -> Result<Report, String> {
    let source = source.clone();
    within(tokio::task::spawn_blocking(move || source.look())).await.unwrap()
}

fn next(answers: &Receiver<Answer>) -> (Duration, Report) {
    taken(tokio::task::block_in_place(|| answers.recv_timeout(PATIENCE)).unwrap())
}

fn taken(Answer { at, report }: Answer) -> (Duration, Report) {
    (at, report.unwrap())
}

/// A report of an idle engine, with some changes.
fn report(change: impl FnOnce(&mut Stats)) -> Report {
    let mut stats = Stats::default();
    change(&mut stats);
    let health = json!({
        "live": true, "ready": true, "reasons": [], "status": "running", "actors": [],
        "database": { "usable": true, "unusable_for": null, "last_commit_at": null },
        "backlog": { "units": 0, "rows": 0, "rows_max": 0, "bytes": 0, "bytes_max": 0, "oldest_unit": 0.0 },
    });
    Report { health: serde_json::from_value(health).unwrap(), stats }
}

fn cells(scene: &Scene<'_>, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, scene)).unwrap();
    terminal.backend().buffer().clone()
}

fn scene(history: &History, now: Duration) -> Scene<'_> {
    Scene { history, address: ADDRESS, paused: false, now }
}

/// The lines of a picture, with single blanks between words.
fn screen(scene: &Scene<'_>, size: (u16, u16)) -> Vec<String> {
    let cells = cells(scene, size);
    let lines = cells.content().chunks(usize::from(size.0));
    let lines = lines.map(|line| line.iter().map(Cell::symbol).collect::<String>());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn assert_says(screen: &[String], text: &str) {
    assert!(screen.iter().any(|line| line.contains(text)), "{text:?} is not in\n{}", screen.join("\n"));
}

/// The growth of a total in each second between two answers.
fn growth(before: &(Duration, Report), after: &(Duration, Report), total: impl Fn(&Stats) -> u64) -> f64 {
    (total(&after.1.stats) - total(&before.1.stats)) as f64 / after.0.checked_sub(before.0).unwrap().as_secs_f64()
}

fn rows(stats: &Stats) -> u64 {
    stats.entities.received + stats.connections.received + stats.mentions.received
}

/// All figures of the last answer, and their changes since the first one of the window.
fn assert_shows(screen: &[String], answers: &[(Duration, Report)]) {
    let (last, earlier) = answers.split_last().unwrap();
    let begin = earlier.iter().rposition(|(at, _)| *at + WINDOW <= last.0).unwrap_or(0);
    let first = &answers[begin];
    let stats = &last.1.stats;
    let tables: [(&str, Of<TableStats>); 3] = [
        ("entities", |stats| &stats.entities),
        ("connections", |stats| &stats.connections),
        ("mentions", |stats| &stats.mentions),
    ];
    for (name, table) in tables {
        let counts: [fn(&TableStats) -> u64; 4] =
            [|rows| rows.received, |rows| rows.inserted, |rows| rows.updated, |rows| rows.unchanged];
        let totals = counts.map(|count| grouped(count(table(stats)))).join(" ");
        assert_says(screen, &format!("{name} {totals} {}", grouped(table(stats).coalesced())));
        let place = screen.iter().position(|line| line.starts_with(&format!("{name} "))).unwrap();
        let rates = counts.map(|count| rate(growth(first, last, |stats| count(table(stats))))).join(" ");
        assert!(screen[place + 1].starts_with(&format!("per second {rates} ")), "{rates:?}\n{}", screen.join("\n"));
        let sizes = table(stats).batch_rows.since(&table(&first.1.stats).batch_rows);
        if sizes.count() > 0 {
            let sizes = [sizes.quantile(0.5), sizes.quantile(0.99), sizes.max()].map(grouped).join(" ");
            assert_says(screen, &format!("batch {name} {sizes}"));
        }
    }
    let latencies: [(&str, Of<Latency>); 6] = [
        ("acknowledgement", |stats| &stats.acknowledgement),
        ("commit", |stats| &stats.commit),
        ("lane wait", |stats| &stats.lane_wait),
        ("pool wait", |stats| &stats.pool_wait),
        ("lock wait", |stats| &stats.lock_wait),
        ("admission wait", |stats| &stats.admission_wait),
    ];
    for (name, latency) in latencies {
        let lately = latency(stats).since(latency(&first.1.stats));
        if lately.count() > 0 {
            let shown = [lately.quantile(0.5), lately.quantile(0.99), lately.max()].map(short).join(" ");
            assert_says(screen, &format!("{name} {shown}"));
        }
    }
    let backlog = &last.1.health.backlog;
    let between = |total: fn(&Stats) -> u64| answers.windows(2).map(move |pair| growth(&pair[0], &pair[1], total));
    for text in [
        format!("{} rows of {} rows", grouped(backlog.rows), grouped(backlog.rows_max)),
        format!("{} of {}", bytes(backlog.bytes), bytes(backlog.bytes_max)),
        format!("in flight {} units, oldest {}", grouped(backlog.units), short(backlog.oldest_unit)),
        format!("committed {} units", grouped(stats.units_committed)),
        format!("rejected {}, {} dead letters", grouped(stats.units_rejected), grouped(stats.dead_letters)),
        format!("epochs {} writing, {} waiting", stats.epochs_writing, stats.epochs_waiting),
        format!("pool {} in use, {} idle, max {}", stats.pool.in_use(), stats.pool.idle, stats.pool.max),
        format!("failures {}, {} retries, {} splits", stats.failed_attempts, stats.retries, stats.splits),
        "circuit closed, opened 0 times".to_owned(),
        "5 of 5 actors alive, 1 restarts".to_owned(),
        "running, live, ready".to_owned(),
        format!(
            "mentions/s: {}, peak {} ─",
            rate(between(|stats| stats.mentions.received).next_back().unwrap_or_default()),
            rate(between(|stats| stats.mentions.received).fold(0.0, f64::max))
        ),
        format!(
            "─ rows/s: {}, peak {}",
            rate(between(rows).next_back().unwrap_or_default()),
            rate(between(rows).fold(0.0, f64::max))
        ),
    ] {
        assert_says(screen, &text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picture_of_top_shows_the_figures_of_the_engine() {
    after_the_run().await;
    let database = Database::migrated().await;
    // Small limits, so that there are many transactions, and units have to wait for room.
    let config = database.config().max_unit_rows(40).max_batch_rows(300).in_flight_commits(2);
    let config = config.max_rows_in_flight(1_500).dead_letters(true).build().unwrap();
    let engine = Engine::start(config).await.unwrap();
    engine.kill_actor(ActorKind::EntityBatcher);
    within(async {
        while engine.stats().actor_restarts == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let endpoint = serve(&engine).await;
    let source = Source::new(&format!("{}/", endpoint.address()));
    assert_eq!(source.url(), format!("http://{}", endpoint.address()));
    let paused = Arc::new(AtomicBool::new(false));
    let polled = source.watch(Instant::now(), Duration::from_millis(50), paused).unwrap();
    let (mut history, mut answers) = (History::default(), vec![next(&polled)]);
    history.absorb(answers[0].0, Ok(answers[0].1.clone()));

    let load = tokio::spawn({
        let engine = engine.clone();
        async move {
            let mut receipts = Vec::new();
            for number in 0..4_000 {
                receipts.push(within(engine.submit(unit(number))).await.unwrap());
            }
            let mut rejected = 0;
            for receipt in receipts {
                rejected += u64::from(matches!(within(receipt).await, Outcome::Rejected(_)));
            }
            rejected
        }
    });
    let deadline = Instant::now() + PATIENCE;
    while !load.is_finished() || answers.last().unwrap().1.stats != engine.stats() {
        assert!(Instant::now() < deadline, "the last answer differs from the engine");
        // Reads all answers that have arrived: checking each of them could take longer than the interval to the next.
        let waiting = std::iter::from_fn(|| polled.try_recv().ok()).map(taken);
        for (at, report) in std::iter::once(next(&polled)).chain(waiting) {
            history.absorb(at, Ok(report.clone()));
            answers.push((at, report));
        }
        for size in [WIDE, USUAL] {
            assert_shows(&screen(&scene(&history, answers.last().unwrap().0), size), &answers);
        }
    }
    let rejected = load.await.unwrap();

    // Without these events the comparison would prove little.
    let seen = |what: fn(&Stats) -> u64| answers.iter().any(|(_, report)| what(&report.stats) > 0);
    let whats: [fn(&Stats) -> u64; 7] = [
        |stats| stats.rows_in_flight,
        |stats| stats.epochs_writing,
        |stats| stats.splits,
        |stats| stats.dead_letters,
        |stats| stats.mentions.unchanged,
        |stats| stats.connections.updated,
        |stats| stats.connections.coalesced(),
    ];
    for (place, what) in whats.into_iter().enumerate() {
        assert!(seen(what), "{place}");
    }
    let stats = engine.stats();
    let wide = screen(&scene(&history, answers.last().unwrap().0), WIDE);
    assert_says(&wide, &format!("committed {} units", grouped(4_000 - rejected)));
    assert_eq!(stats.hot_connections.len(), 10);
    for hot in &stats.hot_connections {
        assert_says(&wide, &format!("{} {} {}", hot.connection_id, grouped(hot.recent_rows), grouped(hot.overcount)));
    }
    assert_says(&wide, "entity_batcher alive 1");
    assert_says(&wide, "transaction_coordinator alive 0");
    assert!(wide.iter().filter(|line| line.contains(['▂', '▄', '▆', '█'])).count() > 1, "{}", wide.join("\n"));
    within(engine.shutdown(Duration::from_secs(20))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_engine_leaves_its_last_figures_and_a_new_one_starts_over() {
    after_the_run().await;
    let database = Database::migrated().await;
    let at = Duration::from_secs;
    let mut history = History::default();
    let engine = database.engine().await;
    for number in 1..40 {
        assert!(within(engine.submit(unit(number)).await.unwrap()).await.committed().is_some());
    }
    let endpoint = serve(&engine).await;
    let source = Source::new(&endpoint.address().to_string());
    history.absorb(at(1), look(&source).await);
    history.absorb(at(2), look(&source).await);
    let committed = "committed 39 units";
    assert_says(&screen(&scene(&history, at(2)), USUAL), committed);
    within(engine.shutdown(Duration::from_secs(20))).await;
    history.absorb(at(2), look(&source).await);
    let ended = screen(&scene(&history, at(2)), WIDE);
    assert_says(&ended, "stopped, live, not ready: the engine was shut down");
    assert_says(&ended, "supervisor ended 0");
    let before = screen(&scene(&history, at(2)), USUAL);
    drop(endpoint);

    // Not the connection that is already open.
    let source = Source::new(source.url());
    for second in 3..6 {
        history.absorb(at(second), look(&source).await);
    }
    let lost = screen(&scene(&history, at(7)), USUAL);
    assert_says(&lost, "no answer for 4.0 s, trying again: ");
    assert_says(&lost, committed);
    assert_eq!(lost[7..23], before[7..23], "the figures stay as they were");
    assert_eq!(history.rates().collect::<Vec<_>>(), [None, None, None, Some(Rate::default())]);

    let engine = database.engine().await;
    assert!(within(engine.submit(unit(1)).await.unwrap()).await.committed().is_some());
    let endpoint = serve(&engine).await;
    history.absorb(at(8), look(&Source::new(&endpoint.address().to_string())).await);
    let again = screen(&scene(&history, at(8)), USUAL);
    assert_says(&again, "running, live, ready");
    assert_says(&again, "committed 1 units");
    assert_says(&again, "mentions/s: 0, peak 0 ─");
    assert_eq!(history.rates().count(), 0);
    within(engine.shutdown(Duration::from_secs(20))).await;
}
