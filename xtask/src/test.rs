//! `cargo xtask test` and `cargo xtask prop`: cargo's own runner, with one closing line of counts.

use crate::build::{is_whole, selection};
use crate::flags::{Prop, Test};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;
use xshell::{Shell, cmd};

#[derive(Default, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Reads a closing line of the test runner:
    /// `test result: ok. 22 passed; 0 failed; 1 ignored; ...`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix("test result:")?.split_whitespace().collect();
        let number = |label: &str| {
            let at = words.iter().position(|word| word.trim_end_matches(';') == label)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
    }
}

/// Package, name and toy arguments of every example. `None`: it has no toy size, and is only built.
pub(crate) const EXAMPLES: &[(&str, &str, Option<&[&str]>)] = &[
    ("cipherlm-ring", "1_key_switch", Some(&[])),
    ("cipherlm-ring", "2_product", Some(&[])),
    ("cipherlm-ring", "3_rescale", Some(&[])),
    ("cipherlm-approx", "1_fit_inverse", Some(&[])),
    ("cipherlm-ckks", "1_encrypt_and_add", Some(&[])),
    ("cipherlm-ckks", "2_rotate_and_dot", Some(&[])),
    ("cipherlm-ckks", "3_saving_and_loading", Some(&[])),
    ("cipherlm-circuits", "1_polynomial", Some(&[])),
    ("cipherlm-circuits", "2_matrix", Some(&[])),
    ("cipherlm-circuits", "bootstrap", Some(&["insecure", "16", "real", "1"])),
    ("cipherlm-circuits", "simulate_bootstrap", None),
    ("cipherlm-model", "1_load_and_run", Some(&[])),
    ("cipherlm-model", "random_model", None),
    ("cipherlm-model", "refit", None),
    ("cipherlm-model", "row_means", Some(&[])),
    ("cipherlm-infer", "1_client_and_server", Some(&[])),
    ("cipherlm-infer", "calibrate", None),
    ("cipherlm-infer", "forward", Some(&["models/tiny", "8", "insecure", "dry"])),
    ("cipherlm-infer", "length", None),
    ("cipherlm-infer", "noise", None),
];

/// Runs an example that was built, quietly unless it fails.
fn run_example(sh: &Shell, name: &str, args: &[&str]) -> anyhow::Result<()> {
    let program = crate::build::target_dir(sh).join("release/examples").join(name);
    let output = Command::new(&program)
        .args(args)
        .current_dir(sh.current_dir())
        .output()
        .context("it could not be started")?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    println!("example {name} {} ... ok", args.join(" "));
    Ok(())
}

/// What ran so far.
#[derive(Default)]
struct Tally {
    total: Counts,
    failures: Vec<String>,
}

impl Tally {
    fn step(&mut self, sh: &Shell, what: &str, args: &[&str]) -> anyhow::Result<()> {
        println!("== {what}");
        if !cargo_counted(sh, args, &[], &mut self.total)? {
            self.failures.push(what.to_string());
        }
        Ok(())
    }

    fn examples(&mut self, sh: &Shell) {
        println!("== examples at toy size");
        let selection = selection();
        let built = cmd!(sh, "cargo build {selection...} --examples").run();
        for (package, name, args) in EXAMPLES.iter().filter_map(|(p, e, args)| Some((p, e, (*args)?))) {
            match run_example(sh, name, args) {
                Ok(()) if built.is_ok() => self.total.passed += 1,
                result => {
                    self.total.failed += 1;
                    let reason = result.err().map_or_else(|| "the build failed".into(), |e| e.to_string());
                    self.failures.push(format!("example {name} of {package}: {reason}"));
                }
            }
        }
    }
}

/// All tests of the requested tier.
pub(crate) fn run(sh: &Shell, flags: &Test) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let base = ["test", "--no-fail-fast"];
    tally.step(sh, "libraries, binaries, suites, doc examples", &[&base[..], selection()].concat())?;
    tally.examples(sh);
    if is_whole() {
        println!("workers over NATS and training are among those");
    } else if crate::nats::program(sh).is_file() {
        let workers = ["--features", "cipherlm/nats", "--lib", "--test", "cli", "--", "workers::", "nats::"];
        tally.step(sh, "workers over NATS", &[&base[..], selection(), &workers].concat())?;
    } else {
        println!("workers over NATS: left out without the NATS server, which `cargo xtask nats` gets");
    }
    if !is_whole() && (flags.train || flags.slow || flags.full) {
        println!(
            "training tier: builds burn (about 160 packages, 6 minutes on two cores), then tests for a minute"
        );
        tally.step(
            sh,
            "training tier",
            &[&base[..], &["--locked", "--release", "-p", "cipherlm-train"]].concat(),
        )?;
    }
    let ignored = [&base[..], selection(), &["--lib", "--tests", "--", "--ignored"]].concat();
    if flags.slow || flags.full {
        tally.step(sh, "slow tier", &[&ignored[..], &["slow_"]].concat())?;
    }
    if flags.full {
        // One at a time: each may hold several GiB.
        tally.step(sh, "full tier", &[&ignored[..], &["full_", "--test-threads=1"]].concat())?;
    }
    finish(tally.total, &tally.failures, start)
}

/// The property suites (`crates/*/tests/prop_*`) alone.
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
        if !cargo_counted(sh, &[&["test"], selection(), &["--test", &test]].concat(), &env, &mut total)? {
            failures.push(format!("{package}: {test}"));
        }
    }
    finish(total, &failures, start)
}

/// Package and test target of every `prop_*.rs` and `prop_*/main.rs`, leaving out the crate that
/// needs burn.
fn property_suites(sh: &Shell) -> anyhow::Result<Vec<(String, String)>> {
    let mut suites = Vec::new();
    for crate_dir in sh.read_dir("crates")? {
        let name = crate_dir.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        if name == "train" || !crate_dir.join("tests").exists() {
            continue;
        }
        for file in sh.read_dir(crate_dir.join("tests"))? {
            let stem = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            let is_target = file.extension().is_some_and(|e| e == "rs") || file.join("main.rs").exists();
            if stem.starts_with("prop_") && is_target {
                suites.push((format!("cipherlm-{name}"), stem.to_string()));
            }
        }
    }
    Ok(suites)
}

/// Runs cargo, shows its output as it comes, and adds up the `test result:` lines. False when it
/// failed.
fn cargo_counted(
    sh: &Shell,
    args: &[&str],
    env: &[(&str, String)],
    total: &mut Counts,
) -> anyhow::Result<bool> {
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
        let line = "test result: FAILED. 22 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; \
                    finished in 0.02s";
        let counts = Counts::parse(line).map(|c| (c.passed, c.failed, c.skipped));
        assert_eq!(counts, Some((22, 3, 1)));
        assert!(Counts::parse("test closing_lines_are_counted ... ok").is_none());
    }
}
