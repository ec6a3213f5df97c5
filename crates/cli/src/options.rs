//! Options that several commands take, and the numbers that options accept.
//!
//! Every number is bounded where it is parsed: what would overflow, never end or mean nothing is
//! refused by the name of its option before anything is loaded.

use crate::library::Library;
use crate::model::{Loaded, load};
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile as Chain;
use cipherlm_infer::{Tolerance, insecure_profile};
use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Longest prompt that is read, in bytes.
const PROMPT_BYTES: u64 = 1 << 20;
/// Slots of the largest ring: no more prompts share it.
const MOST_PROMPTS: u64 = 1 << 16;
/// Longest time and largest amount that mean anything: a year, a pebibyte.
const YEAR: f64 = 366.0 * 86400.0;
const PEBIBYTE_GIB: f64 = 1_048_576.0;

/// The model's option.
#[derive(Args)]
pub(crate) struct ModelOption {
    /// Model folder, or a name below `models/` (default: the shipped model).
    #[arg(long = "model", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Text before every prompt that needs no secrecy: the server computes it in the clear, and it
    /// takes no encrypted position. Every character of the file counts, its last line end too. The
    /// commands of one run take the same file.
    #[arg(long, value_name = "FILE")]
    public_prefix: Option<PathBuf>,
}

impl ModelOption {
    /// The folder or name, if one was given.
    pub(crate) fn get(&self) -> Option<&Path> {
        self.model.as_deref()
    }

    /// The model, behind the public prefix if one was given.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let loaded = load(self.get())?;
        let Some(file) = &self.public_prefix else { return Ok(loaded) };
        let text = cipherlm_files::read_text(file, PROMPT_BYTES).context("--public-prefix")?;
        loaded.behind(&text).with_context(|| format!("--public-prefix {}", cipherlm_files::shown(file)))
    }
}

/// The documents of a private search.
#[derive(Args)]
pub(crate) struct IndexOption {
    /// Private search: the folder that `cipherlm index` made. The prompt is a question, the answer
    /// the score of every document. The commands of one search take the same folder.
    #[arg(long, value_name = "DIR")]
    index: Option<PathBuf>,
}

impl IndexOption {
    /// The documents, if there are some.
    pub(crate) fn library(&self) -> anyhow::Result<Option<Library>> {
        self.index.as_deref().map(|folder| Library::load(folder).context("--index")).transpose()
    }

    /// A model for the search, if it is one.
    pub(crate) fn put_on(&self, loaded: Loaded) -> anyhow::Result<Loaded> {
        match self.library()? {
            Some(library) => library.put_on(loaded),
            None => Ok(loaded),
        }
    }
}

/// How prompts come in.
#[derive(Args)]
pub(crate) struct InputOption {
    /// Let prompts come in at the lowest level and bootstrap them first: one bootstrap more, and a
    /// prompt takes a twentieth of the bytes. Keys are made for one of the two ways.
    #[arg(long)]
    refresh_input: bool,
}

impl InputOption {
    /// Whether it was given.
    pub(crate) fn given(&self) -> bool {
        self.refresh_input
    }

    /// The model whose prompts come in that way.
    pub(crate) fn put_on(&self, loaded: Loaded) -> Loaded {
        Loaded { refresh_input: self.refresh_input, ..loaded }
    }
}

/// How many prompts go through one pass.
#[derive(Args)]
pub(crate) struct BatchOption {
    /// Take up to N prompts of one client through one pass, in the slots that a single one leaves
    /// over; the next power of two. Keys are made for one such number.
    /// (default: 1)
    #[arg(long, value_name = "N", value_parser = count(1..=MOST_PROMPTS))]
    prompts: Option<usize>,
}

impl BatchOption {
    /// Whether it was given.
    pub(crate) fn given(&self) -> bool {
        self.prompts.is_some()
    }

    /// The model for so many prompts at once.
    pub(crate) fn put_on(&self, loaded: Loaded) -> anyhow::Result<Loaded> {
        let prompts = self.prompts.unwrap_or(1);
        if prompts > 1 && loaded.index.is_some() {
            return Err(crate::exit::usage(format!(
                "--prompts {prompts} and --index: a private search takes one question a pass: leave out one \
                 of them"
            )));
        }
        Ok(Loaded { prompts, ..loaded })
    }
}

/// Where a plan comes from: a model, or a client's folder.
#[derive(Args)]
pub(crate) struct PlanSource {
    #[command(flatten)]
    model: ModelOption,
    /// The folder that `plan --client` made, in place of the model.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "public_prefix"])]
    plan: Option<PathBuf>,
}

impl PlanSource {
    /// The model's folder or name, if one was given.
    pub(crate) fn model(&self) -> Option<&Path> {
        self.model.get()
    }

    /// The model.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        self.model.load()
    }

    /// The client's folder, if one was given.
    pub(crate) fn plan(&self) -> Option<&Path> {
        self.plan.as_deref()
    }
}

/// Which parameter set to take.
pub(crate) enum Wanted {
    /// This one.
    This(Chain),
    /// The one with the shortest predicted run whose predicted answers are good enough.
    Cheapest(Tolerance),
}

impl Wanted {
    /// Whether it protects nothing.
    pub(crate) fn insecure(&self) -> bool {
        matches!(self, Self::This(chain) if chain.insecure)
    }
}

/// The options of a parameter set.
#[derive(Args)]
pub(crate) struct ProfileOption {
    /// Parameter set, 128-bit secure: its levels in the name, `n16` for n16-13, `n16-fast` for
    /// n16-14. `auto` takes the one with the shortest predicted run among those whose ephemeral
    /// secret has weight 48 (all but n16-14 and n16-18, which have 30, like the peers') and whose
    /// predicted answers are within --tolerance.
    /// (default: auto)
    #[arg(long, value_parser = profiles())]
    profile: Option<String>,
    /// Largest mean square error of a logit that `auto` accepts, as predicted with simulated noise;
    /// 99 of 100 predicted answers must stay the same besides.
    #[arg(long, value_name = "MSE", value_parser = tolerance)]
    tolerance: Option<f64>,
    /// NO SECURITY: a small ring of degree 2^LOG_N, to try the command in seconds; its result does
    /// not pass.
    #[arg(long, value_name = "LOG_N", value_parser = small_ring)]
    insecure_ring: Option<u32>,
}

/// The planner's own choice.
const AUTO: &str = "auto";

/// All names of profiles for prompts.
pub(crate) fn profiles() -> PossibleValuesParser {
    let family = Chain::family().into_iter().map(|profile| profile.name);
    PossibleValuesParser::new([AUTO, "n16", "n16-fast"].into_iter().chain(family))
}

impl ProfileOption {
    /// Whether a small ring is wanted.
    pub(crate) fn small(&self) -> bool {
        self.insecure_ring.is_some()
    }

    /// The small ring's degree, and whether a secure profile was named.
    pub(crate) fn given(&self) -> (Option<u32>, bool) {
        (self.insecure_ring, self.profile.is_some() || self.tolerance.is_some())
    }

    /// What to plan for.
    pub(crate) fn wanted(&self) -> anyhow::Result<Wanted> {
        if let Some(log_degree) = self.insecure_ring {
            return Ok(Wanted::This(insecure_profile(log_degree)?));
        }
        let tolerance = Tolerance::default();
        let mse = self.tolerance.unwrap_or(tolerance.mse);
        Ok(match self.profile.as_deref().and_then(Chain::named) {
            Some(chain) => Wanted::This(chain),
            None => Wanted::Cheapest(Tolerance { mse, ..tolerance }),
        })
    }
}

/// The parameter set of a name; none where the planner is to choose.
pub(crate) fn named_profile(name: &str) -> Option<Chain> {
    Chain::named(name)
}

/// The parameter set of a name, for circuits that `auto` does not compare.
pub(crate) fn one_profile(name: &str) -> Chain {
    named_profile(name).unwrap_or_else(Chain::n16)
}

/// Where the prompt comes from.
#[derive(Args)]
pub(crate) struct PromptOption {
    /// The text to continue; `-` reads it from standard input. Whoever uses this machine sees a
    /// command line in the list of processes, and a shell keeps it: give a private prompt by `-` or
    /// --prompt-file.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// Read the prompt from a file. Its last line end is not part of it.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl PromptOption {
    /// The prompt; `default` when none was given.
    pub(crate) fn read(&self, default: Option<&str>) -> anyhow::Result<String> {
        let text = match (&self.prompt, &self.prompt_file, default) {
            (Some(text), _, _) if text != "-" => return Ok(text.clone()),
            (Some(_), _, _) => {
                if stdin().is_terminal() {
                    crate::console::err("type the prompt, then Ctrl-D on a line of its own");
                }
                cipherlm_files::read_text_from(stdin().lock(), "standard input", PROMPT_BYTES)
                    .context("--prompt -")?
            }
            (None, Some(file), _) => {
                let open = File::open(file)
                    .with_context(|| format!("--prompt-file {}", cipherlm_files::shown(file)))?;
                cipherlm_files::read_text_from(open, &file.to_string_lossy(), PROMPT_BYTES)
                    .context("--prompt-file")?
            }
            (None, None, Some(text)) => return Ok(text.to_owned()),
            (None, None, None) => {
                return Err(crate::exit::usage(
                    "no prompt: give --prompt TEXT, --prompt - or --prompt-file FILE",
                ));
            }
        };
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        Ok(line.to_owned())
    }
}

/// Several prompts for one pass.
#[derive(Args)]
pub(crate) struct PromptsOption {
    /// Encrypt several prompts for one pass, one a line: up to as many as the keys are for. The
    /// last one fills the places that are left.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompt_file"])]
    prompts: Option<PathBuf>,
}

impl PromptsOption {
    /// The prompts, if a file was given: at least one, and none of them empty.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Vec<String>>> {
        let Some(file) = &self.prompts else { return Ok(None) };
        let text = cipherlm_files::read_text(file, PROMPT_BYTES).context("--prompts")?;
        let prompts: Vec<String> = text.lines().map(str::to_owned).collect();
        if prompts.is_empty() {
            bail!("--prompts {}: it is empty: write one prompt a line", cipherlm_files::shown(file));
        }
        if let Some(line) = prompts.iter().position(|prompt| prompt.trim().is_empty()) {
            bail!(
                "--prompts {}: line {} is empty: write one prompt a line, without lines between them",
                cipherlm_files::shown(file),
                line + 1
            );
        }
        Ok(Some(prompts))
    }
}

/// A whole number within bounds.
pub(crate) fn count(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// A number of tokens or positions.
pub(crate) fn tokens() -> RangedU64ValueParser<usize> {
    count(1..=1 << 20)
}

/// log2 of the degree of a small ring.
pub(crate) fn small_ring(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(log_degree @ 8..=15) => Ok(log_degree),
        _ => Err("8 to 15; without it the ring has degree 2^16 and 128-bit security".into()),
    }
}

/// Seconds from 0 to a year.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    number(text, "seconds", |x| (0.0..=YEAR).contains(&x), "0 to a year")
}

/// GiB above 0.
pub(crate) fn gibibytes(text: &str) -> Result<f64, String> {
    number(text, "GiB", |x| x > 0.0 && x <= PEBIBYTE_GIB, "above 0 and at most 1048576")
}

/// A temperature.
pub(crate) fn temperature(text: &str) -> Result<f64, String> {
    number(text, "a temperature", |x| (0.0..=1e6).contains(&x), "0 to 1000000")
}

/// A factor that widens.
pub(crate) fn margin(text: &str) -> Result<f64, String> {
    number(text, "a factor", |x| (1.0..=1e6).contains(&x), "1 to 1000000")
}

/// A largest error.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    number(text, "an error", |x| (1e-15..1.0).contains(&x), "1e-15 to 1, 1 left out")
}

fn number(text: &str, what: &str, fits: impl Fn(f64) -> bool, bounds: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if fits(value) => Ok(value),
        _ => Err(format!("it takes {what}, {bounds}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_numbers_are_refused() {
        for text in ["1e300", "inf", "NaN", "-1", "", "1e", "31622401"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!((seconds("0"), seconds(" 2.5 ")), (Ok(0.0), Ok(2.5)));
        assert!(gibibytes("0").is_err() && gibibytes("1e9").is_err() && gibibytes("0.001").is_ok());
        assert!(
            margin("0.99").is_err()
                && margin("1").is_ok()
                && tolerance("1").is_err()
                && tolerance("0").is_err()
        );
        assert!(small_ring("7").is_err() && small_ring("16").is_err() && small_ring("4294967304").is_err());
        assert_eq!(small_ring("8"), Ok(8));
    }

    #[test]
    fn a_prompt_loses_one_line_end() {
        let folder = cipherlm_testing::Scratch::new("prompt");
        let file = folder.join("prompt");
        for (written, read) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\u{feff}a", "a"), ("", "")]
        {
            std::fs::write(&file, written).unwrap();
            let option = PromptOption { prompt: None, prompt_file: Some(file.clone()) };
            assert_eq!(option.read(None).unwrap(), read, "{written:?}");
        }
        let text = PromptOption { prompt: Some("a\n".into()), prompt_file: None };
        assert_eq!(text.read(Some("other")).unwrap(), "a\n");
        let none = PromptOption { prompt: None, prompt_file: None };
        assert_eq!(none.read(Some("other")).unwrap(), "other");
        assert!(none.read(None).is_err());
    }
}
