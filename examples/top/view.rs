//! The picture: a scene, drawn into a frame of any size. It is pure: it queries nothing and reads no clock.
//!
//! Designed for 80 columns and 24 rows; taller frames also show the actors and the hottest connections one by one.
//! Content that does not fit is cut off.

use std::time::Duration;

use graphsink::{EngineStatus, Health};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, RenderDirection, Sparkline, Wrap};

use crate::top::format::{rate, short};
use crate::top::history::{History, Rate};

mod state;
mod tables;

const ACCENT: Color = Color::Cyan;
const GOOD: Color = Color::Green;
const WARNING: Color = Color::Yellow;
const BAD: Color = Color::Red;
const QUIET: Style = Style::new().fg(Color::DarkGray);

/// Heights of the parts, with their titles.
const ROWS: u16 = 8;
const MIDDLE: u16 = 11;
const DETAILS: u16 = 12;
/// Fewer rows of details are not worth their title.
const DETAILS_MIN: u16 = 4;
const THROUGHPUT_MIN: u16 = 3;
/// Rows for bars before there are any details.
const BARS_SPARE: u16 = 2;
/// Width of latencies and sizes.
const TIMINGS: u16 = 41;

/// Everything that a picture shows.
#[derive(Debug)]
pub struct Scene<'a> {
    pub history: &'a History,
    /// The address of the engine.
    pub address: &'a str,
    pub paused: bool,
    /// Time since the start, like the times in the history.
    pub now: Duration,
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let [header, body, footer] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(headline(scene), header);
    frame.render_widget(keys(), footer);
    let (Some(report), Some(lately)) = (scene.history.latest(), scene.history.lately()) else {
        let waiting = scene.history.lost().map_or("waiting for the first answer", |lost| &lost.error);
        frame.render_widget(Paragraph::new(waiting).wrap(Wrap { trim: true }), body);
        return;
    };
    let (throughput, rows, middle, details) = parts(body);
    draw_throughput(frame, throughput, scene.history);
    tables::draw_rows(frame, rows, &report.stats, &lately);
    let [timings, _, now] =
        Layout::horizontal([Constraint::Length(TIMINGS), Constraint::Length(1), Constraint::Fill(1)]).areas(middle);
    tables::draw_timings(frame, timings, &lately);
    state::draw_now(frame, now, report);
    if !details.is_empty() {
        state::draw_details(frame, details, report);
    }
}

/// From top to bottom: throughput, rows, the part between them and the details, details. The last may be empty.
fn parts(body: Rect) -> (Rect, Rect, Rect, Rect) {
    let spare = body.height.saturating_sub(ROWS + MIDDLE + THROUGHPUT_MIN);
    let details = spare.saturating_sub(BARS_SPARE).min(DETAILS);
    let details = if details < DETAILS_MIN { 0 } else { details };
    let heights =
        [Constraint::Fill(1), Constraint::Length(ROWS), Constraint::Length(MIDDLE), Constraint::Length(details)];
    let [throughput, rows, middle, details] = Layout::vertical(heights).areas(body);
    (throughput, rows, middle, details)
}

fn headline<'a>(scene: &Scene<'a>) -> Line<'a> {
    let mut spans = vec![Span::from(" graphsink top ").bold().reversed(), Span::from(format!(" {} ", scene.address))];
    if scene.paused {
        spans.push("paused ".fg(WARNING).bold());
    }
    let (text, colour) = match (scene.history.lost(), scene.history.latest()) {
        (Some(lost), _) => {
            let since = short(scene.now.saturating_sub(lost.since));
            (format!("no answer for {since}, trying again: {}", lost.error), BAD)
        }
        (None, Some(report)) => condition(&report.health),
        (None, None) => (String::new(), GOOD),
    };
    spans.push(text.fg(colour));
    spans.into()
}

/// The condition of the engine, in a few words.
fn condition(health: &Health) -> (String, Color) {
    let status = match health.status {
        EngineStatus::Running => "running",
        EngineStatus::Draining => "draining",
        EngineStatus::Stopped => "stopped",
        EngineStatus::Failed => "failed",
        _ => "?",
    };
    let colour = match (health.live, health.ready) {
        (true, true) => GOOD,
        (true, false) => WARNING,
        (false, _) => BAD,
    };
    let (live, ready) =
        (if health.live { "live" } else { "not live" }, if health.ready { "ready" } else { "not ready" });
    let reasons = if health.reasons.is_empty() { String::new() } else { format!(": {}", health.reasons.join("; ")) };
    (format!("{status}, {live}, {ready}{reasons}"), colour)
}

fn keys() -> Line<'static> {
    let key = |key| Span::from(key).bold();
    let text = |text| Span::styled(text, QUIET);
    vec![key(" q"), text(" quit  "), key("p"), text(" pause  "), key("r"), text(" reset peaks")].into()
}

/// The block of a part: a line with its title.
fn titled<'a>(title: impl Into<Line<'a>>) -> Block<'a> {
    Block::new().borders(Borders::TOP).border_style(QUIET).title(title.into().style(Style::new().fg(ACCENT)))
}

fn draw_throughput(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let (now, peak) = (history.rate(), history.peak());
    let figures = |name: &str, of: fn(Rate) -> f64| format!(" {name}/s: {}, peak {} ", rate(of(now)), rate(of(peak)));
    let block = titled(figures("mentions", |rate| rate.mentions).bold())
        .title(Line::from(figures("rows", |rate| rate.rows)).style(Style::new().fg(ACCENT)).right_aligned());
    let columns = usize::from(area.width);
    let bars = history.rates().map(|rate| rate.map(|rate| rate.mentions.round() as u64));
    let sparkline = Sparkline::default()
        .block(block)
        .data(bars.take(columns).collect::<Vec<_>>())
        .direction(RenderDirection::RightToLeft)
        .absent_value_symbol("·")
        .absent_value_style(Style::new().fg(BAD))
        .style(Style::new().fg(GOOD).remove_modifier(Modifier::BOLD));
    frame.render_widget(sparkline, area);
}
