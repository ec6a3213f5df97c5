//! A client's own folder: its secret, and the evaluation keys that it makes for a server.

use std::path::Path;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::{Params, SecretKey};
use cipherlm_files::{Access, Existing, printable, read, shown, write};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keyfolder::{KeyFolder, KeyOrder};
use crate::refresh::Circuits;

/// The secret, in the client's folder.
pub const SECRET_FILE: &str = "secret.key";
/// The evaluation keys, in the client's folder.
pub const SERVER_FOLDER: &str = "server";
/// Largest secret key that is read, in bytes.
const SECRET_BYTES: u64 = 16 << 20;
/// Degrees of small rings, log2.
const SMALL: std::ops::RangeInclusive<u32> = 8..=15;

/// The profile of that name: the client's own, whatever a description says of it.
///
/// # Errors
/// [`Error::UnknownProfile`], [`Error::SmallRing`].
pub fn own_profile(name: &str, log_degree: u32) -> Result<Profile> {
    match Profile::named(name) {
        Some(profile) => Ok(profile),
        None if name == insecure_profile(*SMALL.start())?.name => insecure_profile(log_degree),
        None => Err(Error::UnknownProfile { name: printable(name).into_owned() }),
    }
}

/// The default profile's circuit in a small ring **without security**: to try things in seconds.
///
/// # Errors
/// [`Error::SmallRing`] for a degree that no small ring has.
pub fn insecure_profile(log_degree: u32) -> Result<Profile> {
    if !SMALL.contains(&log_degree) {
        return Err(Error::SmallRing { log_degree });
    }
    let full = Profile::n16();
    Ok(Profile { user_levels: full.user_levels, ..Profile::insecure(log_degree) })
}

/// Reads the secret key; refuses a file that others may read.
///
/// # Errors
/// [`Error::NoSecret`], [`Error::SecretOpen`], [`Error::NotTheSecret`].
pub fn load_secret(file: &Path, params: &Params) -> Result<SecretKey> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A file that is not there is told by reading it.
        let mode = std::fs::metadata(file).map_or(0, |found| found.permissions().mode());
        if mode & 0o077 != 0 {
            return Err(Error::SecretOpen { file: shown(file), mode: mode & 0o777 });
        }
    }
    let missing = |error| Error::NoSecret { file: shown(file), source: Box::new(error) };
    let bytes = Zeroizing::new(read(file, SECRET_BYTES).map_err(missing)?);
    SecretKey::from_secret_bytes(params, &bytes)
        .map_err(|error| Error::NotTheSecret { file: shown(file), source: Box::new(error) })
}

impl KeyFolder {
    /// Makes in `folder`, which is there, the secret and the evaluation keys that are missing.
    /// `profile` is the name of the circuits' profile; `progress` is told the bytes there so far,
    /// and stops the work between two keys by returning `false`.
    ///
    /// # Errors
    /// No randomness; as [`load_secret`] and [`KeyFolder::write`].
    pub fn make(
        folder: &Path,
        circuits: &Circuits,
        order: &KeyOrder,
        profile: &str,
        progress: impl Fn(u64) -> bool + Sync,
    ) -> Result<Self> {
        let (file, params) = (folder.join(SECRET_FILE), circuits.params());
        let describe = |secret: &SecretKey| Self::describe(secret.id(), params, order, profile);
        let secret = if file.exists() {
            load_secret(&file, params)?
        } else {
            let secret = SecretKey::generate(params)
                .map_err(|error| Error::Slots { node: "secret key".into(), source: error.into() })?;
            describe(&secret)?.save(folder)?;
            write(&file, &secret.to_secret_bytes(), Existing::Refuse, Access::Owner)?;
            secret
        };
        let keys = describe(&secret)?;
        keys.write(&folder.join(SERVER_FOLDER), &secret, circuits, order, progress)?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_of_every_description_is_found_again() {
        for made in Profile::family().into_iter().chain([insecure_profile(10).unwrap()]) {
            assert_eq!(own_profile(made.name, made.log_degree).unwrap(), made);
        }
        assert_eq!(own_profile("n16-fast", 16).unwrap().name, "n16-14");
        assert!(own_profile("n17", 17).is_err() && insecure_profile(16).is_err());
    }
}
