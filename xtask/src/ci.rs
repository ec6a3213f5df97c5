//! `cargo xtask ci`: everything a change must pass, in the order that fails fastest.

use crate::build::{WHOLE, select_whole, selection};
use crate::flags::{Fuzz, Soak};
use std::time::Instant;
use xshell::{Shell, cmd};

/// Formatting, house rules, lints, tests, documentation and a smoke run of every benchmark body.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    select_whole();
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
    step("tidy", &|| crate::tidy::run(sh, &crate::flags::Tidy { shrink: false, count: false }))?;
    step("deny", &|| deny(sh))?;
    step("packages", &|| packages(sh))?;
    step("clippy", &|| clippy(sh))?;
    step("page", &|| page(sh))?;
    step("documentation", &|| {
        let _env = sh.push_env("RUSTDOCFLAGS", "-D warnings");
        Ok(cmd!(sh, "cargo doc {WHOLE...} --no-deps").run()?)
    })?;
    step("benchmark bodies", &|| {
        // Not those at full size: minutes and gigabytes for no new coverage beside the tests.
        let groups = crate::bench::GROUPS.iter().filter(|group| !FULL_SIZE.contains(group));
        let args = groups.flat_map(|group| ["--bench", group]);
        // Under `cargo test` criterion runs each body once.
        let selection = selection();
        Ok(cmd!(sh, "cargo test {selection...} {args...}").ignore_stdout().run()?)
    })?;
    step("NATS server", &|| {
        if let Err(error) = crate::nats::run(sh) {
            println!("not at hand, the tests that start it say so and end: {error:#}");
        }
        Ok(())
    })?;
    step("tests", &|| crate::test::run(sh, &crate::flags::Test { slow: false, full: false, train: true }))?;
    step("python", &|| crate::python::run_if_possible(sh))?;
    let second =
        Fuzz { target: None, seconds: Some(1.0), inputs: None, seed: None, json: None, renew: false };
    step("fuzz", &|| crate::fuzz::run(sh, &second))?;
    step("soak", &|| {
        crate::soak::run(sh, &Soak { seconds: Some(25.0), seed: None, train: false, only: None, json: None })
    })?;
    println!("\nCI took {:.0} s:", start.elapsed().as_secs_f64());
    for (name, seconds) in timings {
        println!("  {name:<18} {seconds:>6.0} s");
    }
    Ok(())
}

/// Bench groups whose bodies run at full size even in test mode, or need a feature.
const FULL_SIZE: [&str; 4] = ["bootstrap", "layers", "inference", "train"];

/// Warnings are errors, for every target of every crate, training included.
fn clippy(sh: &Shell) -> anyhow::Result<()> {
    Ok(cmd!(sh, "cargo clippy {WHOLE...} --all-targets -- -D warnings").run()?)
}

/// The browser client compiles, where this machine can tell; linking it takes minutes more.
fn page(sh: &Shell) -> anyhow::Result<()> {
    if !crate::page::has_target(sh) {
        println!("no target wasm32-unknown-unknown here: the page is not checked (rustup target add it)");
        return Ok(());
    }
    crate::page::run(sh, &crate::flags::Page { check: true })
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

/// What is published can be packaged, and the unit of systemd holds what it promises.
fn packages(sh: &Shell) -> anyhow::Result<()> {
    let ours = ["cipherlm-benches", "cipherlm-fuzz", "cipherlm-py", "xtask"]
        .into_iter()
        .flat_map(|n| ["--exclude", n]);
    // A build of each package would take as long as all other steps.
    cmd!(sh, "cargo publish --workspace {ours...} --dry-run --no-verify --locked --allow-dirty")
        .ignore_stderr()
        .run()?;
    if cmd!(sh, "systemd-analyze --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        println!("no systemd here: its unit is not checked");
        return Ok(());
    }
    // As installed but for the program, which is not.
    let dir = sh.create_temp_dir()?;
    let unit = dir.path().join("cipherlm.service");
    let text = sh.read_file("packaging/cipherlm.service")?.replace("/usr/bin/cipherlm ", "/bin/true ");
    sh.write_file(&unit, text)?;
    cmd!(sh, "systemd-analyze verify --man=no {unit}").run()?;
    Ok(cmd!(sh, "systemd-analyze security --offline=true --threshold=15 {unit}").ignore_stdout().run()?)
}
