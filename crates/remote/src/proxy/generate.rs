//! Completions, token by token, with signs of life while the server computes.

use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use http_body_util::channel::Sender;
use serde_json::{Value, json};

use super::failure;
use super::oracle::Oracle;
use super::request::Asked;
use super::sample::{Sampler, log_probabilities};
use crate::error::Result;

/// Between two signs of life: comments in a stream, spaces before a JSON value.
const STREAM_ALIVE: Duration = Duration::from_secs(5);
const PLAIN_ALIVE: Duration = Duration::from_secs(10);

/// Where a completion goes.
struct Line {
    send: Sender<Bytes>,
    stream: bool,
}

/// The reader went away.
struct Gone;

impl Line {
    async fn write(&mut self, text: String) -> std::result::Result<(), Gone> {
        self.send.send_data(Bytes::from(text)).await.map_err(|_| Gone)
    }

    /// Waits for the logits and shows that something goes on. A reader who goes away ends the job.
    async fn logits(
        &mut self,
        oracle: &Oracle,
        tokens: &[u32],
    ) -> std::result::Result<Result<Vec<f64>>, Gone> {
        let (every, sign) = if self.stream { (STREAM_ALIVE, ": keep-alive\n\n") } else { (PLAIN_ALIVE, " ") };
        let mut found = std::pin::pin!(oracle.logits(tokens));
        loop {
            tokio::select! {
                logits = found.as_mut() => return Ok(logits),
                () = tokio::time::sleep(every) => self.write(sign.into()).await?,
            }
        }
    }
}

/// The likeliest tokens and the logarithms of their probabilities.
type Best = Vec<(String, f64)>;

/// One completion as far as it has come.
struct Choice {
    index: usize,
    text: String,
    /// Bytes of the text that a stream has sent.
    sent: usize,
    tokens: Vec<u32>,
    logprobs: Vec<(String, f64, Best)>,
    finish: Option<&'static str>,
}

/// Makes all completions of a request and writes them.
pub(super) async fn run(oracle: &Oracle, asked: &Asked, send: Sender<Bytes>) {
    let mut line = Line { send, stream: asked.stream };
    let head = head(oracle);
    let mut choices = vec![];
    for (index, (text, prompt)) in asked.prompts.iter().enumerate() {
        let echo = if asked.echo { text.clone() } else { String::new() };
        let (tokens, logprobs) = (vec![], vec![]);
        let mut choice = Choice { index, text: echo, sent: 0, tokens, logprobs, finish: None };
        match complete(oracle, asked, prompt, &mut choice, &head, &mut line).await {
            Ok(Ok(())) => choices.push(choice),
            Ok(Err(error)) => {
                let failed = failure(&error.to_string());
                let text = if asked.stream { format!("data: {failed}\n\n") } else { failed.to_string() };
                let _ = line.write(text).await;
                return;
            }
            Err(Gone) => return,
        }
    }
    let last = if asked.stream {
        "data: [DONE]\n\n".to_owned()
    } else {
        let prompt: usize = asked.prompts.iter().map(|(_, tokens)| tokens.len()).sum();
        let made: usize = choices.iter().map(|choice| choice.tokens.len()).sum();
        let mut whole = head.clone();
        whole["choices"] = choices.iter().map(|c| shown(c, &c.text, asked)).collect();
        whole["usage"] = json!({
            "prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made
        });
        whole.to_string()
    };
    let _ = line.write(last).await;
}

async fn complete(
    oracle: &Oracle,
    asked: &Asked,
    prompt: &[u32],
    choice: &mut Choice,
    head: &Value,
    line: &mut Line,
) -> std::result::Result<Result<()>, Gone> {
    let start = choice.text.len();
    let seed = asked.seed.unwrap_or_else(fresh).wrapping_add(choice.index as u64);
    let mut sampler = Sampler::new(asked.temperature, asked.top_p, seed);
    while choice.finish.is_none() {
        if choice.tokens.len() >= asked.max_tokens || prompt.len() + choice.tokens.len() > oracle.capacity() {
            choice.finish = Some("length");
        } else {
            let seen = [prompt, &choice.tokens].concat();
            let logits = match line.logits(oracle, &seen).await? {
                Ok(logits) => logits,
                Err(error) => return Ok(Err(error)),
            };
            let token = sampler.pick(&logits, &asked.bias);
            if let Err(error) = take(oracle, asked, prompt, choice, (token, &logits), start) {
                return Ok(Err(error));
            }
        }
        if asked.stream {
            // A stop text that has begun is held back.
            let until =
                if choice.finish.is_some() { choice.text.len() } else { safe(&choice.text, &asked.stop) };
            let new = choice.text.get(choice.sent..until).unwrap_or_default().to_owned();
            choice.sent = choice.sent.max(until);
            if !new.is_empty() || choice.finish.is_some() {
                let mut part = head.clone();
                part["choices"] = json!([shown(choice, &new, asked)]);
                choice.logprobs.clear();
                line.write(format!("data: {part}\n\n")).await?;
            }
        }
    }
    Ok(Ok(()))
}

/// Adds a token to a completion, or ends it.
fn take(
    oracle: &Oracle,
    asked: &Asked,
    prompt: &[u32],
    choice: &mut Choice,
    (token, logits): (usize, &[f64]),
    start: usize,
) -> Result<()> {
    let tokenizer = oracle.tokenizer();
    if tokenizer.is_end(token as u32) {
        choice.finish = Some("stop");
        return Ok(());
    }
    choice.tokens.push(token as u32);
    let text = tokenizer.decode_continuation(prompt, &choice.tokens).map_err(cipherlm_infer::Error::from)?;
    if asked.logprobs > 0 {
        let name = |token: usize| tokenizer.decode(&[token as u32]).unwrap_or_default();
        let (own, best) = log_probabilities(logits, token, asked.logprobs);
        let best = best.into_iter().map(|(token, value)| (name(token), value)).collect();
        choice.logprobs.push((name(token), own, best));
    }
    choice.text.truncate(start);
    choice.text.push_str(&text);
    let ends = asked.stop.iter().filter_map(|stop| choice.text[start..].find(stop.as_str()));
    if let Some(end) = ends.min() {
        choice.text.truncate(start + end);
        choice.finish = Some("stop");
    }
    Ok(())
}

/// How much of a text no stop text can reach back into, and no half character ends.
fn safe(text: &str, stops: &[String]) -> usize {
    let held = |stop: &String| {
        let begun = (1..stop.len()).rev().filter(|n| stop.is_char_boundary(*n));
        begun.into_iter().find(|n| text.ends_with(&stop[..*n])).unwrap_or(0)
    };
    let whole = text.trim_end_matches('\u{fffd}').len();
    whole.min(text.len() - stops.iter().map(held).max().unwrap_or(0))
}

fn shown(choice: &Choice, text: &str, asked: &Asked) -> Value {
    let logprobs = (asked.logprobs > 0).then(|| {
        let best = |best: &Vec<(String, f64)>| -> Value {
            best.iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "tokens": choice.logprobs.iter().map(|(name, _, _)| name).collect::<Vec<_>>(),
            "token_logprobs": choice.logprobs.iter().map(|(_, own, _)| own).collect::<Vec<_>>(),
            "top_logprobs": choice.logprobs.iter().map(|(_, _, all)| best(all)).collect::<Vec<_>>(),
        })
    });
    json!({"index": choice.index, "text": text, "finish_reason": choice.finish, "logprobs": logprobs})
}

/// What all parts of an answer share.
fn head(oracle: &Oracle) -> Value {
    let created = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let id = format!("cmpl-{:016x}", fresh());
    json!({"id": id, "object": "text_completion", "created": created, "model": oracle.model()})
}

fn fresh() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness all completions are alike, and none is less private.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_that_has_begun_is_held_back() {
        let stops = ["END".to_owned(), "\n\n".to_owned()];
        assert_eq!(safe("a cat", &stops), 5);
        assert_eq!(safe("a cat EN", &stops), 6);
        assert_eq!(safe("a cat\n", &stops), 5);
        assert_eq!(safe("a \u{fffd}", &stops), 2);
        assert_eq!(safe("", &stops), 0);
    }
}
