//! Which scheme is cheapest for a function, a domain and an error.

use crate::certificate::Measure;
use crate::plan::{Cost, EvalPlan};
use crate::remez::{Remez, Weight};
use crate::scheme::circuit::NEWTON_SCALE;
use crate::scheme::composite::{SignStage, sign_circuit, sign_stage};
use crate::scheme::makers::{inverse_start, minimax_polynomial, newton_steps, relaxation};
use crate::{Circuit, Error, Function, Interval, Polynomial, Result, Scheme};

/// Degrees tried for one polynomial.
const MAX_DEGREE: usize = 127;
const SEED_DEGREES: [usize; 4] = [3, 7, 15, 31];
const STAGE_DEGREES: [usize; 4] = [3, 7, 15, 31];
const MAX_STAGES: usize = 6;

/// One row of the table a choice was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// How it computes.
    pub name: String,
    /// Its cost, the affine map of the argument included.
    pub cost: Cost,
    /// Levels without that map, which the producer of the argument can often absorb.
    pub depth_mapped: u32,
    /// Error expected from theory or from the fit; the chosen one is then certified.
    pub error: f64,
    circuit: Circuit,
}

/// A chosen scheme and what it was chosen from.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The cheapest scheme whose certified error is not above the target.
    pub scheme: Scheme,
    /// All candidates that reach the target, cheapest first.
    pub table: Vec<Candidate>,
}

/// The cheapest scheme, by depth (the map of the argument included), then by products, then by
/// relinearisations, whose certified error in the function's usual measure is at most `target`.
///
/// The domain is one interval, or for sign and step the two intervals ±[gap, radius].
///
/// # Errors
/// A pole in the domain, a target that is not positive, another number of intervals,
/// [`Error::NotDirect`] for max(x, 0), or [`Error::NoScheme`].
pub fn choose(function: Function, domain: &[Interval], target: f64) -> Result<Choice> {
    if !(target > 0.0 && target.is_finite()) {
        return Err(Error::Parameter { what: "target error", value: target, expected: "positive" });
    }
    let measure = function.usual_measure();
    let mut table = match (function, domain) {
        (Function::Sign, [a, b]) => composites(*a, *b, target, (1.0, 0.0))?,
        (Function::Step, [a, b]) => composites(*a, *b, target, (0.5, 0.5))?,
        (Function::Inverse { shift }, [domain]) => inverses(shift, *domain, target)?,
        (Function::InverseSqrt { shift }, [domain]) => inverse_roots(shift, *domain, target)?,
        (Function::Relu, _) => {
            let instead = "it is x times a step, which `Scheme::relu` makes from a radius, a gap and degrees";
            return Err(Error::NotDirect { function: function.to_string(), instead });
        }
        (Function::Sign | Function::Step, _) => {
            let (what, value) = ("number of intervals of a sign or step", domain.len() as f64);
            return Err(Error::Parameter { what, value, expected: "two, on both sides of the gap around 0" });
        }
        (_, [] | [_, _, ..]) => {
            let (what, value) = ("number of intervals of a smooth function", domain.len() as f64);
            return Err(Error::Parameter { what, value, expected: "one" });
        }
        (_, [domain]) => smooth(function, *domain, target, measure)?,
    };
    let examined = table.len();
    let best = table.iter().map(|c| c.error).fold(f64::INFINITY, f64::min);
    table.retain(|c| c.error <= target);
    table.sort_by_key(|c| (c.cost.depth, c.cost.products, c.cost.relinearisations));
    for candidate in &table {
        let circuit = candidate.circuit.clone();
        let scheme = Scheme::certified(candidate.name.clone(), circuit, function, domain, measure)?;
        if scheme.max_error() <= target {
            return Ok(Choice { scheme, table });
        }
    }
    Err(Error::NoScheme { function: function.to_string(), target, candidates: examined, best })
}

impl Candidate {
    fn new(name: String, circuit: Circuit, error: f64) -> Self {
        let cost = circuit.cost();
        Self { name, cost, depth_mapped: cost.depth - circuit.map_depth(), error, circuit }
    }
}

/// A certified bound lies up to 4 % above the error attained: candidates aim a little lower than
/// the target.
fn aim(target: f64) -> f64 {
    0.96 * target
}

fn inverses(shift: f64, domain: Interval, target: f64) -> Result<Vec<Candidate>> {
    let (slope, epsilon) = inverse_start(shift, domain, 0)?;
    let goal = aim(target);
    let function = Function::Inverse { shift };
    let mut out = Vec::new();
    // Degree at which 1/T_{n+1}((κ+1)/(κ−1)) falls below the goal.
    let degree = ((1.0 / goal).max(1.0).acosh() / (1.0 / epsilon).acosh()).ceil() as usize;
    if degree <= 2 * MAX_DEGREE {
        let degree = degree.max(2) - 1;
        let (polynomial, error) = minimax_polynomial(function, domain, degree, Measure::Relative)?;
        let circuit = Circuit::Polynomial { plan: EvalPlan::new(&polynomial)? };
        out.push(Candidate::new(format!("minimax {degree}"), circuit, error));
    }
    let plain = (1..=40).find(|&k| epsilon.powf(f64::from(k).exp2()) <= goal);
    if let Some(factors) = plain {
        let relaxation = vec![1.0; factors as usize];
        let error = epsilon.powf(f64::from(factors).exp2());
        let circuit = Circuit::Goldschmidt { shift, slope, relaxation };
        out.push(Candidate::new(format!("Goldschmidt {factors}"), circuit, error));
    }
    if let Some(factors) = (1..=40).find(|&k| relaxation(epsilon, k).1 <= goal) {
        let (relaxation, error) = relaxation(epsilon, factors);
        let circuit = Circuit::Goldschmidt { shift, slope, relaxation };
        out.push(Candidate::new(format!("relaxed {factors}"), circuit, error));
    }
    for degree in SEED_DEGREES {
        let fit = Remez::new(&[domain], degree)?.weight(Weight::Relative).tolerance(1e-3).fit(&function)?;
        let Some(steps) = (1..=40).find(|&k| relaxation(fit.largest, k).1 <= goal) else { continue };
        let (relaxation, error) = relaxation(fit.largest, steps);
        let circuit = Circuit::SeededInverse { shift, seed: EvalPlan::new(&fit.polynomial)?, relaxation };
        out.push(Candidate::new(format!("minimax {degree} + Goldschmidt {steps}"), circuit, error));
    }
    Ok(out)
}

fn inverse_roots(shift: f64, domain: Interval, target: f64) -> Result<Vec<Candidate>> {
    let function = Function::InverseSqrt { shift };
    let mut out = smooth(function, domain, target, Measure::Relative)?;
    let goal = aim(target);
    for degree in SEED_DEGREES {
        let fit = Remez::new(&[domain], degree)?.weight(Weight::Relative).tolerance(1e-3).fit(&function)?;
        let Some(steps) = (1..=20).find(|&k| newton_steps(fit.largest, k).1 <= goal) else { continue };
        let (newton, error) = newton_steps(fit.largest, steps);
        let seed = EvalPlan::new(&fit.polynomial.scaled(1.0 / NEWTON_SCALE)?)?;
        let circuit = Circuit::InverseSqrt { shift, seed, steps: newton };
        out.push(Candidate::new(format!("minimax {degree} + Newton {steps}"), circuit, error));
    }
    Ok(out)
}

/// The lowest degree that reaches the target, by bisection, and domain extension where the function
/// flattens.
fn smooth(function: Function, domain: Interval, target: f64, measure: Measure) -> Result<Vec<Candidate>> {
    let goal = aim(target);
    let fit = |degree: usize| minimax_polynomial(function, domain, degree, measure);
    let mut out = Vec::new();
    let mut push = |degree: usize, (polynomial, error): (Polynomial, f64)| -> Result<()> {
        let circuit = Circuit::Polynomial { plan: EvalPlan::new(&polynomial)? };
        out.push(Candidate::new(format!("minimax {degree}"), circuit, error));
        Ok(())
    };
    let (mut below, mut reached) = (0, None);
    for degree in [3, 7, 15, 31, 63, MAX_DEGREE] {
        let found = fit(degree)?;
        if found.1 <= goal {
            reached = Some((degree, found));
            break;
        }
        below = degree;
        if degree == MAX_DEGREE {
            push(degree, found)?;
        }
    }
    if let Some((mut degree, mut found)) = reached {
        while degree - below > 1 {
            let mid = (below + degree) / 2;
            let trial = fit(mid)?;
            if trial.1 <= goal { (degree, found) = (mid, trial) } else { below = mid }
        }
        push(degree, found)?;
    }
    let flat = match function {
        Function::Sigmoid | Function::Silu => (1.0 / goal).ln().max(1.0),
        Function::Tanh => 0.5 * (2.0 / goal).ln().max(1.0),
        Function::Erf => (1.0 / goal).ln().max(1.0).sqrt(),
        Function::Gelu => (2.0 * (1.0 / goal).ln().max(1.0)).sqrt(),
        _ => return Ok(out),
    };
    // The fold brings the end of the range back to 0.8 of the inner radius: the function must be
    // flat from there.
    let inner = 1.4 * flat;
    if !domain.is_symmetric() || domain.hi() < 1.5 * inner {
        return Ok(out);
    }
    for degree in [15, 31, 63] {
        let Ok(scheme) = Scheme::extended(function, domain.hi(), inner, degree) else { continue };
        let done = scheme.max_error() <= target;
        out.push(Candidate::new(scheme.name().to_string(), scheme.circuit().clone(), scheme.max_error()));
        if done {
            break;
        }
    }
    Ok(out)
}

/// Compositions of odd stages of rising degree that reach the target.
fn composites(
    negative: Interval,
    positive: Interval,
    target: f64,
    map: (f64, f64),
) -> Result<Vec<Candidate>> {
    if negative.lo() != -positive.hi() || negative.hi() != -positive.lo() || positive.lo() <= 0.0 {
        let (value, expected) = (negative.hi(), "the mirror image of the positive one");
        return Err(Error::Parameter { what: "negative interval of a comparison", value, expected });
    }
    let radius = positive.hi();
    let goal = aim(target) / map.0;
    let start = Interval::new(positive.lo() / radius, 1.0)?;
    let mut out = Vec::new();
    let mut open: Vec<(Vec<SignStage>, Interval)> = vec![(Vec::new(), start)];
    while let Some((stages, domain)) = open.pop() {
        let least = stages.last().map_or(0, |s: &SignStage| s.polynomial.degree());
        for degree in STAGE_DEGREES {
            let stage = sign_stage(domain, degree)?;
            let image = stage.image()?;
            let error = stage.error;
            let mut next = stages.clone();
            next.push(stage);
            if error <= goal {
                let names: Vec<String> = next.iter().map(|s| s.polynomial.degree().to_string()).collect();
                let circuit = sign_circuit(&next, radius, map.0, map.1)?;
                out.push(Candidate::new(format!("composite {}", names.join("∘")), circuit, error * map.0));
                // Higher degrees at this place only cost more.
                break;
            }
            // Only the last stage may be of a lower degree than the one before it.
            if degree >= least && next.len() < MAX_STAGES {
                open.push((next, image));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(lo: f64, hi: f64) -> Interval {
        Interval::new(lo, hi).unwrap()
    }

    #[test]
    fn the_reciprocal_is_a_relaxed_product() {
        let choice = choose(Function::INVERSE, &[interval(1e-3, 1.0)], 1e-3).unwrap();
        assert_eq!(choice.scheme.name(), "relaxed 7");
        assert_eq!((choice.scheme.depth_mapped(), choice.scheme.products()), (7, 12));
        assert!(choice.table.len() >= 6, "{:#?}", choice.table.iter().map(|c| &c.name).collect::<Vec<_>>());
        let keys: Vec<_> = choice.table.iter().map(|c| (c.cost.depth, c.cost.products)).collect();
        assert!(keys.is_sorted());
    }

    #[test]
    fn roots_and_activations_meet_their_target() {
        for (function, domain, target) in [
            (Function::InverseSqrt { shift: 1e-5 }, interval(0.05, 5.0), 1e-4),
            (Function::Gelu, interval(-6.0, 6.0), 1e-3),
            (Function::Sigmoid, interval(-40.0, 40.0), 1e-3),
            (Function::Exp, interval(-2.0, 1.0), 1e-6),
        ] {
            let choice = choose(function, &[domain], target).unwrap();
            assert!(choice.scheme.max_error() <= target, "{function}");
            assert!(choice.table.iter().all(|c| c.cost.depth >= choice.scheme.depth()), "{function}");
        }
    }

    #[test]
    fn comparisons_pick_a_composite() {
        let domain = [interval(-1.0, -1.0 / 64.0), interval(1.0 / 64.0, 1.0)];
        let choice = choose(Function::Sign, &domain, 1e-3).unwrap();
        assert!(
            choice.scheme.max_error() <= 1e-3 && choice.scheme.depth() <= 9,
            "{:?}",
            choice.scheme.cost()
        );
    }

    #[test]
    fn refusals_say_how_many_intervals_and_what_instead() {
        let [one, other] = [interval(-1.0, -0.5), interval(0.5, 1.0)];
        let message = |function, domain: &[Interval]| choose(function, domain, 1e-3).unwrap_err().to_string();
        for domain in [&[interval(-1.0, 1.0)][..], &[one, other], &[]] {
            let said = message(Function::Relu, domain);
            assert!(said.contains("max(x, 0)") && said.contains("Scheme::relu"), "{said}");
        }
        for function in [Function::Sign, Function::Step] {
            for domain in [&[other][..], &[], &[one, other, interval(2.0, 3.0)]] {
                let said = message(function, domain);
                assert!(said.contains(&format!("is {}, expected two", domain.len())), "{said}");
            }
        }
        for function in [Function::Gelu, Function::INVERSE, Function::InverseSqrt { shift: 1.0 }] {
            for domain in [&[one, other][..], &[]] {
                let said = message(function, domain);
                assert!(said.contains(&format!("is {}, expected one", domain.len())), "{said}");
            }
        }
    }

    #[test]
    fn hopeless_domains_end_in_a_refusal() {
        let extreme = interval(1e-300, 1e300);
        for function in [Function::INVERSE, Function::InverseSqrt { shift: 0.0 }] {
            let refused = choose(function, &[extreme], 1e-3);
            assert!(
                matches!(refused, Err(Error::NoScheme { .. } | Error::NotConverged { .. })),
                "{refused:?}"
            );
        }
        for shift in [f64::NAN, f64::INFINITY] {
            for function in [Function::Inverse { shift }, Function::InverseSqrt { shift }] {
                let refused = choose(function, &[interval(0.5, 1.0)], 1e-3);
                assert!(matches!(refused, Err(Error::NotFinite { .. })), "{refused:?}");
            }
        }
    }

    #[test]
    fn impossible_targets_are_named() {
        let beyond = choose(Function::Exp, &[interval(-1.0, 1.0)], 1e-19);
        assert!(matches!(beyond, Err(Error::NoScheme { .. })), "{beyond:?}");
        assert!(matches!(choose(Function::Exp, &[interval(-1.0, 1.0)], 0.0), Err(Error::Parameter { .. })));
        assert!(matches!(choose(Function::INVERSE, &[interval(-1.0, 1.0)], 0.1), Err(Error::Pole { .. })));
    }
}
