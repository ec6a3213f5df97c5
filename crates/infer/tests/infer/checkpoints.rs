//! Checkpoints: never a wrong answer, never a run that a damaged file ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::parties::Parties;
use crate::common::{certified, of, one_layer};
use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::KeySet;
use cipherlm_infer::{
    Checkpoints, EncryptedLogits, EncryptedPrompt, Error, Observer, Options, Progress, Purpose, Session,
};
use cipherlm_model::{Model, random};
use cipherlm_testing::Scratch;

fn model() -> Arc<Model> {
    certified(&one_layer(), 4)
}

/// The answer as bytes, and the names of the steps that were computed rather than found.
fn run(parties: &Parties, prompt: &EncryptedPrompt, dir: &Path) -> (Vec<u8>, Vec<String>) {
    let mut computed = Computed::default();
    let mut kept = Checkpoints::new(dir, Duration::ZERO, &mut computed).unwrap();
    let answer = parties.server.run(&parties.plans[0], prompt.clone(), &mut kept).unwrap();
    assert!(kept.unwritten().is_none());
    (answer.to_bytes(), computed.0)
}

#[derive(Default)]
struct Computed(Vec<String>);

impl Observer<Encrypted<KeySet>> for Computed {
    fn before(&mut self, _: &Progress<'_>) -> bool {
        true
    }

    fn after(
        &mut self,
        _: &Encrypted<KeySet>,
        done: &cipherlm_infer::Done<'_, Encrypted<KeySet>>,
    ) -> cipherlm_infer::Result<()> {
        self.0.push(done.name.to_owned());
        Ok(())
    }
}

fn plain(parties: &Parties, prompt: &EncryptedPrompt) -> Vec<u8> {
    parties.server.run(&parties.plans[0], prompt.clone(), &mut |_: &Progress<'_>| true).unwrap().to_bytes()
}

#[test]
fn each_prompt_of_a_folder_has_its_own_answer_and_each_damaged_file_is_computed_again() {
    let parties = Parties::new(&model(), &[of(8)]);
    let plan = &parties.plans[0];
    let folder = Scratch::new("damage");
    let windows = random::windows(parties.plans[0].model().shape(), 8, 2, 5);
    let prompts: Vec<_> = windows.iter().map(|w| parties.client.encrypt(plan, w).unwrap()).collect();
    let answers: Vec<_> = prompts.iter().map(|prompt| plain(&parties, prompt)).collect();
    assert_ne!(answers[0], answers[1]);
    // Two prompts, one after the other, then both again: found, and each its own.
    let first = run(&parties, &prompts[0], &folder);
    let files = folder.entries();
    for (prompt, answer) in prompts.iter().zip(&answers) {
        assert_eq!(&run(&parties, prompt, &folder).0, answer);
        let (again, computed) = run(&parties, prompt, &folder);
        assert!(again == *answer && computed.is_empty(), "{computed:?}");
    }
    assert_eq!(
        (first.0, first.1.len(), files.len()),
        (answers[0].clone(), plan.steps() - 1, plan.steps() - 1)
    );
    // The same text encrypted again is another run: its ciphertexts are others.
    let fresh = parties.client.encrypt(plan, &windows[0]).unwrap();
    assert_eq!(run(&parties, &fresh, &folder).1.len(), plan.steps() - 1);

    // Every kind of damage, to all files of the first prompt at once.
    let whole: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let flip = |bytes: &[u8], at: usize| {
        let mut out = bytes.to_vec();
        out[at] ^= 1;
        out
    };
    type Damage<'a> = (&'a str, Box<dyn Fn(usize) -> Vec<u8> + 'a>);
    let kinds: [Damage<'_>; 8] = [
        ("a flipped bit in the middle", Box::new(|i| flip(&whole[i], whole[i].len() / 2))),
        ("another magic", Box::new(|i| flip(&whole[i], 0))),
        ("another version", Box::new(|i| flip(&whole[i], 8))),
        ("another level", Box::new(|i| flip(&whole[i], 48))),
        ("half a file", Box::new(|i| whole[i][..whole[i].len() / 2].to_vec())),
        ("a byte more", Box::new(|i| [whole[i].as_slice(), &[0]].concat())),
        ("an empty file", Box::new(|_| vec![])),
        ("the file of another step", Box::new(|i| whole[(i + 1) % whole.len()].clone())),
    ];
    for (kind, damage) in kinds {
        for (i, file) in files.iter().enumerate() {
            std::fs::write(file, damage(i)).unwrap();
        }
        let (answer, computed) = run(&parties, &prompts[0], &folder);
        assert!(answer == answers[0], "{kind}");
        assert_eq!(computed.len(), plan.steps() - 1, "{kind}");
        let mended: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(mended == whole, "{kind}: the files are whole again");
    }
    // One bad file among good ones takes the run back no further than it must.
    for (i, file) in files.iter().enumerate() {
        std::fs::write(file, &whole[i][..50]).unwrap();
        let (answer, computed) = run(&parties, &prompts[0], &folder);
        assert!(answer == answers[0], "{}", file.display());
        assert!(computed.len() <= 1, "{computed:?}");
        std::fs::write(file, &whole[i]).unwrap();
    }
    // Lost files, and folders in their places.
    for file in files.iter().step_by(2) {
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
    }
    let mut go = |_: &Progress<'_>| true;
    let mut kept = Checkpoints::new(&folder, Duration::ZERO, &mut go).unwrap();
    let answer = parties.server.run(plan, prompts[0].clone(), &mut kept).unwrap();
    assert!(answer.to_bytes() == answers[0]);
}

#[test]
fn a_run_that_was_stopped_goes_on_and_ends_the_same() {
    let parties = Parties::new(&model(), &[of(8)]);
    let folder = Scratch::new("stop");
    let window = &random::windows(parties.plans[0].model().shape(), 8, 1, 5)[0];
    let prompt = parties.client.encrypt(&parties.plans[0], window).unwrap();
    let expected = plain(&parties, &prompt);
    for stop in [3, 9, 14] {
        let mut until = |p: &Progress<'_>| p.step < stop;
        let mut kept = Checkpoints::new(&folder, Duration::ZERO, &mut until).unwrap();
        let stopped = parties.server.run(&parties.plans[0], prompt.clone(), &mut kept).err().unwrap();
        assert!(matches!(stopped, Error::Stopped { .. }), "{stopped}");
    }
    assert_eq!(folder.entries().len(), 13);
    let (answer, computed) = run(&parties, &prompt, &folder);
    assert!(answer == expected);
    assert_eq!(computed.len(), parties.plans[0].steps() - 1 - 13);
}

#[test]
fn two_runs_in_one_folder_at_once_are_both_right() {
    let parties = Parties::new(&model(), &[of(8)]);
    let folder = Scratch::new("two");
    let window = &random::windows(parties.plans[0].model().shape(), 8, 1, 5)[0];
    let prompt = parties.client.encrypt(&parties.plans[0], window).unwrap();
    let expected = plain(&parties, &prompt);
    // A server of its own for each, as two processes have; the keys are shared.
    let machine = parties.server.machine();
    let keys = parties.client.secret().key_set(&parties.plans[0].key_request(&parties.params)).unwrap();
    let other =
        cipherlm_infer::Server::new(Encrypted::new(machine.params(), parties.client.key_id(), keys).unwrap());
    std::thread::scope(|scope| {
        for server in [&parties.server, &other] {
            let (prompt, expected, dir, plan) = (&prompt, &expected, &folder, &parties.plans[0]);
            scope.spawn(move || {
                for _ in 0..2 {
                    let mut go = |_: &Progress<'_>| true;
                    let mut kept = Checkpoints::new(dir, Duration::ZERO, &mut go).unwrap();
                    let answer = server.run(plan, prompt.clone(), &mut kept).unwrap();
                    assert!(answer.to_bytes() == *expected && kept.unwritten().is_none());
                }
            });
        }
    });
    assert_eq!(folder.entries().len(), parties.plans[0].steps() - 1, "nothing is left over");
}

/// A prompt and two tokens of a session, each step of which finds its checkpoints or not.
fn converse(parties: &Parties, inputs: &[EncryptedPrompt], dir: Option<&Path>) -> Vec<EncryptedLogits> {
    let mut session: Session<Encrypted<KeySet>> = parties.plans[0].session_of(5);
    let mut out = vec![];
    for (index, input) in inputs.iter().enumerate() {
        let plan = &parties.plans[usize::from(index > 0)];
        let mut go = |_: &Progress<'_>| true;
        let answer = match dir {
            Some(dir) => {
                let mut kept = Checkpoints::new(dir, Duration::ZERO, &mut go).unwrap();
                parties.server.run_session(plan, input.clone(), &mut session, &mut kept).unwrap()
            }
            None => parties.server.run_session(plan, input.clone(), &mut session, &mut go).unwrap(),
        };
        out.push(answer);
    }
    assert_eq!(session.position(), 4 + inputs.len());
    out
}

#[test]
fn a_session_that_finds_its_steps_has_the_same_cache() {
    let session = |purpose| Options { purpose, ..of(8) };
    let parties = Parties::new(&model(), &[session(Purpose::PromptForSession), session(Purpose::Token)]);
    let folder = Scratch::new("session");
    let text = random::windows(parties.plans[0].model().shape(), 7, 1, 5).remove(0);
    let mut inputs = vec![parties.client.encrypt(&parties.plans[0], &text[..5]).unwrap()];
    for position in 5..7 {
        inputs.push(
            parties
                .client
                .encrypt_after(&parties.plans[1], &text[..position], &text[position..=position])
                .unwrap(),
        );
    }
    let bytes =
        |answers: Vec<EncryptedLogits>| answers.iter().map(EncryptedLogits::to_bytes).collect::<Vec<_>>();
    let expected = bytes(converse(&parties, &inputs, None));
    assert!(bytes(converse(&parties, &inputs, Some(&folder))) == expected, "first time");
    // All found: keys and values go into the cache all the same, or the tokens would see an empty
    // one.
    assert!(bytes(converse(&parties, &inputs, Some(&folder))) == expected, "all found");
    // Only results of attention found; then everything but those.
    let files = folder.entries();
    for (i, file) in files.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
        std::fs::write(file, [i as u8]).unwrap();
    }
    assert!(bytes(converse(&parties, &inputs, Some(&folder))) == expected, "a third found");
    // The same input after another prompt is another run.
    let other = parties.client.encrypt(&parties.plans[0], &[3, 1, 4, 1, 5]).unwrap();
    let mixed = [other, inputs[1].clone(), inputs[2].clone()];
    let answers = bytes(converse(&parties, &mixed, Some(&folder)));
    assert!(answers == bytes(converse(&parties, &mixed, None)) && answers[1] != expected[1]);
}

#[test]
fn a_folder_that_takes_no_files_is_refused_before_work() {
    let mut go = |_: &Progress<'_>| true;
    let folder = Scratch::new("file");
    folder.write("file", b"a file");
    let refused = Checkpoints::<KeySet>::new(&folder.join("file"), Duration::ZERO, &mut go).err().unwrap();
    assert!(matches!(refused, Error::Files(_)), "{refused}");
}
