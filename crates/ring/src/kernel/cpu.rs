//! What the running CPU can do.

/// Whether fused multiply-adds on floats are instructions.
pub(super) fn fused_multiply_add() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(any(target_arch = "aarch64", target_feature = "fma"));
}

/// Whether the kernel on four lanes runs.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && fused_multiply_add()
}

/// Whether the kernel on eight lanes runs.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512() -> bool {
    avx2()
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

/// Whether the kernel on 52-bit integers runs: instructions that multiply (IFMA) and that unpack
/// (VBMI).
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512ifma() -> bool {
    avx512()
        && std::arch::is_x86_feature_detected!("avx512ifma")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vbmi")
}
