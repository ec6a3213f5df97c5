//! Tasks of a model of sentence vectors.

use super::Judge;
use super::score::{Score, mean, spearman};
use crate::sentence::{LENGTH, dot, ensure_embeds, pieces};
use anyhow::{Context, bail};
use cipherlm_files::shown;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Places of a ranking that are looked at.
const TOP: usize = 10;

impl Judge<'_> {
    /// The vector of each text; equal texts are computed once.
    fn vectors<'t>(
        &self,
        texts: impl Iterator<Item = &'t str>,
        length: Option<usize>,
    ) -> anyhow::Result<BTreeMap<&'t str, Vec<f64>>> {
        let length = length.unwrap_or(LENGTH);
        let texts: Vec<&str> = texts.collect::<BTreeSet<_>>().into_iter().collect();
        let vectors = self
            .each(&texts, |runner, text| Ok(runner.sentence(&pieces(self.loaded, text, length)?, None)?))?;
        Ok(texts.into_iter().zip(vectors).collect())
    }
}

/// Spearman's rank correlation of cosines with judgements.
pub(super) fn similarity(
    judge: &Judge<'_>,
    file: &Path,
    columns: Option<&[usize]>,
    length: Option<usize>,
    limit: Option<usize>,
) -> anyhow::Result<Score> {
    ensure_embeds(judge.loaded, "eval --task sts")?;
    let chosen = columns.is_some();
    let (mut columns, based) = match columns {
        None => ([0, 1, 2], 0),
        Some(&[s, a, b]) => ([s, a, b], usize::from(![s, a, b].contains(&0))),
        Some(_) => bail!("--columns takes three numbers: of the score and of the two sentences"),
    };
    columns.iter_mut().for_each(|column| *column -= based);
    let text = super::data::text(file)?;
    let mut rows: Vec<(f64, &str, &str)> = vec![];
    for (at, line) in text.lines().enumerate().take(limit.unwrap_or(usize::MAX)) {
        let cells: Vec<&str> = line.split('\t').collect();
        if !chosen && cells.len() != 3 {
            bail!("{} line {}: {} columns, expected 3: see --columns", shown(file), at + 1, cells.len());
        }
        let cell = |i: usize| {
            cells.get(columns[i]).copied().with_context(|| {
                format!("{} line {}: {} columns: see --columns", shown(file), at + 1, cells.len())
            })
        };
        let score: f64 = cell(0)?.trim().parse().with_context(|| {
            format!("{} line {}: {:?} is no score: see --columns", shown(file), at + 1, cells[columns[0]])
        })?;
        rows.push((score, cell(1)?, cell(2)?));
    }
    if rows.len() < 2 {
        bail!("{} holds fewer than two pairs", shown(file));
    }
    let vectors = judge.vectors(rows.iter().flat_map(|(_, a, b)| [*a, *b]), length)?;
    let cosines: Vec<f64> = rows.iter().map(|(_, a, b)| dot(&vectors[a], &vectors[b])).collect();
    let judged: Vec<f64> = rows.iter().map(|(score, _, _)| *score).collect();
    let (score, stderr) = spearman(&cosines, &judged);
    Ok(Score { items: rows.len(), metric: "spearman", score, stderr, more: vec![] })
}

/// Mean reciprocal rank and discounted gain of the right sentences among the best ten.
pub(super) fn retrieval(
    judge: &Judge<'_>,
    data: &Path,
    length: Option<usize>,
    limit: Option<usize>,
) -> anyhow::Result<Score> {
    ensure_embeds(judge.loaded, "eval --task retrieval")?;
    let folder = if data.is_dir() { data } else { data.parent().unwrap_or_else(|| Path::new("")) };
    let (corpus_file, query_file) = (folder.join("corpus.tsv"), folder.join("queries.tsv"));
    let (corpus, queries) = (super::data::text(&corpus_file)?, super::data::text(&query_file)?);
    let split = |text: &'static str, file: &Path, line: (usize, &str)| {
        format!("{} line {}: {text}: {:?}", shown(file), line.0 + 1, line.1)
    };
    let mut documents: Vec<(&str, &str)> = vec![];
    for line in corpus.lines().enumerate() {
        documents
            .push(line.1.split_once('\t').with_context(|| split("no `id TAB text`", &corpus_file, line))?);
    }
    let mut asked: Vec<(BTreeSet<&str>, &str)> = vec![];
    for line in queries.lines().enumerate().take(limit.unwrap_or(usize::MAX)) {
        let (right, text) =
            line.1.split_once('\t').with_context(|| split("no `ids TAB question`", &query_file, line))?;
        asked.push((right.split_whitespace().collect(), text));
    }
    if documents.is_empty() || asked.is_empty() {
        bail!("{} holds no documents or no questions", shown(folder));
    }
    let texts = documents.iter().map(|(_, text)| *text).chain(asked.iter().map(|(_, text)| *text));
    let vectors = judge.vectors(texts, length)?;
    let (mut reciprocal, mut gains) = (vec![], vec![]);
    for (right, text) in &asked {
        let query = &vectors[text];
        let mut order: Vec<(f64, &str)> =
            documents.iter().map(|(id, text)| (dot(query, &vectors[text]), *id)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let hits: Vec<usize> = (0..order.len().min(TOP)).filter(|i| right.contains(order[*i].1)).collect();
        reciprocal.push(hits.first().map_or(0.0, |first| 1.0 / (first + 1) as f64));
        let gain = |i: usize| 1.0 / (i as f64 + 2.0).log2();
        let most: f64 = (0..right.len().min(TOP)).map(gain).sum();
        gains.push(hits.iter().map(|i| gain(*i)).sum::<f64>() / most);
    }
    let (score, stderr) = mean(&reciprocal);
    let more = vec![("ndcg_at_10", mean(&gains).0), ("documents", documents.len() as f64)];
    Ok(Score { items: asked.len(), metric: "mrr_at_10", score, stderr, more })
}
