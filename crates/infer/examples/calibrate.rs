//! Measures what primitives cost here and writes the planner's table:
//! `cargo run --release --example calibrate -- FILE [n16|n16-fast]`. Takes about a minute and 6 GiB
//! of memory; the machine should be idle otherwise.

use std::path::Path;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, CostModel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let out = args.first().ok_or("arguments: FILE [n16|n16-fast]")?;
    let profile =
        if args.get(1).is_some_and(|name| name == "n16-fast") { Profile::n16_fast() } else { Profile::n16() };
    let circuits = Circuits::new(&profile)?;
    let kernel = circuits.params().ring().kernel_name();
    let table = CostModel::measure(&circuits, &format!("{}, kernel {kernel}", processor()))?;
    table.save(Path::new(out))?;
    println!("{}", std::fs::read_to_string(out)?);
    Ok(())
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1).map(str::trim));
    name.unwrap_or("unknown processor").to_owned()
}
