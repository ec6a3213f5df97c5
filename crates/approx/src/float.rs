//! Multi-precision helpers over `dashu-float`.

use dashu_float::FBig;
use dashu_float::round::mode::HalfEven;

/// A binary floating-point number of arbitrary precision, rounded to nearest.
///
/// The precision travels with the number: results have the larger precision of the operands.
pub type Float = FBig<HalfEven, 2>;

/// The number x at a precision of `bits`; x must be finite.
pub(crate) fn float(x: f64, bits: usize) -> Float {
    Float::try_from(x).unwrap_or(Float::ZERO).with_precision(bits).value()
}

/// Nearest double; infinite when out of range.
pub(crate) fn to_f64(x: &Float) -> f64 {
    x.to_f64().value()
}

/// Where exp(±x) is so far outside the range of doubles that it counts as 0 or infinite.
pub(crate) const EXP_LIMIT: f64 = 65536.0;

/// exp x, 0 or infinite beyond [`EXP_LIMIT`].
pub(crate) fn exp(x: &Float) -> Float {
    match to_f64(x) {
        value if value < -EXP_LIMIT => float(0.0, x.precision()),
        value if value > EXP_LIMIT => Float::INFINITY,
        _ => x.exp(),
    }
}

/// factor / (1 + exp(−x)).
pub(crate) fn sigmoid_of(x: &Float, factor: Float) -> Float {
    let e = exp(&-x.clone());
    if is_finite(&e) { factor / (float(1.0, x.precision()) + e) } else { float(0.0, x.precision()) }
}

/// Whether the number is finite.
pub(crate) fn is_finite(x: &Float) -> bool {
    !x.repr().is_infinite()
}

/// |x|.
pub(crate) fn abs(x: &Float) -> Float {
    if *x < Float::ZERO { -x.clone() } else { x.clone() }
}

/// log2 |x|, to double precision, for numbers far outside the range of a double too.
pub(crate) fn log2_abs(x: &Float) -> f64 {
    let digits = x.repr().digits();
    if digits == 0 {
        return f64::NEG_INFINITY;
    }
    let exponent = x.repr().exponent() + digits as isize;
    let shifted = abs(x) >> exponent;
    to_f64(&shifted).log2() + exponent as f64
}

/// erf x from its all-positive series 2/√π · exp(−x²) · Σ 2^k x^(2k+1) / (2k+1)!!.
pub(crate) fn erf(x: &Float) -> Float {
    let bits = x.precision().max(64);
    // Beyond this erfc x < exp(−x²) is below the last bit, and the series would take x² terms.
    if to_f64(&abs(x)) > (bits as f64 + 16.0).sqrt() {
        return float(1f64.copysign(to_f64(x)), bits);
    }
    let x = x.clone().with_precision(bits + 16).value();
    let square = &x * &x;
    let twice = &square * Float::from(2);
    let mut term = x.clone();
    let mut sum = x.clone();
    if x == Float::ZERO {
        return x;
    }
    let mut k = 1u32;
    loop {
        term = term * &twice / Float::from(2 * k + 1);
        sum += &term;
        k += 1;
        if log2_abs(&term) < log2_abs(&sum) - (bits + 8) as f64 {
            break;
        }
    }
    let pi = Float::pi(bits + 16);
    let value = sum * Float::from(2) * (-square).exp() / pi.sqrt();
    value.with_precision(bits).value()
}
