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
    held: bool,
}

/// What systems say where a file system has no locks: `ENOLCK`, as network file systems do.
const NO_LOCKS: i32 = 37;

impl Lock {
    /// Takes the folder, which must be there. Does not wait.
    ///
    /// On a file system without locks the folder is shared ([`Lock::is_held`]): files are whole
    /// even so.
    ///
    /// # Errors
    /// [`Error::InUse`] if another has it; [`Error::Io`].
    pub fn exclusive(folder: &Path) -> Result<Self> {
        let open = File::open(folder).map_err(Error::io("opening", folder))?;
        let held = match open.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) if no_locks(&error) => false,
            Err(TryLockError::Error(source)) => return Err(Error::io("locking", folder)(source)),
        };
        Ok(Self { folder: open, path: folder.to_owned(), held })
    }

    /// False where the file system has no locks: others may be writing there.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Removes what writers left aside when they were killed. Safe because the folder is held:
    /// nobody writes there now, and who only tries whether it could does not miss what it wrote.
    /// Where it is not held, nothing is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<()> {
        if !self.held {
            return Ok(());
        }
        for entry in fs::read_dir(&self.path).map_err(Error::io("reading", &self.path))? {
            let path = entry.map_err(Error::io("reading", &self.path))?.path();
            if Aside::is_left_over(&path) {
                match fs::remove_file(&path) {
                    // Whoever tried whether the folder can be written has taken it away.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.map_err(Error::io("removing", &path))?,
                }
            }
        }
        Ok(())
    }
}

fn no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(NO_LOCKS)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the folder would do; a forked child may hold it open longer.
        let _ = self.folder.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Existing};

    #[test]
    fn a_folder_without_locks_keeps_what_others_write_aside() {
        assert!(no_locks(&io::Error::from_raw_os_error(NO_LOCKS)));
        assert!(no_locks(&io::ErrorKind::Unsupported.into()));
        assert!(!no_locks(&io::ErrorKind::PermissionDenied.into()));
        let path = cipherlm_testing::Scratch::new("lock-none");
        let aside = path.join(".aside-1-0.part");
        fs::write(&aside, "half").unwrap();
        crate::write(&path.join("b"), b"whole", Existing::Refuse, Access::Everyone).unwrap();
        let mut lock = Lock::exclusive(&path).unwrap();
        assert!(lock.is_held());
        lock.held = false;
        lock.sweep().unwrap();
        assert!(aside.exists());
        lock.held = true;
        lock.sweep().unwrap();
        assert!(!aside.exists() && path.join("b").exists());
    }
}
