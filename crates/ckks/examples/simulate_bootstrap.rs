//! Prints the precision that a modulus chain will give: `cargo run --release --example simulate_bootstrap`.

use cipherlm_ckks::bootstrap::simulate::{ChainBits, Family, Precision, bootstrap};
use rand::SeedableRng;

fn main() {
    for (name, chain) in chains() {
        let circuit = chain.circuit();
        println!("{name}: log QP {:.1}, {} levels of 2^{}, EvalMod depth {} ({} relinearisations), polynomial 2^{:.1}, coefficients 2^{:.1}, CtS 2^{:.1}",
            chain.log_qp(), chain.user_levels, chain.scale, circuit.depth(), circuit.relinearisations(), circuit.polynomial_error().log2(),
            chain.slots_to_coeffs_error().log2(), (chain.coeffs_to_slots_error()*chain.ratio.exp2()).log2());
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for family in [Family::Uniform, Family::Maximal] {
            let values = family.values(1 << (chain.log_degree - 1), &mut rng);
            for saturated in [false, true] {
                let p = Precision::between(&values, &bootstrap(&chain, &values, saturated, 11));
                print!("  {family:?}{}: {:.1} / {:.1}", if saturated { " saturated" } else { "" }, p.worst, p.mean);
            }
        }
        println!();
    }
}

fn chains() -> Vec<(String, ChainBits)> {
    let mut out = vec![];
    let base = ChainBits { log_degree: 16, bottom: 46.0, slots_to_coeffs: vec![(31.0, 5),(32.0,5),(34.0,5)], scale: 40.0, user_levels: 13,
        coeffs_to_slots: vec![(47.0,4),(43.0,4),(41.0,4),(40.0,3)], eval_mod: vec![], special: 350.0, ratio: 8.0, input_scale: 51.4, ephemeral_weight: 48, polynomial_depth: 5, doublings: 4 };
    let q = 49.95;
    for (s_in, g0, g1, r) in [(51.2, q, 54.9, 8.0), (51.2,q,54.9,7.75), (51.2,q,54.9,7.5),(52.0,q,57.0,7.75),(50.5,q,52.0,7.75),(49.95,q,q,7.5)] {
      for (h,k) in [(48,4),(30,3)] {
        let mut g=vec![g0,g1]; g.extend(vec![q; 4+k]);
        let mut c = base.clone(); c.eval_mod=g.clone(); c.input_scale=s_in; c.ratio=r; c.ephemeral_weight=h; c.doublings=k as u32;
        if h==30 {c.user_levels=14;}
        out.push((format!("{g:?} {s_in} {r} {h}"), c));
    }}
    let base = ChainBits { log_degree: 15, bottom: 41.0, slots_to_coeffs: vec![(30.0,7),(32.0,7)], scale: 35.0, user_levels: 4,
        coeffs_to_slots: vec![(44.0,7),(41.0,7)], eval_mod: vec![], special: 100.0, ratio: 8.0, input_scale: 51.4, ephemeral_weight: 48, polynomial_depth: 5, doublings: 4 };
    for (s_in, q, r) in [(45.0, 45.0, 7.0), (44.0,44.0,7.0), (43.0,43.0,7.0), (44.0,44.0,6.5),(43.0,43.0,6.5),(42.0,42.0,6.5)] {
      for (h,k) in [(48,4),(30,3)] {
        let mut c = base.clone(); c.eval_mod=vec![q;6+k]; c.input_scale=s_in; c.ratio=r; c.ephemeral_weight=h; c.doublings=k as u32;
        out.push((format!("15 {q} {s_in} {r} {h}"), c));
    }}
    out
}
