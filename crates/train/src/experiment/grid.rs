//! The cells of an experiment and the CSV file of their results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cipherlm_model::Tokenizer;

use super::cell::{Budget, Cell, Outcome, Text, key, train_cell};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::text::{Data, read_text};

/// How much of an experiment is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// A part that takes minutes.
    Quick,
    /// All cells.
    Whole,
    /// Those of all cells whose name (`key`) begins so: how processes share a grid, each with its
    /// own folder.
    Only(String),
    /// None: tables and charts from the cells that the CSV already has.
    Report,
}

/// Runs the cells that the CSV does not have yet, or none for a report.
pub(super) fn run(
    cells: &[Cell],
    budget: Budget,
    csv: &Path,
    extent: Extent,
    progress: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Outcome>> {
    if let Some(folder) = csv.parent() {
        cipherlm_files::create_folder(folder)?;
    }
    let stamp = format!(
        "# width {} heads {} context {} vocab {} batch {} steps {}",
        budget.width, budget.heads, budget.context, budget.vocab, budget.batch, budget.steps
    );
    let mut done = read(csv, &stamp)?;
    let mut corpora: BTreeMap<Text, (Corpus, Corpus)> = BTreeMap::new();
    for (at, cell) in cells.iter().enumerate() {
        let key = key(cell);
        let wanted = match &extent {
            Extent::Report => false,
            Extent::Only(start) => key.starts_with(start),
            Extent::Quick | Extent::Whole => true,
        };
        if !wanted || done.contains_key(&key) {
            continue;
        }
        if let std::collections::btree_map::Entry::Vacant(slot) = corpora.entry(cell.text) {
            slot.insert(corpus(cell.text, budget.vocab)?);
        }
        let (train, held_out) = &corpora[&cell.text];
        let outcome = train_cell(cell, budget, train, held_out)?;
        progress(&format!("{}/{}  {key}  {:.2}  {}", at + 1, cells.len(), outcome.perplexity, outcome.mode));
        append(csv, &stamp, &key, &outcome)?;
        done.insert(key, outcome);
    }
    Ok(done)
}

/// Tokenised training and held-out text.
fn corpus(text: Text, vocab: usize) -> Result<(Corpus, Corpus)> {
    let file = |name: &str| data_folder().join(name);
    let (train, held_out) = match text {
        Text::Stories => Data::Files {
            train: file("tinystories/part1.txt.xz"),
            held_out: file("tinystories/part2.txt.xz"),
        }
        .read()?,
        Text::Articles => Data::Files {
            train: file("wikitext-2/wiki.train.tokens.xz"),
            held_out: file("wikitext-2/wiki.valid.tokens.xz"),
        }
        .read()?,
        Text::Generated => Data::Generated { seed: 1, stories: 20_000 }.read()?,
        Text::Plays => plays()?,
    };
    let tokenizer = Tokenizer::train(&train, vocab)?;
    let wrap = |text: &str| -> Result<Corpus> {
        Ok(Corpus::new(tokenizer.encode(text)?, text.split_whitespace().count()))
    };
    Ok((wrap(&train)?, wrap(&held_out)?))
}

/// The plays for training, and their last tenth.
pub(super) fn plays() -> Result<(String, String)> {
    let all = read_text(&data_folder().join("shakespeare/tinyshakespeare.txt.xz"))?;
    let cut = all.len() * 9 / 10;
    let cut = all[cut..].find("\n\n").map_or(cut, |at| cut + at);
    Ok((all[..cut].to_owned(), all[cut..].to_owned()))
}

pub(super) fn data_folder() -> PathBuf {
    PathBuf::from("../shared/data")
}

/// The lines of a CSV behind its stamp and header; none without a file.
pub(super) fn lines(csv: &Path, stamp: &str) -> Result<Vec<String>> {
    if !csv.exists() {
        return Ok(vec![]);
    }
    let text = cipherlm_files::read_text(csv, 1 << 30)?;
    if text.lines().next() != Some(stamp) {
        return Err(corrupt(csv, format!("its first line is not `{stamp}`")));
    }
    Ok(text.lines().skip(2).map(str::to_owned).collect())
}

/// Something is wrong with a CSV.
pub(super) fn corrupt(csv: &Path, reason: String) -> Error {
    Error::Corrupt { path: csv.into(), reason, hint: "move it away to start the experiment afresh" }
}

pub(super) fn read(csv: &Path, stamp: &str) -> Result<BTreeMap<String, Outcome>> {
    let mut done = BTreeMap::new();
    for line in lines(csv, stamp)? {
        let fields: Vec<&str> = line.split(',').collect();
        let [.., perplexity, distance, score, spread, mode] = fields[..] else {
            return Err(corrupt(csv, format!("short line `{line}`")));
        };
        let number = |s: &str| s.parse::<f64>().map_err(|e| corrupt(csv, format!("`{line}`: {e}")));
        let outcome = Outcome {
            perplexity: number(perplexity)?,
            distance: number(distance)?,
            score: number(score)?,
            spread: number(spread)?,
            mode: mode.to_owned(),
        };
        done.insert(fields[..fields.len() - 5].join(","), outcome);
    }
    Ok(done)
}

pub(super) fn append(csv: &Path, stamp: &str, key: &str, o: &Outcome) -> Result<()> {
    let header = "text,layers,seed,power,shift,epsilon,form,query_key_rate,word_perplexity,distance,score,\
         spread,outcome";
    let head = if csv.exists() { String::new() } else { format!("{stamp}\n{header}\n") };
    let numbers = format!("{:.4},{:.4},{:.4},{:.4e}", o.perplexity, o.distance, o.score, o.spread);
    Ok(cipherlm_files::append(csv, &format!("{head}{key},{numbers},{}", o.mode))?)
}
