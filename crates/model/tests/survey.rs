//! Passes over much text: the same on any number of threads, and rates with honest bounds.

use cipherlm_model::{
    FitOptions, Freezing, Margins, Mode, OutOfRange, Runner, Shape, certify, fit, freeze_eps, out_of_range,
    random, survey,
};

fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn ranges_polynomials_and_constants_are_the_same_bits_on_any_number_of_threads() {
    let model = random::weights_only("threads", &Shape::preset("test").unwrap(), 5).unwrap();
    let windows = random::windows(model.shape(), 16, 23, 4);
    let certified = |threads: usize| {
        on(threads, || {
            let mut model = freeze_eps(&model, &windows, Freezing::at(30.0)).unwrap();
            certify(&mut model, &windows[..15], &windows[15..], &Margins::default()).unwrap();
            fit(&mut model, &FitOptions::default()).unwrap();
            model
        })
    };
    let one = certified(1);
    for threads in [2, 3, 7] {
        assert!(certified(threads) == one, "{threads} threads");
    }
}

/// The survey takes f32 maps: it must not see other ranges than the reference pass.
#[test]
fn a_survey_sees_what_the_reference_pass_sees() {
    let model = random::certified("seen", &Shape::preset("test").unwrap(), 5).unwrap();
    let windows = random::windows(model.shape(), 16, 9, 8);
    for mode in [Mode::Exact, Mode::Polynomial] {
        let mut runner = Runner::new(&model, mode).unwrap();
        for window in &windows {
            runner.forward(window, cipherlm_model::Positions::All).unwrap();
        }
        let reports = survey(&model, &windows, mode).unwrap();
        assert_eq!(reports.len(), runner.stats().count());
        for (report, (name, function, stats)) in reports.iter().zip(runner.stats()) {
            assert_eq!((report.site.as_str(), report.function), (name, function));
            let (a, b) = (report.observed, stats.observed);
            assert_eq!((a.count, a.not_finite), (b.count, b.not_finite), "{name}");
            let close = |x: f64, y: f64| (x - y).abs() < 1e-5 * b.max.abs().max(b.min.abs());
            assert!(close(a.min, b.min) && close(a.max, b.max), "{name}: {a:?} {b:?}");
        }
    }
}

#[test]
fn what_leaves_the_ranges_is_counted_by_window() {
    let mut model = random::weights_only("outside", &Shape::preset("test").unwrap(), 1).unwrap();
    let windows = random::windows(model.shape(), 16, 12, 4);
    assert!(out_of_range(&model, &windows).is_err(), "no ranges yet");
    let tight = Margins { activation: 1.0, magnitude: 1.0, variance: 1.0, denominator: 1.0 };
    certify(&mut model, &windows[..4], &[], &tight).unwrap();
    let own = out_of_range(&model, &windows[..4]).unwrap();
    assert_eq!((own.windows, own.windows_outside, own.values_outside, &own.worst), (4, 0, 0, &None));
    let other = out_of_range(&model, &windows).unwrap();
    assert!(other.windows == 12 && (1..=8).contains(&other.windows_outside), "{other:?}");
    assert!(other.values_outside >= other.windows_outside && other.worst.is_some(), "{other:?}");
    assert!(out_of_range(&model, &[]).is_err());
}

#[test]
fn bounds_are_those_of_clopper_and_pearson() {
    let bound = |windows, windows_outside| {
        let seen = OutOfRange { windows, windows_outside, values: 0, values_outside: 0, worst: None };
        seen.bound(0.95)
    };
    // 1 - 0.05^(1/n) where none was seen; the 95 % point of Beta(6, 95).
    assert!((bound(100, 0) - 0.029_513_0).abs() < 1e-6);
    assert!((bound(100, 5) - 0.102_253).abs() < 2e-4, "{}", bound(100, 5));
    assert_eq!(bound(7, 7), 1.0);
    // Half of many: the normal approximation.
    assert!((bound(10_000, 5_000) - (0.5 + 1.645 * 0.005)).abs() < 1e-4);
}
