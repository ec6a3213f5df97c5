//! The vector operations kernels are written in.

/// A vector of `f64` lanes.
///
/// Values come only from the `unsafe` constructors, whose callers promise that the CPU has the
/// instructions; having a value is the licence to compute with it. Multiply-adds round once. `*4`
/// operations see the vector as chunks of four lanes that lie `stride` elements apart in memory.
pub(in crate::kernel) trait Lanes: Copy {
    /// Number of lanes, a multiple of 4.
    const LANES: usize;
    /// The type with four lanes of the same or a smaller instruction set.
    type Quad: Lanes;
    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU supports the instructions of this type.
    unsafe fn splat(x: f64) -> Self;
    /// Consecutive elements from `p`, which needs no alignment.
    ///
    /// # Safety
    /// As [`Self::splat`], and `LANES` elements are readable at `p`.
    unsafe fn load(p: *const f64) -> Self;
    /// Indices decoded for [`Self::gather`]: once, for any number of sources.
    type Places: Copy;
    /// The places `index[0]`, `index[1]` … in sources of `len` elements.
    ///
    /// # Safety
    /// As [`Self::splat`], and `LANES` indices below `len` are readable at `index` for as long as
    /// the places are used.
    unsafe fn places(index: *const u32, len: usize) -> Self::Places;
    /// The elements of `p` at these places.
    ///
    /// # Safety
    /// As [`Self::splat`], and as many elements are readable at `p` as the places were decoded for.
    unsafe fn gather(p: *const f64, places: Self::Places) -> Self;
    /// Where the fields of eight packed residues lie, for [`Self::unpack`].
    type Fields: Copy;
    /// The fields of this many bits, at most 50.
    ///
    /// # Safety
    /// As [`Self::splat`].
    unsafe fn fields(bits: u32) -> Self::Fields;
    /// Of the eight residues packed at `p`, the `LANES` from `part * LANES` on.
    ///
    /// # Safety
    /// As [`Self::splat`], and 64 bytes are readable at `p`; `part < 8 / LANES`.
    unsafe fn unpack(p: *const u8, part: usize, fields: &Self::Fields) -> Self;
    /// Chunk `c` is the four elements from `p + c * stride`.
    ///
    /// # Safety
    /// As [`Self::load`] for these elements.
    unsafe fn load4(p: *const f64, stride: usize) -> Self;
    /// Chunk `c` is four copies of the element at `p + c * stride`.
    ///
    /// # Safety
    /// As [`Self::load`] for these elements.
    unsafe fn splat4(p: *const f64, stride: usize) -> Self;
    /// Writes consecutive elements to `p`, which needs no alignment.
    ///
    /// # Safety
    /// `LANES` elements are writable at `p`.
    unsafe fn store(self, p: *mut f64);
    /// Writes chunk `c` to the four elements from `p + c * stride`.
    ///
    /// # Safety
    /// These elements are writable.
    unsafe fn store4(self, p: *mut f64, stride: usize);
    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self * b`.
    fn mul(self, b: Self) -> Self;
    /// `self * b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self * b - c`.
    fn mul_sub(self, b: Self, c: Self) -> Self;
    /// `c - self * b`.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;
    /// To the nearest integer.
    fn round(self) -> Self;
    /// `self`, or `other` where the sign bit of `self` is set. Where neither has it, `other` is not
    /// below `self`.
    fn or_if_negative(self, other: Self) -> Self;
    /// Whether any sign bit is set.
    fn any_negative(self) -> bool;
    /// Transposes the 4 x 4 matrix in each chunk of the four rows.
    fn transpose4(rows: [Self; 4]) -> [Self; 4];
}
