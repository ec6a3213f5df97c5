//! The stages of the client: the one party that holds the secret key.

use cipherlm_ckks::{Ciphertext, Complex64, KeyForm, KeyStore, Plaintext, SecretKey, Wire};
use peer_fhe_benchmarking::{Error, Report, Result, Task, floats, shorts};
use rayon::prelude::*;
use serde_json::json;

use crate::answer;
use crate::circuit::INDICATOR_LEVEL;
use crate::instance::Instance;
use crate::layout::{Layout, PAYLOAD, Table, VALUES};
use crate::server::{payload_file, records_file};
use crate::threshold::{THRESHOLD, Threshold};

const SECRET: &str = "secret.key";
const ANSWER: &str = "answer.bin";

/// Makes the secret key and the keys that the server's circuit asks for.
///
/// # Errors
/// Those of key generation and of files.
pub fn key_generation(task: &Task) -> Result<()> {
    let mut report = Report::new("client_key_generation");
    let instance = Instance::new(task)?;
    let threshold = Threshold::new()?;
    let request = instance.keys(&threshold, task.count_only)?;
    report.step("Plan");
    let certificate = threshold.certificate()?;
    report.step("Certificate of the comparison");
    let secret = SecretKey::generate(&instance.params)?;
    let keys = secret.key_set_in(&request, KeyForm::Expanded)?;
    report.step("Keys");
    KeyStore::write(&task.keys(), &keys)?;
    task.write_private(&task.private(SECRET), &secret.to_secret_bytes())?;
    report.step("Files");
    report.fact("instance", instance.facts());
    report.fact("keys", keys.len());
    report.fact("comparison_error", certificate.bound);
    report.write(task)
}

/// Encrypts records and payloads.
///
/// # Errors
/// [`Error::Length`] for data of another size, else those of encryption and of files.
pub fn encode_encrypt_db(task: &Task) -> Result<()> {
    let mut report = Report::new("client_encode_encrypt_db");
    let Instance { params, layout } = Instance::new(task)?;
    let secret = secret(task, &params)?;
    let path = task.data("db.bin");
    let records = floats(&path, &task.read(&path)?, layout.records * layout.dim)?;
    report.step("Data");
    for block in 0..layout.blocks {
        for shift in 0..layout.shifts {
            let vector = |group| layout.database(&records, block, shift, group);
            let vectors = (0..layout.groups).into_par_iter().map(|group| {
                let vector = vector(group);
                encrypt(&secret, &vector, layout.slots, params.max_level())
            });
            let bytes: Vec<Vec<u8>> = vectors.collect::<Result<_>>()?;
            task.write(&task.upload(&records_file(block, shift)), &bytes.concat())?;
        }
    }
    report.step("Records");
    if !task.count_only {
        let path = task.data("payloads.bin");
        let payloads = shorts(&path, &task.read(&path)?, layout.records * PAYLOAD)?;
        let all = Table::BOTH.into_iter().flat_map(|table| {
            let vectors = 0..layout.vectors();
            vectors.flat_map(move |vector| (0..table.turns()).map(move |turn| (table, vector, turn)))
        });
        all.collect::<Vec<_>>().into_par_iter().try_for_each(|(table, vector, turn)| {
            let values = layout.payload(&payloads, table, vector, turn);
            let bytes = encrypt(&secret, &values, layout.slots, INDICATOR_LEVEL)?;
            task.write(&task.upload(&payload_file(table, vector, turn)), &bytes)
        })?;
        report.step("Payloads");
    }
    report.write(task)
}

/// Encrypts the query.
///
/// # Errors
/// As [`encode_encrypt_db`].
pub fn encode_encrypt_query(task: &Task) -> Result<()> {
    let mut report = Report::new("client_encode_encrypt_query");
    let Instance { params, layout } = Instance::new(task)?;
    let secret = secret(task, &params)?;
    let path = task.data("query.bin");
    let query = floats(&path, &task.read(&path)?, layout.dim)?;
    let vectors = layout.query(&query).into_iter();
    let bytes: Vec<Vec<u8>> = vectors
        .map(|vector| encrypt(&secret, &vector, vector.len(), params.max_level()))
        .collect::<Result<_>>()?;
    task.write(&task.upload("query.bin"), &bytes.concat())?;
    report.step("Query");
    report.write(task)
}

/// Decrypts the answer to integers, which are all that leaves this stage.
///
/// # Errors
/// [`Error::Precision`] for an answer that is none of integers, else those of decryption and of
/// files.
pub fn decrypt_decode(task: &Task) -> Result<()> {
    let mut report = Report::new("client_decrypt_decode");
    let Instance { params, layout } = Instance::new(task)?;
    let secret = secret(task, &params)?;
    let bytes = task.read(&task.download("results.bin"))?;
    let mut rest = bytes.as_slice();
    let mut next = || -> Result<Vec<Complex64>> {
        let (ciphertext, after) = Ciphertext::from_prefix(&params, rest)?;
        rest = after;
        Ok(secret.decrypt(&ciphertext)?.decode().as_slice().to_vec())
    };
    let integers: Vec<i64> = if task.count_only {
        vec![answer::integer(next()?[0].re / layout.folds as f64)?]
    } else {
        let tables = Table::BOTH.map(|table| answer::buckets(&layout, table, &next()?));
        let tables = tables.into_iter().collect::<Result<Vec<_>>>()?;
        tables.concat().concat()
    };
    let bytes: Vec<u8> = integers.iter().flat_map(|integer| integer.to_le_bytes()).collect();
    task.write_private(&task.private(ANSWER), &bytes)?;
    report.step("Answer");
    report.write(task)
}

/// Turns the integers of the answer into what the harness asks for: a count in 64 bits, or payloads
/// in lexicographic order.
///
/// # Errors
/// As [`answer::peel`], and those of files.
pub fn postprocess(task: &Task) -> Result<()> {
    let mut report = Report::new("client_postprocess");
    let Instance { layout, .. } = Instance::new(task)?;
    let path = task.private(ANSWER);
    let bytes = task.read(&path)?;
    let result = if task.count_only {
        bytes
    } else {
        let payloads = answer::peel(&layout, tables(&layout, &path, &bytes)?)?;
        report.fact("matches", payloads.len());
        report.fact("crowding_of_32", answer::crowding(&layout, 32));
        payloads.concat().iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    task.write_private(&task.io("results.bin"), &result)?;
    report.step("Result");
    report.write(task)
}

/// How near the nearest score comes to the threshold, by the data in the clear: what only a
/// benchmark can know. No stage of the harness.
///
/// # Errors
/// As [`encode_encrypt_db`].
pub fn nearest(task: &Task) -> Result<()> {
    let Instance { layout, .. } = Instance::new(task)?;
    let (records, query) = (task.data("db.bin"), task.data("query.bin"));
    let records = floats(&records, &task.read(&records)?, layout.records * layout.dim)?;
    let query = floats(&query, &task.read(&query)?, layout.dim)?;
    let score = |record: &[f32]| -> f64 {
        record.iter().zip(&query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let scores: Vec<f64> = records.par_chunks(layout.dim).map(score).collect();
    let distance = |score: &f64| (score - THRESHOLD).abs();
    let nearest = scores.iter().map(distance).fold(f64::INFINITY, f64::min);
    let matches = scores.iter().filter(|score| **score > THRESHOLD).count();
    println!("{}", json!({ "nearest_score_to_threshold": nearest, "matches": matches }));
    Ok(())
}

/// The tables as [`decrypt_decode`] wrote them.
fn tables(layout: &Layout, path: &std::path::Path, bytes: &[u8]) -> Result<[Vec<[i64; 2 * VALUES]>; 2]> {
    let need = 2 * layout.buckets() * 2 * VALUES;
    let (integers, rest) = bytes.as_chunks::<8>();
    if integers.len() != need || !rest.is_empty() {
        return Err(Error::Length { path: path.into(), unit: "integers", have: bytes.len() / 8, need });
    }
    let integers: Vec<i64> = integers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let (buckets, _) = integers.as_chunks::<{ 2 * VALUES }>();
    let (a, b) = buckets.split_at(layout.buckets());
    Ok([a.to_vec(), b.to_vec()])
}

fn secret(task: &Task, params: &cipherlm_ckks::Params) -> Result<SecretKey> {
    let bytes = task.read(&task.private(SECRET))?;
    Ok(SecretKey::from_secret_bytes(params, &bytes)?)
}

/// Encrypts a vector at the default scale of a level, under the secret key: half of each ciphertext
/// is a seed.
fn encrypt(secret: &SecretKey, values: &[Complex64], slots: usize, level: usize) -> Result<Vec<u8>> {
    let params = secret.params();
    let plaintext = Plaintext::encode(params, values, slots, params.default_scale(level))?;
    Ok(secret.encrypt(&plaintext, level)?.to_bytes())
}
