//! A classifier of sentences: PowerSoftmax, the same as polynomials, and its softmax twin.

use std::path::Path;

use burn::tensor::Device;
use cipherlm_model::{Attention, FitOptions, Kind, Margins, Shape, TOKENIZER_FILE, Tokenizer};

use super::grid::{Extent, data_folder};
use crate::arch::{Arch, shifted};
use crate::classify::{self, Classifier, Example, Score};
use crate::error::Result;
use crate::settings::TrainConfig;
use crate::{checkpoint, export};

/// Trains both, writes the certified model to the folder `polarity-2x64` and the table to
/// `polarity.md`. The quick part stops after 60 steps.
pub(super) fn run(extent: &Extent, out: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let steps = if *extent == Extent::Quick { 60 } else { 1500 };
    let (train, held_out) = classify::sentence_polarity(&data_folder().join("sentence_polarity"))?;
    let text: String = train.iter().map(|(line, _)| format!("{line}\n")).collect();
    let tokenizer = Tokenizer::train(&text, 512)?;
    let power = encoder(shifted(4, 3.0));
    let context = power.shape.context;
    let encode = |set: &[(String, usize)]| classify::encode(&tokenizer, set, context);
    let (train, held_out) = (encode(&train)?, encode(&held_out)?);
    let mut learn = |arch: &Arch| -> Result<(Classifier, Score)> {
        let settings = TrainConfig::new(1, 32, steps, 1e-3);
        let mut classifier = Classifier::new(arch, settings, &Device::flex())?;
        for step in 1..=steps {
            let loss = classifier.step(&train)?;
            if step % 100 == 0 {
                progress(&format!("step {step}  loss {loss:.4}"));
            }
        }
        let score = classify::accuracy(&classifier.valid(), &held_out)?;
        Ok((classifier, score))
    };
    let (classifier, score) = learn(&power)?;
    let (_, softmax) = learn(&encoder(Attention::Softmax))?;
    let model = export::export("polarity-2x64", &power, classifier.params())?;
    let windows = |set: &[Example]| -> Vec<Vec<u32>> { set.iter().map(|e| e.tokens.clone()).collect() };
    let (seen, unseen) = (windows(&train), windows(&held_out));
    let model = cipherlm_model::freeze_eps(&model, &seen, cipherlm_model::Freezing::at(96.0))?;
    let margins = Margins { variance: 1.7, ..Margins::default() };
    let fit = FitOptions { reciprocal: 2e-3, inv_sqrt: 1e-3, activation: 4e-3, max_degree: 255 };
    let mut model = export::certify(model, &seen, &unseen, &margins, &fit)?;
    let polynomial = classify::polynomial_accuracy(&model, &held_out)?;
    model.set_provenance("data", "sentence polarity v1.0 (Pang and Lee 2005), CC BY 4.0");
    model.set_provenance("accuracy", format!("{:.4}", score.accuracy));
    model.set_provenance("accuracy_polynomial", format!("{:.4}", polynomial.accuracy));
    let folder = out.join("polarity-2x64");
    cipherlm_files::create_folder(&folder)?;
    model.save(&folder)?;
    tokenizer.save(&folder.join(TOKENIZER_FILE))?;
    let rows = [("PowerSoftmax", score), ("the same as polynomials", polynomial), ("softmax twin", softmax)];
    let mut words = format!(
        "# Sentence polarity\n\n`cargo xtask experiment polarity`. 2 layers of 64, {steps} steps of 32 \
         sentences.\n\n| model | accuracy on {} held-out sentences | chance | above it |\n\
         |---|---|---|---|\n",
        score.count
    );
    for (name, s) in rows {
        let above = if s.significant() { "yes" } else { "no" };
        let line = format!("{:.4} ± {:.4} | {:.4} | {above}", s.accuracy, s.interval, s.chance);
        progress(&format!("{name}: {line}"));
        words.push_str(&format!("| {name} | {line} |\n"));
    }
    checkpoint::write(&out.join("polarity.md"), words.as_bytes())
}

/// An encoder of BERT's form, 2 layers of 64.
fn encoder(attention: Attention) -> Arch {
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
