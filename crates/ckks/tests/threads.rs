//! One evaluator, many threads: the results are those of one thread, bit for bit.

mod common;

use common::{setup, values};

#[test]
fn an_evaluator_is_shared_by_threads() {
    let s = setup(1 << 10, 40.0, 3, &[1]);
    let (x, y) = (s.encrypt(&values(512, 1), 3), s.encrypt(&values(512, 2), 3));
    let run = || {
        let product = s.evaluator.mul_relin_rescale(&x, &y).unwrap();
        s.evaluator.rotate(&product, 1).unwrap().into_parts()
    };
    let alone = cipherlm_ckks::ring::par::with_threads(1, run);
    let all: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert!(all.iter().all(|parts| *parts == alone));
    assert!(cipherlm_ckks::ring::par::with_threads(2, run) == alone);
}
