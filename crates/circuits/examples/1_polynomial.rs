//! The logistic function of encrypted values, as a polynomial of degree 15 that is within 2^-12 of
//! it.
//!
//! `cargo run --release -p cipherlm-circuits --example 1_polynomial`

use cipherlm_approx::{EvalPlan, Interval, chebyshev};
use cipherlm_circuits::polynomial::evaluate;
use cipherlm_circuits::slots::{Chain, Clear, Encrypted, Primitives};
use cipherlm_ckks::{Plaintext, SecretKey, presets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let params = presets::levels5_scale45()?;
    let top = params.max_level();

    // A function becomes a polynomial on an interval, and the polynomial a plan: few products,
    // known depth.
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let interval = Interval::new(-6.0, 6.0)?;
    let plan = EvalPlan::new(&chebyshev::interpolate(logistic, interval, 15)?)?;
    println!("degree 15: depth {}, cost {:?}", plan.depth(), plan.cost());

    // A circuit is written once and runs on every machine. The dry one has no slots: it finds depth
    // and keys.
    let dry = Clear::dry(Chain::of(&params)?);
    evaluate(&dry, &plan, &dry.input(0.0, top)?)?;
    let request = dry.log().key_request(&params);
    println!("{}", request.bill(&params)?);

    let secret = SecretKey::generate(&params)?;
    let machine = Encrypted::new(&params, secret.id(), secret.key_set(&request)?)?;
    let x: Vec<f64> = interval.linspace(params.slots()).collect();
    let plaintext = Plaintext::encode_real(&params, &x, params.slots(), machine.chain().scale(top))?;
    let input = machine.input(secret.encrypt(&plaintext, top)?)?;

    // Scales are planned from the result back, so the value lands exactly on the canonical scale of
    // its level.
    let output = evaluate(&machine, &plan, &input)?;
    println!("level {} -> {}", machine.level(&input), machine.level(&output));

    let found = secret.decrypt(output.ciphertext())?.decode().real();
    let polynomial = &plan.polynomials()[0];
    let error =
        |f: &dyn Fn(f64) -> f64| x.iter().zip(&found).map(|(x, y)| (f(*x) - y).abs()).fold(0.0, f64::max);
    let (encryption, total) = (error(&|x| polynomial.eval(x)), error(&logistic));
    println!(
        "worst slot: 2^{:.1} from the polynomial, 2^{:.1} from the function",
        encryption.log2(),
        total.log2()
    );
    assert!(encryption < 2f64.powi(-22) && total < 2f64.powi(-12));
    Ok(())
}
