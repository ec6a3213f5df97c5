//! A transformer as data: shape, weights, polynomial sites with certified ranges, tokenizer, and a
//! plain f64 reference.
//!
//! A model folder holds `model.json` ([`ModelSpec`]: shape, certified sites, provenance),
//! `weights.safetensors` ([`Weights`]: f32 stored, f64 in use; names in [`Shape::tensors`]) and
//! `tokenizer.json` ([`Tokenizer`]). [`Runner`] is the reference forward pass, exact or polynomial;
//! the encrypted run is compared with its polynomial mode, and nothing here knows about
//! ciphertexts.
//!
//! ```
//! use cipherlm_model::{Mode, Positions, Runner, Shape, random};
//!
//! let shape = Shape::preset("test").ok_or("no such preset")?;
//! let model = random::certified("demo", &shape, 1)?;
//! let exact = Runner::new(&model, Mode::Exact)?.forward(&[1, 2, 3], Positions::Last)?;
//! let polynomial = Runner::new(&model, Mode::Polynomial)?.forward(&[1, 2, 3], Positions::Last)?;
//! assert!((exact[0][0] - polynomial[0][0]).abs() < 0.05);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod certify;
pub mod difference;
mod error;
mod folder;
mod forward;
mod function;
pub mod import;
mod lean;
mod model;
mod presets;
mod program;
pub mod random;
mod range;
mod scheme;
mod shape;
mod site;
mod tokenizer;
mod weights;

pub use certify::{
    FitOptions, Freezing, Margins, OutOfRange, SiteReport, certify, ensure_certified, fit, freeze_eps,
    out_of_range, survey,
};
pub use error::{Error, Result};
pub use folder::{MODEL_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
pub use forward::{Embedding, EmbeddingShape, Mode, Positions, Prepared, Runner, SiteStats};
pub use function::Function;
pub use lean::{freeze_norms, with_quadratics};
pub use model::{Model, ModelSpec};
pub use program::{Op, Program, Stage, Value};
pub use range::Range;
pub use scheme::Scheme;
pub use shape::{
    Activation, Attention, Eps, Kind, Norm, Placement, Pool, Residual, Rotary, Shape, is_calibrated,
};
pub use site::{Observed, Site};
pub use tokenizer::{TextStream, Tokenizer};
pub use weights::{Tensor, Weights, in_name_order};
