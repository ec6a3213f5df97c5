//! Draws `latency.csv`, which `cipherlm experiment latency` measured: three attention normalisers
//! under encryption.

use super::table::{Row, read};
use crate::plot::{Axis, Dash, Panel, Scale, Series, svg};
use std::fmt::Write as _;
use std::path::Path;

const METHODS: [(&str, &str); 3] = [
    ("power", "PowerSoftmax, p = 4"),
    ("exp_taylor_goldschmidt", "exp (Taylor 8) + Goldschmidt"),
    ("normalise_and_square", "normalise and square"),
];

/// The paper's ratios to PowerSoftmax, one A100, at 128 and 1024 tokens.
const PAPER: [(&str, [f64; 2]); 2] =
    [("exp_taylor_goldschmidt", [1.3, 9.7]), ("normalise_and_square", [2.7, 20.0])];

/// Reads the CSV in `out`, writes the plot and a table beside it.
pub(super) fn draw(out: &Path) -> anyhow::Result<()> {
    let rows = read(&out.join("latency.csv"))?;
    let panel = |title: &str, label: &str, column: fn(&Row, &[Row]) -> f64| Panel {
        title: title.into(),
        x: Axis { label: "keys a row (tokens)".into(), scale: Scale::Log2 },
        y: Axis { label: label.into(), scale: Scale::Log10 },
        series: METHODS.iter().enumerate().flat_map(|(i, m)| series(&rows, i, m, column)).collect(),
    };
    let panels = [
        panel("One layer's normaliser, 4 heads", "seconds", |row, _| row.number("seconds")),
        panel("Against PowerSoftmax", "ratio of seconds", |row, all| {
            let power = all
                .iter()
                .find(|r| r.text("method") == "power" && r.number("length") == row.number("length"));
            row.number("seconds") / power.map_or(f64::NAN, |p| p.number("seconds"))
        }),
    ];
    std::fs::write(
        out.join("latency.svg"),
        svg("Attention normalisers under encryption, N = 2^16", &panels),
    )?;
    let text = table(&rows)?;
    std::fs::write(out.join("latency-table.md"), &text)?;
    println!("{text}\nwrote latency.svg and latency-table.md to {}", out.display());
    Ok(())
}

/// Measured points solid, predicted ones dashed from the last measured one on.
fn series(
    rows: &[Row],
    colour: usize,
    (key, name): &(&str, &str),
    column: fn(&Row, &[Row]) -> f64,
) -> Vec<Series> {
    let of = |kind: &str| -> Vec<(f64, f64)> {
        let own = rows.iter().filter(|r| r.text("method") == *key && r.text("kind") == kind);
        own.map(|r| (r.number("length"), column(r, rows))).collect()
    };
    let measured = of("measured");
    let predicted: Vec<_> = measured.last().copied().into_iter().chain(of("predicted")).collect();
    let line = |name: String, dash, points| Series { name, colour, dash, points };
    vec![
        line((*name).to_string(), Dash::Solid, measured),
        line(format!("{name}, predicted"), Dash::Dashed, predicted),
    ]
}

fn table(rows: &[Row]) -> anyhow::Result<String> {
    let mut out = String::from(
        "| keys a row | machine | PowerSoftmax | exp + Goldschmidt | normalise and square | ratios | the \
         paper's ratios |\n|---|---|---|---|---|---|---|\n",
    );
    let mut lengths: Vec<u64> = rows.iter().map(|r| r.number("length") as u64).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for length in lengths {
        let seconds = |method: &str| {
            let row = rows.iter().find(|r| r.text("method") == method && r.number("length") == length as f64);
            row.map_or(f64::NAN, |r| r.number("seconds"))
        };
        let kind = rows.iter().find(|r| r.number("length") == length as f64).map_or("", |r| r.text("kind"));
        let [power, exp, square] = METHODS.map(|(key, _)| seconds(key));
        let paper = match length {
            128 => format!("{} / {}", PAPER[0].1[0], PAPER[1].1[0]),
            1024 => format!("{} / {}", PAPER[0].1[1], PAPER[1].1[1]),
            _ => "-".into(),
        };
        writeln!(
            out,
            "| {length} | {kind} | {power:.2} s | {exp:.2} s | {square:.2} s | {:.1} / {:.1} | {paper} |",
            exp / power,
            square / power
        )?;
    }
    Ok(out)
}
