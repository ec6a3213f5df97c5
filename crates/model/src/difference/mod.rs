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

use crate::error::{Result, SpecError};
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
        if change.iter().all(|x| *x == 0.0) {
            continue;
        }
        tensors += 1;
        let from = raw.len();
        let rank = how.rank.filter(|_| !how.whole.iter().any(|part| name.contains(part.as_str())));
        encode(name, &tensor.dims, &change, rank, &mut raw);
        let kept = decode(
            &raw[from..].iter().map(|(n, t, d, b)| (n.as_str(), (*t, &d[..], &b[..]))).collect(),
            name,
        )
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
        views.push((name.as_str(), view.map_err(|e| SpecError::malformed(DIFFERENCE_FILE, e))?));
    }
    let json = |e| SpecError::malformed(DIFFERENCE_FILE, e);
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
    let bytes = serialize(views, Some(fields)).map_err(|e| SpecError::malformed(DIFFERENCE_FILE, e))?;
    let bytes = in_name_order(&bytes)?;
    if bytes.len() > how.at_most {
        let (found, most) = (bytes.len(), how.at_most);
        let reason = format!(
            "it has {found} bytes, at most {most} were asked for: lower the rank, or let fewer tensors learn"
        );
        return Err(SpecError::malformed(DIFFERENCE_FILE, reason));
    }
    cipherlm_files::create_folder(folder)?;
    cipherlm_files::write(&path, &bytes, Existing::Replace, Access::Everyone)?;
    Ok(Report { bytes: bytes.len(), tensors, lost: (lost / f64::max(size, f64::MIN_POSITIVE)).sqrt() })
}

/// The model that a difference makes of its base. Refuses another base.
pub fn apply(base: &Model, path: &Path) -> Result<Model> {
    let bytes = cipherlm_files::read(path, MAX_BYTES)?;
    let corrupt = |reason: String| SpecError::malformed(shown(path), reason);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let fields = metadata.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).cloned().ok_or_else(|| corrupt(format!("no field `{name}`")));
    let (wanted, found) = (field("base_weights_blake3")?, &base.spec().weights_blake3);
    if wanted != *found {
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
    for (name, dims) in shape.tensors() {
        let count = dims.iter().product();
        let mut data = match base.weights().values(&name) {
            Some(old) if old.len() == count => old.to_vec(),
            Some(old) => {
                return Err(corrupt(format!("`{name}` has {} values in the base, {count} here", old.len())));
            }
            None => vec![0.0; count],
        };
        if let Some(change) = decode(&parts, &name) {
            if change.len() != count {
                return Err(corrupt(format!(
                    "`{name}` has {} values, the shape asks for {count}",
                    change.len()
                )));
            }
            data.iter_mut().zip(change).for_each(|(x, d)| *x += f64::from(d));
        }
        weights.insert(name, &dims, data)?;
    }
    Model::new(field("name")?, shape, weights)
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
/// [`SpecError::Malformed`] for a file that is cut, damaged or none of ours.
pub fn about(dir: &Path) -> Result<Option<About>> {
    let path = dir.join(DIFFERENCE_FILE);
    if dir.join(WEIGHTS_FILE).exists() || !path.exists() {
        return Ok(None);
    }
    let bytes = cipherlm_files::read(&path, MAX_BYTES)?;
    let corrupt = |reason: String| SpecError::malformed(shown(&path), reason);
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
/// [`SpecError::NoBase`], and all that [`Model::load`] and [`apply`] refuse.
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
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|e| SpecError::malformed(shown(&path), e))?;
    let fields = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let places = places(dir, &field("folder"));
    let Some(base) = places.iter().find(|place| place.is_dir()) else {
        let places = places.iter().map(|place| shown(place)).collect::<Vec<_>>().join(", ");
        return Err(SpecError::NoBase { places, name: field("base_name"), fetch: field("fetch") });
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

/// The change of a tensor; `None` where it has none, or its parts do not fit each other.
fn decode(parts: &HashMap<&str, Part<'_>>, name: &str) -> Option<Vec<f32>> {
    let floats = |(dtype, _, bytes): &Part<'_>| -> Vec<f32> {
        match dtype {
            Dtype::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|&b| half::to_f32(u16::from_le_bytes(b))).collect()
            }
            _ => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        }
    };
    let part = |kind: &str| parts.get(format!("{name}{kind}").as_str());
    if let Some(whole) = part("") {
        return Some(floats(whole));
    }
    if let Some((a, b)) = part("/a").zip(part("/b")) {
        let (&[rows, rank], &[inner, columns]) = (a.1, b.1) else { return None };
        return (rank == inner && rank > 0 && columns > 0)
            .then(|| rank::product(&floats(a), &floats(b), rows, rank, columns));
    }
    let (steps, scale) = part("/steps").zip(part("/scale"))?;
    let &[_, columns] = steps.1 else { return None };
    let rows = steps.2.chunks(columns.max(1)).zip(floats(scale));
    Some(rows.flat_map(|(row, s)| row.iter().map(move |&x| f32::from(i8::from_le_bytes([x])) * s)).collect())
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
mod tests {
    use super::*;
    use crate::random;
    use crate::shape::{Attention, Eps};

    /// A softmax model, and one with changed queries, a changed gain and frozen epsilons.
    fn pair(rank: usize) -> (Model, Model) {
        let shape = Shape { attention: Attention::Softmax, ..Shape::preset("test").unwrap() };
        let base = random::weights_only("base", &shape, 3).unwrap();
        let frozen = Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Frozen };
        let shape = Shape { attention: frozen, ..shape };
        let mut weights = base.weights().clone();
        let d = shape.d_model;
        let wave = |i: usize| (0.31 * i as f32).sin();
        let a: Vec<f32> = (0..d * rank).map(|i| wave(7 * i + 1)).collect();
        let b: Vec<f32> = (0..rank * d).map(|i| 0.1 * wave(3 * i + 2)).collect();
        let change = rank::product(&a, &b, d, rank, d);
        for (name, change) in [("layers.0.attn.q.weight", &change[..]), ("layers.1.norm1.gain", &change[..d])]
        {
            let old = weights.tensor(name).unwrap().clone();
            let new = old.data.iter().zip(change).map(|(x, d)| x + f64::from(*d)).collect();
            weights.insert(name, &old.dims, new).unwrap();
        }
        for l in 0..shape.layers {
            let eps = (0..shape.heads * shape.context).map(|i| 2f64.powi(i as i32 % 20 - 10)).collect();
            weights.insert(format!("layers.{l}.attn.eps"), &[shape.heads, shape.context], eps).unwrap();
        }
        (base, Model::new("converted", shape, weights).unwrap())
    }

    fn how() -> Difference {
        let (folder, fetch) = ("public".into(), "fetch it".into());
        Difference { rank: None, whole: vec![], at_most: 1 << 20, folder, fetch }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("cipherlm-difference-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_low_rank_change_comes_back_to_half_precision_and_eight_bits_to_theirs() {
        for (rank, tolerance) in [(Some(2), 2e-3), (None, 1e-2)] {
            let folder = folder(&format!("{rank:?}").replace(['(', ')'], ""));
            let (base, model) = pair(2);
            let how = Difference { rank, ..how() };
            let report = write(&base, &model, &how, &folder).unwrap();
            assert_eq!(report.tensors, 4);
            assert!(report.lost < tolerance, "{report:?}");
            let again = apply(&base, &folder.join(DIFFERENCE_FILE)).unwrap();
            assert_eq!((again.shape(), &again.spec().name), (model.shape(), &model.spec().name));
            for (name, tensor) in model.weights().iter() {
                let found = again.weights().values(name).unwrap();
                let worst = found.iter().zip(&tensor.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let exact =
                    name.ends_with("attn.eps") || base.weights().values(name) == Some(&tensor.data[..]);
                assert!(worst <= if exact { 0.0 } else { tolerance }, "{name}: {worst}");
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn another_base_a_damaged_file_and_too_large_a_difference_are_refused() {
        let folder = folder("refused");
        let (base, model) = pair(2);
        let how = Difference { rank: Some(2), ..how() };
        write(&base, &model, &how, &folder).unwrap();
        let path = folder.join(DIFFERENCE_FILE);
        let other = random::weights_only("other", base.shape(), 4).unwrap();
        let error = apply(&other, &path).unwrap_err().to_string();
        assert!(
            error.contains(&base.spec().weights_blake3) && error.contains(&other.spec().weights_blake3),
            "{error}"
        );
        let bytes = std::fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &bytes[..bytes.len() - 3]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(apply(&base, &path), Err(SpecError::Malformed { .. })));
        }
        let error =
            write(&base, &model, &Difference { at_most: 500, ..how }, &folder).unwrap_err().to_string();
        assert!(error.contains("at most 500 "), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_with_a_difference_loads_beside_its_base_and_says_how_to_get_it() {
        let all = folder("folder");
        let folder = all.join("shipped");
        let (base, model) = pair(2);
        write(&base, &model, &how(), &folder).unwrap();
        let shipped = apply(&base, &folder.join(DIFFERENCE_FILE)).unwrap();
        shipped.save_description(&folder).unwrap();
        let error = load(&folder).unwrap_err().to_string();
        assert!(error.contains("`fetch it`") && error.contains("shipped/base"), "{error}");
        for place in [folder.join("base"), all.join("base/public")] {
            base.save(&place).unwrap();
            assert_eq!(load(&folder).unwrap(), shipped);
            std::fs::remove_dir_all(&place).unwrap();
        }
        // A description of other weights than the difference makes.
        base.save(&folder.join("base")).unwrap();
        model.save_description(&folder).unwrap();
        assert!(matches!(load(&folder), Err(SpecError::WeightsHash { .. })));
        for name in ["..", "a/b", "/", ""] {
            assert_eq!(places(&folder, name).len(), 1, "{name}");
        }
        std::fs::remove_dir_all(&all).unwrap();
    }

    #[test]
    fn a_matrix_named_as_whole_loses_nothing_of_its_rank() {
        let folder = folder("whole");
        let (base, model) = pair(4);
        let lost = |whole: Vec<String>| {
            let how = Difference { rank: Some(1), whole, ..how() };
            write(&base, &model, &how, &folder).unwrap().lost
        };
        let (ranked, whole) = (lost(vec![]), lost(vec!["attn.q".into()]));
        assert!(ranked > 0.2 && whole < 0.01, "{ranked} at rank 1, {whole} whole");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
