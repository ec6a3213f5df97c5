//! Group `layers`: every step of one layer of the shipped shape at 32 tokens,
//! `layers/<step>/65536`, refreshes apart; needs about 16 GiB. Weights are random with certified
//! ranges; two passes.

use cipherlm_benches::forward::{Parameters, Request, Subject, passes, record};
use cipherlm_model::Shape;
use std::collections::BTreeMap;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args();
    if !request.wants_group("layers") {
        return Ok(());
    }
    let preset = if request.smoke { "test" } else { "2x128" };
    let shape = Shape { layers: 1, ..Shape::preset(preset).ok_or("no such shape")? };
    let passes = passes(
        Subject::random("1x128", &shape, if request.smoke { 8 } else { 32 }, 1)?,
        Parameters::Default,
        2,
        request.smoke,
    )?;
    if request.smoke {
        println!("Testing layers\nSuccess");
        return Ok(());
    }
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut refresh = vec![];
    for step in passes.reports.iter().flat_map(|report| &report.steps) {
        let name = step.name.trim_start_matches("layers.0.");
        steps.entry(name.to_owned()).or_default().push(step.seconds);
        if step.refreshes > 0 {
            refresh.push(step.refresh_seconds / step.refreshes as f64);
        }
    }
    steps.insert("refresh".into(), refresh);
    for (name, seconds) in steps {
        let id = format!("layers/{name}/65536");
        if !request.wants(&id) {
            continue;
        }
        println!("METRICS {{\"id\":\"{id}\",\"params\":\"{}, 32 tokens\"}}", passes.params);
        record(&id, &seconds)?;
    }
    Ok(())
}
