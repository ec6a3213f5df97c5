//! Our binary files: objects of the wire format in a row. Read one by one, so that a file of any
//! length takes little memory.

use cipherlm_ckks::wire::{HEADER_BYTES, Header};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Largest object that is read: above every key and ciphertext of N = 2^16.
const LARGEST: u64 = 1 << 30;

/// What stands in a file from `skip` on, `whole` if every object is there and has its hash and
/// nothing follows.
pub(super) fn facts(path: &Path, what: &str, skip: u64) -> anyhow::Result<Value> {
    let mut file = File::open(path)?;
    let mut left = file.metadata()?.len().saturating_sub(skip);
    file.seek(SeekFrom::Start(skip))?;
    let (mut count, mut first, mut reason) = (0, None, (left == 0).then(|| "it is empty".to_owned()));
    while reason.is_none() && left > 0 {
        match object(&mut file, &mut left)? {
            (header, Ok(())) => (count, first) = (count + 1, first.or(Some(header))),
            (header, Err(why)) => {
                first = first.or(Some(header));
                reason = Some(format!("object {count}: {why}"));
            }
        }
    }
    let first = first.flatten();
    let kind = match first.map(|h| h.kind) {
        Some(1) => "ciphertext",
        Some(2) => "public key",
        Some(3) => "evaluation key",
        Some(4) => "SECRET key: keep it",
        _ => "object of an unknown kind",
    };
    Ok(json!({
        "what": if what.is_empty() { kind } else { what },
        "objects": count,
        "whole": reason.is_none(),
        "reason": reason,
        "key_id": first.map(|h| h.key_id.to_string()),
        "params": first.map(|h| h.params.to_string()),
    }))
}

/// Whether a file of one object has the length that its header states. The content is not read.
pub(super) fn has_its_length(path: &Path) -> bool {
    let head = cipherlm_files::head(path, HEADER_BYTES);
    head.is_ok_and(|head| {
        Header::read(&head.bytes).is_ok_and(|h| h.body_length.checked_add(HEADER_BYTES) == Some(head.length))
    })
}

type Checked = (Option<Header>, Result<(), String>);

fn object(file: &mut File, left: &mut u64) -> io::Result<Checked> {
    let Some(start) = take(file, left, HEADER_BYTES)? else {
        return Ok((None, Err("it ends within a header".into())));
    };
    let header = match Header::read(&start) {
        Ok(header) => header,
        Err(error) => return Ok((None, Err(error.to_string()))),
    };
    if header.body_length > LARGEST {
        return Ok((
            Some(header),
            Err(format!("a body of {} bytes is larger than any of ours", header.body_length)),
        ));
    }
    let there = *left;
    Ok(match take(file, left, header.body_length)? {
        Some(body) if header.matches(&body) => (Some(header), Ok(())),
        Some(_) => (Some(header), Err("its hash does not match its content".into())),
        None => (Some(header), Err(format!("it ends after {there} of {} bytes", header.body_length))),
    })
}

fn take(file: &mut File, left: &mut u64, count: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(rest) = left.checked_sub(count) else { return Ok(None) };
    let length = usize::try_from(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    bytes.resize(length, 0);
    file.read_exact(&mut bytes)?;
    *left = rest;
    Ok(Some(bytes))
}
