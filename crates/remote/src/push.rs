//! Registering keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherlm_infer::KeyFolder;
use cipherlm_protocol::{Digest, KeyEntry, KeyManifest};

use crate::error::{Error, Result};
use crate::remote::Remote;

/// Largest key file.
const KEY_BYTES: u64 = 1 << 30;
/// How often a file is sent again over a bad line.
const TRIES: u32 = 5;

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Keys of the folder.
    pub keys: usize,
    /// Keys that were sent.
    pub sent: usize,
    /// Bytes that were sent.
    pub bytes: u64,
}

/// Registers the evaluation keys in a folder that `cipherlm keygen` made for a server: announces
/// them, and sends those that the server lacks. `progress` is told bytes sent, and bytes to send.
///
/// # Errors
/// [`Error`]; a push that broke off is repeated and goes on.
pub async fn push(remote: &Remote, folder: &Path, progress: impl Fn(u64, u64)) -> Result<Pushed> {
    let Some((found, true)) = KeyFolder::find(folder)? else {
        let reason =
            "it is no complete folder of evaluation keys: run `cipherlm keygen` (with --resume) first";
        return Err(Error::Client(format!("{}: {reason}", cipherlm_files::shown(folder))));
    };
    let files = list(folder)?;
    let bad = |what: &str| Error::Client(format!("{}: its {what} is damaged", cipherlm_files::shown(folder)));
    let params = found.params.parse().map_err(|_| bad("hash of parameters"))?;
    let _: Digest = found.key_id.parse().map_err(|_| bad("key id"))?;
    let keys = files.iter().map(|(_, entry)| *entry).collect();
    let manifest = KeyManifest { plan: found.plan, params, keys };
    let missing = remote.announce(&found.key_id, &manifest).await?.missing;
    let wanted: Vec<_> = files.iter().filter(|(_, entry)| missing.contains(&entry.blake3)).collect();
    let all = wanted.iter().map(|(_, entry)| entry.bytes).sum();
    let mut bytes = 0;
    for (path, entry) in &wanted {
        progress(bytes, all);
        send(remote, &found.key_id, path, *entry).await?;
        bytes += entry.bytes;
    }
    progress(bytes, all);
    if !remote.announce(&found.key_id, &manifest).await?.ready {
        return Err(Error::Strange { what: "keys are missing after all were sent".into() });
    }
    Ok(Pushed { keys: files.len(), sent: wanted.len(), bytes })
}

async fn send(remote: &Remote, key: &str, path: &Path, entry: KeyEntry) -> Result<()> {
    for attempt in 0.. {
        let bytes = cipherlm_files::read(path, entry.bytes)?;
        match remote.upload(key, entry.blake3, bytes).await {
            Err(error) if error.is_passing() && attempt < TRIES => {
                tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
            }
            sent => return sent,
        }
    }
    Ok(())
}

/// The key files of a folder with their hashes.
fn list(folder: &Path) -> Result<Vec<(PathBuf, KeyEntry)>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::Client(e.to_string()))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "key"))
        .collect();
    paths.sort();
    let entry = |path: PathBuf| {
        let bytes = cipherlm_files::read(&path, KEY_BYTES)?;
        Ok((path, KeyEntry { blake3: Digest::of(&bytes), bytes: bytes.len() as u64 }))
    };
    paths.into_iter().map(entry).collect()
}
