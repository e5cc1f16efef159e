//! Charts as SVG: bars, and lines over a logarithmic axis. Pure.

use std::fmt::Write as _;

const LABELS: usize = 330;
const WIDTH: f64 = 480.0;
const ROW: usize = 28;
/// Size of the area of lines, and where it begins.
const AREA: (f64, f64) = (560.0, 300.0);
const ORIGIN: (f64, f64) = (64.0, 64.0);
/// Room for the names of lines.
const LEGEND: f64 = 230.0;

/// A figure at some places of the x axis.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) dashed: bool,
    /// A figure for each place, if it was measured.
    pub(crate) figures: Vec<Option<f64>>,
}

/// A number with separators between thousands, and some decimals.
pub(crate) fn thousands(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut separated = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && separated != "-" {
            separated.push(',');
        }
        separated.push(digit);
    }
    separated + rest
}

/// A number that is written with three digits or more.
fn short(value: f64) -> String {
    thousands(value, if value < 100.0 { 1 } else { 0 })
}

/// Draws one bar for each name. `below` are the conditions, in a line below the title.
pub(crate) fn bars(title: &str, below: &str, unit: &str, values: &[(String, f64)]) -> String {
    let largest = values.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let mut svg = begin(
        (
            LABELS as f64 + WIDTH + 130.0,
            ((values.len() + 3) * ROW) as f64,
        ),
        title,
        below,
    );
    for (at, (name, value)) in values.iter().enumerate() {
        let (top, length) = ((at + 2) * ROW, WIDTH * value / largest);
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
             fill=\"{colour}\"/><text x=\"{end:.1}\" y=\"{text}\">{}{unit}</text>",
            LABELS - 8,
            short(*value)
        );
    }
    svg + "</svg>\n"
}

/// Draws lines over evenly spaced places. The y axis is logarithmic.
pub(crate) fn lines(
    title: &str,
    below: &str,
    (x_title, y_title): (&str, &str),
    places: &[String],
    lines: &[Line],
) -> String {
    let size = (ORIGIN.0 + AREA.0 + LEGEND, ORIGIN.1 + AREA.1 + 56.0);
    let mut svg = begin(size, title, below);
    let all = || lines.iter().flat_map(|line| &line.figures).flatten();
    let lowest = decade(all().copied().fold(f64::INFINITY, f64::min)).floor();
    let highest = decade(all().copied().fold(0.0, f64::max))
        .ceil()
        .max(lowest + 1.0);
    let y = |value: f64| ORIGIN.1 + AREA.1 * (1.0 - (decade(value) - lowest) / (highest - lowest));
    let x = |at: usize| ORIGIN.0 + AREA.0 * (at as f64 + 0.5) / places.len() as f64;
    svg += &y_axis(lowest, highest, y, y_title);
    for (at, place) in places.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{place}</text>",
            x(at),
            ORIGIN.1 + AREA.1 + 20.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{x_title}</text>",
        ORIGIN.0 + AREA.0 / 2.0,
        ORIGIN.1 + AREA.1 + 42.0
    );
    for (at, one) in lines.iter().enumerate() {
        svg += &line(one, at, x, y);
    }
    svg + "</svg>\n"
}

fn decade(value: f64) -> f64 {
    value.max(0.001).log10()
}

/// The powers of ten and their lines.
fn y_axis(lowest: f64, highest: f64, y: impl Fn(f64) -> f64, title: &str) -> String {
    let mut svg = String::new();
    for power in lowest as i32..=highest as i32 {
        let value = 10_f64.powi(power);
        let (at, right, label) = (y(value), ORIGIN.0 + AREA.0, ORIGIN.0 - 8.0);
        let text = thousands(value, usize::from(power < 0));
        let _ = writeln!(
            svg,
            "<path d=\"M{} {at:.1}H{right}\" stroke=\"#d5dbe0\"/><text x=\"{label}\" y=\"{:.1}\" \
             text-anchor=\"end\">{text}</text>",
            ORIGIN.0,
            at + 4.0
        );
    }
    let middle = ORIGIN.1 + AREA.1 / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 16 {middle})\">{title}</text>"
    );
    svg
}

/// A line with its dots, and its name in the legend.
fn line(line: &Line, at: usize, x: impl Fn(usize) -> f64, y: impl Fn(f64) -> f64) -> String {
    let (mut path, mut dots) = (String::new(), String::new());
    let dash = if line.dashed {
        " stroke-dasharray=\"6 4\""
    } else {
        ""
    };
    let colour = line.colour;
    for (place, figure) in line.figures.iter().enumerate() {
        let Some(figure) = figure else { continue };
        let (x, y) = (x(place), y(*figure));
        let _ = write!(
            path,
            "{}{x:.1} {y:.1}",
            if path.is_empty() { 'M' } else { 'L' }
        );
        let _ = write!(
            dots,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}: {}</title>\
             </circle>",
            line.name,
            short(*figure)
        );
    }
    let (left, middle) = (ORIGIN.0 + AREA.0 + 16.0, ORIGIN.1 + 12.0 + 22.0 * at as f64);
    format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>{dots}\
         <path d=\"M{left} {middle}h28\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
         <text x=\"{}\" y=\"{}\">{}</text>\n",
        left + 36.0,
        middle + 4.0,
        line.name
    )
}

fn begin((width, height): (f64, f64), title: &str, below: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"10\" y=\"42\" fill=\"#5a6570\">{below}</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!(thousands(0.0, 0), "0");
        assert_eq!(thousands(999.0, 0), "999");
        assert_eq!(thousands(1_234.56, 1), "1,234.6");
        assert_eq!(thousands(-1_234_567.0, 0), "-1,234,567");
    }
}
