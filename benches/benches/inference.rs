//! Group `inference`: two encrypted forward passes of each shipped model, keys made once; needs
//! about 16 GiB.
//!
//! The unchanged model runs at the default parameters, the others where the planner puts them with
//! the built-in prices. The encoder needs its base weights at hand (`cargo xtask fetch minilm`) and
//! is left out, with a line that says so, where they are not.

use cipherlm_benches::forward::{Parameters, Request, Subject, passes, record};
use cipherlm_benches::peak_rss_bytes;
use std::error::Error;

const TOKENS: usize = 32;

/// Name of a benchmark, folder of its model, parameters.
const MODELS: [(&str, &str, Parameters); 3] = [
    ("inference/2x128/L32", "stories-2x128", Parameters::Default),
    ("inference/lean-2x128/L32", "stories-2x128-lean", Parameters::Cheapest),
    ("inference/minilm/L32", "minilm-l6", Parameters::Cheapest),
];

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args();
    for (id, folder, parameters) in MODELS.into_iter().filter(|(id, ..)| request.wants(id)) {
        let Some(subject) = Subject::shipped(folder, TOKENS)? else {
            println!("{id}: left out, its base weights are not at hand (cargo xtask fetch minilm DIR)");
            continue;
        };
        let passes = passes(subject, parameters, 2, request.smoke)?;
        if request.smoke {
            println!("Testing {id}\nSuccess");
            continue;
        }
        let bootstraps = passes.reports[0].bootstraps;
        println!(
            "METRICS {{\"id\":\"{id}\",\"params\":\"{}\",\"bootstraps\":{bootstraps},\
             \"peak_rss_bytes\":{},\"key_bytes\":{},\"mse\":{:e}}}",
            passes.params,
            peak_rss_bytes(),
            passes.key_bytes,
            passes.mse
        );
        let seconds: Vec<f64> = passes.reports.iter().map(|report| report.seconds_total).collect();
        record(id, &seconds)?;
    }
    Ok(())
}
