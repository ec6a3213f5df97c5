//! What a client has to know of a plan.

use cipherlm_model::{EmbeddingShape, Kind};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::json::JSON_BYTES;

/// First field of a client plan.
pub const PLAN_FORMAT: &str = "cipherlm client plan 2";

/// All that a client has to know of a plan to encrypt a prompt and read its answer. It is public.
///
/// Parameters are named and never sent: the client takes them from its own presets and compares the
/// hash. Wrong numbers in a plan can so spoil an answer, and no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// Format and version.
    pub format: String,
    /// Identity of the plan.
    pub plan: String,
    /// The model, as far as it concerns the client.
    pub model: ModelFacts,
    /// Name of the preset of parameters.
    pub profile: String,
    /// log2 of the ring degree.
    pub log_degree: u32,
    /// Hash of the parameters.
    pub params: Digest,
    /// What the plan is for: `prompt`.
    pub purpose: String,
    /// Where the numbers of the prompt lie.
    pub layout: Layout,
    /// Where the numbers of the answer lie.
    pub answers: Answers,
    /// The tokenizer's file.
    pub tokenizer: Blob,
    /// The embedding's file.
    pub embedding: Blob,
    /// The evaluation keys that a run uses, but for the two of the ephemeral secret.
    pub keys: Vec<KeyAsked>,
    /// What it takes.
    pub costs: Costs,
}

/// A model from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// What it answers.
    pub kind: Kind,
    /// Its embedding.
    pub embedding: EmbeddingShape,
    /// Public tokens that stand before every text: never encrypted.
    #[serde(default)]
    pub prefix: Vec<u32>,
}

/// Token `t` of an input vector has its features in slots `t * features ..`; what is left of the
/// slots repeats the vector. Several prompts share a vector: slot `s` of prompt `p` is then slot
/// `s * prompts + p` of it, here and in answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Slots of a vector.
    pub slots: usize,
    /// Prompts of a pass.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub prompts: usize,
    /// Slots of a token.
    pub features: usize,
    /// Longest prompt.
    pub tokens: usize,
    /// Input vectors.
    pub vectors: usize,
    /// Level at which the prompt is encrypted.
    pub level: usize,
    /// Lowest level of the circuits: it settles the scales of the others.
    pub floor: usize,
    /// Degree of the ring that the prompt is encrypted in; 0 for that of the circuits.
    pub degree: usize,
    /// Whether the mean of a row is taken off it.
    pub centred: bool,
    /// What one unit of a slot stands for.
    pub unit: f64,
    /// Largest value that a row may have, the model's certified range of embeddings.
    pub range: f64,
}

/// The answer of token `t` has its numbers in slots `t * features ..`, in the first vector the
/// first `features` of them, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Output vectors.
    pub vectors: usize,
    /// Slots of a token.
    pub features: usize,
    /// Tokens.
    pub tokens: usize,
    /// Whether the one answer is that of the text's last token.
    #[serde(default)]
    pub last: bool,
    /// Numbers that mean something; the other slots hold nothing.
    pub results: usize,
    /// What one unit of a slot stands for: the certified range of a logit.
    pub unit: f64,
    /// Degree of the ring of small answers, which hold the results of one token; 0 where the plan
    /// has none.
    pub degree: usize,
}

/// A public file beside the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Its hash.
    pub blake3: Digest,
    /// Its length.
    pub bytes: u64,
}

/// An evaluation key that a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyAsked {
    /// The automorphism `X -> X^galois`; none for the relinearisation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub galois: Option<usize>,
    /// Its level.
    pub level: usize,
}

/// What a run and its messages take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Bytes of all keys in files.
    pub key_bytes: u64,
    /// Bytes of all keys in the server's memory.
    pub key_bytes_resident: u64,
    /// Bytes of a prompt: always the same.
    pub prompt_bytes: u64,
    /// Bytes of an answer at one position.
    pub answer_bytes: u64,
    /// Bytes of an answer at all positions, at most.
    pub whole_answer_bytes: u64,
    /// Predicted seconds of a run on the machine that the cost table was measured on.
    pub seconds: f64,
}

/// Why a client plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client plan is refused ({reason}): fetch it again with `cipherlm plan --client`")]
pub struct PlanError {
    /// What is wrong.
    pub reason: String,
}

impl ClientPlan {
    /// The plan as JSON, at most 64 KiB.
    ///
    /// # Errors
    /// [`PlanError`] for one that is longer or does not pass [`ClientPlan::check`].
    pub fn to_json(&self) -> Result<String, PlanError> {
        self.check()?;
        let text = serde_json::to_string(self).map_err(|e| refused(e.to_string()))?;
        match text.len() {
            0..=JSON_BYTES => Ok(text),
            bytes => Err(refused(format!("{bytes} bytes of JSON, at most {JSON_BYTES} are allowed"))),
        }
    }

    /// Reads a plan and checks it.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let plan: Self =
            crate::read_json(text.as_bytes()).map_err(|problem| refused(problem.detail.into()))?;
        plan.check()?;
        Ok(plan)
    }

    /// Checks everything that needs no parameters: every size is bounded before anything is
    /// allocated by it.
    ///
    /// # Errors
    /// [`PlanError`] for the first number that cannot be.
    pub fn check(&self) -> Result<(), PlanError> {
        let (layout, answers, model) = (&self.layout, &self.answers, &self.model.embedding);
        let power = |what: &str, n: usize, most: usize| {
            let fits = n.is_power_of_two() && n <= most;
            if fits { Ok(()) } else { Err(refused(format!("{what} is {n}: a power of two up to {most}"))) }
        };
        let count = |what: &str, n: usize, most: usize| {
            let fits = (1..=most).contains(&n);
            if fits { Ok(()) } else { Err(refused(format!("{what} is {n}: 1 to {most}"))) }
        };
        let positive = |what: &str, x: f64| {
            let fits = x.is_finite() && x > 0.0;
            if fits { Ok(()) } else { Err(refused(format!("{what} is {x}: a number above 0"))) }
        };
        if self.format != PLAN_FORMAT {
            return Err(refused(format!("its format is not `{PLAN_FORMAT}`")));
        }
        let plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if !plain(&self.plan, 64) || !plain(&self.profile, 64) || self.model.name.len() > 200 {
            return Err(refused("a name is empty, too long or not plain".into()));
        }
        if self.purpose != "prompt" {
            return Err(refused("its purpose is not `prompt`".into()));
        }
        power("layout.slots", layout.slots, 1 << 16)?;
        power("layout.prompts", layout.prompts, layout.slots)?;
        let slots = layout.slots / layout.prompts;
        power("layout.features", layout.features, slots)?;
        power("layout.tokens", layout.tokens, slots / layout.features)?;
        count("layout.vectors", layout.vectors, 1 << 10)?;
        count("d_model", model.d_model, layout.vectors * layout.features)?;
        count("vocab", model.vocab, 1 << 20)?;
        count("context", model.context, 1 << 20)?;
        count("length of the public tokens, and one", self.model.prefix.len() + 1, model.context)?;
        power("answers.features", answers.features, slots)?;
        power("answers.tokens", answers.tokens, slots / answers.features)?;
        count("answers.vectors", answers.vectors, 1 << 12)?;
        count("answers.results", answers.results, answers.vectors * answers.features)?;
        if layout.degree > 0 {
            power("layout.degree", layout.degree, layout.slots)?;
            let period = layout.tokens * layout.features * layout.prompts;
            count("slots of a vector of the prompt", period, layout.degree / 2)?;
        }
        if answers.degree > 0 {
            power("answers.degree", answers.degree, layout.slots)?;
            let used = answers.vectors * answers.features * layout.prompts;
            count("slots of a small answer", used, answers.degree / 2)?;
        }
        count("number of keys", self.keys.len(), 1 << 12)?;
        positive("layout.unit", layout.unit)?;
        positive("layout.range", layout.range)?;
        positive("answers.unit", answers.unit)?;
        positive("norm_eps", model.norm_eps)
    }
}

/// What plans mean that say nothing of prompts.
fn one() -> usize {
    1
}

fn is_one(prompts: &usize) -> bool {
    *prompts == 1
}

fn refused(reason: String) -> PlanError {
    PlanError { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ClientPlan {
        let blob = Blob { blake3: Digest::of(b"blob"), bytes: 4 };
        ClientPlan {
            format: PLAN_FORMAT.into(),
            plan: "00ff".into(),
            model: ModelFacts {
                name: "tiny".into(),
                kind: Kind::Decoder,
                embedding: EmbeddingShape {
                    d_model: 24,
                    vocab: 300,
                    context: 64,
                    norm: cipherlm_model::Norm::LayerNorm,
                    norm_eps: 1e-5,
                    normalised: false,
                    positions: false,
                },
                prefix: vec![],
            },
            profile: "n16".into(),
            log_degree: 16,
            params: Digest::of(b"params"),
            purpose: "prompt".into(),
            layout: Layout {
                slots: 1 << 15,
                prompts: 1,
                features: 32,
                tokens: 8,
                vectors: 1,
                level: 13,
                floor: 3,
                degree: 1 << 15,
                centred: true,
                unit: 2.5,
                range: 2.0,
            },
            answers: Answers {
                vectors: 10,
                features: 32,
                tokens: 8,
                last: false,
                results: 300,
                unit: 12.0,
                degree: 2048,
            },
            tokenizer: blob,
            embedding: blob,
            keys: vec![KeyAsked { galois: None, level: 4 }, KeyAsked { galois: Some(5), level: 9 }],
            costs: Costs {
                key_bytes: 1,
                key_bytes_resident: 2,
                prompt_bytes: 3,
                answer_bytes: 4,
                whole_answer_bytes: 40,
                seconds: 5.0,
            },
        }
    }

    #[test]
    fn a_plan_survives_json() {
        let text = plan().to_json().unwrap();
        assert_eq!(ClientPlan::from_json(&text).unwrap(), plan());
        assert!(text.len() < JSON_BYTES / 32, "{}", text.len());
        // Plans of one prompt read and are written as before there were others.
        assert!(!text.contains("prompts"), "{text}");
        let layout = Layout { prompts: 2, ..plan().layout };
        let several = ClientPlan { layout, ..plan() };
        assert_eq!(ClientPlan::from_json(&several.to_json().unwrap()).unwrap(), several);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let whole = serde_json::to_value(plan()).unwrap();
        let with = |place: &str, value: serde_json::Value| {
            let mut edited = whole.clone();
            *edited.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
            ClientPlan::from_json(&edited.to_string())
        };
        let with_prompts = |prompts: usize| {
            let mut layout = whole["layout"].clone();
            layout["prompts"] = prompts.into();
            layout
        };
        for (place, bad) in [
            ("/format", "other".into()),
            ("/plan", "".into()),
            ("/plan", "a b".into()),
            ("/purpose", "token".into()),
            ("/layout/slots", 3.into()),
            ("/layout/slots", (1u64 << 40).into()),
            ("/layout/features", 0.into()),
            ("/layout", with_prompts(0)),
            ("/layout", with_prompts(3)),
            // Room for the tokens, but not for the rows of a small answer; then for neither.
            ("/layout", with_prompts(4)),
            ("/layout", with_prompts(1 << 15)),
            ("/layout/tokens", (1u64 << 15).into()),
            ("/layout/vectors", (1u64 << 50).into()),
            ("/layout/unit", 0.0.into()),
            ("/layout/degree", 256.into()),
            ("/layout/degree", 5000.into()),
            ("/layout/degree", (1u64 << 17).into()),
            ("/layout/range", (-1.0).into()),
            ("/model/embedding/d_model", 33.into()),
            ("/model/embedding/vocab", 0.into()),
            ("/answers/features", (1u64 << 20).into()),
            ("/answers/tokens", 7.into()),
            ("/answers/results", 321.into()),
            ("/answers/degree", 512.into()),
            ("/answers/degree", 3000.into()),
            ("/answers/degree", (1u64 << 16).into()),
            ("/answers/unit", serde_json::Value::Null),
            ("/keys", serde_json::json!([])),
            ("/params", "xyz".into()),
        ] {
            assert!(with(place, bad).is_err(), "{place}");
        }
        assert!(with("/layout/level", 9.into()).is_ok() && with("/layout", with_prompts(2)).is_ok());
    }
}
