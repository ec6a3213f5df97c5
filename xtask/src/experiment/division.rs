//! `cargo xtask experiment division`: how well the reciprocal of an attention row's normaliser can
//! be had at a given depth.
//!
//! The normaliser of row i is the sum of n_i powers of scores. With the length-agnostic mean it is
//! divided by n_i first, so that one domain [0, 1] serves every length; without it the domain is
//! [0, L]. Both are offset by the same ε.

use crate::plot::{Axis, Dash, Panel, Scale, Series, svg};
use anyhow::Context;
use cipherlm_approx::scheme::relaxation;
use cipherlm_approx::{Circuit, EvalPlan, Function, Interval, Remez, Weight, chebyshev};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const EPSILONS: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];
const LENGTHS: [usize; 4] = [64, 128, 256, 512];
/// Scores are clipped to ±RANGE and powers divided by their largest possible value.
const RANGE: f64 = 5.0;
const SHIFT: f64 = 3.0;
const POWER: i32 = 4;
const SEED_DEGREE: usize = 15;
/// Depth, map of the argument included, at which distributions are compared.
const SHOWN_DEPTH: u32 = 8;
const SHOWN_EPSILON: f64 = 1e-3;
/// Error for which depths are listed.
const TARGET: f64 = 1e-3;

/// Runs the experiment and writes `division.csv`, `division.svg` and `division.md` to a folder.
/// `rows` names a file with the normalised row means of a trained model (numbers in [0, 1],
/// separated by white space), taken as one more distribution.
pub(crate) fn run(quick: bool, out: &Path, rows: Option<&Path>) -> anyhow::Result<()> {
    let depths: Vec<u32> = if quick { vec![4, 6, 8, 10, 12] } else { (3..=20).collect() };
    let per_length = if quick { 64 } else { 512 };
    let mut samples = synthetic(per_length);
    if let Some(file) = rows {
        samples.extend(from_file(file)?);
    }
    let mut table = Table::default();
    for epsilon in EPSILONS {
        for (bound, form, length) in domains() {
            for method in Method::ALL {
                for &depth in &depths {
                    let Some(circuit) = method.circuit(epsilon, bound, depth)? else { continue };
                    let worst = worst_on_domain(&circuit, epsilon, bound);
                    let products = circuit.cost().products;
                    for set in samples.iter().filter(|s| length == 0 || s.length == length) {
                        let x = if form == Form::Mean { &set.means } else { &set.sums };
                        if x.is_empty() {
                            continue;
                        }
                        let errors = relative_errors(&circuit, epsilon, x);
                        table.rows.push(Row {
                            distribution: set.name.clone(),
                            form,
                            length: set.length,
                            epsilon,
                            method,
                            depth,
                            products,
                            worst_domain: worst,
                            worst_rows: errors.last().copied().unwrap_or(0.0),
                            median_rows: errors[errors.len() / 2],
                        });
                    }
                }
            }
        }
    }
    std::fs::write(out.join("division.csv"), table.csv())?;
    std::fs::write(out.join("division.svg"), table.plot())?;
    let text = table.finding(quick);
    std::fs::write(out.join("division.md"), &text)?;
    println!("{text}");
    println!(
        "wrote division.csv ({} rows), division.svg and division.md to {}",
        table.rows.len(),
        out.display()
    );
    Ok(())
}

/// With or without dividing by the number of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Mean,
    Sum,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
        }
    }
}

/// (upper end of the domain, form, length it serves; 0 for all).
fn domains() -> Vec<(f64, Form, usize)> {
    let sums = LENGTHS.iter().map(|&l| (l as f64, Form::Sum, l));
    std::iter::once((1.0, Form::Mean, 0)).chain(sums).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Plain,
    Relaxed,
    Seeded,
    Chebyshev,
}

impl Method {
    const ALL: [Self; 4] = [Self::Plain, Self::Relaxed, Self::Seeded, Self::Chebyshev];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain Goldschmidt",
            Self::Relaxed => "relaxed Goldschmidt",
            Self::Seeded => "minimax 15 + Goldschmidt",
            Self::Chebyshev => "direct Chebyshev",
        }
    }

    /// The circuit of exactly this depth on [0, bound], the map of the argument included; `None` if
    /// the method has none.
    fn circuit(self, epsilon: f64, bound: f64, depth: u32) -> anyhow::Result<Option<Circuit>> {
        let function = Function::Inverse { shift: epsilon };
        let domain = Interval::new(0.0, bound)?;
        let slope = 2.0 / (bound + 2.0 * epsilon);
        let factors = depth as usize - 1;
        Ok(match self {
            Self::Plain => {
                Some(Circuit::Goldschmidt { shift: epsilon, slope, relaxation: vec![1.0; factors] })
            }
            Self::Relaxed => {
                let (relaxation, _) = relaxation(bound / (bound + 2.0 * epsilon), factors);
                Some(Circuit::Goldschmidt { shift: epsilon, slope, relaxation })
            }
            Self::Seeded => {
                // One level for the map, four for the seed, one for its residual.
                let Some(steps) = depth.checked_sub(6).filter(|s| *s > 0) else { return Ok(None) };
                let fit = Remez::new(&[domain], SEED_DEGREE)?
                    .weight(Weight::Relative)
                    .tolerance(1e-6)
                    .fit(&function)?;
                let (relaxation, _) = relaxation(fit.largest, steps as usize);
                Some(Circuit::SeededInverse {
                    shift: epsilon,
                    seed: EvalPlan::new(&fit.polynomial)?,
                    relaxation,
                })
            }
            Self::Chebyshev => {
                let degree = (1usize << factors) - 1;
                if degree > 1023 {
                    return Ok(None);
                }
                let polynomial = chebyshev::interpolate(|x| function.eval(x), domain, degree)?;
                Some(Circuit::Polynomial { plan: EvalPlan::new(&polynomial)? })
            }
        })
    }
}

/// |1 − (ε + x)·y(x)|, ascending.
fn relative_errors(circuit: &Circuit, epsilon: f64, x: &[f64]) -> Vec<f64> {
    let mut errors: Vec<f64> = x
        .iter()
        .zip(circuit.eval_slice(x))
        .map(|(x, y)| (1.0 - (epsilon + x) * y).abs().max(1e-17))
        .collect();
    errors.sort_by(f64::total_cmp);
    errors
}

/// The largest error on a grid that is dense near 0 and near the far end.
fn worst_on_domain(circuit: &Circuit, epsilon: f64, bound: f64) -> f64 {
    let count = 3000;
    let even = (0..=count)
        .map(|i| bound * 0.5 * (1.0 - (std::f64::consts::PI * f64::from(i) / f64::from(count)).cos()));
    let ratio = (bound + epsilon) / epsilon;
    let geometric = (0..=count)
        .map(|i| (epsilon * ratio.powf(f64::from(i) / f64::from(count)) - epsilon).clamp(0.0, bound));
    let points: Vec<f64> = even.chain(geometric).collect();
    relative_errors(circuit, epsilon, &points).last().copied().unwrap_or(0.0)
}

/// Row statistics of one distribution of scores at one length.
struct Samples {
    name: String,
    length: usize,
    means: Vec<f64>,
    sums: Vec<f64>,
}

/// Rows with 1 … L keys, evenly, under three distributions of scores.
fn synthetic(rows: usize) -> Vec<Samples> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let top = RANGE.powi(POWER);
    let shifted_top = (RANGE + SHIFT).powi(POWER);
    let mut out = Vec::new();
    for name in ["shifted", "plain", "sink"] {
        for length in LENGTHS {
            let (mut means, mut sums) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
            for row in 0..rows {
                let keys = 1 + row * (length - 1) / (rows - 1).max(1);
                let mut sum = 0.0;
                for key in 0..keys {
                    let z = random.gaussian().clamp(-RANGE, RANGE);
                    sum += match name {
                        "shifted" => (z + SHIFT).powi(POWER) / shifted_top,
                        "plain" => z.powi(POWER) / top,
                        _ if key == 0 => (0.9 * RANGE).powi(POWER) / top,
                        _ => (0.3 * z).powi(POWER) / top,
                    };
                }
                sums.push(sum);
                means.push(sum / keys as f64);
            }
            out.push(Samples { name: name.into(), length, means, sums });
        }
    }
    out
}

/// Row means of a trained model. They have no sums: the lengths are folded in already.
fn from_file(file: &Path) -> anyhow::Result<Vec<Samples>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading row means from {}", file.display()))?;
    let means = text
        .split_whitespace()
        .map(|word| {
            word.parse::<f64>().with_context(|| format!("`{word}` in {} is not a number", file.display()))
        })
        .collect::<anyhow::Result<Vec<f64>>>()?;
    let outside = Interval::new(0.0, 1.0)?.violations(&means);
    anyhow::ensure!(
        outside.outside == 0,
        "{} of {} row means lie outside [0, 1] (worst {:?}): divide them by their certified bound first",
        outside.outside,
        outside.checked,
        outside.worst
    );
    anyhow::ensure!(!means.is_empty(), "{} holds no row means", file.display());
    Ok(vec![Samples { name: "model".into(), length: 0, means, sums: Vec::new() }])
}

/// splitmix64, for reproducible rows.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[derive(Debug, Clone)]
struct Row {
    distribution: String,
    form: Form,
    length: usize,
    epsilon: f64,
    method: Method,
    depth: u32,
    products: u32,
    worst_domain: f64,
    worst_rows: f64,
    median_rows: f64,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

impl Table {
    fn csv(&self) -> String {
        let mut out = String::from(
            "distribution,form,length,epsilon,method,depth,products,worst_error_on_domain,\
             worst_error_on_rows,median_error_on_rows\n",
        );
        for r in &self.rows {
            let _ = writeln!(
                out,
                "{},{},{},{:e},{},{},{},{:.4e},{:.4e},{:.4e}",
                r.distribution,
                r.form.name(),
                r.length,
                r.epsilon,
                r.method.name(),
                r.depth,
                r.products,
                r.worst_domain,
                r.worst_rows,
                r.median_rows
            );
        }
        out
    }

    fn plot(&self) -> String {
        let by_depth = Method::ALL.iter().enumerate().map(|(colour, &method)| {
            // The interpolant and the relaxed product coincide: let both be seen.
            let dash = if method == Method::Chebyshev { Dash::Dotted } else { Dash::Solid };
            let points: BTreeMap<u32, f64> = self
                .rows
                .iter()
                .filter(|r| r.form == Form::Mean && r.epsilon == SHOWN_EPSILON && r.method == method)
                .map(|r| (r.depth, r.worst_domain.max(1e-15)))
                .collect();
            let points = points.into_iter().map(|(d, e)| (f64::from(d), e)).collect();
            Series { name: method.name().into(), colour, dash, points }
        });
        let mut by_length = Vec::new();
        for (colour, &method) in Method::ALL.iter().enumerate().take(3) {
            for (form, dash) in [(Form::Mean, Dash::Solid), (Form::Sum, Dash::Dashed)] {
                let depth = |&l: &usize| {
                    let (depth, _) = self.depth_for(form, l, SHOWN_EPSILON, method, TARGET)?;
                    Some((l as f64, f64::from(depth)))
                };
                let points: Vec<(f64, f64)> = LENGTHS.iter().filter_map(depth).collect();
                let suffix = if form == Form::Sum { ", no mean" } else { "" };
                by_length.push(Series { name: format!("{}{suffix}", method.name()), colour, dash, points });
            }
        }
        let error = Axis { label: "worst relative error on the domain".into(), scale: Scale::Log10 };
        let panels = [
            Panel {
                title: "ε = 10⁻³, mean form: x in [0, 1], κ = 1001".into(),
                x: Axis { label: "depth (levels)".into(), scale: Scale::Linear },
                y: error,
                series: by_depth.collect(),
            },
            Panel {
                title: "ε = 10⁻³: levels for a worst error of 10⁻³".into(),
                x: Axis { label: "row length L (keys)".into(), scale: Scale::Log2 },
                y: Axis { label: "depth (levels)".into(), scale: Scale::Linear },
                series: by_length,
            },
        ];
        svg("Reciprocal of an attention row's normaliser, 1/(ε + x)", &panels)
    }

    /// The least depth at which a method's worst error on the domain is not above a target.
    fn depth_for(
        &self,
        form: Form,
        length: usize,
        epsilon: f64,
        method: Method,
        target: f64,
    ) -> Option<(u32, u32)> {
        self.rows
            .iter()
            .filter(|r| {
                r.form == form && r.epsilon == epsilon && r.method == method && r.worst_domain <= target
            })
            .filter(|r| r.length == length)
            .map(|r| (r.depth, r.products))
            .min()
    }

    fn finding(&self, quick: bool) -> String {
        let grid = if quick { "the coarse grid of depths of --quick" } else { "every depth from 3 to 20" };
        let mut out = format!(
            "Levels (products) for a worst relative error of 1e-3 over the whole domain, the map of the \
             argument included, over {grid}:\n\n| form | ε | κ | {} |\n|---|---|---|---|---|---|---|\n",
            Method::ALL.map(Method::name).join(" | ")
        );
        for epsilon in EPSILONS {
            for (form, length) in [(Form::Mean, LENGTHS[1]), (Form::Sum, LENGTHS[0]), (Form::Sum, LENGTHS[3])]
            {
                let bound = if form == Form::Mean { 1.0 } else { length as f64 };
                let label =
                    if form == Form::Mean { "mean, any L".into() } else { format!("sum, L = {length}") };
                let cells: Vec<String> = Method::ALL
                    .iter()
                    .map(|&m| match self.depth_for(form, length, epsilon, m, TARGET) {
                        Some((depth, products)) => format!("{depth} ({products})"),
                        None => "–".into(),
                    })
                    .collect();
                let _ = writeln!(
                    out,
                    "| {label} | {epsilon:e} | {:.0} | {} |",
                    1.0 + bound / epsilon,
                    cells.join(" | ")
                );
            }
        }
        let _ = write!(
            out,
            "\nWorst error on sampled rows (mean form, ε = 1e-3, {SHOWN_DEPTH} levels, L = 256):\n\n"
        );
        let _ = writeln!(
            out,
            "| distribution | {} |\n|---|---|---|---|---|",
            Method::ALL.map(Method::name).join(" | ")
        );
        let mut names: Vec<&str> = self.rows.iter().map(|r| r.distribution.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let cells: Vec<String> = Method::ALL
                .iter()
                .map(|&m| {
                    self.rows
                        .iter()
                        .find(|r| {
                            let length = r.length == 256 || r.length == 0;
                            let here =
                                r.distribution == name && r.form == Form::Mean && length && r.method == m;
                            here && r.epsilon == SHOWN_EPSILON && r.depth == SHOWN_DEPTH
                        })
                        .map_or("–".into(), |r| {
                            format!("{:.1e} (median {:.1e})", r.worst_rows, r.median_rows)
                        })
                })
                .collect();
            let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_circuit_has_the_depth_it_is_listed_under() {
        for method in Method::ALL {
            for depth in [4, 7, 9] {
                let Some(circuit) = method.circuit(1e-2, 1.0, depth).unwrap() else { continue };
                assert_eq!(circuit.cost().depth, depth, "{}", method.name());
            }
        }
    }

    #[test]
    fn rows_stay_in_their_domains() {
        for set in synthetic(64) {
            assert_eq!(Interval::new(0.0, 1.0).unwrap().violations(&set.means).outside, 0);
            assert_eq!(Interval::new(0.0, set.length as f64).unwrap().violations(&set.sums).outside, 0);
        }
    }

    #[test]
    fn the_error_follows_theory() {
        let circuit = Method::Plain.circuit(1e-2, 1.0, 6).unwrap().unwrap();
        let expected = (1.0 / 1.02f64).powi(32);
        assert!((worst_on_domain(&circuit, 1e-2, 1.0) / expected - 1.0).abs() < 1e-9);
    }
}
