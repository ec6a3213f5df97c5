//! `cargo xtask soak`: what happens to the program happens here: it is killed, its disk fills, its
//! files are damaged.
//!
//! Everything runs in a small ring without security on `models/tiny`, with the program as users
//! have it. A trial passes if the program refuses with status 2 and one line, or gives what an
//! undisturbed run gives, bit for bit. A wrong answer, a panic, a crash, and finished work that has
//! to be done again are faults.

mod damage;
mod full;
mod kill;
mod world;

use crate::flags::Soak;
use anyhow::Context;
use serde_json::json;
use std::time::Instant;
use world::World;
use xshell::Shell;

/// What a trial found.
pub(super) enum Fault {
    /// Done, with another result.
    Wrong(String),
    /// Status 101, a signal, or the word `panicked`.
    Panic(String),
    /// Finished work that was done again, or cannot be gone on with.
    Lost(String),
}

/// Counts of trials.
#[derive(Default)]
pub(super) struct Tally {
    groups: Vec<(String, u64, Vec<Fault>)>,
}

impl Tally {
    /// Starts a group of trials.
    fn group(&mut self, name: &str) {
        println!("== {name}");
        self.groups.push((name.into(), 0, Vec::new()));
    }

    /// Counts a trial of the last group.
    fn add(&mut self, what: &str, result: Result<(), Fault>) {
        let Some((_, tried, faults)) = self.groups.last_mut() else { return };
        *tried += 1;
        if let Err(fault) = result {
            let (Fault::Wrong(text) | Fault::Panic(text) | Fault::Lost(text)) = &fault;
            println!("  {what}: {text}");
            faults.push(fault.about(what));
        }
    }
}

impl Fault {
    fn about(self, what: &str) -> Self {
        let name = |text: String| format!("{what}: {text}");
        match self {
            Self::Wrong(text) => Self::Wrong(name(text)),
            Self::Panic(text) => Self::Panic(name(text)),
            Self::Lost(text) => Self::Lost(name(text)),
        }
    }

    fn kind(&self) -> (&'static str, &str) {
        match self {
            Self::Wrong(text) => ("wrong", text),
            Self::Panic(text) => ("panic", text),
            Self::Lost(text) => ("lost", text),
        }
    }
}

/// Runs all groups; an error if a trial failed.
pub(crate) fn run(sh: &Shell, flags: &Soak) -> anyhow::Result<()> {
    let start = Instant::now();
    println!("machine: {}", crate::machine::describe());
    let program = crate::build::cipherlm(sh)?;
    let mut world = World::new(program, flags.seed.unwrap_or(1), flags.seconds)?;
    let mut tally = Tally::default();
    let wanted = |name: &str| match &flags.only {
        Some(only) => only == name,
        None => name != "train" || flags.train,
    };
    if wanted("keygen") {
        kill::keygen(&mut world, &mut tally)?;
    }
    if wanted("run") {
        kill::run(&mut world, &mut tally)?;
    }
    if wanted("full") {
        full::all(&mut world, &mut tally)?;
    }
    if wanted("damage") {
        damage::all(&mut world, &mut tally)?;
    }
    if wanted("train") {
        kill::train(sh, &mut world, &mut tally)?;
    }
    anyhow::ensure!(!tally.groups.is_empty(), "--only takes keygen, run, full, damage or train");
    let faults: Vec<(&str, &str)> =
        tally.groups.iter().flat_map(|(_, _, f)| f.iter().map(Fault::kind)).collect();
    let count = |kind: &str| faults.iter().filter(|(k, _)| *k == kind).count() as u64;
    let tried: u64 = tally.groups.iter().map(|(_, tried, _)| tried).sum();
    let (survivors, seconds) = (faults.len() as u64, start.elapsed().as_secs_f64());
    println!(
        "{tried} trials in {seconds:.0} s: {} wrong answers, {} panics, {} times work lost",
        count("wrong"),
        count("panic"),
        count("lost")
    );
    if let Some(file) = &flags.json {
        let groups: Vec<_> = tally
            .groups
            .iter()
            .map(|(name, tried, faults)| json!({"group": name, "tried": tried, "survivors": faults.len()}))
            .collect();
        let list: Vec<_> = faults.iter().map(|(kind, text)| json!({"kind": kind, "detail": text})).collect();
        let all = json!({"tried": tried, "caught": tried - survivors, "survivors": survivors,
            "wrong_answers": count("wrong"), "panics": count("panic"), "lost_work": count("lost"),
            "seconds": seconds, "groups": groups, "faults": list});
        std::fs::write(file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("{}", file.display()))?;
    }
    anyhow::ensure!(faults.is_empty(), "{survivors} of {tried} trials failed");
    Ok(())
}
