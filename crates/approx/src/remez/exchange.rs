//! One exchange problem at one working precision.
//!
//! With a parity, p(x) = x^s·q(x²) and the fit runs on q in y = x², the prefactor moving into the
//! weight. Reference points are doubles (exact in multi-precision); only values are
//! multi-precision.

use super::minimax::{Minimax, Weight};
use crate::float::{Float, abs, float, is_finite, log2_abs, to_f64};
use crate::samples::cos_pi;
use crate::{Error, Interval, Parity, Polynomial, Result};

/// Points tried between two neighbours of the reference.
const GRID: usize = 6;

pub(super) struct Problem<'a> {
    domain: &'a [Interval],
    hull: Interval,
    degree: usize,
    parity: Parity,
    weight: Weight,
    bits: usize,
    f: &'a dyn Fn(&Float) -> Float,
    /// Coefficients of q.
    count: usize,
    /// Cosines of iπ / (2·count), i < 4·count.
    cosines: Vec<Float>,
}

/// The levelled polynomial on one reference.
struct Levelled {
    error: Float,
    coeffs: Vec<Float>,
}

impl<'a> Problem<'a> {
    pub(super) fn new(
        domain: &'a [Interval],
        degree: usize,
        parity: Parity,
        weight: Weight,
        bits: usize,
        f: &'a dyn Fn(&Float) -> Float,
    ) -> Self {
        let hull = domain.iter().skip(1).fold(domain[0], |h, i| h.hull(i));
        let count = match parity {
            Parity::None => degree + 1,
            Parity::Even => degree / 2 + 1,
            Parity::Odd => degree.div_ceil(2).max(1),
        };
        let cosines = cosines(2 * count, bits);
        Self { domain, hull, degree, parity, weight, bits, f, count, cosines }
    }

    pub(super) fn solve(&self, tolerance: f64, max_iterations: usize) -> Result<Minimax> {
        let mut reference = self.first_reference(0.0);
        if self.unresolved(&self.level(&reference)?) {
            // A symmetric reference levels at zero when the symmetry of f does not match the number
            // of points.
            reference = self.first_reference(0.3);
        }
        let (mut levelled, mut largest) = (0.0, f64::INFINITY);
        for iteration in 1..=max_iterations {
            let fit = self.level(&reference)?;
            let log2_levelled = log2_abs(&fit.error);
            if self.unresolved(&fit) {
                let (degree, bits) = (self.degree, self.bits);
                return Err(Error::PrecisionExhausted { degree, bits, log2_error: log2_levelled });
            }
            let extrema = self.extrema(&reference, &fit)?;
            let top = extrema.iter().map(|e| e.1.abs()).fold(0.0, f64::max);
            levelled = to_f64(&abs(&fit.error));
            largest = top * levelled;
            if top < 1.0 + tolerance {
                let (polynomial, exact) = self.rounded(&fit)?;
                let (iterations, bits) = (iteration, self.bits);
                return Ok(Minimax {
                    polynomial,
                    levelled,
                    log2_levelled,
                    largest,
                    reference,
                    iterations,
                    bits,
                    exact,
                });
            }
            match choose(extrema, self.count + 1) {
                Some(next) => reference = next,
                None => break,
            }
        }
        Err(Error::NotConverged {
            degree: self.degree,
            iterations: max_iterations,
            levelled,
            largest,
            reference,
        })
    }

    /// The polynomial itself, for a function whose error no precision up to this one resolves, on
    /// all of the grid.
    pub(super) fn exact(&self) -> Result<Minimax> {
        let reference = self.first_reference(0.3);
        let fit = self.level(&reference)?;
        let resolved = self.resolved(&fit);
        let mut top = f64::NEG_INFINITY;
        for interval in self.domain {
            for x in self.grid(*interval, &reference) {
                top = top.max(log2_abs(&self.error(x, &fit)?));
            }
        }
        if top > resolved {
            return Err(Error::PrecisionExhausted { degree: self.degree, bits: self.bits, log2_error: top });
        }
        let (polynomial, exact) = self.rounded(&fit)?;
        let (iterations, bits) = (0, self.bits);
        Ok(Minimax {
            polynomial,
            levelled: 0.0,
            log2_levelled: resolved,
            largest: 0.0,
            reference,
            iterations,
            bits,
            exact,
        })
    }

    /// Whether the levelled error drowns in the rounding of the coefficients, or of f.
    fn unresolved(&self, fit: &Levelled) -> bool {
        log2_abs(&fit.error) < self.resolved(fit)
    }

    /// log2 of the smallest error that is told from rounding.
    fn resolved(&self, fit: &Levelled) -> f64 {
        let largest = fit.coeffs.iter().map(log2_abs).fold(0.0, f64::max);
        largest + 48.0 - self.bits as f64
    }

    /// Chebyshev extrema of each interval, shared out by the weight of the interval under the
    /// arcsine law of the hull; inner points are moved by the given share of a step.
    fn first_reference(&self, skew: f64) -> Vec<f64> {
        let total = self.count + 1;
        if self.parity != Parity::None && self.domain.len() == 1 && self.domain[0].lo() == 0.0 {
            // The positive half of the extrema of the Chebyshev polynomial of twice as many
            // coefficients.
            let steps = 2 * self.count + usize::from(self.parity == Parity::Odd);
            return (0..total).rev().map(|j| self.hull.hi() * cos_pi(j, steps)).collect();
        }
        let angle = |x: f64| self.hull.to_unit(x).clamp(-1.0, 1.0).acos();
        let shares: Vec<f64> = self.domain.iter().map(|i| angle(i.lo()) - angle(i.hi())).collect();
        let sum: f64 = shares.iter().sum();
        let mut counts: Vec<usize> =
            shares.iter().map(|s| (s / sum * total as f64).round() as usize).collect();
        while counts.iter().sum::<usize>() != total {
            let missing = counts.iter().sum::<usize>() < total;
            // Give to (or take from) the interval that is furthest from its share.
            let gap = |i: usize| shares[i] / sum * total as f64 - counts[i] as f64;
            let pick = (0..counts.len()).max_by(|&a, &b| {
                let (a, b) = if missing { (gap(a), gap(b)) } else { (-gap(a), -gap(b)) };
                a.total_cmp(&b)
            });
            let Some(i) = pick else { break };
            counts[i] = if missing { counts[i] + 1 } else { counts[i].saturating_sub(1) };
        }
        let mut points = Vec::with_capacity(total);
        for (interval, &n) in self.domain.iter().zip(&counts) {
            for j in 0..n {
                let inner = j > 0 && j + 1 < n;
                let u = match n {
                    1 => 0.0,
                    _ if inner && skew != 0.0 => {
                        -(std::f64::consts::PI * (j as f64 + skew) / (n - 1) as f64).cos()
                    }
                    _ => -cos_pi(j, n - 1),
                };
                // Odd polynomials are 0 at 0 whatever their coefficients, so 0 cannot be a
                // reference point.
                let x = interval.from_unit(u).clamp(interval.lo(), interval.hi());
                points.push(if self.parity == Parity::Odd && x == 0.0 {
                    1e-3 * interval.hi() / n as f64
                } else {
                    x
                });
            }
        }
        points
    }

    /// Value of f and weight of the error of q at x.
    fn sample(&self, x: f64) -> Result<(Float, Float)> {
        let at = float(x, self.bits);
        let value = (self.f)(&at);
        if !is_finite(&value) {
            return Err(Error::NonFiniteSample { x });
        }
        let mut weight = float(1.0, self.bits);
        if self.weight == Weight::Relative {
            if value == Float::ZERO {
                return Err(Error::ZeroOfFunction { x });
            }
            weight /= abs(&value);
        }
        Ok((value.with_precision(self.bits).value(), weight))
    }

    /// Weighted error f − p at x.
    fn error(&self, x: f64, fit: &Levelled) -> Result<Float> {
        let (value, weight) = self.sample(x)?;
        Ok(weight * (value - self.value(&float(x, self.bits), &fit.coeffs)))
    }

    /// p(x) from the coefficients of q.
    fn value(&self, x: &Float, coeffs: &[Float]) -> Float {
        let q = clenshaw(coeffs, &self.unit(&self.variable(x)));
        if self.parity == Parity::Odd { q * x } else { q }
    }

    /// The variable of q.
    fn variable(&self, x: &Float) -> Float {
        if self.parity == Parity::None { x.clone() } else { x * x }
    }

    /// The interval on which q is expanded: lower end and width.
    fn base(&self) -> (Float, Float) {
        let (lo, hi) = (float(self.hull.lo(), self.bits), float(self.hull.hi(), self.bits));
        match self.parity {
            Parity::None => (lo.clone(), hi - lo),
            _ => (float(0.0, self.bits), &hi * &hi),
        }
    }

    fn unit(&self, y: &Float) -> Float {
        let (lo, width) = self.base();
        (y - lo) * Float::from(2) / width - Float::from(1)
    }

    /// Refuses points that coincide, as those of an interval of a few doubles do.
    fn check_reference(&self, reference: &[f64]) -> Result<()> {
        let positive = self.parity != Parity::Odd || reference.first().is_some_and(|x| *x > 0.0);
        if positive && reference.windows(2).all(|pair| pair[0] < pair[1]) {
            return Ok(());
        }
        let (lo, hi) = (self.hull.lo(), self.hull.hi());
        Err(Error::TooFewPoints { lo, hi, degree: self.degree, needed: self.count + 1 })
    }

    /// Refuses a function that changes its sign within an interval, if the error is relative.
    fn check_signs(&self, reference: &[f64], values: &[Float]) -> Result<()> {
        if self.weight != Weight::Relative {
            return Ok(());
        }
        let negative = |i: usize| values[i] < Float::ZERO;
        let together =
            |i: usize| self.domain.iter().any(|d| d.contains(reference[i]) && d.contains(reference[i + 1]));
        match (0..values.len().saturating_sub(1)).find(|&i| negative(i) != negative(i + 1) && together(i)) {
            Some(i) => Err(Error::ZeroOfFunction { x: 0.5 * reference[i] + 0.5 * reference[i + 1] }),
            None => Ok(()),
        }
    }

    /// The weights Π 1 / (u_i − u_j) of interpolation.
    fn barycentric(&self, u: &[Float]) -> Vec<Float> {
        let one = float(1.0, self.bits);
        let others = |i: usize| (0..u.len()).filter(move |&j| j != i);
        (0..u.len())
            .map(|i| &one / others(i).fold(one.clone(), |product, j| product * (&u[i] - &u[j])))
            .collect()
    }

    /// Levels the error on the reference and returns q.
    fn level(&self, reference: &[f64]) -> Result<Levelled> {
        self.check_reference(reference)?;
        let sampled = reference.iter().map(|&x| self.sample(x)).collect::<Result<Vec<_>>>()?;
        self.check_signs(reference, &sampled.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>())?;
        let x: Vec<Float> = reference.iter().map(|&x| float(x, self.bits)).collect();
        let u: Vec<Float> = x.iter().map(|x| self.unit(&self.variable(x))).collect();
        let bary = self.barycentric(&u);
        let (mut top, mut bottom) = (float(0.0, self.bits), float(0.0, self.bits));
        let mut samples = Vec::with_capacity(u.len());
        for (i, (mut value, mut weight)) in sampled.into_iter().enumerate() {
            if self.parity == Parity::Odd {
                value /= &x[i];
                weight *= &x[i];
            }
            top += &bary[i] * &value;
            let step = &bary[i] / &weight;
            bottom = if i % 2 == 0 { bottom + step } else { bottom - step };
            samples.push((value, weight));
        }
        let error = top / bottom;
        let q: Vec<Float> = samples
            .into_iter()
            .enumerate()
            .map(|(i, (value, weight))| {
                let step = &error / weight;
                if i % 2 == 0 { value - step } else { value + step }
            })
            .collect();
        let values: Vec<Float> = (0..self.count)
            .map(|j| {
                let at = &self.cosines[2 * j + 1];
                let (mut top, mut bottom) = (float(0.0, self.bits), float(0.0, self.bits));
                for i in 0..u.len() {
                    let difference = at - &u[i];
                    if difference == Float::ZERO {
                        return q[i].clone();
                    }
                    let share = &bary[i] / difference;
                    top += &share * &q[i];
                    bottom += share;
                }
                top / bottom
            })
            .collect();
        Ok(Levelled { error, coeffs: transform(&values, &self.cosines) })
    }

    /// Local extrema of the error with alternating signs, as (x, error / levelled error), ascending
    /// in x.
    fn extrema(&self, reference: &[f64], fit: &Levelled) -> Result<Vec<(f64, f64)>> {
        let ratio = |x: f64| -> Result<f64> { Ok(to_f64(&(self.error(x, fit)? / &fit.error))) };
        let mut runs: Vec<(f64, f64)> = Vec::new();
        for interval in self.domain {
            let points = self.grid(*interval, reference);
            let values = points.iter().map(|&x| ratio(x)).collect::<Result<Vec<f64>>>()?;
            for i in 0..points.len() {
                let before = i.checked_sub(1).map_or(0.0, |j| values[j] * values[i].signum());
                let after = values.get(i + 1).map_or(0.0, |v| v * values[i].signum());
                let here = values[i].abs();
                if here < before || here < after || here < 0.5 {
                    continue;
                }
                let mut peak = (points[i], values[i]);
                if i > 0 && i + 1 < points.len() && here > 0.9 {
                    peak = refine([i - 1, i, i + 1].map(|j| (points[j], values[j])), &ratio)?;
                }
                match runs.last_mut() {
                    Some(last) if last.1.signum() == peak.1.signum() => {
                        if peak.1.abs() > last.1.abs() {
                            *last = peak;
                        }
                    }
                    _ => runs.push(peak),
                }
            }
        }
        Ok(runs)
    }

    /// The reference points of an interval, its ends, and points between them spaced evenly in
    /// angle.
    fn grid(&self, interval: Interval, reference: &[f64]) -> Vec<f64> {
        let mut anchors = vec![interval.lo()];
        anchors.extend(reference.iter().copied().filter(|&x| interval.lo() < x && x < interval.hi()));
        anchors.push(interval.hi());
        if self.parity == Parity::Odd && anchors[0] == 0.0 {
            anchors[0] = 1e-9 * interval.hi();
        }
        let angle = |x: f64| interval.to_unit(x).clamp(-1.0, 1.0).acos();
        let mut points = vec![anchors[0]];
        for pair in anchors.windows(2) {
            let (from, to) = (angle(pair[0]), angle(pair[1]));
            for k in 1..GRID {
                let x = interval.from_unit((from + (to - from) * k as f64 / GRID as f64).cos());
                if x > pair[0] && x < pair[1] {
                    points.push(x);
                }
            }
            points.push(pair[1]);
        }
        points.dedup();
        points
    }

    /// p in the Chebyshev basis of its interval: (rounded, exact coefficients).
    fn rounded(&self, fit: &Levelled) -> Result<(Polynomial, Vec<Float>)> {
        let (interval, coeffs) = match self.parity {
            Parity::None => (self.hull, fit.coeffs.clone()),
            parity => {
                let degree = 2 * (self.count - 1) + usize::from(parity == Parity::Odd);
                let cosines = cosines(2 * (degree + 1), self.bits);
                let radius = float(self.hull.hi(), self.bits);
                let values: Vec<Float> =
                    (0..=degree).map(|j| self.value(&(&cosines[2 * j + 1] * &radius), &fit.coeffs)).collect();
                (Interval::symmetric(self.hull.hi())?, transform(&values, &cosines))
            }
        };
        let polynomial = Polynomial::chebyshev(interval, coeffs.iter().map(to_f64).collect())?;
        Ok((polynomial.with_parity(self.parity), coeffs))
    }
}

/// Maximises |ratio| near the middle of three points by successive parabolas.
fn refine(mut p: [(f64, f64); 3], ratio: &dyn Fn(f64) -> Result<f64>) -> Result<(f64, f64)> {
    for _ in 0..3 {
        let [(a, fa), (b, fb), (c, fc)] = p;
        let (ab, bc) = ((b - a) * (fb - fc), (b - c) * (fb - fa));
        let bottom = ab - bc;
        let x = b - 0.5 * ((b - a) * ab - (b - c) * bc) / bottom;
        if !x.is_finite() || x <= a || x >= c || x == b {
            break;
        }
        let value = ratio(x)?;
        let gain = value.abs() - fb.abs();
        let better = gain > 0.0;
        p = match (x < b, better) {
            (true, true) => [p[0], (x, value), p[1]],
            (true, false) => [(x, value), p[1], p[2]],
            (false, true) => [p[1], (x, value), p[2]],
            (false, false) => [p[0], p[1], (x, value)],
        };
        if gain.abs() < 1e-12 {
            break;
        }
    }
    Ok(p[1])
}

/// Thins out alternating extrema to `count`, keeping the largest; `None` if there are too few.
fn choose(mut extrema: Vec<(f64, f64)>, count: usize) -> Option<Vec<f64>> {
    while extrema.len() > count {
        let last = extrema.len() - 1;
        let smallest = (0..=last).min_by(|&a, &b| extrema[a].1.abs().total_cmp(&extrema[b].1.abs()))?;
        if extrema.len() == count + 1 || smallest == 0 || smallest == last {
            let end = if extrema[0].1.abs() < extrema[last].1.abs() { 0 } else { last };
            extrema.remove(end);
        } else {
            let left = extrema[smallest - 1].1.abs() < extrema[smallest + 1].1.abs();
            let from = if left { smallest - 1 } else { smallest };
            extrema.drain(from..from + 2);
        }
    }
    (extrema.len() == count).then(|| extrema.into_iter().map(|e| e.0).collect())
}

/// Σ c_k T_k(u).
pub(crate) fn clenshaw(coeffs: &[Float], u: &Float) -> Float {
    let twice = u * Float::from(2);
    let (mut near, mut far) = (Float::ZERO, Float::ZERO);
    for c in coeffs[1..].iter().rev() {
        let next = &twice * &near + c - far;
        far = near;
        near = next;
    }
    u * near + &coeffs[0] - far
}

/// Chebyshev coefficients from the values at the points cos((2j+1)π / 2n), n = number of values.
pub(crate) fn transform(values: &[Float], cosines: &[Float]) -> Vec<Float> {
    let n = values.len();
    (0..n)
        .map(|k| {
            let mut sum = Float::ZERO;
            for (j, y) in values.iter().enumerate() {
                sum += y * &cosines[k * (2 * j + 1) % (4 * n)];
            }
            sum * Float::from(if k == 0 { 1 } else { 2 }) / Float::from(n as u64)
        })
        .collect()
}

/// cos(iπ / half) for i < 2·half.
pub(crate) fn cosines(half: usize, bits: usize) -> Vec<Float> {
    let pi = Float::pi(bits + 8);
    let first: Vec<Float> = (0..=half / 2)
        .map(|i| match i {
            0 => float(1.0, bits),
            _ if 2 * i == half => float(0.0, bits),
            _ => (&pi * Float::from(i as u64) / Float::from(half as u64)).cos().with_precision(bits).value(),
        })
        .collect();
    (0..2 * half)
        .map(|i| {
            let i = i.min(2 * half - i);
            if i <= half / 2 { first[i].clone() } else { -first[half - i].clone() }
        })
        .collect()
}
