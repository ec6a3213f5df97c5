//! `cipherlm plan`: what an encrypted run will take, before any key exists.

use crate::flags;
use crate::setup::Setup;
use serde_json::json;

/// What the JSON of a plan calls itself.
pub(crate) const PLAN: &str = "cipherlm plan 1";

/// Compiles a plan and prints it.
pub(crate) fn run(args: &flags::Plan, as_json: bool) -> anyhow::Result<bool> {
    let loaded = crate::model::load(args.model.as_deref())?;
    let setup = Setup::new(loaded, Some(args.length), args.length, args.profile.chain())?;
    if as_json {
        let (stored, resident) = setup.circuits.key_bytes(&setup.plan)?;
        let (params, plan) = (setup.circuits.params(), &setup.plan);
        println!(
            "{}",
            json!({"format": PLAN, "id": plan.id(), "model": setup.loaded.model.spec().name, "length": plan.tokens(),
                "profile": setup.profile.name, "ring_degree": params.degree(), "log_qp": params.log_qp(),
                "security_bits": params.security().bits, "seconds_predicted": plan.seconds(), "bootstraps": plan.refreshes().0,
                "bootstraps_by_layer": plan.refreshes_by_layer(), "key_bytes": stored, "key_bytes_resident": resident,
                "steps": plan.schedule()})
        );
        return Ok(true);
    }
    println!("{}", setup.summary());
    if args.explain {
        println!("{}", setup.plan.explain());
    }
    Ok(true)
}
