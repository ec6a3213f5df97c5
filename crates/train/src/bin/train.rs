//! Trains, exports and experiments from the command line.
//!
//! ```text
//! train run CONFIG [--resume]         all stages of a run
//! train export CONFIG DIR             certify the newest checkpoint and write the model folder
//! train generate CONFIG PROMPT        a story from the newest checkpoint
//! train evaluate MODEL DATA           public evaluation sets on a model folder or a run's checkpoint
//! train judge MODEL DATA              a sentence encoder on STS-B, SICK and TREC-QA
//! train classify DATA OUT             a small encoder for sentence polarity, as a model folder
//! train import-llama2c FILE OUT       a llama2.c checkpoint as a start for a run
//! train stability|twins|shifts DIR [--quick|--report|--only START]
//!                                     an experiment, a part of it, or only its tables and charts
//! ```

use std::path::Path;
use std::process::ExitCode;

use cipherlm_model::{Attention, FitOptions, Kind, Margins, Shape, TOKENIZER_FILE, Tokenizer};
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::card::write_folder;
use cipherlm_train::checkpoint::write_weights;
use cipherlm_train::classify::Classifier;
use cipherlm_train::experiment::Extent;
use cipherlm_train::export::Comparison;
use cipherlm_train::generate::{Sampling, generate};
use cipherlm_train::journal::Event;
use cipherlm_train::prepared::Prepared;
use cipherlm_train::recipe::Run;
use cipherlm_train::settings::TrainConfig;
use cipherlm_train::transformer::Transformer;
use cipherlm_train::{Device, Result, classify, experiment, export, judge, tasks};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["run", config] => run(config, false),
        ["run", config, "--resume"] => run(config, true),
        ["export", config, folder] => export(config, Path::new(folder)),
        ["generate", config, prompt] => story(config, prompt),
        ["evaluate", config, data] => evaluate(config, Path::new(data)),
        ["judge", model, data] => judge(Path::new(model), Path::new(data)),
        ["classify", data, out] => polarity(Path::new(data), Path::new(out)),
        ["import-llama2c", file, out] => import(Path::new(file), Path::new(out)),
        [name @ ("stability" | "twins" | "shifts"), out] => experiment(name, Extent::Whole, Path::new(out)),
        [name @ ("stability" | "twins" | "shifts"), out, "--quick"] => {
            experiment(name, Extent::Quick, Path::new(out))
        }
        [name @ ("stability" | "twins" | "shifts"), out, "--report"] => {
            experiment(name, Extent::Report, Path::new(out))
        }
        [name @ ("stability" | "twins" | "shifts"), out, "--only", start] => {
            experiment(name, Extent::Only(start.to_owned()), Path::new(out))
        }
        _ => {
            eprintln!(
                "usage: train run CONFIG [--resume] | export CONFIG DIR | generate CONFIG PROMPT | evaluate \
                 MODEL DATA | judge MODEL DATA | classify DATA OUT | import-llama2c FILE OUT | \
                 stability|twins|shifts DIR [--quick|--report|--only START]"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &str, resume: bool) -> Result<()> {
    let prepared = Prepared::new(Run::load(Path::new(config))?, resume)?;
    let (train, held_out) = (prepared.train.tokens().len(), prepared.held_out.tokens().len());
    println!("{train} training tokens, {held_out} held out, {} parameters", prepared.arch.shape.parameters());
    prepared.train(resume, show)?;
    Ok(())
}

fn export(config: &str, folder: &Path) -> Result<()> {
    let prepared = prepare(config)?;
    let (trained, difference) = prepared.write_difference(prepared.newest()?, folder)?;
    if let Some(d) = difference {
        println!("difference: {} tensors, {} bytes, {:.4} of the change lost", d.tensors, d.bytes, d.lost);
    }
    let shipped = prepared.export(&trained)?;
    match &shipped.comparison {
        Comparison::Continuation(c) => {
            let words = cipherlm_train::eval::word_perplexity(shipped.held_out, &prepared.held_out);
            println!("held-out perplexity per token {:.4}, per word {words:.3}", shipped.held_out.exp());
            let ratio = c.polynomial / c.exact;
            println!("f64 exact {:.5}, polynomial {:.5}, ratio {ratio:.6}", c.exact, c.polynomial);
            println!("same top-1 {:.3} % of {} tokens", 100.0 * c.same_top1, c.tokens);
        }
        Comparison::Vectors(c) => {
            println!("distance from the start {:.5}, polynomial from exact {:.2e}", shipped.held_out, c.mean);
        }
    }
    for site in &shipped.model.spec().sites {
        let degree = site.scheme.as_ref().map(|s| s.coefficients.len().saturating_sub(1));
        println!(
            "{:28} [{:10.4}, {:10.4}]  checked {:9}  outside {}  degree {degree:?}",
            site.name, site.range.lo, site.range.hi, site.checked, site.violations
        );
    }
    write_folder(&prepared, &shipped, &trained, folder)
}

fn story(config: &str, prompt: &str) -> Result<()> {
    let prepared = prepare(config)?;
    let (arch, params) = prepared.newest()?;
    let model = Transformer::with_params(&arch, &params, &Device::flex())?;
    let tokens = prepared.tokenizer.encode(prompt)?;
    for seed in 0..3 {
        let how = Sampling { temperature: 0.7, top_k: 40, vocab: prepared.tokenizer.vocab(), seed };
        let new = generate(&model, &tokens, 200, prepared.tokenizer.ends(), how)?;
        println!("{prompt}{}\n----", prepared.tokenizer.decode_continuation(&tokens, &new)?);
    }
    Ok(())
}

fn evaluate(from: &str, data: &Path) -> Result<()> {
    let ((arch, params), tokenizer) = if Path::new(from).is_dir() {
        (export::read(Path::new(from))?, Tokenizer::load(&Path::new(from).join(TOKENIZER_FILE))?)
    } else {
        let prepared = prepare(from)?;
        (prepared.newest()?, prepared.tokenizer)
    };
    let model = Transformer::with_params(&arch, &params, &Device::flex())?;
    let t = &tokenizer;
    let show = |name: &str, s: tasks::Score| {
        let verdict = if s.significant() { "above chance" } else { "not above chance" };
        println!(
            "{name:24} {:5} items  {:.4} +- {:.4}  per byte {:.4}  chance {:.4}  {verdict}",
            s.count, s.accuracy, s.interval, s.normalised, s.chance
        );
    };
    let (score, perplexity) = tasks::lambada(&model, t, &data.join("lambada/lambada_test.jsonl.xz"), 1000)?;
    show("LAMBADA (first 1000)", score);
    println!("{:24} last-word perplexity {perplexity:.1}", "");
    for shots in [0, 5] {
        let piqa = tasks::piqa(&data.join("piqa/valid.jsonl.xz"), &data.join("piqa/valid-labels.lst"))?;
        show(&format!("PIQA, {shots}-shot"), tasks::choose(&model, t, &piqa, shots)?);
        let winogrande = tasks::winogrande(&data.join("winogrande/dev.jsonl.xz"))?;
        show(&format!("WinoGrande, {shots}-shot"), tasks::choose(&model, t, &winogrande, shots)?);
        for set in ["Easy", "Challenge"] {
            let arc = tasks::arc(&data.join(format!("arc/ARC-{set}.test.jsonl.xz")))?;
            show(&format!("ARC-{set}, {shots}-shot"), tasks::choose(&model, t, &arc, shots)?);
        }
    }
    Ok(())
}

fn judge(folder: &Path, data: &Path) -> Result<()> {
    let model = cipherlm_model::difference::load(folder)?;
    let tokenizer = Tokenizer::load(&folder.join(TOKENIZER_FILE))?;
    for score in judge::sentences(&model, &tokenizer, data)? {
        println!("{score}");
    }
    Ok(())
}

fn polarity(data: &Path, out: &Path) -> Result<()> {
    let (train, held_out) = classify::sentence_polarity(&data.join("sentence_polarity"))?;
    let text: String = train.iter().map(|(line, _)| format!("{line}\n")).collect();
    let tokenizer = Tokenizer::train(&text, 512)?;
    let power = polarity_encoder(shifted(4, 3.0));
    let context = power.shape.context;
    let encode = |set: &[(String, usize)]| classify::encode(&tokenizer, set, context);
    let (train, held_out) = (encode(&train)?, encode(&held_out)?);
    let learn = |arch: &Arch| -> Result<(Classifier, tasks::Score)> {
        let settings = TrainConfig::new(1, 32, 1500, 1e-3);
        let mut classifier = Classifier::new(arch, settings.clone(), &Device::flex())?;
        for step in 1..=settings.steps {
            let loss = classifier.step(&train)?;
            if step % 100 == 0 {
                println!("step {step}  loss {loss:.4}");
            }
        }
        let score = classify::accuracy(&classifier.valid(), &held_out)?;
        Ok((classifier, score))
    };
    let show = |name: &str, s: &tasks::Score| {
        println!(
            "{name}: accuracy {:.4} +- {:.4} of {}, chance {:.4}",
            s.accuracy, s.interval, s.count, s.chance
        );
    };
    let (classifier, score) = learn(&power)?;
    show("PowerSoftmax", &score);
    let model = export::export("polarity-2x64", &power, classifier.params())?;
    let windows =
        |set: &[classify::Example]| -> Vec<Vec<u32>> { set.iter().map(|e| e.tokens.clone()).collect() };
    let (seen, unseen) = (windows(&train), windows(&held_out));
    let model = cipherlm_model::freeze_eps(&model, &seen, 96.0)?;
    let margins = Margins { variance: 1.7, ..Margins::default() };
    let fit = FitOptions { reciprocal: 2e-3, inv_sqrt: 1e-3, activation: 4e-3, max_degree: 255 };
    let mut model = export::certify(model, &seen, &unseen, &margins, &fit)?;
    let polynomial = classify::polynomial_accuracy(&model, &held_out)?;
    show("the same as polynomials", &polynomial);
    model.set_provenance("data", "sentence polarity v1.0 (Pang and Lee 2005), CC BY 4.0");
    model.set_provenance("accuracy", format!("{:.4}", score.accuracy));
    model.set_provenance("accuracy_polynomial", format!("{:.4}", polynomial.accuracy));
    model.save(out)?;
    tokenizer.save(&out.join(TOKENIZER_FILE))?;
    let (_, softmax) = learn(&polarity_encoder(Attention::Softmax))?;
    show("softmax twin", &softmax);
    Ok(())
}

/// An encoder of BERT's form, 2 layers of 64.
fn polarity_encoder(attention: Attention) -> Arch {
    Arch::new(Shape {
        kind: Kind::Encoder { classes: 2 },
        layers: 2,
        d_model: 64,
        heads: 2,
        kv_heads: None,
        head_dim: 32,
        ffn: 256,
        vocab: 512,
        context: 64,
        norm: cipherlm_model::Norm::LayerNorm,
        norm_eps: 1e-5,
        placement: cipherlm_model::Placement::Post,
        activation: cipherlm_model::Activation::Gelu,
        gated: false,
        residual: cipherlm_model::Residual::Sequential,
        rotary: None,
        positions: true,
        embed_norm: true,
        frozen_norms: vec![],
        tied_head: false,
        bias: true,
        attention,
    })
}

fn import(file: &Path, out: &Path) -> Result<()> {
    let model = cipherlm_model::import::Checkpoint::open(file)?.model()?;
    let (arch, params) = cipherlm_train::export::import(&model)?;
    println!(
        "{} layers, width {}, {} parameters",
        arch.shape.layers,
        arch.shape.d_model,
        arch.shape.parameters()
    );
    write_weights(out, &arch, &params)
}

fn experiment(name: &str, extent: Extent, out: &Path) -> Result<()> {
    let report = |line: &str| println!("{line}");
    match name {
        "twins" => experiment::twins(extent, out, report),
        "shifts" => experiment::shifts(extent, out, report),
        _ => experiment::stability(extent, out, report),
    }
}

/// A run to look at: its checkpoints may be there.
fn prepare(config: &str) -> Result<Prepared> {
    Prepared::new(Run::load(Path::new(config))?, true)
}

fn show(event: &Event) {
    let p = match event {
        Event::Step(progress) => progress,
        Event::Note(note) => return println!("{} {}  {}", note.run, note.step, note.note),
    };
    let held_out = p.held_out.map(|h| format!("  held out {h:.4}")).unwrap_or_default();
    println!(
        "{} {}/{}  loss {:.4}  range {:.3}  norm {:.2}  rate {:.1e}  {:.0} tokens/s  {:.0} s left{held_out}",
        p.run,
        p.stats.step,
        p.steps,
        p.stats.loss,
        p.stats.range_loss,
        p.stats.norm,
        p.stats.rate,
        p.tokens_per_second,
        p.seconds_left,
    );
}
