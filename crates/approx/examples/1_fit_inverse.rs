//! Fits 1/(ε + x) in several ways, prints the certificates and checks them again.
//!
//! `cargo run --release -p cipherlm-approx --example 1_fit_inverse -- [EPSILON] [TARGET]`

use cipherlm_approx::{Error, Function, Interval, choose};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<f64>().ok());
    let shift = arguments.next().unwrap_or(1e-3);
    let target = arguments.next().unwrap_or(1e-4);
    let domain = Interval::new(0.0, 1.0)?;
    let function = Function::Inverse { shift };
    let choice = choose(function, &[domain], target)?;
    println!("{function} on {domain}, relative error {target:e}");
    println!(
        "{:28} {:>5} {:>7} {:>8} {:>6} {:>10}",
        "candidate", "depth", "mapped", "products", "relins", "error"
    );
    for row in &choice.table {
        let (cost, mapped) = (row.cost, row.depth_mapped);
        let (depth, products, relins) = (cost.depth, cost.products, cost.relinearisations);
        println!("{:28} {depth:>5} {mapped:>7} {products:>8} {relins:>6} {:>10.2e}", row.name, row.error);
    }
    let scheme = choice.scheme;
    println!("\nchosen: {}\n{}", scheme.name(), scheme.certificate());
    scheme.verify()?;
    println!("checked again over the whole domain: holds");
    let json = serde_json::to_string(scheme.certificate()).unwrap_or_default();
    println!("{json}");
    let outside = scheme.violations(&[0.2, 0.9, 1.3]);
    println!(
        "of {} sample arguments {} lie outside the domain, worst {:?}",
        outside.checked, outside.outside, outside.worst
    );
    Ok(())
}
