//! The registry of evaluation keys: a folder for each secret, its files named by their content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cipherlm_ckks::wire::Header;
use cipherlm_ckks::{KeyPurpose, SwitchingKey};
use cipherlm_files::Lock;
use cipherlm_protocol::{Code, Digest, KeyEntry, KeyManifest, Limits, Missing, Problem};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::journal::now;
use crate::refusal::{of_ckks, of_own};
use crate::served::Served;
use crate::store::{Store, Table};
use crate::task::Depot;

/// The keys of one secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Registered {
    manifest: KeyManifest,
    last_used: u64,
}

/// Tenant and key.
type Name = (String, Digest);

/// All registered keys.
pub(crate) struct Registry {
    depot: Depot,
    store: Arc<Store>,
    known: Mutex<BTreeMap<Name, Registered>>,
}

fn record(tenant: &str, key: Digest) -> String {
    format!("{tenant}/{key}")
}

impl Registry {
    pub(crate) fn open(depot: &Depot, store: &Arc<Store>) -> Result<Self> {
        cipherlm_files::create_folder(&depot.all_keys())?;
        let mut known = BTreeMap::new();
        for (name, registered) in store.all::<Registered>(Table::Keys)? {
            let parts =
                name.split_once('/').and_then(|(t, key)| Some((t.to_owned(), key.parse::<Digest>().ok()?)));
            let Some((tenant, key)) = parts else { continue };
            // Uploads that broke off with the process.
            if let Ok(lock) = Lock::exclusive(&depot.keys(&tenant, key)) {
                lock.sweep()?;
            }
            known.insert((tenant, key), registered);
        }
        Ok(Self { depot: depot.clone(), store: Arc::clone(store), known: Mutex::new(known) })
    }

    /// Where the files of a secret lie. Both parts have been checked to be plain names.
    pub(crate) fn folder(&self, tenant: &str, key: Digest) -> PathBuf {
        self.depot.keys(tenant, key)
    }

    pub(crate) fn file(&self, tenant: &str, key: Digest, hash: Digest) -> PathBuf {
        self.folder(tenant, key).join(format!("{hash}.key"))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Name, Registered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a manifest in place of an earlier one; files that it no longer names go.
    pub(crate) fn announce(
        &self,
        tenant: &str,
        key: Digest,
        manifest: KeyManifest,
        served: &Served,
        limits: &Limits,
    ) -> std::result::Result<Missing, Problem> {
        manifest.check()?;
        if manifest.params != served.client.params {
            let detail = format!(
                "the keys are for parameters {}, the server has {}",
                manifest.params, served.client.params
            );
            return Err(Problem::new(Code::ParamsMismatch, detail));
        }
        if manifest.plan != served.client.plan {
            let detail = "the keys are for another plan than the server runs";
            return Err(Problem::new(Code::PlanSuperseded, detail).with_plan(served.client.plan.as_str()));
        }
        let expected = served.order.count();
        if manifest.keys.len() != expected {
            let detail =
                format!("the plan needs {expected} keys, the manifest names {}", manifest.keys.len());
            return Err(Problem::new(Code::KeyIncomplete, detail));
        }
        let mut known = self.known();
        let name = (tenant.to_owned(), key);
        let others = known.iter().filter(|((t, k), _)| t == tenant && *k != key);
        let used: u64 = others.filter_map(|(_, r)| r.manifest.bytes()).sum();
        let own = manifest.bytes().unwrap_or(u64::MAX);
        if used.saturating_add(own) > limits.key_bytes_per_tenant {
            let most = limits.key_bytes_per_tenant;
            let detail = format!("{used} bytes are stored and {own} are announced, at most {most} are kept");
            return Err(Problem::new(Code::QuotaKeys, detail).retry_after(3600));
        }
        let registered = Registered { manifest, last_used: now() };
        self.store.put(Table::Keys, &record(tenant, key), &registered).map_err(|e| of_own(&e))?;
        let folder = self.folder(tenant, key);
        cipherlm_files::create_folder(&folder).map_err(|e| of_own(&e.into()))?;
        remove_others(&folder, &registered.manifest);
        let missing = missing(&folder, &registered.manifest);
        known.insert(name, registered);
        let bytes_left = limits.key_bytes_per_tenant - used - own;
        Ok(Missing { ready: missing.is_empty(), missing, bytes_left })
    }

    /// What the manifest says of a file.
    pub(crate) fn entry(
        &self,
        tenant: &str,
        key: Digest,
        hash: Digest,
    ) -> std::result::Result<KeyEntry, Problem> {
        let known = self.known();
        let found = known.get(&(tenant.to_owned(), key));
        let found = found.ok_or_else(|| Problem::new(Code::KeyUnknown, "no manifest under this key"))?;
        let unlisted = || Problem::new(Code::BlobUnlisted, "the manifest of this key names no such file");
        found.manifest.find(hash).ok_or_else(unlisted)
    }

    /// Whether all files of a secret are there; its use is noted.
    pub(crate) fn ensure_ready(&self, tenant: &str, key: Digest) -> std::result::Result<(), Problem> {
        let mut known = self.known();
        let found = known.get_mut(&(tenant.to_owned(), key));
        let found =
            found.ok_or_else(|| Problem::new(Code::KeyUnknown, "no keys are registered under this id"))?;
        let missing = missing(&self.folder(tenant, key), &found.manifest);
        if !missing.is_empty() {
            let detail = format!("{} of {} keys are missing", missing.len(), found.manifest.keys.len());
            return Err(Problem::new(Code::KeyIncomplete, detail).with_missing(missing));
        }
        // Once a day is exact enough for a month.
        if now() > found.last_used + 86400 {
            found.last_used = now();
            self.store.put(Table::Keys, &record(tenant, key), found).map_err(|e| of_own(&e))?;
        }
        Ok(())
    }

    /// Forgets the keys of a secret; false if there were none.
    pub(crate) fn delete(&self, tenant: &str, key: Digest) -> std::result::Result<bool, Problem> {
        let there = self.known().remove(&(tenant.to_owned(), key)).is_some();
        self.store.remove(Table::Keys, &record(tenant, key)).map_err(|e| of_own(&e))?;
        let _ = std::fs::remove_dir_all(self.folder(tenant, key));
        Ok(there)
    }

    /// Forgets a file that turned out to be damaged.
    pub(crate) fn sweep_damaged(&self, tenant: &str, key: Digest) {
        let Ok(entries) = std::fs::read_dir(self.folder(tenant, key)) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_stem().and_then(|n| n.to_str()).and_then(|n| n.parse::<Digest>().ok());
            let whole = |hash| cipherlm_files::read(&path, u64::MAX).is_ok_and(|b| Digest::of(&b) == hash);
            if !name.is_some_and(whole) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// Forgets keys that nobody has used for long.
    pub(crate) fn expire(&self, seconds: u64) {
        let old = |registered: &Registered| registered.last_used.saturating_add(seconds) < now();
        let names: Vec<Name> =
            self.known().iter().filter(|(_, r)| old(r)).map(|(name, _)| name.clone()).collect();
        for (tenant, key) in names {
            // Tried again at the next sweep.
            let _ = self.delete(&tenant, key);
        }
    }

    /// Bytes of all registered keys.
    pub(crate) fn bytes(&self, tenant: Option<&str>) -> u64 {
        let known = self.known();
        let of = known.iter().filter(|((t, _), _)| tenant.is_none_or(|tenant| tenant == t));
        of.filter_map(|(_, registered)| registered.manifest.bytes()).sum()
    }
}

/// Checks a key by its first bytes, before the rest is taken: that it belongs to the secret, that
/// the plan asks for it, and that its length is the one that follows from its shape.
pub(crate) fn check_head(
    served: &Served,
    key: Digest,
    head: &[u8],
    bytes: u64,
) -> std::result::Result<(), Problem> {
    let params = served.params();
    let header = Header::read(head).map_err(|e| of_ckks(&e))?;
    let (purpose, shape) = SwitchingKey::peek(params, head).map_err(|e| of_ckks(&e))?;
    let expected = shape.stored_bytes(params);
    if bytes != expected {
        return Err(Problem::new(
            Code::ObjectLength,
            format!("{bytes} bytes, a key of this shape has {expected}"),
        ));
    }
    let own = Digest::from(*header.key_id.as_bytes()) == key;
    let fits = match purpose {
        KeyPurpose::Project(from) => {
            Digest::from(*from.as_bytes()) == key && !own && served.small[1] == Some(shape)
        }
        KeyPurpose::Switch(from) if Digest::from(*from.as_bytes()) == key => !own && shape.level == 0,
        KeyPurpose::Switch(_) => own,
        purpose if own => served.asked.contains(&(purpose, shape.level)),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    if !own && purpose.source().is_none() {
        return Err(Problem::new(
            Code::KeyMismatch,
            "the key belongs to another secret than its address says",
        ));
    }
    let detail = format!("the plan asks for no {purpose} key at level {}", shape.level);
    Err(Problem::new(Code::KeyPurpose, detail))
}

fn missing(folder: &Path, manifest: &KeyManifest) -> Vec<Digest> {
    let there = |entry: &KeyEntry| {
        let facts = std::fs::metadata(folder.join(format!("{}.key", entry.blake3)));
        facts.is_ok_and(|facts| facts.is_file() && facts.len() == entry.bytes)
    };
    manifest.keys.iter().filter(|entry| !there(entry)).map(|entry| entry.blake3).collect()
}

fn remove_others(folder: &Path, manifest: &KeyManifest) {
    let named: BTreeSet<String> = manifest.keys.iter().map(|key| format!("{}.key", key.blake3)).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An upload on its way has a name of its own.
        if name.ends_with(".key") && !named.contains(&name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
