//! Group `inference`: two encrypted forward passes of the shipped model, keys made once; needs
//! about 16 GiB.

use cipherlm_benches::forward::{Request, Subject, passes, peak_rss_bytes, record};
use std::error::Error;

const ID: &str = "inference/2x128/L32";

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args();
    if !request.wants(ID) {
        return Ok(());
    }
    let passes = passes(Subject::shipped(32)?, 2, request.smoke)?;
    if request.smoke {
        println!("Testing {ID}\nSuccess");
        return Ok(());
    }
    println!(
        "METRICS {{\"id\":\"{ID}\",\"params\":\"{}\",\"bootstraps\":{},\"peak_rss_bytes\":{},\"key_bytes\":{},\"mse\":{:e}}}",
        passes.params,
        passes.reports[0].bootstraps,
        peak_rss_bytes(),
        passes.key_bytes,
        passes.mse
    );
    let seconds: Vec<f64> = passes.reports.iter().map(|report| report.seconds_total).collect();
    Ok(record(ID, &seconds)?)
}
