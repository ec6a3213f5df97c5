//! `cipherlm certify`: ranges from one text, checked on another, and the polynomials that fit them.

use crate::flags;
use crate::model::{Loaded, load};
use cipherlm_model::{FitOptions, Margins};

/// Ranges, check, polynomials.
pub(crate) fn run(args: &flags::Certify, as_json: bool) -> anyhow::Result<bool> {
    let Loaded { model, tokenizer, dir } = load(args.model.as_deref())?;
    let loaded = Loaded { model, tokenizer, dir };
    let length = loaded.model.shape().context;
    let calibration = loaded.windows(&args.calibration, length, args.windows)?;
    let held_out = loaded.windows(&args.held_out, length, args.windows)?;
    let mut model = match args.freeze {
        Some(ratio) => cipherlm_model::freeze_eps(&loaded.model, &calibration, ratio)?,
        None => loaded.model.clone(),
    };
    cipherlm_model::certify(&mut model, &calibration, &held_out, &Margins::default())?;
    cipherlm_model::fit(&mut model, &FitOptions::default())?;
    let violations: u64 = model.spec().sites.iter().map(|site| site.violations).sum();
    if as_json {
        println!("{}", serde_json::to_string(&model.spec().sites)?);
    } else {
        println!(
            "{:<24} {:<12} {:>26} {:>26} {:>7} {:>10}",
            "site", "function", "observed", "certified", "degree", "violations"
        );
        for site in &model.spec().sites {
            println!(
                "{:<24} {:<12} {:>26} {:>26} {:>7} {:>10}",
                site.name,
                format!("{:?}", site.function),
                format!("[{:.4}, {:.4}]", site.observed.min, site.observed.max),
                format!("[{:.4}, {:.4}]", site.range.lo, site.range.hi),
                site.scheme.as_ref().map_or_else(|| "–".into(), |s| s.degree().to_string()),
                site.violations
            );
        }
    }
    if violations > 0 {
        eprintln!(
            "{violations} values of the held-out text leave their ranges: nothing written; widen the calibration text or the margins"
        );
        return Ok(false);
    }
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out)?;
        model.save(out)?;
        loaded.tokenizer.save(&out.join(cipherlm_model::TOKENIZER_FILE))?;
        eprintln!("wrote {}", out.display());
    }
    Ok(true)
}
