//! Profiles of bootstrapping from any numbers, the ledger of released results, the table of costs.

use std::path::PathBuf;

use cipherlm_circuits::bootstrap::{DftLevel, Profile};
use cipherlm_ckks::SharingContract;
use cipherlm_infer::CostModel;

use super::wire::World;
use super::{Target, Verdict, json_ceiling, scratch_folder};
use crate::engine::Probe;
use crate::mutate::json;
use crate::rng::Rng;

/// A profile as numbers of 64 bits: see [`fields`].
pub(crate) struct Profiles;

/// log2 of the largest ring that is built: larger ones are slow, not different.
const LARGEST: u32 = 8;
/// Tables of the ring, with its prime search.
const CEILING: usize = 64 << 20;

fn fields(profile: &Profile) -> Vec<u64> {
    let mut words = vec![
        u64::from(profile.log_degree),
        profile.user_levels as u64,
        profile.special as u64,
        u64::from(profile.special_bits),
        profile.ephemeral_weight as u64,
        u64::from(profile.polynomial_depth),
        u64::from(profile.doublings),
    ];
    let real = [profile.bottom, profile.scale, profile.ratio, profile.input_scale, profile.headroom];
    words.extend(real.iter().chain([&profile.error_bits]).map(|x| x.to_bits()));
    words.extend([profile.slots_to_coeffs.len() as u64, profile.coeffs_to_slots.len() as u64]);
    let transforms = profile.slots_to_coeffs.iter().chain(&profile.coeffs_to_slots);
    words.extend(transforms.flat_map(|level| [level.bits.to_bits(), u64::from(level.layers)]));
    words.extend(profile.eval_mod.iter().map(|x| x.to_bits()));
    words
}

fn profile(input: &[u8]) -> Option<Profile> {
    let mut words = input.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut whole = || words.next();
    let log_degree = whole()? as u32;
    let (user_levels, special) = (usize::try_from(whole()?).ok()?, usize::try_from(whole()?).ok()?);
    let (special_bits, ephemeral_weight) = (whole()? as u32, usize::try_from(whole()?).ok()?);
    let (polynomial_depth, doublings) = (whole()? as u32, whole()? as u32);
    let mut real = || whole().map(f64::from_bits);
    let [bottom, scale, ratio] = [real()?, real()?, real()?];
    let [input_scale, headroom, error_bits] = [real()?, real()?, real()?];
    let (down, up) = (whole()? as usize, whole()? as usize);
    let mut level = || Some(DftLevel { bits: f64::from_bits(whole()?), layers: whole()? as u32 });
    let slots_to_coeffs = (0..down.min(64)).map_while(|_| level()).collect();
    let coeffs_to_slots = (0..up.min(64)).map_while(|_| level()).collect();
    Some(Profile {
        name: "fuzzed",
        log_degree: if (4..20).contains(&log_degree) { log_degree.min(LARGEST) } else { log_degree },
        bottom,
        slots_to_coeffs,
        scale,
        user_levels,
        eval_mod: words.map(f64::from_bits).collect(),
        coeffs_to_slots,
        special,
        special_bits,
        ratio,
        input_scale,
        headroom,
        ephemeral_weight,
        polynomial_depth,
        doublings,
        error_bits,
        insecure: true,
    })
}

impl Target for Profiles {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let seed = |p: &Profile| fields(p).iter().flat_map(|word| word.to_le_bytes()).collect();
        Ok([6, 7, 8].map(|log_degree| seed(&Profile::insecure(log_degree))).to_vec())
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let Some(profile) = profile(input) else { return Verdict::Refused("too few numbers".into()) };
        let valid = probe.parse(|| profile.validate());
        match (valid, probe.parse(|| profile.params())) {
            (Err(error), Err(_)) => Verdict::Refused(error.to_string()),
            (Err(error), Ok(_)) => {
                Verdict::Wrong(format!("parameters of a profile that is refused: {error}"))
            }
            (Ok(()), Err(error)) => Verdict::Refused(error.to_string()),
            (Ok(()), Ok(params)) if params.max_level() != profile.levels() => {
                Verdict::Wrong(format!("{} levels, not {}", params.max_level(), profile.levels()))
            }
            (Ok(()), Ok(_)) => Verdict::Accepted,
        }
    }

    fn ceiling(&self, _length: usize) -> usize {
        CEILING
    }
}

/// The ledger of a key that shares results.
pub(crate) struct Ledger {
    world: World,
    folder: PathBuf,
    seed: Vec<u8>,
}

/// Bytes before the hash of a ledger, and before its releases.
const FIELDS: usize = 48;
const HEADER: usize = FIELDS + 32;
/// Releases of the contract.
const RELEASES: u32 = 6;

impl Ledger {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (world, folder) = (World::new()?, scratch_folder("ledger")?);
        let path = folder.join("ledger");
        drop(world.secret.sharing(&path, SharingContract::new(40, RELEASES)?)?);
        let seed = std::fs::read(&path)?;
        Ok(Self { world, folder, seed })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Target for Ledger {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok([0, 1, RELEASES as usize, 9].map(|used| [self.seed.clone(), vec![1; used]].concat()).to_vec())
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        if input.len() >= HEADER {
            let hash = blake3::hash(&input[..FIELDS]);
            input[FIELDS..HEADER].copy_from_slice(hash.as_bytes());
        }
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let path = self.folder.join("ledger");
        if let Err(error) = std::fs::write(&path, input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let contract = SharingContract::new(40, RELEASES);
        let left = contract.and_then(|c| probe.parse(|| self.world.secret.sharing(&path, c)?.left()));
        let left = match left {
            Ok(left) => left,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        // Two bytes of the version's word say nothing.
        let same = |at: usize| input.get(at) == self.seed.get(at) || (6..8).contains(&at) || at >= FIELDS;
        let used = input.len().saturating_sub(HEADER) as u32;
        if !input.is_empty() && !(0..HEADER).all(same) {
            Verdict::Wrong("the ledger of another key or contract was accepted".into())
        } else if left != RELEASES.saturating_sub(used) {
            Verdict::Wrong(format!("{left} releases left after {used} of {RELEASES}"))
        } else {
            Verdict::Accepted
        }
    }

    fn ceiling(&self, _length: usize) -> usize {
        // Messages hold its path.
        16 << 10
    }
}

/// A measured table of costs.
pub(crate) struct CostTable {
    folder: PathBuf,
}

impl CostTable {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { folder: scratch_folder("cost_table")? })
    }
}

impl Drop for CostTable {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Target for CostTable {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![serde_json::to_vec(&CostModel::default())?])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let (path, again) = (self.folder.join("costs.json"), self.folder.join("again.json"));
        if let Err(error) = std::fs::write(&path, input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let table = match probe.parse(|| CostModel::load(&path)) {
            Ok(table) => table,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        match table.save(&again).and_then(|()| CostModel::load(&again)) {
            Ok(other) if other == table => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("saved and loaded, it is another table".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        // The default table is parsed for comparison.
        json_ceiling(length) + (1 << 20)
    }
}
