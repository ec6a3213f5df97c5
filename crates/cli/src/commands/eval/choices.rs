//! Tasks of a decoder: which continuation is likely.

use super::Judge;
use super::data::{Item, items, text};
use super::score::{Score, mean};
use crate::sampler::{argmax, loss};
use anyhow::{Context, bail};
use cipherlm_files::shown;
use cipherlm_model::{Positions, Runner};
use std::path::Path;

/// What the model thinks of a continuation.
struct Likelihood {
    nats: f64,
    /// Whether each of its tokens is the most likely one.
    greedy: bool,
}

impl Judge<'_> {
    /// None for a continuation that is longer than the model's context.
    fn likelihood(
        &self,
        runner: &mut Runner<'_>,
        context: &str,
        next: &str,
    ) -> anyhow::Result<Option<Likelihood>> {
        let tokenizer = &self.loaded.tokenizer;
        let next = tokenizer.encode_continuation(next)?;
        let before = tokenizer.encode_continuation(context)?;
        let room = self.loaded.room().saturating_sub(self.prefix.len() + next.len());
        if next.is_empty() {
            bail!("a continuation has no token");
        }
        if room == 0 {
            return Ok(None);
        }
        // What is furthest away goes first.
        let before = [&self.prefix[..], &before[before.len().saturating_sub(room)..]].concat();
        if before.is_empty() {
            bail!("nothing stands before the continuation: pass a --prefix");
        }
        runner.reset();
        let mut rows = runner.append(&before, Positions::Last)?;
        if let [rest @ .., _] = &next[..]
            && !rest.is_empty()
        {
            rows.extend(runner.append(rest, Positions::All)?);
        }
        let choices = self.loaded.choices();
        let mut out = Likelihood { nats: 0.0, greedy: true };
        for (row, token) in rows.iter().zip(&next) {
            let row = &row[..choices];
            out.nats += loss(row, *token as usize);
            out.greedy &= argmax(row) == *token as usize;
        }
        Ok(Some(out))
    }
}

/// What was found of the items that fit the model's context, and how many do not.
fn fitting<T>(found: Vec<Option<T>>) -> anyhow::Result<(Vec<T>, usize)> {
    let all = found.len();
    let fit: Vec<T> = found.into_iter().flatten().collect();
    if fit.is_empty() {
        bail!("each of {all} items has a continuation that does not fit the model's context");
    }
    let left = all - fit.len();
    Ok((fit, left))
}

/// Items that are not scored.
fn too_long(left: usize) -> (&'static str, f64) {
    ("items_too_long", left as f64)
}

/// The last word of each passage: how often greedy decoding writes it, and its perplexity.
pub(super) fn lambada(judge: &Judge<'_>, file: &Path, limit: Option<usize>) -> anyhow::Result<Score> {
    judge.loaded.ensure_continues("eval --task lambada")?;
    let items = items(file, limit)?;
    let found = judge.each(&items, |runner, item| {
        let text = item.text("text")?.trim_end();
        let at = text.rfind(' ').with_context(|| item.refuse("one word only"))?;
        judge.likelihood(runner, &text[..at], &text[at..])
    })?;
    let (found, left) = fitting(found)?;
    let right: Vec<f64> = found.iter().map(|l| f64::from(u8::from(l.greedy))).collect();
    let nats: Vec<f64> = found.iter().map(|l| l.nats).collect();
    let (score, stderr) = mean(&right);
    let more = vec![("perplexity", mean(&nats).0.exp()), too_long(left)];
    Ok(Score { items: found.len(), metric: "accuracy", score, stderr, more })
}

/// One question: what stands before each answer, the answers, and which is right.
struct Question {
    answers: Vec<(String, String)>,
    right: usize,
}

/// How often the likeliest answer is the right one; also by likelihood a byte. The examples of
/// --shots stand before every question and are not scored.
fn choose(judge: &Judge<'_>, questions: &[Question]) -> anyhow::Result<Score> {
    let scored = questions.len().checked_sub(judge.shots).filter(|scored| *scored > 0);
    let scored = scored.with_context(|| {
        format!("--shots {}: the data hold {} questions in all", judge.shots, questions.len())
    })?;
    let (questions, examples) = questions.split_at(scored);
    let solved =
        |q: &Question| q.answers.get(q.right).map(|(before, answer)| format!("{before}{answer}\n\n"));
    let front: String = examples.iter().filter_map(solved).collect();
    let found = judge.each(questions, |runner, question| {
        let mut best = [(f64::INFINITY, 0); 2];
        for (i, (before, answer)) in question.answers.iter().enumerate() {
            let Some(found) = judge.likelihood(runner, &format!("{front}{before}"), answer)? else {
                return Ok(None);
            };
            let nats = found.nats;
            for (best, nats) in best.iter_mut().zip([nats, nats / answer.trim().len().max(1) as f64]) {
                *best = if nats < best.0 { (nats, i) } else { *best };
            }
        }
        Ok(Some(best.map(|(_, chosen)| f64::from(u8::from(chosen == question.right)))))
    })?;
    let (found, left) = fitting(found)?;
    let [plain, by_byte] = [0, 1].map(|way| mean(&found.iter().map(|right| right[way]).collect::<Vec<_>>()));
    let more = vec![("accuracy_by_byte", by_byte.0), ("accuracy_by_byte_stderr", by_byte.1), too_long(left)];
    Ok(Score { items: found.len(), metric: "accuracy", score: plain.0, stderr: plain.1, more })
}

/// Two solutions of a goal.
pub(super) fn piqa(
    judge: &Judge<'_>,
    file: &Path,
    labels: Option<&Path>,
    limit: Option<usize>,
) -> anyhow::Result<Score> {
    judge.loaded.ensure_continues("eval --task piqa")?;
    let items = items(file, limit)?;
    let labels = match items.first() {
        Some(item) if item.has("label") => None,
        _ => Some(label_file(file, labels)?),
    };
    let question = |(i, item): (usize, &Item<'_>)| {
        let right = match &labels {
            Some(labels) => *labels.get(i).with_context(|| item.refuse("no label of that number"))?,
            None => item.number("label")?,
        };
        let before = format!("Question: {}\nAnswer:", item.text("goal")?);
        let answer = |field| Ok::<_, anyhow::Error>((before.clone(), format!(" {}", item.text(field)?)));
        Ok(Question { answers: vec![answer("sol1")?, answer("sol2")?], right })
    };
    let questions: Vec<Question> = items.iter().enumerate().map(question).collect::<anyhow::Result<_>>()?;
    choose(judge, &questions)
}

fn label_file(data: &Path, labels: Option<&Path>) -> anyhow::Result<Vec<usize>> {
    let stem = data.file_stem().unwrap_or_default().to_string_lossy();
    let beside = data.with_file_name(format!("{stem}-labels.lst"));
    let file = labels.unwrap_or(&beside);
    if !file.exists() {
        bail!("piqa's answers are not in {}: pass them with --labels", shown(file));
    }
    let number = |line: &str| line.trim().parse().with_context(|| format!("{}: {line:?}", shown(file)));
    text(file)?.lines().map(number).collect()
}

/// A gap and two words for it: what comes after the gap is judged.
pub(super) fn winogrande(judge: &Judge<'_>, file: &Path, limit: Option<usize>) -> anyhow::Result<Score> {
    judge.loaded.ensure_continues("eval --task winogrande")?;
    let question = |item: Item<'_>| {
        let sentence = item.text("sentence")?;
        let (before, after) = sentence.split_once('_').with_context(|| item.refuse("no gap `_`"))?;
        let answer = |field| {
            Ok::<_, anyhow::Error>((format!("{before}{}", item.text(field)?), format!(" {}", after.trim())))
        };
        let right = item.number("answer")?.checked_sub(1).with_context(|| item.refuse("answer 0"))?;
        Ok(Question { answers: vec![answer("option1")?, answer("option2")?], right })
    };
    let questions: Vec<Question> =
        items(file, limit)?.into_iter().map(question).collect::<anyhow::Result<_>>()?;
    choose(judge, &questions)
}

/// A question and some answers.
pub(super) fn arc(judge: &Judge<'_>, file: &Path, limit: Option<usize>) -> anyhow::Result<Score> {
    judge.loaded.ensure_continues("eval --task arc")?;
    let question = |item: Item<'_>| {
        let before = format!("Question: {}\nAnswer:", item.text("question")?);
        let answers: Vec<_> =
            item.texts("choices")?.into_iter().map(|answer| (before.clone(), format!(" {answer}"))).collect();
        let right = item.number("answer")?;
        if right >= answers.len() {
            return Err(item.refuse("the right answer is none of the choices"));
        }
        Ok(Question { answers, right })
    };
    let questions: Vec<Question> =
        items(file, limit)?.into_iter().map(question).collect::<anyhow::Result<_>>()?;
    choose(judge, &questions)
}
