//! A few SVG elements, and the colour of each class.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Okabe and Ito's palette, safe for colour-blind readers; the style sheet has a set for light and
/// one for dark pages.
pub(super) const PALETTE: [&str; 8] =
    ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)", "var(--c7)"];

/// Gives every class a colour of its own: known classes the same in all charts, others what is
/// free.
pub(super) fn colours<'a>(classes: impl Iterator<Item = &'a str>) -> BTreeMap<String, &'static str> {
    const KNOWN: [&str; 6] = [
        "bootstrap",
        "plaintext matmul",
        "ciphertext matmul",
        "PowerSoftmax",
        "activation + norm",
        "add, rescale, repack",
    ];
    let mut map = BTreeMap::new();
    let mut others = Vec::new();
    for class in classes {
        match KNOWN.iter().position(|known| *known == class) {
            Some(i) => {
                map.insert(class.to_string(), PALETTE[i]);
            }
            None if !others.contains(&class) => others.push(class),
            None => {}
        }
    }
    for class in others {
        let free = PALETTE.iter().rev().find(|colour| !map.values().any(|used| used == *colour));
        map.insert(class.to_string(), free.unwrap_or(&PALETTE[PALETTE.len() - 1]));
    }
    map
}

/// A drawing of the given size in user units.
pub(super) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { body: String::new(), width, height }
    }

    /// A bar with a tooltip.
    pub(super) fn bar(&mut self, (x, y, w, h): (f64, f64, f64, f64), colour: &str, tip: &str) {
        let _ = write!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{h:.2}\" fill=\"{colour}\" \
             rx=\"1\"><title>{}</title></rect>",
            w.max(0.6),
            super::escape(tip)
        );
    }

    pub(super) fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            super::escape(text)
        );
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = write!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        );
    }

    /// A polyline through the points, dashed when asked.
    pub(super) fn path(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let mut d = String::new();
        for (x, y) in points {
            let _ = write!(d, "{x:.1},{y:.1} ");
        }
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = write!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash}/>",
            d.trim_end()
        );
    }

    pub(super) fn dot(&mut self, x: f64, y: f64, colour: &str) {
        let _ = write!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }

    /// The drawing, in a box that scrolls sideways on narrow screens.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            "<div class=\"wide\"><svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" \
             aria-label=\"{}\">{}</svg></div>",
            self.width,
            self.height,
            super::escape(label),
            self.body
        )
    }
}

/// Round tick values from 0 to at least `max`.
pub(super) fn ticks(max: f64) -> Vec<f64> {
    if !max.is_finite() || max <= 0.0 {
        return vec![0.0, 1.0];
    }
    let raw = max / 6.0;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(10.0 * power);
    // Twelve digits are enough for a label, and hide what binary fractions cannot say.
    let round = |x: f64| (x * 1e12).round() / 1e12;
    (0..=(max / step).ceil() as usize).map(|i| round(i as f64 * step)).collect()
}

/// A legend in HTML.
pub(super) fn legend<'a>(items: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut html = String::from("<div class=\"legend\">");
    for (name, colour) in items {
        let _ = write!(html, "<span><i style=\"background:{colour}\"></i>{}</span>", super::escape(name));
    }
    html.push_str("</div>");
    html
}
