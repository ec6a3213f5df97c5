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

/// Experiments of other programs.
const ELSEWHERE: [&str; 4] = ["stability", "twins", "shifts", "division"];

#[derive(Args)]
pub(crate) struct Options {
    /// `latency` or `length`.
    name: String,
    /// A few points only.
    #[arg(long)]
    quick: bool,
    /// Folder for the CSV.
    #[arg(long, default_value = "target/experiments", value_name = "DIR")]
    out: PathBuf,
}

/// Runs the named experiment and writes `<name>.csv` into the output folder.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let experiment = match options.name.as_str() {
        "latency" => latency::run,
        "length" => length::run,
        name if ELSEWHERE.contains(&name) => bail!("`{name}` is run by `cargo xtask experiment {name}`"),
        name => bail!("there is no experiment `{name}`: choose latency or length"),
    };
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
