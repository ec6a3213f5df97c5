//! Fits, certificates and evaluation of polynomials.

use cipherlm_approx::{Circuit, EvalPlan, Function, Interval, Remez, Scheme, Weight, choose};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

fn fits(c: &mut Criterion) {
    let mut group = c.benchmark_group("approx");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let wide = Interval::new(1e-3, 1.0).expect("an interval");
    for degree in [31, 63, 127] {
        group.bench_function(format!("minimax_inverse/{degree}"), |b| {
            let remez = Remez::new(&[wide], degree).expect("a problem").weight(Weight::Relative);
            b.iter(|| remez.fit(black_box(&Function::INVERSE)).expect("a fit"));
        });
    }
    let gelu = Interval::symmetric(8.0).expect("an interval");
    group.bench_function("gelu_31_certified/31", |b| {
        b.iter(|| Scheme::minimax(black_box(Function::Gelu), gelu, 31).expect("a scheme"));
    });
    let scheme = Scheme::minimax(Function::Gelu, gelu, 31).expect("a scheme");
    group.bench_function("verify_gelu/31", |b| b.iter(|| black_box(&scheme).verify().expect("a proof")));
    group.bench_function("relaxed_inverse_certified/127", |b| {
        b.iter(|| Scheme::relaxed(black_box(0.0), wide, 7).expect("a scheme"));
    });
    group.bench_function("sign_composite/7_15_15_27", |b| {
        b.iter(|| {
            cipherlm_approx::scheme::minimax_sign(black_box(2f64.powi(-12)), &[7, 15, 15, 27])
                .expect("stages")
        });
    });
    group.bench_function("choose_inverse/1000", |b| {
        b.iter(|| choose(black_box(Function::INVERSE), &[wide], 1e-3).expect("a choice"));
    });
    group.finish();
}

fn evaluation(c: &mut Criterion) {
    let mut group = c.benchmark_group("approx");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let gelu = Interval::symmetric(8.0).expect("an interval");
    let scheme = Scheme::minimax(Function::Gelu, gelu, 31).expect("a scheme");
    let x: Vec<f64> = gelu.linspace(4096).collect();
    group.bench_function("eval_gelu_slice/4096", |b| b.iter(|| scheme.eval_slice(black_box(&x))));
    group.bench_function("eval_gelu_scalar/1", |b| b.iter(|| scheme.eval_f64(black_box(0.7))));
    if let Circuit::Polynomial { plan } = scheme.circuit() {
        let polynomial = plan.polynomials()[0].clone();
        group.bench_function("clenshaw_gelu/1", |b| b.iter(|| polynomial.eval(black_box(0.7))));
        group
            .bench_function("plan/31", |b| b.iter(|| EvalPlan::new(black_box(&polynomial)).expect("a plan")));
    }
    group.finish();
}

criterion_group!(benches, fits, evaluation);
criterion_main!(benches);
