//! Everything the crate refuses, and with which words.

use std::sync::Arc;

use cipherlm_ring::{
    Coeff, Decomposition, Error, Eval, Extension, Kernel, KeyDigits, KeyLimb, Limbs, ModDown, Modulus,
    NttTable, PackedPair, Poly, Ring, Seed, Stream, eval_exponent, is_prime, key_product, ntt_primes,
    primes_near, sample,
};

fn ring(degree: usize) -> Arc<Ring> {
    Ring::new(degree, &ntt_primes(degree, 30, 4, &[]).unwrap()).unwrap()
}

#[test]
fn kernels_are_named_or_refused() {
    for kernel in Kernel::available() {
        assert_eq!(Kernel::named(kernel.name).unwrap().name, kernel.name);
    }
    for name in ["", "AVX2", "neon", "avx2 "] {
        let refused = Kernel::named(name).unwrap_err();
        assert!(matches!(&refused, Error::UnknownKernel { name: found, .. } if found == name), "{refused}");
        assert!(refused.to_string().contains("scalar"), "{refused}");
    }
}

#[test]
fn rings_and_primes() {
    let q = ntt_primes(32, 30, 1, &[]).unwrap()[0];
    for degree in [0, 1, 8, 17, 48, 1 << 18, usize::MAX] {
        let refused = Some(Error::UnsupportedDegree { degree, min: 16, max: 1 << 17 });
        assert_eq!(Ring::new(degree, &[q]).err(), refused);
        assert_eq!(ntt_primes(degree, 30, 1, &[]).err(), refused);
        assert_eq!(primes_near(degree, 30.0, 1, &[]).err(), refused);
    }
    assert_eq!(Ring::new(32, &[]).err(), Some(Error::EmptyBasis { role: "ring" }));
    assert_eq!(Ring::new(32, &[q, q]).err(), Some(Error::Duplicate { value: q }));
    for bad in [0, 1, 2, q + 2, 65 * 193] {
        assert_eq!(Ring::new(32, &[bad]).err(), Some(Error::NotPrime { modulus: bad }));
    }
    for bad in [1 << 50, (1 << 61) - 1, u64::MAX] {
        assert_eq!(Ring::new(32, &[bad]).err(), Some(Error::ModulusTooLarge { modulus: bad, max_bits: 50 }));
        assert_eq!(Modulus::new(bad).err(), Some(Error::ModulusTooLarge { modulus: bad, max_bits: 50 }));
    }
    // 97 - 1 = 3 * 32: enough for degree 16, not for 32.
    assert!(Ring::new(16, &[97]).is_ok());
    assert_eq!(Ring::new(32, &[97]).err(), Some(Error::NotNttFriendly { modulus: 97, degree: 32 }));
    let table = NttTable::new(Modulus::new(97).unwrap(), 24);
    assert!(matches!(table.err(), Some(Error::UnsupportedDegree { degree: 24, .. })));
    for bits in [0, 1, 51, u32::MAX] {
        assert_eq!(
            ntt_primes(32, bits, 1, &[]).err(),
            Some(Error::PrimeBits { bits: f64::from(bits), max_bits: 50 })
        );
    }
    for log2 in [-1.0, 50.5, f64::INFINITY] {
        assert!(matches!(primes_near(32, log2, 1, &[]).err(), Some(Error::PrimeBits { .. })), "{log2}");
    }
    assert!(matches!(
        primes_near(1 << 17, 20.0, 9, &[]).err(),
        Some(Error::PrimesExhausted { wanted: 9, .. })
    ));
    // More than a pool holds would be searched for years.
    for count in [1 << 16, usize::MAX] {
        let refused = Some(Error::LimbOutOfRange { index: count, count: 65535 });
        assert_eq!(ntt_primes(16, 50, count, &[]).err(), refused);
        assert_eq!(primes_near(16, 45.0, count, &[]).err(), refused);
    }
    assert!(matches!(primes_near(32, f64::NAN, 1, &[]).err(), Some(Error::PrimeBits { .. })));
    assert!(!is_prime(0) && !is_prime(1) && !is_prime(u64::MAX));
    let ring = ring(32);
    let outside = Some(Error::LimbOutOfRange { index: 4, count: 4 });
    assert_eq!(ring.prime(4).err(), outside);
    assert_eq!(ring.log2(&Limbs::range(2..5)).err(), outside);
    for element in [0, 2, 64, 65, usize::MAX] {
        assert_eq!(ring.automorphism(element).err(), Some(Error::NotAGaloisElement { element, degree: 32 }));
    }
}

#[test]
fn limb_sets() {
    assert_eq!(Limbs::new([3, 1, 3]).err(), Some(Error::Duplicate { value: 3 }));
    assert!(matches!(Limbs::new([1 << 16]).err(), Some(Error::LimbOutOfRange { index: 65536, .. })));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = Limbs::range(5..2);
    assert!(reversed.is_empty());
    assert_eq!(Limbs::range(0..3).first(9), Limbs::range(0..3));
    assert_eq!(Limbs::range(0..3).last(9), Limbs::range(0..3));
    assert!(!Limbs::range(0..3).contains(usize::MAX));
}

#[test]
fn polynomials() {
    let ring = ring(32);
    let (low, high, empty) = (Limbs::range(0..2), Limbs::range(1..4), Limbs::range(0..0));
    assert_eq!(Poly::<Coeff>::zero(&ring, &empty).err(), Some(Error::EmptyBasis { role: "polynomial" }));
    let outside = Some(Error::LimbOutOfRange { index: 6, count: 4 });
    assert_eq!(Poly::<Coeff>::zero(&ring, &Limbs::range(0..7)).err(), outside);

    let mut a = Poly::<Eval>::zero(&ring, &low).unwrap();
    let b = Poly::<Eval>::zero(&ring, &high).unwrap();
    let mismatch = Error::LimbsMismatch {
        left_role: "left side",
        left: low.clone(),
        right_role: "right side",
        right: high.clone(),
    };
    assert_eq!(a.add_assign(&b).err(), Some(mismatch.clone()));
    assert_eq!(mismatch.to_string(), "right side has limbs [1..=3] and lacks some of left side's [0, 1]");
    assert_eq!(a.mul_assign(&b).err(), Some(mismatch.clone()));
    assert_eq!(a.sub_assign(&b).err(), Some(mismatch));
    assert!(matches!(a.mul_add_assign(&a.clone(), &b), Err(Error::LimbsMismatch { .. })));
    assert!(matches!(Poly::mul(&a, &b), Err(Error::LimbsMismatch { .. })));
    assert!(matches!(a.keep(&high), Err(Error::LimbsMismatch { .. })));
    assert!(matches!(a.keep(&empty), Err(Error::EmptyBasis { .. })));
    assert_eq!(a.limb(3).err(), Some(Error::MissingLimb { index: 3, limbs: low.clone() }));
    assert!(matches!(a.limb_mut(usize::MAX), Err(Error::MissingLimb { index: usize::MAX, .. })));
    assert!(matches!(a.to_coeff(&high), Err(Error::LimbsMismatch { .. })));
    assert!(matches!(a.add_scaled_assign(&b, &high, &[1; 3]), Err(Error::LimbsMismatch { .. })));
    let length = |want: usize, have: usize| {
        move |e: Error| match e {
            Error::LengthMismatch { expected, found, .. } => (expected, found) == (want, have),
            _ => false,
        }
    };
    assert!(a.scale_assign(&[1]).is_err_and(length(2, 1)));
    assert!(a.add_scaled_assign(&b, &Limbs::range(1..2), &[]).is_err_and(length(1, 0)));

    let other = self::ring(64);
    let stranger = Poly::<Eval>::zero(&other, &low).unwrap();
    let mismatch = Error::RingMismatch { left_degree: 32, left_primes: 4, right_degree: 64, right_primes: 4 };
    assert_eq!(a.add_assign(&stranger).err(), Some(mismatch.clone()));
    assert_eq!(a.mul_add_assign(&stranger, &stranger).err(), Some(mismatch.clone()));
    assert_eq!(Poly::mul(&a, &stranger).err(), Some(mismatch.clone()));
    assert_eq!(a.add_scaled_assign(&stranger, &low, &[1; 2]).err(), Some(mismatch));
    assert!(a != stranger);
    let automorphism = other.automorphism(3).unwrap();
    assert!(a.automorphism(&automorphism).is_err_and(length(32, 64)));
    assert!(Poly::<Coeff>::zero(&ring, &low).unwrap().automorphism(&automorphism).is_err_and(length(32, 64)));
}

#[test]
fn data_from_outside() {
    let ring = ring(32);
    let limbs = Limbs::range(0..2);
    let q = ring.prime(1).unwrap();
    let mut poly = Poly::<Eval>::zero(&ring, &limbs).unwrap();
    poly.limb_mut(1).unwrap()[5] = q as f64;
    let refused = Error::ResidueOutOfRange { limb: 1, position: 5, value: q as f64, modulus: q };
    assert_eq!(poly.check().err(), Some(refused));
    for bad in [-1.0, -0.0, 0.5, q as f64, f64::NAN, f64::INFINITY] {
        let mut poly = Poly::<Coeff>::zero(&ring, &limbs).unwrap();
        poly.check().unwrap();
        poly.limb_mut(1).unwrap()[7] = bad;
        assert!(matches!(poly.check(), Err(Error::ResidueOutOfRange { limb: 1, position: 7, .. })), "{bad}");
    }
    let mut reals = vec![0.0; 32];
    for bad in [f64::NAN, f64::NEG_INFINITY, 1e300, 82f64.exp2()] {
        reals[9] = bad;
        let refused = Poly::from_f64(&ring, &limbs, &reals).err();
        assert!(
            matches!(refused, Some(Error::CoefficientOutOfRange { position: 9, .. })),
            "{bad}: {refused:?}"
        );
    }
    assert!(matches!(Poly::from_f64(&ring, &limbs, &[0.0; 31]), Err(Error::LengthMismatch { .. })));
    assert!(matches!(Poly::from_i64(&ring, &limbs, &[0; 33]), Err(Error::LengthMismatch { .. })));
    assert!(matches!(Poly::from_bigint(&ring, &limbs, &[]), Err(Error::LengthMismatch { .. })));
    // The extremes of the type are fine, for tiny primes too.
    for (ring, extreme) in
        [(&ring, i64::MIN), (&ring, i64::MAX), (&Ring::new(16, &[97, 193]).unwrap(), i64::MIN)]
    {
        let poly = Poly::from_i64(ring, &ring.limbs(), &vec![extreme; ring.degree()]).unwrap();
        for (index, limb) in poly.iter() {
            assert_eq!(limb[1], ring.modulus(index).unwrap().reduce_i128(extreme.into()) as f64);
        }
    }
}

/// Every way to make a polynomial, over limbs that the ring has not, and over none.
#[test]
fn limbs_outside_the_ring_make_no_polynomial() {
    let ring = ring(32);
    for (limbs, expected) in [
        (Limbs::range(0..5), Error::LimbOutOfRange { index: 4, count: 4 }),
        (Limbs::new([9]).unwrap(), Error::LimbOutOfRange { index: 9, count: 4 }),
        (Limbs::range(0..0), Error::EmptyBasis { role: "polynomial" }),
    ] {
        let small = sample::ternary(&mut Stream::new(&Seed::from_bytes([0; 32]), "bad", 0), 32);
        let refusals = [
            Poly::<Coeff>::zero(&ring, &limbs).err(),
            Poly::<Coeff>::scratch(&ring, &limbs).err(),
            Poly::from_f64(&ring, &limbs, &[0.0; 32]).err(),
            Poly::from_i64(&ring, &limbs, &[0; 32]).err(),
            Poly::from_bigint(&ring, &limbs, &vec![0.into(); 32]).err(),
            sample::uniform::<Coeff>(&ring, &limbs, &Seed::from_bytes([0; 32]), "bad", 0).err(),
            small.to_poly(&ring, &limbs).err(),
        ];
        assert!(refusals.iter().all(|error| *error == Some(expected.clone())), "{limbs:?}: {refusals:?}");
    }
}

#[test]
fn basis_conversions() {
    let ring = ring(32);
    let (a, b, empty, outside) =
        (Limbs::range(0..2), Limbs::range(2..4), Limbs::range(0..0), Limbs::range(3..5));
    let overlap = Error::LimbsOverlap { left: Limbs::range(0..3), right: b.clone() };
    assert_eq!(Extension::new(&ring, &Limbs::range(0..3), &b).err(), Some(overlap));
    assert_eq!(Extension::new(&ring, &empty, &b).err(), Some(Error::EmptyBasis { role: "source" }));
    assert_eq!(Extension::new(&ring, &a, &empty).err(), Some(Error::EmptyBasis { role: "target" }));
    assert_eq!(Extension::new(&ring, &a, &outside).err(), Some(Error::LimbOutOfRange { index: 4, count: 4 }));
    assert!(matches!(ModDown::new(&ring, &a, &a), Err(Error::LimbsOverlap { .. })));
    assert!(matches!(ModDown::new(&ring, &empty, &a), Err(Error::EmptyBasis { .. })));
    assert!(matches!(ModDown::new(&ring, &a, &outside), Err(Error::LimbOutOfRange { .. })));

    let short = Poly::<Eval>::zero(&ring, &a).unwrap();
    assert!(matches!(ring.mod_down(&a, &b).unwrap().apply(&short), Err(Error::LimbsMismatch { .. })));
    let coeff = short.clone().into_coeff();
    assert!(matches!(ring.extension(&b, &a).unwrap().apply(&coeff), Err(Error::LimbsMismatch { .. })));
    let full = Poly::<Eval>::zero(&ring, &ring.limbs()).unwrap();
    let mut wrong = Poly::<Eval>::zero(&ring, &b).unwrap();
    assert!(matches!(
        ring.mod_down(&a, &b).unwrap().apply_into(&full, &mut wrong),
        Err(Error::LimbsMismatch { .. })
    ));
    // A table of one ring on polynomials of another.
    let stranger = Ring::new(32, &ntt_primes(32, 40, 4, &[]).unwrap()).unwrap();
    let poly = Poly::<Coeff>::zero(&stranger, &a).unwrap();
    assert!(matches!(ring.extension(&a, &b).unwrap().apply(&poly), Err(Error::RingMismatch { .. })));
    let full = Poly::<Eval>::zero(&stranger, &stranger.limbs()).unwrap();
    assert!(matches!(ring.mod_down(&a, &b).unwrap().apply(&full), Err(Error::RingMismatch { .. })));

    let new =
        |chain: &Limbs, digits: &[Limbs], special: &Limbs| Decomposition::new(&ring, chain, digits, special);
    let p = Limbs::range(3..4);
    assert!(matches!(new(&empty, std::slice::from_ref(&a), &p), Err(Error::EmptyBasis { .. })));
    assert!(matches!(
        new(&Limbs::range(0..3), std::slice::from_ref(&a), &p),
        Err(Error::LimbsMismatch { .. })
    ));
    assert!(matches!(new(&a, &[a.clone(), a.clone()], &p), Err(Error::LimbsOverlap { .. })));
    assert!(matches!(new(&a, std::slice::from_ref(&a), &a), Err(Error::LimbsOverlap { .. })));
    assert!(matches!(new(&a, std::slice::from_ref(&a), &empty), Err(Error::EmptyBasis { .. })));
    let gadget = new(&a, std::slice::from_ref(&a), &p).unwrap();
    assert!(matches!(gadget.decompose(&wrong), Err(Error::LimbsMismatch { .. })));
    assert!(matches!(gadget.decompose(&stranger_eval(&stranger)), Err(Error::RingMismatch { .. })));
    let mut target = Poly::<Coeff>::zero(&ring, &a).unwrap();
    assert!(matches!(
        ring.extension(&a, &b).unwrap().apply_into(&coeff, &mut target),
        Err(Error::LimbsMismatch { .. })
    ));
    assert!(matches!(ring.extension(&b, &a).unwrap().mod_up(&short), Err(Error::LimbsMismatch { .. })));
}

fn stranger_eval(ring: &Arc<Ring>) -> Poly<Eval> {
    Poly::zero(ring, &ring.limbs()).unwrap()
}

#[test]
fn key_switching() {
    let ring = ring(32);
    let (all, low) = (ring.limbs(), Limbs::range(0..2));
    let make = |limbs: &Limbs| Poly::<Eval>::zero(&ring, limbs).unwrap();
    let key = [[make(&all), make(&all)]];
    let ([mut a, mut b], digit) = ([make(&all), make(&all)], make(&all));
    let two = [digit.clone(), digit.clone()];
    let one = &two[..1];
    let packed = |pair: &[Poly<Eval>; 2]| PackedPair::pack(pair.each_ref()).unwrap();
    let other = self::ring(64);
    let strangers = [stranger_eval(&other)];
    let pair = |poly: &Poly<Eval>| [poly.clone(), poly.clone()];
    // In both forms: a whole key, one with fewer limbs, one of another ring.
    fn refusals<K: KeyDigits + ?Sized>(
        [whole, lower, foreign]: [&K; 3],
        [a, b, short]: [&mut Poly<Eval>; 3],
        [one, two, lower_digits, strangers]: [&[Poly<Eval>]; 4],
    ) {
        let mut run = |digits: &[&[Poly<Eval>]], key: &K| key_product(&mut [[&mut *a, &mut *b]], digits, key);
        assert!(matches!(run(&[two], whole), Err(Error::LengthMismatch { expected: 2, found: 1, .. })));
        assert!(matches!(run(&[one, one], whole), Err(Error::LengthMismatch { expected: 1, found: 2, .. })));
        assert!(matches!(run(&[], whole), Err(Error::LengthMismatch { expected: 1, found: 0, .. })));
        assert!(matches!(run(&[lower_digits], whole), Err(Error::LimbsMismatch { .. })));
        assert!(matches!(run(&[strangers], whole), Err(Error::RingMismatch { .. })));
        assert!(matches!(run(&[one], lower), Err(Error::MissingLimb { index: 2, .. })));
        assert!(matches!(run(&[one], foreign), Err(Error::RingMismatch { .. })));
        // Nothing to do is done.
        assert_eq!(run(&[&[]], whole), Ok(()));
        assert_eq!(key_product(&mut [], &[], whole), Ok(()));
        let refused = key_product(&mut [[&mut *a, &mut *short]], &[one], whole);
        assert!(matches!(refused, Err(Error::LimbsMismatch { .. })));
        let mut third = b.clone();
        let refused = key_product(&mut [[&mut *a, &mut *b], [&mut third, &mut *short]], &[one, one], whole);
        assert!(matches!(refused, Err(Error::LimbsMismatch { .. })));
        let mut third = b.clone();
        let mut fourth = b.clone();
        let refused = key_product(&mut [[&mut *a, &mut *b], [&mut third, &mut fourth]], &[one, two], whole);
        assert!(matches!(refused, Err(Error::LengthMismatch { expected: 1, found: 2, .. })));
        let refused = key_product(&mut [[&mut *a, &mut strangers[0].clone()]], &[one], whole);
        assert!(matches!(refused, Err(Error::RingMismatch { .. })));
    }
    let (mut short, lower_digits) = (make(&low), [make(&low)]);
    let [lower, foreign] = [[pair(&make(&low))], [pair(&strangers[0])]];
    let digits = || [one, &two[..], &lower_digits[..], &strangers[..]];
    refusals([&key[..], &lower, &foreign], [&mut a, &mut b, &mut short], digits());
    let packs = [&key, &lower, &foreign].map(|key| [packed(&key[0])]);
    refusals(packs.each_ref().map(|key| &key[..]), [&mut a, &mut b, &mut short], digits());
    for pair in [[&key[0][0], &make(&low)], [&make(&low), &key[0][0]]] {
        assert!(matches!(PackedPair::pack(pair).map(drop), Err(Error::LimbsMismatch { .. })));
    }
    assert!(matches!(
        PackedPair::pack([&key[0][0], &strangers[0]]).map(drop),
        Err(Error::RingMismatch { .. })
    ));
    let last = all.len() - 1;
    assert!(matches!(packs[1][0].limb(last), Err(Error::MissingLimb { index, .. }) if index == last));
    assert!(matches!(PackedPair::bytes_over(&ring, &Limbs::range(0..0)), Err(Error::EmptyBasis { .. })));
    assert!(matches!(PackedPair::bytes_over(&ring, &Limbs::range(0..99)), Err(Error::LimbOutOfRange { .. })));
    // The product of one limb takes what slices there are.
    let modulus = ring.modulus(0).unwrap();
    let mut outputs = [vec![7.0; 40], vec![7.0; 32]];
    let [out0, out1] = &mut outputs;
    KeyLimb::Packed(vec![&[]]).product(ring.kernel(), modulus, &mut [[out0, out1]], &[vec![&[1.0; 8]]]);
    KeyLimb::Expanded(vec![]).product(ring.kernel(), modulus, &mut [], &[]);
    assert!(outputs.iter().flatten().all(|&x| x == 7.0));
}

#[test]
fn free_functions_take_any_number() {
    let m = Modulus::new(97).unwrap();
    for x in [0, 1, 97, u64::MAX] {
        assert!(m.add(x, u64::MAX) < 97 && m.sub(x, u64::MAX) < 97 && m.mul(x, x) < 97 && m.neg(x) < 97);
        assert!(m.pow(x, u64::MAX) < 97 && m.reduce(x) == x % 97);
        assert_eq!(m.inv(x).is_none(), x % 97 == 0);
    }
    for x in [i128::MIN, -1, 0, i128::MAX] {
        assert!(m.reduce_i128(x) < 97);
    }
    for log_n in [0, 1, 4, 17, 63, 64, u32::MAX] {
        for index in [0, 1, 15, usize::MAX] {
            assert_eq!(eval_exponent(log_n, index) % 2, 1);
        }
    }
}

#[test]
fn samplers() {
    let seed = Seed::from_bytes([0; 32]);
    let mut stream = Stream::new(&seed, "bad", 0);
    for weight in [0, 33] {
        let refused = sample::ternary_weight(&mut stream, 32, weight).err();
        assert_eq!(refused, Some(Error::BadWeight { weight, degree: 32 }));
    }
    assert!(matches!(
        sample::ternary_weight(&mut stream, 24, 3).err(),
        Some(Error::UnsupportedDegree { .. })
    ));
    let ring = ring(32);
    let empty = Limbs::range(0..0);
    assert!(matches!(sample::uniform::<Eval>(&ring, &empty, &seed, "a", 0), Err(Error::EmptyBasis { .. })));
    let small = sample::ternary(&mut stream, 31);
    assert!(matches!(small.to_poly(&ring, &ring.limbs()).err(), Some(Error::LengthMismatch { .. })));
    assert!(sample::gaussian(&mut stream, 0).expose().is_empty());
}
