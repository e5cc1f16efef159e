//! Bar charts as SVG. Pure.

use std::fmt::Write as _;

const LABELS: usize = 330;
const WIDTH: f64 = 480.0;
const ROW: usize = 28;

/// Draws one bar for each name.
pub(crate) fn bars(title: &str, values: &[(String, f64)]) -> String {
    let largest = values.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let (width, height) = (LABELS + WIDTH as usize + 110, (values.len() + 2) * ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"22\" \
             font-weight=\"bold\">{title}</text>\n"
    );
    for (at, (name, value)) in values.iter().enumerate() {
        let (top, length) = ((at + 1) * ROW + 6, WIDTH * value / largest);
        let decimals = if *value < 100.0 { 1 } else { 0 };
        let colour = if name.starts_with("relay") {
            "#2a6f97"
        } else {
            "#a9b4bd"
        };
        let (text, end) = (top + 15, LABELS as f64 + length + 6.0);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LABELS}\" y=\"{top}\" width=\"{length:.1}\" height=\"20\" \
             fill=\"{colour}\"/><text x=\"{end:.1}\" y=\"{text}\">{value:.decimals$}</text>",
            LABELS - 8
        );
    }
    svg + "</svg>\n"
}
