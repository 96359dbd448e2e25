//! Charts over time as SVG, without external resources.
//!
//! Values are measured over spans of time, so a line is a staircase: as high as the value, as wide as its span. Its
//! area is the total, and a single span is visible as well.

use std::fmt::Write as _;

/// Small enough for a phone, where charts are drawn at three quarters.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// A picture over time.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// The unit of the vertical axis.
    pub(crate) unit: &'static str,
    /// Names and values, one value per span; `None` if nothing measurable happened. At most four series: there are no
    /// more colours.
    pub(crate) series: Vec<(&'static str, Vec<Option<f64>>)>,
    /// Whether series are stacked, as areas.
    pub(crate) stacked: bool,
}

/// Maps numbers to positions in the picture.
struct Frame {
    end: f64,
    top: f64,
}

impl Frame {
    fn x(&self, time: f64) -> f64 {
        LEFT + time / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// `ends` are the seconds at which the spans end, ascending; the first one begins at 0.
    pub(crate) fn svg(&self, ends: &[f64]) -> String {
        let end = ends.last().copied().unwrap_or(0.0).max(1e-3);
        let lines = self.lines();
        let most = lines.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let (step, top) = axis(most);
        let frame = Frame { end, top };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", self.title);
        for tick in 0..=(top / step).round() as u32 {
            let value = f64::from(tick) * step;
            let (at, label) = (frame.y(value), number(value));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let (step, last) = axis(end);
        for tick in 0..=(last / step).round() as u32 {
            let time = f64::from(tick) * step;
            // The last tick of the axis is after the end.
            if time <= end {
                let (at, label) = (frame.x(time), number(time));
                let _ =
                    writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label} s</text>", HEIGHT - 8.0);
            }
        }
        let mut floor = vec![Some(0.0); ends.len()];
        for (place, line) in lines.iter().enumerate() {
            let steps = staircase(&frame, ends, line);
            if self.stacked {
                let back = back(&frame, ends, &floor);
                let _ = writeln!(svg, "<path class=\"area s{place}\" d=\"{steps}{back}Z\"/>");
                floor.clone_from(line);
            } else {
                let _ = writeln!(svg, "<path class=\"line s{place}\" d=\"{steps}\"/>");
            }
        }
        svg + "</svg>"
    }

    /// Names with their colours.
    pub(crate) fn legend(&self) -> String {
        let entry = |(place, (name, _)): (usize, &(&str, _))| {
            format!("<span class=\"key\"><i class=\"s{place}\"></i>{name}</span> ")
        };
        self.series.iter().enumerate().map(entry).collect()
    }

    /// The drawn lines: the values, or their running sums.
    fn lines(&self) -> Vec<Vec<Option<f64>>> {
        let mut floor = vec![0.0; self.series.first().map_or(0, |(_, values)| values.len())];
        let line = |(_, values): &(&str, Vec<Option<f64>>)| {
            if !self.stacked {
                return values.clone();
            }
            floor.iter_mut().zip(values).for_each(|(floor, value)| *floor += value.unwrap_or(0.0));
            floor.iter().copied().map(Some).collect()
        };
        self.series.iter().map(line).collect()
    }
}

/// From left to right, with gaps where there is no value.
fn staircase(frame: &Frame, ends: &[f64], values: &[Option<f64>]) -> String {
    let (mut path, mut start, mut drawing) = (String::new(), 0.0, false);
    for (end, value) in ends.iter().zip(values) {
        if let Some(value) = value {
            let y = frame.y(*value);
            let _ = if drawing { write!(path, "V{y:.1}") } else { write!(path, "M{:.1} {y:.1}", frame.x(start)) };
            let _ = write!(path, "H{:.1}", frame.x(*end));
        }
        (start, drawing) = (*end, value.is_some());
    }
    path
}

/// The same from right to left, to close an area.
fn back(frame: &Frame, ends: &[f64], values: &[Option<f64>]) -> String {
    let starts = std::iter::once(&0.0).chain(ends);
    let spans: Vec<_> = starts.zip(values).collect();
    spans.iter().rev().fold(String::new(), |mut path, (start, value)| {
        let _ = write!(path, "V{:.1}H{:.1}", frame.y(value.unwrap_or(0.0)), frame.x(**start));
        path
    })
}

/// Steps of 1, 2 or 5 times a power of ten, four to ten of them, and where the axis ends.
fn axis(most: f64) -> (f64, f64) {
    let most = most.max(1e-3);
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step =
        [5.0, 2.0, 1.0].map(|factor| factor * power).into_iter().find(|step| most / step >= 4.0).unwrap_or(power);
    (step, (most / step).ceil() * step)
}

/// A number in a short readable form.
fn number(value: f64) -> String {
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    if value >= 1e6 {
        format!("{}M", rounded(value / 1e6))
    } else if value >= 1e3 {
        format!("{}k", rounded(value / 1e3))
    } else {
        rounded(value).to_string()
    }
}
