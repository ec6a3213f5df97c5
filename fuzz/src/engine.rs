//! The loop of one target, in a process of its own.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use crate::rng::Rng;
use crate::targets::{Target, Verdict, by_name};
use crate::{ALLOCATOR, corpus, crashes};

/// How long a target is fuzzed.
pub(crate) struct Limits {
    /// Of the processor: on a busy machine an hour of the clock may try nothing.
    pub(crate) seconds: f64,
    pub(crate) inputs: u64,
    pub(crate) seed: u64,
    pub(crate) renew: bool,
}

/// Processor seconds, and seconds, after which an input is a hang.
const HANG: (f64, u64) = (2.0, 60);
/// Inputs in the pool; a new outcome replaces a random one after that.
const POOL: usize = 512;
/// Faults of one target that are saved and listed; all are counted.
const LISTED: usize = 12;
/// Exit status after a hang.
pub(crate) const HUNG: i32 = 3;

/// Measures the parser alone.
#[derive(Default)]
pub(crate) struct Probe {
    peak: usize,
}

impl Probe {
    /// Runs the parser and keeps the most memory that it held beyond what was there.
    pub(crate) fn parse<T>(&mut self, parser: impl FnOnce() -> T) -> T {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let out = parser();
        self.peak = self.peak.max(ALLOCATOR.peak_usage().saturating_sub(before));
        out
    }
}

/// What came of an input.
enum Outcome {
    Refused(String),
    Accepted,
    /// Kind of fault, and what was seen.
    Fault(&'static str, String),
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());
/// Number of the input that runs now.
static BEAT: AtomicU64 = AtomicU64::new(0);

fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{place}: {text}");
    }));
}

fn execute(target: &dyn Target, input: &[u8]) -> Outcome {
    let mut probe = Probe::default();
    let verdict = catch_unwind(AssertUnwindSafe(|| target.run(input, &mut probe)));
    let ceiling = target.ceiling(input.len());
    match verdict {
        Err(_) => Outcome::Fault("panic", LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        Ok(_) if probe.peak > ceiling => {
            let text =
                format!("{} bytes of memory for {} of input; at most {ceiling}", probe.peak, input.len());
            Outcome::Fault("memory", text)
        }
        Ok(Verdict::Wrong(text)) => Outcome::Fault("wrong", text),
        Ok(Verdict::Accepted) => Outcome::Accepted,
        Ok(Verdict::Refused(text)) => Outcome::Refused(text),
    }
}

/// The message without what stands in the input: numbers, hashes, quotations. Two inputs of one
/// class tell us the same.
fn class(text: &str) -> String {
    const LONGEST: usize = 120;
    let quote = |c: char| matches!(c, '"' | '`' | '\'');
    let said: String = text.split(quote).step_by(2).collect::<Vec<_>>().join("#");
    let hex = |word: &str| word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words: Vec<&str> = Vec::new();
    for word in said.split_whitespace() {
        let word =
            if word.bytes().any(|b| b.is_ascii_digit() || !b.is_ascii()) || hex(word) { "#" } else { word };
        if words.last() != Some(&word) || word != "#" {
            words.push(word);
        }
    }
    words.join(" ").chars().take(LONGEST).collect()
}

/// Counts, the pool and what is known already.
struct State<'a> {
    name: &'a str,
    target: Box<dyn Target>,
    scratch: File,
    counts: [u64; 3],
    /// Seeds first.
    pool: Vec<Vec<u8>>,
    seeds: usize,
    /// Smallest input of each class of outcome.
    classes: HashMap<String, Vec<u8>>,
    faults: HashMap<String, u64>,
    last_was_fault: bool,
}

impl State<'_> {
    /// Runs an input; true if its outcome is of a class never seen.
    fn try_input(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        // The driver finds the input there if this process dies.
        self.scratch.write_all_at(&[(input.len() as u64).to_le_bytes().as_slice(), input].concat(), 0)?;
        BEAT.fetch_add(1, Ordering::Relaxed);
        let outcome = execute(self.target.as_ref(), input);
        self.last_was_fault = matches!(outcome, Outcome::Fault(..));
        let class = match outcome {
            Outcome::Refused(text) => {
                self.counts[0] += 1;
                class(&text)
            }
            Outcome::Accepted => {
                self.counts[1] += 1;
                "accepted".into()
            }
            Outcome::Fault(kind, text) => {
                self.counts[2] += 1;
                let class = format!("{kind}: {}", class(&text));
                let times = self.faults.entry(class.clone()).or_default();
                *times += 1;
                if *times == 1 && self.faults.len() <= LISTED {
                    let file = save(self.name, kind, input)?;
                    println!("{}", json!({"fault": kind, "detail": text, "file": file}));
                }
                class
            }
        };
        let have = self.classes.get(&class);
        let new = have.is_none();
        if have.is_none_or(|have| input.len() < have.len()) {
            self.classes.insert(class, input.to_vec());
        }
        Ok(new)
    }

    fn report(&self, key: &str) {
        let [refused, accepted, faults] = self.counts;
        println!(
            "{}",
            json!({key: {"tried": refused + accepted + faults, "refused": refused, "accepted": accepted,
                "faulty": faults, "classes": self.classes.len(), "seconds": processor_seconds()}})
        );
    }
}

/// Saves an input that must not be lost.
pub(crate) fn save(name: &str, kind: &str, input: &[u8]) -> anyhow::Result<String> {
    let folder = crashes().join(name);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{kind}-{}.bin", &blake3::hash(input).to_hex()[..12]));
    std::fs::write(&file, input).with_context(|| format!("writing {}", file.display()))?;
    Ok(file.canonicalize()?.display().to_string())
}

/// Where a child leaves the input that it is about to try.
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    crashes().join(format!("{name}.current"))
}

/// Fuzzes one target until a limit is reached; reports on standard output, a JSON object a line.
pub(crate) fn child(name: &str, limits: &Limits) -> anyhow::Result<()> {
    quiet_panics();
    let target = by_name(name)?;
    std::fs::create_dir_all(crashes())?;
    let mut pool = target.seeds()?;
    check_seeds(target.as_ref(), &pool)?;
    let seeds = pool.len();
    pool.extend(corpus::load(name)?);
    let mut state = State {
        name,
        target,
        scratch: File::create(scratch(name))?,
        counts: [0; 3],
        pool,
        seeds,
        classes: HashMap::new(),
        faults: HashMap::new(),
        last_was_fault: false,
    };
    watch();
    fuzz(&mut state, limits)?;
    state.report("done");
    if limits.renew {
        corpus::renew(name, state.target.as_ref(), &state.classes, |t, input| match execute(t, input) {
            Outcome::Refused(text) => class(&text),
            Outcome::Accepted => "accepted".into(),
            Outcome::Fault(kind, text) => format!("{kind}: {}", class(&text)),
        })?;
    }
    Ok(())
}

/// Seeds must be valid, and sealing them again must change nothing: otherwise every input fails at
/// the outer gate.
fn check_seeds(target: &dyn Target, seeds: &[Vec<u8>]) -> anyhow::Result<()> {
    for seed in seeds {
        let mut again = seed.clone();
        target.reseal(&mut again);
        anyhow::ensure!(again == *seed, "the seal of this format has changed: bring the fuzzer up to date");
        if let Outcome::Refused(text) = execute(target, seed) {
            anyhow::bail!("a valid object is refused: {text}");
        }
    }
    Ok(())
}

fn fuzz(state: &mut State<'_>, limits: &Limits) -> anyhow::Result<()> {
    let mut rng = Rng::new(limits.seed ^ blake3::hash(state.name.as_bytes()).as_bytes()[0] as u64);
    for input in state.pool.clone() {
        state.try_input(&input)?;
    }
    let mut said = Instant::now();
    for round in 0u64.. {
        if round.is_multiple_of(32) {
            if state.counts.iter().sum::<u64>() >= limits.inputs || processor_seconds() >= limits.seconds {
                return Ok(());
            }
            if said.elapsed() >= Duration::from_secs(1) {
                state.report("progress");
                said = Instant::now();
            }
        }
        // Whole objects are edited as often as those that some gate has refused before.
        let from = if rng.one_in(2) { &state.pool[..state.seeds] } else { &state.pool[..] };
        let mut input = rng.pick(from).cloned().unwrap_or_default();
        for _ in 0..=rng.below(4) {
            state.target.mutate(&mut input, &state.pool, &mut rng);
        }
        if !rng.one_in(16) {
            state.target.reseal(&mut input);
        }
        if state.try_input(&input)? && !state.last_was_fault {
            if state.pool.len() < POOL {
                state.pool.push(input);
            } else {
                let at = state.seeds + rng.below(POOL - state.seeds);
                state.pool[at] = input;
            }
        }
    }
    Ok(())
}

/// Ends the process when one input takes too long.
fn watch() {
    std::thread::spawn(|| {
        let (mut seen, mut since, mut used) = (0, Instant::now(), processor_seconds());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = BEAT.load(Ordering::Relaxed);
            if now != seen {
                (seen, since, used) = (now, Instant::now(), processor_seconds());
            } else if processor_seconds() - used > HANG.0 || since.elapsed() > Duration::from_secs(HANG.1) {
                std::process::exit(HUNG);
            }
        }
    });
}

/// Processor time of this process so far.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time in ticks of 1/100 s, fields 14 and 15 of the line.
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Runs one input and says what comes of it; false for a fault.
pub(crate) fn replay(name: &str, file: &Path) -> anyhow::Result<bool> {
    quiet_panics();
    let target = by_name(name)?;
    let input = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let outcome = execute(target.as_ref(), &input);
    match &outcome {
        Outcome::Refused(text) => println!("refused: {text}"),
        Outcome::Accepted => println!("accepted"),
        Outcome::Fault(kind, text) => println!("{kind}: {text}"),
    }
    Ok(!matches!(outcome, Outcome::Fault(..)))
}
