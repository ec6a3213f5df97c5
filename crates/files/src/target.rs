//! Outputs checked before work starts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::write::{Access, Aside, Existing, folder_of, refuse_what_is_there, there, write};

/// A file that a command will write, checked when the command starts.
#[derive(Debug, Clone)]
pub struct Target {
    path: PathBuf,
    existing: Existing,
}

impl Target {
    /// Checks that the file can be written: its folder is there and takes new files, nothing else
    /// has the name, and a file that is there may be replaced. Leaves no trace.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::NotAFolder`], [`Error::NotAFile`], [`Error::Exists`],
    /// [`Error::NotWritable`].
    pub fn file(path: &Path, existing: Existing) -> Result<Self> {
        let folder = folder_of(path);
        match fs::metadata(folder) {
            Ok(facts) if facts.is_dir() => {}
            Ok(_) => return Err(Error::NotAFolder { path: folder.to_owned() }),
            Err(_) => return Err(Error::NoFolder { path: path.to_owned(), folder: folder.to_owned() }),
        }
        refuse_what_is_there(path, existing)?;
        // The file behind a link is replaced, so its folder counts.
        let resolved = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        takes_files(path, folder_of(&resolved))?;
        Ok(Self { path: path.to_owned(), existing })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, as [`write()`] does.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn write(&self, bytes: &[u8], access: Access) -> Result<()> {
        write(&self.path, bytes, self.existing, access)
    }
}

/// Checks that a folder can be made or written into; under [`Existing::Refuse`] it must be missing
/// or empty. Leaves no trace.
///
/// # Errors
/// [`Error::NotAFolder`] for a file on the way, [`Error::Exists`], [`Error::NotWritable`].
pub fn check_folder(path: &Path, existing: Existing) -> Result<()> {
    let absolute = std::path::absolute(path).map_err(Error::io("finding", path))?;
    let nearest = absolute.ancestors().find(|folder| there(folder)).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(Error::NotAFolder { path: nearest.to_owned() });
    }
    if existing == Existing::Refuse && nearest == absolute {
        let mut entries = fs::read_dir(path).map_err(Error::io("reading", path))?;
        if entries.next().is_some() {
            return Err(Error::Exists { path: path.to_owned() });
        }
    }
    takes_files(path, nearest)
}

/// Asks the system by doing it: permissions, read-only mounts and quotas all answer.
fn takes_files(path: &Path, folder: &Path) -> Result<()> {
    match Aside::create(folder, Access::Owner) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::NotWritable { path: path.to_owned(), folder: folder.to_owned(), source }),
    }
}
