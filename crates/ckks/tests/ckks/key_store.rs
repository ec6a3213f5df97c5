//! A directory of keys: written whole or not at all, and every key that is loaded is the one that
//! was listed.

use crate::common::{Setup, setup};
use cipherlm_ckks::{
    Error, EvaluationKeys, GaloisElement, KeyForm, KeyPurpose, KeySet, KeyStore, Wire, WireError,
};
use cipherlm_testing::Scratch;
use std::fs;
use std::path::{Path, PathBuf};

fn small() -> Setup {
    setup(64, 40.0, 2, &[1, 2])
}

fn rotation(s: &Setup, steps: i64) -> KeyPurpose {
    KeyPurpose::Galois(GaloisElement::rotation(&s.params, steps))
}

/// The file that holds the key of a purpose.
fn file_of(s: &Setup, folder: &Path, purpose: KeyPurpose) -> PathBuf {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        cipherlm_ckks::SwitchingKey::from_bytes(&s.params, &bytes).unwrap().purpose() == purpose
    };
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(holds).unwrap()
}

#[test]
fn a_directory_with_something_in_it_is_not_written_to() {
    let (s, scratch) = (small(), Scratch::new("occupied"));
    let folder = scratch.join("keys");
    KeyStore::write(&folder, s.evaluator.keys()).unwrap();
    let before: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(before.len(), s.evaluator.keys().len());
    let mut fewer = KeySet::new();
    fewer.insert(s.evaluator.keys().key(rotation(&s, 1), 2).unwrap()).unwrap();
    let refused = KeyStore::write(&folder, &fewer).unwrap_err();
    assert!(matches!(&refused, Error::Storage { kind: std::io::ErrorKind::AlreadyExists, .. }), "{refused}");
    assert_eq!(KeyStore::open(&s.params, &folder, 0).unwrap().len(), before.len());
    // An empty one is taken, and nothing is left beside it.
    let empty = Scratch::new("empty");
    KeyStore::write(&empty, &fewer).unwrap();
    assert_eq!(KeyStore::open(&s.params, &empty, 0).unwrap().len(), 1);
    let name = empty.file_name().unwrap().to_str().unwrap().to_owned();
    let beside = fs::read_dir(empty.parent().unwrap()).unwrap();
    let left = beside
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&name))
        .count();
    assert_eq!(left, 1);
    // A file in the way.
    let file = empty.join("0000.key").join("keys");
    assert!(matches!(KeyStore::write(&file, &fewer), Err(Error::Storage { .. })));
}

#[test]
fn keys_of_two_secrets_in_one_directory_are_refused() {
    let (s, folder) = (small(), Scratch::new("mixed"));
    KeyStore::write(&folder, s.evaluator.keys()).unwrap();
    let other = cipherlm_ckks::SecretKey::generate(&s.params).unwrap();
    let shape = cipherlm_ckks::KeyShape::cheapest(&s.params, 2).unwrap();
    let key = other.switching_key(rotation(&s, 1), shape).unwrap();
    fs::write(folder.join("stray.key"), key.to_bytes()).unwrap();
    let refused = KeyStore::open(&s.params, &folder, 0).map(drop).unwrap_err();
    let Error::KeyMismatch { left, right, .. } = refused else { panic!("{refused}") };
    assert!([left, right].contains(&s.secret.id()) && [left, right].contains(&other.id()));
}

#[test]
fn files_exchanged_after_the_store_was_opened_are_noticed() {
    let (s, folder) = (small(), Scratch::new("exchanged"));
    KeyStore::write(&folder, s.evaluator.keys()).unwrap();
    let [one, two] = [1, 2].map(|steps| file_of(&s, &folder, rotation(&s, steps)));
    let open = || KeyStore::open(&s.params, &folder, u64::MAX).unwrap();
    let (bytes_one, bytes_two) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let restore = || {
        fs::write(&one, &bytes_one).unwrap();
        fs::write(&two, &bytes_two).unwrap();
    };
    // Two names exchanged.
    let store = open();
    fs::write(&one, &bytes_two).unwrap();
    fs::write(&two, &bytes_one).unwrap();
    let refused = store.key(rotation(&s, 1), 2).map(drop).unwrap_err();
    assert!(matches!(refused, Error::WrongKey { have, need, .. }
            if have == rotation(&s, 2) && need == rotation(&s, 1)));
    restore();
    // A key of the same purpose, of another secret.
    let store = open();
    let other = cipherlm_ckks::SecretKey::generate(&s.params).unwrap();
    let shape = store.key(rotation(&s, 2), 2).unwrap().shape();
    fs::write(&one, other.switching_key(rotation(&s, 1), shape).unwrap().to_bytes()).unwrap();
    let refused = store.key(rotation(&s, 1), 2).map(drop).unwrap_err();
    assert!(matches!(refused, Error::KeyMismatch { left, right, .. }
            if left == s.secret.id() && right == other.id()));
    restore();
    // A key of the same purpose, cut lower.
    let store = open();
    let low = cipherlm_ckks::KeyShape { level: 1, ..shape };
    fs::write(&one, s.secret.switching_key(rotation(&s, 1), low).unwrap().to_bytes()).unwrap();
    assert!(matches!(store.key(rotation(&s, 1), 2), Err(Error::BadKeyShape { level: 1, .. })));
    // Longer than any key of its shape, and gone.
    fs::write(&one, [bytes_one.as_slice(), &[0; 9]].concat()).unwrap();
    assert!(matches!(
        store.key(rotation(&s, 1), 2),
        Err(Error::Storage { kind: std::io::ErrorKind::FileTooLarge, .. })
    ));
    fs::write(&one, &bytes_one[..bytes_one.len() - 1]).unwrap();
    assert!(matches!(store.key(rotation(&s, 1), 2), Err(Error::Wire(WireError::Truncated { .. }))));
    fs::remove_file(&one).unwrap();
    assert!(matches!(
        store.key(rotation(&s, 1), 2),
        Err(Error::Storage { kind: std::io::ErrorKind::NotFound, .. })
    ));
    restore();
    assert!(store.key(rotation(&s, 1), 2).is_ok());
}

#[test]
fn the_budget_holds_the_keys_that_were_used_last() {
    let (s, folder) = (setup(64, 40.0, 2, &[1, 2, 3, 4]), Scratch::new("budget"));
    KeyStore::write(&folder, s.evaluator.keys()).unwrap();
    let one = s.evaluator.keys().key(rotation(&s, 1), 2).unwrap().shape();
    let one = one.resident_bytes_in(&s.params, KeyForm::Expanded);
    let store = KeyStore::open(&s.params, &folder, 2 * one).unwrap().with_form(KeyForm::Expanded);
    let held = |steps: i64, key: &std::sync::Arc<cipherlm_ckks::SwitchingKey>| {
        std::sync::Arc::ptr_eq(key, &store.key(rotation(&s, steps), 2).unwrap())
    };
    let first = store.key(rotation(&s, 1), 2).unwrap();
    let second = store.key(rotation(&s, 2), 2).unwrap();
    assert_eq!(store.resident_bytes(), 2 * one);
    // The first is used again, so the second is the one to go.
    assert!(held(1, &first));
    store.key(rotation(&s, 3), 2).unwrap();
    assert_eq!(store.resident_bytes(), 2 * one);
    assert!(held(1, &first));
    assert!(!held(2, &second));
    assert_eq!(store.resident_bytes(), 2 * one);
    // Without any budget the last key is held, and no other.
    let store = KeyStore::open(&s.params, &folder, 0).unwrap().with_form(KeyForm::Expanded);
    for steps in [1, 2, 1] {
        store.key(rotation(&s, steps), 2).unwrap();
        assert_eq!(store.resident_bytes(), one);
    }
}

#[test]
fn a_store_knows_what_it_has_before_it_loads() {
    let (s, folder) = (setup(64, 40.0, 2, &[1, 2]), Scratch::new("counts"));
    KeyStore::write(&folder, s.evaluator.keys()).unwrap();
    let store = KeyStore::open(&s.params, &folder, u64::MAX).unwrap();
    assert!(!store.is_empty() && store.len() == 4 && store.key_id() == Some(s.secret.id()));
    let all: u64 = s.evaluator.keys().iter().map(|key| key.shape().resident_bytes(&s.params)).sum();
    assert_eq!((store.total_bytes(), store.resident_bytes()), (all, 0));
    assert!(store.check(rotation(&s, 1), 2).is_ok() && store.check(KeyPurpose::Relinearise, 0).is_ok());
    for (purpose, level) in [(rotation(&s, 1), 3), (rotation(&s, 3), 0)] {
        let missing = store.check(purpose, level).unwrap_err();
        assert!(matches!(missing, Error::MissingKey { purpose: p, level: l } if (p, l) == (purpose, level)));
    }
    assert_eq!(store.resident_bytes(), 0, "a check loads nothing");
    // All of them are loaded where they just fit, and none where they do not.
    let told = std::sync::Mutex::new(vec![]);
    let exact = KeyStore::open(&s.params, &folder, all).unwrap();
    exact.preload(|count| told.lock().unwrap().push(count)).unwrap();
    let mut told = told.into_inner().unwrap();
    told.sort_unstable();
    assert_eq!((told, exact.resident_bytes()), (vec![1, 2, 3, 4], all));
    let tight = KeyStore::open(&s.params, &folder, all - 1).unwrap();
    tight.preload(|_| panic!("nothing is loaded")).unwrap();
    assert_eq!(tight.resident_bytes(), 0);
    let none = Scratch::new("none");
    let store = KeyStore::open(&s.params, &none, 0).unwrap();
    assert!(store.is_empty() && store.key_id().is_none());
}

#[test]
fn a_set_finds_the_lowest_key_that_serves() {
    let s = setup(64, 40.0, 3, &[]);
    let mut set = KeySet::new();
    assert_eq!((set.is_empty(), set.len(), set.key_id()), (true, 0, None));
    for level in [2, 3, 1] {
        let mut request = cipherlm_ckks::KeyRequest::new();
        request.relin(level);
        let key = s.secret.key_set(&request).unwrap().key(KeyPurpose::Relinearise, level).unwrap();
        set.insert(key.clone()).unwrap();
        set.insert(key).unwrap();
    }
    assert!(!set.is_empty() && set.len() == 3);
    for level in 1..=3 {
        assert_eq!(set.key(KeyPurpose::Relinearise, level).unwrap().shape().level, level);
    }
    assert_eq!(set.key(KeyPurpose::Relinearise, 0).unwrap().shape().level, 1);
    assert!(matches!(set.key(KeyPurpose::Relinearise, 4), Err(Error::MissingKey { level: 4, .. })));
    // Through a reference and through shared ownership too.
    fn check(keys: impl EvaluationKeys, level: usize) -> bool {
        keys.check(KeyPurpose::Relinearise, level).is_ok()
    }
    assert_eq!((check(&set, 3), check(&set, 4)), (true, false));
    let shared = std::sync::Arc::new(set);
    assert_eq!((check(shared.clone(), 3), check(shared, 4)), (true, false));
}
