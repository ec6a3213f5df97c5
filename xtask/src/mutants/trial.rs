//! Runs the tests of a woven tree: once for what each of them reaches, then for each mutant those
//! that reach it, fastest first, until one fails.

use super::compile::Program;
use super::list::Mutant;
use anyhow::Context;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A test that takes longer than this alone is left out.
const SLOWEST: Duration = Duration::from_secs(15);
/// A mutant whose tests so far have taken longer than this survives.
const PATIENCE: Duration = Duration::from_secs(90);

/// One test function.
struct Test {
    program: PathBuf,
    folder: PathBuf,
    package: String,
    name: String,
    time: Duration,
    reaches: HashSet<u32>,
}

/// What came of a mutant.
#[derive(PartialEq, Clone, Debug)]
pub(super) enum Fate {
    Caught(String),
    /// Tests that reach it all pass.
    Survived,
    /// No test reaches it.
    Unreached,
}

/// The tests of the woven tree.
pub(super) struct Suite {
    tests: Vec<Test>,
    jobs: usize,
}

impl Suite {
    /// Lists the tests and runs each alone, to see what it reaches and how long it takes.
    pub(super) fn measure(
        tree: &Path,
        programs: &[Program],
        scratch: &Path,
        jobs: usize,
    ) -> anyhow::Result<Self> {
        let mut tests = Vec::new();
        for program in programs {
            let folder = tree.join("crates").join(&program.package);
            // The benches are built along, for their features.
            if !folder.is_dir() {
                continue;
            }
            let ignored = names(&program.path, &folder, &["--ignored"])?;
            for name in names(&program.path, &folder, &[])? {
                if !ignored.contains(&name) {
                    tests.push(Test {
                        program: program.path.clone(),
                        folder: folder.clone(),
                        package: program.package.clone(),
                        name,
                        time: Duration::ZERO,
                        reaches: HashSet::new(),
                    });
                }
            }
        }
        let total = tests.len();
        let traced = in_parallel(jobs, &tests, |number, test| {
            let trace = scratch.join(format!("trace-{number}"));
            let _ = std::fs::remove_file(&trace);
            let start = Instant::now();
            let passed = run(test, &[("CIPHERLM_MUTANT_TRACE", trace.as_os_str())], SLOWEST);
            let time = start.elapsed();
            let text = std::fs::read_to_string(&trace).unwrap_or_default();
            let _ = std::fs::remove_file(&trace);
            (passed, time, text.lines().filter_map(|line| line.parse().ok()).collect::<HashSet<u32>>())
        });
        let mut kept = Vec::new();
        for (mut test, (passed, time, reaches)) in tests.into_iter().zip(traced) {
            if !passed {
                println!("left out, fails or takes longer than {SLOWEST:?}: {} {}", test.package, test.name);
                continue;
            }
            (test.time, test.reaches) = (time, reaches);
            kept.push(test);
        }
        kept.sort_by_key(|test| test.time);
        let sum: Duration = kept.iter().map(|test| test.time).sum();
        println!("{} of {total} tests, {:.0} s one by one", kept.len(), sum.as_secs_f64());
        Ok(Self { tests: kept, jobs })
    }

    /// Tries the mutants in the given order until the time is up; those that were tried.
    pub(super) fn try_all(&self, mutants: &[&Mutant], until: Instant) -> Vec<(usize, Fate)> {
        let done = AtomicUsize::new(0);
        let fates = in_parallel(self.jobs, mutants, |_, mutant| {
            if Instant::now() >= until {
                return None;
            }
            let fate = self.fate(mutant);
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            match &fate {
                Fate::Caught(_) if count.is_multiple_of(100) => println!("{count} tried"),
                Fate::Caught(_) => {}
                Fate::Survived => println!("survives: {}", mutant.name),
                Fate::Unreached => println!("no test reaches: {}", mutant.name),
            }
            Some(fate)
        });
        fates.into_iter().enumerate().filter_map(|(at, fate)| Some((at, fate?))).collect()
    }

    fn fate(&self, mutant: &Mutant) -> Fate {
        let own = mutant.package.strip_prefix("cipherlm-").unwrap_or(&mutant.package);
        let reach = |t: &&Test| t.package == own && t.reaches.contains(&mutant.id);
        let (mut any, start, number) = (false, Instant::now(), mutant.id.to_string());
        for test in self.tests.iter().filter(reach) {
            any = true;
            // A test that takes ten times as long hangs.
            let limit = Duration::from_secs(10) + 10 * test.time;
            if !run(test, &[("CIPHERLM_MUTANT", number.as_ref())], limit) {
                return Fate::Caught(test.name.clone());
            }
            if start.elapsed() > PATIENCE {
                break;
            }
        }
        if any { Fate::Survived } else { Fate::Unreached }
    }
}

/// The test functions of a program.
fn names(program: &Path, folder: &Path, more: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let mut command = Command::new(program);
    command.args(["--list", "--format", "terse"]).args(more).current_dir(folder);
    let output = command.output().with_context(|| format!("listing {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect())
}

/// Whether the test passes within the time.
fn run(test: &Test, env: &[(&str, &std::ffi::OsStr)], limit: Duration) -> bool {
    let mut command = Command::new(&test.program);
    command.args(["--exact", &test.name, "--test-threads", "1"]).current_dir(&test.folder);
    command
        .env("RAYON_NUM_THREADS", "1")
        .envs(env.iter().copied())
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command.env("CARGO_MANIFEST_DIR", &test.folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(3)),
            _ => {
                let _ = (child.kill(), child.wait());
                return false;
            }
        }
    }
}

/// Maps over a list with so many threads; the results are in the list's order.
fn in_parallel<T: Sync, R: Send>(jobs: usize, list: &[T], f: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let out: Mutex<HashMap<usize, R>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = list.get(at) else { return };
                    let result = f(at, item);
                    out.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
                }
            });
        }
    });
    let mut out: Vec<(usize, R)> =
        out.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    out.sort_by_key(|(at, _)| *at);
    out.into_iter().map(|(_, result)| result).collect()
}
