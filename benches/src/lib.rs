//! Shared parameter sets for the criterion targets.

pub mod forward;

/// `len` residues modulo `q` without structure.
pub fn scattered(len: usize, q: u64) -> Vec<f64> {
    (1..=len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % q) as f64).collect()
}

/// `len` values from the first cache-line boundary of a buffer that has room for it: how the
/// library lays out limbs.
pub fn aligned(buffer: &mut [f64], len: usize) -> &mut [f64] {
    let start = buffer.as_ptr().align_offset(64);
    &mut buffer[start..start + len]
}

/// Prints the line by which `cargo xtask bench` learns a benchmark's parameters.
pub fn metrics(id: &str, params: &str) {
    println!("METRICS {{\"id\":\"{id}\",\"params\":\"{params}\"}}");
}

/// Most memory that this process has held so far; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The blocks of the tutorial, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tutorials/encrypt-your-first-vector.md")]
pub struct Tutorial;
