//! Public evaluation sets by likelihood: LAMBADA, PIQA, WinoGrande, ARC; zero-shot or with examples
//! in front.

use std::path::Path;

use cipherlm_model::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::eval::log_likelihood;
use crate::text::read_text;
use crate::transformer::Transformer;

/// A multiple-choice question.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Text before each choice; one for all, or one per choice (WinoGrande, where the choice
    /// changes the context).
    pub contexts: Vec<String>,
    /// Continuations; one per choice, or one for all.
    pub continuations: Vec<String>,
    /// Index of the right choice.
    pub answer: usize,
}

/// Accuracy with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Questions.
    pub count: usize,
    /// Share answered rightly, by total likelihood.
    pub accuracy: f64,
    /// Share answered rightly, by likelihood per byte of the continuation.
    pub normalised: f64,
    /// Accuracy of guessing.
    pub chance: f64,
    /// Half width of the 95 % interval of `accuracy` (normal approximation).
    pub interval: f64,
}

impl Score {
    /// From counts: right by likelihood, right per byte, all, and the expected number right by
    /// guessing.
    pub fn new(right: usize, normalised: usize, count: usize, chance: f64) -> Self {
        let n = count.max(1) as f64;
        let accuracy = right as f64 / n;
        Self {
            count,
            accuracy,
            normalised: normalised as f64 / n,
            chance: chance / n,
            interval: 1.96 * (accuracy * (1.0 - accuracy) / n).sqrt(),
        }
    }

    /// True if the accuracy is above chance at the 95 % level.
    pub fn significant(&self) -> bool {
        self.accuracy - self.interval > self.chance
    }
}

/// Reads `piqa/valid.jsonl(.xz)` with its labels file.
pub fn piqa(questions: &Path, labels: &Path) -> Result<Vec<Question>> {
    let labels = read_text(labels)?;
    let lines = json_lines(questions)?;
    let mut out = Vec::with_capacity(lines.len());
    for (line, label) in lines.iter().zip(labels.lines()) {
        let answer = label.trim().parse().map_err(|_| bad(questions, "label", label))?;
        let choices = [text(questions, line, "sol1")?, text(questions, line, "sol2")?];
        out.push(Question {
            contexts: vec![format!("Question: {}\nAnswer:", text(questions, line, "goal")?)],
            continuations: choices.map(|c| format!(" {c}")).to_vec(),
            answer,
        });
    }
    Ok(out)
}

/// Reads `winogrande/dev.jsonl(.xz)`: the rest of the sentence is scored after each option.
pub fn winogrande(path: &Path) -> Result<Vec<Question>> {
    json_lines(path)?
        .iter()
        .map(|line| {
            let sentence = text(path, line, "sentence")?;
            let (before, after) = sentence.split_once('_').ok_or_else(|| bad(path, "sentence", &sentence))?;
            let options = [text(path, line, "option1")?, text(path, line, "option2")?];
            let answer = text(path, line, "answer")?;
            Ok(Question {
                contexts: options.map(|o| format!("{before}{o}")).to_vec(),
                continuations: vec![after.to_owned()],
                answer: usize::from(answer.trim() == "2"),
            })
        })
        .collect()
}

/// Reads `arc/ARC-*.test.jsonl(.xz)`.
pub fn arc(path: &Path) -> Result<Vec<Question>> {
    json_lines(path)?
        .iter()
        .map(|line| {
            let choices =
                line.get("choices").and_then(Value::as_array).ok_or_else(|| bad(path, "choices", ""))?;
            let answer = line.get("answer").and_then(Value::as_u64).ok_or_else(|| bad(path, "answer", ""))?;
            Ok(Question {
                contexts: vec![format!("Question: {}\nAnswer:", text(path, line, "question")?)],
                continuations: choices
                    .iter()
                    .map(|c| format!(" {}", c.as_str().unwrap_or_default()))
                    .collect(),
                answer: answer as usize,
            })
        })
        .collect()
}

/// Scores questions by likelihood; `shots` of them (the last ones, which are not scored) stand in
/// front as examples.
pub fn choose(
    model: &Transformer,
    tokenizer: &Tokenizer,
    questions: &[Question],
    shots: usize,
) -> Result<Score> {
    let (scored, examples) = questions.split_at(questions.len().saturating_sub(shots));
    let front: String = examples.iter().map(|q| format!("{}\n\n", q.solved())).collect();
    let (mut right, mut right_normalised, mut chance) = (0usize, 0usize, 0.0);
    for question in scored {
        let choices = question.contexts.len().max(question.continuations.len());
        let mut likelihoods = Vec::with_capacity(choices);
        for choice in 0..choices {
            let (context, continuation) = question.choice(choice);
            let context = tokenizer.encode(&format!("{front}{context}"))?;
            let tokens = tokenizer.encode_continuation(continuation)?;
            let (likelihood, _) = log_likelihood(model, &context, &tokens)?;
            likelihoods.push((likelihood, likelihood / continuation.len().max(1) as f64));
        }
        let best = |key: fn(&(f64, f64)) -> f64| {
            (0..choices).max_by(|&a, &b| key(&likelihoods[a]).total_cmp(&key(&likelihoods[b])))
        };
        right += usize::from(best(|l| l.0) == Some(question.answer));
        right_normalised += usize::from(best(|l| l.1) == Some(question.answer));
        chance += 1.0 / choices.max(1) as f64;
    }
    Ok(Score::new(right, right_normalised, scored.len(), chance))
}

/// LAMBADA: share of passages whose last word is the greedy continuation, and perplexity of that
/// word.
pub fn lambada(
    model: &Transformer,
    tokenizer: &Tokenizer,
    path: &Path,
    limit: usize,
) -> Result<(Score, f64)> {
    let lines = json_lines(path)?;
    let (mut right, mut nats, mut count) = (0usize, 0.0, 0usize);
    for line in lines.iter().take(limit) {
        let passage = text(path, line, "text")?;
        let Some((context, word)) = passage.trim_end().rsplit_once(' ') else { continue };
        let context = tokenizer.encode(context)?;
        let word = tokenizer.encode_continuation(&format!(" {word}"))?;
        let (likelihood, greedy) = log_likelihood(model, &context, &word)?;
        right += usize::from(greedy);
        nats -= likelihood;
        count += 1;
    }
    Ok((Score::new(right, right, count, 0.0), (nats / count.max(1) as f64).exp()))
}

impl Question {
    fn choice(&self, choice: usize) -> (&str, &str) {
        let pick = |list: &'_ [String], i: usize| -> usize {
            if list.len() == 1 { 0 } else { i.min(list.len() - 1) }
        };
        (&self.contexts[pick(&self.contexts, choice)], &self.continuations[pick(&self.continuations, choice)])
    }

    fn solved(&self) -> String {
        let (context, continuation) = self.choice(self.answer);
        format!("{context}{continuation}")
    }
}

fn json_lines(path: &Path) -> Result<Vec<Value>> {
    let content = read_text(path)?;
    let parse = |line: &str| serde_json::from_str(line).map_err(|e| bad(path, "line", &e.to_string()));
    content.lines().filter(|l| !l.trim().is_empty()).map(parse).collect()
}

fn text(path: &Path, line: &Value, field: &'static str) -> Result<String> {
    line.get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| bad(path, field, &line.to_string()))
}

fn bad(path: &Path, field: &str, found: &str) -> Error {
    let found: String = found.chars().take(80).collect();
    Error::Corrupt {
        path: path.into(),
        reason: format!("field `{field}` is missing or malformed: {found}"),
        hint: "see the data folder's description for the expected fields",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn significance_needs_the_interval_above_chance() {
        let near = Score::new(52, 50, 100, 50.0);
        assert!(
            (near.accuracy - 0.52).abs() < 1e-12 && (near.chance - 0.5).abs() < 1e-12 && !near.significant()
        );
        assert!(Score::new(700, 700, 1000, 500.0).significant());
    }

    #[test]
    fn each_choice_has_its_own_text() {
        let q =
            Question { contexts: vec!["a ".into(), "b ".into()], continuations: vec!["x".into()], answer: 1 };
        assert_eq!((q.choice(0), q.solved()), (("a ", "x"), "b x".into()));
    }
}
