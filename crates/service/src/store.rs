//! The server's records: small JSON values in one transactional file. A value is on disk when its
//! call returns.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// A kind of record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    /// Tokens, by their hash.
    Tokens,
    /// Manifests of keys, by tenant and key.
    Keys,
    /// Jobs, by tenant and hash.
    Jobs,
}

impl Table {
    const ALL: [Self; 3] = [Self::Tokens, Self::Keys, Self::Jobs];

    fn definition(self) -> Definition {
        TableDefinition::new(match self {
            Self::Tokens => "tokens",
            Self::Keys => "keys",
            Self::Jobs => "jobs",
        })
    }
}

/// The records of a server.
pub(crate) struct Store {
    /// None after an error of the disk: it takes nothing more until it is opened again.
    database: Mutex<Option<Database>>,
    path: PathBuf,
}

impl Store {
    /// Opens the records, which are made if they are missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source: redb::Error| Error::Records { path: path.into(), source: Box::new(source) };
        let database = Database::create(path).map_err(|e| failed(e.into()))?;
        let store = Self { database: Mutex::new(Some(database)), path: path.into() };
        store.written(|transaction| {
            for table in Table::ALL {
                transaction.open_table(table.definition())?;
            }
            Ok(())
        })?;
        Ok(store)
    }

    /// Writes one record.
    pub(crate) fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        self.written(|transaction| {
            transaction.open_table(table.definition())?.insert(key, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Removes one record.
    pub(crate) fn remove(&self, table: Table, key: &str) -> Result<()> {
        self.written(|transaction| {
            transaction.open_table(table.definition())?.remove(key)?;
            Ok(())
        })
    }

    /// Every record of a kind; those that this version cannot read are left out.
    pub(crate) fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        self.with(|database| {
            let mut out = vec![];
            for entry in database.begin_read()?.open_table(table.definition())?.iter()? {
                let (key, value) = entry?;
                if let Ok(value) = serde_json::from_slice(value.value()) {
                    out.push((key.value().to_owned(), value));
                }
            }
            Ok(out)
        })
    }

    fn written(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<(), redb::Error>,
    ) -> Result<()> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Opens the records again if the disk was full or absent when they were last used.
    fn with<T>(&self, work: impl FnOnce(&Database) -> std::result::Result<T, redb::Error>) -> Result<T> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => Database::open(&self.path).map_err(|error| self.failed(error.into()))?,
        };
        let done = work(&database);
        if !matches!(done, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *held = Some(database);
        }
        done.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: redb::Error) -> Error {
        Error::Records { path: self.path.clone(), source: Box::new(source) }
    }
}
