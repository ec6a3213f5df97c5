//! Encrypted transformer inference: layouts, planner, encrypted layers, client and server.
//!
//! A certified model ([`cipherlm_model`]) is compiled for one prompt length and one parameter set
//! into a [`Plan`]: where every number lies ([`Geometry`]), what is folded into which weights, on
//! which level each step lands, which values are refreshed. The plan runs on any slot machine: the
//! clear one checks it against the reference to 1e-6, the encrypted one is what a [`Server`] owns.
//!
//! ```no_run
//! use std::sync::Arc;
//! use cipherlm_circuits::bootstrap::Profile;
//! use cipherlm_infer::{Circuits, Client, Options, Plan, Profiler, Progress, Server};
//! use cipherlm_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Arc::new(Model::load("models/stories-2x128".as_ref())?);
//! let circuits = Circuits::new(&Profile::n16())?;
//! let plan = Plan::compile(model, circuits.target()?, &Options::default())?;
//! println!("{}", plan.explain());
//!
//! let client = Client::generate(circuits.params())?;
//! let keys = circuits.keys(client.secret(), &plan)?;
//! let server = Server::open(&circuits, client.key_id(), &keys)?;
//!
//! let prompt = client.encrypt(&plan, &[1, 2, 3])?;
//! let mut profiler = Profiler::new(&plan, |progress: &Progress<'_>| {
//!     eprintln!("{} ({:.0} s left)", progress.name, progress.left.as_secs_f64());
//!     true
//! });
//! let logits = server.run(&plan, prompt, &mut profiler)?;
//! let report = profiler.finish();
//! println!("{:?}", client.decrypt(&plan, &logits, 2)?);
//! # let _ = report;
//! # Ok(())
//! # }
//! ```
//!
//! # How a layer runs
//! * A token's features lie side by side, tokens after each other, and what is left of the slots
//!   holds copies. A weight matrix is then a set of diagonals that repeat with every token, short
//!   to store and encode; two real products share one complex one.
//! * Keys and values are shifted by one token more in each copy, so that one product compares each
//!   query with as many keys as there are copies; scores come out where the weights for the values
//!   are wanted, and no format changes in between.
//! * Scores are divided by `n eps` beforehand, through the rotary plaintexts of the queries; the
//!   reciprocal of the row mean multiplies the mixed values, never the score matrix. Numerators and
//!   denominators are refreshed together, as real and imaginary parts.
//! * Several prompts of one client share the slots that one of them leaves to copies: slot by slot,
//!   so that every step of the circuit is the same, with rotations and plaintexts as many times as
//!   long.
//! * Every value is kept in units of its certified range, so that slots stay within one wherever a
//!   refresh may be placed.

mod alone;
mod answer;
mod argmax;
mod batch;
mod calibrate;
mod candidates;
mod checkpoint;
mod client;
mod clientfolder;
mod clientside;
mod cost;
mod error;
mod exec;
mod feedback;
mod files;
mod fingerprint;
mod fold;
mod geometry;
mod graph;
mod index;
mod keyfolder;
mod keys;
mod lanes;
mod note;
mod ownkeys;
mod packed;
mod pairing;
mod placement;
mod plan;
mod prefix;
mod prices;
mod recipe;
mod refresh;
mod report;
mod run;
mod session;
mod small;
mod target;
mod textside;
mod vector;
mod verify;

pub use answer::check_position;
pub use candidates::{Candidate, Chosen, Tolerance, choose_profile, sample_tokens};
pub use checkpoint::Checkpoints;
pub use client::{Client, EncryptedLogits, EncryptedPrompt, PROMPT_SECRET, Server};
pub use clientfolder::ClientFolder;
pub use clientside::ClientSide;
pub use cost::CostModel;
pub use error::{Error, Result, object_code};
pub use fold::Purpose;
pub use geometry::Geometry;
pub use graph::Operator;
pub use index::{Found, Index};
pub use keyfolder::{KeyFolder, KeyOrder};
pub use note::Note;
pub use ownkeys::{SECRET_FILE, SERVER_FOLDER, insecure_profile, load_secret, own_profile};
pub use plan::{Memory, Options, Plan, Step, ensure_in_range};
pub use recipe::Recipe;
pub use refresh::Circuits;
pub use report::{Profiler, Report, StepTime};
pub use run::{Done, Observer, Progress, Start, Wanted};
pub use session::Session;
pub use small::{Asked, SmallRings};
pub use target::Target;
pub use textside::{Opened, TextSide, meaning, prompt_tokens};
pub use verify::{Audit, Closeness, Errors, Forecast, StepError};
