//! The state of an engine: units in flight, failures, actors, and the connections that are named most.

use graphsink::{Health, Stats};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Gauge, Paragraph, Table};

use super::tables::figures;
use super::{ACCENT, BAD, GOOD, QUIET, WARNING, titled};
use crate::ingest::number::grouped;
use crate::observability::endpoint::Report;
use crate::top::format::{bytes, short};

/// Columns of a figure's name.
const NAME: usize = 12;
/// The share from which units may soon have to wait.
const NEARLY_FULL: f64 = 0.9;

/// Units in flight, against their limits, and other figures of the engine.
pub(super) fn draw_now(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let Report { health, stats } = report;
    let alive = health.actors.iter().filter(|actor| actor.alive).count();
    let actors =
        format!(" {alive} of {} actors alive, {} restarts ", health.actors.len(), grouped(stats.actor_restarts));
    let colour = if health.live { noticed(stats.actor_restarts, ACCENT) } else { BAD };
    let block = titled(" now ").title(Line::from(actors).style(Style::new().fg(colour)).right_aligned());
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let [rows, memory, rest] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)]).areas(inside);
    let backlog = &health.backlog;
    draw_gauge(frame, rows, (backlog.rows, backlog.rows_max), |rows| format!("{} rows", grouped(rows)));
    draw_gauge(frame, memory, (backlog.bytes, backlog.bytes_max), bytes);
    frame.render_widget(Paragraph::new(facts(health, stats)), rest);
}

fn draw_gauge(frame: &mut Frame<'_>, area: Rect, (now, max): (u64, u64), say: impl Fn(u64) -> String) {
    let ratio = if max == 0 { 0.0 } else { (now as f64 / max as f64).min(1.0) };
    let colour = if ratio < NEARLY_FULL { GOOD } else { WARNING };
    let gauge = Gauge::default().ratio(ratio).label(format!("{} of {}", say(now), say(max)));
    frame.render_widget(gauge.gauge_style(Style::new().fg(colour).bg(Color::Black)).use_unicode(true), area);
}

fn facts(health: &Health, stats: &Stats) -> Vec<Line<'static>> {
    let units = |units: u64| format!("{} units", grouped(units));
    let in_flight = &health.backlog;
    let oldest = short(in_flight.oldest_unit);
    let (pool, plain) = (&stats.pool, Color::Reset);
    let (circuit, circuit_colour) =
        if stats.circuit_open { ("open", BAD) } else { ("closed", noticed(stats.circuit_openings, plain)) };
    vec![
        fact("in flight", format!("{}, oldest {oldest}", units(in_flight.units)), plain),
        fact("committed", units(stats.units_committed), plain),
        fact(
            "rejected",
            format!("{}, {} dead letters", grouped(stats.units_rejected), grouped(stats.dead_letters)),
            noticed(stats.units_rejected, plain),
        ),
        fact("unavailable", units(stats.units_unavailable), noticed(stats.units_unavailable, plain)),
        fact("epochs", format!("{} writing, {} waiting", stats.epochs_writing, stats.epochs_waiting), plain),
        fact("pool", format!("{} in use, {} idle, max {}", pool.in_use(), pool.idle, pool.max), plain),
        fact(
            "failures",
            format!(
                "{}, {} retries, {} splits",
                grouped(stats.failed_attempts),
                grouped(stats.retries),
                grouped(stats.splits)
            ),
            noticed(stats.failed_attempts, plain),
        ),
        fact("circuit", format!("{circuit}, opened {} times", grouped(stats.circuit_openings)), circuit_colour),
    ]
}

fn fact(name: &'static str, value: String, colour: Color) -> Line<'static> {
    vec![Span::styled(format!("{name:<NAME$}"), QUIET), value.fg(colour)].into()
}

/// A figure that should be zero, but is not.
fn noticed(count: u64, otherwise: Color) -> Color {
    if count > 0 { WARNING } else { otherwise }
}

/// The hottest connections and the actors, one by one.
pub(super) fn draw_details(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let [hot, _, actors] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let connections = report.stats.hot_connections.iter().map(|hot| {
        let rows = [grouped(hot.recent_rows), grouped(hot.overcount)];
        figures(hot.connection_id.to_string(), rows)
    });
    let widths = [Constraint::Length(36), Constraint::Fill(1), Constraint::Fill(1)];
    let table = Table::new(connections, widths)
        .header(figures("", ["rows", "unsure"].map(str::to_owned)).bold())
        .block(titled(" connections named most lately "));
    frame.render_widget(table, hot);
    let all = report.health.actors.iter().map(|actor| {
        // An engine that was shut down has no actors, which is no fault.
        let (alive, colour) = match (actor.alive, report.health.live) {
            (true, _) => ("alive", noticed(actor.restarts, Color::Reset)),
            (false, true) => ("ended", Color::Reset),
            (false, false) => ("silent", BAD),
        };
        let seen = [alive.to_owned(), grouped(actor.restarts), short(actor.seen_ago)];
        figures(actor.name.clone(), seen).style(Style::new().fg(colour))
    });
    let widths = [Constraint::Length(23), Constraint::Length(6), Constraint::Length(9), Constraint::Fill(1)];
    let table = Table::new(all, widths)
        .header(figures("", ["", "restarts", "seen ago"].map(str::to_owned)).bold())
        .block(titled(" actors "));
    frame.render_widget(table, actors);
}
