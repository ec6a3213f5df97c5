//! Every kind of file with a flipped bit, cut short, emptied, lengthened, or with another of its
//! kind in its place.

use super::world::{End, World, copy};
use super::{Fault, Tally};
use crate::rng::Rng;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Damages of each file.
const DAMAGES: usize = 12;

/// A kind of file, and the command that has to notice or to give the right answer.
struct Kind {
    name: &'static str,
    file: PathBuf,
    trial: fn(&World) -> Result<(), Fault>,
}

/// One damage, in words.
fn damage(bytes: &mut Vec<u8>, number: usize, rng: &mut Rng) -> String {
    let length = bytes.len();
    match number {
        0 => {
            bytes.clear();
            "emptied".into()
        }
        1 => {
            bytes.truncate(length / 2);
            format!("cut to {} of {length} bytes", length / 2)
        }
        2 => {
            bytes.truncate(length.saturating_sub(1));
            "without its last byte".into()
        }
        3 => {
            bytes.push(0);
            "with one byte more".into()
        }
        4 => {
            bytes.fill(0);
            "all zeros".into()
        }
        _ => {
            // The front twice as often: headers and small fields stand there.
            let at = if number.is_multiple_of(2) { rng.below(length.min(160)) } else { rng.below(length) };
            let bit = rng.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            format!("bit {bit} of byte {at} flipped")
        }
    }
}

/// Tries all kinds.
pub(super) fn all(world: &mut World, tally: &mut Tally) -> anyhow::Result<()> {
    // A model of its own, to be damaged.
    let shipped = world.model.clone();
    world.model = world.at("model");
    copy(&shipped, &world.at("model"))?;
    let kept = world.at("steps");
    let kept_text = kept.display().to_string();
    world.must(
        &world.run_args(&world.at("first.bin"), &["--checkpoints", &kept_text, "--checkpoint-after", "0"]),
    )?;
    let mut steps: Vec<PathBuf> = std::fs::read_dir(&kept)?.flatten().map(|entry| entry.path()).collect();
    steps.retain(|path| path.extension().is_some_and(|e| e == "step"));
    steps.sort();
    let server = world.keys().join("server");
    let kinds = [
        Kind { name: "secret", file: world.keys().join("secret.key"), trial: by_decrypting },
        Kind { name: "client's keys.json", file: world.keys().join("keys.json"), trial: by_decrypting },
        Kind { name: "note", file: world.at("prompt.note"), trial: by_decrypting },
        Kind { name: "answer", file: world.at("answer"), trial: by_decrypting },
        Kind { name: "server's keys.json", file: server.join("keys.json"), trial: by_running },
        Kind { name: "evaluation key", file: server.join("0003.key"), trial: by_running },
        Kind {
            name: "key of the ephemeral secret",
            file: server.join("ephemeral-to.key"),
            trial: by_running,
        },
        Kind { name: "prompt", file: world.prompt(), trial: by_running },
        Kind { name: "model.json", file: world.at("model/model.json"), trial: by_running },
        Kind { name: "weights", file: world.at("model/weights.safetensors"), trial: by_running },
        Kind { name: "tokenizer", file: world.at("model/tokenizer.json"), trial: by_encrypting },
        Kind { name: "last step", file: steps.last().cloned().unwrap_or_default(), trial: by_resuming },
        Kind { name: "first step", file: steps.first().cloned().unwrap_or_default(), trial: by_resuming },
    ];
    let rounds = world.rounds(DAMAGES, 0.9, kinds.len() as f64 * world.seconds[1]);
    for kind in kinds {
        tally.group(&format!("damaged {}", kind.name));
        let whole = std::fs::read(&kind.file)?;
        for number in 0..rounds {
            let number = if rounds < DAMAGES { (number * 5 + 1) % DAMAGES } else { number };
            let mut bytes = whole.clone();
            let what = damage(&mut bytes, number, &mut world.rng);
            std::fs::write(&kind.file, &bytes)?;
            tally.add(&what, (kind.trial)(world));
            put_back(&kind.file, &whole)?;
        }
        // Lost altogether.
        std::fs::remove_file(&kind.file)?;
        tally.add("gone", (kind.trial)(world));
        put_back(&kind.file, &whole)?;
        if kind.name == "secret" {
            std::fs::set_permissions(&kind.file, std::fs::Permissions::from_mode(0o600))?;
        }
    }
    world.model = shipped;
    Ok(())
}

fn put_back(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(std::fs::write(file, bytes)?)
}

/// Refused, or the right token.
fn by_decrypting(world: &World) -> Result<(), Fault> {
    match world.call(&world.decrypt_args(&world.keys(), &world.at("answer")))? {
        End::Refused(_) => Ok(()),
        End::Done(said) => world.same_token(&said),
    }
}

/// Refused, or the right answer.
fn by_running(world: &World) -> Result<(), Fault> {
    let out = world.at("damaged.bin");
    let _ = std::fs::remove_file(&out);
    match world.call(&world.run_args(&out, &[]))? {
        End::Refused(_) if out.exists() => Err(Fault::Wrong("it was refused, and an answer is there".into())),
        End::Refused(_) => Ok(()),
        End::Done(_) => world.same_answer(&out),
    }
}

/// Refused, or the tokens of the undisturbed prompt.
fn by_encrypting(world: &World) -> Result<(), Fault> {
    let out = world.at("damaged.prompt");
    let note = |path: PathBuf| -> Option<serde_json::Value> {
        Some(serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).ok()?).ok()?["tokens"].clone())
    };
    match world.call(&world.encrypt_args(&world.keys(), &out))? {
        End::Refused(_) => Ok(()),
        End::Done(_) if note(world.at("damaged.prompt.note")) == note(world.at("prompt.note")) => Ok(()),
        End::Done(_) => Err(Fault::Wrong("the prompt became other tokens".into())),
    }
}

/// The right answer, or a refusal that names the checkpoint: a step can always be computed again.
fn by_resuming(world: &World) -> Result<(), Fault> {
    let out = world.at("damaged.bin");
    let _ = std::fs::remove_file(&out);
    let kept = world.at("steps").display().to_string();
    match world.call(&world.run_args(&out, &["--checkpoints", &kept, "--checkpoint-after", "0"]))? {
        End::Refused(why) => {
            Err(Fault::Lost(format!("a step that can be computed again stops the run: {why}")))
        }
        End::Done(_) => world.same_answer(&out),
    }
}
