//! Files written whole or not at all.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What to do with a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse, even if it appears while the new one is written.
    Refuse,
    /// Replace it once the new one is whole.
    Replace,
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone (mode 600): secrets, prompts, answers in the clear.
    Owner,
    /// Everyone whom the umask allows (mode 644).
    Everyone,
}

impl Access {
    #[cfg(unix)]
    fn apply(self, options: &mut OpenOptions) {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        });
    }

    #[cfg(not(unix))]
    fn apply(self, _: &mut OpenOptions) {}
}

/// Writes a file: aside in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// [`Error::Exists`] under [`Existing::Refuse`]; [`Error::NotAFile`] for a device or a folder;
/// [`Error::Io`]. After any error nothing is left aside, and what stood under the name stands there
/// still.
pub fn write(path: &Path, bytes: &[u8], existing: Existing, access: Access) -> Result<()> {
    write_with(path, existing, access, |out| out.write_all(bytes))
}

/// As [`write()`], for content that is made while it is written.
///
/// # Errors
/// As [`write()`]; errors of `fill` as [`Error::Io`].
pub fn write_with(
    path: &Path,
    existing: Existing,
    access: Access,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    refuse_what_is_there(path, existing)?;
    // The file behind a link is replaced, not the link.
    let resolved = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let aside = Aside::create(folder_of(&resolved), access).map_err(Error::io("writing", path))?;
    let written = || -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, &aside.file);
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        aside.file.sync_all()
    };
    written().map_err(Error::io("writing", path))?;
    aside.publish(&resolved, existing).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists if existing == Existing::Refuse => {
            Error::Exists { path: path.to_owned() }
        }
        _ => Error::Io { action: "writing", path: path.to_owned(), source },
    })?;
    sync_folder(folder_of(&resolved)).map_err(Error::io("writing", path))
}

/// A file under a name that no other writer has; removed unless it is published.
pub(crate) struct Aside {
    file: File,
    path: PathBuf,
}

/// Names of asides begin and end so.
const ASIDE: (&str, &str) = (".aside-", ".part");

impl Aside {
    pub(crate) fn create(folder: &Path, access: Access) -> io::Result<Self> {
        loop {
            let path = folder.join(format!("{}{}-{:016x}{}", ASIDE.0, std::process::id(), random(), ASIDE.1));
            let mut options = OpenOptions::new();
            access.apply(options.write(true).create_new(true));
            match options.open(&path) {
                Ok(file) => return Ok(Self { file, path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(&self, path: &Path, existing: Existing) -> io::Result<()> {
        if existing == Existing::Refuse {
            // A link, unlike a rename, fails on a name that is taken; not every file system has
            // them.
            match fs::hard_link(&self.path, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !there(path) => {}
                linked => return linked,
            }
        }
        fs::rename(&self.path, path)
    }

    /// True for a file that a writer left when it was killed.
    pub(crate) fn is_left_over(path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with(ASIDE.0) && name.ends_with(ASIDE.1))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone after a rename; the other of two names after a link.
        let _ = fs::remove_file(&self.path);
    }
}

/// Differs between threads and processes; needs no secrecy.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(crate) fn refuse_what_is_there(path: &Path, existing: Existing) -> Result<()> {
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::NotAFile { path: path.to_owned(), kind: "a folder" });
    }
    match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Err(Error::NotAFile { path: path.to_owned(), kind: "a folder" }),
        // A rename would replace the device itself.
        Ok(facts) if !facts.is_file() => {
            Err(Error::NotAFile { path: path.to_owned(), kind: "a device or a pipe" })
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("writing", path)(error)),
        _ if existing == Existing::Refuse && there(path) => Err(Error::Exists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// True for anything under that name, a link that leads nowhere too.
pub(crate) fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The folder that a file stands in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename in the folder survive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems have no fsync of a folder.
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Makes a folder and those above it that are missing.
///
/// # Errors
/// [`Error::NotAFolder`] if a file has the name; [`Error::Io`].
pub fn create_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // Another may make it at the same time: what stands there afterwards decides.
    match fs::create_dir_all(path) {
        Err(_) if there(path) && !path.is_dir() => {
            return Err(Error::NotAFolder { path: path.to_owned() });
        }
        made => made.map_err(Error::io("creating", path))?,
    }
    sync_folder(folder_of(path)).map_err(Error::io("creating", path))
}

/// Gives a file another name in the same folder, in one step that survives a loss of power.
///
/// # Errors
/// [`Error::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("renaming", from))?;
    sync_folder(folder_of(to)).map_err(Error::io("renaming", to))
}

/// Adds lines to a log, which is made if it is missing. A last line that a kill cut short is ended
/// first, so that it spoils no other.
///
/// # Errors
/// [`Error::Io`].
pub fn append(path: &Path, lines: &str) -> Result<()> {
    let add = || -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let start = if last == *b"\n" { "" } else { "\n" };
        let end = if lines.ends_with('\n') { "" } else { "\n" };
        file.write_all([start, lines, end].concat().as_bytes())?;
        file.sync_data()
    };
    add().map_err(Error::io("writing", path))
}
