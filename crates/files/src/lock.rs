//! A folder for one process at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::write::Aside;

/// An advisory lock of a folder, given back when it is dropped or when the process ends, however it
/// ends. It binds those who ask for it. Nothing is left in the folder.
#[derive(Debug)]
pub struct Lock {
    folder: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the folder, which must be there. Does not wait.
    ///
    /// On a file system without locks the folder is shared: files are whole even so.
    ///
    /// # Errors
    /// [`Error::InUse`] if another has it; [`Error::Io`].
    pub fn exclusive(folder: &Path) -> Result<Self> {
        let open = File::open(folder).map_err(Error::io("opening", folder))?;
        match open.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(Error::io("locking", folder)(source)),
        }
        Ok(Self { folder: open, path: folder.to_owned() })
    }

    /// Removes what writers left aside when they were killed. Safe because the folder is held:
    /// nobody writes there now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(Error::io("reading", &self.path))? {
            let path = entry.map_err(Error::io("reading", &self.path))?.path();
            if Aside::is_left_over(&path) {
                fs::remove_file(&path).map_err(Error::io("removing", &path))?;
            }
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the folder would do; a forked child may hold it open longer.
        let _ = self.folder.unlock();
    }
}
