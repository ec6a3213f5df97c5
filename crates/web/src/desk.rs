//! The state of one instance, reached through byte buffers: what is handed in, what comes back.

use cipherlm_protocol::Digest;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::session::{Offer, Sealed, Session};

/// Results that an answer shows.
const SHOWN: usize = 5;

/// Bytes that may hold a secret or a text.
type Bytes = Zeroizing<Vec<u8>>;

/// At most one session, what was handed in for the next command, and what the last one gave back.
///
/// Every command takes all that was handed in, wiped when it ends. It is true when it succeeds;
/// else its one result is the message for the page.
#[derive(Default)]
pub struct Desk {
    inputs: Vec<Bytes>,
    results: Vec<Bytes>,
    offer: Option<Offer>,
    session: Option<Session>,
}

impl Desk {
    /// Room for one more input of the next command; none where memory is short.
    pub fn input(&mut self, length: usize) -> Option<&mut [u8]> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        bytes.resize(length, 0);
        self.inputs.push(Zeroizing::new(bytes));
        self.inputs.last_mut().map(|bytes| bytes.as_mut_slice())
    }

    /// One of the last command's results.
    pub fn result(&self, part: usize) -> Option<&[u8]> {
        self.results.get(part).map(|bytes| bytes.as_slice())
    }

    /// Takes the client plan as JSON: the facts of it as JSON.
    pub fn offer(&mut self) -> bool {
        self.act(|desk, [plan]| {
            let offer = Offer::read(&plan)?;
            let facts = json(&offer.facts());
            desk.session = None;
            desk.offer = Some(offer);
            Ok(vec![facts])
        })
    }

    /// Takes secret, tokenizer and embedding: the name of the secret's keys.
    pub fn open(&mut self) -> bool {
        self.act(|desk, [secret, tokenizer, embedding]| {
            let offer = desk.offer.take().ok_or(Error::Order { what: "a client plan" })?;
            let session = offer.open(&secret, tokenizer.to_vec(), embedding.to_vec())?;
            let key = Zeroizing::new(session.key().into_bytes());
            desk.session = Some(session);
            Ok(vec![key])
        })
    }

    /// Takes a text: the job's name and the encrypted prompt.
    pub fn begin(&mut self) -> bool {
        self.act(|desk, [text]| {
            let text = std::str::from_utf8(&text).map_err(|_| Error::Text("the prompt"))?;
            Ok(sealed(desk.session()?.begin(text)?))
        })
    }

    /// Takes nothing: job and encrypted prompt of the text with what was added to it.
    pub fn go_on(&mut self) -> bool {
        self.act(|desk, []| Ok(sealed(desk.session()?.go_on()?)))
    }

    /// Takes the encrypted answer and the hash that the server named: what it says, as JSON.
    pub fn read(&mut self) -> bool {
        self.act(|desk, [answer, hash]| {
            let hash = std::str::from_utf8(&hash).ok().and_then(|hash| hash.parse::<Digest>().ok());
            let hash = hash.ok_or(Error::Text("the hash of the answer"))?;
            Ok(vec![json(&desk.session()?.read(&answer, hash, SHOWN)?)])
        })
    }

    /// Wipes the secret, the text and all buffers.
    pub fn close(&mut self) {
        *self = Self::default();
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or(Error::Order { what: "a secret" })
    }

    fn act<const N: usize>(
        &mut self,
        work: impl FnOnce(&mut Self, [Bytes; N]) -> Result<Vec<Bytes>>,
    ) -> bool {
        self.results.clear();
        let inputs: std::result::Result<[Bytes; N], _> = std::mem::take(&mut self.inputs).try_into();
        let done = inputs.map_err(|_| Error::Order { what: "every input" }).and_then(|all| work(self, all));
        let (done, results) = match done {
            Ok(results) => (true, results),
            Err(error) => (false, vec![Zeroizing::new(said(&error).into_bytes())]),
        };
        self.results = results;
        done
    }
}

/// An error and its causes, each once.
fn said(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn sealed(prompt: Sealed) -> Vec<Bytes> {
    vec![Zeroizing::new(prompt.job.to_string().into_bytes()), Zeroizing::new(prompt.bytes)]
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Strings and finite numbers have a JSON form.
    Zeroizing::new(serde_json::to_vec(value).unwrap_or_default())
}
