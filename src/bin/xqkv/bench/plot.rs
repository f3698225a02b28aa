//! Each case's percent of the floor, as bars by shape and dtype.

use super::report::{Line, Machine};
use crate::library::Outcome;
use plotters::prelude::*;
use std::path::Path;

/// One colour for each dtype.
const COLOURS: [(&str, RGBColor); 4] = [
    ("f32", RGBColor(46, 92, 138)),
    ("bf16", RGBColor(217, 119, 43)),
    ("f16", RGBColor(82, 143, 92)),
    ("int8", RGBColor(140, 86, 150)),
];

pub fn draw(path: &Path, machine: &Machine, lines: &[Line]) -> Outcome<()> {
    let size = (1100, 120 + 22 * lines.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    draw_on(&area, machine, lines).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw_on<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    machine: &Machine,
    lines: &[Line],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    area.fill(&WHITE)?;
    let most = lines.iter().map(|line| line.percent).fold(105.0, f64::max) * 1.05;
    let count = lines.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("Percent of what the machine could do at the same moment", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..most, count..0.0)?;
    let names = |at: &f64| label(lines, *at);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .y_label_formatter(&names)
        .x_desc(machine.title())
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (at, line) in lines.iter().enumerate() {
        let (top, colour) = (at as f64, colour(line));
        let bar = [(0.0, top + 0.12), (line.percent, top + 0.88)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let style = ("sans-serif", 13).into_font();
        let words = format!("{:.0}", line.percent);
        chart.draw_series([Text::new(words, (line.percent + 0.6, top + 0.22), style)])?;
        let style = ("sans-serif", 13).into_font();
        let (left, height) = chart.backend_coord(&(0.0, top + 0.22));
        area.draw(&Text::new(label(lines, top), (left - 240, height), style))?;
    }
    let floor = [(100.0, 0.0), (100.0, count)];
    chart.draw_series([PathElement::new(floor, BLACK.stroke_width(1))])?;
    area.present()
}

fn label(lines: &[Line], at: f64) -> String {
    let line = lines.get(at as usize);
    line.map_or(String::new(), |line| {
        let rows = if line.rows == 1 { "row" } else { "rows" };
        format!("{} {} {}, {} {rows}", line.shape, line.dtype_name(), line.part, line.rows)
    })
}

fn colour(line: &Line) -> RGBColor {
    let known = COLOURS.iter().find(|(name, _)| *name == line.dtype_name());
    known.map_or(BLACK, |(_, colour)| *colour)
}
