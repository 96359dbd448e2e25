//! Results of rows, and recent latencies and sizes.

use graphsink::{Distribution, Latency, Stats, TableStats};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use super::{ACCENT, QUIET, titled};
use crate::ingest::number::grouped;
use crate::top::format::{rate, short};
use crate::top::history::Lately;

/// Columns of a latency or size.
const FIGURE: u16 = 7;

/// Shown where there is no value.
const NOTHING: &str = "–";

/// A figure of an engine, with its name.
type Shown<T> = (&'static str, fn(&Stats) -> &T);
/// A figure of a table's rows.
type Count = fn(&TableStats) -> u64;

const COUNTS: [(&str, Count); 5] = [
    ("received", |table| table.received),
    ("inserted", |table| table.inserted),
    ("updated", |table| table.updated),
    ("unchanged", |table| table.unchanged),
    ("coalesced", TableStats::coalesced),
];

const TABLES: [Shown<TableStats>; 3] = [
    ("entities", |stats| &stats.entities),
    ("connections", |stats| &stats.connections),
    ("mentions", |stats| &stats.mentions),
];

const LATENCIES: [Shown<Latency>; 6] = [
    ("acknowledgement", |stats| &stats.acknowledgement),
    ("commit", |stats| &stats.commit),
    ("lane wait", |stats| &stats.lane_wait),
    ("pool wait", |stats| &stats.pool_wait),
    ("lock wait", |stats| &stats.lock_wait),
    ("admission wait", |stats| &stats.admission_wait),
];

const SIZES: [Shown<Distribution>; 4] = [
    ("batch entities", |stats| &stats.entities.batch_rows),
    ("batch connections", |stats| &stats.connections.batch_rows),
    ("batch mentions", |stats| &stats.mentions.batch_rows),
    ("transaction rows", |stats| &stats.epoch_rows),
];

/// Totals of each table, and their growth per second.
pub(super) fn draw_rows(frame: &mut Frame<'_>, area: Rect, stats: &Stats, lately: &Lately<'_>) {
    let rows = TABLES.into_iter().flat_map(|(name, table)| {
        let total = COUNTS.map(|(_, count)| grouped(count(table(stats))));
        let growth = COUNTS.map(|(_, count)| rate(lately.per_second(|stats| count(table(stats)))));
        [figures(name, total), figures("  per second", growth).style(QUIET)]
    });
    let mut block = titled(format!(" rows committed, and per second in the last {} ", short(lately.window())));
    if let Some(hottest) = stats.hot_connections.first() {
        let id = hottest.connection_id.simple().to_string();
        let hottest = format!(" hottest …{}: {} ", &id[id.len() - 8..], grouped(hottest.recent_rows));
        block = block.title(Line::from(hottest).style(Style::new().fg(ACCENT)).right_aligned());
    }
    let widths = [Constraint::Length(12)].into_iter().chain([Constraint::Fill(1); 5]);
    let table = Table::new(rows, widths).header(figures("", COUNTS.map(|(name, _)| name.to_owned())).bold());
    frame.render_widget(table.block(block), area);
}

/// Latencies and sizes in the window.
pub(super) fn draw_timings(frame: &mut Frame<'_>, area: Rect, lately: &Lately<'_>) {
    let latencies = LATENCIES.map(|(name, latency)| {
        let latency = lately.latency(latency);
        let shown = [latency.quantile(0.5), latency.quantile(0.99), latency.max()].map(short);
        figures(name, if latency.count() == 0 { [NOTHING; 3].map(str::to_owned) } else { shown })
    });
    let sizes = SIZES.map(|(name, sizes)| {
        let sizes = lately.sizes(sizes);
        let shown = [sizes.quantile(0.5), sizes.quantile(0.99), sizes.max()].map(grouped);
        figures(name, if sizes.count() == 0 { [NOTHING; 3].map(str::to_owned) } else { shown })
    });
    let widths = [Constraint::Length(17)].into_iter().chain([Constraint::Length(FIGURE); 3]);
    // In the title's line, because a terminal of 24 rows has no room for another one.
    let width = usize::from(FIGURE);
    let header = format!("{:>width$} {:>width$} {:>width$}", "p50", "p99", "max");
    let block = titled(format!(" in the last {} ", short(lately.window())))
        .title(Line::from(format!(" {}", header.trim_start())).bold().right_aligned());
    let table = Table::new(latencies.into_iter().chain(sizes), widths).block(block);
    frame.render_widget(table, area);
}

/// A name, and figures in columns.
pub(super) fn figures<const N: usize>(name: impl Into<String>, figures: [String; N]) -> Row<'static> {
    let name = Cell::from(name.into());
    Row::new([name].into_iter().chain(figures.map(|figure| Cell::from(Text::from(figure).right_aligned()))))
}
