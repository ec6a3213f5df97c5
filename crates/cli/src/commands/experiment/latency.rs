//! Three normalisers under encryption, same library, same parameters, same scores.

use super::softmax::{Method, REACH, Softmax, Split};
use crate::console::err;
use anyhow::Context;
use cipherlm_circuits::bootstrap::{BootstrapKeys, BootstrapRefresher, Bootstrapper, Content, Profile};
use cipherlm_circuits::slots::{Chain, Clear, Encrypted, Machine, Plain, Primitives, RefreshKind};
use cipherlm_ckks::{Complex64, Evaluator, Params, Plaintext, SecretKey};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fmt::Write as _;
use std::sync::Arc;

/// Heads of the shipped model.
const HEADS: usize = 4;

pub(super) const HEADER: &str = "method,length,kind,machine,wide_vectors,seconds,wide_seconds,narrow_seconds,\
     refreshes,levels_left,max_error";

pub(super) fn run(quick: bool) -> anyhow::Result<String> {
    let measured: &[usize] = if quick { &[128] } else { &[128, 256, 512] };
    let predicted: &[usize] = if quick { &[256, 512, 1024] } else { &[1024, 2048] };
    let profile = Profile::n16();
    let params = profile.params()?;
    let pairs = HEADS * measured.iter().max().copied().unwrap_or(128);
    let circuit = Arc::new(Bootstrapper::new(&params, &profile, pairs, Content::Real)?);
    let circuits = cases(measured)?;
    // A dry run of every circuit finds the keys.
    let dry = Clear::dry(Chain::above(&params, circuit.input_level())?);
    let dry = circuits.iter().fold(dry, |machine, (length, _)| {
        machine.with_refresh(circuit.refresh_profile(RefreshKind::SparseReal(HEADS * length)))
    });
    for (length, softmax) in &circuits {
        let wide = vectors(*length, params.slots());
        let blank = (0..wide).map(|_| dry.trivial(&Plain::from(0.0), circuit.output_level()));
        softmax.run(&dry, &blank.collect::<Result<Vec<_>, _>>()?)?;
    }
    let secret = SecretKey::generate(&params)?;
    let keys = Arc::new(BootstrapKeys::generate(&secret, &[&circuit], &dry.log().key_request(&params))?);
    let evaluator = Evaluator::new(&params, Arc::clone(&keys));
    let machine = Encrypted::new(&params, secret.id(), keys)?
        .with_refresher(Arc::new(BootstrapRefresher::new(evaluator, vec![Arc::clone(&circuit)])?))?;
    let mut csv = format!("{HEADER}\n");
    let mut last: Vec<(Method, usize, Split)> = vec![];
    for (length, softmax) in &circuits {
        let method = softmax.method();
        let scores = scores(*length);
        let inputs = encrypt(&machine, &secret, softmax, &scores, circuit.output_level())?;
        let (outputs, split) = softmax.run(&machine, &inputs)?;
        let level = outputs.iter().map(|v| machine.level(v)).min().context("no outputs")?;
        let error = worst(&secret, softmax, &outputs, &scores, *length)?;
        let wide = inputs.len();
        line(&mut csv, method, *length, ("measured", "encrypted"), wide, split, Some((level, error)));
        last.retain(|(known, ..)| *known != method);
        last.push((method, *length, split));
        err(&format!(
            "{} at {length}: {:.2} s (wide {:.2} s over {wide} vectors), {} refreshes, error {error:.1e}",
            method.name(),
            split.wide + split.narrow,
            split.wide,
            split.refreshes
        ));
    }
    // Wide work is proportional to the vectors, narrow work does not depend on the length.
    for &length in predicted {
        for &(method, known, split) in &last {
            let ratio = vectors(length, params.slots()) as f64 / vectors(known, params.slots()) as f64;
            let split = Split { wide: split.wide * ratio, ..split };
            line(&mut csv, method, length, ("predicted", "-"), vectors(length, params.slots()), split, None);
        }
    }
    Ok(csv)
}

fn cases(lengths: &[usize]) -> anyhow::Result<Vec<(usize, Softmax)>> {
    let pairs = lengths.iter().flat_map(|&length| Method::ALL.map(|method| (length, method)));
    pairs.map(|(length, method)| Ok((length, Softmax::new(method, length, HEADS * length)?))).collect()
}

/// Vectors of scores of all heads.
fn vectors(length: usize, slots: usize) -> usize {
    (HEADS * length * length).div_ceil(slots)
}

fn line(
    csv: &mut String,
    method: Method,
    length: usize,
    (kind, machine): (&str, &str),
    wide: usize,
    split: Split,
    checked: Option<(usize, f64)>,
) {
    let (level, error) = checked.map_or_else(Default::default, |(l, e)| (l.to_string(), format!("{e:.2e}")));
    let _ = writeln!(
        csv,
        "{},{length},{kind},{machine},{wide},{:.3},{:.3},{:.3},{},{level},{error}",
        method.name(),
        split.wide + split.narrow,
        split.wide,
        split.narrow,
        split.refreshes
    );
}

/// `[key][pair]`, normal with deviation 1.5, cut at the reach.
fn scores(length: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(length as u64);
    let uniform = |rng: &mut ChaCha8Rng| rand::RngExt::random::<f64>(rng).max(1e-12);
    let mut normal = || {
        let (u, v) = (uniform(&mut rng), uniform(&mut rng));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..HEADS * length * length).map(|_| (1.5 * normal()).clamp(-REACH, REACH)).collect()
}

fn encrypt<K: cipherlm_ckks::EvaluationKeys>(
    machine: &Encrypted<K>,
    secret: &SecretKey,
    softmax: &Softmax,
    scores: &[f64],
    level: usize,
) -> anyhow::Result<Vec<cipherlm_circuits::slots::EncryptedVector>> {
    let params: &Params = machine.params();
    let vector = |chunk: &[f64]| {
        let slots: Vec<_> = chunk.iter().map(|&x| Complex64::new(softmax.enter(x), 0.0)).collect();
        let plaintext = Plaintext::encode(params, &slots, params.slots(), machine.chain().scale(level))?;
        Ok(machine.input(secret.encrypt(&plaintext, level)?)?)
    };
    scores.chunks(params.slots()).map(vector).collect()
}

/// Largest error of a weight.
fn worst(
    secret: &SecretKey,
    softmax: &Softmax,
    outputs: &[cipherlm_circuits::slots::EncryptedVector],
    scores: &[f64],
    length: usize,
) -> anyhow::Result<f64> {
    let method = softmax.method();
    let pairs = HEADS * length;
    let mut sums = vec![method.constant(length); pairs];
    scores.iter().enumerate().for_each(|(i, &x)| sums[i % pairs] += method.weight(x));
    let mut worst = 0f64;
    let mut index = 0;
    for output in outputs {
        for value in secret.decrypt(output.ciphertext())?.decode().real() {
            let expected = method.weight(scores[index]) / sums[index % pairs];
            let error = (value / softmax.scale() - expected).abs();
            // NaN must not pass for a small error.
            worst = if error > worst || error.is_nan() { error } else { worst };
            index += 1;
        }
    }
    Ok(worst)
}
