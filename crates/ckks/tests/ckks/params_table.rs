//! The security gate: every preset and every key it can make is below its row of the table, and
//! nothing above is built.

use crate::common::keeps_margin;
use cipherlm_ckks::params::security_limit;
use cipherlm_ckks::{Error, Params, Plaintext, SecretDistribution, SecretKey, presets};

fn presets() -> [(&'static str, Params); 4] {
    [
        ("levels24_scale45", presets::levels24_scale45().unwrap()),
        ("levels12_scale45", presets::levels12_scale45().unwrap()),
        ("levels5_scale45", presets::levels5_scale45().unwrap()),
        ("levels3_scale40", presets::levels3_scale40().unwrap()),
    ]
}

#[test]
fn presets_and_all_their_keys_keep_the_margin() {
    let smallest =
        presets().iter().map(|(name, params)| keeps_margin(name, params)).fold(f64::INFINITY, f64::min);
    println!("smallest security of a preset: {smallest:.1} bits");
    assert!(smallest >= 131.5);
}

#[test]
fn chains_at_the_limit_are_built_and_a_bit_more_is_refused() {
    for (degree, base, level, levels, special, count) in [
        (1usize << 13, 42.0, 40.0, 3, 26, 2),
        (1 << 14, 50.0, 48.0, 5, 35, 4),
        (1 << 15, 48.0, 40.0, 13, 50, 6),
    ] {
        let limit = security_limit(degree, SecretDistribution::Ternary).unwrap().hard;
        assert_eq!(base + level * levels as f64 + f64::from(special * count), f64::from(limit));
        let build = |base| {
            let builder = Params::builder().degree(degree).base(base).levels(level, levels);
            builder.special(special, count as usize).build()
        };
        assert!(build(base).is_ok(), "degree {degree}");
        match build(base + 1.0) {
            Err(Error::Insecure { degree: d, limit: l, log_qp, .. }) => {
                assert_eq!((d, l), (degree, limit));
                assert!((log_qp - f64::from(limit) - 1.0).abs() < 0.1);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn special_primes_are_as_few_as_the_digits_allow() {
    // 50 + 5 x 40 bits: all in one digit, 130 and 120 in two, 90, 80 and 80 in three.
    let builder = || Params::builder().degree(1 << 10).base(50.0).levels(40.0, 5);
    for (digits, special) in [(1, 5), (2, 3), (3, 2), (6, 1)] {
        let params = Params::insecure_for_tests(builder().digits(digits)).unwrap();
        assert_eq!(params.special_count(), special, "{digits} digits");
    }
    // More primes than limbs, since they are smaller: 90 bits in five of 20.
    let params = Params::insecure_for_tests(builder().special(20, 1).digits(3)).unwrap();
    assert_eq!(params.special_count(), 5);
    let params = Params::insecure_for_tests(builder().special(20, 1).digits(1)).unwrap();
    assert_eq!(params.special_count(), 13);
}

#[test]
fn a_chain_without_levels_keeps_ten_bits_for_integers() {
    let params =
        Params::insecure_for_tests(Params::builder().degree(1 << 10).base(40.0).special(40, 1)).unwrap();
    assert_eq!(params.default_scale(0).log2(), 30.0);
}

#[test]
fn sizes_out_of_range_are_refused_by_name() {
    let builder = || Params::builder().degree(1 << 14);
    for (bad, field) in [
        (builder().base(10.0), "level bits"),
        (builder().base(f64::NAN), "level bits"),
        (builder().levels(101.0, 1), "level bits"),
        (builder().levels(40.0, 1000), "levels"),
        (builder().special(51, 1), "special bits"),
        (builder().special(40, 0), "special primes"),
        (builder().digits(0), "special primes"),
        (builder().base(50.0).special(45, 1), "special bits"),
    ] {
        match bad.clone().build() {
            Err(Error::InvalidParams { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
    for degree in [0usize, 1, 3, 1000, 1 << 40] {
        assert!(Params::builder().degree(degree).build().is_err(), "{degree}");
        assert!(Params::insecure_for_tests(Params::builder().degree(degree)).is_err(), "{degree}");
    }
    // Degrees without a row can only be built as insecure.
    let tiny = Params::builder().degree(1 << 10).base(30.0).levels(30.0, 1).special(30, 1);
    assert!(matches!(tiny.clone().build(), Err(Error::NoSecurityEstimate { degree: 1024, .. })));
    assert!(Params::insecure_for_tests(tiny).unwrap().is_insecure());
}

#[test]
fn a_secure_set_stays_secure_through_the_insecure_door() {
    let builder = Params::builder().degree(1 << 13).base(43.0).levels(40.0, 3).special(44, 1);
    let params = Params::insecure_for_tests(builder.clone()).unwrap();
    assert!(!params.is_insecure());
    assert_eq!(params.hash(), builder.build().unwrap().hash());
}

#[test]
fn sparse_secrets_need_a_row_and_cannot_make_public_keys_of_a_long_chain() {
    let params = presets::levels5_scale45().unwrap();
    assert!(matches!(SecretKey::generate_sparse(&params, 16), Err(Error::NoSecurityEstimate { .. })));
    let sparse = SecretKey::generate_sparse(&params, 64).unwrap();
    assert!(matches!(sparse.public_key().map(drop), Err(Error::Insecure { .. })));
}

#[test]
fn hashes_tell_sets_apart() {
    let hash = |bits: f64, levels| presets::insecure::small(64, bits, levels).unwrap().hash();
    assert_eq!(hash(40.0, 2), hash(40.0, 2));
    assert_ne!(hash(40.0, 2), hash(40.0, 3));
    assert_ne!(hash(40.0, 2), hash(41.0, 2));
    // Special primes alone tell sets apart, by size and by number; so does a scale that no prime
    // shows.
    let builder = || Params::builder().degree(64).base(43.0).levels(40.0, 2);
    let insecure = |builder| Params::insecure_for_tests(builder).unwrap();
    let [a, b, c] = [(44, 1), (45, 1), (44, 2)].map(|(bits, count)| insecure(builder().special(bits, count)));
    assert!(a.hash() != b.hash() && a.hash() != c.hash() && b.hash() != c.hash());
    let chain =
        |params: &Params| params.limbs(2).iter().map(|i| params.prime(i).unwrap()).collect::<Vec<_>>();
    assert_eq!(chain(&a), chain(&b));
}

#[test]
fn limbs_that_a_set_does_not_have_are_refused() {
    let params = presets::insecure::small(64, 40.0, 2).unwrap();
    let count = params.ring().limbs().len();
    for limb in [count, count + 1, 1000] {
        assert!(matches!(params.prime(limb), Err(Error::Ring(_))), "{limb}");
        let limbs = cipherlm_ckks::ring::Limbs::range(0..limb + 1);
        assert!(matches!(params.log2_of(&limbs), Err(Error::Ring(_))), "{limb}");
    }
    let all = params.log2_of(&params.ring().limbs()).unwrap();
    assert!((all - params.log_qp()).abs() < 1e-9);
}

#[test]
fn what_describes_a_level_saturates_and_what_makes_an_object_refuses() {
    let params = presets::insecure::small(64, 40.0, 2).unwrap();
    let (top, special) = (params.max_level(), params.special_count());
    for level in [top + 1, usize::MAX] {
        assert_eq!(params.limbs(level), params.limbs(top));
        assert_eq!(params.group_limbs(level), params.group_limbs(top));
        assert_eq!(params.special_limbs(level), params.special_limbs(special));
        assert_eq!(params.extended_limbs(level, level), params.extended_limbs(top, special));
        assert_eq!(params.log_q(level), params.log_q(top));
        assert_eq!(params.default_scale(level), params.default_scale(top));
        assert_eq!(params.rescale_factor(level), params.rescale_factor(top));
        let secret = SecretKey::generate(&params).unwrap();
        let plaintext = Plaintext::encode_real(&params, &[1.0], 1, params.default_scale(top)).unwrap();
        let refused = secret.encrypt(&plaintext, level).unwrap_err();
        assert!(matches!(refused, Error::LevelOutOfRange { level: l, max, .. } if l == level && max == top));
    }
}

#[test]
fn any_number_of_levels_is_refused_without_memory_for_them() {
    for count in [200, 1 << 40, usize::MAX / 8, usize::MAX] {
        let refused = Params::builder().degree(1 << 10).levels(40.0, count).build().map(drop);
        assert!(matches!(refused, Err(Error::InvalidParams { field: "levels", .. })), "{count}: {refused:?}");
    }
}

#[test]
fn parameters_are_equal_if_made_alike() {
    let [a, b] = [(); 2].map(|()| presets::insecure::small(64, 40.0, 2).unwrap());
    let other = presets::insecure::small(64, 40.0, 3).unwrap();
    assert!(a == b && a != other);
}

#[test]
fn the_profile_of_a_secret_is_that_of_its_slots() {
    let params = presets::insecure::small(64, 40.0, 2).unwrap();
    let profile = |seed| {
        let secret =
            SecretKey::from_seed(&params, cipherlm_ckks::ring::Seed::from_bytes([seed; 32])).unwrap();
        cipherlm_ckks::hazmat::slot_profile(&secret).unwrap()
    };
    let (first, second) = (profile(1), profile(2));
    let sum: f64 = first.iter().sum();
    assert!(first.len() == params.slots() && (sum - params.slots() as f64).abs() < 1e-9, "{sum}");
    assert!(first.iter().all(|square| *square >= 0.0) && first.iter().any(|square| *square > 1.5));
    assert!(first.iter().zip(second.iter()).any(|(a, b)| (a - b).abs() > 0.1), "secrets differ");
}
