//! A picture of a terminal's cells as SVG, for documentation.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// The size of a cell in pixels; a character of a monospaced font is 0.6 times as wide as it is high.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 17.0;
const FONT: f64 = 14.0;
const MARGIN: f64 = 10.0;

const BACKGROUND: &str = "#15181e";
const FOREGROUND: &str = "#d5d8de";

/// A filled rectangle: left, top, width and height.
type Area = [f64; 4];

/// Draws the cells.
pub fn svg(cells: &Buffer) -> String {
    let area = *cells.area();
    let width = 2.0f64.mul_add(MARGIN, f64::from(area.width) * WIDTH);
    let height = 2.0f64.mul_add(MARGIN, f64::from(area.height) * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         shape-rendering=\"crispEdges\" font-size=\"{FONT}\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..area.height {
        let top = f64::from(row) * HEIGHT + MARGIN;
        let cells: Vec<_> = (0..area.width).filter_map(|column| cells.cell((column, row))).collect();
        draw_areas(&mut svg, &cells, top);
        draw_words(&mut svg, &cells, top);
    }
    svg + "</svg>\n"
}

/// Backgrounds and bars. Adjacent ones of the same colour are joined.
fn draw_areas(svg: &mut String, cells: &[&Cell], top: f64) {
    let mut areas: Vec<(Area, &str)> = Vec::new();
    for (column, cell) in cells.iter().enumerate() {
        let left = column as f64 * WIDTH + MARGIN;
        let (front, behind) = colours(cell);
        let behind = behind.map(|colour| ([left, top, WIDTH, HEIGHT], colour));
        let bar = block(cell.symbol())
            .map(|[x, y, width, height]| ([left + x * WIDTH, top + y * HEIGHT, width * WIDTH, height * HEIGHT], front));
        for (area, colour) in behind.into_iter().chain(bar) {
            match areas.last_mut() {
                Some((last, same)) if *same == colour && touch(last, &area) => last[2] += area[2],
                _ => areas.push((area, colour)),
            }
        }
    }
    for ([x, y, width, height], colour) in areas {
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }
}

/// Whether the second one continues the first one.
fn touch(first: &Area, second: &Area) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() < 0.01;
    near(first[0] + first[2], second[0]) && near(first[1], second[1]) && near(first[3], second[3])
}

/// Words are placed one by one, so that fonts do not shift them.
fn draw_words(svg: &mut String, cells: &[&Cell], top: f64) {
    let is_text = |cell: &Cell| cell.symbol() != " " && block(cell.symbol()).is_none();
    // The base line of most fonts.
    let base = HEIGHT.mul_add(0.76, top);
    let mut column = 0;
    for word in cells.chunk_by(|cell, next| is_text(cell) && is_text(next) && cell.style() == next.style()) {
        let x = column as f64 * WIDTH + MARGIN;
        column += word.len();
        if !is_text(word[0]) {
            continue;
        }
        let text: String = word.iter().map(|cell| cell.symbol()).collect();
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let bold = if word[0].modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
        let colour = colours(word[0]).0;
        // As above.
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{base:.1}\" fill=\"{colour}\"{bold}>{text}</text>");
    }
}

/// The filled part of a cell, as shares of it: left, top, width and height; `None` for text. Fonts draw these with
/// gaps.
fn block(symbol: &str) -> Option<Area> {
    let symbol = symbol.chars().next()?;
    match symbol {
        // From one eighth of the height to all of it.
        '▁'..='█' => {
            let high = f64::from(u32::from(symbol) - u32::from('▁') + 1) / 8.0;
            Some([0.0, 1.0 - high, 1.0, high])
        }
        // From seven eighths of the width to one.
        '▉'..='▏' => Some([0.0, 0.0, f64::from(u32::from('▏') - u32::from(symbol) + 1) / 8.0, 1.0]),
        '─' => Some([0.0, 0.47, 1.0, 0.06]),
        _ => None,
    }
}

/// The colours of the text, and of its background unless that is the default one.
fn colours(cell: &Cell) -> (&'static str, Option<&'static str>) {
    let (front, back) = (colour(cell.fg), colour(cell.bg));
    if cell.modifier.contains(Modifier::REVERSED) {
        (back.unwrap_or(BACKGROUND), front.or(Some(FOREGROUND)))
    } else {
        (front.unwrap_or(FOREGROUND), back)
    }
}

/// `None` for the terminal's own colour, and for colours that `view` does not use.
const fn colour(colour: Color) -> Option<&'static str> {
    match colour {
        Color::Black => Some("#2b303b"),
        Color::DarkGray => Some("#7d8594"),
        Color::Red => Some("#e06c75"),
        Color::Green => Some("#7fb36a"),
        Color::Yellow => Some("#e5c07b"),
        Color::Cyan => Some("#56b6c2"),
        _ => None,
    }
}
