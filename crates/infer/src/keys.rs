//! Which evaluation keys a plan asks for, and at which levels.

use std::collections::{BTreeMap, BTreeSet};

use cipherlm_circuits::slots::KeyUse;
use cipherlm_ckks::{GaloisElement, KeyPurpose, KeyRequest, KeyShape, Params};

use crate::plan::Plan;

impl Plan {
    /// The evaluation keys of a run, without those of the refreshes.
    ///
    /// A key serves its level and those below, but a key of a lower level is smaller and faster.
    /// Keys are therefore made at a few levels, the same for every purpose (keys that one transform
    /// uses together must have one shape), chosen for the fewest bytes.
    pub fn key_request(&self, params: &Params) -> KeyRequest {
        let mut wanted: BTreeMap<KeyPurpose, BTreeSet<usize>> = BTreeMap::new();
        for (&key, levels) in self.keys() {
            let purpose = match key {
                KeyUse::Relin => KeyPurpose::Relinearise,
                KeyUse::Conjugate => KeyPurpose::Galois(GaloisElement::conjugation(params)),
                KeyUse::Rotate(steps) => KeyPurpose::Galois(GaloisElement::rotation(params, steps as i64)),
                _ => continue,
            };
            wanted.entry(purpose).or_default().extend(levels.iter().map(|&level| level.max(1)));
        }
        let cuts = cuts(&wanted.values().cloned().collect::<Vec<_>>(), |level| {
            KeyShape::cheapest(params, level).map_or(u64::MAX >> 32, |shape| shape.stored_bytes(params))
        });
        let mut request = KeyRequest::new();
        for (purpose, levels) in wanted {
            for level in levels {
                request.also(purpose, round_up(&cuts, level));
            }
        }
        request
    }
}

/// Most levels between which the cuts are chosen; of more, the highest are cuts in any case.
const CHOICES: usize = 16;

/// The set of levels whose keys take the fewest bytes when every use takes the key of the next
/// level in the set.
fn cuts(wanted: &[BTreeSet<usize>], bytes: impl Fn(usize) -> u64) -> BTreeSet<usize> {
    let levels: Vec<usize> = wanted.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let Some((&top, lower)) = levels.split_last() else { return BTreeSet::new() };
    let (free, fixed) = lower.split_at(lower.len().min(CHOICES));
    // Few patterns of levels, many keys of each.
    let mut patterns: BTreeMap<&BTreeSet<usize>, u64> = BTreeMap::new();
    wanted.iter().for_each(|levels| *patterns.entry(levels).or_default() += 1);
    let price: BTreeMap<usize, u64> = levels.iter().map(|&level| (level, bytes(level))).collect();
    let candidate = |mask: usize| -> BTreeSet<usize> {
        let chosen = free.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, &level)| level);
        chosen.chain(fixed.iter().copied()).chain([top]).collect()
    };
    let cost = |cuts: &BTreeSet<usize>| -> u64 {
        let of_one = |levels: &BTreeSet<usize>| -> u64 {
            let keys: BTreeSet<usize> = levels.iter().map(|&level| round_up(cuts, level)).collect();
            keys.iter().map(|level| price[level]).sum()
        };
        patterns.iter().map(|(levels, count)| count * of_one(levels)).sum()
    };
    (0..1 << free.len()).map(candidate).min_by_key(cost).unwrap_or_else(|| BTreeSet::from([top]))
}

fn round_up(cuts: &BTreeSet<usize>, level: usize) -> usize {
    cuts.range(level..).next().copied().unwrap_or(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_serve_every_level_with_the_fewest_bytes() {
        let set = |levels: &[usize]| levels.iter().copied().collect::<BTreeSet<usize>>();
        // Many keys at 4 and few at 5: two shapes; neighbours used by the same key: one.
        let wanted = [vec![set(&[4]); 20], vec![set(&[5])], vec![set(&[10, 11]); 20]].concat();
        let cuts = cuts(&wanted, |level| (level as u64 + 2) * (level as u64 + 2));
        assert_eq!(cuts, set(&[4, 5, 11]));
        assert_eq!((round_up(&cuts, 3), round_up(&cuts, 10)), (4, 11));
    }
}
