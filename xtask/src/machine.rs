//! Names the machine in everything that reports a time.

use std::fs;

/// One line: processor, vector extensions that matter here, cores, memory.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split(':').nth(1))
            .unwrap_or("?")
            .trim()
            .to_string()
    };
    let flags = field("flags");
    let has = |f: &str| flags.split_whitespace().any(|x| x == f);
    let simd: Vec<&str> = [("avx2", "AVX2"), ("fma", "FMA"), ("avx512ifma", "AVX-512 IFMA")]
        .into_iter()
        .filter(|(flag, _)| has(flag))
        .map(|(_, name)| name)
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or_else(|| "?".into(), |kib| format!("{:.0} GiB", kib as f64 / 1048576.0));
    let forced = std::env::var("CIPHERLM_KERNEL")
        .map_or_else(|_| String::new(), |name| format!(", kernel {name} forced"));
    format!(
        "{} (family {}, model {}), {}{forced}, {cores} cores, {memory}",
        field("model name"),
        field("cpu family"),
        field("model"),
        if simd.is_empty() { "no SIMD path".into() } else { simd.join(" + ") }
    )
}
