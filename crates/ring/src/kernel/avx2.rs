//! Four lanes: AVX2 and FMA.

use std::arch::x86_64::*;

use super::simd::Lanes;

/// Four residues.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256d);

/// Lane-wise operations in terms of intrinsics.
macro_rules! intrinsics {
    ($( fn $name:ident($self:ident $(, $arg:ident)*) = $body:expr; )*) => {
        $(
            #[inline(always)]
            fn $name($self $(, $arg: Self)*) -> Self {
                // SAFETY: a value exists, so a constructor's caller has promised AVX2 and FMA.
                Self(unsafe { $body })
            }
        )*
    };
}

impl Lanes for Avx2 {
    const LANES: usize = 4;
    type Quad = Avx2;
    type Places = *const u32;

    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_set1_pd(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_loadu_pd(p) })
    }

    #[inline(always)]
    unsafe fn places(index: *const u32, _len: usize) -> *const u32 {
        index
    }

    #[inline(always)]
    unsafe fn gather(p: *const f64, index: *const u32) -> Self {
        // SAFETY: the caller's promise. Four scalar loads beat the gather instruction on the CPUs at hand.
        unsafe {
            let at = |lane| *p.add(*index.add(lane) as usize);
            Self(_mm256_setr_pd(at(0), at(1), at(2), at(3)))
        }
    }

    #[inline(always)]
    unsafe fn load4(p: *const f64, _stride: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load(p) }
    }

    #[inline(always)]
    unsafe fn splat4(p: *const f64, _stride: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::splat(*p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f64) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_pd(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store4(self, p: *mut f64, _stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.store(p) }
    }

    intrinsics! {
        fn add(self, b) = _mm256_add_pd(self.0, b.0);
        fn sub(self, b) = _mm256_sub_pd(self.0, b.0);
        fn mul(self, b) = _mm256_mul_pd(self.0, b.0);
        fn mul_add(self, b, c) = _mm256_fmadd_pd(self.0, b.0, c.0);
        fn mul_sub(self, b, c) = _mm256_fmsub_pd(self.0, b.0, c.0);
        fn neg_mul_add(self, b, c) = _mm256_fnmadd_pd(self.0, b.0, c.0);
        fn round(self) = _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
        fn or_if_negative(self, other) = _mm256_blendv_pd(self.0, other.0, self.0);
    }

    #[inline(always)]
    fn any_negative(self) -> bool {
        // SAFETY: a value exists, so a constructor's caller has promised AVX2.
        unsafe { _mm256_movemask_pd(self.0) != 0 }
    }

    #[inline(always)]
    fn transpose4([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: values exist, so a constructor's caller has promised AVX2.
        unsafe {
            let (e, f) = (_mm256_unpacklo_pd(a.0, b.0), _mm256_unpackhi_pd(a.0, b.0));
            let (g, h) = (_mm256_unpacklo_pd(c.0, d.0), _mm256_unpackhi_pd(c.0, d.0));
            [
                Self(_mm256_permute2f128_pd::<0x20>(e, g)),
                Self(_mm256_permute2f128_pd::<0x20>(f, h)),
                Self(_mm256_permute2f128_pd::<0x31>(e, g)),
                Self(_mm256_permute2f128_pd::<0x31>(f, h)),
            ]
        }
    }
}

simd_kernel!("avx2", ["avx2", "fma"], "avx2,fma", Avx2);
