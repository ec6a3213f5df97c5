//! Fields of a `config.json`, or of GGUF metadata, with their names in every error.

use serde_json::Value;

use crate::error::{Error, Result};

/// Named fields of a checkpoint's description.
pub(super) struct Config {
    what: &'static str,
    root: Value,
}

impl Config {
    pub(super) fn new(what: &'static str, root: Value) -> Result<Self> {
        if root.is_object() { Ok(Self { what, root }) } else { Err(Error::malformed(what, "not an object")) }
    }

    /// The field, if it is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.root.get(field).filter(|v| !v.is_null())
    }

    pub(super) fn refuse(&self, field: &str, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.what, format!("field `{field}` {reason}"))
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(Value::as_str)
    }

    pub(super) fn flag(&self, field: &str, default: bool) -> bool {
        self.get(field).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A size between 1 and 2^20.
    pub(super) fn size(&self, field: &str) -> Result<usize> {
        self.size_or(field, None)
    }

    pub(super) fn size_or(&self, field: &str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.get(field) else {
            return default.ok_or_else(|| self.refuse(field, "is missing"));
        };
        let size = value.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..=1 << 20).contains(v));
        size.ok_or_else(|| self.refuse(field, format!("is {value}, expected 1 to 2^20")))
    }

    pub(super) fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value
            .as_f64()
            .filter(|v| v.is_finite())
            .ok_or_else(|| self.refuse(field, format!("is {value}, not a number")))
    }

    /// A width that a number of heads divides.
    pub(super) fn head_dim(&self, width: usize, heads: usize, field: &str) -> Result<usize> {
        if width.is_multiple_of(heads) {
            return Ok(width / heads);
        }
        Err(self.refuse(field, format!("is {heads}, which does not divide the width {width}")))
    }

    /// The activation, which must be one of those read here.
    pub(super) fn activation(&self, field: &str, default: &str) -> Result<crate::Activation> {
        match self.text(field).unwrap_or(default) {
            "gelu" => Ok(crate::Activation::Gelu),
            "silu" | "swish" => Ok(crate::Activation::Silu),
            other => Err(self.refuse(field, format!("is {other:?}; this program reads gelu and silu"))),
        }
    }

    /// Rotary base, refused together with any stretching of positions.
    pub(super) fn rotary_base(&self, field: &str) -> Result<f64> {
        for scaling in ["rope_scaling", "rope_parameters"] {
            let kind = self.get(scaling).and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
            if let Some(kind) = kind.and_then(Value::as_str).filter(|k| *k != "default") {
                return Err(self.refuse(
                    scaling,
                    format!("is of type {kind:?}; this program reads plain rotary positions"),
                ));
            }
        }
        let nested = self.get("rope_parameters").and_then(|p| p.get("rope_theta")).and_then(Value::as_f64);
        self.number_or(field, nested.unwrap_or(10_000.0))
    }
}
