//! Perplexity of a text, and the divergence from a teacher on it.

use super::Judge;
use super::score::{Score, mean};
use crate::exit::usage;
use crate::model::Loaded;
use crate::sampler::loss;
use cipherlm_model::{Mode, Positions, Prepared};
use std::path::Path;

/// Windows of a text, each after the prefix. The first token of a window is not scored. The teacher
/// reads what the model reads, its public prefix too.
pub(super) fn perplexity(
    judge: &Judge<'_>,
    teacher: Option<&Loaded>,
    file: &Path,
    window: Option<usize>,
    limit: Option<usize>,
) -> anyhow::Result<Score> {
    let loaded = judge.loaded;
    loaded.ensure_continues("eval --task perplexity")?;
    super::data::text(file)?;
    let (context, before) = (loaded.room(), judge.prefix.len());
    let length = window.unwrap_or(context).min(context).saturating_sub(before);
    if length < 2 {
        return Err(usage(format!("--prefix takes {before} of {context} tokens: no window is left")));
    }
    let windows = loaded.first_windows(file, length, limit.unwrap_or(usize::MAX >> 32))?.windows;
    let choices = loaded.choices();
    let read = [&loaded.model.spec().prefix[..], &judge.prefix].concat();
    let teacher = teacher.map(|teacher| ready(teacher, choices, read.len() + length)).transpose()?;
    let a_token = |sum: f64| sum / (length - 1) as f64;
    let nats: Vec<[f64; 2]> = judge.each(&windows, |runner, window| {
        runner.reset();
        if before > 0 {
            runner.append(&judge.prefix, Positions::Last)?;
        }
        let (seen, next) = (&window[..window.len() - 1], &window[1..]);
        let logits = runner.append(seen, Positions::All)?;
        let own = next.iter().zip(&logits).map(|(next, row)| loss(&row[..choices], *next as usize)).sum();
        let Some(teacher) = &teacher else { return Ok([a_token(own), 0.0]) };
        let wanted = teacher.runner(Mode::Exact)?.append(&[&read, seen].concat(), Positions::All)?;
        let rows = wanted[read.len()..].iter().zip(&logits);
        Ok([own, rows.map(|(p, q)| divergence(&p[..choices], &q[..choices])).sum()].map(a_token))
    })?;
    let [of_text, from_teacher] = [0, 1].map(|i| mean(&nats.iter().map(|both| both[i]).collect::<Vec<_>>()));
    let (nats, stderr) = of_text;
    let score = nats.exp();
    let mut more = vec![("nats_per_token", nats), ("tokens", (windows.len() * (length - 1)) as f64)];
    if teacher.is_some() {
        more.extend([("divergence", from_teacher.0), ("divergence_stderr", from_teacher.1)]);
    }
    Ok(Score { items: windows.len(), metric: "perplexity", score, stderr: score * stderr, more })
}

/// A teacher of the same tokens.
fn ready(teacher: &Loaded, choices: usize, tokens: usize) -> anyhow::Result<Prepared<'_>> {
    let (context, own) = (teacher.model.shape().context, teacher.choices());
    if own != choices || !teacher.model.spec().prefix.is_empty() {
        return Err(usage(format!(
            "--teacher: it chooses among {own} tokens and the model among {choices}, or has a public prefix \
             of its own: take the model that this one was made from"
        )));
    }
    if context < tokens {
        return Err(usage(format!("--teacher: it takes {context} tokens and {tokens} are read: --window")));
    }
    Ok(Prepared::new(&teacher.model)?)
}

/// Kullback-Leibler divergence of the second distribution from the first, both as logits, in nats.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let (lp, lq) = (loss(p, 0) + p[0], loss(q, 0) + q[0]);
    p.iter().zip(q).map(|(p, q)| (p - lp).exp() * ((p - lp) - (q - lq))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_by_hand() {
        let (half, third) = ([0.0, 0.0], [1.0, 1.0 + 2f64.ln()]);
        // 1/2 ln((1/2) / (1/3)) + 1/2 ln((1/2) / (2/3)).
        let wanted = 0.5 * (1.5f64.ln() + 0.75f64.ln());
        assert!((divergence(&half, &third) - wanted).abs() < 1e-12);
        assert!(divergence(&third, &third).abs() < 1e-15);
    }
}
