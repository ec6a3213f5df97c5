//! From the two tables of an answer to payloads.

use cipherlm_ckks::Complex64;
use peer_fhe_benchmarking::{Error, Result};

use crate::layout::{Layout, PAYLOAD, Table, UNIT, VALUES};

/// How far a number may be from an integer.
const LIMIT: f64 = 0.125;

/// Sums of a bucket: payload and marker.
type Bucket = [i64; 2 * VALUES];

/// The nearest integer.
///
/// # Errors
/// [`Error::Precision`] if it is not near.
pub fn integer(value: f64) -> Result<i64> {
    let distance = (value - value.round()).abs();
    if distance.is_nan() || distance > LIMIT {
        return Err(Error::Precision { value, distance, limit: LIMIT });
    }
    Ok(value.round() as i64)
}

/// The integers of a decrypted table, bucket by bucket.
///
/// # Errors
/// As [`integer`].
pub fn buckets(layout: &Layout, table: Table, slots: &[Complex64]) -> Result<Vec<Bucket>> {
    (0..layout.buckets())
        .map(|bucket| {
            let mut sums = Bucket::default();
            for value in 0..VALUES {
                let number = slots[layout.answer_slot(table, bucket, value)] * UNIT;
                sums[2 * value] = integer(number.re)?;
                sums[2 * value + 1] = integer(number.im)?;
            }
            Ok(sums)
        })
        .collect()
}

/// The payloads of all matches, in lexicographic order, by peeling: a bucket of one match gives it
/// away, and what is known of it is taken out of its other bucket.
///
/// # Errors
/// [`Error::Crowded`] if matches are left that are never alone, [`Error::Contradiction`] for tables
/// that no matches give.
pub fn peel(layout: &Layout, mut tables: [Vec<Bucket>; 2]) -> Result<Vec<[i16; PAYLOAD]>> {
    let (mut found, mut again) = (Vec::new(), true);
    while again {
        again = false;
        for table in Table::BOTH {
            for bucket in 0..layout.buckets() {
                let sums = tables[table as usize][bucket];
                let Some((vector, slot)) = layout.place(table, bucket, sums[PAYLOAD]) else { continue };
                let wrong = |record| Error::Contradiction { record };
                let record = layout.record(vector, slot).ok_or(wrong(layout.records))?;
                let mut payload = [0; PAYLOAD];
                for (to, from) in payload.iter_mut().zip(sums) {
                    *to = i16::try_from(from).map_err(|_| wrong(record))?;
                }
                for table in Table::BOTH {
                    let (bucket, marker) = layout.bucket(table, vector, slot);
                    let sums = &mut tables[table as usize][bucket];
                    sums.iter_mut().zip(payload).for_each(|(sum, number)| *sum -= i64::from(number));
                    sums[PAYLOAD] -= marker;
                }
                found.push(payload);
                again = true;
                // Each match is found once; more are none of this database.
                if found.len() > layout.records {
                    return Err(wrong(record));
                }
            }
        }
    }
    let left = tables.iter().flatten().filter(|sums| **sums != Bucket::default()).count();
    if left > 0 {
        return Err(Error::Crowded { found: found.len(), left });
    }
    found.sort_unstable();
    Ok(found)
}

/// About the probability that `matches` matches cannot be told apart: that of a cycle of four in a
/// random bipartite graph of that many edges without double ones.
pub fn crowding(layout: &Layout, matches: usize) -> f64 {
    (matches as f64 / layout.buckets() as f64).powi(4) / 4.0
}
