//! Where a training run is, and how a checkpoint says so.

use std::path::Path;

use crate::checkpoint::Archive;
use crate::error::{Error, Result};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct State {
    pub(crate) step: usize,
    pub(crate) best: Option<f64>,
    pub(crate) smooth: Option<f64>,
    pub(crate) lowest: f64,
}

impl State {
    /// The state and the factor on the learning rate that a checkpoint holds.
    pub(crate) fn read(path: &Path, archive: &Archive) -> Result<(Self, f64)> {
        let corrupt = |field: &str| Error::Corrupt {
            path: path.into(),
            reason: format!("field `{field}` is missing or not a number"),
            hint: "delete it and continue from an older checkpoint",
        };
        let number = |field: &str| -> Result<Option<f64>> {
            match archive.fields.get(field).map(String::as_str) {
                Some("") => Ok(None),
                Some(bits) => bits.parse().map(|b| Some(f64::from_bits(b))).map_err(|_| corrupt(field)),
                None => Err(corrupt(field)),
            }
        };
        let state = Self {
            step: archive.fields.get("step").and_then(|s| s.parse().ok()).ok_or_else(|| corrupt("step"))?,
            best: number("best")?,
            smooth: number("smooth")?,
            lowest: number("lowest")?.unwrap_or(f64::INFINITY),
        };
        Ok((state, number("factor")?.unwrap_or(1.0)))
    }
}
