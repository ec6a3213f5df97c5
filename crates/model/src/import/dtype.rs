//! Number formats of public checkpoints.

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
    /// Whole numbers and flags, of this many bytes: buffers, never weights.
    Whole(u8),
    /// Blocks of 32 values: an f16 step, then 8-bit numbers.
    Q8_0,
    /// Blocks of 32 values: an f16 step, then 4-bit numbers less 8.
    Q4_0,
    /// Blocks of 32 values: an f16 step, an f16 minimum, then 4-bit numbers.
    Q4_1,
}

/// Values in a quantised block.
const BLOCK: u64 = 32;

impl Dtype {
    /// By the name in a safetensors header.
    pub(super) fn of_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F64" => Self::F64,
            "I64" | "U64" => Self::Whole(8),
            "I32" | "U32" => Self::Whole(4),
            "I16" | "U16" => Self::Whole(2),
            "I8" | "U8" | "BOOL" => Self::Whole(1),
            _ => return None,
        })
    }

    /// By the number in a GGUF header.
    pub(super) fn of_gguf(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            24 => Self::Whole(1),
            25 => Self::Whole(2),
            26 => Self::Whole(4),
            27 => Self::Whole(8),
            28 => Self::F64,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Bytes of `count` values in rows of `row`. Blocks never cross a row.
    pub(super) fn bytes(self, count: u64, row: u64) -> Option<u64> {
        let blocks =
            |bytes: u64| if row.is_multiple_of(BLOCK) { (count / BLOCK).checked_mul(bytes) } else { None };
        match self {
            Self::F32 => count.checked_mul(4),
            Self::F16 | Self::Bf16 => count.checked_mul(2),
            Self::F64 => count.checked_mul(8),
            Self::Whole(bytes) => count.checked_mul(u64::from(bytes)),
            Self::Q8_0 => blocks(34),
            Self::Q4_0 => blocks(18),
            Self::Q4_1 => blocks(20),
        }
    }

    /// The values, or `None` for whole numbers.
    pub(super) fn floats(self, raw: &[u8]) -> Option<Vec<f32>> {
        let half = |b: &[u8]| half_to_f32(u16::from_le_bytes([b[0], b[1]]));
        Some(match self {
            Self::F32 => raw.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F16 => raw.as_chunks::<2>().0.iter().map(|b| half(b)).collect(),
            Self::Bf16 => {
                let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                raw.as_chunks::<2>().0.iter().map(wide).collect()
            }
            Self::F64 => raw.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            Self::Whole(_) => return None,
            Self::Q8_0 => raw
                .as_chunks::<34>()
                .0
                .iter()
                .flat_map(|b| b[2..].iter().map(move |&q| half(b) * f32::from(q.cast_signed())))
                .collect(),
            Self::Q4_0 => {
                let value = |b: &[u8], q: u8| half(b) * (f32::from(q) - 8.0);
                raw.as_chunks::<18>()
                    .0
                    .iter()
                    .flat_map(|b| nibbles(&b[2..]).map(move |q| value(b, q)))
                    .collect()
            }
            Self::Q4_1 => {
                let value = |b: &[u8], q: u8| half(b) * f32::from(q) + half(&b[2..]);
                raw.as_chunks::<20>()
                    .0
                    .iter()
                    .flat_map(|b| nibbles(&b[4..]).map(move |q| value(b, q)))
                    .collect()
            }
        })
    }
}

/// The low halves of 16 bytes, then the high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(half >> 10 & 31);
    let mantissa = f32::from(half & 1023);
    sign * match exponent {
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
    fn half_precision_values() {
        let known = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7bff, 65504.0),
        ];
        for (bits, value) in known {
            assert_eq!(half_to_f32(bits), value);
        }
        assert!(half_to_f32(0x7e00).is_nan());
        assert_eq!(Dtype::Bf16.floats(&[0x80, 0x3f, 0x20, 0xc1]), Some(vec![1.0, -10.0]));
        assert_eq!(Dtype::F64.floats(&2.5f64.to_le_bytes()), Some(vec![2.5]));
    }

    /// Blocks made by hand: the order of the halves of a byte is where readers go wrong.
    #[test]
    fn quantised_blocks() {
        let step = 0x3800u16.to_le_bytes(); // 0.5
        let minimum = 0xc000u16.to_le_bytes(); // -2
        // Byte i holds i in its low half and 15 - i in its high half.
        let halves: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let numbers: Vec<f32> = (0..16u8).chain((0..16).rev()).map(f32::from).collect();
        let four = [&step[..], &halves].concat();
        assert_eq!(Dtype::Q4_0.floats(&four), Some(numbers.iter().map(|q| 0.5 * (q - 8.0)).collect()));
        let offset = [&step[..], &minimum, &halves].concat();
        assert_eq!(Dtype::Q4_1.floats(&offset), Some(numbers.iter().map(|q| 0.5 * q - 2.0).collect()));
        let signed: Vec<i8> = (0..32).map(|i| 4 * i - 64).collect();
        let eight: Vec<u8> = step.into_iter().chain(signed.iter().map(|q| q.cast_unsigned())).collect();
        let two = [&eight[..], &eight].concat();
        let want: Vec<f32> = signed.iter().chain(&signed).map(|&q| 0.5 * f32::from(q)).collect();
        assert_eq!(Dtype::Q8_0.floats(&two), Some(want));
        assert_eq!(Dtype::Q4_0.bytes(64, 32), Some(36));
        assert_eq!(Dtype::Q4_0.bytes(64, 16), None, "a block within a row only");
        assert_eq!(Dtype::F32.bytes(u64::MAX / 2, 1), None);
    }
}
