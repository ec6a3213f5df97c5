//! Results are the same bits whatever computes them; buffers are reused, and wiped secrets leave nothing behind.

mod common;

use cipherlm_ring::{
    Coeff, Decomposition, Eval, Kernel, Limbs, Poly, Ring, Secret, Seed, Stream, inner_product, par, sample,
};
use common::{mixed_ring, mixed_ring_on, random};

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
    inner_product([&mut a, &mut b], &digits, &key, Some(&automorphism)).unwrap();
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
    assert_eq!(hasher.finalize().to_hex().as_str(), "83772eca3b6924b8e5958643062621491312867e6b4bfd00bc493fbc0fda1a1d");
}

#[test]
fn secrets_are_wiped_before_their_memory_is_reused() {
    let ring: std::sync::Arc<Ring> = mixed_ring(8);
    let limbs = ring.limbs();
    let left_behind = |secret: bool| {
        ring.set_buffer_limit(0);
        ring.set_buffer_limit(1 << 30);
        let mut stream = Stream::new(&Seed::from_bytes([1; 32]), "secret", 0);
        let poly = sample::ternary(&mut stream, ring.degree()).to_poly(&ring, &limbs).unwrap().into_eval();
        if secret {
            // A truncated secret still owns the memory of the limbs that were cut off.
            let mut copy = Secret::new(poly.expose().clone());
            copy.expose_mut().keep_assign(&limbs.first(7)).unwrap();
            drop(copy);
        } else {
            drop(poly.expose().clone());
        }
        // The pool hands back the last buffer given to it.
        let reused = Poly::<Eval>::scratch(&ring, &limbs).unwrap();
        assert!(ring.buffer_bytes() == 0, "the buffer came from the pool");
        reused.iter().map(|(_, limb)| limb.iter().filter(|&&x| x != 0.0).count()).sum::<usize>()
    };
    assert!(left_behind(false) > 0, "an ordinary polynomial leaves its residues");
    assert_eq!(left_behind(true), 0);
}

#[test]
fn repeated_work_reuses_its_buffers() {
    let ring = mixed_ring(10);
    let x = random::<Eval>(&ring, &ring.limbs(), 1);
    let down = ring.mod_down(&Limbs::range(0..6), &Limbs::range(6..8)).unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let y = down.apply(&x).unwrap();
        drop(y.clone().into_coeff());
        drop(y);
        held.push(ring.buffer_bytes());
    }
    assert!(held[0] > 0 && held.iter().all(|&bytes| bytes == held[0]), "{held:?}");
}
