//! The medians as a picture: for each contestant a bar without read indexes and one with them, the range from the
//! slowest to the fastest round across it, and a line at the COPY limit for the same number of connections.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Bar, Report};
use graphsink_benches::contestant::Result;
use graphsink_benches::database::Tables;

const WIDTH: i32 = 960;
/// The height of one bar; a contestant has two.
const BAR: i32 = 11;
const GROUP: i32 = 2 * BAR + 12;
/// The space left of the bars for names, and right of the longest one for its figure.
const LEFT: i32 = 190;
const RIGHT: i32 = 70;
/// The width of a bar's figure.
const FIGURE: i32 = 45;
const TOP: i32 = 96;
const BOTTOM: i32 = 30;

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(215, 215, 215);
const LIMIT: RGBColor = RGBColor(200, 40, 40);
const LEAN: RGBColor = RGBColor(44, 110, 170);
const FULL: RGBColor = RGBColor(142, 187, 222);

/// Writes the picture, with the machine and the commit of the measurement.
pub(crate) fn draw(file: &Path, report: &Report, circumstances: &str, workload: &str) -> Result<()> {
    let contestants = report.bars();
    let height = TOP + GROUP * contestants.len() as i32 + BOTTOM;
    let largest = contestants
        .iter()
        .flat_map(|bars| bars.by_tables.values())
        .fold(1.0, |most: f64, bar| most.max(bar.fastest).max(bar.limit.unwrap_or_default()));
    let x = |speed: f64| LEFT + (speed / largest * f64::from(WIDTH - LEFT - RIGHT)) as i32;
    let area = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |words: &str, size: i32, color: &RGBColor, at: (i32, i32), horizontal: HPos| {
        let style = TextStyle::from(("sans-serif", size)).color(color).pos(Pos::new(horizontal, VPos::Center));
        area.draw(&Text::new(words.to_owned(), at, style))
    };
    text("Mentions per second: medians of rounds in one run", 17, &INK, (16, 20), HPos::Left)?;
    text(circumstances, 11, &INK, (16, 42), HPos::Left)?;
    text(workload, 11, &INK, (16, 58), HPos::Left)?;
    legend(&area, &text)?;

    let step = step(largest);
    let bottom = height - BOTTOM;
    for mark in (0..).map(|mark| f64::from(mark) * step).take_while(|mark| *mark <= largest) {
        area.draw(&PathElement::new(vec![(x(mark), TOP), (x(mark), bottom)], FAINT))?;
        text(&thousands(mark), 11, &INK, (x(mark), bottom + 12), HPos::Center)?;
    }
    for (index, contestant) in contestants.iter().enumerate() {
        let top = TOP + GROUP * index as i32 + (GROUP - 2 * BAR) / 2;
        let connections = if contestant.connections == 1 { "1 connection" } else { "2 connections" };
        text(contestant.name, 12, &INK, (LEFT - 8, top + BAR - 6), HPos::Right)?;
        text(connections, 9, &INK, (LEFT - 8, top + BAR + 7), HPos::Right)?;
        for (tables, bar) in &contestant.by_tables {
            let (top, color) = match tables {
                Tables::Lean => (top, LEAN),
                Tables::Full => (top + BAR, FULL),
            };
            draw_bar(&area, bar, top, color, x)?;
            let mut end = x(bar.fastest);
            if let Some(limit) = bar.limit.map(&x).filter(|limit| (end..end + FIGURE).contains(limit)) {
                end = limit;
            }
            text(&thousands(bar.median), 10, &INK, (end + 5, top + BAR / 2), HPos::Left)?;
        }
    }
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_bar(area: &Area<'_>, bar: &Bar, top: i32, color: RGBColor, x: impl Fn(f64) -> i32) -> Result<()> {
    area.draw(&Rectangle::new([(x(0.0), top), (x(bar.median), top + BAR)], color.filled()))?;
    let middle = top + BAR / 2;
    area.draw(&PathElement::new(vec![(x(bar.slowest), middle), (x(bar.fastest), middle)], INK))?;
    for end in [bar.slowest, bar.fastest] {
        area.draw(&PathElement::new(vec![(x(end), middle - 2), (x(end), middle + 2)], INK))?;
    }
    if let Some(limit) = bar.limit {
        area.draw(&PathElement::new(vec![(x(limit), top), (x(limit), top + BAR)], LIMIT.stroke_width(2)))?;
    }
    Ok(())
}

fn legend<E: std::error::Error + Send + Sync + 'static>(
    area: &Area<'_>,
    text: &impl Fn(&str, i32, &RGBColor, (i32, i32), HPos) -> std::result::Result<(), E>,
) -> Result<()> {
    let middle = 78;
    let entries = [(16, "tables alone", LEAN), (126, "with read indexes", FULL)];
    for (left, words, color) in entries {
        area.draw(&Rectangle::new([(left, middle - 5), (left + 14, middle + 6)], color.filled()))?;
        text(words, 11, &INK, (left + 20, middle), HPos::Left)?;
    }
    area.draw(&PathElement::new(vec![(268, middle - 6), (268, middle + 6)], LIMIT.stroke_width(2)))?;
    text("limit: COPY of finished rows, as many connections", 11, &INK, (276, middle), HPos::Left)?;
    area.draw(&PathElement::new(vec![(572, middle), (590, middle)], INK))?;
    text("slowest to fastest round", 11, &INK, (597, middle), HPos::Left)?;
    Ok(())
}

/// The distance of marks: 1, 2 or 5 with zeros, with at most ten marks.
fn step(largest: f64) -> f64 {
    let power = 10_f64.powf((largest / 10.0).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| largest / step <= 10.0).unwrap_or(10.0 * power)
}

/// With a comma before each three digits.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
