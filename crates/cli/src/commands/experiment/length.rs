//! End-to-end cost against length, width, layers, power and eps: the planner's predictions, and
//! forward passes that check them.

use crate::console::err;
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, Options, Plan, Purpose};
use cipherlm_model::{
    Attention, Eps, FitOptions, Freezing, Margins, Model, Shape, certify, fit, freeze_eps, random,
};
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

const HEADER: &str =
    "sweep,layers,d_model,length,p,eps_ratio,kind,machine,seconds,bootstraps,bootstraps_per_layer,key_gib";

/// One point of a sweep.
#[derive(Clone, Copy)]
struct Point {
    layers: usize,
    width: usize,
    length: usize,
    p: u32,
    /// Largest row mean over eps.
    ratio: f64,
}

/// Tokens that calibrate a model.
const TOKENS: usize = 1024;

const BASE: Point = Point { layers: 2, width: 128, length: 64, p: 4, ratio: 30.0 };

pub(super) fn run(quick: bool) -> anyhow::Result<String> {
    let circuits = Circuits::new(&Profile::n16())?;
    let mut csv = format!("{HEADER}\n");
    for (sweep, points) in sweeps(quick) {
        for point in points {
            let model = Arc::new(model(point)?);
            for purpose in [Purpose::Prompt, Purpose::Token] {
                // A token costs the same at every position.
                if purpose == Purpose::Token && sweep == "length" && point.length != BASE.length {
                    continue;
                }
                let options = Options { tokens: point.length, purpose, ..Options::default() };
                let plan = match Plan::compile(Arc::clone(&model), circuits.target()?, &options) {
                    Ok(plan) => plan,
                    Err(error) => {
                        err(&format!(
                            "{sweep} {} x {} at {}: {error}",
                            point.layers, point.width, point.length
                        ));
                        continue;
                    }
                };
                let kind = if purpose == Purpose::Token { "predicted_token" } else { "predicted" };
                let keys = circuits.key_bytes(&plan)?.0 as f64 / f64::from(1 << 30);
                line(&mut csv, sweep, point, (kind, "-"), plan.seconds(), plan.refreshes().0, keys);
            }
        }
    }
    if !quick {
        for length in [16, 64] {
            // What is refused here, for want of memory say, does not lose the curves.
            if let Err(refused) = measure(&mut csv, length) {
                err(&format!("not measured at {length} tokens: {refused}"));
            }
        }
    }
    Ok(csv)
}

fn sweeps(quick: bool) -> Vec<(&'static str, Vec<Point>)> {
    let lengths: &[usize] = if quick { &[32, 64] } else { &[16, 32, 64, 128, 256] };
    let widths: &[usize] = if quick { &[128] } else { &[64, 128, 256, 512] };
    let layers: &[usize] = if quick { &[1, 2] } else { &[1, 2, 4, 6] };
    let powers: &[u32] = if quick { &[2, 4] } else { &[2, 4, 6, 8] };
    let ratios: &[f64] = if quick { &[30.0] } else { &[3.0, 10.0, 30.0, 100.0] };
    vec![
        ("length", lengths.iter().map(|&length| Point { length, ..BASE }).collect()),
        ("width", widths.iter().map(|&width| Point { width, ..BASE }).collect()),
        ("layers", layers.iter().map(|&layers| Point { layers, ..BASE }).collect()),
        ("power", powers.iter().map(|&p| Point { p, ..BASE }).collect()),
        ("eps", ratios.iter().map(|&ratio| Point { ratio, ..BASE }).collect()),
    ]
}

/// Random weights with certified ranges: costs do not depend on what was learned, only on ranges,
/// and these are stated.
fn model(point: Point) -> anyhow::Result<Model> {
    let base = Shape::preset("2x128").ok_or_else(|| anyhow::anyhow!("no shape 2x128"))?;
    let shape = Shape {
        layers: point.layers,
        d_model: point.width,
        heads: point.width / 32,
        ffn: 4 * point.width,
        context: 128.max(point.length),
        attention: Attention::PowerSoftmax { p: point.p, c: 3.0, eps: Eps::Frozen },
        ..base
    };
    let name = format!("{}x{}", point.layers, point.width);
    let model = random::weights_only(&name, &shape, 1)?;
    // Few tokens do not show how far a random model reaches: held-out ones would leave what was
    // certified.
    let length = point.length.min(64);
    let calibration = TOKENS / length;
    let windows = random::windows(&shape, length, calibration + 2, 1);
    let (calibration, held_out) = windows.split_at(calibration);
    let mut model = freeze_eps(&model, calibration, Freezing::at(point.ratio))?;
    let margins = Margins { variance: 2.0, activation: 1.5, ..Margins::default() };
    certify(&mut model, calibration, held_out, &margins)?;
    fit(&mut model, &FitOptions::default())?;
    Ok(model)
}

/// One encrypted forward pass of the shipped model beside its prediction: by `profile`, in a
/// process of its own, whose end gives all memory back before the next pass is priced.
fn measure(csv: &mut String, length: usize) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let length_text = length.to_string();
    let output = Command::new(program)
        .args(["profile", "--profile", "n16", "--json", "--length", length_text.as_str()])
        .stderr(Stdio::inherit())
        .output()
        .context("starting a pass")?;
    if !output.status.success() {
        bail!("the pass ended with {}", output.status);
    }
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading the profile of a pass")?;
    let number = |key: &str| found[key].as_f64().with_context(|| format!("the profile has no {key}"));
    let keys = number("key_bytes")? / f64::from(1 << 30);
    let point = Point { length, ratio: f64::NAN, ..BASE };
    let bootstraps = number("bootstraps")? as usize;
    line(csv, "shipped", point, ("predicted", "-"), number("seconds_predicted")?, bootstraps, keys);
    line(csv, "shipped", point, ("measured", "encrypted"), number("seconds_total")?, bootstraps, keys);
    Ok(())
}

fn line(
    csv: &mut String,
    sweep: &str,
    point: Point,
    (kind, machine): (&str, &str),
    seconds: f64,
    bootstraps: usize,
    keys: f64,
) {
    let Point { layers, width, length, p, ratio } = point;
    let ratio = if ratio.is_nan() { String::new() } else { ratio.to_string() };
    let each = bootstraps as f64 / layers as f64;
    let _ = writeln!(
        csv,
        "{sweep},{layers},{width},{length},{p},{ratio},{kind},{machine},{seconds:.2},{bootstraps},\
         {each:.2},{keys:.2}"
    );
}
