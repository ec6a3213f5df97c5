//! Runs the tests of a woven tree: once for what each of them reaches, then for each mutant those
//! that reach it, the one that caught it before and then the fastest first, until one fails. A test
//! that takes too long gets twice the time in a second run before that counts.

use super::compile::Program;
use super::kept::Kept;
use super::list::Mutant;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A test that takes more processor time than this alone is left out.
const SLOWEST: Duration = Duration::from_secs(15);
/// A mutant whose tests so far have taken more processor time than this survives: most are tried
/// for the shorter time first, which is enough for nearly all that any test catches.
const PATIENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(90)];
/// A test that takes nothing of the processor for so long waits for something that never comes.
const WAITING: Duration = Duration::from_secs(60);

/// One test function.
struct Test {
    program: PathBuf,
    folder: PathBuf,
    package: String,
    name: String,
    time: Duration,
    reaches: HashSet<u32>,
}

/// How a test ended.
#[derive(PartialEq, Clone, Copy, Serialize, Deserialize)]
enum End {
    Passed,
    Failed,
    /// It took more than its limit, or waits for something that never comes.
    TooLong,
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
        let traces = Traces::open(&scratch.join("traces.jsonl"))?;
        let mut tests = Vec::new();
        for program in programs {
            let folder = tree.join("crates").join(&program.package);
            // The benches are built along, for their features.
            if !folder.is_dir() {
                continue;
            }
            let bytes = std::fs::read(&program.path).with_context(|| program.path.display().to_string())?;
            let hash = super::kept::hash([&bytes[..]]);
            let ignored = names(&program.path, &folder, &["--ignored"])?;
            for name in names(&program.path, &folder, &[])? {
                if !ignored.contains(&name) {
                    let (program, package) = (program.path.clone(), program.package.clone());
                    let (time, reaches, folder) = (Duration::ZERO, HashSet::new(), folder.clone());
                    let key = format!("{hash} {name}");
                    tests.push((key, Test { program, folder, package, name, time, reaches }));
                }
            }
        }
        let total = tests.len();
        let traced = in_parallel(jobs, &tests, |number, (key, test)| {
            if let Some(known) = traces.known.get(key) {
                return Ok(known.clone());
            }
            let trace = scratch.join(format!("trace-{number}"));
            let _ = std::fs::remove_file(&trace);
            let (end, time) = run(test, &[("CIPHERLM_MUTANT_TRACE", trace.as_os_str())], SLOWEST)?;
            let text = std::fs::read_to_string(&trace).unwrap_or_default();
            let _ = std::fs::remove_file(&trace);
            let reaches = text.lines().filter_map(|line| line.parse().ok()).collect();
            let traced = Traced { key: key.clone(), end, time, reaches };
            traces.add(&traced);
            Ok(traced)
        })?;
        let mut kept = Vec::new();
        for ((_, mut test), traced) in tests.into_iter().zip(traced) {
            if traced.end != End::Passed {
                println!("left out, fails or takes longer than {SLOWEST:?}: {} {}", test.package, test.name);
                continue;
            }
            (test.time, test.reaches) = (traced.time, traced.reaches);
            kept.push(test);
        }
        kept.sort_by_key(|test| test.time);
        let sum: Duration = kept.iter().map(|test| test.time).sum();
        println!("{} of {total} tests, {:.0} s one by one", kept.len(), sum.as_secs_f64());
        Ok(Self { tests: kept, jobs })
    }

    /// Tries the mutants in the given order until the time is up; those that were tried, now or
    /// before.
    pub(super) fn try_all(
        &self,
        mutants: &[&Mutant],
        kept: &Kept,
        until: Instant,
    ) -> anyhow::Result<Vec<(usize, Fate)>> {
        let done = AtomicUsize::new(0);
        // By file and test: what caught the last mutants catches the next.
        let kills: Mutex<HashMap<(String, usize), u32>> = Mutex::default();
        let mut fates: Vec<Option<Fate>> = mutants.iter().map(|mutant| kept.fate(mutant)).collect();
        for patience in PATIENCE {
            let open: Vec<usize> = (0..mutants.len()).filter(|at| fates[*at].is_none()).collect();
            let found = in_parallel(self.jobs, &open, |_, &at| {
                if Instant::now() >= until {
                    return Ok(None);
                }
                let mutant = mutants[at];
                let fate = self.fate(mutant, kept.catcher(mutant), &kills, patience)?;
                let fate = fate.or((patience == PATIENCE[1]).then_some(Fate::Survived));
                let Some(fate) = fate else { return Ok(None) };
                kept.add(mutant, &fate);
                let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                match &fate {
                    Fate::Caught(_) if count.is_multiple_of(100) => println!("{count} tried"),
                    Fate::Unreached => println!("no test reaches: {}", mutant.name),
                    Fate::Survived => println!("survives: {}", mutant.name),
                    _ => {}
                }
                Ok(Some(fate))
            })?;
            open.into_iter().zip(found).for_each(|(at, fate)| fates[at] = fate);
        }
        Ok(fates.into_iter().enumerate().filter_map(|(at, fate)| Some((at, fate?))).collect())
    }

    /// The tests that reach a mutant: first what caught it before, then those that are fast or have
    /// caught others of its file.
    fn order(
        &self,
        mutant: &Mutant,
        before: Option<&str>,
        kills: &HashMap<(String, usize), u32>,
    ) -> Vec<usize> {
        let own = mutant.package.strip_prefix("cipherlm-").unwrap_or(&mutant.package);
        let reach = |test: &Test| test.package == own && test.reaches.contains(&mutant.id);
        let cost = |at: &usize| {
            let caught = kills.get(&(mutant.file.clone(), *at)).copied().unwrap_or(0);
            (self.tests[*at].time.as_secs_f64() + 0.01) / f64::from(caught + 1)
        };
        let mut order: Vec<usize> = (0..self.tests.len()).filter(|at| reach(&self.tests[*at])).collect();
        let other = |at: &usize| Some(self.tests[*at].name.as_str()) != before;
        order.sort_by(|a, b| other(a).cmp(&other(b)).then(cost(a).total_cmp(&cost(b))));
        order
    }

    /// `None` when patience ends before the tests do.
    fn fate(
        &self,
        mutant: &Mutant,
        before: Option<&str>,
        kills: &Mutex<HashMap<(String, usize), u32>>,
        patience: Duration,
    ) -> anyhow::Result<Option<Fate>> {
        let order = self.order(mutant, before, &kills.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut spent, number) = (Duration::ZERO, mutant.id.to_string());
        for at in &order {
            if spent > patience {
                return Ok(None);
            }
            let test = &self.tests[*at];
            // A test that takes ten times as long hangs.
            let limit = Duration::from_secs(5) + 10 * test.time;
            let env = [("CIPHERLM_MUTANT", number.as_ref())];
            let (mut end, mut time) = run(test, &env, limit)?;
            if end == End::TooLong {
                let (again, more) = run(test, &env, 2 * limit)?;
                (end, time) = (again, time + more);
            }
            if end != End::Passed {
                let mut kills = kills.lock().unwrap_or_else(PoisonError::into_inner);
                *kills.entry((mutant.file.clone(), *at)).or_default() += 1;
                return Ok(Some(Fate::Caught(test.name.clone())));
            }
            spent += time;
        }
        Ok(Some(if order.is_empty() { Fate::Unreached } else { Fate::Survived }))
    }
}

/// What a run of one test without a mutant showed.
#[derive(Clone, Serialize, Deserialize)]
struct Traced {
    /// The program's hash, and the test.
    key: String,
    end: End,
    time: Duration,
    reaches: HashSet<u32>,
}

/// What earlier runs showed, on disk.
struct Traces {
    known: HashMap<String, Traced>,
    file: Mutex<File>,
}

impl Traces {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Traced>(line).ok());
        let known = lines.map(|line| (line.key.clone(), line)).collect();
        let file = File::options().create(true).append(true).open(path);
        Ok(Self { known, file: Mutex::new(file.with_context(|| format!("opening {}", path.display()))?) })
    }

    /// Appends a line. One that cannot be kept is found again.
    fn add(&self, traced: &Traced) {
        if let Ok(text) = serde_json::to_string(traced) {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all((text + "\n").as_bytes());
        }
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

/// How the test ends within the processor time, and what it took: the machine may be busy. An error
/// if it cannot be started, which says nothing of the mutant.
fn run(test: &Test, env: &[(&str, &std::ffi::OsStr)], limit: Duration) -> anyhow::Result<(End, Duration)> {
    let mut command = Command::new(&test.program);
    command.args(["--exact", &test.name, "--test-threads", "1"]).current_dir(&test.folder);
    command
        .env("RAYON_NUM_THREADS", "1")
        .envs(env.iter().copied())
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command.env("CARGO_MANIFEST_DIR", &test.folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("starting {}", test.program.display()))?;
    let (start, mut spent, mut moved) = (Instant::now(), Duration::ZERO, Instant::now());
    loop {
        if let Some(status) = child.try_wait().context("waiting for a test")? {
            return Ok((if status.success() { End::Passed } else { End::Failed }, spent));
        }
        let now = processor_time(&child).unwrap_or_else(|| start.elapsed());
        if now > spent {
            (spent, moved) = (now, Instant::now());
        }
        if spent >= limit || moved.elapsed() >= WAITING {
            let _ = (child.kill(), child.wait());
            return Ok((End::TooLong, spent));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// What a process has taken of the processor, in ticks of 10 ms; Linux alone says.
fn processor_time(child: &Child) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    Some(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

/// Maps over a list with so many threads until one fails; the results are in the list's order.
fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    list: &[T],
    f: impl Fn(usize, &T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let out: Mutex<HashMap<usize, anyhow::Result<R>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = list.get(at) else { return };
                    let result = f(at, item);
                    if result.is_err() {
                        next.store(list.len(), Ordering::Relaxed);
                    }
                    out.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
                }
            });
        }
    });
    let mut out: Vec<(usize, anyhow::Result<R>)> =
        out.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    out.sort_by_key(|(at, _)| *at);
    out.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(program: &str) -> Test {
        Test {
            program: program.into(),
            folder: std::env::temp_dir(),
            package: String::new(),
            name: "name".into(),
            time: Duration::ZERO,
            reaches: HashSet::new(),
        }
    }

    #[test]
    fn a_test_that_cannot_be_started_is_an_error_and_no_failure() {
        assert!(run(&test("/nowhere/at/all"), &[], SLOWEST).is_err());
        let ended = |program| run(&test(program), &[], SLOWEST).unwrap().0;
        assert!(ended("/bin/true") == End::Passed && ended("/bin/false") == End::Failed);
    }

    #[test]
    fn an_error_stops_the_others() {
        let begun = AtomicUsize::new(0);
        let result = in_parallel(2, &[0; 1000], |at, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(at != 3, "the fourth");
            Ok(at)
        });
        assert!(result.is_err() && begun.into_inner() < 1000);
        assert_eq!(in_parallel(3, &[7, 8], |at, n| Ok(at + n)).unwrap(), [7, 9]);
    }
}
