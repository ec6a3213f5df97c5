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
mod list;
mod named;
mod trial;
mod weave;

use crate::flags::Mutants;
use crate::rng::Rng;
use anyhow::{Context, bail};
use list::Mutant;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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
        let all = json!({"tried": tried, "caught": caught, "survivors": survivors.len(), "wrong_answers": 0, "panics": 0,
            "possible": possible, "surviving": survivors, "broken": broken, "left_out": left_out});
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

/// A work tree of the last commit, to be edited at will.
pub(super) fn scratch(sh: &Shell) -> anyhow::Result<PathBuf> {
    let tree = crate::build::target_dir(sh).join("mutants/tree");
    if tree.join("Cargo.toml").exists() {
        let head = cmd!(sh, "git rev-parse HEAD").quiet().read()?;
        cmd!(sh, "git -C {tree} checkout --quiet --force --detach {head}").quiet().run()?;
    } else {
        cmd!(sh, "git worktree prune").quiet().run()?;
        cmd!(sh, "git worktree add --quiet --force --detach {tree} HEAD").quiet().run()?;
    }
    cmd!(sh, "git -C {tree} clean --quiet --force -d --exclude target").quiet().run()?;
    Ok(tree)
}

/// Whether the filter lets it through.
fn wanted(flags: &Mutants, name: &str, file: &str) -> bool {
    flags.filter.as_ref().is_none_or(|text| name.contains(text.as_str()) || file.contains(text.as_str()))
}

/// All mutants in one build, the named ones first, the others in an order of the seed until the
/// time is up.
fn trials(sh: &Shell, flags: &Mutants) -> anyhow::Result<Counts> {
    let target = crate::build::target_dir(sh);
    let tree = scratch(sh)?;
    let mut mutants = named::switched(&tree)?;
    if !flags.named {
        if cmd!(sh, "cargo mutants --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
            bail!("cargo-mutants is not installed: `cargo install cargo-mutants --locked`");
        }
        mutants.extend(list::mutants(sh, &tree, &FILES)?);
    }
    mutants.retain(|m| wanted(flags, &m.name, &m.file));
    if flags.list {
        mutants.iter().for_each(|mutant| println!("{}", mutant.name));
        return Ok(Counts::default());
    }
    let mut counts = Counts::default();
    let left_out = switched(flags, &tree, &target, &mutants, &mut counts)?;
    if flags.named {
        let done = mutants.iter().filter(|m| !left_out.contains(&m.id)).map(|m| m.name.clone()).collect();
        counts.left_out.clear();
        named::alone(sh, flags, &done, &mut counts)?;
    }
    counts.survivors.sort();
    Ok(counts)
}

/// Builds and tries what fits switches; the numbers of what does not.
fn switched(
    flags: &Mutants,
    tree: &Path,
    target: &Path,
    mutants: &[Mutant],
    counts: &mut Counts,
) -> anyhow::Result<HashSet<u32>> {
    if mutants.is_empty() {
        return Ok(HashSet::new());
    }
    let packages: BTreeSet<&str> = mutants.iter().map(|m| m.package.as_str()).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let built = compile::compile(tree, target, &packages, mutants)?;
    let jobs = flags.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let suite = Suite::measure(tree, &built.programs, &target.join("mutants"), jobs)?;
    let builds = |m: &&Mutant| !built.unviable.contains(&m.id) && !built.left_out.contains(&m.id);
    let (mut order, mut others): (Vec<&Mutant>, Vec<&Mutant>) =
        mutants.iter().filter(builds).partition(|m| m.genre == weave::NAMED);
    shuffle(&mut others, flags.seed.unwrap_or(1));
    order.append(&mut others);
    let until = Instant::now() + Duration::from_secs_f64(flags.seconds.unwrap_or(1e6));
    let fates = suite.try_all(&order, until);
    let name = |id: &u32| mutants.iter().find(|m| m.id == *id).map_or(String::new(), |m| m.name.clone());
    (counts.tried, counts.possible) = (fates.len(), order.len());
    counts.broken.extend(built.unviable.iter().map(name));
    counts.left_out.extend(built.left_out.iter().map(name));
    let mut files: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (at, fate) in fates {
        let count = files.entry(&order[at].file).or_default();
        count[1] += 1;
        if let Fate::Caught(_) = fate {
            count[0] += 1;
            counts.caught += 1;
        } else {
            counts.survivors.push(order[at].name.clone());
        }
    }
    files.iter().for_each(|(file, [caught, tried])| println!("{caught:>5} of {tried:<5} {file}"));
    Ok(built.left_out)
}

/// An order that depends on the seed alone: a part of it is a sample.
fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut rng = Rng::new(seed);
    for end in (1..list.len()).rev() {
        list.swap(end, rng.below(end + 1));
    }
}
