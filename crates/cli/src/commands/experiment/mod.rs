//! `experiment`: the measurements behind `cargo xtask experiment`, as CSV.

mod latency;
mod length;
mod softmax;

use crate::flags;
use anyhow::{Context, bail};

/// Runs the named experiment and writes `<name>.csv` into the output folder.
pub(crate) fn run(args: &flags::Experiment) -> anyhow::Result<bool> {
    let csv = match args.name.as_str() {
        "latency" => latency::run(args.quick)?,
        "length" => length::run(args.quick)?,
        other => bail!("this program has no experiment `{other}`: choose latency or length"),
    };
    std::fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let file = args.out.join(format!("{}.csv", args.name));
    std::fs::write(&file, csv).with_context(|| format!("writing {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(true)
}
