//! `cipherlm generate`: continues a prompt in the clear.

use crate::console::{out, out_json, out_part};
use crate::options::{ModelOption, PromptOption, count, profiles, small_ring, temperature, tokens};
use crate::prices::PricesOption;
use crate::sampler::Sampler;
use anyhow::bail;
use cipherlm_model::{Mode, Positions, Runner};
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) model: ModelOption,
    #[command(flatten)]
    pub(super) prompt: PromptOption,
    /// How many tokens.
    #[arg(long, default_value = "32", value_parser = tokens())]
    pub(super) tokens: usize,
    /// 0 takes the most likely token; higher values sample.
    #[arg(long, default_value = "0", value_parser = temperature)]
    pub(super) temperature: f64,
    /// Sample among this many of the most likely tokens.
    #[arg(long, default_value = "40", value_parser = count(1..=1 << 20))]
    pub(super) top_k: usize,
    /// Seed of the sampler.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Use the exact functions instead of the polynomials.
    #[arg(long, conflicts_with = "encrypted")]
    exact: bool,
    /// Run under encryption at 128-bit parameters, token by token over encrypted keys and values,
    /// and check every token.
    #[arg(long)]
    pub(super) encrypted: bool,
    /// With --encrypted: find and feed back the last so many tokens without the client.
    #[arg(long, requires = "encrypted", default_value = "0", value_parser = count(0..=1 << 20))]
    pub(super) alone: usize,
    /// With --encrypted, NO SECURITY: a small ring of degree 2^LOG_N, to try it in seconds.
    #[arg(long, requires = "encrypted", value_name = "LOG_N", value_parser = small_ring)]
    pub(super) insecure_ring: Option<u32>,
    /// With --encrypted: parameter set, 128-bit secure. `auto` takes the one with the shortest
    /// predicted conversation whose predicted answer to the prompt is within the tolerance of
    /// `cipherlm plan`, and the most exact one where none is. With --alone, and for a model whose
    /// keys and values fit no vector, it is n16-13.
    #[arg(long, value_parser = profiles(), default_value = "auto")]
    pub(super) profile: String,
    #[command(flatten)]
    pub(super) prices: PricesOption,
}

/// Continues a prompt.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let prompt = options.prompt.read(None)?;
    let loaded = options.model.load()?;
    loaded.ensure_continues("generate")?;
    let mode = if options.exact { Mode::Exact } else { Mode::Polynomial };
    let mut tokens = loaded.tokens(&prompt, options.tokens)?;
    let mut runner = Runner::new(&loaded.model, mode)?;
    let mut sampler = Sampler::new(options.temperature, options.top_k, options.seed)?;
    let mut fresh = tokens.clone();
    let mut stream = loaded.tokenizer.stream(&tokens)?;
    let stream_wanted = !as_json && std::io::stdout().is_terminal();
    let prompt_length = tokens.len();
    if stream_wanted {
        out_part(&prompt);
    }
    for _ in 0..options.tokens {
        let rows = runner.append(&fresh, Positions::Last)?;
        let Some(logits) = rows.last() else { bail!("the model returned no logits") };
        let next = sampler.pick(&logits[..loaded.choices().min(logits.len())]);
        if loaded.tokenizer.is_end(next) {
            break;
        }
        tokens.push(next);
        fresh = vec![next];
        if stream_wanted {
            out_part(&stream.push(next)?);
        }
    }
    let (asked, new) = tokens.split_at(prompt_length);
    let answer = loaded.continuation(asked, new)?;
    if as_json {
        out_json(&json!({"machine": "clear", "prompt": prompt, "answer": answer, "tokens": tokens}));
    } else if stream_wanted {
        out(&stream.finish());
    } else {
        out(&format!("{prompt}{answer}"));
    }
    Ok(true)
}
