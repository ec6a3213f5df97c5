//! Pairs of limbs in as many bits a residue as their prime has.
//!
//! Eight residues of the first limb and eight of the second make a group; groups follow each other.
//! The eight residues are fields of [`Modulus::bits`] bits, little-endian and without gaps, so that
//! they fill as many bytes as a field has bits, and a vector kernel finds eight residues at every
//! such step.

use crate::modulus::Modulus;

/// Residues of each limb in a group.
pub(crate) const GROUP: usize = 8;
/// Bytes after a group that vector kernels read, and that packing may clear.
pub(crate) const SLACK: usize = 64;

/// An integer below `2^52` is added to this float in its low bits.
const MAGIC: f64 = (1u64 << 52) as f64;

/// Bytes of a group of residues modulo `m`.
#[inline(always)]
pub(crate) fn group_bytes(m: &Modulus) -> usize {
    2 * m.bits() as usize
}

/// Packs two limbs, a multiple of [`GROUP`] residues long, into their groups; `out` has [`SLACK`]
/// bytes more.
pub(crate) fn pack_pair(m: &Modulus, pair: [&[f64]; 2], out: &mut [u8]) {
    let bits = m.bits() as usize;
    let [first, second] = pair.map(|limb| limb.as_chunks::<GROUP>().0);
    for (group, (a, b)) in first.iter().zip(second).enumerate() {
        for (half, values) in [a, b].into_iter().enumerate() {
            let out = &mut out[(2 * group + half) * bits..];
            // Each store carries the bits of the field before that share its first byte, and zeros
            // what follows it.
            let mut shared = 0;
            for (i, &value) in values.iter().enumerate() {
                let (at, shift) = (i * bits / 8, i * bits % 8);
                let word = shared | ((value + MAGIC).to_bits() ^ MAGIC.to_bits()) << shift;
                out[at..at + 8].copy_from_slice(&word.to_le_bytes());
                shared = word >> (8 * ((i + 1) * bits / 8 - at));
            }
        }
    }
}

/// The groups of two limbs; `packed` need not have more bytes than they take.
pub(crate) fn unpack_pair(m: &Modulus, packed: &[u8], pair: [&mut [f64]; 2]) {
    let bits = m.bits() as usize;
    let [first, second] = pair.map(|limb| limb.as_chunks_mut::<GROUP>().0);
    for ((group, a), b) in packed.chunks_exact(2 * bits).zip(first).zip(second) {
        *a = unpack_group(&group[..bits], bits);
        *b = unpack_group(&group[bits..], bits);
    }
}

#[inline(always)]
pub(super) fn unpack_group(packed: &[u8], bits: usize) -> [f64; GROUP] {
    std::array::from_fn(|i| {
        let mut word = [0; 8];
        let from = &packed[i * bits / 8..];
        let length = from.len().min(8);
        word[..length].copy_from_slice(&from[..length]);
        (u64::from_le_bytes(word) >> (i * bits % 8) & ((1 << bits) - 1)) as f64
    })
}

/// Residues that all operands have; keys have whole groups.
pub(super) fn common_length(m: &Modulus, accs: [&[f64]; 2], digits: &[&[f64]], keys: &[&[u8]]) -> usize {
    let keys = keys.iter().map(|key| key.len() / group_bytes(m) * GROUP);
    accs.iter().chain(digits).map(|x| x.len()).chain(keys).min().unwrap_or(0)
}

/// The reference for the inner product with packed keys, from a group on.
#[inline(always)]
pub(super) fn inner_product_from(
    m: &Modulus,
    [acc0, acc1]: [&mut [f64]; 2],
    digits: &[&[f64]],
    keys: &[&[u8]],
    group: usize,
) {
    let n = common_length(m, [acc0, acc1], digits, keys);
    let bits = m.bits() as usize;
    for start in (group * GROUP..n).step_by(GROUP) {
        let length = GROUP.min(n - start);
        let [out0, out1] = [&mut *acc0, &mut *acc1].map(|acc| &mut acc[start..start + length]);
        out0.fill(0.0);
        out1.fill(0.0);
        for (digit, key) in digits.iter().zip(keys) {
            let packed = &key[start / GROUP * 2 * bits..][..2 * bits];
            let (a, b) = (unpack_group(&packed[..bits], bits), unpack_group(&packed[bits..], bits));
            for (i, &x) in digit[start..start + length].iter().enumerate() {
                out0[i] = m.add_f64(out0[i], m.mul_f64(x, a[i]));
                out1[i] = m.add_f64(out1[i], m.mul_f64(x, b[i]));
            }
        }
    }
}
