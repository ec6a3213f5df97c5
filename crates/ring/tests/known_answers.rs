//! Numbers computed by an independent route: plain Python integers, and BLAKE3 written anew from
//! its specification.

use cipherlm_ring::{Coeff, Limbs, Poly, Ring, Seed, Stream, ntt_primes, sample};
use num_bigint::BigInt;

const PRIMES: [u64; 3] = [1125899906842273, 1125899906842177, 1125899906841377];

#[test]
fn primes() {
    assert_eq!(ntt_primes(16, 50, 3, &[]).unwrap(), PRIMES);
    let expected = [1125899903827969, 1125899902124033, 1125899887312897, 1125899886395393];
    assert_eq!(ntt_primes(1 << 16, 50, 4, &[]).unwrap(), expected);
    assert_eq!(ntt_primes(1 << 17, 40, 3, &[]).unwrap(), [1099510054913, 1099507695617, 1099504549889]);
}

#[test]
fn values_product_rescale_extension_automorphism() {
    let ring = Ring::new(16, &PRIMES).unwrap();
    let all = ring.limbs();
    // 3^(100 k + i + 1) mod 2^61 - 1, shifted to be signed.
    let coefficients = |k: u64| -> Vec<i64> {
        let mersenne = (1u128 << 61) - 1;
        let mut power = 1u128;
        let mut list: Vec<i64> = Vec::new();
        for exponent in 1..=100 * k + 16 {
            power = power * 3 % mersenne;
            if exponent > 100 * k {
                list.push(power as i64 - (1 << 60));
            }
        }
        list
    };
    let [a, b] = [1, 2].map(|k| Poly::<Coeff>::from_i64(&ring, &all, &coefficients(k)).unwrap().into_eval());

    // By exponent of the root: psi, psi^3, psi^5, …
    let values: [u64; 16] = [
        929219165192551,
        1010033688428718,
        1123974572408711,
        172018378942645,
        792717392723706,
        589142527857410,
        513506619098963,
        643105809803562,
        638725171591799,
        746262725419804,
        614416440899010,
        523455720814475,
        463366302598479,
        23515035774856,
        911441499829350,
        444636424083365,
    ];
    assert_eq!(ring.ntt_table(0).unwrap().root(), 476788806329288);
    for (slot, &value) in a.limb(0).unwrap().iter().enumerate() {
        assert_eq!(value as u64, values[cipherlm_ring::eval_exponent(4, slot) / 2], "slot {slot}");
    }

    let product = Poly::mul(&a, &b).unwrap();
    let expected = integers([
        "1410417282051961477502543913266243564",
        "1483537585014129394595618155686535948",
        "1524381954756786556982717912222482277",
        "1276551486141903726315736794924542419",
        "148510901150480134797982242501713074",
        "201112037493759685506425209297083563",
        "-658382702171342499105460549427564529",
        "-806663344523122622689445036543395555",
        "1085464252403346737294092626683624099",
        "-1286252740320333139519957155681633756",
        "-1535958764133129030274332005064531552",
        "-2593119127864545499892600952329007952",
        "-1371815112798217809197612750348407883",
        "-1372011292206967206901694185051219356",
        "-1202643721197506450318516623487555204",
        "-184672680461997331482718341780267033",
    ]);
    assert_eq!(product.clone().into_coeff().to_bigint(), expected);

    let rescaled = ring.mod_down(&all.first(2), &all.last(1)).unwrap().apply(&product).unwrap();
    let expected = integers([
        "1252702192692044389177",
        "1317646067825049004833",
        "1353923155596770033034",
        "1133805481628618123003",
        "131904177492221047980",
        "178623371644077647647",
        "-584761307973088847640",
        "-716460974569358243902",
        "964085924341650148898",
        "-1142421926233934339178",
        "-1364205427853830871537",
        "-2303152449083449876174",
        "-1218416579007219601990",
        "-1218590821324460539948",
        "-1068162199756662332623",
        "-164022289494704647053",
    ]);
    assert_eq!(rescaled.into_coeff().to_bigint(), expected);

    let twice = ring.mod_down(&all.first(1), &all.last(2)).unwrap().apply(&product).unwrap();
    let expected = [
        1112623.0, 1170305.0, 1202525.0, 1007022.0, 117154.0, 158649.0, -519372.0, -636345.0, 856280.0,
        -1014675.0, -1211658.0, -2045610.0, -1082171.0, -1082326.0, -948719.0, -145681.0,
    ];
    assert_eq!(twice.into_coeff().to_f64(), expected);

    let extended =
        ring.extension(&all.first(2), &all.last(1)).unwrap().apply(&product.clone().into_coeff()).unwrap();
    let expected = [
        803066250341812.0,
        312814574536907.0,
        701875271355836.0,
        520104895277688.0,
        206199959457414.0,
        187555451190444.0,
        537720059085351.0,
        385223980233499.0,
        143231984767553.0,
        780761306815727.0,
        447896175109297.0,
        1030459980733023.0,
        769745262146524.0,
        1105571274727217.0,
        121773427565867.0,
        203751485385748.0,
    ];
    assert_eq!(extended.limb(2).unwrap(), expected);

    let moved = product.automorphism(&ring.automorphism(5).unwrap()).unwrap();
    let expected = integers([
        "1410417282051961477502543913266243564",
        "-1372011292206967206901694185051219356",
        "1535958764133129030274332005064531552",
        "-806663344523122622689445036543395555",
        "-148510901150480134797982242501713074",
        "1483537585014129394595618155686535948",
        "-1202643721197506450318516623487555204",
        "2593119127864545499892600952329007952",
        "1085464252403346737294092626683624099",
        "-201112037493759685506425209297083563",
        "1524381954756786556982717912222482277",
        "-184672680461997331482718341780267033",
        "1371815112798217809197612750348407883",
        "-1286252740320333139519957155681633756",
        "658382702171342499105460549427564529",
        "1276551486141903726315736794924542419",
    ]);
    assert_eq!(moved.into_coeff().to_bigint(), expected);
}

#[test]
fn streams_and_samplers() {
    let seed = Seed::from_bytes(std::array::from_fn(|i| i as u8));
    let stream = || Stream::new(&seed, "known answer", 7);
    let mut words = stream();
    let first: Vec<u64> = (0..513).map(|_| words.next_u64()).collect();
    let expected = [14342672602384135711, 12051352872910665389, 14726748151976468659, 2046763409480415626];
    assert_eq!(first[..4], expected);
    assert_eq!(first[512], 5086599275223072710);

    let child = [
        0x7b, 0x7b, 0x81, 0x75, 0xb7, 0x4b, 0xc5, 0xf8, 0x81, 0x1e, 0xdf, 0x08, 0x89, 0xf7, 0x34, 0xd1, 0xdc,
        0xe8, 0x1b, 0xb0, 0xfb, 0x83, 0xeb, 0x55, 0xd4, 0x52, 0x91, 0x05, 0x30, 0xf9, 0x20, 0x17,
    ];
    assert_eq!(*seed.derive("child", 3).expose(), child);

    let ring = Ring::new(16, &PRIMES).unwrap();
    let uniform = sample::uniform::<Coeff>(&ring, &Limbs::range(0..2), &seed, "public", 1).unwrap();
    let limb = |i| uniform.limb(i).unwrap()[..4].to_vec();
    assert_eq!(limb(0), [339110966578497.0, 1078782687888552.0, 681616357793483.0, 979071468310561.0]);
    assert_eq!(limb(1), [718430981466484.0, 908932944757354.0, 651743328120305.0, 875189532350526.0]);

    // By definition: the high word of draw times prime, unless the low word is below 2^64 mod
    // prime.
    for (i, prime) in PRIMES[..2].iter().enumerate() {
        let mut words = Stream::new(&seed.derive("public", 1), "uniform limb", *prime);
        let mut draw = || loop {
            let product = u128::from(words.next_u64()) * u128::from(*prime);
            if product % (1 << 64) >= (1u128 << 64) % u128::from(*prime) {
                break (product >> 64) as f64;
            }
        };
        assert!(uniform.limb(i).unwrap().iter().all(|x| *x == draw()));
        // The same in uneven blocks.
        let mut blocks = sample::UniformLimb::new(ring.modulus(i).unwrap(), &seed, "public", 1);
        let mut again = [0.0; 16];
        let (head, tail) = again.split_at_mut(5);
        blocks.fill(head);
        blocks.fill(tail);
        assert_eq!(again, uniform.limb(i).unwrap());
    }

    let gaussian = [-4, -3, -4, 0, -1, 0, -3, -3, -1, -1, 1, -1, 0, 4, 4, 3, 3, 3, -1, 2, -1, 0, -4, 4];
    assert_eq!(sample::gaussian(&mut stream(), 24).expose(), gaussian);
    let ternary = [1, 0, 1, -1, -1, -1, 1, 0, -1, -1, -1, -1, -1, 1, 1, 1, 0, 1, -1, 0, -1, -1, 1, 1];
    assert_eq!(sample::ternary(&mut stream(), 24).expose(), ternary);
    let sparse = [0, -1, 0, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, -1, 0];
    assert_eq!(sample::ternary_weight(&mut stream(), 16, 5).unwrap().expose(), sparse);
}

fn integers<const N: usize>(digits: [&str; N]) -> Vec<BigInt> {
    digits.iter().map(|d| d.parse().unwrap()).collect()
}
