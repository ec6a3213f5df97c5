//! Servers: one in this process, and one on the network.

use crate::client::PyClient;
use crate::job::{Course, Job, Prompt, cancelled};
use crate::model::PyModel;
use crate::plan::{Made, PyPlan};
use crate::refusal::{Refusal, Result};
use crate::watch::{Watch, watched};
use cipherlm_ckks::KeyStore;
use cipherlm_infer::{ClientFolder, EncryptedPrompt, Error, KeyFolder, KeyOrder, Progress, Server};
use cipherlm_protocol::{Code, Event};
use cipherlm_remote::{Certificates, Endpoint, Remote};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

/// Largest file of certificates.
const PEM_BYTES: u64 = 1 << 20;
/// How often work that waits for a line looks whether it is to stop.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// What one client's keys run on, and how many there are.
type Seat = (Arc<Server<Arc<KeyStore>>>, usize);

/// A server in this process: the model's half of a run, which knows keys and no secret.
#[pyclass(frozen, module = "cipherlm")]
pub(crate) struct LocalServer {
    made: Arc<Made>,
    seats: Mutex<BTreeMap<String, Seat>>,
}

impl LocalServer {
    fn seats(&self) -> MutexGuard<'_, BTreeMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a client's keys into memory.
    fn seat(&self, client: &PyClient, watch: &Watch) -> Result<Seat> {
        let chosen = &self.made.chosen;
        let order = KeyOrder::of(&chosen.circuits, &chosen.plan)?;
        let folder = client.server_keys();
        let (keys, key_id) = KeyFolder::open(&folder, &chosen.circuits, &order, u64::MAX)?;
        let count = keys.len();
        keys.preload(|loaded| {
            watch.tell(loaded as u64, count as u64);
        })
        .map_err(|error| Refusal::coded(Code::KeyDamaged, error.to_string()))?;
        if watch.is_stopped() {
            return Err(cancelled());
        }
        let keys = Arc::new(keys);
        Ok((Arc::new(Server::open(&chosen.circuits, key_id, &keys)?), count))
    }
}

/// One run on a thread of its own.
fn run(made: &Made, server: &Server<Arc<KeyStore>>, bytes: &[u8], course: &Course) -> Result<Vec<u8>> {
    let chosen = &made.chosen;
    let order = KeyOrder::of(&chosen.circuits, &chosen.plan)?;
    let prompt = EncryptedPrompt::from_bytes(chosen.circuits.params(), &order.small, bytes)?;
    let answer = server.run(&chosen.plan, prompt, &mut |at: &Progress<'_>| {
        course.tell(&Event::Step {
            step: at.step,
            steps: at.steps,
            name: at.name.to_owned(),
            layer: at.layer,
            level: at.level,
            refresh: at.refresh,
            elapsed: at.elapsed.as_secs_f64(),
            left: at.left.as_secs_f64(),
        });
        !course.is_stopped()
    });
    match answer {
        Ok(answer) => Ok(answer.to_bytes()),
        Err(Error::Stopped { .. }) => Err(cancelled()),
        Err(error) => Err(error.into()),
    }
}

#[pymethods]
impl LocalServer {
    /// A server for one plan of a model.
    #[new]
    fn new(model: &Bound<'_, PyModel>, plan: &Bound<'_, PyPlan>) -> PyResult<Self> {
        let made = Arc::clone(plan.get().made("a server")?);
        let (own, theirs) = (model.get().model.spec(), made.chosen.plan.model().spec());
        if own.weights_blake3 != theirs.weights_blake3 {
            let text = format!("the plan is of the model {:?}, not of this {:?}", theirs.name, own.name);
            return Err(Refusal::coded(Code::PlanMismatch, text).into());
        }
        Ok(Self { made, seats: Mutex::default() })
    }

    /// Reads a client's evaluation keys; `progress(read, all)` is called with numbers of keys.
    #[pyo3(signature = (client, *, progress = None))]
    fn push<'py>(
        &self,
        py: Python<'py>,
        client: &Bound<'py, PyClient>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let client = client.get();
        let key = client.key_id_text();
        let known = self.seats().get(key).map(|(_, keys)| *keys);
        if let Some(keys) = known {
            return pushed(py, keys, 0, 0);
        }
        let seat = watched(py, progress, |watch| self.seat(client, watch))?;
        let keys = seat.1;
        self.seats().insert(key.to_owned(), seat);
        pushed(py, keys, keys, 0)
    }

    /// Begins the run of an encrypted prompt.
    fn run(&self, prompt: &Bound<'_, Prompt>) -> PyResult<Job> {
        let prompt = prompt.get();
        let Some(server) = self.seats().get(&prompt.key).map(|(server, _)| Arc::clone(server)) else {
            let text = format!("this server has no keys of {}: push the client first", prompt.key);
            return Err(Refusal::coded(Code::KeyUnknown, text).into());
        };
        let (made, bytes) = (Arc::clone(&self.made), Arc::clone(&prompt.bytes));
        Ok(Job::begin(move |course| run(&made, &server, &bytes, course)))
    }

    fn __repr__(&self) -> String {
        format!("<cipherlm.LocalServer with keys of {} clients>", self.seats().len())
    }
}

/// A server on the network, as `connect` finds it.
#[pyclass(frozen, module = "cipherlm", name = "Server")]
pub(crate) struct PyServer {
    address: String,
    remote: Remote,
}

/// A server at `https://HOST:PORT` (`http://` only on this machine). `token` lets in (default: the
/// variable CIPHERLM_TOKEN), `ca` is a PEM file of certificates to trust beside the system's;
/// `certificate` and `key` are PEM files with the client's own, for a server that asks for them.
/// Nothing is sent before the first call.
#[pyfunction]
#[pyo3(signature = (address, *, token = None, ca = None, certificate = None, key = None))]
pub(crate) fn connect(
    address: String,
    token: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> PyResult<PyServer> {
    let made = || {
        let refuse = |text: &str| Refusal::new("AddressRefused", text);
        let token = token.or_else(|| std::env::var("CIPHERLM_TOKEN").ok());
        let token = token.ok_or_else(|| refuse("no token: pass token=, or set CIPHERLM_TOKEN"))?;
        if certificate.is_some() != key.is_some() {
            return Err(refuse("certificate= and key= go together: pass both, or neither"));
        }
        let pem = |file: &Option<PathBuf>| {
            file.as_ref().map(|file| cipherlm_files::read(file, PEM_BYTES).map(Zeroizing::new)).transpose()
        };
        let (authority, chain, key) = (pem(&ca)?, pem(&certificate)?, pem(&key)?);
        let own = chain.as_ref().zip(key.as_ref());
        let certificates = Certificates {
            authority: authority.as_ref().map(|pem| pem.as_slice()),
            own: own.map(|(chain, key)| (chain.as_slice(), key.as_slice())),
        };
        let remote = Remote::new(Endpoint::new(&address, &token, certificates)?);
        Ok::<_, Refusal>(PyServer { address, remote })
    };
    Ok(made()?)
}

fn runtime() -> Result<Runtime> {
    let made = Builder::new_current_thread().enable_all().build();
    made.map_err(|error| Refusal::coded(Code::Internal, format!("no runtime for the network: {error}")))
}

/// Waits for a conversation with a server, or until it is to stop.
fn converse<T>(
    work: impl Future<Output = cipherlm_remote::Result<T>>,
    is_stopped: impl Fn() -> bool,
) -> Result<T> {
    let stopped = async {
        while !is_stopped() {
            tokio::time::sleep(LOOK).await;
        }
    };
    runtime()?.block_on(async {
        tokio::select! {
            found = work => found.map_err(Refusal::from),
            () = stopped => Err(cancelled()),
        }
    })
}

/// Asks, and tells the server when the job is given up.
fn ask(remote: &Remote, key: &str, plan: &str, bytes: &[u8], course: &Course) -> Result<Vec<u8>> {
    runtime()?.block_on(async {
        tokio::select! {
            found = cipherlm_remote::ask(remote, key, plan, bytes, |event| course.tell(event)) => {
                found.map_err(Refusal::from)
            }
            () = course.stopped() => {
                // A job that the server does not know any more needs no cancelling.
                let _ = remote.cancel(cipherlm_protocol::Digest::of(bytes)).await;
                Err(cancelled())
            }
        }
    })
}

#[pymethods]
impl PyServer {
    /// The plan that the server runs, with what a client needs of it.
    fn plan(&self, py: Python<'_>) -> PyResult<PyPlan> {
        watched(py, None, |watch| {
            let found = converse(self.remote.plan(), || watch.is_stopped())?;
            let (plan, [tokenizer, embedding]) = found;
            PyPlan::of_folder(ClientFolder { plan, tokenizer, embedding })
        })
    }

    /// Registers a client's evaluation keys. Those that the server has are not sent again: a push
    /// that broke off goes on. `progress(sent, all)` is called with bytes.
    #[pyo3(signature = (client, *, progress = None))]
    fn push<'py>(
        &self,
        py: Python<'py>,
        client: &Bound<'py, PyClient>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let folder = client.get().server_keys();
        let done = watched(py, progress, |watch| {
            let told = |sent: u64, all: u64| {
                watch.tell(sent, all);
            };
            converse(cipherlm_remote::push(&self.remote, &folder, told), || watch.is_stopped())
        })?;
        pushed(py, done.keys, done.sent, done.bytes)
    }

    /// Sends an encrypted prompt.
    fn run(&self, prompt: &Bound<'_, Prompt>) -> Job {
        let (remote, prompt) = (self.remote.clone(), prompt.get());
        let (key, plan, bytes) = (prompt.key.clone(), prompt.plan.clone(), Arc::clone(&prompt.bytes));
        Job::begin(move |course| ask(&remote, &key, &plan, &bytes, course))
    }

    fn __repr__(&self) -> String {
        format!("<cipherlm.Server {}>", cipherlm_files::printable(&self.address))
    }
}

/// What a push did.
fn pushed(py: Python<'_>, keys: usize, sent: usize, bytes: u64) -> PyResult<Bound<'_, PyDict>> {
    let done = PyDict::new(py);
    done.set_item("keys", keys)?;
    done.set_item("sent", sent)?;
    done.set_item("bytes", bytes)?;
    Ok(done)
}
