//! `cipherlm search`: the documents that answer a question best.

mod machine;

use crate::console::{out_json, say};
use crate::library::{Hit, Library, best};
use crate::model::{Loaded, load};
use crate::options::{Wanted, count, one_profile, profiles, small_ring};
use crate::outputs::Outputs;
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::sentence::{LEAST_COSINE, dot, pieces};
use crate::setup::Setup;
use crate::system::{gib, machine as described, peak_memory};
use anyhow::{Context, bail};
use cipherlm_files::Access;
use cipherlm_infer::{Found, insecure_profile};
use cipherlm_model::{Mode, Runner};
use clap::Args;
use machine::{Machine, On};
use serde_json::{Value, json};
use std::io::stdin;
use std::path::PathBuf;
use std::time::Instant;

/// Longest questions, in bytes.
const QUERY_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `cipherlm index` made.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// The question; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT", required_unless_present = "queries")]
    query: Option<String>,
    /// Questions, one a line, in place of --query.
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    queries: Option<PathBuf>,
    /// Folder of the model that made the index, if it has moved.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How many documents to show.
    #[arg(long, default_value = "10", value_parser = count(1..=1 << 20))]
    top: usize,
    /// The circuit of the encrypted search on one of three machines, compared with the model in the
    /// clear: `clear` (slots as they are), `noise` (with the errors that encryption will add),
    /// `encrypted`. Without it, the model itself runs in the clear.
    #[arg(long, value_enum)]
    machine: Option<Machine>,
    /// Under encryption, client and server in one process with nothing but ciphertexts and public
    /// keys between them: the question's text, vector and scores stay encrypted. Short for
    /// --machine encrypted.
    #[arg(long, conflicts_with = "machine")]
    encrypted: bool,
    /// With a machine, NO SECURITY: a small ring of degree 2^LOG_N, to try it in seconds.
    #[arg(long, value_name = "LOG_N", value_parser = small_ring)]
    insecure_ring: Option<u32>,
    /// With a machine: parameter set, 128-bit secure.
    #[arg(long, value_parser = profiles(), default_value = "n16")]
    profile: String,
    #[command(flatten)]
    prices: PricesOption,
    /// Also write the result as JSON here (`--json FILE` does the same); replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

impl Options {
    fn machine(&self) -> Option<Machine> {
        if self.encrypted { Some(Machine::Encrypted) } else { self.machine }
    }

    fn questions(&self) -> anyhow::Result<Vec<String>> {
        let text = match (&self.queries, self.query.as_deref()) {
            (Some(file), _) => cipherlm_files::read_text(file, QUERY_BYTES).context("--queries")?,
            (None, Some("-")) => {
                cipherlm_files::read_text_from(stdin().lock(), "standard input", QUERY_BYTES)?
            }
            (None, query) => query.unwrap_or_default().to_owned(),
        };
        let whole = self.queries.is_none();
        let lines: Vec<&str> = if whole { vec![text.as_str()] } else { text.lines().collect() };
        let questions: Vec<String> = lines.iter().map(|line| line.trim().to_owned()).collect();
        if questions.is_empty() || questions.iter().any(String::is_empty) {
            bail!("a question is empty: pass some text");
        }
        Ok(questions)
    }
}

/// One question and what came of it.
struct Answer {
    question: String,
    hits: Vec<Hit>,
    seconds: f64,
    check: Option<Check>,
}

/// The answer of a machine beside that of the polynomials in the clear.
struct Check {
    cosine: f64,
    largest_error: f64,
    same_first: bool,
    /// Places of the best documents that hold the same ones.
    shared: usize,
}

/// The best documents by the cosine of vectors.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let report = outputs.report("--json-file", options.json_file.as_deref())?;
    let library = Library::load(&options.index).context("--index")?;
    let loaded = library.put_on(load(Some(options.model.as_deref().unwrap_or(&library.folder)))?)?;
    let questions = options.questions()?;
    let mut value = json!({
        "model": library.model,
        "documents": library.documents.len(),
        "run": options.machine().map_or("clear".into(), |machine| machine.run()),
        "machine": described(),
    });
    let asked = Asked { options, library: &library, questions: &questions, quiet: as_json };
    let answers = match options.machine() {
        None => asked.in_the_clear(&loaded)?,
        Some(machine) => asked.on(machine, loaded, &mut value)?,
    };
    let pass = asked.summarise(&answers, &mut value);
    if let ([only], true) = (answers.as_slice(), options.queries.is_none()) {
        value["results"] = json!(library.rows(&only.hits));
    } else {
        value["queries"] = answers.iter().map(|answer| answer.json(&library)).collect();
    }
    if as_json {
        out_json(&value);
    }
    if let Some(report) = report {
        report.write(format!("{value}\n").as_bytes(), Access::Everyone)?;
    }
    Ok(pass)
}

impl Answer {
    fn json(&self, library: &Library) -> Value {
        let (hits, seconds) = (library.rows(&self.hits), self.seconds);
        let mut row = json!({"query": self.question, "results": hits, "seconds": seconds});
        if let Some(check) = &self.check {
            row["cosine_to_clear"] = json!(check.cosine);
            row["largest_score_error"] = json!(check.largest_error);
            row["same_first"] = json!(check.same_first);
            row["shared"] = json!(check.shared);
        }
        row
    }

    fn show(&self, library: &Library) {
        say!("{}  ({:.2} s)", self.question, self.seconds);
        for hit in &self.hits {
            let document = &library.documents[hit.at];
            say!("{:>8.3}  {:<10} {}", hit.score, document.id, document.text);
        }
    }
}

impl Check {
    fn of(found: &Found, hits: &[Hit], vector: &[f64], library: &Library) -> Self {
        let scores = library.scores(vector);
        let wanted = best(&scores, hits.len());
        let errors = found.scores.iter().zip(&scores).map(|(a, b)| (a - b).abs());
        Self {
            cosine: dot(&found.vector, vector),
            largest_error: errors.fold(0.0, |most: f64, e| if e > most || e.is_nan() { e } else { most }),
            same_first: hits.first().map(|hit| hit.at) == wanted.first().map(|hit| hit.at),
            shared: hits.iter().filter(|hit| wanted.iter().any(|other| other.at == hit.at)).count(),
        }
    }
}

/// Questions to an index.
struct Asked<'a> {
    options: &'a Options,
    library: &'a Library,
    questions: &'a [String],
    quiet: bool,
}

impl Asked<'_> {
    /// By the model itself, no circuit.
    fn in_the_clear(&self, loaded: &Loaded) -> anyhow::Result<Vec<Answer>> {
        let mode = if self.library.polynomial { Mode::Polynomial } else { Mode::Exact };
        let mut runner = Runner::new(&loaded.model, mode)?;
        let answer = |question: &String| -> anyhow::Result<Answer> {
            let clock = Instant::now();
            let vector = runner.sentence(&pieces(loaded, question, self.library.length)?, None)?;
            let hits = best(&self.library.scores(&vector), self.options.top);
            let seconds = clock.elapsed().as_secs_f64();
            Ok(self.shown(Answer { question: question.clone(), hits, seconds, check: None }))
        };
        self.questions.iter().map(answer).collect()
    }

    /// By the circuit on a machine, each answer beside that of the polynomials in the clear.
    fn on(&self, machine: Machine, loaded: Loaded, value: &mut Value) -> anyhow::Result<Vec<Answer>> {
        let (options, library) = (self.options, self.library);
        let cut = |question: &String| pieces(&loaded, question, library.length);
        let tokens: Vec<Vec<u32>> = self.questions.iter().map(cut).collect::<Result<_, _>>()?;
        let need = tokens.iter().map(Vec::len).max().unwrap_or(1);
        let (length, profile) = match options.insecure_ring {
            Some(log_degree) => (Some(need), insecure_profile(log_degree)?),
            None => (None, one_profile(&options.profile)),
        };
        let cost = options.prices.table(profile.insecure)?;
        let setup = Setup::new(loaded, length, need, &Wanted::This(profile), &cost)?;
        let mut console = Console::new(!self.quiet);
        console.line(&setup.summary());
        if machine == Machine::Encrypted {
            setup.price_memory()?;
        }
        let on = On::start(machine, &setup, &mut console)?;
        value["security_bits"] = json!(setup.circuits.params().security().bits);
        value["length"] = json!(setup.plan.tokens());
        value["bootstraps"] = json!(setup.plan.refreshes().0);
        value["predicted_seconds"] = json!(setup.plan.seconds());
        if let Some(seconds) = on.seconds_keygen() {
            value["seconds_keygen"] = json!(seconds);
        }
        let mut runner = Runner::new(&setup.loaded.model, Mode::Polynomial)?;
        let mut answers = vec![];
        for (question, tokens) in self.questions.iter().zip(&tokens) {
            let clock = Instant::now();
            let row = on.answer(&setup, tokens, &mut console)?;
            let found = Found::of(&row, setup.loaded.model.shape().d_model)?;
            let hits = best(&found.scores, options.top);
            let seconds = clock.elapsed().as_secs_f64();
            let check = Some(Check::of(&found, &hits, &runner.sentence(tokens, None)?, library));
            answers.push(self.shown(Answer { question: question.clone(), hits, seconds, check }));
        }
        value["peak_rss_bytes"] = json!(peak_memory());
        Ok(answers)
    }

    fn shown(&self, answer: Answer) -> Answer {
        if !self.quiet {
            answer.show(self.library);
        }
        answer
    }

    /// What is said of all questions together; false if a vector is too far from that in the clear.
    fn summarise(&self, answers: &[Answer], value: &mut Value) -> bool {
        let (count, documents) = (answers.len(), self.library.documents.len());
        let seconds: f64 = answers.iter().map(|answer| answer.seconds).sum();
        value["seconds"] = json!(seconds);
        let checks: Vec<&Check> = answers.iter().filter_map(|answer| answer.check.as_ref()).collect();
        if checks.is_empty() {
            if !self.quiet {
                let functions = if self.library.polynomial { "polynomial" } else { "exact" };
                say!(
                    "{documents} documents, {functions} functions, clear text, {seconds:.2} s ({})",
                    described()
                );
            }
            return true;
        }
        let worse = |least: f64, c: f64| if c < least || c.is_nan() { c } else { least };
        let least = checks.iter().map(|check| check.cosine).fold(1.0, worse);
        let same = checks.iter().filter(|check| check.same_first).count();
        let places: usize = answers.iter().map(|answer| answer.hits.len()).sum();
        let shared = checks.iter().map(|check| check.shared).sum::<usize>() as f64 / places.max(1) as f64;
        let error = checks.iter().map(|check| check.largest_error).fold(0.0, f64::max);
        if !self.quiet {
            let (run, peak) = (value["run"].as_str().unwrap_or_default(), gib(peak_memory()));
            say!("{documents} documents, {run}, {seconds:.1} s, {peak:.1} GiB at the peak ({})", described());
            say!(
                "against the polynomials in the clear: same first answer {same} of {count}, {:.1} % of the \
                 best the same, largest error of a score {error:.1e}, least cosine of a vector {least:.6}, \
                 bar {LEAST_COSINE}",
                100.0 * shared
            );
        }
        value["least_cosine_to_clear"] = json!(least);
        value["largest_score_error"] = json!(error);
        value["same_first"] = json!(same);
        value["same_top_share"] = json!(shared);
        least >= LEAST_COSINE
    }
}
