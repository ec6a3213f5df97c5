//! Sentence encoders against what people said: Spearman's correlation on STS-B and SICK, mean
//! reciprocal rank on TREC-QA. Exact functions, and polynomials where the model has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use cipherlm_model::{Model, Tokenizer};

use crate::error::{Error, Result};
use crate::export::import;
use crate::loss::padded;
use crate::probe::{Polynomials, Probe, outside};
use crate::text::read_text;
use crate::transformer::Transformer;

/// Sentences that the model reads at once.
const BATCH: usize = 64;
/// Pieces to which the sentences of TREC-QA are cut.
const PIECES: usize = 64;
/// Answers looked at for each question.
const RANKS: usize = 10;

/// Figures of one form of a model on one set.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The set.
    pub set: &'static str,
    /// What was computed.
    pub form: &'static str,
    /// Spearman's correlation, or the mean reciprocal rank.
    pub score: f64,
    /// Pairs or questions.
    pub count: usize,
    /// Places where a value of the set left its certified range: name, values found, range.
    pub outside: Vec<String>,
}

/// A pair and its similarity, or a question and its right answers.
enum Set {
    Pairs(Vec<(f64, String, String)>),
    Answers { corpus: BTreeMap<String, String>, questions: Vec<(BTreeSet<String>, String)> },
}

/// Scores of a sentence encoder on the sets below a folder: `stsb/test.tsv.xz`,
/// `sick/test.tsv.xz`, `trecqa/`.
pub fn sentences(model: &Model, tokenizer: &Tokenizer, data: &Path) -> Result<Vec<Judgement>> {
    let (arch, params) = import(model)?;
    let transformer = Transformer::with_params(&arch, &params, &Device::flex())?;
    let polynomials = Polynomials::of(model);
    let mut out = Vec::new();
    for (name, set, cut) in [
        ("STS-B dev", pairs(&data.join("stsb/dev.tsv.xz"), 2)?, usize::MAX),
        ("STS-B test", pairs(&data.join("stsb/test.tsv.xz"), 2)?, usize::MAX),
        ("SICK test", pairs(&data.join("sick/test.tsv.xz"), 1)?, usize::MAX),
        ("TREC-QA", answers(&data.join("trecqa"))?, PIECES),
    ] {
        let texts = set.texts();
        let forms = [("exact", None), ("polynomial", Some(polynomials.clone()))];
        for (form, polynomials) in forms {
            if polynomials.as_ref().is_some_and(Polynomials::is_empty) {
                continue;
            }
            let mut probe = if polynomials.is_some() { Probe::observe() } else { Probe::off() };
            probe = probe.with_polynomials(polynomials);
            let vectors = vectors(&transformer, tokenizer, &texts, cut, &mut probe)?;
            let (score, count) = set.score(&vectors);
            out.push(Judgement { set: name, form, score, count, outside: outside(model, probe.ranges()) });
        }
    }
    Ok(out)
}

/// Unit vectors of texts, by text. Texts of one length are read together: nothing is padded.
fn vectors<'t>(
    model: &Transformer,
    tokenizer: &Tokenizer,
    texts: &BTreeSet<&'t str>,
    cut: usize,
    probe: &mut Probe,
) -> Result<BTreeMap<&'t str, Vec<f32>>> {
    let context = model.arch().shape.context.min(cut);
    let mut by_length: BTreeMap<usize, Vec<(&str, Vec<u32>)>> = BTreeMap::new();
    for &text in texts {
        let mut tokens = tokenizer.encode(text)?;
        let last = tokens.last().copied();
        if tokens.len() > context {
            tokens.truncate(context - 1);
            tokens.extend(last);
        }
        by_length.entry(tokens.len()).or_default().push((text, tokens));
    }
    let mut out = BTreeMap::new();
    for batch in by_length.values().flat_map(|alike| alike.chunks(BATCH)) {
        let tokens: Vec<&[u32]> = batch.iter().map(|(_, tokens)| &tokens[..]).collect();
        let (ids, keep) = padded(model.arch(), &tokens, &model.device())?;
        let rows = unit(model.sentence(ids, keep, probe));
        out.extend(batch.iter().map(|(text, _)| *text).zip(rows));
    }
    Ok(out)
}

fn unit(vectors: Tensor<2>) -> Vec<Vec<f32>> {
    let width = vectors.dims()[1];
    let values: Vec<f32> = vectors.into_data().iter::<f32>().collect();
    let unit = |row: &[f32]| {
        let size = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / size).collect()
    };
    values.chunks(width).map(unit).collect()
}

impl Set {
    fn texts(&self) -> BTreeSet<&str> {
        match self {
            Self::Pairs(pairs) => pairs.iter().flat_map(|(_, a, b)| [a.as_str(), b]).collect(),
            Self::Answers { corpus, questions } => {
                corpus.values().chain(questions.iter().map(|(_, q)| q)).map(String::as_str).collect()
            }
        }
    }

    fn score(&self, vectors: &BTreeMap<&str, Vec<f32>>) -> (f64, usize) {
        let cosine = |a: &str, b: &str| match (vectors.get(a), vectors.get(b)) {
            (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum(),
            _ => f64::NAN,
        };
        match self {
            Self::Pairs(pairs) => {
                let wanted: Vec<f64> = pairs.iter().map(|(score, ..)| *score).collect();
                let found: Vec<f64> = pairs.iter().map(|(_, a, b)| cosine(a, b)).collect();
                (spearman(&wanted, &found), pairs.len())
            }
            Self::Answers { corpus, questions } => {
                let reciprocal = |(right, question): &(BTreeSet<String>, String)| {
                    let mut ranked: Vec<(f64, &String)> =
                        corpus.iter().map(|(id, text)| (cosine(question, text), id)).collect();
                    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
                    let first = ranked.iter().take(RANKS).position(|(_, id)| right.contains(*id));
                    first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
                };
                let sum: f64 = questions.iter().map(reciprocal).sum();
                (sum / questions.len().max(1) as f64, questions.len())
            }
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12} {:10} {:5} items  {:.4}", self.set, self.form, self.count, self.score)?;
        if self.form == "polynomial" {
            write!(f, "  sites with values outside their range: {}", self.outside.len())?;
        }
        self.outside.iter().try_for_each(|place| write!(f, "\n  {place}"))
    }
}

/// Lines of a similarity and two sentences; `at` is the column of the first sentence.
fn pairs(path: &Path, at: usize) -> Result<Set> {
    let pair = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let score = fields.first().and_then(|s| s.trim().parse().ok());
        match (score, fields.get(at), fields.get(at + 1)) {
            (Some(score), Some(a), Some(b)) => Ok((score, (*a).to_owned(), (*b).to_owned())),
            _ => Err(bad(path, line)),
        }
    };
    Ok(Set::Pairs(read_text(path)?.lines().map(pair).collect::<Result<_>>()?))
}

fn answers(folder: &Path) -> Result<Set> {
    let table = |name: &str| -> Result<Vec<(String, String)>> {
        let path = folder.join(name);
        let row = |line: &str| {
            let (key, text) = line.split_once('\t').ok_or_else(|| bad(&path, line))?;
            Ok((key.to_owned(), text.to_owned()))
        };
        read_text(&path)?.lines().map(row).collect()
    };
    let questions = table("queries.tsv.xz")?.into_iter();
    let questions =
        questions.map(|(ids, text)| (ids.split_whitespace().map(String::from).collect(), text)).collect();
    Ok(Set::Answers { corpus: table("corpus.tsv.xz")?.into_iter().collect(), questions })
}

fn bad(path: &Path, line: &str) -> Error {
    let reason = format!("a line has other fields than it should: {line}");
    Error::Corrupt { path: path.into(), reason, hint: "fetch the file again" }
}

/// Spearman's correlation: that of the ranks, ties at their mean rank.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let [a, b] = [ranks(a), ranks(b)];
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut out = vec![0.0; values.len()];
    let mut from = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = from as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&at| out[at] = rank);
        from += group.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_agree_whatever_the_scale_and_ties_share_theirs() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.5]), [2.5, 1.0, 2.5, 0.0]);
        assert!((spearman(&[1.0, 2.0, 9.0], &[-5.0, 0.0, 0.1]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 9.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        // One of three pairs is the wrong way round: 1 - 6 * 2 / (3 * 8).
        assert!((spearman(&[1.0, 2.0, 3.0], &[2.0, 1.0, 3.0]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_first_right_answer_among_ten_counts() {
        let corpus = (0..12).map(|i| (format!("{i}"), format!("text {i}"))).collect();
        let questions = ["3", "11", "0 1"]
            .map(|ids| (ids.split(' ').map(String::from).collect::<BTreeSet<_>>(), "question".to_owned()));
        let set = Set::Answers { corpus, questions: questions.to_vec() };
        let texts: Vec<String> = (0..12).map(|i| format!("text {i}")).collect();
        // The lower the number, the closer to the question.
        let mut vectors: BTreeMap<&str, Vec<f32>> =
            texts.iter().enumerate().map(|(i, t)| (t.as_str(), vec![1.0 - 0.05 * i as f32])).collect();
        vectors.insert("question", vec![1.0]);
        let (score, count) = set.score(&vectors);
        assert_eq!(count, 3);
        // Places four, twelve (too late) and one.
        assert!((score - (0.25 + 0.0 + 1.0) / 3.0).abs() < 1e-12, "{score}");
    }
}
