//! The parent: one process for each target, their reports added up.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use crate::engine::{HUNG, Limits, save, scratch};

/// Address space of a child in KiB: what takes more than that dies there, not the machine.
const ADDRESS_SPACE: u64 = 6 << 20;
/// A target whose process dies so many times is given up.
const LIVES: usize = 20;

/// Counts and faults of one target.
#[derive(Default, Clone)]
struct Tally {
    tried: u64,
    refused: u64,
    accepted: u64,
    classes: u64,
    seconds: f64,
    /// Kind, detail, file.
    faults: Vec<[String; 3]>,
}

impl Tally {
    fn count(&self, kind: &str) -> usize {
        self.faults.iter().filter(|fault| fault[0] == kind).count()
    }

    fn to_json(&self, name: &str) -> Value {
        let faults: Vec<Value> =
            self.faults.iter().map(|[k, d, f]| json!({"kind": k, "detail": d, "file": f})).collect();
        json!({
            "target": name, "tried": self.tried, "caught": self.refused + self.accepted,
            "refused": self.refused,
            "accepted": self.accepted, "survivors": self.faults.len(), "wrong_answers": self.count("wrong"),
            "panics": self.count("panic"), "hangs": self.count("hang"), "memory": self.count("memory"),
            "outcomes": self.classes, "seconds": self.seconds, "faults": faults,
        })
    }
}

/// Fuzzes the targets, prints a line for each; false if there were faults.
pub(crate) fn run(
    names: &[&str],
    limits: &Limits,
    jobs: Option<usize>,
    out: Option<&Path>,
) -> anyhow::Result<bool> {
    let start = Instant::now();
    let queue: Mutex<VecDeque<&str>> = Mutex::new(names.iter().copied().collect());
    let done: Mutex<Vec<(&str, Tally)>> = Mutex::default();
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    println!(
        "{:<20} {:>10} {:>10} {:>9} {:>8} {:>7}  faults",
        "target", "tried", "refused", "accepted", "outcomes", "cpu s"
    );
    std::thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(name) = next else { return Ok(()) };
                let tally = fuzz(name, limits).with_context(|| format!("target {name}"))?;
                line(name, &tally);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((name, tally));
            }
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let mut list = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    list.sort_by_key(|(name, _)| *name);
    let sum = |f: fn(&Tally) -> u64| list.iter().map(|(_, t)| f(t)).sum::<u64>();
    let kind = |kind: &str| list.iter().map(|(_, t)| t.count(kind) as u64).sum::<u64>();
    let faults = sum(|t| t.faults.len() as u64);
    let total = json!({
        "tried": sum(|t| t.tried), "caught": sum(|t| t.refused + t.accepted), "survivors": faults,
        "wrong_answers": kind("wrong"), "panics": kind("panic"), "hangs": kind("hang"),
        "memory": kind("memory"),
        "seconds": start.elapsed().as_secs_f64(), "seed": limits.seed,
        "targets": list.iter().map(|(name, t)| t.to_json(name)).collect::<Vec<_>>(),
    });
    println!(
        "{} inputs in {:.0} s: {} refused, {} accepted, {} wrong answers, {} panics, {} hangs, {} beyond \
         their memory",
        total["tried"],
        start.elapsed().as_secs_f64(),
        sum(|t| t.refused),
        sum(|t| t.accepted),
        kind("wrong"),
        kind("panic"),
        kind("hang"),
        kind("memory"),
    );
    if let Some(out) = out {
        std::fs::write(out, serde_json::to_string_pretty(&total)?)
            .with_context(|| format!("writing {}", out.display()))?;
    }
    Ok(faults == 0)
}

fn line(name: &str, t: &Tally) {
    println!(
        "{name:<20} {:>10} {:>10} {:>9} {:>8} {:>7.0}  {}",
        t.tried,
        t.refused,
        t.accepted,
        t.classes,
        t.seconds,
        t.faults.len()
    );
    for [kind, detail, file] in &t.faults {
        println!("  {kind}: {detail}\n    fuzz --target {name} --replay {file}");
    }
}

/// One target, in as many processes as it takes.
fn fuzz(name: &str, limits: &Limits) -> anyhow::Result<Tally> {
    let mut total = Tally::default();
    for life in 0..LIVES {
        let left = Limits {
            seconds: limits.seconds - total.seconds,
            inputs: limits.inputs.saturating_sub(total.tried),
            seed: limits.seed + 1000 * life as u64,
            renew: limits.renew,
        };
        if left.seconds <= 0.0 || left.inputs == 0 || !live(name, &left, &mut total)? {
            break;
        }
    }
    Ok(total)
}

/// One process; true if it died and has to be started again.
fn live(name: &str, limits: &Limits, total: &mut Tally) -> anyhow::Result<bool> {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe()?);
    command.args(["--child", "--target", name, "--seed", &limits.seed.to_string()]);
    command.args(["--seconds", &limits.seconds.to_string(), "--inputs", &limits.inputs.to_string()]);
    command.args(limits.renew.then_some("--renew")).env("RAYON_NUM_THREADS", "1");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the child could not be started")?;
    let output = child.stdout.take().context("no output from the child")?;
    let errors = child.stderr.take().context("no errors from the child")?;
    let errors =
        std::thread::spawn(move || BufReader::new(errors).lines().map_while(Result::ok).collect::<Vec<_>>());
    let (mut life, mut done) = (Tally::default(), false);
    for line in BufReader::new(output).lines() {
        let Ok(report) = serde_json::from_str::<Value>(&line?) else { continue };
        let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
        if report["fault"].is_string() {
            total.faults.push([text("fault"), text("detail"), text("file")]);
            continue;
        }
        done |= report["done"].is_object();
        let counts = if report["done"].is_object() { &report["done"] } else { &report["progress"] };
        let number = |key: &str| counts[key].as_u64().unwrap_or(0);
        (life.tried, life.refused, life.accepted) = (number("tried"), number("refused"), number("accepted"));
        life.classes = number("classes");
        life.seconds = counts["seconds"].as_f64().unwrap_or(0.0);
    }
    let status = child.wait()?;
    let said = errors.join().unwrap_or_default();
    total.tried += life.tried;
    total.refused += life.refused;
    total.accepted += life.accepted;
    total.classes = total.classes.max(life.classes);
    total.seconds += life.seconds;
    if status.success() && done {
        return Ok(false);
    }
    let input = std::fs::read(scratch(name)).unwrap_or_default();
    let Some((length, input)) = input.split_first_chunk() else {
        anyhow::bail!("the child ended before its first input: {status}; {}", said.join("; "));
    };
    anyhow::ensure!(
        status.code().is_none_or(|code| code == HUNG || code == 101 || code > 128),
        "the child failed: {status}"
    );
    let input = &input[..(u64::from_le_bytes(*length) as usize).min(input.len())];
    let hung = status.code() == Some(HUNG);
    let starved = said.iter().find(|line| line.starts_with("memory allocation of"));
    let kind = if hung {
        "hang"
    } else if starved.is_some() {
        "memory"
    } else {
        "panic"
    };
    let detail = match status.signal() {
        _ if starved.is_some() => starved.cloned().unwrap_or_default(),
        Some(signal) => format!("the process died by signal {signal}"),
        None if hung => "the input took too long".into(),
        None => format!("the process ended with {status}"),
    };
    total.tried += 1;
    total.faults.push([kind.into(), detail, save(name, kind, input)?]);
    Ok(true)
}
