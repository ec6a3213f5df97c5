//! What the circuit takes for granted of a model.

use cipherlm_model::{Attention, Eps, Function, Kind, Model, Placement, Range, Shape};

use super::Purpose;
use crate::error::{Error, Result};
use crate::index::Index;

/// Checks that there is a circuit for a shape.
pub(super) fn check_shape(shape: &Shape, purpose: Purpose) -> Result<()> {
    let refuse = |feature, advice| Err(Error::Unsupported { feature, advice });
    match shape.attention {
        Attention::PowerSoftmax { p, .. } if !p.is_power_of_two() && p != 6 => {
            return refuse("this power", "train with p = 2, 4, 6, 8 or 16");
        }
        Attention::PowerSoftmax { eps: Eps::Relative { .. }, .. } => {
            return refuse("a relative eps", "freeze the eps of each head and row first");
        }
        Attention::PowerSoftmax { .. } => {}
        _ => return refuse("attention without an even power", "train with PowerSoftmax attention"),
    }
    if shape.placement == Placement::Post && !shape.frozen_norms.is_empty() {
        return refuse("frozen norms behind the branches", "freeze norms that stand before them");
    }
    if shape.kind != Kind::Decoder && purpose != Purpose::Prompt {
        return refuse("a session with an encoder", "plan for prompts");
    }
    Ok(())
}

/// Checks that a question's vector and the documents of an index have one form.
pub(super) fn check_index(shape: &Shape, index: Option<&Index>) -> Result<()> {
    let Some(index) = index else { return Ok(()) };
    if !matches!(shape.kind, Kind::Embedder { .. }) {
        let advice = "search with a model of sentence vectors";
        return Err(Error::Unsupported { feature: "an index beside a model of tokens or classes", advice });
    }
    if index.width() != shape.d_model {
        let vectors = |width: usize| format!("vectors of {width} numbers");
        let (expected, found) = (vectors(shape.d_model), vectors(index.width()));
        return Err(Error::Mismatch { what: "index", expected, found });
    }
    Ok(())
}

/// Checks what the circuit takes for granted of the certified sites: they are those of the shape,
/// their polynomials are those of their ranges, and the ranges are such that units can be made of
/// them. The reference evaluates the one and the circuit the other.
pub(super) fn check_sites(model: &Model) -> Result<()> {
    for (name, function) in model.shape().sites() {
        let refuse = |reason: String| Err(Error::Polynomial { site: name.clone(), reason });
        let Some(site) = model.site(&name) else { return refuse("the site is not certified".into()) };
        let Range { lo, hi } = site.range;
        if site.function != function {
            return refuse(format!(
                "it is certified for {:?}, the shape asks for {function:?}",
                site.function
            ));
        }
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) || (function.is_nonlinear() && lo >= hi) {
            return refuse(format!("[{lo}, {hi}] is no range: certify the model again"));
        }
        if matches!(function, Function::InvSqrt | Function::Reciprocal) && lo <= 0.0 {
            return refuse(format!("its range [{lo}, {hi}] reaches zero: certify the model again"));
        }
        let Some(scheme) = site.scheme.as_ref().filter(|_| function.is_nonlinear()) else { continue };
        if scheme.range != site.range {
            let Range { lo: from, hi: to } = scheme.range;
            return refuse(format!(
                "its polynomial is for [{from}, {to}], the site is certified for [{lo}, {hi}]: fit the model \
                 again"
            ));
        }
        if scheme.coefficients.is_empty() || scheme.coefficients.iter().any(|c| !c.is_finite()) {
            return refuse(
                "its polynomial has no coefficients, or some that are not finite: fit the model again".into(),
            );
        }
    }
    Ok(())
}
