//! Tensors lying in files: headers are read and checked at once, values one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::import::dtype::Dtype;

/// Beginning of the text that Git LFS leaves in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// How archives and compressed files begin. None is opened: what comes out may be of any size, and
/// a pickle may do anything.
const PACKED: [(&[u8], &str); 4] = [
    (b"PK\x03\x04", "a zip archive (a PyTorch pickle is one: save it as safetensors)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
];

/// One tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) dtype: Dtype,
    /// Row-major.
    pub(super) dims: Vec<usize>,
}

/// Tensors by name, over one or several files.
#[derive(Debug, Default)]
pub(super) struct Archive {
    files: Vec<(PathBuf, File)>,
    pub(super) tensors: BTreeMap<String, Entry>,
}

/// A regular file that has content of its own.
pub(super) fn open_file(path: &Path) -> Result<(File, u64)> {
    let head = cipherlm_files::head(path, LFS_POINTER.len() as u64)?;
    if let Some((_, kind)) = PACKED.iter().find(|(magic, _)| head.bytes.starts_with(magic)) {
        return Err(unusable(
            path,
            format!("{kind}, not the weights themselves: nothing in it is unpacked here"),
        ));
    }
    if head.bytes == LFS_POINTER {
        return Err(unusable(path, "a Git LFS pointer, not the data it points to: fetch the file itself"));
    }
    let file = File::open(path).map_err(|e| unusable(path, e))?;
    Ok((file, head.length))
}

pub(super) fn unusable(path: &Path, reason: impl ToString) -> Error {
    Error::malformed(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy(), reason)
}

/// Bytes of a tensor, or why there can be no such tensor.
pub(super) fn size(dtype: Dtype, dims: &[usize]) -> std::result::Result<u64, String> {
    let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
    let bytes = count.and_then(|n| dtype.bytes(n, dims.last().map_or(1, |&d| d as u64)));
    bytes
        .filter(|&b| b < 1 << 48)
        .ok_or_else(|| format!("no tensor has dimensions {dims:?} of type {dtype:?}"))
}

impl Archive {
    /// Takes a file; entries name it by the number returned.
    pub(super) fn add_file(&mut self, path: &Path, file: File) -> usize {
        self.files.push((path.to_owned(), file));
        self.files.len() - 1
    }

    /// The values of a tensor.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { name: name.to_owned(), expected: vec![] });
        };
        let (path, file) = &self.files[entry.file];
        let bytes = size(entry.dtype, &entry.dims).map_err(|reason| Error::malformed(name, reason))?;
        let mut raw = Vec::new();
        let mut file: &File = file;
        file.seek(SeekFrom::Start(entry.offset)).map_err(|e| unusable(path, e))?;
        file.take(bytes).read_to_end(&mut raw).map_err(|e| unusable(path, e))?;
        if raw.len() as u64 != bytes {
            let reason = format!("ends within tensor `{name}`: {} of {bytes} bytes", raw.len());
            return Err(unusable(path, reason));
        }
        entry.dtype.floats(&raw).ok_or_else(|| {
            Error::malformed(name, format!("type {:?}, expected numbers with a fraction", entry.dtype))
        })
    }
}
