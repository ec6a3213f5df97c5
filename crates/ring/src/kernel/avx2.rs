//! Four lanes: AVX2 and FMA.

use std::arch::x86_64::*;

use super::simd::Lanes;

/// Four residues.
#[derive(Clone, Copy)]
pub(super) struct Avx2(pub(super) __m256d);

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

/// Where four of eight packed residues lie: their bytes from `start` on, brought near by words,
/// then in place by bytes.
#[derive(Clone, Copy)]
struct Half {
    start: usize,
    words: __m256i,
    places: __m256i,
    shift: __m256i,
}

/// The fields of eight packed residues.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    halves: [Half; 2],
    mask: __m256i,
    /// An integer below `2^52` in the low bits of this float is added to it.
    magic: __m256d,
}

impl Half {
    /// The residues from `4 * part` on.
    ///
    /// # Safety
    /// The CPU supports AVX2.
    #[inline(always)]
    unsafe fn new(bits: usize, part: usize) -> Self {
        let start = 4 * part * bits / 8;
        let byte = |lane: usize| (4 * part + lane) * bits / 8 - start;
        // Four words for each pair of residues.
        let word = |pair: usize| byte(2 * pair) / 4;
        let words: [u32; 8] = std::array::from_fn(|i| (word(i / 4) + i % 4) as u32);
        // What lies beyond the words of a pair belongs to other residues.
        let place = |i: usize| byte(i / 8) - 4 * word(i / 16) + i % 8;
        let places: [u8; 32] = std::array::from_fn(|i| if place(i) < 16 { place(i) as u8 } else { 0x80 });
        let shift: [u64; 4] = std::array::from_fn(|lane| ((4 * part + lane) * bits % 8) as u64);
        // SAFETY: the arrays are as long as a vector.
        unsafe {
            Self {
                start,
                words: _mm256_loadu_si256(words.as_ptr().cast()),
                places: _mm256_loadu_si256(places.as_ptr().cast()),
                shift: _mm256_loadu_si256(shift.as_ptr().cast()),
            }
        }
    }
}

impl Lanes for Avx2 {
    const LANES: usize = 4;
    type Quad = Avx2;
    type Places = *const u32;
    type Fields = Fields;

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
        // SAFETY: the caller's promise. Four scalar loads beat the gather instruction on the CPUs
        // at hand.
        unsafe {
            let at = |lane| *p.add(*index.add(lane) as usize);
            Self(_mm256_setr_pd(at(0), at(1), at(2), at(3)))
        }
    }

    #[inline(always)]
    unsafe fn fields(bits: u32) -> Fields {
        // One register instead of a constant in memory at every use.
        let magic = std::hint::black_box((1u64 << 52) as f64);
        // SAFETY: the caller's promise.
        unsafe {
            let halves = [Half::new(bits as usize, 0), Half::new(bits as usize, 1)];
            Fields { halves, mask: _mm256_set1_epi64x((1 << bits) - 1), magic: _mm256_set1_pd(magic) }
        }
    }

    #[inline(always)]
    unsafe fn unpack(p: *const u8, part: usize, fields: &Fields) -> Self {
        // SAFETY: the caller's promise: four residues start within 25 bytes, and 32 are read.
        unsafe {
            let half = &fields.halves[part];
            let words = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(p.add(half.start).cast()), half.words);
            let fields64 = _mm256_srlv_epi64(_mm256_shuffle_epi8(words, half.places), half.shift);
            let values = _mm256_and_si256(fields64, fields.mask);
            Self(_mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(values), fields.magic), fields.magic))
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

simd_kernel!("avx2", avx2, "avx2,fma", Avx2);
