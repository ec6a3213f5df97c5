//! `cipherlm experiment`: the measurements behind `cargo xtask experiment`, as CSV.

mod latency;
mod length;
mod softmax;

use crate::console::{out, say};
use crate::outputs::Outputs;
use anyhow::{Context, bail};
use cipherlm_files::{Access, Existing, create_folder, shown};
use clap::Args;
use std::path::PathBuf;

/// Experiments that train.
const TRAINED: [&str; 5] = ["stability", "twins", "shifts", "ready", "polarity"];

#[derive(Args)]
#[cfg_attr(
    not(feature = "train"),
    allow(dead_code, reason = "this build parses the options and cannot train")
)]
pub(crate) struct Options {
    /// `latency` or `length`; with the feature `train` also `stability`, `twins`, `shifts`, `ready`
    /// or `polarity`.
    name: String,
    /// A few points only.
    #[arg(long, conflicts_with_all = ["report", "only"])]
    quick: bool,
    /// Of an experiment that trains: only tables and charts, from the CSV that is there.
    #[arg(long, conflicts_with = "only")]
    report: bool,
    /// Of an experiment that trains: only cells whose name in the CSV begins so.
    #[arg(long, value_name = "START")]
    only: Option<String>,
    /// Folder for the CSV.
    #[arg(long, default_value = "target/experiments", value_name = "DIR")]
    out: PathBuf,
}

/// Runs the named experiment and writes `<name>.csv` into the output folder.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let experiment = match options.name.as_str() {
        "latency" => latency::run,
        "length" => length::run,
        name if TRAINED.contains(&name) => return trained(options),
        "division" => bail!("`division` is run by `cargo xtask experiment division`"),
        name => {
            bail!("there is no experiment `{name}`: choose latency, length or one of {}", TRAINED.join(", "))
        }
    };
    if options.report || options.only.is_some() {
        bail!("--report and --only go with the experiments that train: {}", TRAINED.join(", "));
    }
    let mut outputs = Outputs::default();
    outputs.folder("--out", &options.out, Existing::Replace)?;
    create_folder(&options.out).context("--out")?;
    let file = outputs.file("--out", &options.out.join(format!("{}.csv", options.name)), true)?;
    let csv = experiment(options.quick)?;
    if let Err(error) = file.write(csv.as_bytes(), Access::Everyone) {
        // What took hours to measure is not lost with the disk.
        out(&csv);
        return Err(error);
    }
    say!("wrote {}", shown(file.path()));
    Ok(true)
}

/// Without the feature there is nothing to train with; the message says how to get it.
#[cfg(not(feature = "train"))]
fn trained(options: &Options) -> anyhow::Result<bool> {
    let name = &options.name;
    bail!("this build cannot train: use `cargo xtask experiment {name}`, or build with `--features train`")
}

/// An experiment that trains: a line a cell, CSV, charts and words in the output folder.
#[cfg(feature = "train")]
fn trained(options: &Options) -> anyhow::Result<bool> {
    use crate::console::err;
    use cipherlm_train::experiment::{Extent, polarity, ready, shifts, stability, twins};
    let extent = match &options.only {
        Some(start) => Extent::Only(start.clone()),
        None if options.report => Extent::Report,
        None if options.quick => Extent::Quick,
        None => Extent::Whole,
    };
    create_folder(&options.out).context("--out")?;
    match options.name.as_str() {
        "stability" => stability(extent, &options.out, err)?,
        "twins" => twins(extent, &options.out, err)?,
        "shifts" => shifts(extent, &options.out, err)?,
        "ready" => ready(extent, &options.out, err)?,
        _ => polarity(extent, &options.out, err)?,
    }
    say!("wrote {}", shown(&options.out));
    Ok(true)
}
