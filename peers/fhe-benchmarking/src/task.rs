//! The instance a stage works on, and where its files are.

use cipherlm_files::{Access, Existing};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// No file of the suite is larger.
const LARGEST_FILE: u64 = 1 << 38;

/// Arguments of a stage and the folders that follow from them.
#[derive(Clone, Debug)]
pub struct Task {
    /// Size of the instance, 0 to 3.
    pub size: usize,
    /// Whether matches are only counted.
    pub count_only: bool,
    root: PathBuf,
}

impl Task {
    /// From the arguments after the program's name; `root` is the folder that the harness runs in.
    /// Seeds are of the harness's own data and are passed over: keys and encryptions take theirs
    /// from the system.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn parse(root: &Path, arguments: &[String]) -> Result<Self> {
        let usage = |given: &str| Error::Usage { given: given.into() };
        let (first, mut rest) = arguments.split_first().ok_or_else(|| usage(""))?;
        let size = first.parse().ok().filter(|size| *size <= 3).ok_or_else(|| usage(first))?;
        let mut task = Self { size, count_only: false, root: root.into() };
        while let Some((option, after)) = rest.split_first() {
            rest = match (option.as_str(), after) {
                ("--count_only", _) => {
                    task.count_only = true;
                    after
                }
                ("--seed", [_, after @ ..]) => after,
                _ => return Err(usage(option)),
            };
        }
        Ok(task)
    }

    /// The harness's name of the size.
    pub fn name(&self) -> &'static str {
        ["toy", "small", "medium", "large"].get(self.size).copied().unwrap_or("unknown")
    }

    /// Data in the clear: the client's alone.
    pub fn data(&self, file: &str) -> PathBuf {
        self.root.join("datasets").join(self.name()).join(file)
    }

    /// Something in the folder of this instance.
    pub fn io(&self, file: &str) -> PathBuf {
        self.root.join("io").join(self.name()).join(file)
    }

    /// Public and evaluation keys.
    pub fn keys(&self) -> PathBuf {
        self.io("keys")
    }

    /// What the client sends.
    pub fn upload(&self, file: &str) -> PathBuf {
        self.io("ciphertexts_upload").join(file)
    }

    /// What the server answers.
    pub fn download(&self, file: &str) -> PathBuf {
        self.io("ciphertexts_download").join(file)
    }

    /// What the client keeps.
    pub fn private(&self, file: &str) -> PathBuf {
        self.io("client").join(file)
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(cipherlm_files::read(path, LARGEST_FILE)?)
    }

    /// Writes a file that anybody may read, whole or not at all, with its folder.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write_as(path, bytes, Access::Everyone)
    }

    /// Writes a file for its owner's eyes only.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write_as(path, bytes, Access::Owner)
    }

    fn write_as(&self, path: &Path, bytes: &[u8], access: Access) -> Result<()> {
        if let Some(folder) = path.parent() {
            cipherlm_files::create_folder(folder)?;
        }
        Ok(cipherlm_files::write(path, bytes, Existing::Replace, access)?)
    }
}

/// Little-endian floats of a file, `need` of them.
///
/// # Errors
/// [`Error::Length`].
pub fn floats(path: &Path, bytes: &[u8], need: usize) -> Result<Vec<f32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    if values.len() != need || !rest.is_empty() {
        return Err(Error::Length { path: path.into(), unit: "floats", have: bytes.len() / 4, need });
    }
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Little-endian 16-bit integers of a file, `need` of them.
///
/// # Errors
/// [`Error::Length`].
pub fn shorts(path: &Path, bytes: &[u8], need: usize) -> Result<Vec<i16>> {
    let (values, rest) = bytes.as_chunks::<2>();
    if values.len() != need || !rest.is_empty() {
        return Err(Error::Length { path: path.into(), unit: "short integers", have: bytes.len() / 2, need });
    }
    Ok(values.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Task> {
        let arguments: Vec<String> = arguments.iter().map(|s| (*s).into()).collect();
        Task::parse(Path::new("tree"), &arguments)
    }

    #[test]
    fn arguments_are_those_of_the_harness_and_no_others() {
        let task = parse(&["1", "--count_only", "--seed", "3", "--seed", "4"]).unwrap();
        assert_eq!((task.size, task.count_only, task.name()), (1, true, "small"));
        assert_eq!(task.upload("query.bin"), Path::new("tree/io/small/ciphertexts_upload/query.bin"));
        for bad in [&[][..], &["4"], &["x"], &["1", "--sed"], &["1", "--seed"]] {
            assert!(matches!(parse(bad), Err(Error::Usage { .. })), "{bad:?}");
        }
    }

    #[test]
    fn files_of_another_length_are_refused() {
        let path = Path::new("db.bin");
        assert_eq!(floats(path, &1.5f32.to_le_bytes(), 1).unwrap(), [1.5]);
        assert!(matches!(floats(path, &[0; 8], 1), Err(Error::Length { have: 2, need: 1, .. })));
        assert!(matches!(shorts(path, &[0; 3], 1), Err(Error::Length { .. })));
    }
}
