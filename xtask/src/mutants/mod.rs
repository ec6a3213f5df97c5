//! `cargo xtask mutants`: does a test fail when the code is wrong?
//!
//! cargo-mutants lists the edits of the modules where a fault is invisible in results: keys,
//! encryption, wire, parameters, the noise model, the plan's identity, checkpoints, placement, the
//! reference pass. Building once for each would take days, so all of them go into one tree, each
//! behind a switch; a test runs only for the mutants that it reaches. Survivors are compared with
//! `xtask/mutants/survivors.txt`, which gives a reason for each.
//! `--named` applies the edits of `xtask/mutants/named.json` instead, each a fault that somebody
//! made or feared. Everything happens in a work tree of its own under `target/mutants`, which
//! shares the build folder.

mod compile;
mod kept;
mod list;
mod named;
mod trial;
mod weave;

use crate::flags::Mutants;
use crate::rng::Rng;
use anyhow::{Context, bail};
use list::Mutant;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trial::{Fate, Suite};
use xshell::{Shell, cmd};

/// Files that are mutated. The tests of their own package have to notice.
const FILES: [&str; 11] = [
    "crates/ckks/src/keys/*.rs",
    "crates/ckks/src/encrypt.rs",
    "crates/ckks/src/decrypted.rs",
    "crates/ckks/src/wire/*.rs",
    "crates/ckks/src/params/*.rs",
    "crates/circuits/src/slots/noise/*.rs",
    "crates/infer/src/plan/identity.rs",
    "crates/infer/src/plan/guard.rs",
    "crates/infer/src/checkpoint.rs",
    "crates/infer/src/placement.rs",
    "crates/model/src/forward/*.rs",
];

/// Survivors that are known, each with its reason: `reason | file: mutation`.
const KNOWN: &str = "xtask/mutants/survivors.txt";

/// Counts for the closing line and the JSON file.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) tried: usize,
    pub(super) caught: usize,
    pub(super) survivors: Vec<String>,
    /// Edits that do not apply or do not compile.
    pub(super) broken: Vec<String>,
    /// Edits that compile, but behind no switch.
    left_out: Vec<String>,
    /// All edits that could be tried.
    possible: usize,
}

/// Runs the mutants; an error for a survivor without a reason, or a reason without its survivor.
pub(crate) fn run(sh: &Shell, flags: &Mutants) -> anyhow::Result<()> {
    let counts = trials(sh, flags)?;
    if flags.list {
        return Ok(());
    }
    let Counts { tried, caught, survivors, broken, left_out, possible } = &counts;
    println!(
        "{tried} mutants of {possible}, {caught} caught, {} survivors; {} do not build, {} fit no switch",
        survivors.len(),
        broken.len(),
        left_out.len()
    );
    if let Some(file) = &flags.json {
        let all = json!({"tried": tried, "caught": caught, "survivors": survivors.len(),
            "wrong_answers": 0, "panics": 0, "possible": possible, "surviving": survivors,
            "broken": broken, "left_out": left_out});
        std::fs::write(file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("{}", file.display()))?;
    }
    if flags.named {
        survivors.iter().for_each(|name| println!("survives: {name}"));
        broken.iter().for_each(|name| println!("does not apply: {name}"));
        anyhow::ensure!(survivors.is_empty() && broken.is_empty(), "the named mutants are not all caught");
        return Ok(());
    }
    compare(survivors, tried == possible && flags.filter.is_none())
}

/// Against the committed list; stale entries show only when all mutants ran.
fn compare(survivors: &[String], all: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(KNOWN).with_context(|| format!("reading {KNOWN}"))?;
    let mut known = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (reason, mutant) =
            line.split_once(" | ").with_context(|| format!("{KNOWN}: no reason in `{line}`"))?;
        known.insert(mutant, reason);
    }
    let here: BTreeSet<&str> = survivors.iter().map(String::as_str).collect();
    let new: Vec<&&str> = here.iter().filter(|mutant| !known.contains_key(**mutant)).collect();
    let stale: Vec<&&str> = known.keys().filter(|mutant| all && !here.contains(**mutant)).collect();
    new.iter().for_each(|mutant| println!("survives without a reason: {mutant}"));
    stale.iter().for_each(|mutant| println!("no longer survives, take it from the list: {mutant}"));
    if !new.is_empty() || !stale.is_empty() {
        bail!("{} survivors without a reason, {} stale entries in {KNOWN}", new.len(), stale.len());
    }
    Ok(())
}

/// A work tree of the last commit, and the folder where its files are edited and built.
pub(super) struct Scratch {
    pub(super) whole: PathBuf,
    pub(super) tree: PathBuf,
}

impl Scratch {
    pub(super) fn new(sh: &Shell) -> anyhow::Result<Self> {
        let folder = crate::build::target_dir(sh).join("mutants");
        let (whole, tree) = (folder.join("whole"), folder.join("tree"));
        let head = cmd!(sh, "git rev-parse HEAD").quiet().read()?;
        if whole.join("Cargo.toml").exists() {
            cmd!(sh, "git -C {whole} checkout --quiet --force --detach {head}").quiet().run()?;
            cmd!(sh, "git -C {whole} clean --quiet --force -d").quiet().run()?;
        } else {
            cmd!(sh, "git worktree prune").quiet().run()?;
            cmd!(sh, "git worktree add --quiet --force --detach {whole} {head}").quiet().run()?;
        }
        Ok(Self { whole, tree })
    }

    /// Makes the tree like the commit but for those files, which somebody else writes. A file that
    /// stays as it is keeps its time, so that cargo does not build it again.
    pub(super) fn lay_out(&self, except: &HashSet<PathBuf>) -> anyhow::Result<()> {
        let here = files(&self.whole)?;
        for name in &here {
            let (from, to) = (self.whole.join(name), self.tree.join(name));
            if except.contains(name) {
                continue;
            }
            let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
            if std::fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&to, bytes).with_context(|| to.display().to_string())?;
        }
        let there = if self.tree.is_dir() { files(&self.tree)? } else { BTreeSet::new() };
        for name in there.difference(&here) {
            std::fs::remove_file(self.tree.join(name))?;
        }
        Ok(())
    }
}

/// Files below a folder, by their paths from there; without git's own.
fn files(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(inner) = folders.pop() {
        let path = folder.join(&inner);
        for entry in std::fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let entry = entry?;
            let name = inner.join(entry.file_name());
            if entry.file_name() == ".git" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(name);
            } else {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

/// Whether the filter lets it through.
fn wanted(flags: &Mutants, name: &str, file: &str) -> bool {
    flags.filter.as_ref().is_none_or(|text| name.contains(text.as_str()) || file.contains(text.as_str()))
}

/// All mutants in one build, the named ones first, the others in an order of the seed until the
/// time is up.
fn trials(sh: &Shell, flags: &Mutants) -> anyhow::Result<Counts> {
    let target = crate::build::target_dir(sh);
    let scratch = Scratch::new(sh)?;
    let mut mutants = named::switched(&scratch.whole)?;
    if !flags.named {
        if cmd!(sh, "cargo mutants --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
            bail!("cargo-mutants is not installed: `cargo install cargo-mutants --locked`");
        }
        mutants.extend(list::mutants(sh, &scratch.whole, &FILES)?);
    }
    mutants.retain(|m| wanted(flags, &m.name, &m.file));
    if flags.list {
        mutants.iter().for_each(|mutant| println!("{}", mutant.name));
        return Ok(Counts::default());
    }
    let mut counts = Counts::default();
    let left_out = switched(flags, &scratch, &target, &mutants, &mut counts)?;
    if flags.named {
        let broken = &counts.broken;
        let is_done = |m: &&Mutant| !left_out.contains(&m.id) && !broken.contains(&m.name);
        let done = mutants.iter().filter(is_done).map(|m| m.name.clone()).collect();
        counts.left_out.clear();
        counts.broken.clear();
        named::alone(sh, flags, &scratch, &done, &mut counts)?;
    }
    counts.survivors.sort();
    Ok(counts)
}

/// Builds and tries what fits switches; the numbers of what does not.
fn switched(
    flags: &Mutants,
    scratch: &Scratch,
    target: &Path,
    mutants: &[Mutant],
    counts: &mut Counts,
) -> anyhow::Result<HashSet<u32>> {
    let head =
        std::process::Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&scratch.whole).output()?;
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let kept = kept::Kept::open(&target.join("mutants/fates.jsonl"), &scratch.whole, head, flags.fresh)?;
    let mut fates: Vec<Option<Fate>> = mutants.iter().map(|mutant| kept.fate(mutant)).collect();
    let known = fates.iter().flatten().count();
    println!("{known} of {} results are known from earlier runs", mutants.len());
    if known < mutants.len() {
        fates = tried(flags, scratch, target, mutants, &kept)?;
    }
    let mut left_out = HashSet::new();
    let mut files: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (mutant, fate) in mutants.iter().zip(fates) {
        match fate {
            Some(Fate::Broken) => counts.broken.push(mutant.name.clone()),
            Some(Fate::NoSwitch) => {
                left_out.insert(mutant.id);
                counts.left_out.push(mutant.name.clone());
            }
            None => counts.possible += 1,
            Some(fate) => {
                let caught = usize::from(matches!(fate, Fate::Caught(_)));
                (counts.possible, counts.tried) = (counts.possible + 1, counts.tried + 1);
                counts.caught += caught;
                let count = files.entry(&mutant.file).or_default();
                *count = [count[0] + caught, count[1] + 1];
                if caught == 0 {
                    counts.survivors.push(mutant.name.clone());
                }
            }
        }
    }
    files.iter().for_each(|(file, [caught, tried])| println!("{caught:>5} of {tried:<5} {file}"));
    Ok(left_out)
}

/// Weaves, builds and tries what has no result yet, the named ones first; results in the order of
/// the mutants.
fn tried(
    flags: &Mutants,
    scratch: &Scratch,
    target: &Path,
    mutants: &[Mutant],
    kept: &kept::Kept,
) -> anyhow::Result<Vec<Option<Fate>>> {
    let unbuilt = |m: &&Mutant| !matches!(kept.fate(m), Some(Fate::Broken | Fate::NoSwitch));
    let woven: Vec<Mutant> = mutants.iter().filter(unbuilt).cloned().collect();
    let packages: BTreeSet<&str> = woven.iter().map(|m| m.package.as_str()).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let built = compile::compile(scratch, target, &packages, &woven)?;
    for mutant in &woven {
        if built.unviable.contains(&mutant.id) {
            kept.add(mutant, &Fate::Broken);
        } else if built.left_out.contains(&mutant.id) {
            kept.add(mutant, &Fate::NoSwitch);
        }
    }
    let jobs = flags.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let suite = Suite::measure(&scratch.tree, &built.programs, &target.join("mutants"), jobs)?;
    let builds = |m: &&Mutant| !built.unviable.contains(&m.id) && !built.left_out.contains(&m.id);
    let (mut order, mut others): (Vec<&Mutant>, Vec<&Mutant>) =
        woven.iter().filter(builds).partition(|m| m.genre == weave::NAMED);
    shuffle(&mut others, flags.seed.unwrap_or(1));
    order.append(&mut others);
    let until = Instant::now() + Duration::from_secs_f64(flags.seconds.unwrap_or(1e6));
    let now: HashMap<u32, Fate> =
        suite.try_all(&order, kept, until)?.into_iter().map(|(at, fate)| (order[at].id, fate)).collect();
    let fate = |m: &Mutant| {
        let unbuilt = if built.unviable.contains(&m.id) {
            Some(Fate::Broken)
        } else if built.left_out.contains(&m.id) {
            Some(Fate::NoSwitch)
        } else {
            None
        };
        unbuilt.or_else(|| now.get(&m.id).cloned()).or_else(|| kept.fate(m))
    };
    Ok(mutants.iter().map(fate).collect())
}

/// An order that depends on the seed alone: a part of it is a sample.
fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut rng = Rng::new(seed);
    for end in (1..list.len()).rev() {
        list.swap(end, rng.below(end + 1));
    }
}
