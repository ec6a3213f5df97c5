//! Results are the same bits whatever computes them.

mod common;

use cipherlm_ring::{Coeff, Decomposition, Eval, Kernel, Limbs, Poly, key_product, par};
use common::{mixed_ring_on, random};

/// A little of everything, large enough that parallel regions open.
fn work(kernel: &'static Kernel) -> Vec<Poly<Eval>> {
    let ring = mixed_ring_on(13, kernel);
    let (chain, special) = (Limbs::range(0..6), Limbs::range(6..8));
    let x = random::<Coeff>(&ring, &chain, 1).into_eval();
    let groups = [Limbs::range(0..2), Limbs::range(2..4), Limbs::range(4..6)];
    let digits = Decomposition::new(&ring, &chain, &groups, &special).unwrap().decompose(&x).unwrap();
    let key: Vec<[Poly<Eval>; 2]> =
        (0..3).map(|i| [2 * i + 10, 2 * i + 11].map(|s| random::<Eval>(&ring, &ring.limbs(), s))).collect();
    let automorphism = ring.automorphism(25).unwrap();
    let [mut a, mut b] = [0, 1].map(|_| Poly::zero(&ring, &ring.limbs()).unwrap());
    let digits: Vec<Poly<Eval>> =
        digits.iter().map(|digit| digit.automorphism(&automorphism).unwrap()).collect();
    key_product(&mut [[&mut a, &mut b]], &[&digits], &key[..]).unwrap();
    let down = ring.mod_down(&chain.first(5), &special.union(&chain.last(1))).unwrap();
    let mut c = down.apply(&a).unwrap();
    c.mul_add_assign(&b, &x).unwrap();
    let values = c.clone().into_coeff().to_double_double();
    let (integers, floats): (Vec<f64>, Vec<f64>) = values.iter().map(|v| (v.0 % 1e9, v.1)).unzip();
    assert!(floats.iter().any(|&x| x != 0.0));
    let d = Poly::from_f64(&ring, &chain, &integers).unwrap().into_eval();
    vec![a, b, c, d]
}

#[test]
fn results_depend_on_neither_threads_nor_kernel_nor_machine() {
    let one = par::with_threads(1, || work(Kernel::scalar()));
    for kernel in Kernel::available() {
        for threads in [1, 2, 3] {
            assert!(par::with_threads(threads, || work(kernel)) == one, "{kernel:?}, {threads} threads");
        }
    }
    // The same in debug and release builds, and on every platform.
    let mut hasher = blake3::Hasher::new();
    for (_, limb) in one.iter().flat_map(Poly::iter) {
        limb.iter().for_each(|x| {
            hasher.update(&x.to_le_bytes());
        });
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "83772eca3b6924b8e5958643062621491312867e6b4bfd00bc493fbc0fda1a1d"
    );
}
