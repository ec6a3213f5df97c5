//! The committed corpus: for each class of outcome the smallest input that was found, made smaller.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::targets::Target;

/// Most files and bytes of a target.
const FILES: usize = 32;
const BYTES: usize = 48 << 10;
/// Time to make one input smaller.
const PATIENCE: Duration = Duration::from_millis(200);

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// The inputs of a target, in the order of their names.
pub(crate) fn load(name: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder(name)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("reading {}", file.display()));
    files.iter().map(read).collect()
}

/// Replaces the corpus of a target. What is a fault is saved elsewhere: the corpus passes.
pub(crate) fn renew(
    name: &str,
    target: &dyn Target,
    classes: &HashMap<String, Vec<u8>>,
    class: impl Fn(&dyn Target, &[u8]) -> String,
) -> anyhow::Result<()> {
    let passes = |kind: &str| !["wrong: ", "panic: ", "memory: "].iter().any(|fault| kind.starts_with(fault));
    let classes = classes.iter().filter(|(kind, _)| passes(kind));
    let mut found: Vec<(String, Vec<u8>)> = classes.map(|(k, v)| (k.clone(), v.clone())).collect();
    found.sort_by_key(|(_, input)| input.len());
    let folder = folder(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let (mut files, mut bytes) = (0, 0);
    for (kind, input) in found {
        let small = minimise(&input, |shorter| class(target, shorter) == kind);
        if files < FILES && bytes + small.len() <= BYTES {
            (files, bytes) = (files + 1, bytes + small.len());
            std::fs::write(folder.join(&blake3::hash(&small).to_hex()[..16]), small)?;
        }
    }
    Ok(())
}

/// Cuts runs out, largest first, as long as the outcome stays in its class.
fn minimise(input: &[u8], same: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut best, start) = (input.to_vec(), Instant::now());
    let mut run = best.len() / 2;
    while run > 0 && start.elapsed() < PATIENCE {
        let mut at = 0;
        while at < best.len() && start.elapsed() < PATIENCE {
            let shorter = [&best[..at], &best[(at + run).min(best.len())..]].concat();
            if same(&shorter) { best = shorter } else { at += run }
        }
        run /= 2;
    }
    best
}
