//! Requests for completions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::oracle::Oracle;

/// Most completions of one request.
const MOST: usize = 8;

/// What is asked, checked.
pub(super) struct Asked {
    /// A prompt's text and its tokens, for each completion.
    pub(super) prompts: Vec<(String, Vec<u32>)>,
    pub(super) max_tokens: usize,
    pub(super) temperature: f64,
    pub(super) top_p: f64,
    pub(super) seed: Option<u64>,
    pub(super) stop: Vec<String>,
    pub(super) bias: BTreeMap<usize, f64>,
    pub(super) echo: bool,
    pub(super) stream: bool,
    pub(super) logprobs: usize,
}

/// The body, as OpenAI's clients write it; what it does not name is passed over.
#[derive(Deserialize)]
struct Written {
    model: Option<String>,
    prompt: Option<Prompts>,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stop: Option<Stops>,
    n: Option<u64>,
    best_of: Option<u64>,
    suffix: Option<String>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f64>>,
    echo: Option<bool>,
    stream: Option<bool>,
    logprobs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Many(Vec<String>),
}

impl Asked {
    /// Reads and checks a request.
    pub(super) fn read(body: &[u8], oracle: &Oracle) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(body).map_err(|e| {
            format!("the request is not understood at line {}, column {}", e.line(), e.column())
        })?;
        if written.model.as_deref().is_some_and(|model| model != oracle.model()) {
            return Err(format!("there is one model here: {}", oracle.model()));
        }
        let zero = |x: Option<f64>| x.unwrap_or(0.0) == 0.0;
        if !zero(written.presence_penalty) || !zero(written.frequency_penalty) || written.suffix.is_some() {
            return Err("penalties and suffix are not supported: leave them out".into());
        }
        let within = |what: &str, x: Option<f64>, default: f64, most: f64| match x.unwrap_or(default) {
            x if (0.0..=most).contains(&x) => Ok(x),
            _ => Err(format!("{what} is a number from 0 to {most}")),
        };
        let n = written.n.or(written.best_of).unwrap_or(1);
        if written.best_of.is_some_and(|best| best != n) {
            return Err("best_of is not supported: leave it out".into());
        }
        let prompts = prompts(written.prompt.unwrap_or(Prompts::Text(String::new())), oracle)?;
        let count = prompts.len() as u64 * n;
        if n == 0 || count > MOST as u64 {
            return Err(format!("{count} completions are asked for, 1 to {MOST} are made"));
        }
        let stop = match written.stop {
            None => vec![],
            Some(Stops::One(text)) => vec![text],
            Some(Stops::Many(list)) => list,
        };
        if stop.len() > 4 || stop.iter().any(String::is_empty) {
            return Err("stop takes up to four texts, none of them empty".into());
        }
        let vocab = oracle.tokenizer().vocab();
        let mut bias = BTreeMap::new();
        for (token, value) in written.logit_bias.unwrap_or_default() {
            let token = token.parse().ok().filter(|token| *token < vocab);
            bias.insert(token.ok_or("logit_bias names tokens by their numbers")?, value.clamp(-100.0, 100.0));
        }
        Ok(Self {
            prompts: prompts.into_iter().flat_map(|p| std::iter::repeat_n(p, n as usize)).collect(),
            max_tokens: written.max_tokens.unwrap_or(16).min(1 << 20) as usize,
            temperature: within("temperature", written.temperature, 1.0, 2.0)?,
            top_p: within("top_p", written.top_p, 1.0, 1.0)?,
            seed: written.seed.map(|seed| seed as u64),
            stop,
            bias,
            echo: written.echo.unwrap_or(false),
            stream: written.stream.unwrap_or(false),
            logprobs: written.logprobs.unwrap_or(0).min(5) as usize,
        })
    }
}

fn prompts(written: Prompts, oracle: &Oracle) -> Result<Vec<(String, Vec<u32>)>, String> {
    let of_text = |text: String| {
        let tokens = oracle.tokenizer().encode(&text).map_err(|e| e.to_string())?;
        Ok((text, oracle.behind_prefix(&tokens).to_vec()))
    };
    let of_tokens = |tokens: Vec<u32>| {
        let text = oracle.tokenizer().decode(&tokens).map_err(|e| e.to_string())?;
        Ok((text, tokens))
    };
    let all: Result<Vec<(String, Vec<u32>)>, String> = match written {
        Prompts::Text(text) => Ok(vec![of_text(text)?]),
        Prompts::Texts(texts) => texts.into_iter().map(of_text).collect(),
        Prompts::Tokens(tokens) => Ok(vec![of_tokens(tokens)?]),
        Prompts::Lists(lists) => lists.into_iter().map(of_tokens).collect(),
    };
    let (all, most) = (all?, oracle.capacity());
    match all.iter().find(|(_, tokens)| tokens.is_empty() || tokens.len() > most) {
        Some((_, tokens)) => Err(format!("a prompt has {} tokens, the plan takes 1 to {most}", tokens.len())),
        None => Ok(all),
    }
}
