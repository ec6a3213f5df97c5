//! A model, its parameters and its plan: everything that exists before any key.

use crate::model::Loaded;
use anyhow::{Context, bail};
use cipherlm_ckks::bootstrap::Profile;
use cipherlm_infer::{Circuits, Options, Plan};
use std::sync::Arc;

/// Prompt lengths that plans are made for.
const LENGTHS: [usize; 4] = [16, 32, 64, 128];

pub(crate) struct Setup {
    pub(crate) loaded: Loaded,
    pub(crate) profile: Profile,
    pub(crate) circuits: Circuits,
    pub(crate) plan: Plan,
}

impl Setup {
    /// Plans the model for `length` tokens, or for the smallest length that holds `need`.
    pub(crate) fn new(loaded: Loaded, length: Option<usize>, need: usize) -> anyhow::Result<Self> {
        let length = match length {
            Some(length) if length < need => bail!("--length {length} is too short: {need} tokens have to fit"),
            Some(length) => length,
            None => LENGTHS
                .into_iter()
                .find(|l| *l >= need)
                .with_context(|| format!("{need} tokens do not fit the longest plan of 128: shorten the prompt"))?,
        };
        cipherlm_spec::ensure_certified(&loaded.model)?;
        let profile = Profile::n16();
        let circuits = Circuits::new(&profile)?;
        let options = Options { tokens: length, ..Options::default() };
        let plan = Plan::compile(Arc::new(loaded.model.clone()), circuits.target()?, &options)?;
        Ok(Self { loaded, profile, circuits, plan })
    }

    /// The text of some tokens.
    pub(crate) fn text(&self, tokens: &[u32]) -> String {
        let bytes = self.loaded.tokenizer.decode_bytes(tokens).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What will run, in a few lines.
    pub(crate) fn summary(&self) -> String {
        let params = self.circuits.params();
        let shape = self.loaded.model.shape();
        let (bootstraps, _) = self.plan.refreshes();
        let (stored, resident) = self.circuits.key_bytes(&self.plan).unwrap_or_default();
        format!(
            "model       {}: {} layers x {}, {} parameters\n\
             parameters  N = 2^{}, log QP {:.0}, {:.0}-bit security, profile {}; kernel {}, {} threads\n\
             plan        {} tokens, {} steps, {bootstraps} bootstraps {:?} a layer, about {:.0} s predicted\n\
             keys        {:.2} GiB stored, {:.2} GiB in memory",
            self.loaded.model.spec().name,
            shape.layers,
            shape.d_model,
            shape.parameters(),
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            self.profile.name,
            params.ring().kernel_name(),
            threads(),
            self.plan.tokens(),
            self.plan.steps(),
            self.plan.refreshes_by_layer(),
            self.plan.seconds(),
            gib(stored),
            gib(resident),
        )
    }

    /// Refuses before any work when the keys cannot fit the memory that is free.
    pub(crate) fn price_memory(&self) -> anyhow::Result<()> {
        let (_, resident) = self.circuits.key_bytes(&self.plan)?;
        // Plaintexts, digits and ciphertexts in flight, as measured, on top of the keys.
        let need = resident + (3 << 30);
        if let Some(have) = available_memory().filter(|have| *have < need) {
            bail!(
                "{:.1} GiB of memory are needed and {:.1} GiB are free: close other programs or use a shorter --length",
                gib(need),
                gib(have)
            );
        }
        Ok(())
    }
}

/// A prompt of exactly `length` tokens: the shipped sample text, repeated.
pub(crate) fn sample(loaded: &Loaded, length: usize) -> anyhow::Result<Vec<u32>> {
    const TEXT: &str = "Once upon a time there was a little girl named Lily. She had a red ball and she liked to play with \
        it in the park. One day, her friend Tom came to the park. He said, \"Can I play with you?\" Lily smiled and said, \"Yes!\" ";
    let most = loaded.model.shape().context;
    if length == 0 || length > most {
        bail!("the model takes 1 to {most} tokens, not {length}");
    }
    let tokens = loaded.tokenizer.encode(&TEXT.repeat(1 + length / 16));
    Ok(tokens.into_iter().take(length).collect())
}

/// Worker threads of this process.
pub(crate) fn threads() -> usize {
    cipherlm_ckks::ring::par::threads()
}

pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes that can be taken without swapping, where the system tells.
fn available_memory() -> Option<u64> {
    status_kib("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024)
}

/// The most memory this process has held.
pub(crate) fn peak_memory() -> u64 {
    status_kib("/proc/self/status", "VmHWM:").unwrap_or(0) * 1024
}

/// Processor name, for reports.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")?.split(':').nth(1).map(str::trim));
    name.unwrap_or("unknown processor").to_string()
}

fn status_kib(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
}
