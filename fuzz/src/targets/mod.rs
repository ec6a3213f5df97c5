//! What is fuzzed: one target for each parser and file of ours.

mod approx;
mod import;
mod infer;
mod model;
mod params;
mod shipped;
mod small;
mod tokenizer;
mod wire;

use crate::engine::Probe;
use crate::mutate;
use crate::rng::Rng;

/// What a parser made of an input.
pub(crate) enum Verdict {
    /// A typed error, in words.
    Refused(String),
    /// An object that, written again, is the input.
    Accepted,
    /// An object that is not what the input says, and how it was seen.
    Wrong(String),
}

/// A parser with its oracle.
pub(crate) trait Target {
    /// Valid inputs.
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>>;

    /// One edit.
    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        mutate::bytes(input, pool, rng);
    }

    /// Makes hashes and lengths right again, as an attacker would.
    fn reseal(&self, _input: &mut Vec<u8>) {}

    /// Parses, and checks what was accepted.
    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict;

    /// Bytes that the parser may hold at a time for an input of this length.
    fn ceiling(&self, length: usize) -> usize;
}

/// All targets.
pub(crate) const NAMES: [&str; 28] = [
    "answer",
    "checkpoint",
    "ciphertext",
    "client_plan",
    "cost_table",
    "difference",
    "gguf",
    "hugging_face",
    "key_description",
    "key_folder",
    "key_manifest",
    "key_set",
    "ledger",
    "llama2c",
    "model",
    "params",
    "polynomial",
    "profile",
    "prompt",
    "public_key",
    "scheme",
    "secret",
    "switching_key",
    "tokenizer",
    "tokenizer_gpt2",
    "tokenizer_hf",
    "tokenizer_llama2c",
    "weights",
];

/// The target of that name.
pub(crate) fn by_name(name: &str) -> anyhow::Result<Box<dyn Target>> {
    Ok(match name {
        "ciphertext" => Box::new(wire::Object::ciphertext()?),
        "public_key" => Box::new(wire::Object::public_key()?),
        "switching_key" => Box::new(wire::Object::switching_key()?),
        "key_set" => Box::new(wire::Object::key_set()?),
        "secret" => Box::new(wire::Object::secret()?),
        "prompt" => Box::new(wire::Object::prompt()?),
        "answer" => Box::new(wire::Object::answer()?),
        "params" => Box::new(params::Builder),
        "profile" => Box::new(small::Profiles),
        "ledger" => Box::new(small::Ledger::new()?),
        "cost_table" => Box::new(small::CostTable::new()?),
        "difference" => Box::new(shipped::Difference::new()?),
        "client_plan" => Box::new(shipped::Plan),
        "key_manifest" => Box::new(shipped::Manifest),
        "hugging_face" => Box::new(import::Public::folder()?),
        "gguf" => Box::new(import::Public::gguf()?),
        "llama2c" => Box::new(import::Public::llama2c()?),
        "checkpoint" => Box::new(infer::Checkpoint::new()?),
        "key_folder" => Box::new(infer::Folder::new()?),
        "key_description" => Box::new(infer::Description::new()?),
        "model" => Box::new(model::Folder::new()?),
        "weights" => Box::new(model::Tensors),
        "tokenizer" => Box::new(tokenizer::Own),
        "tokenizer_gpt2" => Box::new(tokenizer::Gpt2),
        "tokenizer_hf" => Box::new(tokenizer::HuggingFace),
        "tokenizer_llama2c" => Box::new(tokenizer::Llama2c),
        "scheme" => Box::new(approx::Schemes),
        "polynomial" => Box::new(approx::Polynomials),
        other => anyhow::bail!("no target {other}"),
    })
}

/// Memory of a JSON parser: a list of lists takes 32 bytes for two of text, and vectors grow by
/// doubling.
fn json_ceiling(length: usize) -> usize {
    128 * length + (256 << 10)
}

/// Memory of a binary parser: three times the input, and room for messages.
fn binary_ceiling(length: usize) -> usize {
    3 * length + (4 << 10)
}

/// A folder in memory where the system has one, for targets that read files.
fn scratch_folder(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let memory = std::path::Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("cipherlm-fuzz-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
