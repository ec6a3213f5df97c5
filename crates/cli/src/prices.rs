//! What primitives cost on this machine: measured once, kept in the user's cache folder.

use crate::console::{err, warn};
use crate::system::{load, processor, threads};
use anyhow::Context;
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_files::{create_folder, shown};
use cipherlm_infer::CostModel;
use clap::Args;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where the planner's prices come from.
#[derive(Args, Default)]
pub(crate) struct PricesOption {
    /// Prices of primitives: a table in a file, `builtin` for that of this version and kernel, or
    /// `measure` to take them again. Without it they are measured once for this CPU, kernel and
    /// number of threads (some seconds) and kept in the user's cache folder.
    #[arg(long, value_name = "FILE|builtin|measure")]
    prices: Option<PathBuf>,
}

/// Names a choice for all commands that are given none.
const VARIABLE: &str = "CIPHERLM_PRICES";

impl PricesOption {
    /// The table for a run with the given profile: small rings protect nothing and are never worth
    /// a measurement.
    pub(crate) fn table(&self, insecure: bool) -> anyhow::Result<CostModel> {
        let variable = std::env::var_os(VARIABLE).map(PathBuf::from);
        let (chosen, from) = match (&self.prices, &variable) {
            (Some(chosen), _) => (Some(chosen.as_path()), "--prices"),
            (None, chosen) => (chosen.as_deref(), VARIABLE),
        };
        match chosen.map(|path| (path, path.as_os_str())) {
            Some((_, name)) if name == OsStr::new("builtin") => builtin(),
            Some((_, name)) if name == OsStr::new("measure") => measure(kept_at()?.as_deref()),
            Some((path, _)) => CostModel::load(path).context(from),
            None if insecure => builtin(),
            None => kept_or_measured(),
        }
    }
}

fn builtin() -> anyhow::Result<CostModel> {
    Ok(CostModel::builtin(kernel()?))
}

/// The kernel that runs.
pub(crate) fn kernel() -> anyhow::Result<&'static str> {
    Ok(cipherlm_ckks::ring::kernel::Kernel::chosen()?.name)
}

/// The table that is kept for this CPU, kernel, number of threads and version, if there is one.
pub(crate) fn kept() -> anyhow::Result<Option<(PathBuf, CostModel)>> {
    let Some(path) = kept_at()?.filter(|path| path.exists()) else { return Ok(None) };
    // A file that is damaged or of another version is no reason to refuse a run.
    let table = CostModel::load(&path).ok();
    let own = table.filter(|t| t.kernel == kernel().unwrap_or_default() && t.threads == threads());
    Ok(own.map(|table| (path, table)))
}

fn kept_or_measured() -> anyhow::Result<CostModel> {
    match kept()? {
        Some((_, table)) => Ok(table),
        None => measure(kept_at()?.as_deref()),
    }
}

/// The place of the table; none without a cache folder.
fn kept_at() -> anyhow::Result<Option<PathBuf>> {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let Some(folder) = folder.or_else(home).filter(|path| path.is_absolute()) else { return Ok(None) };
    let known = format!("{} {} {}", processor(), kernel()?, threads());
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = known.chars().map(plain).take(120).collect();
    let name = format!("prices-{}-{name}.json", env!("CARGO_PKG_VERSION"));
    Ok(Some(folder.join("cipherlm").join(name)))
}

fn measure(keep: Option<&Path>) -> anyhow::Result<CostModel> {
    let clock = Instant::now();
    err("measuring what operations cost on this machine, once ...");
    let params = Profile::n16().params()?;
    let table = CostModel::measure(&params, &processor()).context("measuring prices")?;
    let busy = load().filter(|load| *load > threads() as f64 + 0.5);
    if let Some(load) = busy {
        warn(&format!(
            "other programs run here (load {load:.1}), so the prices may be too high: \
             `cipherlm plan --prices measure` takes them again"
        ));
    }
    let seconds = clock.elapsed().as_secs_f64();
    let Some(path) = keep else {
        err(&format!("measured in {seconds:.1} s"));
        return Ok(table);
    };
    // A cache that cannot be written costs a measurement the next time, not the run.
    let saved = path.parent().map_or(Ok(()), create_folder);
    match saved.map_err(anyhow::Error::from).and_then(|()| Ok(table.save(path)?)) {
        Ok(()) => err(&format!("measured in {seconds:.1} s, kept in {}", shown(path))),
        Err(error) => warn(&format!("the prices could not be kept: {error}")),
    }
    Ok(table)
}
