//! The files that a command will write, checked before it loads anything.

use crate::console::warn;
use anyhow::bail;
use cipherlm_files::{Access, Error, Existing, Lock, Target, check_folder, shown};
use std::fs;
use std::path::{Path, PathBuf};

/// All files of a command line, so that no two of its options name the same one.
#[derive(Default)]
pub(crate) struct Outputs {
    seen: Vec<(PathBuf, &'static str)>,
}

impl Outputs {
    /// A file that the command reads and so must not write.
    pub(crate) fn input(&mut self, option: &'static str, path: &Path) -> anyhow::Result<()> {
        self.claim(option, path)
    }

    /// Checks that a file can be written. `force` is the command's option of that name.
    pub(crate) fn file(&mut self, option: &'static str, path: &Path, force: bool) -> anyhow::Result<Output> {
        self.checked(option, path, if force { Existing::Replace } else { Existing::Refuse })
    }

    /// As [`Outputs::file`], for a report that each run writes anew.
    pub(crate) fn report(
        &mut self,
        option: &'static str,
        path: Option<&Path>,
    ) -> anyhow::Result<Option<Output>> {
        path.map(|path| self.checked(option, path, Existing::Replace)).transpose()
    }

    /// Checks that a folder can be made or written into.
    pub(crate) fn folder(
        &mut self,
        option: &'static str,
        path: &Path,
        existing: Existing,
    ) -> anyhow::Result<()> {
        check_folder(path, existing).map_err(|error| explain(option, error))?;
        self.claim(option, path)
    }

    fn checked(&mut self, option: &'static str, path: &Path, existing: Existing) -> anyhow::Result<Output> {
        let target = Target::file(path, existing).map_err(|error| explain(option, error))?;
        self.claim(option, path)?;
        Ok(Output { option, target })
    }

    fn claim(&mut self, option: &'static str, path: &Path) -> anyhow::Result<()> {
        let same = identity(path);
        if let Some((_, other)) = self.seen.iter().find(|(known, _)| *known == same) {
            bail!("{option} and {other} both name {}: choose another name for one of them", shown(path));
        }
        self.seen.push((same, option));
        Ok(())
    }
}

/// A file to be written when the work is done.
pub(crate) struct Output {
    option: &'static str,
    target: Target,
}

impl Output {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        self.target.path()
    }

    /// Writes it.
    pub(crate) fn write(&self, bytes: &[u8], access: Access) -> anyhow::Result<()> {
        self.target.write(bytes, access).map_err(|error| explain(self.option, error))
    }

    /// Writes what took long to compute: if it cannot stand there, it is kept elsewhere and the
    /// error says where.
    pub(crate) fn write_or_rescue(&self, bytes: &[u8], access: Access) -> anyhow::Result<()> {
        let Err(error) = self.write(bytes, access) else { return Ok(()) };
        let name = format!("cipherlm-rescued-{}.bin", std::process::id());
        let folders = [std::env::current_dir().ok(), Some(std::env::temp_dir())];
        for folder in folders.into_iter().flatten() {
            let file = folder.join(&name);
            if cipherlm_files::write(&file, bytes, Existing::Refuse, access).is_ok() {
                return Err(error.context(format!("the result is whole in {}, but", shown(&file))));
            }
        }
        Err(error.context("the result is lost"))
    }
}

/// Takes a folder for this process, and removes what a killed one left half written. `None`, with a
/// warning, where the file system has no locks.
pub(crate) fn hold(option: &'static str, folder: &Path) -> anyhow::Result<Option<Lock>> {
    match Lock::exclusive(folder) {
        Ok(lock) if lock.is_held() => {
            lock.sweep().map_err(|error| explain(option, error))?;
            Ok(Some(lock))
        }
        Ok(_) => {
            let folder = shown(folder);
            warn(&format!(
                "{option}: {folder} cannot be locked: see to it that no other process writes there"
            ));
            Ok(None)
        }
        Err(error) => Err(explain(option, error)),
    }
}

/// Writes a report after its content was printed, so that a full disk loses a file and no answer.
pub(crate) fn write_reports(reports: &[(Option<&Output>, &str)]) -> anyhow::Result<()> {
    // Each is tried, whatever becomes of the others.
    let tried = reports
        .iter()
        .filter_map(|(output, text)| Some(output.as_ref()?.write(text.as_bytes(), Access::Everyone)));
    tried.collect::<Vec<_>>().into_iter().collect()
}

fn explain(option: &str, error: Error) -> anyhow::Error {
    match &error {
        Error::Exists { path } => anyhow::anyhow!(
            "{option}: {} is already there: choose another name, or pass --force to replace it",
            shown(path)
        ),
        _ => anyhow::Error::new(error).context(option.to_owned()),
    }
}

/// One name for a file however it is spelt, whether it is there or not.
fn identity(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().and_then(|folder| fs::canonicalize(folder).ok()), absolute.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => absolute,
    }
}
