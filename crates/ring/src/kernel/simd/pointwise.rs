//! Slot-by-slot operations.

use super::super::extend::centred;
use super::{Field, Lanes};
use crate::modulus::Modulus;

/// `dst[j] = body(src_0[j], …)` for `j` in `0..n`: in whole vectors, then the rest padded with
/// zeros.
macro_rules! each {
    ($n:expr, $dst:expr, |$($x:ident = $src:ident),*| $body:expr) => {{
        let (n, dst) = ($n, $dst);
        let whole = n - n % V::LANES;
        for j in (0..whole).step_by(V::LANES) {
            $(let $x = V::load($src.add(j));)*
            let result: V = $body;
            result.store(dst.add(j));
        }
        if whole < n {
            $(let $x = load_part::<V>($src.add(whole), n - whole);)*
            let result: V = $body;
            store_part(result, dst.add(whole), n - whole);
        }
    }};
}

#[inline(always)]
unsafe fn load_part<V: Lanes>(p: *const f64, count: usize) -> V {
    let mut buffer = [0.0; 8];
    debug_assert!(count <= buffer.len());
    // SAFETY: the caller promises `count < V::LANES <= 8` elements at `p`.
    unsafe {
        std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), count);
        V::load(buffer.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_part<V: Lanes>(v: V, p: *mut f64, count: usize) {
    let mut buffer = [0.0; 8];
    // SAFETY: the caller promises `count < V::LANES <= 8` elements at `p`.
    unsafe {
        v.store(buffer.as_mut_ptr());
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, count);
    }
}

/// A constant factor, centred, and its quotient by the modulus.
#[inline(always)]
unsafe fn factor<V: Lanes>(m: &Modulus, w: f64) -> (V, V) {
    let w = centred(m, w);
    // SAFETY: the caller's promise that the CPU supports `V`.
    unsafe { (V::splat(w), V::splat(w / m.float())) }
}

/// # Safety
/// The CPU must support the instructions of `V`; so for all functions below.
#[inline(always)]
pub(in crate::kernel) unsafe fn add<V: Lanes>(m: &Modulus, a: &mut [f64], b: &[f64]) {
    let (n, a, b) = (a.len().min(b.len()), a.as_mut_ptr(), b.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, a, |x = a, y = b| f.wrap(x.add(y)));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn sub<V: Lanes>(m: &Modulus, a: &mut [f64], b: &[f64]) {
    let (n, a, b) = (a.len().min(b.len()), a.as_mut_ptr(), b.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, a, |x = a, y = b| f.lift(x.sub(y)));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn neg<V: Lanes>(m: &Modulus, a: &mut [f64]) {
    let (n, a) = (a.len(), a.as_mut_ptr());
    // SAFETY: `n` elements at `a`.
    unsafe {
        let (f, zero) = (Field::<V>::new(m), V::splat(0.0));
        each!(n, a, |x = a| f.lift(zero.sub(x)));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn mul<V: Lanes>(m: &Modulus, a: &mut [f64], b: &[f64]) {
    let (n, a, b) = (a.len().min(b.len()), a.as_mut_ptr(), b.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, a, |x = a, y = b| f.lift(f.mul(x, y)));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn mul_to<V: Lanes>(m: &Modulus, dst: &mut [f64], a: &[f64], b: &[f64]) {
    let n = dst.len().min(a.len()).min(b.len());
    let (dst, a, b) = (dst.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, dst, |x = a, y = b| f.lift(f.mul(x, y)));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn mul_add<V: Lanes>(m: &Modulus, acc: &mut [f64], a: &[f64], b: &[f64]) {
    let n = acc.len().min(a.len()).min(b.len());
    let (acc, a, b) = (acc.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, acc, |z = acc, x = a, y = b| f.wrap(f.lift(f.mul(x, y).add(z))));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn mul_scalar<V: Lanes>(m: &Modulus, a: &mut [f64], w: f64) {
    let (n, a) = (a.len(), a.as_mut_ptr());
    // SAFETY: `n` elements at `a`.
    unsafe {
        let (f, (w, w_over_q)) = (Field::<V>::new(m), factor::<V>(m, w));
        each!(n, a, |x = a| f.lift(f.mul_known([x], [w], [w_over_q])[0]));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn mul_scalar_add<V: Lanes>(m: &Modulus, acc: &mut [f64], a: &[f64], w: f64) {
    let (n, acc, a) = (acc.len().min(a.len()), acc.as_mut_ptr(), a.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let (f, (w, w_over_q)) = (Field::<V>::new(m), factor::<V>(m, w));
        each!(n, acc, |z = acc, x = a| f.wrap(f.lift(f.mul_known([x], [w], [w_over_q])[0].add(z))));
    }
}

#[inline(always)]
pub(in crate::kernel) unsafe fn rsub_mul_scalar<V: Lanes>(m: &Modulus, dst: &mut [f64], a: &[f64], w: f64) {
    let (n, dst, a) = (dst.len().min(a.len()), dst.as_mut_ptr(), a.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let (f, (w, w_over_q)) = (Field::<V>::new(m), factor::<V>(m, w));
        each!(n, dst, |x = a, d = dst| f.lift(f.mul_known([x.sub(d)], [w], [w_over_q])[0]));
    }
}

/// Two rounds, as the first quotient may be off by a few units when the input is far above `2^53`.
#[inline(always)]
pub(in crate::kernel) unsafe fn reduce<V: Lanes>(m: &Modulus, dst: &mut [f64], src: &[f64]) {
    let (n, dst, src) = (dst.len().min(src.len()), dst.as_mut_ptr(), src.as_ptr());
    // SAFETY: `n` elements at each pointer.
    unsafe {
        let f = Field::<V>::new(m);
        each!(n, dst, |x = src| f.canonical(f.centre(x)));
    }
}

/// Panics, as indexing would, if an index is not below `len`. Gathers read indices with a sign, so
/// `len` ends at `2^31`.
#[inline(always)]
pub(in crate::kernel) fn check_index(index: &[u32], len: usize) {
    assert!(len <= 1 << 31, "{len} residues: indices of a permutation reach 2^31");
    let max = index.iter().copied().max().unwrap_or(0);
    assert!(index.is_empty() || (max as usize) < len, "index {max} into {len} residues");
}

#[inline(always)]
pub(in crate::kernel) unsafe fn permute<V: Lanes>(dst: &mut [f64], src: &[f64], index: &[u32]) {
    let n = dst.len().min(index.len());
    check_index(&index[..n], src.len());
    let whole = n - n % V::LANES;
    // SAFETY: `n` elements at each pointer, and all indices fall inside `src`.
    unsafe {
        for j in (0..whole).step_by(V::LANES) {
            let places = V::places(index.as_ptr().add(j), src.len());
            V::gather(src.as_ptr(), places).store(dst.as_mut_ptr().add(j));
        }
    }
    for j in whole..n {
        dst[j] = src[index[j] as usize];
    }
}
