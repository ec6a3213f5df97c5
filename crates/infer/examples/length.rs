//! Predicted cost against shape and length, as CSV:
//! `cargo run --release --example length -- [SHAPE ...]`. Weights are random with certified ranges;
//! seconds are the planner's prediction, not a measurement.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, Options, Plan, Purpose};
use cipherlm_model::{FitOptions, Shape, fit, random};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shapes: Vec<String> = std::env::args().skip(1).collect();
    let shapes = if shapes.is_empty() { vec!["2x128".to_owned(), "4x256".to_owned()] } else { shapes };
    let circuits = Circuits::new(&Profile::named("n16-14").ok_or("no such profile")?)?;
    println!(
        "shape,purpose,length,predicted_seconds,bootstraps,bootstraps_per_layer,keys_stored_gib,\
         keys_resident_gib"
    );
    for name in shapes {
        let shape = Shape::preset(&name).ok_or("no such shape")?;
        let mut model = random::certified(&name, &shape, 1)?;
        fit(
            &mut model,
            &FitOptions { reciprocal: 1e-3, inv_sqrt: 5e-4, activation: 3e-3, ..FitOptions::default() },
        )?;
        let model = Arc::new(model);
        let prompts = [16, 32, 64, 128].map(|length| (Purpose::Prompt, length));
        for (purpose, tokens) in prompts.into_iter().chain([(Purpose::Token, 1)]) {
            let options = Options { tokens, purpose, ..Options::default() };
            let plan = match Plan::compile(Arc::clone(&model), circuits.target()?, &options) {
                Ok(plan) => plan,
                Err(error) => {
                    println!("{name},{purpose:?},{tokens},{error},,,,");
                    continue;
                }
            };
            let (stored, resident) = circuits.key_bytes(&plan)?;
            let gib = |bytes: u64| bytes as f64 / 2f64.powi(30);
            let (operations, _) = plan.refreshes();
            let layers =
                plan.refreshes_by_layer().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            println!(
                "{name},{purpose:?},{tokens},{:.1},{operations},{layers},{:.2},{:.2}",
                plan.seconds(),
                gib(stored),
                gib(resident)
            );
        }
    }
    Ok(())
}
