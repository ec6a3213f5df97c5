//! Who may do what: bearer tokens, of which the server keeps the hash alone.

use std::sync::{PoisonError, RwLock};

use cipherlm_protocol::{Code, Problem};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::{Store, Table};
use crate::task::is_tenant;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Registering and deleting keys.
    Keys,
    /// Submitting, watching and cancelling jobs.
    Jobs,
    /// Making tokens, reading metrics.
    Admin,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Caller {
    /// Whose keys and jobs these are.
    pub(crate) tenant: String,
    /// What is allowed.
    pub(crate) scopes: Vec<Scope>,
}

/// The tokens that are valid.
pub(crate) struct Tokens {
    known: RwLock<Vec<(blake3::Hash, Caller)>>,
}

impl Tokens {
    pub(crate) fn load(store: &Store) -> Result<Self> {
        let all = store.all::<Caller>(Table::Tokens)?;
        let known = all.into_iter().filter_map(|(hash, caller)| Some((hash.parse().ok()?, caller)));
        Ok(Self { known: RwLock::new(known.collect()) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Makes a token: 32 random bytes in hexadecimal. It is told once.
    pub(crate) fn create(&self, store: &Store, caller: Caller) -> Result<String> {
        if !is_tenant(&caller.tenant) {
            return Err(Error::Tenant { name: caller.tenant });
        }
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| Error::Randomness)?;
        let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let hash = blake3::hash(token.as_bytes());
        store.put(Table::Tokens, hash.to_hex().as_str(), &caller)?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).push((hash, caller));
        Ok(token)
    }

    /// Who sent this `Authorization` header, if that is allowed what is asked.
    pub(crate) fn check(
        &self,
        header: Option<&[u8]>,
        scope: Option<Scope>,
    ) -> std::result::Result<Caller, Problem> {
        let token = header.and_then(|header| header.strip_prefix(b"Bearer ")).unwrap_or_default();
        let hash = blake3::hash(token);
        // All are compared, each in constant time.
        let mut found = None;
        for (known, caller) in self.known.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if *known == hash {
                found = Some(caller.clone());
            }
        }
        let caller = found.ok_or_else(|| Problem::new(Code::Auth, "the token is missing or unknown"))?;
        match scope {
            Some(scope) if !caller.scopes.contains(&scope) => {
                Err(Problem::new(Code::Scope, format!("the scope {scope:?} is needed")))
            }
            _ => Ok(caller),
        }
    }
}
