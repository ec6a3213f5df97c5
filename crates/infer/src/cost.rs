//! What primitives cost, by level: a measured table.

use std::collections::BTreeMap;
use std::path::Path;

use cipherlm_circuits::slots::{OpKind, RefreshKind};
use cipherlm_files::{Access, Existing};
use serde::{Deserialize, Serialize};

use crate::error::{InferError, Result, broken};

/// Seconds of each primitive at a few levels, with straight lines between them, and of each kind of
/// refresh.
///
/// The default is for N = 2^16 and the machine that its own field names: shares of limbs as the
/// algorithms have them, scaled to whole measured runs.
/// `cargo run --release -p cipherlm-infer --example calibrate -- FILE` measures each primitive on
/// another one ([`CostModel::measure`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Where the table was measured.
    pub machine: String,
    /// Worker threads during the measurement.
    pub threads: usize,
    /// Seconds by level, by the name of the primitive.
    pub primitives: BTreeMap<String, BTreeMap<usize, f64>>,
    /// Seconds by kind of refresh, at full slots.
    pub refreshes: BTreeMap<String, f64>,
}

impl Default for CostModel {
    fn default() -> Self {
        // A test reads the same text: what stands behind the `or` is never used.
        serde_json::from_str(include_str!("cost/default.json")).unwrap_or_else(|_| Self::empty())
    }
}

impl CostModel {
    pub(crate) fn empty() -> Self {
        Self { machine: String::new(), threads: 0, primitives: BTreeMap::new(), refreshes: BTreeMap::new() }
    }

    /// Reads a table that [`CostModel::save`] wrote.
    ///
    /// # Errors
    /// [`InferError::Files`], [`InferError::Malformed`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = cipherlm_files::read_text(path, 1 << 20)?;
        let malformed = |reason: String| InferError::Malformed {
            what: format!("cost table {}", path.display()),
            reason: format!("{reason}; measure it again"),
        };
        let table: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let primitives = table.primitives.values().flat_map(BTreeMap::values);
        if let Some(bad) = primitives.chain(table.refreshes.values()).find(|s| !(s.is_finite() && **s >= 0.0))
        {
            return Err(malformed(format!("{bad} is no time in seconds")));
        }
        for (name, entries) in &Self::default().primitives {
            if table.primitives.get(name).is_none_or(BTreeMap::is_empty) && !entries.is_empty() {
                return Err(malformed(format!("it says nothing of `{name}`")));
            }
        }
        Ok(table)
    }

    /// Writes the table as JSON.
    ///
    /// # Errors
    /// [`InferError::Files`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| broken(&format!("a cost table as JSON: {e}")))?;
        let text = text + "\n";
        Ok(cipherlm_files::write(path, text.as_bytes(), Existing::Replace, Access::Everyone)?)
    }

    /// Seconds of one primitive on an operand at a level.
    pub fn seconds(&self, kind: OpKind, level: usize) -> f64 {
        self.primitives.get(&primitive_name(kind)).map_or(0.0, |table| between(table, level))
    }

    /// Seconds of one refresh of one (possibly complex) vector. Sparse kinds that were not measured
    /// cost what the table says of sparse ones in general, and as much as full ones if it says
    /// nothing.
    pub fn refresh(&self, kind: RefreshKind) -> f64 {
        let general = match kind {
            RefreshKind::Real => vec!["real"],
            RefreshKind::SparseReal(_) => vec!["real sparse", "real"],
            RefreshKind::Sparse(_) => vec!["sparse", "full"],
            _ => vec!["full"],
        };
        let own = self.refreshes.get(&kind_name(kind));
        own.or_else(|| general.into_iter().find_map(|name| self.refreshes.get(name))).copied().unwrap_or(0.0)
    }
}

/// The kind of refresh of a single vector, for reports.
pub(crate) fn kind_name(kind: RefreshKind) -> String {
    match kind {
        RefreshKind::Full => "full".into(),
        RefreshKind::Real => "real".into(),
        RefreshKind::Sparse(n) => format!("sparse {n}"),
        RefreshKind::SparseReal(n) => format!("real sparse {n}"),
        _ => "refresh".into(),
    }
}

pub(crate) fn primitive_name(kind: OpKind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// A straight line through the two nearest entries; below the first one in proportion to the limbs,
/// of which level 0 has one.
fn between(table: &BTreeMap<usize, f64>, level: usize) -> f64 {
    let below = table.range(..=level).next_back();
    let above = table.range(level..).next();
    match (below, above) {
        (Some((&l, &a)), Some((&h, &b))) if h > l => a + (b - a) * (level - l) as f64 / (h - l) as f64,
        (Some((_, &at)), Some(_)) => at,
        (None, Some((&h, &b))) => b * (level + 1) as f64 / (h + 1) as f64,
        (Some((&l, &a)), None) => a * (level + 1) as f64 / (l + 1) as f64,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a table holds.
    const KINDS: [OpKind; 14] = [
        OpKind::Encode,
        OpKind::Add,
        OpKind::AddPlain,
        OpKind::MulPlain,
        OpKind::MulConst,
        OpKind::Mul,
        OpKind::Relin,
        OpKind::Rescale,
        OpKind::Rotate,
        OpKind::Conjugate,
        OpKind::ModUp,
        OpKind::KeyProduct,
        OpKind::MulPlainExtended,
        OpKind::ModDown,
    ];

    #[test]
    fn the_default_table_covers_every_primitive() {
        let table: CostModel = serde_json::from_str(include_str!("cost/default.json")).unwrap();
        assert_eq!(table, CostModel::default());
        for kind in KINDS {
            let (low, high) = (table.seconds(kind, 3), table.seconds(kind, 16));
            assert!(low > 0.0 && high > low && high < 1.0, "{kind:?}: {low} {high}");
        }
        let refresh = |kind| table.refresh(kind);
        assert!(refresh(RefreshKind::Full) > refresh(RefreshKind::Real));
        assert!(refresh(RefreshKind::Real) > refresh(RefreshKind::SparseReal(128)));
        assert!(refresh(RefreshKind::Full) > refresh(RefreshKind::Sparse(128)));
    }

    #[test]
    fn entries_are_joined_by_lines() {
        let table = BTreeMap::from([(3, 4.0), (5, 8.0)]);
        assert_eq!([1, 3, 4, 5, 11].map(|level| between(&table, level)), [2.0, 4.0, 6.0, 8.0, 16.0]);
    }
}
