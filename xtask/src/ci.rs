//! `cargo xtask ci`: everything a change must pass, in the order that fails fastest.

use std::time::Instant;
use xshell::{Shell, cmd};

/// Formatting, house rules, lints, tests, documentation and a smoke run of every benchmark body.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut timings: Vec<(&str, f64)> = Vec::new();
    let mut step = |name: &'static str, body: &dyn Fn() -> anyhow::Result<()>| -> anyhow::Result<()> {
        println!("\n=== {name}");
        let begin = Instant::now();
        body()?;
        timings.push((name, begin.elapsed().as_secs_f64()));
        Ok(())
    };
    step("format", &|| Ok(cmd!(sh, "cargo fmt --all -- --check").run()?))?;
    step("tidy", &|| crate::tidy::run(sh))?;
    step("deny", &|| deny(sh))?;
    step("clippy", &|| clippy(sh))?;
    step("documentation", &|| {
        let _env = sh.push_env("RUSTDOCFLAGS", "-D warnings");
        Ok(cmd!(sh, "cargo doc --locked --no-deps").run()?)
    })?;
    step("benchmark bodies", &|| {
        // Not `bootstrap`: its keys are made at full size, minutes and gigabytes for no new coverage beside its tests.
        let groups = ["approx", "evaluator", "keyswitch", "linear", "ntt", "ring"];
        let args = groups.iter().flat_map(|group| ["--bench", group]);
        Ok(cmd!(sh, "cargo bench --locked --profile dev -p cipherlm-benches {args...} -- --test")
            .ignore_stdout()
            .run()?)
    })?;
    step("tests", &|| crate::test::run(sh, &crate::flags::Test { slow: false, full: false, no_model: false }))?;
    println!("\nCI took {:.0} s:", start.elapsed().as_secs_f64());
    for (name, seconds) in timings {
        println!("  {name:<18} {seconds:>6.0} s");
    }
    Ok(())
}

/// Warnings are errors, for every target of every crate.
fn clippy(sh: &Shell) -> anyhow::Result<()> {
    cmd!(sh, "cargo clippy --locked --all-targets -- -D warnings").run()?;
    cmd!(sh, "cargo clippy --locked --all-targets -p cipherlm-benches -- -D warnings").run()?;
    cmd!(sh, "cargo clippy --locked --release --all-targets -p cipherlm-model -- -D warnings").run()?;
    Ok(())
}

/// Licences, sources and bans; advisories need a database copy, which is not fetched here.
fn deny(sh: &Shell) -> anyhow::Result<()> {
    if cmd!(sh, "cargo deny --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        println!("cargo-deny is not installed: licence and source checks skipped (cargo install cargo-deny)");
        return Ok(());
    }
    cmd!(sh, "cargo deny --offline check licenses sources bans").run()?;
    Ok(())
}
