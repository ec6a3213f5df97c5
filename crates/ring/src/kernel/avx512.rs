//! Eight lanes: AVX-512 F and DQ.

use std::arch::x86_64::*;

use super::simd::Lanes;

/// Eight residues.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512d);

/// Eight places. Automorphisms map aligned blocks of 16 slots to such blocks: two loads and a
/// permutation are a fraction of what the gather instruction costs.
#[derive(Clone, Copy)]
pub(super) struct Places {
    index: __m256i,
    /// Places relative to the block.
    lanes: __m512i,
    /// Start of the one block of 16 that all eight places lie in.
    block: Option<usize>,
}

/// Lane-wise operations in terms of intrinsics.
macro_rules! intrinsics {
    ($( fn $name:ident($self:ident $(, $arg:ident)*) = $body:expr; )*) => {
        $(
            #[inline(always)]
            fn $name($self $(, $arg: Self)*) -> Self {
                // SAFETY: a value exists, so a constructor's caller has promised AVX-512 F and DQ.
                Self(unsafe { $body })
            }
        )*
    };
}

impl Lanes for Avx512 {
    const LANES: usize = 8;
    type Quad = super::avx2::Avx2;
    type Places = Places;
    type Fields = <Self::Quad as Lanes>::Fields;

    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_set1_pd(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_pd(p) })
    }

    #[inline(always)]
    unsafe fn places(index: *const u32, len: usize) -> Places {
        // SAFETY: the caller's promise.
        unsafe {
            let block = *index as usize & !15;
            let index = _mm256_loadu_si256(index.cast());
            let lanes = _mm512_xor_si512(_mm512_cvtepu32_epi64(index), _mm512_set1_epi64(block as i64));
            let near = _mm512_cmplt_epu64_mask(lanes, _mm512_set1_epi64(16)) == 0xff && block + 16 <= len;
            Places { index, lanes, block: near.then_some(block) }
        }
    }

    #[inline(always)]
    unsafe fn gather(p: *const f64, places: Places) -> Self {
        // SAFETY: the caller's promise; a block lies inside the source, and `check_index` keeps
        // indices below 2^31, as the instruction reads them with a sign.
        unsafe {
            Self(match places.block {
                Some(block) => {
                    let (low, high) = (_mm512_loadu_pd(p.add(block)), _mm512_loadu_pd(p.add(block + 8)));
                    _mm512_permutex2var_pd(low, places.lanes, high)
                }
                None => _mm512_i32gather_pd::<8>(places.index, p),
            })
        }
    }

    #[inline(always)]
    unsafe fn fields(bits: u32) -> Self::Fields {
        // SAFETY: the caller's promise; AVX2 is among the features of this kernel.
        unsafe { Self::Quad::fields(bits) }
    }

    #[inline(always)]
    unsafe fn unpack(p: *const u8, _part: usize, fields: &Self::Fields) -> Self {
        // SAFETY: as above.
        unsafe {
            let (low, high) = (Self::Quad::unpack(p, 0, fields), Self::Quad::unpack(p, 1, fields));
            Self(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low.0), high.0))
        }
    }

    #[inline(always)]
    unsafe fn load4(p: *const f64, stride: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm512_castpd256_pd512(_mm256_loadu_pd(p));
            Self(_mm512_insertf64x4::<1>(low, _mm256_loadu_pd(p.add(stride))))
        }
    }

    #[inline(always)]
    unsafe fn splat4(p: *const f64, stride: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_mask_broadcastsd_pd(_mm512_set1_pd(*p), 0xf0, _mm_load_sd(p.add(stride)))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f64) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_pd(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store4(self, p: *mut f64, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_pd(p, _mm512_castpd512_pd256(self.0));
            _mm256_storeu_pd(p.add(stride), _mm512_extractf64x4_pd::<1>(self.0));
        }
    }

    intrinsics! {
        fn add(self, b) = _mm512_add_pd(self.0, b.0);
        fn sub(self, b) = _mm512_sub_pd(self.0, b.0);
        fn mul(self, b) = _mm512_mul_pd(self.0, b.0);
        fn mul_add(self, b, c) = _mm512_fmadd_pd(self.0, b.0, c.0);
        fn mul_sub(self, b, c) = _mm512_fmsub_pd(self.0, b.0, c.0);
        fn neg_mul_add(self, b, c) = _mm512_fnmadd_pd(self.0, b.0, c.0);
        fn round(self) = _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
        // As unsigned integers, floats with a sign are above those without, which are in order.
        fn or_if_negative(self, other) =
            _mm512_castsi512_pd(_mm512_min_epu64(_mm512_castpd_si512(self.0), _mm512_castpd_si512(other.0)));
    }

    #[inline(always)]
    fn any_negative(self) -> bool {
        // SAFETY: a value exists, so a constructor's caller has promised AVX-512 F and DQ.
        unsafe { _mm512_movepi64_mask(_mm512_castpd_si512(self.0)) != 0 }
    }

    #[inline(always)]
    fn transpose4([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: values exist, so a constructor's caller has promised AVX-512 F.
        unsafe {
            let (e, f) = (_mm512_unpacklo_pd(a.0, b.0), _mm512_unpackhi_pd(a.0, b.0));
            let (g, h) = (_mm512_unpacklo_pd(c.0, d.0), _mm512_unpackhi_pd(c.0, d.0));
            // Within each half of eight lanes: the low, then the high 128 bits of both operands.
            let (low, high) =
                (_mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15));
            [
                Self(_mm512_permutex2var_pd(e, low, g)),
                Self(_mm512_permutex2var_pd(f, low, h)),
                Self(_mm512_permutex2var_pd(e, high, g)),
                Self(_mm512_permutex2var_pd(f, high, h)),
            ]
        }
    }
}

simd_kernel!("avx512", avx512, "avx512f,avx512dq,avx2,fma", Avx512);

pub(super) use compiled::KERNEL;
