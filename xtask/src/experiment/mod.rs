//! `cargo xtask experiment`: each writes a CSV, a plot and a paragraph.

mod division;
mod latency;
mod length;
mod table;

use crate::flags::Experiment;
use anyhow::bail;
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// Runs the named experiment.
pub(crate) fn run(sh: &Shell, flags: &Experiment) -> anyhow::Result<()> {
    let out = std::path::absolute(flags.out.clone().unwrap_or_else(|| PathBuf::from("target/experiments")))?;
    sh.create_dir(&out)?;
    let quick = flags.quick.then_some("--quick");
    match flags.name.as_str() {
        name @ ("stability" | "twins" | "shifts" | "ready" | "polarity") => {
            let whole = crate::build::WHOLE;
            cmd!(
                sh,
                "cargo run --quiet {whole...} --bin cipherlm -- experiment {name} --out {out} {quick...}"
            )
            .run()?;
        }
        "division" => division::run(flags.quick, &out, flags.rows.as_deref())?,
        "latency" | "length" => {
            let name = &flags.name;
            let program = crate::build::cipherlm(sh)?;
            cmd!(sh, "{program} experiment {name} --out {out} {quick...}").run()?;
            if name == "latency" { latency::draw(&out)? } else { length::draw(&out)? }
        }
        other => {
            bail!(
                "no experiment is called `{other}`: choose stability, twins, shifts, ready, polarity, \
                 division, latency or length"
            )
        }
    }
    Ok(())
}
