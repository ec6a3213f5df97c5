//! The owner of a secret.

use crate::job::{Answer, Job, Prompt};
use crate::numbers::array;
use crate::plan::{Made, PyPlan};
use crate::refusal::{Refusal, Result};
use crate::watch::watched;
use cipherlm_files::{Lock, shown};
use cipherlm_infer::{
    Asked, Circuits, Client, EncryptedLogits, KeyFolder, KeyOrder, Opened, SECRET_FILE, SERVER_FOLDER,
    TextSide, load_secret,
};
use cipherlm_protocol::Code;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroize;

/// One result of an answer: text, token or class, and its rounded logit.
type Choice = (String, u32, f64);

/// The owner of a secret: encrypts prompts and reads answers.
///
/// The secret stays in the folder and in this object; it is neither shown nor pickled.
#[pyclass(frozen, module = "cipherlm", name = "Client")]
pub(crate) struct PyClient {
    folder: PathBuf,
    keys: KeyFolder,
    client: Client,
    text: TextSide,
    /// The whole plan, if the model is at hand: a prompt that leaves its ranges is then refused.
    made: Option<Arc<Made>>,
}

impl PyClient {
    fn load(folder: &Path, plan: &PyPlan) -> Result<Self> {
        let Some((keys, _)) = KeyFolder::find(folder)? else {
            let text = format!("{} holds no keys: make them with Client.create", shown(folder));
            return Err(Refusal::new("Malformed", text));
        };
        let text = TextSide::of_keys(&keys, plan.folder.clone())?;
        let client = Client::with_secret(load_secret(&folder.join(SECRET_FILE), text.side.params())?);
        Ok(Self { folder: folder.to_path_buf(), keys, client, text, made: plan.made.clone() })
    }

    /// The keys that are missing; a secret that is there is kept.
    fn make(
        folder: &Path,
        plan: &PyPlan,
        resume: bool,
        progress: impl Fn(u64, u64) -> bool + Sync,
    ) -> Result<()> {
        if folder.join(SECRET_FILE).exists() && !resume {
            let text = format!(
                "{} holds a secret already, which is not replaced: open it with Client.open, complete its \
                 keys with resume=True, or choose another folder",
                shown(folder)
            );
            return Err(Refusal::new("FileRefused", text));
        }
        let made;
        let (circuits, order) = match &plan.made {
            Some(whole) => {
                let chosen = &whole.chosen;
                (&chosen.circuits, KeyOrder::of(&chosen.circuits, &chosen.plan)?)
            }
            None => {
                made = Circuits::new(&plan.profile)?;
                (&made, TextSide::new(plan.folder.clone(), &plan.profile)?.side.key_order()?)
            }
        };
        if let Some((keys, _)) = KeyFolder::find(folder)?
            && keys.plan != order.plan
        {
            let text = format!(
                "the keys in {} are for plan {}, this plan is {}: pass that plan, or another folder",
                shown(folder),
                keys.plan,
                order.plan
            );
            return Err(Refusal::coded(Code::PlanMismatch, text));
        }
        create_own_folder(folder)?;
        // One process at a time makes keys here.
        let lock = Lock::exclusive(folder)?;
        lock.sweep()?;
        let all = plan.folder.plan.costs.key_bytes;
        KeyFolder::make(folder, circuits, &order, plan.profile.name, |done| progress(done, all))?;
        Ok(())
    }

    fn encrypted(&self, text: &str, position: Option<usize>) -> Result<Prompt> {
        let tokens = self.text.tokens(text)?;
        if let Some(position) = position {
            self.text.side.check_position(position, tokens.len())?;
        }
        let plan = self.made.as_ref().map(|made| &made.chosen.plan);
        let mut prompt = self.text.encrypt(&self.client, plan, &tokens)?;
        prompt.asked = position.map_or(prompt.asked, Asked::Position);
        Ok(Prompt {
            bytes: Arc::new(prompt.to_bytes()),
            plan: prompt.plan.clone(),
            key: self.keys.key_id.clone(),
            length: tokens.len(),
        })
    }

    fn opened(&self, bytes: &[u8], position: Option<usize>) -> Result<Opened> {
        let side = &self.text.side;
        let answer = EncryptedLogits::from_bytes(side.params(), side.small_rings(), bytes)?;
        // Of a plan of several prompts this object asks for one in all places.
        let held = side.positions(&answer).first().copied().unwrap_or_default();
        Ok(self.text.open(&self.client, &answer, position.unwrap_or(held))?)
    }

    /// The folder for a server: evaluation keys, and no secret.
    pub(crate) fn server_keys(&self) -> PathBuf {
        self.folder.join(SERVER_FOLDER)
    }

    pub(crate) fn key_id_text(&self) -> &str {
        &self.keys.key_id
    }
}

/// A folder that its owner alone may enter.
fn create_own_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Refusal::new("FileRefused", format!("creating {}: {error}", shown(folder))))
}

#[pymethods]
impl PyClient {
    /// Makes a secret, and the evaluation keys that a server needs for `plan`, in a new folder.
    ///
    /// `progress(done, all)` is called with bytes. With `resume=True` a folder is completed whose
    /// keys were interrupted. The plan of a server can name a small ring without security: keys for
    /// it are only made with `insecure=True`.
    #[staticmethod]
    #[pyo3(signature = (folder, plan, *, resume = false, insecure = false, progress = None))]
    fn create(
        py: Python<'_>,
        folder: PathBuf,
        plan: &Bound<'_, PyPlan>,
        resume: bool,
        insecure: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let plan = plan.get();
        if plan.profile.insecure && plan.made.is_none() && !insecure {
            let text = "this plan of another party is for a small ring, which protects nothing: pass \
                        insecure=True to agree, or another plan";
            return Err(Refusal::new("PlanRefused", text).into());
        }
        watched(py, progress, |watch| {
            Self::make(&folder, plan, resume, |done, all| watch.tell(done, all))?;
            Self::load(&folder, plan)
        })
    }

    /// The owner of the secret in a folder that `create` or `cipherlm keygen` made.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf, plan: &Bound<'_, PyPlan>) -> PyResult<Self> {
        let plan = plan.get();
        watched(py, None, |_| Self::load(&folder, plan))
    }

    /// Encrypts a prompt. `position` asks for the answer at that token, from 0, not the last.
    #[pyo3(signature = (text, *, position = None))]
    fn encrypt(&self, py: Python<'_>, text: String, position: Option<usize>) -> PyResult<Prompt> {
        watched(py, None, |_| self.encrypted(&text, position))
    }

    /// Decrypts an answer.
    ///
    /// Logits are rounded, so that they may be shown: what lies below tells of the secret.
    /// `raw=True` gives them as they are, for the owner of the secret alone. With `top=n` the n
    /// largest come as tuples of text, token and rounded logit, else all as a float64 array.
    #[pyo3(signature = (answer, *, top = None, raw = false, position = None))]
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        answer: &Bound<'py, PyAny>,
        top: Option<usize>,
        raw: bool,
        position: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let bytes = match answer.cast::<Job>() {
            Ok(job) => job.get().answer(py, None)?.bytes,
            Err(_) => Arc::clone(&answer.cast::<Answer>()?.get().bytes),
        };
        let mut opened = watched(py, None, |_| self.opened(&bytes, position))?;
        let given = match top {
            Some(count) => {
                let numbers = if raw { &opened.own } else { &opened.rounded };
                let choice = |token: u32| (self.text.meaning(&[token]), token, numbers[token as usize]);
                let choices: Vec<Choice> = opened.top(count).into_iter().map(choice).collect();
                choices.into_pyobject(py)?.into_any()
            }
            None if raw => array(py, &opened.own)?,
            None => array(py, &opened.rounded)?,
        };
        opened.own.zeroize();
        opened.rounded.zeroize();
        Ok(given)
    }

    /// Identity of the secret, which is public.
    #[getter]
    fn key_id(&self) -> &str {
        &self.keys.key_id
    }

    /// Identity of the plan.
    #[getter]
    fn plan(&self) -> &str {
        &self.keys.plan
    }

    /// The folder with the secret.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn __repr__(&self) -> String {
        let id: String = self.keys.key_id.chars().take(12).collect();
        format!("<cipherlm.Client with key {id} in {}>", shown(&self.folder))
    }

    /// A secret leaves in its file or not at all.
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a Client holds a secret and is not pickled: open its folder there, with Client.open",
        ))
    }
}
