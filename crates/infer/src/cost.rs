//! What primitives cost: a table measured on one CPU, and what it says of any chain.

use std::collections::BTreeMap;
use std::path::Path;

use cipherlm_circuits::bootstrap::{Work, WorkStage};
use cipherlm_circuits::slots::{OpKind, RefreshKind};
use cipherlm_ckks::{KeyShape, Params};
use cipherlm_files::{Access, Existing};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, broken};

/// Raised when tables of before say something else than those of now.
const FORMAT: &str = "cipherlm prices 2";
/// What tables are measured at.
pub(crate) const DEGREE: usize = 1 << 16;
/// Limbs and threads of no machine that this runs on.
const MOST: usize = 1 << 16;

/// Seconds of each primitive at a few sizes of operand, measured at N = 2^16 on one CPU with one
/// kernel and one number of threads ([`CostModel::measure`]).
///
/// Between sizes that were measured, and for keys with other digits, the price follows the count of
/// transforms, conversions and products that the primitive is made of; bootstraps are the sum of
/// their primitives ([`cipherlm_circuits::bootstrap::Bootstrapper::work`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Format of the table.
    pub format: String,
    /// The CPU on which it was measured.
    pub machine: String,
    /// The kernel that ran.
    pub kernel: String,
    /// Worker threads during the measurement.
    pub threads: usize,
    /// Seconds by limbs of the operand, by the name of the primitive.
    primitives: BTreeMap<String, BTreeMap<usize, Measured>>,
    /// What larger parts take of the sum of their primitives: of a bootstrap the `transforms` and
    /// the `reduction`, which are fused, and `linear` transforms, whose rotations stream through
    /// memory where a primitive on its own finds its operands in the cache.
    parts: BTreeMap<String, f64>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    /// Seconds of one operation.
    pub(crate) seconds: f64,
    /// Special primes of the key there.
    pub(crate) special: usize,
    /// Digits of the key there.
    pub(crate) digits: usize,
}

/// The size of an operand and of the key that belongs to its level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) limbs: usize,
    pub(crate) special: usize,
    pub(crate) digits: usize,
}

impl Size {
    /// At a level of a parameter set.
    pub(crate) fn at(params: &Params, level: usize) -> Self {
        let limbs = params.limb_count(level);
        KeyShape::cheapest(params, level).map_or(Self::usual(limbs), |shape| Self {
            limbs,
            special: shape.special,
            digits: shape.digits(params).len(),
        })
    }

    /// Where nothing is known but the limbs: three digits.
    pub(crate) fn usual(limbs: usize) -> Self {
        Self { limbs, special: limbs.div_ceil(3), digits: limbs.min(3) }
    }
}

impl Default for CostModel {
    /// The table by which plans place their bootstraps, the same on every machine.
    fn default() -> Self {
        Self::builtin("avx512ifma")
    }
}

impl CostModel {
    /// The table that comes with this version for a kernel, measured with two threads of a Zen 4.
    /// Kernels without one of their own have that of AVX2.
    pub fn builtin(kernel: &str) -> Self {
        let text = match kernel {
            "avx512ifma" => include_str!("cost/avx512ifma.json"),
            _ => include_str!("cost/avx2.json"),
        };
        // A test reads the same text: what stands behind the `or` is never used.
        serde_json::from_str(text).unwrap_or_else(|_| Self::empty())
    }

    pub(crate) fn empty() -> Self {
        Self {
            format: FORMAT.into(),
            machine: String::new(),
            kernel: String::new(),
            threads: 0,
            primitives: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Takes what a bootstrap makes of its primitives from another table: a whole one is not
    /// measured.
    pub(crate) fn with_parts_of(self, other: &Self) -> Self {
        Self { parts: other.parts.clone(), ..self }
    }

    pub(crate) fn insert(&mut self, kind: OpKind, size: Size, seconds: f64) {
        let Size { limbs, special, digits } = size;
        let entries = self.primitives.entry(primitive_name(kind)).or_default();
        entries.insert(limbs, Measured { seconds, special, digits });
    }

    /// Reads a table that [`CostModel::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = cipherlm_files::read_text(path, 1 << 20)?;
        let malformed = |reason: String| Error::Malformed {
            what: format!("price table {}", path.display()),
            reason: format!("{reason}; measure it again"),
        };
        let table: Self = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if table.format != FORMAT {
            return Err(malformed(format!("it is `{}` and this version reads `{FORMAT}`", table.format)));
        }
        let entries = || table.primitives.values().flatten();
        let sane = |x: &f64| x.is_finite() && *x >= 0.0;
        let seconds = entries().map(|(_, entry)| &entry.seconds).chain(table.parts.values());
        if let Some(bad) = seconds.into_iter().find(|x| !sane(x)) {
            return Err(malformed(format!("{bad} is no time in seconds")));
        }
        let large = |n: usize| n > MOST;
        if entries().any(|(&limbs, e)| limbs == 0 || large(limbs) || large(e.special) || large(e.digits)) {
            return Err(malformed("it has operands of no limbs, or of more than there can be".into()));
        }
        for name in Self::default().primitives.keys() {
            if table.primitives.get(name).is_none_or(BTreeMap::is_empty) {
                return Err(malformed(format!("it says nothing of `{name}`")));
            }
        }
        Ok(table)
    }

    /// Writes the table as JSON.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| broken(&format!("a price table as JSON: {e}")))?;
        let text = text + "\n";
        Ok(cipherlm_files::write(path, text.as_bytes(), Existing::Replace, Access::Everyone)?)
    }

    /// Seconds of one primitive at N = 2^16.
    pub(crate) fn seconds(&self, kind: OpKind, size: Size) -> f64 {
        let Some(table) = self.primitives.get(&primitive_name(kind)) else { return 0.0 };
        let rate = |(&limbs, entry): (&usize, &Measured)| {
            let size = Size { limbs, special: entry.special, digits: entry.digits };
            (limbs as f64, entry.seconds / units(kind, size))
        };
        let below = table.range(..=size.limbs).next_back().map(rate);
        let above = table.range(size.limbs..).next().map(rate);
        let rate = match (below, above) {
            (Some((l, a)), Some((h, b))) if h > l => a + (b - a) * (size.limbs as f64 - l) / (h - l),
            (Some((_, rate)), _) | (None, Some((_, rate))) => rate,
            (None, None) => 0.0,
        };
        rate * units(kind, size)
    }

    /// What a larger part takes of the sum of its primitives.
    pub(crate) fn part(&self, name: &str) -> f64 {
        self.parts.get(name).copied().unwrap_or(1.0)
    }

    /// Seconds of a whole bootstrap at N = 2^16.
    pub(crate) fn work(&self, work: &[Work]) -> f64 {
        self.bootstrap_parts(work).into_iter().sum()
    }

    /// Seconds of the transforms and of the modular reduction of a bootstrap at N = 2^16.
    pub fn bootstrap_parts(&self, work: &[Work]) -> [f64; 2] {
        let part = |stage: WorkStage, name: &str| -> f64 {
            let own = work.iter().filter(|work| work.stage == stage);
            let seconds = own.map(|work| {
                let size = Size { limbs: work.limbs, special: work.special, digits: work.digits };
                work.count * self.seconds(work.kind, size)
            });
            self.part(name) * seconds.sum::<f64>()
        };
        [part(WorkStage::Transforms, "transforms"), part(WorkStage::Reduction, "reduction")]
    }
}

/// Transforms, conversions and products that a primitive is made of, by the share of each in the
/// time of one thread; only ratios matter.
fn units(kind: OpKind, size: Size) -> f64 {
    const TRANSFORM: f64 = 0.2;
    const CONVERSION: f64 = 0.0275;
    const PRODUCT: f64 = 0.04;
    let [l, k, digits] = [size.limbs, size.special, size.digits].map(|n| n.max(1) as f64);
    let mod_up = TRANSFORM * digits * (l + k) + CONVERSION * l * (l + k - l / digits);
    let key_product = PRODUCT * 2.0 * (digits + 1.0) * (l + k);
    let mod_down = TRANSFORM * 2.0 * (k + l) + CONVERSION * 2.0 * k * l + PRODUCT * 2.0 * l;
    match kind {
        OpKind::ModUp => mod_up,
        OpKind::KeyProduct => key_product,
        OpKind::ModDown => mod_down,
        OpKind::Relin | OpKind::Rotate | OpKind::Conjugate => mod_up + key_product + mod_down,
        OpKind::MulPlainExtended => PRODUCT * 2.0 * (l + k),
        OpKind::Encode | OpKind::MulPlain | OpKind::AddPlain => TRANSFORM * (l + 1.0),
        OpKind::Rescale => TRANSFORM * 2.0 * l,
        OpKind::Mul => PRODUCT * 4.0 * l,
        _ => PRODUCT * 2.0 * l,
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
    fn the_tables_cover_every_primitive() {
        for (kernel, text) in
            [("avx512ifma", include_str!("cost/avx512ifma.json")), ("avx2", include_str!("cost/avx2.json"))]
        {
            let table: CostModel = serde_json::from_str(text).unwrap();
            assert_eq!((&table, table.kernel.as_str()), (&CostModel::builtin(kernel), kernel));
            for kind in KINDS {
                let [low, high] = [4, 31].map(|limbs| table.seconds(kind, Size::usual(limbs)));
                // A plaintext is encoded without regard to the level.
                let grows = high > low || kind == OpKind::Encode;
                assert!(low > 0.0 && grows && high < 2.0, "{kernel} {kind:?}: {low} {high}");
            }
        }
        let [fast, slow] = ["avx512ifma", "avx2"].map(CostModel::builtin);
        let rotation = |table: &CostModel| table.seconds(OpKind::Rotate, Size::usual(16));
        assert!(rotation(&fast) < rotation(&slow));
    }

    #[test]
    fn prices_follow_the_digits_of_the_key_and_the_measured_rate() {
        let mut table = CostModel::empty();
        let size = |limbs, digits| Size { limbs, special: 7, digits };
        for (limbs, rate) in [(7, 1.0), (21, 3.0)] {
            let size = size(limbs, limbs / 7);
            table.insert(OpKind::KeyProduct, size, rate * units(OpKind::KeyProduct, size));
        }
        let rate = |size: Size| table.seconds(OpKind::KeyProduct, size) / units(OpKind::KeyProduct, size);
        for (limbs, expected) in [(2, 1.0), (7, 1.0), (14, 2.0), (21, 3.0), (40, 3.0)] {
            assert!((rate(size(limbs, 2)) - expected).abs() < 1e-9, "{limbs}");
        }
        let [two, four] = [2, 4].map(|digits| table.seconds(OpKind::KeyProduct, size(14, digits)));
        assert!(four > 1.6 * two, "{two} {four}");
    }

    #[test]
    fn a_table_that_says_nonsense_is_refused() {
        let folder = cipherlm_testing::Scratch::new("prices");
        let path = folder.join("prices.json");
        let good = CostModel::default();
        good.save(&path).unwrap();
        assert_eq!(CostModel::load(&path).unwrap(), good);
        let text = std::fs::read_to_string(&path).unwrap();
        let entry = "\"special\": 7";
        assert!(text.contains(entry));
        for (from, to) in [
            (FORMAT, "cipherlm prices 1"),
            (entry, "\"special\": 70000000"),
            ("\"seconds\": ", "\"seconds\": -"),
            ("\"relin\"", "\"relinearise\""),
            ("\"parts\"", "\"shares\""),
        ] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert!(CostModel::load(&path).is_err(), "{from}");
        }
    }
}
