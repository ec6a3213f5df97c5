//! Folders of evaluation keys: made whole again whatever became of them, and never believed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::world::World;
use crate::common::{certified, of, one_layer};
use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{SecretKey, SwitchingKey};
use cipherlm_infer::{Circuits, Error, KeyFolder, KeyOrder};
use cipherlm_testing::Scratch;

struct Keys {
    dir: Scratch,
    world: World,
}

impl Keys {
    fn new(name: &str) -> Self {
        let world = World::new(&certified(&one_layer(), 4), 8, &of(4));
        let keys = Self { dir: Scratch::new(name), world };
        keys.write().unwrap();
        keys
    }

    fn circuits(&self) -> &Circuits {
        &self.world.circuits
    }

    fn secret(&self) -> &SecretKey {
        self.world.client.secret()
    }

    fn order(&self) -> KeyOrder {
        KeyOrder::of(self.circuits(), &self.world.plan).unwrap()
    }

    fn description(&self) -> KeyFolder {
        KeyFolder::describe(self.secret().id(), self.circuits().params(), &self.order(), "insecure").unwrap()
    }

    fn write(&self) -> cipherlm_infer::Result<()> {
        self.description().write(&self.dir, self.secret(), self.circuits(), &self.order(), |_| true)
    }

    fn open(&self) -> cipherlm_infer::Result<()> {
        KeyFolder::open(&self.dir, self.circuits(), &self.order(), u64::MAX).map(drop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// All numbered keys.
    fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let numbered = self.dir.entries().into_iter().filter(|path| is_numbered(path));
        numbered.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn is_numbered(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_string_lossy();
    path.extension().is_some_and(|e| e == "key") && stem.bytes().all(|b| b.is_ascii_digit())
}

fn edit(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn lost_and_damaged_keys_are_made_again_with_the_bytes_they_had() {
    let keys = Keys::new("mend");
    let whole = keys.bytes();
    keys.open().unwrap();
    let third = keys.path("0003.key");
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage<'_>; 7] = [
        ("lost", Box::new(|| fs::remove_file(&third).unwrap())),
        ("cut", Box::new(|| edit(&third, |bytes| bytes.truncate(100)))),
        ("empty", Box::new(|| edit(&third, Vec::clear))),
        ("a flipped bit", Box::new(|| edit(&third, |bytes| bytes[5000] ^= 4))),
        (
            "another key in its place",
            Box::new(|| {
                fs::copy(keys.path("0004.key"), &third).unwrap();
            }),
        ),
        (
            "a key too many",
            Box::new(|| {
                fs::copy(&third, keys.path(&format!("{:04}.key", whole.len()))).unwrap();
            }),
        ),
        ("all lost", Box::new(|| whole.iter().for_each(|(path, _)| fs::remove_file(path).unwrap()))),
    ];
    for (kind, damage) in damages {
        damage();
        keys.write().unwrap();
        keys.open().unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert!(keys.bytes() == whole, "{kind}: other bytes");
    }
    // The wrapping keys are random, and only fit each other: either both stay or both are new.
    let wrapping =
        || [keys.path("ephemeral-to.key"), keys.path("ephemeral-from.key")].map(|p| fs::read(p).unwrap());
    let before = wrapping();
    keys.write().unwrap();
    assert!(wrapping() == before);
    edit(&keys.path("ephemeral-to.key"), |bytes| bytes[500] ^= 1);
    keys.write().unwrap();
    let after = wrapping();
    assert!(after[0] != before[0] && after[1] != before[1]);
    keys.open().unwrap();
}

#[test]
fn a_folder_that_lacks_a_key_is_refused_whatever_its_description_says() {
    let keys = Keys::new("believe");
    let count = keys.description().keys;
    fs::remove_file(keys.path("0003.key")).unwrap();
    let refused = keys.open().err().unwrap();
    assert!(
        matches!(refused, Error::Malformed { .. }) && refused.to_string().contains("--resume"),
        "{refused}"
    );
    // A description that says it should be so is no better.
    let manifest = keys.path("keys.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let fewer = text.replace(&format!("\"keys\": {count}"), &format!("\"keys\": {}", count - 1));
    assert_ne!(fewer, text);
    fs::write(&manifest, fewer).unwrap();
    assert!(keys.open().is_err());
    fs::write(&manifest, text).unwrap();
    // A copy of another key does not make up for the highest of its purpose.
    keys.write().unwrap();
    let all = keys.bytes();
    let purpose = |i: usize| SwitchingKey::from_bytes(keys.circuits().params(), &all[i].1).unwrap().purpose();
    let last = (0..all.len() - 1).rev().find(|&i| purpose(i) != purpose(i + 1)).unwrap();
    fs::copy(&all[last + 1].0, &all[last].0).unwrap();
    assert!(keys.open().err().unwrap().to_string().contains("it holds no"));
    keys.write().unwrap();
    keys.open().unwrap();
}

#[test]
fn keys_that_were_stopped_are_completed_later() {
    let keys = Keys::new("stopped");
    let (whole, dir) = (keys.bytes(), keys.dir.join("again"));
    let write =
        |go: bool| keys.description().write(&dir, keys.secret(), keys.circuits(), &keys.order(), move |_| go);
    assert!(matches!(write(false), Err(Error::KeysStopped { bytes: 1.. })));
    let there =
        |dir: &PathBuf| fs::read_dir(dir).unwrap().flatten().filter(|e| is_numbered(&e.path())).count();
    assert!(there(&dir) < whole.len(), "it stopped before the last");
    assert!(KeyFolder::open(&dir, keys.circuits(), &keys.order(), u64::MAX).is_err());
    write(true).unwrap();
    assert_eq!(there(&dir), whole.len());
    KeyFolder::open(&dir, keys.circuits(), &keys.order(), u64::MAX).map(drop).unwrap();
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_folder_of_another_secret_is_left_as_it_is() {
    let keys = Keys::new("other");
    let whole = keys.bytes();
    let other = Keys::new("other-too");
    let description = other.description();
    let refused = description.write(&keys.dir, other.secret(), keys.circuits(), &keys.order(), |_| true);
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
    assert!(keys.bytes() == whole);
    keys.open().unwrap();
}
