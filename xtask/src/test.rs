//! `cargo xtask test` and `cargo xtask prop`: cargo's own runner, with one closing line of counts.

use crate::flags::{Prop, Test};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;
use xshell::Shell;

#[derive(Default, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Reads a closing line of the test runner: `test result: ok. 22 passed; 0 failed; 1 ignored; ...`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix("test result:")?.split_whitespace().collect();
        let number = |label: &str| {
            let at = words.iter().position(|word| word.trim_end_matches(';') == label)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
    }
}

/// All tests of the requested tier.
pub(crate) fn run(sh: &Shell, flags: &Test) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut total = Counts::default();
    let mut failures = Vec::new();
    let mut step = |what: &str, args: &[&str]| -> anyhow::Result<()> {
        println!("== {what}");
        if !cargo_counted(sh, args, &[], &mut total)? {
            failures.push(what.to_string());
        }
        Ok(())
    };

    step("libraries, binaries and doc examples", &["test", "--locked", "--no-fail-fast"])?;
    step("examples at their default size", &["test", "--locked", "--no-fail-fast", "--examples"])?;
    if !flags.no_model {
        // The training crate runs in release: one optimised build of burn serves tests and training.
        step("training crate", &["test", "--locked", "--no-fail-fast", "--release", "-p", "cipherlm-model"])?;
    }
    if flags.slow || flags.full {
        step(
            "slow tier",
            &["test", "--locked", "--no-fail-fast", "--release", "--lib", "--tests", "--", "--ignored", "slow_"],
        )?;
    }
    if flags.full {
        // One at a time: each may hold several GiB.
        step(
            "full tier",
            &[
                "test",
                "--locked",
                "--no-fail-fast",
                "--release",
                "--lib",
                "--tests",
                "--",
                "--ignored",
                "full_",
                "--test-threads=1",
            ],
        )?;
    }
    finish(total, &failures, start)
}

/// The property suites (`crates/*/tests/prop_*.rs`) alone.
pub(crate) fn prop(sh: &Shell, flags: &Prop) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut env = vec![("PROPTEST_CASES", flags.cases.unwrap_or(32).to_string())];
    let fresh = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_secs());
    let seed = flags.seed.unwrap_or_else(fresh);
    println!("seed {seed}: repeat with `cargo xtask prop --seed {seed}`");
    env.push(("PROPTEST_RNG_SEED", seed.to_string()));
    let mut total = Counts::default();
    let mut failures = Vec::new();
    for (package, test) in property_suites(sh)? {
        println!("== {package}: {test}");
        if !cargo_counted(sh, &["test", "--locked", "--release", "-p", &package, "--test", &test], &env, &mut total)? {
            failures.push(format!("{package}: {test}"));
        }
    }
    finish(total, &failures, start)
}

/// Package and test target of every `prop_*.rs`, leaving out the crate that needs burn.
fn property_suites(sh: &Shell) -> anyhow::Result<Vec<(String, String)>> {
    let mut suites = Vec::new();
    for crate_dir in sh.read_dir("crates")? {
        let name = crate_dir.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        if name == "model" || !crate_dir.join("tests").exists() {
            continue;
        }
        for file in sh.read_dir(crate_dir.join("tests"))? {
            let stem = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            if stem.starts_with("prop_") && file.extension().is_some_and(|e| e == "rs") {
                suites.push((format!("cipherlm-{name}"), stem.to_string()));
            }
        }
    }
    Ok(suites)
}

/// Runs cargo, shows its output as it comes, and adds up the `test result:` lines. False when it failed.
fn cargo_counted(sh: &Shell, args: &[&str], env: &[(&str, String)], total: &mut Counts) -> anyhow::Result<bool> {
    let mut child = Command::new("cargo")
        .args(args)
        // The same cases every time; `cargo xtask prop` draws fresh ones.
        .env("PROPTEST_RNG_SEED", "20261122")
        .envs(env.iter().map(|(k, v)| (*k, v)))
        .current_dir(sh.current_dir())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo could not be started")?;
    let stdout = child.stdout.take().context("no output from cargo")?;
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(counts) = Counts::parse(&line) {
            total.passed += counts.passed;
            total.failed += counts.failed;
            total.skipped += counts.skipped;
        }
        writeln!(out, "{line}")?;
    }
    Ok(child.wait()?.success())
}

fn finish(total: Counts, failures: &[String], start: Instant) -> anyhow::Result<()> {
    println!("\ntests took {:.0} s on {}", start.elapsed().as_secs_f64(), crate::machine::describe());
    for failure in failures {
        println!("failed: {failure}");
    }
    let Counts { passed, failed, skipped } = total;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if !failures.is_empty() {
        bail!("{} of the test runs failed", failures.len());
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 22 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.02s";
        let counts = Counts::parse(line).map(|c| (c.passed, c.failed, c.skipped));
        assert_eq!(counts, Some((22, 3, 1)));
        assert!(Counts::parse("test closing_lines_are_counted ... ok").is_none());
    }
}
