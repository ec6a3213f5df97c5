//! The page's charts.

use super::OpRow;
use super::svg::{PALETTE, Svg, colours, legend, ticks};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 130.0;

/// One row a layer, one bar an operation, coloured by class.
pub(super) fn timeline(ops: &[OpRow]) -> String {
    let mut layers: Vec<&str> = Vec::new();
    for op in ops {
        if !layers.contains(&op.layer.as_str()) {
            layers.push(&op.layer);
        }
    }
    let colour = colours(ops.iter().map(|op| op.class.as_str()));
    let end = ops.iter().map(|op| op.start_s + op.seconds).fold(0.0, f64::max);
    let axis = ticks(end);
    let last = axis.last().copied().unwrap_or(1.0);
    let x = |s: f64| LEFT + (WIDTH - LEFT - 20.0) * s / last;
    let row = 30.0;
    let bottom = row * layers.len() as f64 + 10.0;
    let mut svg = Svg::new(WIDTH, bottom + 40.0);
    for tick in &axis {
        svg.line((x(*tick), 4.0), (x(*tick), bottom), "grid");
        svg.text(x(*tick), bottom + 16.0, "middle", "soft", &format!("{tick}"));
    }
    for (i, layer) in layers.iter().enumerate() {
        let y = row * i as f64 + 6.0;
        svg.text(LEFT - 8.0, y + 15.0, "end", "", layer);
        for op in ops.iter().filter(|op| op.layer == *layer) {
            let tip = format!("{}: {:.3} s, level {} to {}", op.name, op.seconds, op.level_in, op.level_out);
            let bar = (x(op.start_s), y, x(op.seconds) - x(0.0), row - 8.0);
            svg.bar(bar, colour.get(&op.class).unwrap_or(&PALETTE[7]), &tip);
        }
    }
    svg.text((LEFT + WIDTH) / 2.0, bottom + 34.0, "middle", "soft", "seconds since the server started");
    let mut used: Vec<&str> = Vec::new();
    for op in ops {
        if !used.contains(&op.class.as_str()) {
            used.push(&op.class);
        }
    }
    legend(used.iter().map(|c| (*c, *colour.get(*c).unwrap_or(&PALETTE[7]))))
        + &svg.finish("timeline of operations by layer")
}

/// Stacked bars of shares, one a line, with the seconds and per cent of each part.
pub(super) fn shares(lines: &[(&str, &Vec<(String, f64)>)]) -> String {
    let colour = colours(lines.iter().flat_map(|(_, parts)| parts.iter().map(|(name, _)| name.as_str())));
    let mut svg = Svg::new(WIDTH, 62.0 * lines.len() as f64 + 6.0);
    for (i, (label, parts)) in lines.iter().enumerate() {
        let total: f64 = parts.iter().map(|(_, s)| s).sum();
        let y = 62.0 * i as f64;
        svg.text(
            2.0,
            y + 14.0,
            "start",
            "",
            &if label.starts_with("the paper") {
                label.to_string()
            } else {
                format!("{label} ({total:.1} s)")
            },
        );
        let mut x = 2.0;
        for (name, seconds) in parts.iter() {
            let width = if total > 0.0 { (WIDTH - 4.0) * seconds / total } else { 0.0 };
            let percent = if total > 0.0 { 100.0 * seconds / total } else { 0.0 };
            let tip = format!("{name}: {seconds:.2} s, {percent:.1} %");
            svg.bar((x, y + 20.0, width, 22.0), colour.get(name).unwrap_or(&PALETTE[7]), &tip);
            if width > 42.0 {
                svg.text(x + width / 2.0, y + 56.0, "middle", "soft", &format!("{percent:.0} %"));
            }
            x += width;
        }
    }
    let mut used: Vec<&str> = Vec::new();
    for (name, _) in lines.iter().flat_map(|(_, parts)| parts.iter()) {
        if !used.contains(&name.as_str()) {
            used.push(name);
        }
    }
    legend(used.iter().map(|n| (*n, *colour.get(*n).unwrap_or(&PALETTE[7]))))
        + &svg.finish("shares of the time")
}

/// Level after each operation, bootstraps marked, and the scale as a dashed line.
pub(super) fn levels(ops: &[OpRow]) -> String {
    let top = ops.iter().map(|op| op.level_in.max(op.level_out)).max().unwrap_or(1) as f64;
    let axis = ticks(top);
    let (height, bottom) = (260.0, 220.0);
    let last = axis.last().copied().unwrap_or(1.0);
    let x = |i: usize| 60.0 + (WIDTH - 120.0) * i as f64 / ops.len().max(1) as f64;
    let y = |level: f64| bottom - (bottom - 12.0) * level / last;
    let scale_y = |log: f64| bottom - (bottom - 12.0) * log / 60.0;
    let mut svg = Svg::new(WIDTH, height);
    for tick in &axis {
        svg.line((60.0, y(*tick)), (WIDTH - 60.0, y(*tick)), "grid");
        svg.text(52.0, y(*tick) + 4.0, "end", "soft", &format!("{tick}"));
    }
    for log in [0, 20, 40, 60] {
        svg.text(WIDTH - 52.0, scale_y(f64::from(log)) + 4.0, "start", "soft", &format!("{log}"));
    }
    let level: Vec<(f64, f64)> =
        ops.iter().enumerate().map(|(i, op)| (x(i), y(op.level_out as f64))).collect();
    let scale: Vec<(f64, f64)> =
        ops.iter().enumerate().map(|(i, op)| (x(i), scale_y(op.log_scale))).collect();
    svg.path(&scale, PALETTE[1], true);
    svg.path(&level, PALETTE[0], false);
    for (i, op) in ops.iter().enumerate().filter(|(_, op)| op.class == "bootstrap") {
        svg.dot(x(i), y(op.level_out as f64), PALETTE[5]);
    }
    svg.text(
        60.0,
        height - 6.0,
        "start",
        "soft",
        "operation number; left axis: level; right axis: log2 scale, bits",
    );
    let items = [("level", PALETTE[0]), ("log2 scale", PALETTE[1]), ("bootstrap", PALETTE[5])];
    legend(items.into_iter()) + &svg.finish("levels and scale")
}

/// GiB held by the process when each operation began.
pub(super) fn memory(ops: &[OpRow]) -> String {
    let axis = ticks(ops.iter().map(|op| op.memory).fold(0.0, f64::max));
    let (height, bottom) = (200.0, 160.0);
    let last = axis.last().copied().unwrap_or(1.0);
    let x = |i: usize| 60.0 + (WIDTH - 80.0) * i as f64 / ops.len().max(1) as f64;
    let y = |gib: f64| bottom - (bottom - 12.0) * gib / last;
    let mut svg = Svg::new(WIDTH, height);
    for tick in &axis {
        svg.line((60.0, y(*tick)), (WIDTH - 20.0, y(*tick)), "grid");
        svg.text(52.0, y(*tick) + 4.0, "end", "soft", &format!("{tick}"));
    }
    svg.path(
        &ops.iter().enumerate().map(|(i, op)| (x(i), y(op.memory))).collect::<Vec<_>>(),
        PALETTE[0],
        false,
    );
    svg.text(
        60.0,
        height - 8.0,
        "start",
        "soft",
        "operation number; axis: GiB held by the process, keys included",
    );
    svg.finish("memory by operation")
}

/// Bits of precision after each operation that has them.
pub(super) fn precision(ops: &[OpRow]) -> String {
    let known = |f: fn(&OpRow) -> Option<f64>| -> Vec<(usize, f64)> {
        ops.iter().enumerate().filter_map(|(i, op)| f(op).map(|b| (i, b))).collect()
    };
    let (predicted, measured) = (known(|op| op.predicted_bits), known(|op| op.measured_bits));
    let top = predicted.iter().chain(&measured).map(|(_, b)| *b).fold(1.0, f64::max);
    let axis = ticks(top);
    let (height, bottom) = (240.0, 200.0);
    let last = axis.last().copied().unwrap_or(1.0);
    let x = |i: usize| 60.0 + (WIDTH - 80.0) * i as f64 / ops.len().max(1) as f64;
    let y = |bits: f64| bottom - (bottom - 12.0) * (bits / last).max(0.0);
    let mut svg = Svg::new(WIDTH, height);
    for tick in &axis {
        svg.line((60.0, y(*tick)), (WIDTH - 20.0, y(*tick)), "grid");
        svg.text(52.0, y(*tick) + 4.0, "end", "soft", &format!("{tick}"));
    }
    svg.path(&predicted.iter().map(|(i, b)| (x(*i), y(*b))).collect::<Vec<_>>(), PALETTE[0], true);
    for (i, bits) in &measured {
        svg.dot(x(*i), y(*bits), PALETTE[5]);
    }
    svg.text(
        60.0,
        height - 6.0,
        "start",
        "soft",
        "operation number; axis: bits of precision, root mean square (higher is better)",
    );
    let items = [("predicted (never above measured)", PALETTE[0]), ("measured", PALETTE[5])];
    legend(items.into_iter()) + &svg.finish("precision by operation")
}
