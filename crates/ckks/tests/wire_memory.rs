//! Reading takes no more memory than the wire format states: three times the input.

#![cfg(target_os = "linux")]

use cipherlm_ckks::{
    Ciphertext, KeyForm, KeyPurpose, KeyShape, Params, Plaintext, PublicKey, SecretKey, SwitchingKey, Wire,
};

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Most memory taken at once by `work`, above what was in use before it.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let result = work();
    (result, status("VmHWM").saturating_sub(before))
}

/// One test: what ran beside it would be counted.
#[test]
fn no_object_takes_more_than_three_times_its_bytes() {
    let builder = Params::builder().degree(1 << 14).base(50.0).levels(45.0, 20).special(50, 4);
    let params = Params::insecure_for_tests(builder).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let shape = KeyShape { level: 20, special: 4 };
    let key = secret.switching_key(KeyPurpose::Relinearise, shape).unwrap().to_bytes();
    let public = secret.public_key().unwrap().to_bytes();
    let plaintext = Plaintext::encode_real(&params, &[0.5], 1, params.default_scale(20)).unwrap();
    let ciphertext = secret.encrypt(&plaintext, 20).unwrap();
    let open =
        cipherlm_ckks::Evaluator::new(&params, cipherlm_ckks::NoKeys).neg(&ciphertext).unwrap().to_bytes();
    let fresh = ciphertext.to_bytes();
    drop((ciphertext, secret, plaintext));
    let room = 1 << 20;
    let check = |name: &str, bytes: usize, taken: usize| {
        println!("{name}: {taken} bytes for {bytes}");
        assert!(taken <= 3 * bytes + room, "{name}: {taken} bytes for {bytes}");
    };
    for form in [KeyForm::Expanded, KeyForm::Packed, KeyForm::Seeded] {
        let (read, taken) = peak(|| SwitchingKey::from_bytes_in(&params, &key, form).unwrap());
        assert!(key.len() > 10 * room);
        check(&format!("{form:?} key"), key.len(), taken);
        drop(read);
    }
    let (read, taken) = peak(|| PublicKey::from_bytes(&params, &public).unwrap());
    check("public key", public.len(), taken);
    drop(read);
    for (name, bytes) in [("fresh ciphertext", &fresh), ("ciphertext", &open)] {
        let (read, taken) = peak(|| Ciphertext::from_bytes(&params, bytes).unwrap());
        check(name, bytes.len(), taken);
        drop(read);
    }
}
