//! `kill -9` at random moments, then the same command again.

use super::world::{End, World, contents, copy};
use super::{Fault, Tally};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use xshell::{Shell, cmd};

/// Kills of each command that come before its end.
const KILLS: usize = 50;
/// Moments drawn for each of them at most: on a busy machine many come too late.
const DRAWS: usize = 8;

/// Draws moments until so many kills came before the end of what they kill. A trial gives its
/// moment, and a result if it counts.
fn kills(
    world: &mut World,
    tally: &mut Tally,
    rounds: usize,
    mut trial: impl FnMut(&mut World) -> anyhow::Result<(f64, Option<Result<(), Fault>>)>,
) -> anyhow::Result<()> {
    let mut counted = 0;
    for draw in 0..rounds * DRAWS {
        let (after, result) = trial(world)?;
        if let Some(result) = result {
            tally.add(&format!("kill {draw} after {after:.3} s"), result);
            counted += 1;
        }
        if counted == rounds {
            break;
        }
    }
    println!("  {counted} of {rounds} kills");
    Ok(())
}

fn moment(world: &mut World, seconds: f64) -> f64 {
    seconds * world.rng.below(10_000) as f64 / 10_000.0
}

/// Key generation: the secret that was there stays, and the keys are those that an undisturbed run
/// makes of it.
pub(super) fn keygen(world: &mut World, tally: &mut Tally) -> anyhow::Result<()> {
    tally.group("kill -9 of keygen");
    let seconds = world.seconds[0];
    let rounds = world.rounds(KILLS, 0.2, 4.0 * seconds);
    kills(world, tally, rounds, |world| {
        let out = world.at("killed");
        let _ = std::fs::remove_dir_all(&out);
        let after = moment(world, seconds);
        let args = world.keygen_args(&out);
        let late = world.kill_after(&args, after)?;
        Ok((after, (!late).then(|| keygen_again(world, &out))))
    })
}

fn keygen_again(world: &World, out: &Path) -> Result<(), Fault> {
    let secret = std::fs::read(out.join("secret.key")).ok();
    let args = [world.keygen_args(out), vec!["--resume".into()]].concat();
    if let End::Refused(why) = world.call(&args)? {
        return Err(Fault::Lost(format!("not resumed: {why}")));
    }
    let lost = |error: anyhow::Error| Fault::Lost(error.to_string());
    let made = std::fs::read(out.join("secret.key")).map_err(|e| lost(e.into()))?;
    if secret.is_some_and(|secret| secret != made) {
        return Err(Fault::Lost("the secret key was replaced".into()));
    }
    // The keys of the same secret, made without disturbance.
    let fresh = out.with_extension("fresh");
    let _ = std::fs::remove_dir_all(&fresh);
    copy(out, &fresh).and_then(|()| Ok(std::fs::remove_dir_all(fresh.join("server"))?)).map_err(lost)?;
    let args = [world.keygen_args(&fresh), vec!["--resume".into()]].concat();
    if let End::Refused(why) = world.call(&args)? {
        return Err(Fault::Lost(format!("a lost folder of keys is not made again: {why}")));
    }
    let resumed = contents(&out.join("server")).map_err(lost)?;
    let whole = contents(&fresh.join("server")).map_err(lost)?;
    // The pair of the ephemeral secret is drawn anew, and only fits itself.
    let differ: Vec<&String> = whole
        .iter()
        .filter(|(n, b)| !n.starts_with("ephemeral") && resumed.get(*n) != Some(b))
        .map(|(n, _)| n)
        .collect();
    if !differ.is_empty() || resumed.len() != whole.len() {
        return Err(Fault::Wrong(format!(
            "{} files, not {}; other bytes in {differ:?}",
            resumed.len(),
            whole.len()
        )));
    }
    Ok(())
}

/// A run with checkpoints: the answer is the undisturbed one, and no finished step is computed
/// again.
pub(super) fn run(world: &mut World, tally: &mut Tally) -> anyhow::Result<()> {
    tally.group("kill -9 of run");
    let seconds = 1.2 * world.seconds[1];
    let rounds = world.rounds(KILLS, 0.3, 2.0 * seconds);
    kills(world, tally, rounds, |world| {
        let (out, kept) = (world.at("killed.bin"), world.at("killed.steps"));
        let _ = std::fs::remove_file(&out);
        let _ = std::fs::remove_dir_all(&kept);
        let after = moment(world, seconds);
        let kept_text = kept.display().to_string();
        let args = world.run_args(&out, &["--checkpoints", &kept_text, "--checkpoint-after", "0"]);
        let late = world.kill_after(&args, after)?;
        Ok((after, (!late).then(|| run_again(world, &args, &out, &kept))))
    })
}

fn steps(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "step")).count() as u64
}

fn run_again(world: &World, args: &[String], out: &Path, kept: &Path) -> Result<(), Fault> {
    if out.exists() {
        // It was killed after its work.
        return world.same_answer(out);
    }
    let before = steps(kept);
    match world.call(args)? {
        End::Refused(why) => Err(Fault::Lost(format!("not resumed: {why}"))),
        End::Done(said) => {
            world.same_answer(out)?;
            let said: Value = serde_json::from_str(&said).unwrap_or_default();
            let (computed, all) =
                (said["steps_computed"].as_u64().unwrap_or(0), said["steps"].as_u64().unwrap_or(0));
            // The input of the graph is no step.
            if computed + before > all + 1 {
                return Err(Fault::Lost(format!(
                    "{before} steps were kept, {computed} of {all} computed again"
                )));
            }
            Ok(())
        }
    }
}

/// A training run of a few seconds: checkpoints after a kill and a resumption are those of an
/// undisturbed run.
pub(super) fn train(sh: &Shell, world: &mut World, tally: &mut Tally) -> anyhow::Result<()> {
    tally.group("kill -9 of training");
    let whole = crate::build::WHOLE;
    cmd!(sh, "cargo build --quiet {whole...} --bin cipherlm").run()?;
    let stage = |name: &str, steps: u64| {
        json!({"name": name, "train": {"seed": 1, "batch": 4, "steps": steps, "schedule": {"peak": 3e-3},
            "evaluate_windows": 8, "save_every": 5}})
    };
    let run = |folder: &Path| {
        json!({"name": "soak", "data": {"generated": {"seed": 1, "stories": 200}},
            "tokenizer": {"train": {"vocab": 280}},
            "model": {"vocab": 280, "context": 16, "layers": 1, "width": 16, "heads": 2, "feed_forward": 32,
                "rotary": 8, "attention": "softmax"},
            "stages": [stage("one", 60), stage("two", 40)], "folder": folder})
    };
    let file = world.at("train.json");
    let start = |folder: &Path, resume: bool| -> anyhow::Result<Vec<String>> {
        std::fs::write(&file, serde_json::to_vec(&run(folder))?)?;
        let mut args = vec!["train".to_owned(), file.display().to_string()];
        args.extend(resume.then(|| "--resume".to_owned()));
        Ok(args)
    };
    let reference = world.at("train.whole");
    let clock = Instant::now();
    world.must(&start(&reference, false)?)?;
    let seconds = clock.elapsed().as_secs_f64();
    let rounds = world.rounds(KILLS, 0.5, 2.0 * seconds);
    kills(world, tally, rounds, |world| {
        let folder = world.at("train.killed");
        let _ = std::fs::remove_dir_all(&folder);
        let after = moment(world, seconds);
        let args = start(&folder, false)?;
        if world.kill_after(&args, after)? {
            return Ok((after, None));
        }
        let again = start(&folder, folder.exists())?;
        let result = match world.call(&again) {
            Err(fault) => Err(fault),
            Ok(End::Refused(why)) => Err(Fault::Lost(format!("not resumed: {why}"))),
            Ok(End::Done(_)) => same_weights(&reference, &folder),
        };
        Ok((after, Some(result)))
    })
}

fn same_weights(whole: &Path, resumed: &Path) -> Result<(), Fault> {
    let read = |folder: &Path| contents(folder).map_err(|error| Fault::Lost(error.to_string()));
    let (whole, resumed) = (read(whole)?, read(resumed)?);
    let weights = |name: &&String| name.ends_with("last.safetensors") || name.ends_with("best.safetensors");
    let differ: Vec<&String> =
        whole.keys().filter(weights).filter(|n| whole.get(*n) != resumed.get(*n)).collect();
    if differ.is_empty() { Ok(()) } else { Err(Fault::Wrong(format!("other weights in {differ:?}"))) }
}

/// Two at the same time with one folder of checkpoints: both answers are right, or one is refused.
pub(super) fn together(world: &World, tally: &mut Tally) -> anyhow::Result<()> {
    let kept = world.at("shared.steps");
    let _ = std::fs::remove_dir_all(&kept);
    let text = kept.display().to_string();
    let more = ["--checkpoints", text.as_str(), "--checkpoint-after", "0", "--force"];
    let outs = [world.at("one.bin"), world.at("two.bin")];
    let mut children = Vec::new();
    for out in &outs {
        let args = world.run_args(out, &more);
        children.push(world.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    for (child, out) in children.iter_mut().zip(&outs) {
        let result = match child.wait()?.code() {
            Some(0) => world.same_answer(out),
            Some(2) => Ok(()),
            code => Err(Fault::Panic(format!("status {code:?}"))),
        };
        tally.add("two runs with one folder of checkpoints", result);
    }
    Ok(())
}
