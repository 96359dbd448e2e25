//! Draws precision, recall and F1 by threshold.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;
use crate::gold::Quality;

/// The name of a line, its colour, and its values.
type Line = (&'static str, RGBColor, fn(&Quality) -> f64);

pub(crate) fn draw(file: &Path, curves: &[(&str, Vec<Quality>)]) -> Result<()> {
    let root = SVGBackend::new(file, (480 * curves.len() as u32, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (title, curve)) in root.split_evenly((1, curves.len())).iter().zip(curves) {
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(40)
            .build_cartesian_2d(0.5..1.0, 0.4..1.0)?;
        chart.configure_mesh().x_desc("threshold").light_line_style(WHITE).draw()?;
        let lines: [Line; 3] = [
            ("precision", RGBColor(31, 119, 180), |at| at.precision),
            ("recall", RGBColor(214, 120, 20), |at| at.recall),
            ("F1", RGBColor(20, 20, 20), |at| at.f1),
        ];
        for (label, colour, value) in lines {
            let points = curve.iter().map(|at| (at.threshold, value(at)));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    root.present()?;
    Ok(())
}
