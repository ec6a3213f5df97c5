//! The contract under which a key shares flooded results: fixed once, counted across loads,
//! processes and restarts.
use cipherlm_ckks::noise::Prediction;
use cipherlm_ckks::{
    Decrypted, Error, Params, Plaintext, Scale, SecretKey, Sharing, SharingContract, WireError, presets,
};
use cipherlm_testing::Scratch;

fn params() -> Params {
    presets::insecure::small(256, 49.0, 2).unwrap()
}

fn decrypted(secret: &SecretKey) -> Decrypted {
    let plaintext = Plaintext::encode_real(secret.params(), &[0.25], 4, Scale::from_log2(60)).unwrap();
    secret.decrypt(&secret.encrypt(&plaintext, 2).unwrap()).unwrap()
}

fn take(secret: &SecretKey, sharing: &Sharing) -> Result<(), Error> {
    decrypted(secret).decode_flooded(8.0, 2f64.powi(-48), sharing).map(drop)
}

fn contract(security: u32, releases: u32) -> SharingContract {
    SharingContract::new(security, releases).unwrap()
}

#[test]
fn a_key_that_is_loaded_again_goes_on_counting() {
    let params = params();
    let first = SecretKey::generate(&params).unwrap();
    let sharing = first.sharing_in_this_process(contract(30, 2)).unwrap();
    take(&first, &sharing).unwrap();
    let again = SecretKey::from_secret_bytes(&params, &first.to_secret_bytes()).unwrap();
    let shared = again.sharing_in_this_process(contract(30, 2)).unwrap();
    assert_eq!(shared.left().unwrap(), 1);
    take(&again, &shared).unwrap();
    for (secret, sharing) in [(&again, &shared), (&first, &sharing)] {
        assert_eq!(take(secret, sharing), Err(Error::SharingSpent { releases: 2 }));
    }
}

#[test]
fn a_contract_is_fixed_once_and_for_one_key() {
    let params = params();
    let [first, second] = [(); 2].map(|()| SecretKey::generate(&params).unwrap());
    let sharing = first.sharing_in_this_process(contract(30, 1)).unwrap();
    for other in [contract(30, 2), contract(31, 1)] {
        let refused = first.sharing_in_this_process(other).map(drop).unwrap_err();
        assert!(matches!(refused, Error::SharingContract { have: (30, 1), .. }), "{refused}");
    }
    let folder = Scratch::new("elsewhere");
    let file = folder.join("ledger");
    let refused = first.sharing(&file, contract(30, 1)).map(drop).unwrap_err();
    assert!(matches!(refused, Error::SharingContract { .. }), "{refused}");
    assert!(matches!(take(&second, &sharing), Err(Error::KeyMismatch { .. })));
    assert_eq!(sharing.left().unwrap(), 1);
    for (security, releases) in [(29, 1), (129, 1), (30, 0), (30, (1 << 20) + 1)] {
        assert!(matches!(SharingContract::new(security, releases), Err(Error::InvalidParams { .. })));
    }
}

#[test]
fn a_ledger_counts_for_every_thread_and_outlives_the_key() {
    let (params, folder) = (params(), Scratch::new("threads"));
    let file = folder.join("ledger");
    let secret = SecretKey::generate(&params).unwrap();
    let bytes = secret.to_secret_bytes();
    let won: usize = std::thread::scope(|scope| {
        let each = || {
            let secret = SecretKey::from_secret_bytes(&params, &bytes).unwrap();
            let sharing = secret.sharing(&file, contract(30, 20)).unwrap();
            (0..10).filter(|_| take(&secret, &sharing).is_ok()).count()
        };
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum()
    });
    assert_eq!(won, 20);
    // The file alone knows it: one byte a release after the header.
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 80 + 20);
    let sharing = secret.sharing(&file, contract(30, 20)).unwrap();
    assert_eq!((sharing.left().unwrap(), sharing.contract().releases()), (0, 20));
}

#[test]
fn a_ledger_of_another_key_or_contract_or_a_damaged_one_is_refused() {
    let (params, folder) = (params(), Scratch::new("damaged"));
    let file = folder.join("ledger");
    let [first, second] = [(); 2].map(|()| SecretKey::generate(&params).unwrap());
    let sharing = first.sharing(&file, contract(30, 3)).unwrap();
    take(&first, &sharing).unwrap();
    let good = std::fs::read(&file).unwrap();
    assert!(matches!(second.sharing(&file, contract(30, 3)), Err(Error::KeyMismatch { .. })));
    // As another process would find it: without what this one remembers.
    let fresh = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        take(&first, &sharing)
    };
    for length in [1, 40, 79] {
        assert!(matches!(fresh(&good[..length]), Err(Error::Wire(WireError::Truncated { .. }))), "{length}");
    }
    for position in 0..80 {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        assert!(fresh(&bytes).is_err(), "byte {position}");
    }
    // The contract in the file holds, whatever it was opened with.
    let asked = first.sharing(&file, contract(30, 4)).map(drop);
    assert!(asked.is_err());
    std::fs::write(&file, &good).unwrap();
    assert_eq!(sharing.left().unwrap(), 2);
    std::fs::remove_file(&file).unwrap();
    let nowhere = file.join("missing").join("ledger");
    assert!(matches!(second.sharing(&nowhere, contract(30, 3)), Err(Error::Storage { .. })));
}

#[test]
fn flooding_from_a_prediction_takes_its_worst_slot() {
    let params = params();
    let secret = SecretKey::generate(&params).unwrap();
    let sharing = secret.sharing_in_this_process(contract(30, 1)).unwrap();
    let prediction = Prediction { rms: 2f64.powi(-52), worst: 2f64.powi(-48) };
    // The noise is 2^(15 + log2 sqrt(48) - 48) in four slots.
    let over = decrypted(&secret).decode_flooded(31.0, prediction, &sharing).map(drop).unwrap_err();
    let Error::Sharing { allowed, .. } = over else { panic!("{over}") };
    assert!((allowed - (48.0 - 15.0 - 48f64.sqrt().log2())).abs() < 1e-9, "{allowed}");
}

#[test]
fn bits_that_may_be_shown_follow_the_error() {
    let secret = SecretKey::generate(&params()).unwrap();
    let shown = |log: i32| decrypted(&secret).public_bits(2f64.powi(log)).unwrap();
    // Sixteen bits of margin above the error.
    assert_eq!([shown(-30), shown(-32), shown(-40)], [14.0, 16.0, 24.0]);
}
