//! Checkpoints: one safetensors file with tensors, text fields and a hash of both.

use std::collections::HashMap;
use std::path::Path;

use cipherlm_files::{Access, Existing};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::params::HostParam;
use crate::stamp::{hash_params, json};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 36;
/// Field that holds the hash.
const HASH: &str = "blake3";

/// Named arrays and text fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Archive {
    /// Tensors.
    pub tensors: Vec<HostParam>,
    /// Text fields.
    pub fields: HashMap<String, String>,
}

impl Archive {
    /// Writes the archive, replacing the file in one step: a crash at any moment leaves the old
    /// file or the new one. Equal archives give equal bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        let corrupt = |e: safetensors::SafeTensorError| Error::Corrupt {
            path: path.into(),
            reason: e.to_string(),
            hint: "this is a defect of the writer",
        };
        let bytes: Vec<Vec<u8>> =
            self.tensors.iter().map(|t| t.data.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (tensor, bytes) in self.tensors.iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(corrupt)?;
            views.push((tensor.name.as_str(), view));
        }
        let mut fields = self.fields.clone();
        fields.insert(HASH.into(), self.hash());
        let bytes = serialize(views, Some(fields)).map_err(corrupt)?;
        write(path, &cipherlm_model::in_name_order(&bytes)?)
    }

    /// Reads an archive and checks its hash.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = cipherlm_files::read(path, LARGEST)?;
        Self::parse(&bytes).map_err(|reason| Error::Corrupt {
            path: path.into(),
            reason,
            hint: "delete it and continue from an older checkpoint",
        })
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let mut tensors = Vec::new();
        for name in metadata.offset_keys() {
            let view = file.tensor(&name).map_err(|e| e.to_string())?;
            if view.dtype() != Dtype::F32 {
                return Err(format!("`{name}` is {:?}, checkpoints hold F32", view.dtype()));
            }
            let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            tensors.push(HostParam::new(name, view.shape(), values));
        }
        let mut fields = metadata.metadata().clone().unwrap_or_default();
        let wanted =
            fields.remove(HASH).ok_or("it has no hash: not a checkpoint, or one of an older version")?;
        let out = Self { tensors, fields };
        if out.hash() == wanted {
            Ok(out)
        } else {
            Err("its content does not have the hash that it states".into())
        }
    }

    fn hash(&self) -> String {
        let mut tensors: Vec<&HostParam> = self.tensors.iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut fields: Vec<(&String, &String)> = self.fields.iter().collect();
        fields.sort();
        hash_params(tensors, &format!("{fields:?}"))
    }
}

/// An architecture and its parameters.
pub type Weighed = (Arch, Vec<HostParam>);

/// Writes shape and weights as one file, with more text fields beside the shape.
pub fn write_weights(
    path: &Path,
    (arch, params): (&Arch, &[HostParam]),
    more: &[(&str, String)],
) -> Result<()> {
    let arch = [("arch", json(arch).to_string())];
    let fields = arch.iter().chain(more).map(|(name, text)| ((*name).to_owned(), text.clone()));
    Archive { tensors: params.to_vec(), fields: fields.collect() }.save(path)
}

/// Reads shape and weights of a checkpoint, without the optimiser's state.
pub fn read_weights(path: &Path) -> Result<Weighed> {
    let mut archive = Archive::load(path)?;
    let corrupt = |reason: String| Error::Corrupt {
        path: path.into(),
        reason,
        hint: "it is not a checkpoint of this program",
    };
    let text = archive.fields.get("arch").ok_or_else(|| corrupt("no field `arch`".into()))?;
    let arch: Arch = serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))?;
    arch.check()?;
    let mut params = Vec::new();
    for (name, dims) in arch.shape.tensors() {
        let found =
            archive.tensors.iter().position(|t| t.name == name).map(|at| archive.tensors.swap_remove(at));
        match found {
            Some(tensor) if tensor.shape == dims => params.push(tensor),
            other => {
                let found = other.map(|t| t.shape).unwrap_or_default();
                return Err(Error::Shape { name, expected: dims, found });
            }
        }
    }
    Ok((arch, params))
}

/// Replaces a file in one step; a crash leaves the old one or the new one, whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(cipherlm_files::write(path, bytes, Existing::Replace, Access::Everyone)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let tensors =
            vec![HostParam::new("a", &[2], vec![1.0, -2.0]), HostParam::new("b", &[1, 1], vec![0.5])];
        Archive { tensors, fields: [("step".to_owned(), "7".to_owned())].into() }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let folder = std::env::temp_dir().join(format!("cipherlm-archive-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.safetensors");
        archive().save(&path).unwrap();
        assert_eq!(Archive::load(&path).unwrap(), archive());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                // White space that pads the header may change; what is read may not.
                if let Ok(read) = Archive::parse(&bytes) {
                    assert_eq!(read, archive(), "bit {bit} of byte {at}");
                }
            }
            assert!(Archive::parse(&whole[..at]).is_err(), "cut to {at} bytes");
        }
        let leftovers = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(leftovers, 1, "a scratch file stayed behind");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn equal_archives_are_equal_bytes() {
        let folder = std::env::temp_dir().join(format!("cipherlm-archive-order-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes: Vec<Vec<u8>> = (0..8)
            .map(|number| {
                // Each map has an order of its own.
                let fields = (0..12).map(|field| (format!("field {field}"), field.to_string())).collect();
                let path = folder.join(format!("{number}.safetensors"));
                Archive { fields, ..archive() }.save(&path).unwrap();
                std::fs::read(&path).unwrap()
            })
            .collect();
        assert!(bytes.iter().all(|file| *file == bytes[0]));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_unwritable_place_is_named_and_keeps_the_old_file() {
        let error = archive().save(Path::new("/proc/none/a.safetensors")).unwrap_err().to_string();
        assert!(error.contains("/proc/none/a.safetensors"), "{error}");
    }
}
