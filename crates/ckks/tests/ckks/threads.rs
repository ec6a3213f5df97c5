//! One evaluator, many threads: the results are those of one thread, bit for bit, and nobody waits
//! for ever.

use std::sync::mpsc;
use std::time::Duration;

use crate::common::{Setup, setup, values};
use cipherlm_ckks::ring::par::with_threads;
use cipherlm_ckks::{Ciphertext, GaloisElement};
use rayon::prelude::*;

/// The ring layer runs a job of this many residues on several threads.
const PARALLEL: usize = 1 << 14;

/// A ring large enough that every operation on a ciphertext of `levels` levels has parallel parts.
fn large(levels: usize, steps: &[i64]) -> Setup {
    let s = setup(1 << 12, 40.0, levels, steps);
    assert!(
        s.params.degree() * s.params.limb_count(s.params.max_level()) >= PARALLEL,
        "nothing is parallel here"
    );
    s
}

/// What `f` returns, unless it hangs.
fn in_time<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(f()));
    receive.recv_timeout(Duration::from_secs(240)).unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[test]
fn an_evaluator_is_shared_by_threads() {
    let s = large(5, &[1]);
    let (x, y) = (s.encrypt(&values(2048, 1), 5), s.encrypt(&values(2048, 2), 5));
    let run = || {
        let product = s.evaluator.mul_relin_rescale(&x, &y).unwrap();
        let rotated = s.evaluator.rotate(&product, 1).unwrap();
        s.evaluator.add(&rotated, &s.evaluator.conjugate(&product).unwrap()).unwrap().into_parts()
    };
    let alone = with_threads(1, run);
    let all: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert!(all.iter().all(|parts| *parts == alone));
    for threads in [2, 8] {
        assert!(with_threads(threads, run) == alone, "{threads} threads");
    }
}

#[test]
fn a_hoisted_ciphertext_is_rotated_by_parallel_tasks() {
    let steps = [1i64, 2, 3, 4, 5, 6, 7];
    let s = large(11, &steps);
    let x = s.encrypt(&values(2048, 1), 11);
    let elements = steps.map(|steps| GaloisElement::rotation(&s.params, steps));
    let expected: Vec<_> = with_threads(1, || s.evaluator.rotate_many(&x, &steps).unwrap());
    let found = in_time("rotations of a hoisted ciphertext", move || {
        let round = |threads: usize| {
            with_threads(threads, || {
                let hoisted = s.evaluator.hoist(&x).unwrap();
                let rotate = |&element: &GaloisElement| {
                    let extended = s.evaluator.rotate_hoisted_qp(&hoisted, element).unwrap();
                    let rotated = s.evaluator.rotate_hoisted(&hoisted, element).unwrap();
                    assert!(s.evaluator.mod_down(&extended).unwrap().level() == rotated.level());
                    rotated
                };
                elements.par_iter().map(rotate).collect::<Vec<_>>()
            })
        };
        (0..48).map(|k| round([8, 16][k % 2])).collect::<Vec<_>>()
    });
    for round in found {
        assert!(
            round.into_iter().map(Ciphertext::into_parts).eq(expected.iter().map(|c| c.clone().into_parts()))
        );
    }
}
