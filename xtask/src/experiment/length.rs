//! Draws `length.csv`, which `cipherlm experiment length` computed: cost against length, width,
//! layers, power and eps.

use super::table::{Row, read};
use crate::plot::{Axis, Dash, Panel, Scale, Series, svg};
use std::path::Path;

/// Sweep, column on the x axis, label, its scale.
const SWEEPS: [(&str, &str, &str, Scale); 5] = [
    ("length", "length", "prompt length (tokens)", Scale::Log2),
    ("width", "d_model", "width", Scale::Log2),
    ("layers", "layers", "layers", Scale::Linear),
    ("power", "p", "power p", Scale::Linear),
    ("eps", "eps_ratio", "largest row mean over eps", Scale::Log10),
];

/// Reads the CSV in `out` and writes the plot beside it.
pub(super) fn draw(out: &Path) -> anyhow::Result<()> {
    let rows = read(&out.join("length.csv"))?;
    let panels: Vec<Panel> = SWEEPS.iter().map(|sweep| panel(&rows, sweep)).collect();
    let title = "Cost of one forward pass, 2 layers x 128, 64 tokens, p = 4 unless swept";
    std::fs::write(out.join("length.svg"), svg(title, &panels))?;
    println!("wrote length.svg to {}", out.display());
    Ok(())
}

fn panel(rows: &[Row], (sweep, column, label, scale): &(&str, &str, &str, Scale)) -> Panel {
    let points = |kind: &str, sweep: &str, value: &str| -> Vec<(f64, f64)> {
        let own = rows.iter().filter(|r| r.text("sweep") == sweep && r.text("kind") == kind);
        own.map(|r| (r.number(column), r.number(value))).collect()
    };
    let line = |name: &str, colour, dash, points| Series { name: name.into(), colour, dash, points };
    let mut series = vec![
        line("prompt, seconds (predicted)", 0, Dash::Dashed, points("predicted", sweep, "seconds")),
        line(
            "one token over a cache, seconds (predicted)",
            1,
            Dash::Dashed,
            points("predicted_token", sweep, "seconds"),
        ),
        line("prompt, bootstraps (planned)", 2, Dash::Dotted, points("predicted", sweep, "bootstraps")),
    ];
    if *sweep == "length" {
        series.push(line(
            "prompt, seconds (measured)",
            3,
            Dash::Solid,
            points("measured", "shipped", "seconds"),
        ));
    }
    Panel {
        title: format!("against {label}"),
        x: Axis { label: (*label).into(), scale: *scale },
        y: Axis { label: "seconds, or bootstraps".into(), scale: Scale::Log10 },
        series: series.into_iter().filter(|s| !s.points.is_empty()).collect(),
    }
}
