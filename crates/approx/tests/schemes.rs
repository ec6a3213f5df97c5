//! Schemes against the functions they stand for.

use serde_json::json;

use cipherlm_approx::{Certificate, Error, Function, Interval, Measure, Scheme};

fn interval(lo: f64, hi: f64) -> Interval {
    Interval::new(lo, hi).unwrap()
}

/// Largest error on a dense grid of the domain.
fn sampled(scheme: &Scheme, points: usize) -> f64 {
    let mut worst = 0.0f64;
    for interval in scheme.domain() {
        for x in interval.linspace(points) {
            // Geometric points as well where the domain spans many scales.
            let geometric = if interval.lo() > 0.0 {
                interval.lo() * interval.ratio().powf((x - interval.lo()) / (interval.hi() - interval.lo()))
            } else {
                x
            };
            for x in [x, geometric.clamp(interval.lo(), interval.hi())] {
                let exact = scheme.function().eval(x);
                let error = (scheme.eval_f64(x) - exact).abs();
                worst = worst.max(match scheme.measure() {
                    Measure::Absolute => error,
                    Measure::Relative => error / exact.abs(),
                });
            }
        }
    }
    worst
}

fn standard() -> Vec<Scheme> {
    let wide = interval(1e-3, 1.0);
    vec![
        Scheme::minimax(Function::Gelu, interval(-8.0, 8.0), 31).unwrap(),
        Scheme::minimax(Function::Silu, interval(-10.0, 10.0), 23).unwrap(),
        Scheme::minimax(Function::Tanh, interval(-5.0, 5.0), 21).unwrap(),
        Scheme::minimax(Function::Sigmoid, interval(-8.0, 8.0), 19).unwrap(),
        Scheme::minimax(Function::Exp, interval(-4.0, 1.0), 10).unwrap(),
        Scheme::minimax(Function::Erf, interval(-3.0, 3.0), 19).unwrap(),
        Scheme::minimax(Function::INVERSE, wide, 63).unwrap(),
        Scheme::minimax(Function::InverseSqrt { shift: 0.0 }, interval(0.01, 2.0), 15).unwrap(),
        Scheme::goldschmidt(1e-3, interval(0.0, 1.0), 12).unwrap(),
        Scheme::relaxed(1e-3, interval(0.0, 1.0), 7).unwrap(),
        Scheme::seeded_inverse(1e-3, interval(0.0, 1.0), 15, 4).unwrap(),
        Scheme::inverse_sqrt(1e-5, interval(0.01, 2.56), 15, 1).unwrap(),
        Scheme::inverse_sqrt(0.0, interval(0.01, 2.56), 7, 2).unwrap(),
        Scheme::sign(1.0, 0.02, &[7, 7, 13]).unwrap(),
        Scheme::step(4.0, 0.05, &[7, 15]).unwrap(),
        Scheme::relu(1.0, 0.02, &[7, 15]).unwrap(),
        Scheme::extended(Function::Sigmoid, 40.0, 14.0, 27).unwrap(),
        Scheme::extended(Function::Gelu, 30.0, 8.0, 31).unwrap(),
    ]
}

#[test]
fn certificates_bound_the_error_tightly() {
    for scheme in standard() {
        let (bound, seen) = (scheme.max_error(), sampled(&scheme, 20_001));
        println!(
            "{:32} {:22} depth {:2} ({:2}) products {:2} error {:.3e} sampled {:.3e} pieces {}",
            scheme.function().to_string(),
            scheme.name(),
            scheme.depth(),
            scheme.depth_mapped(),
            scheme.products(),
            bound,
            seen,
            scheme.certificate().pieces
        );
        assert!(seen <= bound, "{scheme:?}: {seen:e} > {bound:e}");
        assert!(bound <= 1.5 * seen, "{} {}: {bound:e} against {seen:e}", scheme.function(), scheme.name());
        scheme.verify().unwrap();
    }
}

#[test]
fn a_certificate_with_a_lower_bound_is_refuted() {
    let scheme = Scheme::minimax(Function::Gelu, interval(-6.0, 6.0), 15).unwrap();
    let bound = 0.9 * scheme.certificate().attained;
    let lower = Certificate { bound, attained: bound, ..scheme.certificate().clone() };
    assert!(matches!(lower.verify(scheme.circuit()), Err(Error::NotProved { .. })));
    let wider = Certificate { domain: vec![interval(-6.5, 6.0)], ..scheme.certificate().clone() };
    assert!(matches!(wider.verify(scheme.circuit()), Err(Error::NotProved { .. })));
}

#[test]
fn reciprocal_depth_on_a_ratio_of_a_thousand() {
    let domain = interval(1e-3, 1.0);
    let coarse = Scheme::relaxed(0.0, domain, 7).unwrap();
    assert!(coarse.max_error() <= 1e-3 && coarse.depth_mapped() <= 7, "{:?}", coarse.certificate());
    let fine = Scheme::relaxed(0.0, domain, 8).unwrap();
    assert!(fine.max_error() <= 1e-5 && fine.depth_mapped() <= 8, "{:?}", fine.certificate());
    // The paper's arm needs 12 factors for the first.
    let plain = Scheme::goldschmidt(0.0, domain, 11).unwrap();
    assert!(plain.max_error() > 1e-3);
    assert!(Scheme::goldschmidt(0.0, domain, 12).unwrap().max_error() <= 1e-3);
}

#[test]
fn relaxed_product_is_the_minimax_polynomial() {
    let domain = interval(0.01, 1.0);
    let relaxed = Scheme::relaxed(0.0, domain, 5).unwrap();
    let minimax = Scheme::minimax(Function::INVERSE, domain, 31).unwrap();
    for x in domain.linspace(200) {
        assert!((relaxed.eval_f64(x) * x - minimax.eval_f64(x) * x).abs() < 1e-9);
    }
    assert!(relaxed.products() < minimax.products());
}

#[test]
fn comparison_with_the_published_degrees_keeps_twelve_bits() {
    // max(a, b) through the composite {7, 15, 15, 27}, over all arguments, those inside the gap
    // included.
    let relu = Scheme::relu(1.0, (-11.7f64).exp2(), &[7, 15, 15, 27]).unwrap();
    assert!(relu.max_error().log2() <= -13.0, "2^{}", relu.max_error().log2());
    let sign = Scheme::sign(1.0, (-11.7f64).exp2(), &[7, 15, 15, 27]).unwrap();
    assert!(sign.max_error().log2() <= -12.0, "2^{}", sign.max_error().log2());
    assert_eq!(sign.depth(), 16);
}

/// The least-depth degrees that Lee, Lee, No and Kim list for each α: a comparison (sgn + 1)/2
/// within 2^-α wherever
/// |a - b| >= 2^-α, that is a sign within 2^(1-α).
#[test]
fn the_published_degrees_reach_their_published_precision() {
    let published: [(i32, &[usize]); 11] = [
        (4, &[27]),
        (5, &[7, 13]),
        (6, &[15, 15]),
        (7, &[7, 7, 13]),
        (8, &[7, 15, 15]),
        (9, &[7, 7, 7, 13]),
        (10, &[7, 7, 13, 15]),
        (11, &[7, 15, 15, 15]),
        (12, &[15, 15, 15, 15]),
        (13, &[15, 15, 15, 31]),
        (14, &[7, 7, 15, 15, 27]),
    ];
    let bits = |alpha: i32, degrees: &[usize]| {
        let stages = cipherlm_approx::scheme::minimax_sign(2f64.powi(-alpha), degrees).unwrap();
        1.0 - stages.last().unwrap().error.log2()
    };
    for (alpha, degrees) in published {
        let reached = bits(alpha, degrees);
        println!("comparison {degrees:?} at 2^-{alpha}: {reached:.2} bits");
        assert!(reached >= f64::from(alpha), "{degrees:?}: {reached} bits of {alpha}");
    }
    // {7, 15, 15, 27} lies between the rows of 11 and 12. A composition of best stages is the best
    // one of its degrees (their theorem 1), so no coefficients do better.
    let reached = bits(12, &[7, 15, 15, 27]);
    println!("comparison [7, 15, 15, 27] at 2^-12: {reached:.2} bits");
    assert!(bits(11, &[7, 15, 15, 27]) >= 12.0);
    assert!((11.0..12.0).contains(&reached), "{reached} bits");
}

#[test]
fn goldschmidt_saturates_silently_outside_and_the_check_sees_it() {
    let scheme = Scheme::goldschmidt(0.0, interval(0.1, 1.0), 6).unwrap();
    let constant = 2.0 / 1.1 * 64.0;
    assert!((scheme.eval_f64(1e-9) / constant - 1.0).abs() < 1e-6);
    let seen = scheme.violations(&[0.05, 0.5, 0.99, 1.7]);
    assert_eq!((seen.checked, seen.outside, seen.worst), (4, 2, Some(1.7)));
    let sign = Scheme::sign(1.0, 0.1, &[7, 7]).unwrap();
    assert_eq!(sign.violations(&[0.05, 0.5, -0.5]).worst, Some(0.05));
}

#[test]
fn max_and_min_follow_from_relu() {
    let relu = Scheme::relu(2.0, 0.01, &[7, 15, 15]).unwrap();
    let bound = relu.max_error() + 1e-12;
    for (a, b) in [(0.3, 0.7), (-0.9, 0.9), (0.5, 0.49), (0.2, 0.2)] {
        let Ok(max) = relu.max(&mut cipherlm_approx::F64, &a, &b).unwrap();
        let Ok(min) = relu.min(&mut cipherlm_approx::F64, &a, &b).unwrap();
        assert!((max - f64::max(a, b)).abs() <= bound);
        assert!((min - f64::min(a, b)).abs() <= bound);
    }
    let sign = Scheme::sign(1.0, 0.1, &[7]).unwrap();
    assert!(sign.max(&mut cipherlm_approx::F64, &0.1, &0.2).is_err());
}

#[test]
fn schemes_survive_json_to_the_last_bit() {
    for scheme in standard().into_iter().step_by(3) {
        let text = serde_json::to_string(&scheme).unwrap();
        let back: Scheme = serde_json::from_str(&text).unwrap();
        assert_eq!(scheme, back);
        back.verify().unwrap();
        let x: Vec<f64> = scheme.domain()[0].linspace(1000).collect();
        let values = scheme.eval_slice(&x);
        assert!(x.iter().zip(values).all(|(x, y)| back.eval_f64(*x).to_bits() == y.to_bits()));
    }
}

#[test]
fn bad_requests_are_named() {
    assert!(matches!(Scheme::relaxed(0.0, interval(-1.0, 1.0), 5), Err(Error::Pole { .. })));
    assert!(matches!(Scheme::goldschmidt(0.0, interval(0.1, 1.0), 99), Err(Error::DegreeTooHigh { .. })));
    assert!(matches!(Scheme::minimax(Function::INVERSE, interval(-1.0, 1.0), 5), Err(Error::Pole { .. })));
    assert!(matches!(
        Scheme::minimax(Function::InverseSqrt { shift: 0.0 }, interval(0.0, 1.0), 5),
        Err(Error::Pole { .. })
    ));
    assert!(matches!(
        Scheme::minimax(Function::Gelu, interval(-1.0, 1.0), 9999),
        Err(Error::DegreeTooHigh { .. })
    ));
    assert!(Scheme::extended(Function::Exp, 10.0, 5.0, 7).is_err());
}

/// Changes one place of the JSON of a scheme.
fn forged(scheme: &Scheme, change: impl Fn(&mut serde_json::Value)) -> Result<Scheme, serde_json::Error> {
    let mut json = serde_json::to_value(scheme).unwrap();
    change(&mut json);
    serde_json::from_value(json)
}

#[test]
fn a_file_cannot_claim_what_its_circuit_does_not_do() {
    let gelu = Scheme::minimax(Function::Gelu, interval(-3.0, 3.0), 9).unwrap();
    let relaxed = Scheme::relaxed(1e-2, interval(0.0, 1.0), 4).unwrap();
    let sign = Scheme::sign(1.0, 0.1, &[7, 7]).unwrap();
    let refused = |scheme: &Scheme, what: &str, said: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let message = forged(scheme, change).map(|s| s.name().to_string()).expect_err(what).to_string();
        assert!(message.contains(said), "{what}: {message}");
    };
    for scheme in [&gelu, &relaxed, &sign] {
        assert_eq!(forged(scheme, |_| ()).unwrap(), *scheme);
        // Such a scheme would panic in `hull`.
        refused(scheme, "an empty domain", "at least one interval", &|j| {
            j["certificate"]["domain"] = json!([])
        });
        // And this one in `depth_mapped`.
        refused(scheme, "a depth of 0", "the certificate speaks of", &|j| j["cost"]["depth"] = json!(0));
        refused(scheme, "another cost", "the certificate speaks of", &|j| j["cost"]["products"] = json!(1));
        refused(scheme, "half the error", "no proof", &|j| {
            let bound = j["certificate"]["bound"].as_f64().unwrap();
            j["certificate"]["attained"] = json!(0.0);
            j["certificate"]["bound"] = json!(0.5 * bound);
        });
        refused(scheme, "a negative error", "not negative", &|j| j["certificate"]["bound"] = json!(-1.0));
        refused(scheme, "no error", "null", &|j| j["certificate"]["bound"] = json!(null));
        refused(scheme, "a reversed interval", "empty or reversed", &|j| {
            j["certificate"]["domain"] = json!([[1.0, -1.0]]);
        });
        refused(scheme, "an overlap", "disjoint and ascending", &|j| {
            j["certificate"]["domain"] = json!([[0.5, 0.75], [0.6, 1.0]]);
        });
        refused(scheme, "more attained than proved", "between 0 and the bound", &|j| {
            j["certificate"]["attained"] = json!(1e9);
        });
    }
    refused(&gelu, "a wider domain", "no proof", &|j| j["certificate"]["domain"] = json!([[-3.5, 3.0]]));
    refused(&gelu, "another function", "no proof", &|j| j["certificate"]["function"] = json!("silu"));
    refused(&relaxed, "a pole", "singularity", &|j| j["certificate"]["domain"] = json!([[-0.5, 1.0]]));
    refused(&relaxed, "another slope", "no proof", &|j| j["circuit"]["slope"] = json!(0.1));
    refused(&sign, "the gap too", "singularity", &|j| j["certificate"]["domain"] = json!([[-1.0, 1.0]]));
}

#[test]
fn requests_beyond_any_sense_end_in_a_typed_error() {
    let unit = interval(0.5, 1.0);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(Interval::new(value, 1.0).is_err() && Interval::new(0.0, value).is_err(), "{value}");
        for scheme in [
            Scheme::relaxed(value, unit, 3),
            Scheme::goldschmidt(value, unit, 3),
            Scheme::seeded_inverse(value, unit, 3, 1),
            Scheme::inverse_sqrt(value, unit, 3, 1),
        ] {
            assert!(matches!(scheme, Err(Error::NotFinite { .. })), "{value}: {scheme:?}");
        }
        for scheme in [
            Scheme::sign(value, 0.1, &[7]),
            Scheme::sign(1.0, value, &[7]),
            Scheme::relu(value, 0.1, &[7]),
            Scheme::extended(Function::Tanh, value, 4.0, 7),
            Scheme::extended(Function::Tanh, 8.0, value, 7),
        ] {
            assert!(
                matches!(scheme, Err(Error::NotFinite { .. } | Error::Parameter { .. })),
                "{value}: {scheme:?}"
            );
        }
    }
    for degree in [usize::MAX, usize::MAX - 1, 1 << 40, 513] {
        assert!(matches!(Scheme::minimax(Function::Gelu, unit, degree), Err(Error::DegreeTooHigh { .. })));
        assert!(matches!(Scheme::inverse_sqrt(0.0, unit, degree, 1), Err(Error::DegreeTooHigh { .. })));
        assert!(matches!(Scheme::inverse_sqrt(0.0, unit, 3, degree), Err(Error::DegreeTooHigh { .. })));
        assert!(matches!(Scheme::relaxed(0.0, unit, degree), Err(Error::DegreeTooHigh { .. })));
        assert!(matches!(
            Scheme::extended(Function::Tanh, 8.0, 4.0, degree | 1),
            Err(Error::DegreeTooHigh { .. })
        ));
    }
    assert!(cipherlm_approx::chebyshev::interpolate(f64::exp, unit, usize::MAX).is_err());
    // Degree 0 is a polynomial like others.
    let constant = Scheme::minimax(Function::Exp, unit, 0).unwrap();
    assert!((constant.eval_f64(0.7) - 0.5 * (0.5f64.exp() + 1f64.exp())).abs() < 1e-9);
    assert_eq!(constant.depth_mapped(), 1);
    let no_factor = Scheme::relaxed(0.0, unit, 0).unwrap();
    assert!(no_factor.max_error() >= 1.0 / 3.0 && no_factor.depth() >= no_factor.depth_mapped());
}

#[test]
fn values_in_multi_precision_exist_everywhere() {
    for function in [
        Function::INVERSE,
        Function::InverseSqrt { shift: 0.0 },
        Function::Gelu,
        Function::Silu,
        Function::Tanh,
        Function::Sigmoid,
        Function::Exp,
        Function::Erf,
        Function::Sign,
        Function::Step,
        Function::Relu,
    ] {
        for x in [
            0.0,
            -1.0,
            5e-324,
            40.0,
            -40.0,
            1e5,
            -1e5,
            1e300,
            -1e300,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            let exact = function
                .eval_float(&cipherlm_approx::Float::try_from(x).unwrap().with_precision(160).value());
            let (exact, double) = (exact.to_f64().value(), function.eval(x));
            if double.is_finite() && x.is_finite() {
                let close = (exact - double).abs() <= 4e-15 * double.abs().max(1e-300) + 1e-15;
                assert!(close, "{function} at {x}: {exact} and {double}");
            }
        }
    }
}
