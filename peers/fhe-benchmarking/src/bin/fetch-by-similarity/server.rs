//! The stage of the server. It names no type that can hold a secret.

use cipherlm_circuits::slots::{Encrypted, EncryptedVector};
use cipherlm_ckks::{Ciphertext, KeyStore, Wire};
use peer_fhe_benchmarking::{Error, Report, Result, Task};
use rayon::prelude::*;
use std::path::Path;

use crate::circuit::{self, Database, INDICATOR_LEVEL};
use crate::instance::Instance;
use crate::layout::{Layout, Table};
use crate::threshold::Threshold;

/// Name of the file of all groups of a block and shift.
pub fn records_file(block: usize, shift: usize) -> String {
    format!("records-{block:03}-{shift}.bin")
}

/// Name of the file of a payload vector.
pub fn payload_file(table: Table, vector: usize, turn: usize) -> String {
    format!("payload-{table:?}-{vector:03}-{turn}.bin")
}

/// Answers the query from the encrypted database.
///
/// # Errors
/// [`Error::NoKeys`], [`Error::Length`], and those of the circuit, of keys and of files.
pub fn encrypted_compute(task: &Task) -> Result<()> {
    let mut report = Report::new("server_encrypted_compute");
    let Instance { params, layout } = &Instance::new(task)?;
    let threshold = Threshold::new()?;
    let store = KeyStore::open(params, &task.keys(), u64::MAX)?;
    let key_id = store.key_id().ok_or(Error::NoKeys { path: task.keys() })?;
    store.preload(|_| ())?;
    let machine = &Encrypted::new(params, key_id, store)?;
    report.step("Loading keys");
    let database = Stored { machine, task, layout };
    let uploads = if layout.expands() { 1 } else { layout.groups };
    let query = database.load(&task.upload("query.bin"), uploads)?;
    let query = circuit::expand(machine, layout, query)?;
    report.step("Query expansion");
    let scores = circuit::scores(machine, layout, &query, &database)?;
    drop(query);
    report.step("Scores");
    let indicators = circuit::indicators(machine, &threshold, &scores)?;
    report.step("Comparison");
    let answers = if task.count_only {
        vec![circuit::count(machine, &indicators)?]
    } else {
        circuit::retrieve(machine, layout, &indicators, &database)?.to_vec()
    };
    let bytes: Vec<Vec<u8>> = answers.iter().map(|answer| answer.ciphertext().to_bytes()).collect();
    task.write(&task.download("results.bin"), &bytes.concat())?;
    report.step(if task.count_only { "Count" } else { "Retrieval" });
    task.write(&task.io("server_reported_steps.json"), &report.server_steps())?;
    report.write(task)
}

/// The database in files.
struct Stored<'a> {
    machine: &'a Encrypted<KeyStore>,
    task: &'a Task,
    layout: &'a Layout,
}

impl Stored<'_> {
    /// The ciphertexts of a file, which are all of one length.
    fn load(&self, path: &Path, need: usize) -> Result<Vec<EncryptedVector>> {
        let bytes = self.task.read(path)?;
        let length = bytes.len() / need;
        if length == 0 || !bytes.len().is_multiple_of(need) {
            return Err(Error::Length { path: path.into(), unit: "bytes", have: bytes.len(), need });
        }
        let parse = |bytes: &[u8]| -> Result<EncryptedVector> {
            Ok(self.machine.input(Ciphertext::from_bytes(self.machine.params(), bytes)?)?)
        };
        bytes.par_chunks_exact(length).map(parse).collect()
    }
}

impl Database<EncryptedVector> for Stored<'_> {
    fn records(&self, block: usize, shift: usize) -> Result<Vec<EncryptedVector>> {
        self.load(&self.task.upload(&records_file(block, shift)), self.layout.groups)
    }

    fn payload(&self, table: Table, vector: usize, turn: usize) -> Result<EncryptedVector> {
        let path = self.task.upload(&payload_file(table, vector, turn));
        let bytes = self.task.read(&path)?;
        let ciphertext = Ciphertext::from_bytes(self.machine.params(), &bytes)?;
        let (have, level) = (ciphertext.level(), INDICATOR_LEVEL);
        if have != level {
            return Err(Error::Length { path, unit: "levels", have, need: level });
        }
        Ok(self.machine.input(ciphertext)?)
    }
}
