//! Typed errors of planning and running.

use cipherlm_circuits::slots;
use cipherlm_ckks::{Error as Ckks, WireError};
use cipherlm_protocol::Code;

/// Anything that can be wrong with a plan, its inputs or its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model is at fault.
    #[error(transparent)]
    Spec(#[from] cipherlm_model::Error),
    /// A slot operation refused its operands.
    #[error("{node}: {source}")]
    Slots {
        /// The step of the plan.
        node: String,
        /// What the machine said.
        source: slots::Error,
    },
    /// A model feature that has no encrypted form here.
    #[error("{feature} has no encrypted form: {advice}")]
    Unsupported {
        /// The feature.
        feature: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// The model does not fit the parameters.
    #[error("{what}: {need} needed, {have} available; {advice}")]
    DoesNotFit {
        /// The resource.
        what: &'static str,
        /// How much is needed.
        need: u64,
        /// How much there is.
        have: u64,
        /// How to make it fit.
        advice: &'static str,
    },
    /// No placement of refreshes keeps every step above level zero.
    #[error(
        "no placement of refreshes serves {node}: the chain has {top} levels after a refresh, the longest \
         stretch needs {need}"
    )]
    NoPlacement {
        /// The step where it fails.
        node: String,
        /// Levels after a refresh.
        top: usize,
        /// Levels needed.
        need: usize,
    },
    /// No profile is precise enough.
    #[error(
        "no profile meets the tolerance (mean square error {wanted_mse:.1e}, {wanted_same} of answers the \
         same): the closest, {best}, is predicted at {mse:.1e} and {same:.4}; allow more with --tolerance, \
         or name a profile"
    )]
    NoProfile {
        /// Mean square error of the most precise one.
        mse: f64,
        /// Its share of answers that stay the same.
        same: f64,
        /// Its name.
        best: &'static str,
        /// Largest mean square error allowed.
        wanted_mse: f64,
        /// Smallest share allowed.
        wanted_same: f64,
    },
    /// The prompt is not one this plan can take.
    #[error("the prompt has {length} tokens, this plan takes 1 to {capacity}: {advice}")]
    Prompt {
        /// Tokens given.
        length: usize,
        /// Tokens the plan was made for.
        capacity: usize,
        /// What to do.
        advice: &'static str,
    },
    /// Another number of prompts than one pass takes.
    #[error(
        "{given} prompts, and this plan takes 1 to {capacity} in one pass: split them, or plan for more \
         prompts"
    )]
    Prompts {
        /// Prompts given.
        given: usize,
        /// Prompts the plan was made for.
        capacity: usize,
    },
    /// One of several prompts is refused.
    #[error("prompt {prompt}: {source}")]
    OfPrompt {
        /// Its number, from 1.
        prompt: usize,
        /// Why.
        source: Box<Error>,
    },
    /// The answer does not hold this position.
    #[error("position {position} of the answer to {length} tokens: {advice}")]
    Position {
        /// Position asked for, from 0.
        position: usize,
        /// Tokens of the prompt.
        length: usize,
        /// What to do.
        advice: &'static str,
    },
    /// On this prompt an activation leaves the range that its polynomial was certified for.
    #[error(
        "{} `{site}` takes values in [{min:.4}, {max:.4}], certified for [{lo:.4}, {hi:.4}]: {}",
        range_place(*position, *repeated),
        range_advice(*repeated)
    )]
    LeavesRange {
        /// Position of the first token on which it does; `None` where all are seen at once.
        position: Option<usize>,
        /// The length that the prompt is repeated to, when its own tokens stay inside.
        repeated: Option<usize>,
        /// The site.
        site: String,
        /// Certified lower end.
        lo: f64,
        /// Certified upper end.
        hi: f64,
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Two things that must belong together do not.
    #[error("{what}: {found} does not belong to {expected}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// Identity expected.
        expected: String,
        /// Identity found.
        found: String,
    },
    /// A polynomial could not be planned.
    #[error("polynomial of `{site}`: {reason}")]
    Polynomial {
        /// The site.
        site: String,
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] cipherlm_files::Error),
    /// A file is not what it should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// The file or field.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// An encrypted object is damaged, cut short, or another than it should be.
    #[error("{what} is malformed: {source}")]
    Wire {
        /// The object.
        what: &'static str,
        /// What its parser said.
        source: cipherlm_ckks::Error,
    },
    /// The description of a plan is refused.
    #[error(transparent)]
    ClientPlan(#[from] cipherlm_protocol::PlanError),
    /// An embedded token is larger than the model was certified for.
    #[error(
        "token {} of the prompt has an embedding of {found:.4}, and the model is certified up to \
         {bound:.4}: rephrase the prompt",
        position + 1
    )]
    EmbeddingRange {
        /// Position of the token.
        position: usize,
        /// Its largest feature.
        found: f64,
        /// The certified range.
        bound: f64,
    },
    /// A decryption that cannot be what the plan computes.
    #[error(
        "this is no answer of the plan: {what} is {found:.3e}, and at most {bound:.3e} is possible; a value \
         left its range on the way, or the answer is damaged: encrypt the prompt again"
    )]
    NotAnAnswer {
        /// What gives it away.
        what: &'static str,
        /// Its size.
        found: f64,
        /// The largest size that it could have.
        bound: f64,
    },
    /// Something that the code promises itself does not hold: a fault of this library.
    #[error("an internal invariant does not hold ({what}): please report it with the command that was run")]
    Internal {
        /// The invariant.
        what: String,
    },
    /// A folder is none of a client's plan.
    #[error("{folder} is no folder of `cipherlm plan --client`: make one first: {source}")]
    NoClientFolder {
        /// The folder.
        folder: String,
        /// The file that is missing.
        source: Box<cipherlm_files::Error>,
    },
    /// A file beside a client plan is not the one that it names.
    #[error(
        "the {what} has {found}, the plan says {expected}: make the folder again with \
         `cipherlm plan --client`"
    )]
    NotOfThePlan {
        /// The file.
        what: &'static str,
        /// What the plan says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A client plan for other keys.
    #[error(
        "the client plan is {found}, the keys were made for plan {expected}: pass the plan that they were \
         made with, or make new keys"
    )]
    OtherPlan {
        /// The plan of the keys.
        expected: String,
        /// The plan that was given.
        found: String,
    },
    /// A profile that this version does not have.
    #[error("the profile `{name}` is not one of this version: make new keys")]
    UnknownProfile {
        /// Its name.
        name: String,
    },
    /// A degree that no small ring has.
    #[error("a small ring has degree 2^8 to 2^15, not 2^{log_degree}")]
    SmallRing {
        /// log2 of the degree.
        log_degree: u32,
    },
    /// The secret key cannot be read.
    #[error("the secret key {file}: pass the folder that `cipherlm keygen` made: {source}")]
    NoSecret {
        /// The file.
        file: String,
        /// Why.
        source: Box<cipherlm_files::Error>,
    },
    /// The secret key is no secret.
    #[error("{file} can be read by others (mode {mode:03o}): chmod 600 {file}")]
    SecretOpen {
        /// The file.
        file: String,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not the secret key of the parameters.
    #[error("{file} is not the secret key of these parameters: restore it, or make new keys: {source}")]
    NotTheSecret {
        /// The file.
        file: String,
        /// What its parser said.
        source: Box<Ckks>,
    },
    /// A file is no client's note.
    #[error("{file} is no note of `encrypt`: {reason}")]
    NotANote {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A prompt without text.
    #[error("the prompt is empty: pass some text")]
    EmptyPrompt,
    /// A prompt that is longer than the model's context.
    #[error("the prompt has {length} tokens and the model takes {context}: shorten it")]
    LongPrompt {
        /// Its tokens.
        length: usize,
        /// Positions that the model has for it.
        context: usize,
    },
    /// The making of keys was asked to stop between two keys.
    #[error("stopped with {bytes} bytes of keys made; the same command goes on from them")]
    KeysStopped {
        /// Bytes of the keys that are there.
        bytes: u64,
    },
    /// The run was asked to stop between two steps; checkpoints hold what was done.
    #[error("stopped before step {step} of {steps}; run again with the same checkpoint folder to go on")]
    Stopped {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
}

fn range_place(position: Option<usize>, repeated: Option<usize>) -> String {
    match (position, repeated) {
        (_, Some(length)) => format!("the prompt itself stays in range, but repeated to {length} tokens"),
        (Some(position), None) => format!("on this prompt, at token {},", position + 1),
        (None, None) => "on this prompt".into(),
    }
}

fn range_advice(repeated: Option<usize>) -> &'static str {
    match repeated {
        Some(_) => "write a longer prompt, or plan for a shorter length",
        None => "rephrase the prompt, or certify the model with wider margins",
    }
}

/// The protocol's code of an encrypted object or key that is refused.
pub fn object_code(error: &Ckks) -> Code {
    match error {
        Ckks::Wire(wire) => match wire {
            WireError::Truncated { .. } => Code::ObjectTruncated,
            WireError::TrailingBytes { .. } => Code::ObjectTrailing,
            WireError::Magic => Code::ObjectMagic,
            WireError::Version { .. } => Code::ObjectVersion,
            WireError::Type { .. } => Code::ObjectType,
            WireError::BodyLength { .. } => Code::ObjectLength,
            WireError::Checksum => Code::ObjectHash,
            WireError::Residue { .. } => Code::ObjectResidue,
            _ => Code::ObjectField,
        },
        Ckks::ParamsMismatch { .. } => Code::ParamsMismatch,
        Ckks::KeyMismatch { .. } => Code::KeyMismatch,
        Ckks::Insecure { .. } | Ckks::NoSecurityEstimate { .. } => Code::KeyInsecure,
        Ckks::BadKeyShape { .. } | Ckks::LevelOutOfRange { .. } => Code::KeyShape,
        _ => Code::ObjectField,
    }
}

/// An invariant that does not hold.
pub(crate) fn broken(invariant: &str) -> Error {
    Error::Internal { what: invariant.to_owned() }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Attaches the name of a step to a slot error.
pub(crate) trait At<T> {
    fn at(self, node: &str) -> Result<T>;
}

impl<T> At<T> for slots::Result<T> {
    fn at(self, node: &str) -> Result<T> {
        self.map_err(|source| Error::Slots { node: node.to_owned(), source })
    }
}
