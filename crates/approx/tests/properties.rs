//! Properties over random polynomials, domains and functions.

use cipherlm_approx::{
    Basis, Certificate, Circuit, Counter, Error, EvalPlan, F64, Function, Interval, Measure, Parity,
    Polynomial, Remez, Scheme, Weight,
};
use proptest::prelude::*;

fn domains() -> impl Strategy<Value = Interval> {
    (-20.0..20.0f64, 0.01..20.0f64).prop_map(|(lo, width)| Interval::new(lo, lo + width).unwrap())
}

fn polynomials(degree: usize) -> impl Strategy<Value = Polynomial> {
    (domains(), prop::collection::vec(-1.0..1.0f64, 1..degree + 2))
        .prop_map(|(domain, coeffs)| Polynomial::chebyshev(domain, coeffs).unwrap())
}

/// A circuit with a function it may or may not be a good approximation of: certificates must hold
/// either way.
fn cases() -> impl Strategy<Value = (Circuit, Function, Interval)> {
    let smooth = prop::sample::select(vec![
        Function::Gelu,
        Function::Silu,
        Function::Tanh,
        Function::Sigmoid,
        Function::Exp,
        Function::Erf,
    ]);
    // Random coefficients on top of an interpolant: small, comparable and large errors.
    let fitted = (smooth, -6.0..2.0f64, 0.1..6.0f64, 0usize..24, -12.0..0.0f64, any::<u64>()).prop_map(
        |(f, lo, width, degree, log_noise, seed)| {
            let domain = Interval::new(lo, lo + width).unwrap();
            let p = cipherlm_approx::chebyshev::interpolate(|x| f.eval(x), domain, degree).unwrap();
            let noise = |k: usize| {
                ((seed.rotate_left(7 * k as u32) & 0xffff) as f64 / 65536.0 - 0.5) * 10f64.powf(log_noise)
            };
            let coeffs = p.coeffs().iter().enumerate().map(|(k, c)| c + noise(k)).collect();
            let plan = EvalPlan::new(&Polynomial::chebyshev(domain, coeffs).unwrap()).unwrap();
            (Circuit::Polynomial { plan }, f, domain)
        },
    );
    let goldschmidt = (-3.0..0.0f64, 0usize..9, 0.9..1.1f64, prop::collection::vec(1.0..2.0f64, 9)).prop_map(
        |(log, n, skew, omegas)| {
            let domain = Interval::new(0.0, 1.0).unwrap();
            let shift = 10f64.powf(log);
            let circuit = Circuit::Goldschmidt {
                shift,
                slope: skew * 2.0 / (1.0 + 2.0 * shift),
                relaxation: omegas[..n].to_vec(),
            };
            (circuit, Function::Inverse { shift }, domain)
        },
    );
    prop_oneof![3 => fitted, 1 => goldschmidt]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// The certificate is never below an error that is seen.
    #[test]
    fn certificates_hold(
        (circuit, function, domain) in cases(),
        points in prop::collection::vec(0.0..1.0f64, 8),
    ) {
        let measure = function.usual_measure();
        let certificate = match Certificate::prove(&circuit, function, &[domain], measure) {
            Ok(certificate) => certificate,
            // A relaxed product far off can overflow; then there is no bound to check.
            Err(Error::NotProved { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        let ends = [domain.lo(), domain.hi(), certificate.witness];
        let inner = |t: &f64| (domain.lo() + t * (domain.hi() - domain.lo())).min(domain.hi());
        for x in points.iter().map(inner).chain(ends) {
            let exact = function.eval(x);
            let unit = if measure == Measure::Relative { exact.abs() } else { 1.0 };
            let error = (circuit.eval_f64(x) - exact).abs() / unit;
            // The reference value itself is rounded.
            let rounding = 8e-15 * if measure == Measure::Relative { 1.0 } else { exact.abs().max(0.1) };
            prop_assert!(error <= certificate.bound + rounding, "{function} at {x}: {error:e} > \
                {:e}", certificate.bound);
        }
        prop_assert!(certificate.attained <= certificate.bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A plan has the value of Clenshaw's recurrence, the depth ⌈log2(d + 1)⌉, and needs no more
    /// products than Horner.
    #[test]
    fn plans_evaluate_their_polynomial(p in polynomials(80), t in 0.0..1.0f64, parity in 0..3) {
        let parity = [Parity::None, Parity::Even, Parity::Odd][parity as usize];
        let p = p.with_parity(parity);
        let plan = EvalPlan::new(&p).unwrap();
        let x = (p.interval().lo() + t * 2.0 * p.interval().radius()).min(p.interval().hi());
        let Ok(value) = plan.eval(&mut F64, &x, None);
        let scale: f64 = p.coeffs().iter().map(|c| c.abs()).sum::<f64>() + 1e-300;
        prop_assert!((value - p.eval(x)).abs() <= 1e-11 * scale, "{} against {}", value, p.eval(x));
        prop_assert_eq!(plan.depth_mapped(), ((p.degree() + 1).next_power_of_two().ilog2()).max(1));
        prop_assert!(plan.cost().products as usize <= p.degree().max(1));
    }

    /// Plans of several polynomials give each its value and share powers.
    #[test]
    fn plans_share_powers(
        a in polynomials(40),
        coeffs in prop::collection::vec(-1.0..1.0f64, 1..41),
        t in 0.0..1.0f64,
    ) {
        let b = Polynomial::chebyshev(a.interval(), coeffs).unwrap();
        let both = EvalPlan::several(&[a.clone(), b.clone()]).unwrap();
        let x = (a.interval().lo() + t * 2.0 * a.interval().radius()).min(a.interval().hi());
        let Ok(values) = both.eval_all(&mut F64, &x, None);
        for (value, p) in values.iter().zip([&a, &b]) {
            prop_assert!((value - p.eval(x)).abs() < 1e-10 * (1.0 + p.degree() as f64));
        }
        let apart: u32 = [&a, &b].map(|p| EvalPlan::new(p).unwrap().cost().relinearisations).iter().sum();
        prop_assert!(both.cost().relinearisations <= apart);
        let Ok(depths) = both.eval_all(&mut Counter::default(), &0, None);
        prop_assert!(depths.iter().all(|&d| d <= both.depth()));
    }

    /// Basis changes and JSON keep the polynomial.
    #[test]
    fn polynomials_keep_their_values(p in polynomials(12), t in 0.0..1.0f64) {
        let x = p.interval().from_unit(2.0 * t - 1.0);
        let json: Polynomial = serde_json::from_str(&serde_json::to_string(&p).unwrap()).unwrap();
        prop_assert_eq!(&json, &p);
        prop_assert_eq!(json.eval(x).to_bits(), p.eval(x).to_bits());
        let centred = p.clone().on_interval(Interval::UNIT);
        let u = 2.0 * t - 1.0;
        prop_assert!((centred.to_basis(Basis::Monomial).unwrap().eval(u) - centred.eval(u)).abs() < 1e-10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The minimax error alternates at degree + 2 points, all of one size, and nothing on the
    /// domain is larger.
    #[test]
    fn minimax_equioscillates(
        lo in -4.0..4.0f64,
        width in 0.2..6.0f64,
        degree in 0usize..14,
        pick in 0usize..3,
    ) {
        let f = [Function::Exp, Function::Silu, Function::Gelu][pick];
        let domain = Interval::new(lo, lo + width).unwrap();
        let fit = Remez::new(&[domain], degree).unwrap().weight(Weight::Absolute).fit(&f).unwrap();
        prop_assert_eq!(fit.reference.len(), degree + 2);
        prop_assert!(fit.largest <= fit.levelled * (1.0 + 1e-8));
        if fit.levelled > 1e-10 {
            let error = |x: f64| f.eval(x) - fit.polynomial.eval(x);
            let errors: Vec<f64> = fit.reference.iter().map(|&x| error(x)).collect();
            for e in errors.windows(2) {
                prop_assert!(e[0] * e[1] < 0.0, "{:?}", errors);
                prop_assert!((e[0].abs() / fit.levelled - 1.0).abs() < 1e-3, "{:?}", errors);
            }
            let grid = domain.linspace(300).map(|x| error(x).abs()).fold(0.0, f64::max);
            prop_assert!(grid <= fit.levelled * 1.001);
        }
    }

    /// Reciprocals are as good as theory says, whatever the domain.
    #[test]
    fn relaxed_products_level_at_the_closed_form(
        log_kappa in 0.5..4.0f64,
        factors in 1usize..8,
        lo in 0.01..10.0f64,
    ) {
        let kappa = 10f64.powf(log_kappa);
        let scheme = Scheme::relaxed(0.0, Interval::new(lo, lo * kappa).unwrap(), factors).unwrap();
        let t = (kappa + 1.0) / (kappa - 1.0);
        let closed = 1.0 / (t.acosh() * f64::from(1u32 << factors)).cosh();
        // Below this the rounding of the product, which the bound includes, is no longer small
        // beside the error itself.
        if closed > 1e-10 {
            prop_assert!(scheme.max_error() >= closed * (1.0 - 1e-6) && scheme.max_error() <= 1.06 * closed);
        }
        prop_assert_eq!(scheme.depth_mapped() as usize, factors);
    }
}
