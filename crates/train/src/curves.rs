//! Small line charts as SVG: loss and range curves, figures of the experiments.

use std::fmt::Write;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A chart with linear x and linear or logarithmic y.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// Logarithmic vertical axis.
    pub log: bool,
    /// Lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 8] =
    ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self) -> String {
        let keep = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!self.log || p.1 > 0.0);
        let height = |y: f64| if self.log { y.log10() } else { y };
        let all: Vec<(f64, f64)> = self
            .series
            .iter()
            .flat_map(|s| &s.points)
            .copied()
            .filter(keep)
            .map(|(x, y)| (x, height(y)))
            .collect();
        let (x0, x1) = bounds(all.iter().map(|p| p.0));
        let (y0, y1) = bounds(all.iter().map(|p| p.1));
        let across = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let down = |y: f64| HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, words: &str| {
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(words)
            );
        };
        text(WIDTH / 2.0, 18.0, "middle", &self.title);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", &self.x);
        text(8.0, TOP - 8.0, "start", &self.y);
        for i in 0..=4 {
            let part = f64::from(i) / 4.0;
            let (x, y) = (x0 + part * (x1 - x0), y0 + part * (y1 - y0));
            text(across(x), HEIGHT - BOTTOM + 16.0, "middle", &number(x));
            text(LEFT - 6.0, down(y) + 4.0, "end", &number(if self.log { 10f64.powf(y) } else { y }));
        }
        for (i, series) in self.series.iter().enumerate() {
            text(WIDTH - RIGHT + 24.0, TOP + 16.0 * i as f64 + 4.0, "start", &series.name);
        }
        for i in 0..=4 {
            let y = down(y0 + f64::from(i) / 4.0 * (y1 - y0));
            let end = WIDTH - RIGHT;
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
            );
        }
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let points: Vec<String> = series
                .points
                .iter()
                .filter(|p| keep(p))
                .map(|&(x, y)| format!("{:.1},{:.1}", across(x), down(height(y))))
                .collect();
            let line = points.join(" ");
            let _ = writeln!(
                out,
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
            );
            let (x, y) = (WIDTH - RIGHT + 8.0, TOP + 16.0 * i as f64);
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>",
                y - 1.0
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match (low.is_finite(), high - low) {
        (false, _) => (0.0, 1.0),
        (true, span) if span <= 0.0 => (low - 0.5, low + 0.5),
        _ => (low, high),
    }
}

fn number(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-2..1e5).contains(&size) {
        format!("{x:.0e}")
    } else if size >= 100.0 {
        format!("{x:.0}")
    } else {
        format!("{x:.2}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_is_finite() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 100.0), (3.0, -1.0)];
        let series = vec![Series { name: "a<b".into(), points }];
        let chart = Chart { title: "t".into(), x: "x".into(), y: "y".into(), log: true, series };
        let svg = chart.svg();
        let line = svg.lines().find(|l| l.starts_with("<polyline")).unwrap();
        assert_eq!(line.matches(',').count(), 2, "{line}");
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
    }
}
