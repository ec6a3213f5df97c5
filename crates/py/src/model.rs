//! Models, and what they do in the clear.

use crate::numbers::{array, ids, whole};
use crate::plan::{Made, PyPlan};
use crate::refusal::{Refusal, Result};
use crate::watch::watched;
use cipherlm_files::shown;
use cipherlm_model::{FitOptions, Margins, Model, Site, TOKENIZER_FILE, Tokenizer, certify, fit};
use pyo3::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Loads a model: a folder, a name below `models/` in the working folder or above it, or the name
/// of the model that this package carries.
#[pyfunction]
#[pyo3(signature = (name = cipherlm_stories::NAME.into()))]
pub(crate) fn from_pretrained(py: Python<'_>, name: PathBuf) -> PyResult<PyModel> {
    watched(py, None, |_| load(&name))
}

fn load(name: &Path) -> Result<PyModel> {
    let below = || {
        let here = std::env::current_dir().ok()?;
        here.ancestors().map(|dir| dir.join("models").join(name)).find(|dir| dir.is_dir())
    };
    let found = if name.is_dir() { Some(name.to_path_buf()) } else { below() };
    let Some(dir) = found else {
        if name != Path::new(cipherlm_stories::NAME) {
            let text = format!(
                "there is no model folder {}: give a folder, a name below models/, or \"{}\"",
                shown(name),
                cipherlm_stories::NAME
            );
            return Err(Refusal::new("ModelRefused", text));
        }
        let model = Model::from_parts(cipherlm_stories::DESCRIPTION, cipherlm_stories::WEIGHTS)?;
        let tokenizer = Tokenizer::from_json(cipherlm_stories::TOKENIZER)?;
        return Ok(PyModel { model: Arc::new(model), tokenizer: Arc::new(tokenizer) });
    };
    let model = cipherlm_model::difference::load(&dir)?;
    let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE))?;
    tokenizer.check_shape(model.shape())?;
    Ok(PyModel { model: Arc::new(model), tokenizer: Arc::new(tokenizer) })
}

/// A language model with its tokenizer, as `from_pretrained` loads it.
#[pyclass(frozen, module = "cipherlm", name = "Model")]
pub(crate) struct PyModel {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl PyModel {
    /// Windows of at most `length` tokens, one after the other.
    fn windows(&self, texts: &[String], length: usize) -> Result<Vec<Vec<u32>>> {
        let mut windows = Vec::new();
        for text in texts {
            let tokens = self.tokenizer.encode(text)?;
            windows.extend(tokens.chunks(length).filter(|window| window.len() > 1).map(<[u32]>::to_vec));
        }
        Ok(windows)
    }

    fn certified(&self, texts: &[String], held_out: &[String], window: Option<usize>) -> Result<Card> {
        let refuse = |text: String| Err(Refusal::new("ModelRefused", text));
        let room = self.model.shape().context.saturating_sub(self.model.spec().prefix.len());
        let length = window.unwrap_or(room);
        if length < 2 || length > room {
            return refuse(format!("a window has 2 to {room} tokens, not {length}"));
        }
        let (seen, checked) = (self.windows(texts, length)?, self.windows(held_out, length)?);
        let known: BTreeSet<&[u32]> = seen.iter().map(Vec::as_slice).collect();
        if checked.iter().all(|window| known.contains(window.as_slice())) {
            return refuse(
                "held_out is empty or stands in texts: what is checked on the text that it was made from \
                 proves nothing"
                    .into(),
            );
        }
        let mut model = (*self.model).clone();
        certify(&mut model, &seen, &checked, &Margins::default())?;
        fit(&mut model, &FitOptions::default())?;
        Ok(Card {
            model: Arc::new(model),
            tokenizer: Arc::clone(&self.tokenizer),
            windows: (seen.len(), checked.len()),
        })
    }

    /// What to run tokens on: the plan that was given, or one for their number.
    fn circuit(&self, plan: Option<&PyPlan>, tokens: usize) -> Result<Arc<Made>> {
        match plan {
            Some(plan) => plan.made("a machine in the clear").cloned(),
            None => {
                let context = self.model.shape().context;
                let length = tokens.next_power_of_two().min(context);
                Ok(Arc::new(Made::new(&self.model, &self.tokenizer, length, Some("n16"))?))
            }
        }
    }
}

#[pymethods]
impl PyModel {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.model.spec().name
    }

    /// Most tokens that it takes.
    #[getter]
    fn context(&self) -> usize {
        self.model.shape().context
    }

    /// Tokens that its tokenizer knows.
    #[getter]
    fn vocab(&self) -> usize {
        self.tokenizer.vocab()
    }

    /// The tokens of a text, as an int64 array.
    fn tokens<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        whole(py, &self.tokenizer.encode(text).map_err(Refusal::from)?)
    }

    /// The text of tokens.
    fn text(&self, tokens: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(self.tokenizer.decode(&ids(tokens)?).map_err(Refusal::from)?)
    }

    /// Finds the ranges of all activations on some texts, widens them, checks them on other texts
    /// that are held out, and fits the polynomials. Texts are cut into windows of `window` tokens
    /// (default: all that the model takes).
    #[pyo3(signature = (texts, *, held_out, window = None))]
    fn certify(
        &self,
        py: Python<'_>,
        texts: Vec<String>,
        held_out: Vec<String>,
        window: Option<usize>,
    ) -> PyResult<Card> {
        watched(py, None, |_| self.certified(&texts, &held_out, window))
    }

    /// Compiles the model for prompts of up to `tokens` tokens. `profile` names the parameters;
    /// without it the fastest of the secure ones is taken whose predicted answers are good enough,
    /// which takes a minute. `"insecure-10"` is a small ring of degree 2^10 that protects nothing,
    /// to try things in seconds.
    #[pyo3(signature = (tokens = 32, profile = None))]
    fn plan(&self, py: Python<'_>, tokens: usize, profile: Option<String>) -> PyResult<PyPlan> {
        watched(py, None, |_| PyPlan::of_model(&self.model, &self.tokenizer, tokens, profile.as_deref()))
    }

    /// The circuit's answer to tokens, computed in the clear: float64 logits.
    #[pyo3(signature = (tokens, plan = None))]
    fn clear<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'_, PyAny>,
        plan: Option<&Bound<'_, PyPlan>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (tokens, plan) = (ids(tokens)?, plan.map(Bound::get));
        array(py, &watched(py, None, |_| self.circuit(plan, tokens.len())?.clear(&tokens))?)
    }

    /// The same with the errors of one simulated encryption; `seed` chooses which.
    #[pyo3(signature = (tokens, plan = None, *, seed = 1))]
    fn noise<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'_, PyAny>,
        plan: Option<&Bound<'_, PyPlan>>,
        seed: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (tokens, plan) = (ids(tokens)?, plan.map(Bound::get));
        array(py, &watched(py, None, |_| self.circuit(plan, tokens.len())?.noise(&tokens, seed))?)
    }

    /// Writes the model's folder.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        watched(py, None, |_| {
            cipherlm_files::create_folder(&folder)?;
            self.model.save(&folder)?;
            Ok(self.tokenizer.save(&folder.join(TOKENIZER_FILE))?)
        })
    }

    fn __repr__(&self) -> String {
        let shape = self.model.shape();
        let (layers, width) = (shape.layers, shape.d_model);
        format!("<cipherlm.Model {:?}, {layers} layers x {width}, {} tokens>", self.name(), self.context())
    }
}

/// What `Model.certify` found: the range of every activation, and whether held-out text stays in.
#[pyclass(frozen, module = "cipherlm")]
pub(crate) struct Card {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Of the texts, and of those held out.
    pub(crate) windows: (usize, usize),
}

impl Card {
    fn sites(&self) -> &[Site] {
        &self.model.spec().sites
    }
}

/// One row.
type Row = (String, String, (f64, f64), (f64, f64), Option<usize>, u64);

#[pymethods]
impl Card {
    /// Every place where a value has to stay in a range: name, function, observed and certified
    /// range, degree of its polynomial, values of the held-out texts that leave it.
    #[getter]
    fn ranges(&self) -> Vec<Row> {
        let row = |site: &Site| {
            let (seen, range) = (site.observed, site.range);
            let degree = site.scheme.as_ref().map(|scheme| scheme.degree());
            let function = format!("{:?}", site.function);
            (site.name.clone(), function, (seen.min, seen.max), (range.lo, range.hi), degree, site.violations)
        };
        self.sites().iter().map(row).collect()
    }

    /// Values of the held-out texts that leave their range. A model with any makes no plan.
    #[getter]
    fn violations(&self) -> u64 {
        self.sites().iter().map(|site| site.violations).sum()
    }

    /// Windows that the ranges were found on, and windows that they were checked on.
    #[getter]
    fn windows(&self) -> (usize, usize) {
        self.windows
    }

    /// The model with these ranges and polynomials.
    #[getter]
    fn model(&self) -> PyModel {
        PyModel { model: Arc::clone(&self.model), tokenizer: Arc::clone(&self.tokenizer) }
    }

    fn __repr__(&self) -> String {
        let ((seen, checked), sites, left) = (self.windows, self.sites().len(), self.violations());
        format!("<cipherlm.Card: {sites} ranges of {seen} windows, {left} violations in {checked} others>")
    }

    /// The table for a notebook.
    fn _repr_html_(&self) -> String {
        let mut html = String::from(
            "<table><tr><th>place<th>function<th>observed<th>certified<th>degree<th>violations</tr>",
        );
        for (name, function, seen, range, degree, violations) in self.ranges() {
            let degree = degree.map_or_else(|| "–".into(), |degree| degree.to_string());
            let span = |(lo, hi): (f64, f64)| format!("[{lo:.4}, {hi:.4}]");
            // Writing into a string cannot fail. Names come from a file.
            let _ = write!(
                html,
                "<tr><td>{}<td>{}<td>{}<td>{}<td>{degree}<td>{violations}</tr>",
                escaped(&name),
                escaped(&function),
                span(seen),
                span(range)
            );
        }
        html + "</table>"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
