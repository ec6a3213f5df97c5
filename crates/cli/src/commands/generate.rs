//! `cipherlm generate`: continues a prompt in the clear.

use crate::flags;
use crate::model::load;
use crate::sampler::Sampler;
use anyhow::bail;
use cipherlm_model::{Mode, Positions, Runner};
use serde_json::json;
use std::io::{IsTerminal, Write};

/// Continues a prompt.
pub(crate) fn run(args: &flags::Generate, as_json: bool) -> anyhow::Result<bool> {
    let loaded = load(args.model.as_deref())?;
    let mode = if args.exact { Mode::Exact } else { Mode::Polynomial };
    let mut tokens = loaded.tokens(&args.prompt, args.tokens)?;
    let mut runner = Runner::new(&loaded.model, mode)?;
    let mut sampler = Sampler::new(args.temperature, args.top_k, args.seed)?;
    let mut fresh = tokens.clone();
    let stream = !as_json && std::io::stdout().is_terminal();
    let prompt_length = tokens.len();
    let mut shown = loaded.tokenizer.stream(&tokens)?;
    if stream {
        print!("{}", args.prompt);
    }
    for _ in 0..args.tokens {
        let rows = runner.append(&fresh, Positions::Last)?;
        let Some(logits) = rows.last() else { bail!("the model returned no logits") };
        let next = sampler.pick(loaded.known(logits));
        if loaded.tokenizer.is_end(next) {
            break;
        }
        tokens.push(next);
        fresh = vec![next];
        if stream {
            print!("{}", shown.push(next)?);
            std::io::stdout().flush()?;
        }
    }
    let (prompt, new) = tokens.split_at(prompt_length);
    let answer = loaded.tokenizer.decode_continuation(prompt, new)?;
    if as_json {
        println!("{}", json!({"machine": "clear", "prompt": args.prompt, "answer": answer, "tokens": tokens}));
    } else if stream {
        println!();
    } else {
        println!("{}{answer}", args.prompt);
    }
    Ok(true)
}
