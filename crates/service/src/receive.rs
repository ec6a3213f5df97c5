//! Bodies of requests: bounded in length and time, written while they come.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use cipherlm_files::{Access, Existing};
use cipherlm_protocol::{Code, Digest, Limits, Problem};
use http_body_util::BodyExt;

use crate::refusal::of_own;

/// The declared length of a body.
pub(crate) fn declared(headers: &HeaderMap) -> Result<u64, Problem> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.ok_or_else(|| Problem::new(Code::LengthRequired, "bodies of unknown length are not taken"))
}

/// Refuses a declared length other than the one that is known.
pub(crate) fn exactly(headers: &HeaderMap, expected: u64) -> Result<u64, Problem> {
    let found = declared(headers)?;
    if found == expected {
        return Ok(found);
    }
    Err(Problem::new(Code::LengthMismatch, format!("{found} bytes are declared, {expected} are expected")))
}

/// Reads a whole body of the declared length, at most `most`.
pub(crate) async fn whole(
    headers: &HeaderMap,
    body: Body,
    most: u64,
    limits: &Limits,
) -> Result<Vec<u8>, Problem> {
    let length = declared(headers)?;
    if length > most {
        return Err(Problem::new(
            Code::LengthMismatch,
            format!("{length} bytes are declared, at most {most} are read"),
        ));
    }
    let mut out = Vec::with_capacity(length as usize);
    each(body, length, limits, |chunk| {
        out.extend_from_slice(&chunk);
        std::future::ready(Ok(()))
    })
    .await?;
    Ok(out)
}

/// Hands out the parts of a body; refuses one that is slow, short or long.
async fn each<F>(
    mut body: Body,
    length: u64,
    limits: &Limits,
    mut take: impl FnMut(Bytes) -> F,
) -> Result<(), Problem>
where
    F: Future<Output = Result<(), Problem>>,
{
    let seconds = limits.body_seconds(length);
    let read = async {
        let mut found = 0;
        while let Some(frame) = body.frame().await {
            let broken = |_| Problem::new(Code::ObjectTruncated, "the connection broke off");
            if let Ok(chunk) = frame.map_err(broken)?.into_data() {
                found += chunk.len() as u64;
                if found > length {
                    return Err(Problem::new(
                        Code::LengthMismatch,
                        format!("more than the declared {length} bytes"),
                    ));
                }
                take(chunk).await?;
            }
        }
        if found < length {
            return Err(Problem::new(
                Code::ObjectTruncated,
                format!("{found} of {length} declared bytes came"),
            ));
        }
        Ok(())
    };
    let late = |_| Problem::new(Code::Slow, format!("{length} bytes did not come within {seconds} seconds"));
    tokio::time::timeout(Duration::from_secs(seconds), read).await.map_err(late)?
}

/// Writes a body into a file that appears when all of it is there and its hash is right. `check` is
/// shown the first bytes before anything is written.
pub(crate) async fn into_file(
    body: Body,
    length: u64,
    hash: Digest,
    path: PathBuf,
    limits: &Limits,
    head: usize,
    check: impl Fn(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let (send, receive) = sync_channel::<Bytes>(4);
    let mut sender: Option<SyncSender<Bytes>> = Some(send);
    let mut receiver = Some(receive);
    let mut writer = None;
    let mut first = Vec::new();
    let read = each(body, length, limits, |chunk| {
        let mut ready = Ok(());
        let mut next = chunk;
        if writer.is_none() {
            first.extend_from_slice(&next);
            if first.len() >= head.min(length as usize) {
                ready = check(&first);
                next = Bytes::from(std::mem::take(&mut first));
                if let (Ok(()), Some(receive)) = (&ready, receiver.take()) {
                    let path = path.clone();
                    writer = Some(tokio::task::spawn_blocking(move || store(&path, length, hash, &receive)));
                }
            } else {
                next = Bytes::new();
            }
        }
        let sender = sender.clone().filter(|_| ready.is_ok() && !next.is_empty());
        async move {
            ready?;
            let Some(sender) = sender else { return Ok(()) };
            // The writer is slower than the line at times.
            let sent = tokio::task::spawn_blocking(move || sender.send(next)).await;
            match sent {
                Ok(Ok(())) => Ok(()),
                _ => Err(Problem::new(Code::Disk, "the file could not be written")),
            }
        }
    })
    .await;
    // Without its sender the writer comes to an end, and keeps nothing that is not whole.
    drop(sender.take());
    let written = match writer {
        Some(writer) => {
            writer.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the writer failed")))
        }
        None => Ok(()),
    };
    read?;
    written
}

fn store(path: &std::path::Path, length: u64, hash: Digest, parts: &Receiver<Bytes>) -> Result<(), Problem> {
    let mut wrong = None;
    let written = cipherlm_files::write_with(path, Existing::Replace, Access::Owner, |out| {
        let (mut hasher, mut found) = (blake3::Hasher::new(), 0u64);
        while let Ok(part) = parts.recv() {
            found += part.len() as u64;
            hasher.update(&part);
            out.write_all(&part)?;
        }
        let mut refuse = |problem| {
            wrong = Some(problem);
            Err(io::Error::from(io::ErrorKind::InvalidData))
        };
        if found != length {
            return refuse(Problem::new(Code::ObjectTruncated, format!("{found} of {length} bytes came")));
        }
        if Digest::from(*hasher.finalize().as_bytes()) != hash {
            return refuse(Problem::new(Code::BlobHash, "the content is not what its address says"));
        }
        Ok(())
    });
    match (wrong, written) {
        (Some(problem), _) => Err(problem),
        (None, written) => written.map_err(|error| of_own(&error.into())),
    }
}
