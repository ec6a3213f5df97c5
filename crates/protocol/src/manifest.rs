//! The evaluation keys of one secret, by content.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::problem::{Code, Problem};

/// Most keys of one manifest.
const KEYS: usize = 400;

/// The list of a client's key files for one plan: what `PUT /v1/keys/{key}` carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyManifest {
    /// The plan that the keys are for.
    pub plan: String,
    /// Hash of the parameters.
    pub params: Digest,
    /// The files, in any order.
    pub keys: Vec<KeyEntry>,
}

/// One key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Hash of the file: its address.
    pub blake3: Digest,
    /// Length of the file.
    pub bytes: u64,
}

/// What a server says to a manifest: the same call after every upload tells what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// Files that are not there yet.
    pub missing: Vec<Digest>,
    /// Whether jobs under these keys are taken.
    pub ready: bool,
    /// Bytes of keys that the tenant may still store.
    pub bytes_left: u64,
}

impl KeyManifest {
    /// Checks the list for itself: no file twice, no overflow, not too many.
    ///
    /// # Errors
    /// `json/field`.
    pub fn check(&self) -> Result<(), Problem> {
        let refuse = |detail: String| Err(Problem::new(Code::JsonField, detail));
        if self.keys.is_empty() || self.keys.len() > KEYS {
            return refuse(format!("{} keys in the manifest, 1 to {KEYS} are taken", self.keys.len()));
        }
        let distinct: BTreeSet<_> = self.keys.iter().map(|key| key.blake3).collect();
        if distinct.len() != self.keys.len() {
            return refuse("a key stands in the manifest twice".into());
        }
        if self.keys.iter().any(|key| key.bytes == 0) {
            return refuse("a key of the manifest has no bytes".into());
        }
        match self.bytes() {
            Some(_) => Ok(()),
            None => refuse("the lengths of the keys add up to more than any disk holds".into()),
        }
    }

    /// Bytes of all files; `None` if no number holds them.
    pub fn bytes(&self) -> Option<u64> {
        self.keys.iter().try_fold(0u64, |sum, key| sum.checked_add(key.bytes))
    }

    /// The file of that hash.
    pub fn find(&self, hash: Digest) -> Option<KeyEntry> {
        self.keys.iter().copied().find(|key| key.blake3 == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_json;

    #[test]
    fn a_manifest_with_doubles_overflows_or_strange_fields_is_refused() {
        let key = |n: u8, bytes| KeyEntry { blake3: Digest::of(&[n]), bytes };
        let of = |keys| KeyManifest { plan: "p".into(), params: Digest::of(b"p"), keys };
        assert!(of(vec![key(1, 5), key(2, 5)]).check().is_ok());
        for keys in [vec![], vec![key(1, 0)], vec![key(1, 5), key(1, 5)], vec![key(1, u64::MAX), key(2, 1)]] {
            assert!(of(keys).check().is_err());
        }
        assert!(
            of((0..=200)
                .map(|n| key(n, 1))
                .chain((0..200).map(|n| KeyEntry { blake3: Digest::of(&[n, n]), bytes: 1 }))
                .collect())
            .check()
            .is_err()
        );
        let text = serde_json::to_string(&of(vec![key(1, 5)])).unwrap();
        assert!(read_json::<KeyManifest>(text.as_bytes()).is_ok());
        for (from, to) in [
            ("\"plan\"", "\"plot\""),
            ("{\"plan\"", "{\"x\":1,\"plan\""),
            ("{\"plan\"", "{\"plan\":\"q\",\"plan\""),
        ] {
            assert!(read_json::<KeyManifest>(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
