//! Errors of the libraries as exceptions of `cipherlm.errors`.

use cipherlm_circuits::slots;
use cipherlm_ckks::Error as Ckks;
use cipherlm_infer::{Error as Infer, object_code};
use cipherlm_protocol::{Code, Problem};
use cipherlm_remote::Error as Remote;
use pyo3::prelude::*;

/// An exception in the making: it can be kept, and be raised more than once.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// Name of the class in `cipherlm.errors`.
    pub(crate) class: String,
    pub(crate) text: String,
    retry_after: Option<u64>,
}

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(class: impl Into<String>, text: impl Into<String>) -> Self {
        Self { class: class.into(), text: text.into(), retry_after: None }
    }

    /// An error that has a code of the protocol.
    pub(crate) fn coded(code: Code, text: impl Into<String>) -> Self {
        Self::new(class_of(code.name()), text)
    }
}

/// `key/mismatch` is `KeyMismatch`.
fn class_of(code: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    code.split(['/', '-']).map(capital).collect()
}

impl From<Infer> for Refusal {
    fn from(error: Infer) -> Self {
        let text = error.to_string();
        match &error {
            Infer::Mismatch { what, .. } => Self::coded(mismatch(what), text),
            Infer::OtherPlan { .. } => Self::coded(Code::PlanMismatch, text),
            Infer::Wire { source, .. } => Self::coded(object_code(source), text),
            Infer::Slots { source: slots::Error::Ciphertext(source), .. } => {
                Self::coded(of_run(source), text)
            }
            Infer::Slots { .. } | Infer::Internal { .. } => Self::coded(Code::Internal, text),
            Infer::NoSecret { .. } | Infer::SecretOpen { .. } | Infer::NotTheSecret { .. } => {
                Self::new("SecretRefused", text)
            }
            Infer::LeavesRange { .. } | Infer::EmbeddingRange { .. } => Self::new("OutOfRange", text),
            Infer::Prompt { .. } | Infer::EmptyPrompt | Infer::LongPrompt { .. } => {
                Self::new("PromptRefused", text)
            }
            Infer::Position { .. } => Self::new("PositionRefused", text),
            Infer::NotAnAnswer { .. } => Self::new("NotAnAnswer", text),
            Infer::Stopped { .. } | Infer::KeysStopped { .. } => Self::new("Stopped", text),
            Infer::DoesNotFit { .. }
            | Infer::NoPlacement { .. }
            | Infer::NoProfile { .. }
            | Infer::Unsupported { .. }
            | Infer::UnknownProfile { .. }
            | Infer::SmallRing { .. }
            | Infer::Polynomial { .. } => Self::new("PlanRefused", text),
            Infer::Files(_) => Self::new("FileRefused", text),
            Infer::Spec(error) => of_model(error, text),
            _ => Self::new("Malformed", text),
        }
    }
}

/// What kind of thing does not belong to the other.
fn mismatch(what: &str) -> Code {
    match what {
        _ if what.starts_with("secret") => Code::KeyMismatch,
        _ if what.starts_with("parameters") || what.starts_with("ring") || what.starts_with("profile") => {
            Code::ParamsMismatch
        }
        _ if what.starts_with("format") => Code::ObjectVersion,
        _ => Code::PlanMismatch,
    }
}

/// What ends a run on keys that are there.
fn of_run(error: &Ckks) -> Code {
    match error {
        Ckks::MissingKey { .. } => Code::KeyIncomplete,
        Ckks::Storage { .. } | Ckks::Wire(_) | Ckks::WrongKey { .. } | Ckks::BadKeyShape { .. } => {
            Code::KeyDamaged
        }
        Ckks::KeyMismatch { .. } => Code::KeyMismatch,
        Ckks::ParamsMismatch { .. } => Code::ParamsMismatch,
        _ => Code::Internal,
    }
}

fn of_model(error: &cipherlm_model::Error, text: String) -> Refusal {
    let class = if matches!(error, cipherlm_model::Error::File(_)) { "FileRefused" } else { "ModelRefused" };
    Refusal::new(class, text)
}

impl From<cipherlm_model::Error> for Refusal {
    fn from(error: cipherlm_model::Error) -> Self {
        of_model(&error, error.to_string())
    }
}

impl From<cipherlm_files::Error> for Refusal {
    fn from(error: cipherlm_files::Error) -> Self {
        Self::new("FileRefused", error.to_string())
    }
}

impl From<slots::Error> for Refusal {
    fn from(error: slots::Error) -> Self {
        Self::coded(Code::Internal, error.to_string())
    }
}

impl From<Ckks> for Refusal {
    fn from(error: Ckks) -> Self {
        Self::coded(object_code(&error), error.to_string())
    }
}

impl From<&Problem> for Refusal {
    fn from(problem: &Problem) -> Self {
        let class = problem.code().map_or_else(|| "StrangeAnswer".into(), |code| class_of(code.name()));
        Self { class, text: problem.to_string(), retry_after: problem.retry_after }
    }
}

impl From<Remote> for Refusal {
    fn from(error: Remote) -> Self {
        let text = error.to_string();
        let class = match error {
            Remote::Refused(problem) => return Self::from(problem.as_ref()),
            Remote::Infer(error) => return error.into(),
            Remote::Files(error) => return error.into(),
            Remote::Address { .. } => "AddressRefused",
            Remote::Tls { .. } => "TlsRefused",
            Remote::Line { .. } => "LineDown",
            Remote::Strange { .. } => "StrangeAnswer",
            Remote::Cancelled => "Cancelled",
            _ => "Malformed",
        };
        Self::new(class, text)
    }
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        Python::attach(|py| raised(py, &refusal).unwrap_or_else(|error| error))
    }
}

fn raised(py: Python<'_>, refusal: &Refusal) -> PyResult<PyErr> {
    let class = py.import("cipherlm.errors")?.getattr(refusal.class.as_str())?;
    let error = class.call1((refusal.text.as_str(),))?;
    if let Some(seconds) = refusal.retry_after {
        error.setattr("retry_after", seconds)?;
    }
    Ok(PyErr::from_value(error))
}

/// Every code of the protocol with the name of its exception.
#[pyfunction]
pub(crate) fn _codes() -> Vec<(&'static str, String)> {
    Code::ALL.iter().map(|code| (code.name(), class_of(code.name()))).collect()
}
