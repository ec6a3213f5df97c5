//! Twins compared when everything that encryption asks for is done: softmax, PowerSoftmax as it is
//! trained, the same after range control, frozen epsilons and polynomials, and the lean layer. All
//! have the same seed, text and number of steps.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use cipherlm_model::{Attention, Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};
use serde_json::{Value, json};

use super::cell::{Budget, Cell, Text, decoder};
use super::grid::{Extent, corrupt, data_folder, lines};
use super::report::name;
use crate::arch::{Arch, Form, shifted};
use crate::error::{Error, Result};
use crate::export::Comparison;
use crate::prepared::Prepared;
use crate::recipe::{Run, TokenizerSource};
use crate::text::{Data, read_text};
use crate::trainer::LAST;
use crate::{checkpoint, eval};

/// Windows of each other text whose values are held against the certified ranges.
const OTHER_WINDOWS: usize = 100;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twin {
    /// The polynomial-ready model. First: the others take its tokenizer, the lean one its weights.
    Ready,
    /// Quadratic activations and frozen norms, from the ready model's first stage.
    Lean,
    /// The softmax twin.
    Softmax,
    /// PowerSoftmax for all steps, with no thought of encryption.
    Exact,
}

impl Twin {
    const ALL: [Self; 4] = [Self::Ready, Self::Lean, Self::Softmax, Self::Exact];

    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Lean => "lean",
            Self::Softmax => "softmax",
            Self::Exact => "exact",
        }
    }
}

/// One line of the CSV.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    /// Held-out perplexity per word of the functions themselves.
    exact: f64,
    /// The same with every function a polynomial; NaN where there are none.
    polynomial: f64,
    /// Windows of other texts, and how many of them leave a certified range.
    others: (usize, usize),
    /// `done`, or why not.
    mode: String,
}

/// Where a twin stands in the grid.
#[derive(Debug, Clone, Copy)]
struct Place {
    text: Text,
    layers: usize,
    seed: u64,
}

impl Place {
    fn key(self, twin: Twin) -> String {
        format!("{},{},{},{}", super::cell::text_key(self.text), self.layers, self.seed, twin.name())
    }
}

/// Runs what the CSV does not have, then writes `ready.csv` and `ready.md`. The quick part is one
/// seed of stories.
pub(super) fn run(extent: &Extent, out: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let quick = *extent == Extent::Quick;
    let (steps, seeds) = if quick { (80, 1) } else { (1600, 3) };
    let public = [(Text::Stories, "tinystories"), (Text::Plays, "shakespeare")];
    let there = public.into_iter().filter(|(_, folder)| data_folder().join(folder).exists());
    let mut texts: Vec<Text> = there.map(|(text, _)| text).take(if quick { 1 } else { 2 }).collect();
    if texts.is_empty() {
        texts.push(Text::Generated);
    }
    let places: Vec<Place> =
        texts.iter().flat_map(|&text| (1..=seeds).map(move |seed| Place { text, layers: 2, seed })).collect();
    let csv = out.join("ready.csv");
    let stamp = format!("# width 128 heads 4 context 128 vocab 512 batch 16 steps {steps}");
    let mut done = read(&csv, &stamp)?;
    for (place, twin) in places.iter().flat_map(|place| Twin::ALL.map(|twin| (*place, twin))) {
        let key = place.key(twin);
        let wanted = match extent {
            Extent::Report => false,
            Extent::Only(start) => key.starts_with(start.as_str()),
            Extent::Quick | Extent::Whole => true,
        };
        if !wanted || done.contains_key(&key) {
            continue;
        }
        let outcome = train(place, twin, steps, out)?;
        progress(&format!("{key}  {:.2}  {:.2}  {}", outcome.exact, outcome.polynomial, outcome.mode));
        append(&csv, &stamp, &key, &outcome)?;
        done.insert(key, outcome);
    }
    checkpoint::write(&out.join("ready.md"), report(&places, &done, steps).as_bytes())
}

/// Trains one twin and measures it.
fn train(place: Place, twin: Twin, steps: usize, out: &Path) -> Result<Outcome> {
    let folder = out.join("ready").join(place.key(twin).replace(',', "-"));
    let first = out.join("ready").join(place.key(Twin::Ready).replace(',', "-"));
    let data = data(place.text, out)?;
    let learn = steps / 2;
    let mut run = Run {
        name: place.key(twin),
        data,
        tokenizer: TokenizerSource::File(first.join(TOKENIZER_FILE)),
        model: Some(arch(place, twin)),
        start: None,
        context: None,
        public_prefix: None,
        stages: vec![],
        folder,
        export: serde_json::from_value(json!({"calibration_windows": 512, "held_out_windows": 400,
            "compare_windows": 100, "margins": {"denominator": 3.0, "variance": 1.7, "activation": 1.15,
            "magnitude": 1.5}, "fit": {"reciprocal": 0.002, "inv_sqrt": 0.001, "activation": 0.004,
            "max_degree": 255}}))?,
        difference: None,
        about: BTreeMap::new(),
        prompt: "Once".into(),
    };
    let stages = match twin {
        Twin::Softmax | Twin::Exact => vec![stage("learn", place.seed, steps, 2e-3, 0.05, json!({}))],
        Twin::Ready => {
            run.tokenizer = TokenizerSource::Train { vocab: 512 };
            ready_stages(place.seed, learn, steps - learn)
        }
        Twin::Lean => {
            run.model = None;
            run.start = Some(first.join("learn").join(LAST));
            lean_stages(place, steps - learn)
        }
    };
    run.stages = stages.into_iter().map(serde_json::from_value).collect::<std::result::Result<_, _>>()?;
    let prepared = Prepared::new(run, true)?;
    let trained = match prepared.train(true, |_| {}) {
        Ok(trained) => trained,
        Err(Error::Diverged { step, reason }) => {
            return Ok(failed(f64::NAN, &format!("diverged at step {step}: {reason}")));
        }
        Err(other) => return Err(other),
    };
    let word = |nats: f64| eval::word_perplexity(nats, &prepared.held_out);
    let exact = word(prepared.compared(&trained)?.1);
    if matches!(twin, Twin::Softmax | Twin::Exact) {
        return Ok(Outcome { exact, polynomial: f64::NAN, others: (0, 0), mode: "done".into() });
    }
    let shipped = match prepared.export(&trained) {
        Ok(shipped) => shipped,
        Err(Error::Model(refused)) => return Ok(failed(exact, &refused.to_string())),
        Err(other) => return Err(other),
    };
    let Comparison::Continuation(both) = shipped.comparison else {
        return Ok(failed(exact, "no model of tokens"));
    };
    // The two passes score fewer windows: their ratio carries over to all of them.
    let polynomial = exact * word(both.polynomial.ln()) / word(both.exact.ln());
    let others = leaves(&shipped.model, &prepared.tokenizer, place.text)?;
    Ok(Outcome { exact, polynomial, others, mode: "done".into() })
}

fn failed(exact: f64, why: &str) -> Outcome {
    let mode = why.replace(',', ";").replace('\n', " ");
    Outcome { exact, polynomial: f64::NAN, others: (0, 0), mode }
}

fn arch(place: Place, twin: Twin) -> Arch {
    let attention = if twin == Twin::Softmax { Attention::Softmax } else { shifted(4, 3.0) };
    let budget = Budget { width: 128, heads: 4, context: 128, vocab: 512, batch: 16, steps: 0 };
    let cell = Cell {
        attention,
        form: Form::Mean,
        text: place.text,
        layers: place.layers,
        seed: place.seed,
        query_key_rate: 1.0,
    };
    Arch::new(decoder(&cell, budget))
}

/// A stage with what all have in common; `more` adds to its own fields, `train` in it to training.
fn stage(name: &str, seed: u64, steps: usize, peak: f64, floor: f64, more: Value) -> Value {
    let train = json!({"seed": seed, "batch": 16, "steps": steps,
        "schedule": {"peak": peak, "warm_up": steps.div_ceil(20), "floor": floor},
        "evaluate_every": steps, "evaluate_windows": 128, "checkpoint_every": 100});
    let mut stage = json!({"name": name, "train": train});
    for (field, value) in more.as_object().into_iter().flatten() {
        if field == "train" {
            for (inner, value) in value.as_object().into_iter().flatten() {
                stage["train"][inner] = value.clone();
            }
        } else {
            stage[field] = value.clone();
        }
    }
    stage
}

/// Learn, pull the ranges in, freeze epsilons, train with the polynomials in place.
fn ready_stages(seed: u64, learn: usize, rest: usize) -> Vec<Value> {
    let range = |ratio: Option<f64>| {
        json!({"weight": 0.1, "ramp": 40,
            "limits": {"scores": 15.0, "feed_forward": 9.0, "row_ratio": ratio}})
    };
    let (ranges, frozen) = (rest * 2 / 5, rest / 10);
    vec![
        stage("learn", seed, learn, 2e-3, 0.2, json!({})),
        stage("range", seed + 100, ranges, 8e-4, 0.3, json!({"train": {"range": range(None)}})),
        stage(
            "frozen",
            seed + 200,
            frozen,
            3e-4,
            0.5,
            json!({"freeze": {"spread": 96.0, "windows": 512}, "train": {"range": range(Some(96.0))}}),
        ),
        stage(
            "polynomial",
            seed + 300,
            rest - ranges - frozen,
            5e-4,
            0.03,
            json!({"polynomial": true, "train": {"range": range(Some(96.0))}}),
        ),
    ]
}

/// The stages of the shipped lean model, in as many steps as the ready one has for its own.
fn lean_stages(place: Place, rest: usize) -> Vec<Value> {
    let range = |ratio: Option<f64>| {
        json!({"weight": 0.05, "ramp": 40, "limits": {"scores": 15.0, "feed_forward": 9.0,
            "row_ratio": ratio, "variance_ratio": 6.0, "hidden": 12.0}})
    };
    let teach = json!({"teacher": "start", "how": {"weight": 0.6, "temperature": 1.0, "hidden": 0.0}});
    let blocks = (0..place.layers).flat_map(|l| [1, 2].map(|n| format!("layers.{l}.norm{n}")));
    let norms: Vec<String> = blocks.chain(["final_norm".into()]).collect();
    // Half of the steps go to the polynomials, a twelfth to the epsilons.
    let (polynomial, frozen) = (rest / 2, rest / 12);
    let each = (rest - polynomial - frozen) / (norms.len() + 1);
    let first = rest - polynomial - frozen - each * norms.len();
    let lean = |quadratic: bool, norms: &[&String], windows: usize| {
        json!({"lean": {"quadratic": quadratic, "norms": norms, "windows": windows}, "distil": teach,
            "train": {"range": range(None)}})
    };
    let mut stages = vec![stage("quadratic", place.seed + 100, first, 8e-4, 0.3, lean(true, &[], 64))];
    for (seed, norm) in (place.seed + 200..).zip(&norms) {
        stages.push(stage(&norm.replace('.', "-"), seed, each, 8e-4, 0.3, lean(false, &[norm], 256)));
    }
    let more =
        |key: &str, value: Value| json!({key: value, "distil": teach, "train": {"range": range(Some(20.0))}});
    let freeze = more("freeze", json!({"spread": 20.0, "windows": 512}));
    stages.push(stage("frozen", place.seed + 400, frozen, 8e-4, 0.5, freeze));
    let last = more("polynomial", json!(true));
    stages.push(stage("polynomial", place.seed + 500, polynomial, 8e-4, 0.03, last));
    stages
}

/// The text of a run; plays are cut in two files first.
fn data(text: Text, out: &Path) -> Result<Data> {
    let file = |name: &str| data_folder().join(name);
    Ok(match text {
        Text::Stories => Data::Files {
            train: file("tinystories/part1.txt.xz"),
            held_out: file("tinystories/part2.txt.xz"),
        },
        Text::Articles => Data::Files {
            train: file("wikitext-2/wiki.train.tokens.xz"),
            held_out: file("wikitext-2/wiki.valid.tokens.xz"),
        },
        Text::Generated => Data::Generated { seed: 1, stories: 20_000 },
        Text::Plays => {
            let [train, held_out] =
                ["plays-train.txt", "plays-held-out.txt"].map(|n| out.join("ready").join(n));
            if !held_out.exists() {
                cipherlm_files::create_folder(&out.join("ready"))?;
                let (first, second) = super::grid::plays()?;
                checkpoint::write(&train, first.as_bytes())?;
                checkpoint::write(&held_out, second.as_bytes())?;
            }
            Data::Files { train, held_out }
        }
    })
}

/// Windows of texts of other kinds, which chose nothing, and how many leave a certified range.
fn leaves(model: &Model, tokenizer: &Tokenizer, own: Text) -> Result<(usize, usize)> {
    let kinds = [
        (Text::Stories, "tinystories/part2.txt.xz"),
        (Text::Plays, "shakespeare/tinyshakespeare.txt.xz"),
        (Text::Articles, "wikitext-2/wiki.valid.tokens.xz"),
    ];
    let files = kinds.into_iter().filter(|(kind, _)| *kind != own).map(|(_, file)| data_folder().join(file));
    let (mut windows, mut outside, context) = (0, 0, model.shape().context);
    for file in files.filter(|file: &PathBuf| file.exists()) {
        let tokens = tokenizer.encode(&read_text(&file)?)?;
        let step = (tokens.len() / OTHER_WINDOWS).max(context);
        for window in tokens.chunks_exact(step).filter_map(|chunk| chunk.get(..context)) {
            let mut runner = Runner::new(model, Mode::Exact)?;
            runner.forward(window, Positions::Last)?;
            windows += 1;
            outside += usize::from(runner.stats().any(|(_, _, s)| s.violations > 0));
        }
    }
    Ok((windows, outside))
}

fn read(csv: &Path, stamp: &str) -> Result<BTreeMap<String, Outcome>> {
    let mut done = BTreeMap::new();
    for line in lines(csv, stamp)? {
        let fields: Vec<&str> = line.split(',').collect();
        let [text, layers, seed, twin, exact, polynomial, windows, outside, mode] = fields[..] else {
            return Err(corrupt(csv, format!("not nine fields: `{line}`")));
        };
        let number = |s: &str| s.parse::<f64>().map_err(|e| corrupt(csv, format!("`{line}`: {e}")));
        let others = (number(windows)? as usize, number(outside)? as usize);
        let outcome =
            Outcome { exact: number(exact)?, polynomial: number(polynomial)?, others, mode: mode.to_owned() };
        done.insert([text, layers, seed, twin].join(","), outcome);
    }
    Ok(done)
}

fn append(csv: &Path, stamp: &str, key: &str, o: &Outcome) -> Result<()> {
    let header = "text,layers,seed,twin,word_perplexity,polynomial,other_windows,outside,outcome";
    let head = if csv.exists() { String::new() } else { format!("{stamp}\n{header}\n") };
    let (windows, outside) = o.others;
    let line = format!("{head}{key},{:.4},{:.4},{windows},{outside},{}", o.exact, o.polynomial, o.mode);
    Ok(cipherlm_files::append(csv, &line)?)
}

fn report(places: &[Place], done: &BTreeMap<String, Outcome>, steps: usize) -> String {
    let mut words = format!(
        "# Twins after all that encryption asks for\n\n`cargo xtask experiment ready [--quick]`. Decoders \
         of 2 layers, width 128, context 128, {steps}\nsteps of 2,048 tokens each, same seed and text. \
         *exact*: `(x+3)^4`, trained as it is. *ready*: half\nof the steps the same, then range control, \
         frozen epsilons, and training with the polynomials in\nplace. *lean*: from the same half, \
         quadratic activations and frozen norms. Held-out perplexity per\nword; ratios are to softmax; \
         for ready and lean that of the polynomials, which is what encryption\ncomputes. *outside*: \
         windows of the other kinds of text, which chose nothing, that leave a certified\nrange.\n\n\
         | text | seed | softmax | exact | ratio | ready | ratio | outside | lean | ratio | outside |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    let mut ratios: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for place in places {
        let of = |twin| done.get(&place.key(twin));
        let softmax = of(Twin::Softmax).map_or(f64::NAN, |o| o.exact);
        let _ = write!(words, "| {} | {} | {softmax:.2} ", name(place.text), place.seed);
        for twin in [Twin::Exact, Twin::Ready, Twin::Lean] {
            let Some(o) = of(twin) else {
                words.push_str(if twin == Twin::Exact { "| not run | " } else { "| not run | | " });
                continue;
            };
            let value = if twin == Twin::Exact { o.exact } else { o.polynomial };
            let _ = write!(words, "| {value:.2} | {:.3} ", value / softmax);
            if twin != Twin::Exact {
                let _ = match o.mode.as_str() {
                    "done" => write!(words, "| {} of {} ", o.others.1, o.others.0),
                    why => write!(words, "| {why} "),
                };
            }
            ratios.entry((name(place.text), twin.name())).or_default().push(value / softmax);
        }
        words.push_str("|\n");
    }
    words.push_str("\n| text | twin | seeds | mean over softmax | largest |\n|---|---|---|---|---|\n");
    for ((text, twin), all) in &ratios {
        let known: Vec<f64> = all.iter().copied().filter(|r| r.is_finite()).collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let largest = known.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(words, "| {text} | {twin} | {} | {mean:.3} | {largest:.3} |", known.len());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Stage;

    #[test]
    fn every_twin_takes_all_steps_in_stages_that_read() {
        let place = Place { text: Text::Generated, layers: 2, seed: 1 };
        let steps = |stages: Vec<Value>| -> usize {
            let read = stages.into_iter().map(|v| serde_json::from_value::<Stage>(v).unwrap());
            read.map(|stage| stage.train.steps).sum()
        };
        for rest in [40, 800, 1201] {
            assert_eq!(steps(ready_stages(1, 800, rest)), 800 + rest);
            assert_eq!(steps(lean_stages(place, rest)), rest);
        }
    }

    #[test]
    fn lines_read_back() {
        let path = std::env::temp_dir().join(format!("cipherlm-ready-{}.csv", std::process::id()));
        let outcome = Outcome { exact: 9.5, polynomial: 10.25, others: (100, 3), mode: "done".into() };
        append(&path, "# a", "plays,2,1,lean", &outcome).unwrap();
        append(&path, "# a", "plays,2,1,ready", &failed(9.0, "a, b")).unwrap();
        let back = read(&path, "# a").unwrap();
        assert_eq!(back["plays,2,1,lean"], outcome);
        assert!(back["plays,2,1,ready"].polynomial.is_nan() && back["plays,2,1,ready"].mode == "a; b");
        assert!(matches!(read(&path, "# b"), Err(Error::Corrupt { .. })));
        std::fs::remove_file(&path).unwrap();
    }
}
