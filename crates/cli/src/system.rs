//! What the operating system knows: memory, disk, processor.

use std::path::Path;

/// Worker threads of this process.
pub(crate) fn threads() -> usize {
    cipherlm_ckks::ring::par::threads()
}

pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes that can be taken without swapping, where the system tells.
pub(crate) fn available_memory() -> Option<u64> {
    status_kib("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024)
}

/// The most memory this process has held.
pub(crate) fn peak_memory() -> u64 {
    status_kib("/proc/self/status", "VmHWM:").unwrap_or(0) * 1024
}

/// Memory this process holds now.
pub(crate) fn current_memory() -> u64 {
    status_kib("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024
}

/// Bytes free for files below `path`, or below the closest folder above it that exists.
pub(crate) fn free_disk(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|p| p.exists())?;
    let facts = rustix::fs::statvfs(there).ok()?;
    Some(facts.f_bavail * facts.f_frsize)
}

/// Processes that want to run, on average over the last minute.
pub(crate) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// All memory of the machine.
pub(crate) fn total_memory() -> Option<u64> {
    status_kib("/proc/meminfo", "MemTotal:").map(|kib| kib * 1024)
}

/// Whether large allocations may have huge pages: `always`, `madvise` or `never`.
pub(crate) fn huge_pages() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    Some(text.split('[').nth(1)?.split(']').next()?.to_owned())
}

/// Processor name, for reports.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name| text.lines().find_map(|l| Some(l.strip_prefix(name)?.split(':').nth(1)?.trim().to_string()));
    let name = field("model name").unwrap_or_else(|| "unknown processor".into());
    match (field("cpu family"), field("model\t")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}

/// Processor and threads, for everything that is timed in the clear.
pub(crate) fn machine() -> String {
    format!("{}, {} threads", processor(), rayon::current_num_threads())
}

fn status_kib(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
}
