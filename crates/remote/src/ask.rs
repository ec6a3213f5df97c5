//! One prompt, one answer.

use std::time::Duration;

use cipherlm_protocol::{Code, Digest, Event};

use crate::error::{Error, Result};
use crate::remote::Remote;

/// How often a broken line is taken up again before it counts as down.
const TRIES: u32 = 8;
/// Longest wait before a server that is full is asked again, in seconds.
const LONGEST: u64 = 300;

/// Gives a job up when its asker goes away before it has ended.
struct Guard {
    remote: Remote,
    job: Digest,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (remote, job) = (self.remote.clone(), self.job);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A job that nobody gives up runs to its end, and its answer is thrown away.
            runtime.spawn(async move { remote.cancel(job).await });
        }
    }
}

/// Submits an encrypted prompt and waits for the encrypted answer. `key` is the id of the secret,
/// `told` is given every event. A server that is full is asked again when it says; a broken line is
/// taken up again; a caller that goes away gives the job up.
///
/// # Errors
/// [`Error`].
pub async fn ask(
    remote: &Remote,
    key: &str,
    plan: &str,
    prompt: &[u8],
    told: impl Fn(&Event),
) -> Result<Vec<u8>> {
    let job = Digest::of(prompt);
    submit(remote, key, plan, prompt).await?;
    let mut guard = Guard { remote: remote.clone(), job, armed: true };
    let ended = follow(remote, job, told).await;
    guard.armed = ended.is_err();
    let (bytes, hash) = ended?;
    let mut attempt = 0;
    loop {
        match remote.result(job, bytes, hash).await {
            Err(error) if error.is_passing() && attempt < TRIES => attempt += 1,
            found => return found,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn submit(remote: &Remote, key: &str, plan: &str, prompt: &[u8]) -> Result<()> {
    let mut attempt = 0;
    loop {
        let error = match remote.submit(key, plan, prompt.to_vec()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_passing() && attempt < TRIES => error,
            Err(error) => return Err(error),
        };
        attempt += 1;
        let wait = match &error {
            Error::Refused(problem) => problem.retry_after.unwrap_or(1),
            _ => 1 << attempt.min(5),
        };
        tokio::time::sleep(Duration::from_secs(wait.min(LONGEST))).await;
    }
}

/// Reads events to the end of the job: length and hash of its answer.
async fn follow(remote: &Remote, job: Digest, told: impl Fn(&Event)) -> Result<(u64, Digest)> {
    let (mut last, mut attempt) = (0, 0);
    loop {
        let broken = match remote.events(job, last).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some((id, event))) => {
                        (last, attempt) = (id, 0);
                        told(&event);
                        match event {
                            Event::Done { bytes, blake3 } => return Ok((bytes, blake3)),
                            Event::Failed { problem } => return Err(problem.into()),
                            Event::Cancelled => return Err(Error::Cancelled),
                            _ => {}
                        }
                    }
                    Ok(None) => break Error::Line { what: "events".into(), reason: "they broke off".into() },
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        let gone = matches!(&broken, Error::Refused(p) if p.code() == Some(Code::JobUnknown));
        if gone || !broken.is_passing() || attempt >= TRIES {
            return Err(broken);
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
    }
}
