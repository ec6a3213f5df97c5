//! IEEE 754 binary16 and back.

/// The nearest binary16, ties to even; what is too large becomes infinite.
pub(super) fn from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    if magnitude < 6.103_515_6e-5 {
        // Below the normal numbers: a multiple of 2^-24.
        return sign | (magnitude * 16_777_216.0).round_ties_even() as u16;
    }
    let exponent = (bits >> 23 & 255) as i32 - 127;
    let scaled = (magnitude * 2f32.powi(10 - exponent)).round_ties_even() as u32;
    // A mantissa that rounds up to 2048 carries into the exponent.
    sign | (((exponent + 14) as u32) << 10).wrapping_add(scaled) as u16
}

/// The value of a binary16, exactly.
pub(super) fn to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let mantissa = f32::from(half & 1023);
    sign * match i32::from(half >> 10 & 31) {
        0 => mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1024.0 + mantissa) * 2f32.powi(e - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_and_neighbours_round_to_the_nearest() {
        for half in 0..=u16::MAX {
            let value = to_f32(half);
            if value.is_nan() {
                assert!(to_f32(from_f32(value)).is_nan());
                continue;
            }
            assert_eq!(from_f32(value), half, "{value}");
            let next = to_f32(half + 1);
            if half & 0x7fff < 0x7bff {
                let middle = 0.5 * (value + next);
                let even = if half & 1 == 0 { half } else { half + 1 };
                assert_eq!(from_f32(middle), even, "between {value} and {next}");
                assert_eq!(from_f32(0.75 * value + 0.25 * next), half);
            }
        }
        assert_eq!(from_f32(65519.9), 0x7bff);
        assert_eq!(from_f32(65520.0), 0x7c00);
    }
}
