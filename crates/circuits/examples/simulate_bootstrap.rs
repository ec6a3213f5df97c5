//! Prints the precision that each bootstrapping profile will give:
//! `cargo run --release --example simulate_bootstrap`.

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::bootstrap::simulate::{Family, Precision, bootstrap};
use rand::SeedableRng;

fn main() -> Result<(), cipherlm_ckks::Error> {
    for profile in Profile::family().into_iter().chain([Profile::n15()]) {
        let circuit = profile.circuit()?;
        println!(
            "{}: log QP {:.1}, {} levels of 2^{}, |I| <= {}, modular reduction of depth {} with {} \
             relinearisations",
            profile.name,
            profile.log_qp(),
            profile.user_levels,
            profile.scale,
            profile.overflow(),
            circuit.depth(),
            circuit.relinearisations(),
        );
        println!(
            "  errors relative to the message: polynomial 2^{:.1}, slots to coefficients 2^{:.1}, \
             coefficients to slots 2^{:.1}",
            profile.reduction_errors()?[1].log2(),
            profile.slots_to_coeffs_error().log2(),
            profile.coeffs_to_slots_error().log2() + profile.ratio,
        );
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        println!("  worst / mean bits            as distributed    largest overflow");
        for family in Family::ALL {
            let values = family.values(1 << (profile.log_degree - 1), &mut rng);
            let bits = |saturated| {
                bootstrap(&profile, &values, saturated, 11).map(|found| Precision::between(&values, &found))
            };
            let (normal, saturated) = (bits(false)?, bits(true)?);
            println!(
                "  {:<26} {:>6.1} / {:.1} {:>13.1} / {:.1}",
                format!("{family:?}"),
                normal.worst,
                normal.mean,
                saturated.worst,
                saturated.mean
            );
        }
    }
    Ok(())
}
