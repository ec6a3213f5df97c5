//! What the identity of a plan covers: everything that changes the circuit, its keys or its answer.

use cipherlm_model::ModelSpec;

use super::Plan;
use crate::cost::kind_name;
use crate::cost::primitive_name;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, LENGTH};

/// Raised when a description compiles to other constants or another order of steps than before.
/// Other operations, levels or keys change the identity by themselves.
const CIRCUITS: u32 = 5;

/// The description without its name and provenance, which change nothing that is computed.
fn description(spec: &ModelSpec) -> Result<String> {
    let bare =
        ModelSpec { name: String::new(), provenance: std::collections::BTreeMap::new(), ..spec.clone() };
    serde_json::to_string(&bare)
        .map_err(|e| Error::Internal { what: format!("the description as JSON: {e}") })
}

impl Plan {
    /// Computes the identity; see [`Plan::id`].
    pub(super) fn identify(&self) -> Result<String> {
        let options = &self.options;
        let mut all = Fingerprint::new("cipherlm plan");
        all.number("circuits", u64::from(CIRCUITS));
        all.text("model", &description(self.folded.model.spec())?);
        all.field("tokenizer", options.tokenizer.as_ref().map_or(&[], |hash| hash.as_slice()));
        if let Some(index) = &options.index {
            all.field("index", index.hash().as_bytes());
        }
        all.text("purpose", &format!("{:?}", options.purpose));
        all.text("positions", &format!("{:?}", options.positions));
        all.number("levels left", options.levels_left as u64);
        all.number("degree of small answers", self.answers().degree as u64);
        all.number("degree of small prompts", self.prompt_degree() as u64);
        all.number("input refreshed", u64::from(options.refresh_input));
        let g = self.folded.geometry;
        for (name, value) in
            [("slots", g.slots), ("tokens", g.tokens), ("features", g.features), ("head", g.head)]
        {
            all.number(name, value as u64);
        }
        // Plans of one prompt have the identity that they had before there were others.
        if g.prompts > 1 {
            all.number("prompts", g.prompts as u64);
        }
        self.identify_target(&mut all);
        for (node, profile) in self.graph.nodes.iter().zip(&self.profiles) {
            all.text("step", &node.name);
            all.number("width", node.width as u64);
            all.number("depth", node.depth as u64);
            for input in &node.inputs {
                [input.node, input.from, input.len].iter().for_each(|&n| all.number("input", n as u64));
            }
            for &(kind, level, count) in profile {
                all.text("operation", &primitive_name(kind));
                all.field("level", &level.to_le_bytes());
                all.number("count", count);
            }
        }
        self.placement.levels.iter().for_each(|&level| all.number("level", level as u64));
        for (&node, &level) in &self.placement.refreshes {
            all.number("refreshed", node as u64);
            all.number("to", level as u64);
        }
        all.text("single", &kind_name(self.choice.single));
        all.text("pair", &self.choice.pair.map(kind_name).unwrap_or_default());
        if let Some(feedback) = &self.feedback {
            feedback.identify(&mut all);
        }
        Ok(all.finish().to_hex()[..LENGTH].to_owned())
    }

    fn identify_target(&self, all: &mut Fingerprint) {
        let target = &self.target;
        let chain = &target.chain;
        all.text("parameters", &target.origin);
        all.number("floor", chain.floor() as u64);
        all.number("input level", target.input_level as u64);
        all.reals("moduli", (0..=chain.top()).map(|level| chain.modulus(level).to_f64()));
        all.reals("scales", (0..=chain.top()).map(|level| chain.scale(level).to_f64()));
        for profile in &target.refreshes {
            all.text("refresh", &kind_name(profile.kind));
            all.number("from", profile.input_level as u64);
            all.number("to", profile.output_level as u64);
            all.reals("range and error", [profile.range, profile.error]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_model::{Shape, random};
    use serde_json::{Value, json};

    /// The places of all leaves of a JSON value, and of what names its variant.
    fn leaves(value: &Value, place: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if fields.get("kind").is_some_and(Value::is_string) {
                    out.push(place.to_owned());
                }
                fields.iter().for_each(|(name, v)| leaves(v, &format!("{place}/{name}"), out));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{place}/{i}"), out))
            }
            _ => out.push(place.to_owned()),
        }
    }

    /// Values that a leaf could take instead.
    fn others(value: &Value) -> Vec<Value> {
        let words =
            ["decoder", "layer_norm", "rms_norm", "pre", "post", "gelu", "silu", "sequential", "parallel"];
        let words =
            words.into_iter().chain(["softmax", "power_softmax", "frozen", "inv_sqrt", "identity", "tanh"]);
        let mut out: Vec<Value> = words.map(Value::from).collect();
        out.push(json!({"encoder": {"classes": 2}}));
        match value {
            Value::Number(n) if n.is_u64() => out.push(json!(n.as_u64().unwrap() + 1)),
            Value::Number(n) => out.push(json!(n.as_f64().unwrap() * 1.000_000_1 + 1e-12)),
            Value::Bool(b) => out.push(json!(!b)),
            Value::String(text) => out.push(json!(format!("{text}0"))),
            _ => out.extend([
                json!({"dims": 2, "base": 3.0}),
                json!({"kind": "softmax"}),
                json!({"range": {"lo": -1.0, "hi": 1.0}, "coefficients": [0.0, 1.0], "error": 0.0}),
                json!({"kind": "absolute", "value": 2.0}),
            ]),
        }
        out
    }

    #[test]
    fn two_descriptions_one_field_apart_are_told_apart() {
        let plain = Shape { layers: 1, ..Shape::preset("test").unwrap() };
        let encoder =
            Shape { kind: cipherlm_model::Kind::Encoder { classes: 3 }, rotary: None, ..plain.clone() };
        let lean = Shape {
            frozen_norms: plain.norms(),
            activation: cipherlm_model::Activation::Quadratic,
            ..plain.clone()
        };
        for shape in [plain, encoder, lean] {
            let spec = random::certified("one", &shape, 1).unwrap().spec().clone();
            let known = description(&spec).unwrap();
            let whole = serde_json::to_value(&spec).unwrap();
            let mut places = vec![];
            leaves(&whole, "", &mut places);
            let mut changed = 0;
            for place in places {
                if place == "/name" || place.starts_with("/provenance") {
                    continue;
                }
                // What the weights or the data were has the same hash in every one of these: the
                // field alone differs.
                let read = |other: Value| {
                    let mut edited = whole.clone();
                    *edited.pointer_mut(&place).unwrap() = other;
                    serde_json::from_value::<ModelSpec>(edited).ok().filter(|found| *found != spec)
                };
                let found: Vec<_> =
                    others(whole.pointer(&place).unwrap()).into_iter().filter_map(read).collect();
                // A variant with fields changes as a whole.
                let whole = place.ends_with("/kind") || place == "/shape";
                assert!(whole || !found.is_empty(), "{place} cannot be changed: teach `others` its type");
                for other in found {
                    assert_ne!(description(&other).unwrap(), known, "{place}");
                    changed += 1;
                }
            }
            assert!(changed > 100, "{changed}");
            let renamed = ModelSpec { name: "two".into(), ..spec };
            assert_eq!(description(&renamed).unwrap(), known, "a name changes nothing");
        }
    }
}
