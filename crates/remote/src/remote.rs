//! A server's addresses as functions.

use cipherlm_protocol::{ClientPlan, Digest, Event, JobView, KeyManifest, Missing, Problem, read_json};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

/// Largest JSON of a server.
const JSON: usize = 64 << 10;

/// One server.
#[derive(Clone)]
pub struct Remote {
    endpoint: Endpoint,
}

impl Remote {
    /// The server at an address.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// The plan that the server runs, with its tokenizer and embedding; each is compared with the
    /// plan.
    ///
    /// # Errors
    /// [`Error`], also for files that are not those of the plan.
    pub async fn plan(&self) -> Result<(ClientPlan, [Vec<u8>; 2])> {
        #[derive(serde::Deserialize)]
        struct Models {
            models: Vec<ModelOfServer>,
        }
        #[derive(serde::Deserialize)]
        struct ModelOfServer {
            plans: Vec<String>,
        }
        let models: Models = self.json("GET", "/v1/models", vec![]).await?;
        let name = models.models.into_iter().flat_map(|model| model.plans).next();
        let name = name.ok_or_else(|| strange("it has no plan"))?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(strange("the name of its plan"));
        }
        let text = self.bytes("GET", &format!("/v1/plans/{name}"), JSON).await?;
        let text = String::from_utf8(text).map_err(|_| strange("the plan is no text"))?;
        let plan = ClientPlan::from_json(&text)?;
        let mut files = [vec![], vec![]];
        for (file, blob) in files.iter_mut().zip([plan.tokenizer, plan.embedding]) {
            let most = usize::try_from(blob.bytes.min(1 << 30)).unwrap_or(0);
            *file = self.bytes("GET", &format!("/v1/blobs/{}", blob.blake3), most).await?;
            if Digest::of(file) != blob.blake3 {
                return Err(strange("a file is not what the plan says"));
            }
        }
        Ok((plan, files))
    }

    /// Announces keys; answered by what is missing.
    pub(crate) async fn announce(&self, key: &str, manifest: &KeyManifest) -> Result<Missing> {
        let body = serde_json::to_vec(manifest).map_err(|e| Error::Strange { what: e.to_string() })?;
        self.json("PUT", &format!("/v1/keys/{key}"), body).await
    }

    /// Sends one key file.
    pub(crate) async fn upload(&self, key: &str, hash: Digest, bytes: Vec<u8>) -> Result<()> {
        self.request("PUT", &format!("/v1/keys/{key}/{hash}"), &[], bytes).await.map(drop)
    }

    /// Submits a prompt; the same prompt is the same job.
    pub(crate) async fn submit(&self, key: &str, plan: &str, prompt: Vec<u8>) -> Result<JobView> {
        let path = format!("/v1/jobs/{}?key={key}&plan={plan}", Digest::of(&prompt));
        self.json("PUT", &path, prompt).await
    }

    /// The events of a job after the one of that number.
    pub(crate) async fn events(&self, job: Digest, after: u64) -> Result<Stream> {
        let last = [("last-event-id", after.to_string())];
        let response = self.request("GET", &format!("/v1/jobs/{job}/events"), &last, vec![]).await?;
        Ok(Stream { body: response.into_body(), text: Vec::new() })
    }

    /// The encrypted answer of a job.
    pub(crate) async fn result(&self, job: Digest, bytes: u64, hash: Digest) -> Result<Vec<u8>> {
        let most = usize::try_from(bytes).map_err(|_| strange("the length of the answer"))?;
        let answer = self.bytes("GET", &format!("/v1/jobs/{job}/result"), most).await?;
        if Digest::of(&answer) == hash { Ok(answer) } else { Err(strange("the answer has another hash")) }
    }

    /// Gives the job of a prompt with this hash up, or forgets one that has ended.
    ///
    /// # Errors
    /// [`Error`], also for a job that the server does not know.
    pub async fn cancel(&self, job: Digest) -> Result<()> {
        self.request("DELETE", &format!("/v1/jobs/{job}"), &[], vec![]).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(&self, method: &str, path: &str, body: Vec<u8>) -> Result<T> {
        let response = self.request(method, path, &[], body).await?;
        let bytes = collect(response, JSON).await?;
        read_json(&bytes).map_err(|problem| Error::Strange { what: problem.detail.into() })
    }

    async fn bytes(&self, method: &str, path: &str, most: usize) -> Result<Vec<u8>> {
        collect(self.request(method, path, &[], vec![]).await?, most).await
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let response = self.endpoint.send(method, path, headers, body).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = collect(response, JSON).await?;
        match read_json::<Problem>(&bytes) {
            Ok(problem) => Err(problem.into()),
            Err(_) if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Err(strange("too long a head"))
            }
            Err(_) => Err(Error::Strange { what: format!("status {status}") }),
        }
    }
}

async fn collect(response: Response<Incoming>, most: usize) -> Result<Vec<u8>> {
    let body = Limited::new(response.into_body(), most).collect().await;
    let body =
        body.map_err(|error| Error::Line { what: "reading an answer".into(), reason: error.to_string() })?;
    Ok(body.to_bytes().to_vec())
}

fn strange(what: &str) -> Error {
    Error::Strange { what: what.into() }
}

/// A job's events as they come.
pub(crate) struct Stream {
    body: Incoming,
    text: Vec<u8>,
}

impl Stream {
    /// The next event with its number; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Event)>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(found) = parse(&block)? {
                    return Ok(Some(found));
                }
                continue;
            }
            if self.text.len() > JSON {
                return Err(strange("an event without end"));
            }
            let broken =
                |e: hyper::Error| Error::Line { what: "reading events".into(), reason: e.to_string() };
            match self.body.frame().await.transpose().map_err(broken)? {
                Some(frame) => {
                    let data: Bytes = frame.into_data().unwrap_or_default();
                    self.text.extend_from_slice(&data);
                }
                None => return Ok(None),
            }
        }
    }
}

/// One block of an event stream; none for a comment.
fn parse(block: &[u8]) -> Result<Option<(u64, Event)>> {
    let text = std::str::from_utf8(block).map_err(|_| strange("an event is no text"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let Some(data) = field("data: ") else { return Ok(None) };
    let id = field("id: ").and_then(|id| id.parse().ok()).ok_or_else(|| strange("an event has no number"))?;
    let event =
        read_json(data.as_bytes()).map_err(|problem| Error::Strange { what: problem.detail.into() })?;
    Ok(Some((id, event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_passed_over_and_nonsense_is_not() {
        let loading = Event::Loading { keys: 3, of: 9 };
        assert_eq!(parse(loading.to_stream(8).as_bytes()).unwrap(), Some((8, loading)));
        assert_eq!(parse(b": keep-alive\n\n").unwrap(), None);
        assert!(parse(b"data: {}\n\n").is_err() && parse(b"id: 1\ndata: {\"event\":\"other\"}\n\n").is_err());
    }
}
