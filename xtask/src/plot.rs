//! Line plots as SVG: log axes, one legend, readable on light and dark pages.

use std::fmt::Write;

/// How an axis maps numbers to lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal steps for equal differences, ticks at round numbers.
    Linear,
    /// Equal steps for equal ratios, ticks at powers of ten.
    Log10,
    /// Equal steps for equal ratios, ticks at powers of two.
    Log2,
}

/// One axis: its label (with unit) and its scale.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

/// How a line is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dash {
    Solid,
    Dashed,
    Dotted,
}

/// One line. Series of the same name share colour and legend entry across panels.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Index into the palette.
    pub(crate) colour: usize,
    pub(crate) dash: Dash,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One set of axes with its lines.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Okabe and Ito's colours that keep their contrast on white and on near-black.
const PALETTE: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 74.0;
const TOP: f64 = 64.0;
const GAP: f64 = 96.0;
const LEGEND_ROW: f64 = 20.0;

/// The panels side by side under one title, with one legend below.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let columns = panels.len().max(1) as f64;
    let width = LEFT + columns * WIDTH + (columns - 1.0) * GAP + 24.0;
    let entries = legend(panels);
    let longest = entries.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let column = 54.0 + 6.8 * longest as f64;
    let per_row = ((width - LEFT) / column).floor().max(1.0) as usize;
    let rows = entries.len().div_ceil(per_row) as f64;
    let height = TOP + HEIGHT + 66.0 + rows * LEGEND_ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{}\">\n<style>\n\
         text{{font:12px \
         system-ui,sans-serif;fill:#24292f}}.title{{font-size:15px;font-weight:600}}.panel{{font-weight:600}}\
         .page{{fill:#fff}}.frame{{fill:none;stroke:#8c959f}}.grid{{stroke:#d0d7de;stroke-width:.7}}\
         .line{{fill:none;stroke-width:2;stroke-linejoin:round}}\n\
         @media \
         (prefers-color-scheme:dark){{text{{fill:#e6edf3}}.page{{fill:#0d1117}}.frame{{stroke:#6e7681}}\
         .grid{{stroke:#30363d}}}}\n</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">{}</text>\n",
        escape(title),
        escape(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, LEFT + i as f64 * (WIDTH + GAP));
    }
    for (i, (name, colour, dash)) in entries.iter().enumerate() {
        let (x, y) =
            (LEFT + (i % per_row) as f64 * column, TOP + HEIGHT + 64.0 + (i / per_row) as f64 * LEGEND_ROW);
        let style = stroke(*colour, *dash);
        let _ = writeln!(out, "<path class=\"line\" {style} d=\"M{x} {} h26\"/>", y - 4.0);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 33.0, escape(name));
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, left: f64) {
    let points = || panel.series.iter().flat_map(|s| &s.points);
    let x = Range::new(panel.x.scale, points().map(|p| p.0));
    let y = Range::new(panel.y.scale, points().map(|p| p.1));
    let place = |p: &(f64, f64)| (left + WIDTH * x.unit(p.0), TOP + HEIGHT * (1.0 - y.unit(p.1)));
    let _ = writeln!(
        out,
        "<text class=\"panel\" x=\"{left}\" y=\"{}\">{}</text>",
        TOP - 12.0,
        escape(&panel.title)
    );
    for tick in x.ticks() {
        let at = left + WIDTH * x.unit(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP} v{HEIGHT}\"/>");
        let label = number(panel.x.scale, tick);
        let _ = writeln!(
            out,
            "<text text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{label}</text>",
            TOP + HEIGHT + 17.0
        );
    }
    for tick in y.ticks() {
        let at = TOP + HEIGHT * (1.0 - y.unit(tick));
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{left} {at:.1} h{WIDTH}\"/>");
        let label = number(panel.y.scale, tick);
        let _ = writeln!(
            out,
            "<text text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            left - 7.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<rect class=\"frame\" x=\"{left}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    );
    let (middle, below) = (left + WIDTH / 2.0, TOP + HEIGHT + 37.0);
    let _ = writeln!(
        out,
        "<text text-anchor=\"middle\" x=\"{middle}\" y=\"{below}\">{}</text>",
        escape(&panel.x.label)
    );
    let (side, centre) = (left - 54.0, TOP + HEIGHT / 2.0);
    let _ = writeln!(
        out,
        "<text text-anchor=\"middle\" transform=\"rotate(-90 {side} {centre})\" x=\"{side}\" \
         y=\"{centre}\">{}</text>",
        escape(&panel.y.label)
    );
    for series in &panel.series {
        let path: Vec<String> =
            series.points.iter().map(place).map(|(px, py)| format!("{px:.1} {py:.1}")).collect();
        let style = stroke(series.colour, series.dash);
        let _ = writeln!(out, "<path class=\"line\" {style} d=\"M{}\"/>", path.join(" L"));
        let fill = PALETTE[series.colour % PALETTE.len()];
        for (px, py) in series.points.iter().map(place) {
            let _ = writeln!(out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.6\" fill=\"{fill}\"/>");
        }
    }
}

/// The range of an axis in its own scale.
struct Range {
    scale: Scale,
    lo: f64,
    hi: f64,
}

impl Range {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.map(|v| transform(scale, v)).filter(|v| v.is_finite()) {
            (lo, hi) = (lo.min(v), hi.max(v));
        }
        if lo > hi {
            (lo, hi) = (0.0, 1.0);
        }
        if scale == Scale::Log10 {
            (lo, hi) = (lo.floor(), hi.ceil());
        }
        if hi - lo < 1e-9 {
            (lo, hi) = (lo - 0.5, hi + 0.5);
        }
        Self { scale, lo, hi }
    }

    fn unit(&self, value: f64) -> f64 {
        ((transform(self.scale, value) - self.lo) / (self.hi - self.lo)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let span = self.hi - self.lo;
        let rough = span / 8.0;
        let step = match self.scale {
            Scale::Log2 => 1.0,
            Scale::Log10 => rough.ceil().max(1.0),
            Scale::Linear => {
                let power = 10f64.powf(rough.log10().floor());
                [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(span)
            }
        };
        let first = (self.lo / step - 1e-9).ceil() as i64;
        let last = (self.hi / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|k| k as f64 * step)
            .map(|t| match self.scale {
                Scale::Linear => t,
                Scale::Log10 => 10f64.powf(t),
                Scale::Log2 => t.exp2(),
            })
            .collect()
    }
}

fn transform(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log10 => value.log10(),
        Scale::Log2 => value.log2(),
    }
}

fn number(scale: Scale, value: f64) -> String {
    match scale {
        Scale::Log10 if !(1e-2..1e4).contains(&value) => {
            format!("10<tspan dy=\"-5\" font-size=\"9\">{}</tspan>", value.log10().round())
        }
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn legend(panels: &[Panel]) -> Vec<(String, usize, Dash)> {
    let mut out: Vec<(String, usize, Dash)> = Vec::new();
    for s in panels.iter().flat_map(|p| &p.series) {
        if !out.iter().any(|(name, ..)| *name == s.name) {
            out.push((s.name.clone(), s.colour, s.dash));
        }
    }
    out
}

fn stroke(colour: usize, dash: Dash) -> String {
    let dash = match dash {
        Dash::Solid => "",
        Dash::Dashed => " stroke-dasharray=\"6 4\"",
        Dash::Dotted => " stroke-dasharray=\"2 5\" stroke-linecap=\"round\"",
    };
    format!("stroke=\"{}\"{dash}", PALETTE[colour % PALETTE.len()])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_series_and_unit_once() {
        let line = |name: &str, colour| Series {
            name: name.into(),
            colour,
            dash: if colour == 1 { Dash::Dashed } else { Dash::Solid },
            points: vec![(1.0, 1e-3), (2.0, 1e-6), (4.0, 1e-7)],
        };
        let panel = Panel {
            title: "A < B".into(),
            x: Axis { label: "length (tokens)".into(), scale: Scale::Log2 },
            y: Axis { label: "relative error".into(), scale: Scale::Log10 },
            series: vec![line("one", 0), line("two", 1)],
        };
        let text = svg("Title", &[panel.clone(), panel]);
        assert_eq!(text.matches(">one<").count(), 1);
        assert_eq!(text.matches("length (tokens)").count(), 2);
        assert!(text.contains("A &lt; B") && text.contains("prefers-color-scheme"));
        assert_eq!(text.matches("<circle").count(), 12);
    }

    #[test]
    fn log_ticks_are_powers() {
        let range = Range::new(Scale::Log10, [2e-4, 0.5].into_iter());
        assert!(
            range.ticks().iter().zip([1e-4, 1e-3, 1e-2, 0.1, 1.0]).all(|(a, b)| (a / b - 1.0).abs() < 1e-9)
        );
    }
}
