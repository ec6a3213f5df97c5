//! The command line of `cipherlm`.

use cipherlm_ckks::bootstrap::Profile as Chain;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Private inference with PowerSoftmax transformers under homomorphic encryption.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done; 1 ran, but the result does not pass; 2 refused, with the reason and the next step on standard error."
)]
pub(crate) struct Cli {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the model on a prompt under encryption at 128-bit parameters and check the answer.
    Demo(Demo),
    /// Show where an encrypted forward pass spends its time.
    Profile(Profile),
    /// Compile a model and print what its encrypted run will take, before any key exists.
    Plan(Plan),
    /// Client: make a secret key, and the evaluation keys that a server needs for one plan.
    Keygen(Keygen),
    /// Client: encrypt a prompt.
    Encrypt(Encrypt),
    /// Server: run the model on an encrypted prompt. Holds no secret key.
    Run(Run),
    /// Client: decrypt an answer.
    Decrypt(Decrypt),
    /// Continue a prompt: in the clear with the exact functions or the certified polynomials, or under encryption.
    Generate(Generate),
    /// Perplexity of a text: exact functions beside polynomials, and how often both pick the same token.
    Eval(Eval),
    /// Find ranges on calibration text, check them on held-out text, fit the polynomials, write the model.
    Certify(Certify),
    /// Say what one of our files or folders is.
    Inspect(Inspect),
    /// Measure: latency of three attention normalisers, or cost against the length and shape of a model.
    Experiment(Experiment),
    /// Train a model from a run file; needs the feature `train`.
    Train(Train),
    /// Print completions for a shell.
    Completions(Completions),
}

/// The secure parameter sets, by name.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ParameterSet {
    /// Conservative: the ephemeral secret of bootstrapping has weight 48, like none of the peers'.
    #[value(name = "n16")]
    N16,
    /// One level more and so fewer bootstraps, about a third less time; weight 30, like the peers'.
    #[value(name = "n16-fast")]
    N16Fast,
}

impl ParameterSet {
    /// Its chain.
    pub(crate) fn chain(self) -> Chain {
        match self {
            Self::N16 => Chain::n16(),
            Self::N16Fast => Chain::n16_fast(),
        }
    }
}

#[derive(Args)]
pub(crate) struct Demo {
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// The text to continue.
    #[arg(long, default_value = "Once upon a time, there was a little")]
    pub(crate) prompt: String,
    /// How many tokens to generate.
    #[arg(long, default_value_t = 1)]
    pub(crate) tokens: usize,
    /// Prompt length to plan for (default: the next of 16, 32, 64, 128).
    #[arg(long)]
    pub(crate) length: Option<usize>,
    /// Also write the result as JSON here.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// Write the report as a self-contained HTML page.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Also decrypt after every step, and compare with what the noise machine promises.
    #[arg(long)]
    pub(crate) precision: bool,
    /// NO SECURITY: a small ring of degree 2^LOG_N, to try the command in seconds; its result does not pass.
    #[arg(long, value_name = "LOG_N")]
    pub(crate) insecure_ring: Option<u32>,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    pub(crate) profile: ParameterSet,
}

#[derive(Args)]
pub(crate) struct Profile {
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Prompt length.
    #[arg(long, default_value_t = 128)]
    pub(crate) length: usize,
    /// Also write the profile as JSON here.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// Write it as a self-contained HTML page.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Also decrypt after every step, and compare with what the noise machine promises.
    #[arg(long)]
    pub(crate) precision: bool,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    pub(crate) profile: ParameterSet,
}

#[derive(Args)]
pub(crate) struct Plan {
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Prompt length.
    #[arg(long, default_value_t = 32)]
    pub(crate) length: usize,
    /// Print every step with its levels, and the reason of every bootstrap.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    pub(crate) profile: ParameterSet,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// A new folder: `secret.key` in it stays with you, the folder `server` in it goes to the server.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Longest prompt, in tokens.
    #[arg(long, default_value_t = 32)]
    pub(crate) length: usize,
    /// Go on after an interruption: keep the secret key, make the evaluation keys that are missing.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Only print what the keys will take.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// NO SECURITY: a small ring of degree 2^LOG_N, to try the commands in seconds.
    #[arg(long, value_name = "LOG_N")]
    pub(crate) insecure_ring: Option<u32>,
    /// Parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    pub(crate) profile: ParameterSet,
}

#[derive(Args)]
pub(crate) struct Encrypt {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// The text to continue.
    #[arg(long)]
    pub(crate) prompt: String,
    /// Where to write the encrypted prompt; a note with the prompt's tokens, for `decrypt`, is put beside it.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Run {
    /// The folder `server` that `keygen` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// The encrypted prompt.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Where to write the encrypted answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Keep finished steps here; after an interruption (Ctrl-C, kill) the same command goes on from them.
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoints: Option<PathBuf>,
    /// Keep steps that took at least this many seconds.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub(crate) checkpoint_after: f64,
    /// Hold at most this many GiB of keys in memory and load the others when they are needed (default: all).
    #[arg(long, value_name = "GIB")]
    pub(crate) key_memory: Option<f64>,
    /// Write where the time went as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Decrypt {
    /// The folder that `keygen` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// The encrypted answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The note that `encrypt` left beside the prompt.
    #[arg(long, value_name = "FILE", required_unless_present = "position")]
    pub(crate) note: Option<PathBuf>,
    /// The prompt's position to read, from 0 (default: its last token, from the note).
    #[arg(long)]
    pub(crate) position: Option<usize>,
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Show this many of the most likely tokens, with logits rounded so that they may be shared.
    #[arg(long, default_value_t = 1)]
    pub(crate) top: usize,
    /// Compare with the model in the clear; needs the note.
    #[arg(long, requires = "note")]
    pub(crate) check: bool,
}

#[derive(Args)]
pub(crate) struct Generate {
    /// Model folder.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// The text to continue.
    #[arg(long)]
    pub(crate) prompt: String,
    /// How many tokens.
    #[arg(long, default_value_t = 32)]
    pub(crate) tokens: usize,
    /// 0 takes the most likely token; higher values sample.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f64,
    /// Sample among this many of the most likely tokens.
    #[arg(long, default_value_t = 40)]
    pub(crate) top_k: usize,
    /// Seed of the sampler.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Use the exact functions instead of the polynomials.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Run under encryption at 128-bit parameters, token by token over encrypted keys and values, and check every token.
    #[arg(long)]
    pub(crate) encrypted: bool,
    /// With --encrypted: find and feed back the last so many tokens without the client.
    #[arg(long, requires = "encrypted", default_value_t = 0)]
    pub(crate) alone: usize,
    /// With --encrypted: parameter set, 128-bit secure.
    #[arg(long, value_enum, default_value = "n16")]
    pub(crate) profile: ParameterSet,
}

#[derive(Args)]
pub(crate) struct Eval {
    /// Model folder.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Text to measure on.
    #[arg(long)]
    pub(crate) text: PathBuf,
    /// Tokens a window (default: the model's context).
    #[arg(long)]
    pub(crate) window: Option<usize>,
    /// Stop after this many windows.
    #[arg(long, default_value_t = 64)]
    pub(crate) windows: usize,
}

#[derive(Args)]
pub(crate) struct Certify {
    /// Model folder.
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Text that the ranges are found on.
    #[arg(long)]
    pub(crate) calibration: PathBuf,
    /// Text that they are checked on.
    #[arg(long)]
    pub(crate) held_out: PathBuf,
    /// Windows of each text to use.
    #[arg(long, default_value_t = 256)]
    pub(crate) windows: usize,
    /// Freeze the denominator's constant per layer, head and row at (largest mean) / RATIO first.
    #[arg(long)]
    pub(crate) freeze: Option<f64>,
    /// Where to write the certified model (default: do not write).
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// A model folder, or a key, ciphertext, plan or checkpoint file.
    pub(crate) path: PathBuf,
}

#[derive(Args)]
pub(crate) struct Experiment {
    /// `latency` or `length`.
    pub(crate) name: String,
    /// A few points only.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Folder for the CSV.
    #[arg(long, default_value = "target/experiments")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Train {
    /// The run file.
    pub(crate) config: PathBuf,
    /// Go on from the last checkpoints of the run.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Folder for checkpoints and logs, instead of the one in the run file.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where to write the certified model.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell.
    pub(crate) shell: clap_complete::Shell,
}
