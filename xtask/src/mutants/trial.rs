//! Runs the tests of a woven tree: once for what each of them reaches, then for each mutant those
//! that reach it, fastest first, until one fails.

use super::compile::Program;
use super::kept::Kept;
use super::list::Mutant;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A test that takes more processor time than this alone is left out.
const SLOWEST: Duration = Duration::from_secs(15);
/// A mutant whose tests so far have taken more processor time than this survives.
const PATIENCE: Duration = Duration::from_secs(90);
/// A test that gets so little of the processor waits for something that never comes.
const WAITING: u32 = 30;

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
#[derive(PartialEq, Clone, Debug, Serialize, Deserialize)]
pub(super) enum Fate {
    Caught(String),
    /// Tests that reach it all pass.
    Survived,
    /// No test reaches it.
    Unreached,
    /// It does not compile.
    Broken,
    /// It compiles, but not behind a switch.
    NoSwitch,
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
            let (passed, time) = run(test, &[("CIPHERLM_MUTANT_TRACE", trace.as_os_str())], SLOWEST);
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

    /// Tries the mutants in the given order until the time is up; those that were tried, now or
    /// before.
    pub(super) fn try_all(&self, mutants: &[&Mutant], kept: &Kept, until: Instant) -> Vec<(usize, Fate)> {
        let done = AtomicUsize::new(0);
        // By file and test: what caught the last mutants catches the next.
        let kills: Mutex<HashMap<(String, usize), u32>> = Mutex::default();
        let fates = in_parallel(self.jobs, mutants, |_, mutant| {
            if let Some(fate) = kept.fate(mutant) {
                return Some(fate);
            }
            if Instant::now() >= until {
                return None;
            }
            let fate = self.fate(mutant, &kills);
            kept.add(mutant, &fate);
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            match &fate {
                Fate::Caught(_) if count.is_multiple_of(100) => println!("{count} tried"),
                Fate::Unreached => println!("no test reaches: {}", mutant.name),
                Fate::Survived => println!("survives: {}", mutant.name),
                _ => {}
            }
            Some(fate)
        });
        fates.into_iter().enumerate().filter_map(|(at, fate)| Some((at, fate?))).collect()
    }

    /// The tests that reach a mutant, those first that are fast or have caught others of its file.
    fn order(&self, mutant: &Mutant, kills: &HashMap<(String, usize), u32>) -> Vec<usize> {
        let own = mutant.package.strip_prefix("cipherlm-").unwrap_or(&mutant.package);
        let reach = |test: &Test| test.package == own && test.reaches.contains(&mutant.id);
        let cost = |at: &usize| {
            let caught = kills.get(&(mutant.file.clone(), *at)).copied().unwrap_or(0);
            (self.tests[*at].time.as_secs_f64() + 0.01) / f64::from(caught + 1)
        };
        let mut order: Vec<usize> = (0..self.tests.len()).filter(|at| reach(&self.tests[*at])).collect();
        order.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        order
    }

    fn fate(&self, mutant: &Mutant, kills: &Mutex<HashMap<(String, usize), u32>>) -> Fate {
        let order = self.order(mutant, &kills.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut spent, number) = (Duration::ZERO, mutant.id.to_string());
        for at in &order {
            let test = &self.tests[*at];
            // A test that takes ten times as long hangs.
            let limit = Duration::from_secs(5) + 10 * test.time;
            let (passed, time) = run(test, &[("CIPHERLM_MUTANT", number.as_ref())], limit);
            if !passed {
                let mut kills = kills.lock().unwrap_or_else(PoisonError::into_inner);
                *kills.entry((mutant.file.clone(), *at)).or_default() += 1;
                return Fate::Caught(test.name.clone());
            }
            spent += time;
            if spent > PATIENCE {
                break;
            }
        }
        if order.is_empty() { Fate::Unreached } else { Fate::Survived }
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

/// Whether the test passes within the processor time, and what it took: the machine may be busy.
fn run(test: &Test, env: &[(&str, &std::ffi::OsStr)], limit: Duration) -> (bool, Duration) {
    let mut command = Command::new(&test.program);
    command.args(["--exact", &test.name, "--test-threads", "1"]).current_dir(&test.folder);
    command
        .env("RAYON_NUM_THREADS", "1")
        .envs(env.iter().copied())
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command.env("CARGO_MANIFEST_DIR", &test.folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return (false, Duration::ZERO) };
    let (start, mut spent) = (Instant::now(), Duration::ZERO);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return (status.success(), spent),
            Ok(None) if spent < limit && start.elapsed() < WAITING * limit => {
                spent = processor_time(&child).unwrap_or_else(|| start.elapsed());
                std::thread::sleep(Duration::from_millis(3));
            }
            _ => {
                let _ = (child.kill(), child.wait());
                return (false, spent);
            }
        }
    }
}

/// What a process has taken of the processor, in ticks of 10 ms; Linux alone says.
fn processor_time(child: &Child) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    Some(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
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
