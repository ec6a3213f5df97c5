//! How many results of a key may be released, how well each is hidden, and how many have been.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, KeyId, SecretKey, WireError};

/// What flooding is sized for: the statistical security, in bits, of all releases of a key
/// together, and their number.
///
/// It is fixed once for a key. A later change would leave the releases before it sized for the
/// wrong number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharingContract {
    security: u32,
    releases: u32,
}

impl SharingContract {
    /// `releases` results, hidden with `security` bits of statistical security.
    ///
    /// # Errors
    /// [`Error::InvalidParams`] for less than 30 or more than 128 bits, or for no or more than 2^20
    /// releases.
    pub fn new(security: u32, releases: u32) -> Result<Self, Error> {
        let refuse =
            |field, value, allowed| Err(Error::InvalidParams { field, value: f64::from(value), allowed });
        if !(30..=128).contains(&security) {
            return refuse("flooding security", security, "30 to 128 bits");
        }
        if !(1..=1 << 20).contains(&releases) {
            return refuse("flooded releases", releases, "1 to 2^20");
        }
        Ok(Self { security, releases })
    }

    /// Bits of statistical security of all releases together.
    pub fn security(self) -> u32 {
        self.security
    }

    /// Number of results that may be released.
    pub fn releases(self) -> u32 {
        self.releases
    }

    /// Standard deviation of the noise in each real component, relative to a bound on the error of
    /// a slot.
    ///
    /// `slots` errors of at most `error` have a Euclidean norm of at most `sqrt(slots) error`, and
    /// Gaussian noise of `sigma` a component hides a vector of norm `d` up to a divergence of
    /// `d^2 / (2 sigma^2)`: here `2^-security / (24 releases)`.
    pub(crate) fn noise(self, slots: usize) -> f64 {
        (12.0 * f64::from(self.releases) * slots as f64).sqrt() * (f64::from(self.security) / 2.0).exp2()
    }
}

/// The releases of one key under its contract: see [`SecretKey::sharing`].
#[derive(Debug)]
pub struct Sharing {
    key_id: KeyId,
    contract: SharingContract,
    /// The file that counts; without one, the process does.
    ledger: Option<PathBuf>,
}

/// What this process knows of a key that shares.
struct Known {
    contract: SharingContract,
    ledger: Option<PathBuf>,
    /// Releases counted here: all of them, without a ledger.
    used: u32,
}

/// By key: however many times a key is loaded, it has one contract and one count.
static KNOWN: Mutex<BTreeMap<KeyId, Known>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<KeyId, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SecretKey {
    /// The right to release results of this key, counted in the file `ledger`, which is made if it
    /// is not there.
    ///
    /// Each release is on disk before its result is returned, so the count survives restarts and
    /// holds for all processes that use the file. It cannot see a second ledger of another process,
    /// nor an older copy put in its place: keep it beside the secret, and out of what is restored
    /// from backups.
    ///
    /// # Errors
    /// [`Error::SharingContract`] if the key or the ledger has another contract,
    /// [`Error::KeyMismatch`] for the ledger of another key, [`Error::Wire`] for a damaged one,
    /// [`Error::Storage`]. A key that this process counts elsewhere is refused as one with another
    /// contract.
    pub fn sharing(&self, ledger: &Path, contract: SharingContract) -> Result<Sharing, Error> {
        let file = Ledger::open(ledger, self.id(), contract)?;
        drop(file);
        let ledger = ledger.canonicalize().map_err(storage(ledger))?;
        self.share(contract, Some(ledger))
    }

    /// As [`SecretKey::sharing`], counted in the memory of this process alone: all releases of the
    /// key here, however often it is loaded, and **none of another process or of an earlier run**.
    ///
    /// # Errors
    /// [`Error::SharingContract`] if the key has another contract, or a ledger.
    pub fn sharing_in_this_process(&self, contract: SharingContract) -> Result<Sharing, Error> {
        self.share(contract, None)
    }

    fn share(&self, contract: SharingContract, ledger: Option<PathBuf>) -> Result<Sharing, Error> {
        let mut known = known();
        let entry =
            known.entry(self.id()).or_insert_with(|| Known { contract, ledger: ledger.clone(), used: 0 });
        check_contract((entry.contract, &entry.ledger), (contract, &ledger))?;
        Ok(Sharing { key_id: self.id(), contract, ledger })
    }
}

impl Sharing {
    /// The contract.
    pub fn contract(&self) -> SharingContract {
        self.contract
    }

    /// The key whose results may be released.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Releases that are left.
    ///
    /// # Errors
    /// As reading the ledger: [`Error::Storage`], [`Error::Wire`].
    pub fn left(&self) -> Result<u32, Error> {
        let used = match &self.ledger {
            Some(path) => Ledger::open(path, self.key_id, self.contract)?.used()?,
            None => known().get(&self.key_id).map_or(0, |known| u64::from(known.used)),
        };
        Ok(u64::from(self.contract.releases).saturating_sub(used) as u32)
    }

    /// Counts one release, before it is made.
    pub(crate) fn take(&self) -> Result<(), Error> {
        let spent = Error::SharingSpent { releases: self.contract.releases };
        if let Some(path) = &self.ledger {
            let mut ledger = Ledger::open(path, self.key_id, self.contract)?;
            return if ledger.used()? < u64::from(self.contract.releases) {
                ledger.add()
            } else {
                Err(spent)
            };
        }
        match known().get_mut(&self.key_id) {
            Some(known) if known.used < self.contract.releases => {
                known.used += 1;
                Ok(())
            }
            _ => Err(spent),
        }
    }
}

/// Refuses a second contract, or a second place to count.
fn check_contract(
    have: (SharingContract, &Option<PathBuf>),
    asked: (SharingContract, &Option<PathBuf>),
) -> Result<(), Error> {
    if have == asked {
        return Ok(());
    }
    let terms = |contract: SharingContract| (contract.security, contract.releases);
    let place = |ledger: &Option<PathBuf>| match ledger {
        Some(path) => format!("in {}", path.display()),
        None => "in this process".to_owned(),
    };
    Err(Error::SharingContract {
        have: terms(have.0),
        have_place: place(have.1),
        asked: terms(asked.0),
        asked_place: place(asked.1),
    })
}

/// A locked ledger: a header, and one byte for each release.
///
/// Magic `CLMS`, version, two bytes of zero, key id, security, releases, and the Blake3 hash of all
/// this. A release is one more byte: there is no moment at which a crash could lower the count.
struct Ledger {
    file: File,
    path: PathBuf,
}

impl Ledger {
    const MAGIC: [u8; 4] = *b"CLMS";
    const VERSION: u16 = 1;
    const HEADER: usize = 80;

    fn header(key_id: KeyId, contract: SharingContract) -> Vec<u8> {
        let mut header = Self::MAGIC.to_vec();
        header.extend_from_slice(&u32::from(Self::VERSION).to_le_bytes());
        header.extend_from_slice(key_id.as_bytes());
        header.extend_from_slice(&contract.security.to_le_bytes());
        header.extend_from_slice(&contract.releases.to_le_bytes());
        let hash = blake3::hash(&header);
        header.extend_from_slice(hash.as_bytes());
        header
    }

    /// Locks the ledger until it is dropped; an empty file becomes that of this key.
    fn open(path: &Path, key_id: KeyId, contract: SharingContract) -> Result<Self, Error> {
        let file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(storage(path))?;
        file.lock().map_err(storage(path))?;
        let mut ledger = Self { file, path: path.to_owned() };
        if ledger.length()? == 0 {
            ledger.append(&Self::header(key_id, contract))?;
            // The name must be as durable as the count.
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(storage(folder))?;
        }
        ledger.check(key_id, contract)?;
        Ok(ledger)
    }

    fn check(&mut self, key_id: KeyId, contract: SharingContract) -> Result<(), Error> {
        let (have, need) = (self.length()?, Self::HEADER as u64);
        if have < need {
            return Err(WireError::Truncated { have, need }.into());
        }
        let mut header = [0; Self::HEADER];
        self.file.seek(SeekFrom::Start(0)).map_err(storage(&self.path))?;
        self.file.read_exact(&mut header).map_err(storage(&self.path))?;
        let (text, hash) = header.split_at(Self::HEADER - 32);
        if text[..4] != Self::MAGIC {
            return Err(WireError::Magic.into());
        }
        let found = u16::from_le_bytes([text[4], text[5]]);
        if found != Self::VERSION {
            return Err(WireError::Version { found, expected: Self::VERSION }.into());
        }
        if hash != blake3::hash(text).as_bytes() {
            return Err(WireError::Checksum.into());
        }
        let mut owner = [0; 32];
        owner.copy_from_slice(&text[8..40]);
        if owner != *key_id.as_bytes() {
            return Err(Error::KeyMismatch {
                operation: "sharing ledger",
                left: KeyId(owner),
                right: key_id,
            });
        }
        let number = |at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
        let place = Some(self.path.clone());
        check_contract(
            (SharingContract { security: number(40), releases: number(44) }, &place),
            (contract, &place),
        )
    }

    fn used(&self) -> Result<u64, Error> {
        Ok(self.length()?.saturating_sub(Self::HEADER as u64))
    }

    fn add(&mut self) -> Result<(), Error> {
        self.append(&[1])
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_all()).map_err(storage(&self.path))
    }

    fn length(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(storage(&self.path))?.len())
    }
}

fn storage(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Storage { path, kind: error.kind() }
}
