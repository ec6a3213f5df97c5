//! What a conversion ships: the difference from weights that are fetched elsewhere, small.
//!
//! `difference.safetensors` holds, for every tensor that changed, either two factors of a low-rank
//! matrix in binary16 (`NAME/a`, `NAME/b`), or 8-bit integers with a scale for each row
//! (`NAME/steps`, `NAME/scale`), or the change in binary16 (`NAME`). New tensors (frozen epsilons)
//! are changes from zero. Text fields name the base by the BLAKE3 of its weights and give the shape
//! of the result. A model folder may hold this file in the place of `weights.safetensors`: it is
//! then read with the base weights in its folder `base`, or in the folder that the field `folder`
//! names below `base` beside it or below `CIPHERLM_BASE`; the field `fetch` says how to get them.

mod half;
mod rank;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use cipherlm_files::{Access, Existing, shown};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::folder::{MODEL_FILE, WEIGHTS_FILE};
use crate::import::Checkpoint;
use crate::model::{MAX_DESCRIPTION, Model};
use crate::shape::Shape;
use crate::weights::{Weights, in_name_order};

/// File name of a difference.
pub const DIFFERENCE_FILE: &str = "difference.safetensors";
/// Tensors that are written exactly: epsilons span many powers of two.
const EXACT: &str = "attn.eps";
/// Of a file whose hash is another.
const DAMAGED: &str = "its content does not have the hash that it states";
/// Ends of the names of parts: two factors, or steps and a scale for each row.
const PARTS: [&str; 4] = ["/a", "/b", "/steps", "/scale"];
/// Largest difference that is read, in bytes.
const MAX_BYTES: u64 = 1 << 32;
/// Folder of the base weights in or beside a folder with a difference: a public checkpoint, or a
/// model folder.
const BASE_FOLDER: &str = "base";

/// How a difference is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Changes of matrices as factors of this rank; whole, in 8 bits, when absent.
    #[serde(default)]
    pub rank: Option<usize>,
    /// Matrices whose name contains one of these are written whole although there is a rank.
    #[serde(default)]
    pub whole: Vec<String>,
    /// Largest file, in bytes.
    #[serde(default = "twelve_megabytes")]
    pub at_most: usize,
    /// Name of the folder of the base weights below `models/base` or `CIPHERLM_BASE`.
    #[serde(default)]
    pub folder: String,
    /// The command that fetches the base weights, for those who lack them.
    #[serde(default)]
    pub fetch: String,
}

/// A difference that was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Bytes of the file.
    pub bytes: usize,
    /// Tensors that changed.
    pub tensors: usize,
    /// Size of what was lost over the size of the change, in the Euclidean norm over all tensors
    /// but the epsilons, which are written exactly.
    pub lost: f64,
}

/// Raw tensors of a file.
type Raw = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// Writes the difference from `base` to `model`, whose shapes differ in their attention only.
pub fn write(base: &Model, model: &Model, how: &Difference, folder: &Path) -> Result<Report> {
    let mut raw = Raw::new();
    let (mut lost, mut size, mut tensors) = (0.0, 0.0, 0);
    for (name, tensor) in model.weights().iter() {
        let old = base.weights().values(name);
        let change = |(i, x): (usize, &f64)| (x - old.map_or(0.0, |old| old[i])) as f32;
        let change: Vec<f32> = tensor.data.iter().enumerate().map(change).collect();
        // What the base lacks is written, zero or not.
        if old.is_some() && change.iter().all(|x| *x == 0.0) {
            continue;
        }
        tensors += 1;
        let from = raw.len();
        let rank = how.rank.filter(|_| !how.whole.iter().any(|part| name.contains(part.as_str())));
        encode(name, &tensor.dims, &change, rank, &mut raw);
        let kept = decode(
            &raw[from..].iter().map(|(n, t, d, b)| (n.as_str(), (*t, &d[..], &b[..]))).collect(),
            name,
            tensor.data.len(),
        )
        .ok()
        .flatten()
        .unwrap_or_default();
        // Written exactly, and of another size than all others.
        if name.ends_with(EXACT) {
            continue;
        }
        lost += kept.iter().zip(&change).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        size += change.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    }
    let path = folder.join(DIFFERENCE_FILE);
    let mut views = Vec::with_capacity(raw.len());
    for (name, dtype, dims, bytes) in &raw {
        let view = TensorView::new(*dtype, dims.clone(), bytes);
        views.push((name.as_str(), view.map_err(|e| Error::malformed(DIFFERENCE_FILE, e))?));
    }
    let json = |e| Error::malformed(DIFFERENCE_FILE, e);
    let shape = serde_json::to_string(model.shape()).map_err(json)?;
    let fields = [
        ("base_weights_blake3", base.spec().weights_blake3.clone()),
        ("base_name", base.spec().name.clone()),
        ("name", model.spec().name.clone()),
        ("shape", shape),
        ("folder", how.folder.clone()),
        ("fetch", how.fetch.clone()),
        ("blake3", digest(&raw)),
    ];
    let fields = fields.map(|(k, v)| (k.to_owned(), v)).into();
    let bytes = serialize(views, Some(fields)).map_err(|e| Error::malformed(DIFFERENCE_FILE, e))?;
    let bytes = in_name_order(&bytes)?;
    if bytes.len() > how.at_most {
        let (found, most) = (bytes.len(), how.at_most);
        let reason = format!(
            "it has {found} bytes, at most {most} were asked for: lower the rank, or let fewer tensors learn"
        );
        return Err(Error::malformed(DIFFERENCE_FILE, reason));
    }
    cipherlm_files::create_folder(folder)?;
    cipherlm_files::write(&path, &bytes, Existing::Replace, Access::Everyone)?;
    Ok(Report { bytes: bytes.len(), tensors, lost: (lost / f64::max(size, f64::MIN_POSITIVE)).sqrt() })
}

/// The model that a difference makes of its base. Refuses another base.
///
/// A difference made in training belongs to a base with one key head for each head: one with fewer
/// has them repeated first.
pub fn apply(base: &Model, path: &Path) -> Result<Model> {
    let bytes = cipherlm_files::read(path, MAX_BYTES)?;
    let corrupt = |reason: String| Error::malformed(shown(path), reason);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let fields = metadata.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).cloned().ok_or_else(|| corrupt(format!("no field `{name}`")));
    let wanted = field("base_weights_blake3")?;
    let repeated = match base.shape().kv_heads {
        Some(_) if wanted != base.spec().weights_blake3 => Some(base.with_repeated_heads()?),
        _ => None,
    };
    let found = &base.spec().weights_blake3;
    let base = repeated.as_ref().filter(|base| base.spec().weights_blake3 == wanted).unwrap_or(base);
    if wanted != base.spec().weights_blake3 {
        let reason =
            format!("it belongs to weights with hash {wanted} ({}), not {found}", field("base_name")?);
        return Err(corrupt(reason));
    }
    let shape: Shape = serde_json::from_str(&field("shape")?).map_err(|e| corrupt(e.to_string()))?;
    shape.validate()?;
    let raw = raw_of(&file);
    if digest(&raw) != field("blake3")? {
        return Err(corrupt(DAMAGED.into()));
    }
    let parts: HashMap<&str, Part<'_>> =
        raw.iter().map(|(n, t, d, b)| (n.as_str(), (*t, &d[..], &b[..]))).collect();
    let mut weights = Weights::new();
    let expected = shape.tensors();
    let known = |part: &str| {
        let name = PARTS.iter().find_map(|kind| part.strip_suffix(kind)).unwrap_or(part);
        expected.iter().any(|(n, _)| n == name || n == part)
    };
    if let Some(strange) = parts.keys().find(|part| !known(part)) {
        return Err(corrupt(format!("`{strange}` belongs to no tensor of its shape")));
    }
    for (name, dims) in &expected {
        let data = changed(base.weights().values(name), &parts, name, dims).map_err(corrupt)?;
        weights.insert(name, dims, data)?;
    }
    Model::new(field("name")?, shape, weights)
}

/// The values of a tensor: those of the base and their change. Memory is taken for what the base
/// or the file holds, not for what the file says that it holds.
fn changed(
    old: Option<&[f64]>,
    parts: &HashMap<&str, Part<'_>>,
    name: &str,
    dims: &[usize],
) -> std::result::Result<Vec<f64>, String> {
    let count = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
    let count = count.ok_or_else(|| format!("`{name}` of {dims:?} values fits no memory"))?;
    if let Some(old) = old.filter(|old| old.len() != count) {
        return Err(format!("`{name}` has {} values in the base, {count} here", old.len()));
    }
    let change = decode(parts, name, count)?;
    match (old, change) {
        (_, Some(change)) if change.len() != count => {
            Err(format!("`{name}` has {} values, the shape asks for {count}", change.len()))
        }
        (Some(old), Some(change)) => Ok(old.iter().zip(change).map(|(x, d)| x + f64::from(d)).collect()),
        (Some(old), None) => Ok(old.to_vec()),
        (None, Some(change)) => Ok(change.into_iter().map(f64::from).collect()),
        (None, None) => Err(format!("`{name}` is neither in it nor in its base")),
    }
}

/// What the difference in a folder says of itself, without its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Bytes of the file.
    pub bytes: usize,
    /// Raw tensors in it.
    pub tensors: usize,
    /// The model that it belongs to.
    pub base: String,
    /// Hash of that model's weights.
    pub base_blake3: String,
    /// How to get them.
    pub fetch: String,
}

/// Reads the difference in a folder and checks it against its own hash; `None` where the folder
/// holds weights, or neither.
///
/// # Errors
/// [`Error::Malformed`] for a file that is cut, damaged or none of ours.
pub fn about(dir: &Path) -> Result<Option<About>> {
    let path = dir.join(DIFFERENCE_FILE);
    if dir.join(WEIGHTS_FILE).exists() || !path.exists() {
        return Ok(None);
    }
    let bytes = cipherlm_files::read(&path, MAX_BYTES)?;
    let corrupt = |reason: String| Error::malformed(shown(&path), reason);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let fields = metadata.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let raw = raw_of(&file);
    if digest(&raw) != field("blake3") {
        return Err(corrupt(DAMAGED.into()));
    }
    let (base, base_blake3) = (field("base_name"), field("base_weights_blake3"));
    Ok(Some(About { bytes: bytes.len(), tensors: raw.len(), base, base_blake3, fetch: field("fetch") }))
}

fn raw_of(file: &SafeTensors<'_>) -> Raw {
    let views = file.tensors();
    views.iter().map(|(n, v)| (n.clone(), v.dtype(), v.shape().to_vec(), v.data().to_vec())).collect()
}

/// Reads a model folder, with weights or with a difference in their place. The latter needs the
/// base weights at hand.
///
/// # Errors
/// [`Error::NoBase`], and all that [`Model::load`] and [`apply`] refuse.
pub fn load(dir: &Path) -> Result<Model> {
    if dir.join(WEIGHTS_FILE).exists() || !dir.join(DIFFERENCE_FILE).exists() {
        return Model::load(dir);
    }
    let text = cipherlm_files::read_text(&dir.join(MODEL_FILE), MAX_DESCRIPTION)?;
    Model::from_parts(&text, &applied(dir)?.weights().to_bytes())
}

/// The model that the difference in a folder makes of the base weights at hand.
fn applied(dir: &Path) -> Result<Model> {
    let path = dir.join(DIFFERENCE_FILE);
    let bytes = cipherlm_files::read(&path, MAX_BYTES)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| Error::malformed(shown(&path), e))?;
    let fields = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let places = places(dir, &field("folder"));
    let Some(base) = places.iter().find(|place| place.is_dir()) else {
        let places = places.iter().map(|place| shown(place)).collect::<Vec<_>>().join(", ");
        return Err(Error::NoBase { places, name: field("base_name"), fetch: field("fetch") });
    };
    let base = match base.join(MODEL_FILE).exists() {
        true => Model::load(base)?,
        false => Checkpoint::open(base)?.model()?,
    };
    apply(&base, &path)
}

/// Where the base weights of a folder's difference may be: in the folder itself, below the folder
/// beside it, or below the one that `CIPHERLM_BASE` names.
fn places(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut out = vec![dir.join(BASE_FOLDER)];
    // A name that points elsewhere is not a name.
    if matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
        out.push(dir.join("..").join(BASE_FOLDER).join(name));
        out.extend(std::env::var_os("CIPHERLM_BASE").map(|base| Path::new(&base).join(name)));
    }
    out
}

/// Type, dimensions and bytes of a tensor.
type Part<'a> = (Dtype, &'a [usize], &'a [u8]);

fn encode(name: &str, dims: &[usize], change: &[f32], rank: Option<usize>, raw: &mut Raw) {
    let halves = |x: &[f32]| x.iter().flat_map(|&x| half::from_f32(x).to_le_bytes()).collect::<Vec<u8>>();
    match (rank, dims) {
        (Some(rank), &[rows, columns])
            if rank * (rows + columns) < rows * columns && !name.ends_with(EXACT) =>
        {
            let (a, b) = rank::factors(change, rows, columns, rank);
            raw.push((format!("{name}/a"), Dtype::F16, vec![rows, rank], halves(&a)));
            raw.push((format!("{name}/b"), Dtype::F16, vec![rank, columns], halves(&b)));
        }
        (None, &[rows, columns]) if !name.ends_with(EXACT) => {
            let scale = |row: &[f32]| row.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
            let scales: Vec<f32> = change.chunks(columns).map(scale).collect();
            let step = |x: f32, s: f32| if s > 0.0 { (x / s).round_ties_even() as i8 } else { 0 };
            let rows_of = change.chunks(columns).zip(&scales);
            let steps =
                rows_of.flat_map(|(row, &s)| row.iter().map(move |&x| step(x, s).to_le_bytes()[0])).collect();
            raw.push((format!("{name}/steps"), Dtype::I8, dims.to_vec(), steps));
            let scales = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
            raw.push((format!("{name}/scale"), Dtype::F32, vec![rows], scales));
        }
        _ if name.ends_with(EXACT) => {
            let bytes = change.iter().flat_map(|x| x.to_le_bytes()).collect();
            raw.push((name.to_owned(), Dtype::F32, dims.to_vec(), bytes));
        }
        _ => raw.push((name.to_owned(), Dtype::F16, dims.to_vec(), halves(change))),
    }
}

/// The change of a tensor of `count` values; `None` where it has none.
fn decode(
    parts: &HashMap<&str, Part<'_>>,
    name: &str,
    count: usize,
) -> std::result::Result<Option<Vec<f32>>, String> {
    let floats = |(dtype, _, bytes): &Part<'_>| match dtype {
        Dtype::F16 => {
            Ok(bytes.as_chunks::<2>().0.iter().map(|&b| half::to_f32(u16::from_le_bytes(b))).collect())
        }
        Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        other => Err(format!("`{name}` is of type {other:?}, expected F16 or F32")),
    };
    let part = |kind: &str| parts.get(format!("{name}{kind}").as_str());
    let [a, b, steps, scale] = PARTS.map(part);
    match (part(""), a, b, steps, scale) {
        (None, None, None, None, None) => Ok(None),
        (Some(whole), None, None, None, None) => Ok(Some(floats(whole)?)),
        (None, Some(a), Some(b), None, None) => {
            let (&[rows, rank], &[inner, columns]) = (a.1, b.1) else {
                return Err(format!("the factors of `{name}` are no matrices"));
            };
            if rank != inner || rank == 0 || columns == 0 || rows.checked_mul(columns) != Some(count) {
                return Err(format!("factors of {:?} and {:?} values make no `{name}` of {count}", a.1, b.1));
            }
            let (a, b): (Vec<f32>, Vec<f32>) = (floats(a)?, floats(b)?);
            Ok(Some(rank::product(&a, &b, rows, rank, columns)))
        }
        (None, None, None, Some(&(Dtype::I8, &[_, columns], steps)), Some(scale)) => {
            let scale: Vec<f32> = floats(scale)?;
            let rows = steps.chunks(columns.max(1)).zip(scale);
            Ok(Some(
                rows.flat_map(|(row, s)| row.iter().map(move |&x| f32::from(i8::from_le_bytes([x])) * s))
                    .collect(),
            ))
        }
        _ => Err(format!("the parts of `{name}` do not fit each other")),
    }
}

fn digest(raw: &Raw) -> String {
    let mut sorted: Vec<_> = raw.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = blake3::Hasher::new();
    for (name, dtype, dims, bytes) in sorted {
        hasher.update(format!("{name} {dtype:?} {dims:?};").as_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}

fn twelve_megabytes() -> usize {
    12_000_000
}

#[cfg(test)]
mod tests;
