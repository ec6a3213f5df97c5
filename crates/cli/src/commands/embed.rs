//! `cipherlm embed`: vectors of sentences.

use crate::console::{out_json, say};
use crate::model::Loaded;
use crate::options::{ModelOption, Wanted, count, one_profile, profiles, small_ring};
use crate::outputs::Outputs;
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::sentence::{LEAST_COSINE, LENGTH, dot, ensure_embeds, pieces, vectors};
use crate::session::Session;
use crate::setup::Setup;
use crate::system::machine;
use anyhow::{Context, bail};
use cipherlm_files::{Access, shown};
use cipherlm_infer::insecure_profile;
use cipherlm_model::Mode;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Longest text that is read, in bytes.
const TEXT_BYTES: u64 = 1 << 30;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Sentences, one a line.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens that a sentence is cut to.
    #[arg(long, default_value_t = LENGTH, value_parser = count(3..=1 << 20))]
    length: usize,
    /// The certified polynomials instead of the exact functions: what runs under encryption.
    #[arg(long)]
    polynomial: bool,
    /// Under encryption, client and server in one process with nothing but ciphertexts and public
    /// keys between them; every vector is compared with the polynomials in the clear.
    #[arg(long)]
    encrypted: bool,
    /// NO SECURITY: a small ring of degree 2^LOG_N, to try --encrypted in seconds.
    #[arg(long, value_name = "LOG_N", value_parser = small_ring, requires = "encrypted")]
    insecure_ring: Option<u32>,
    /// Parameter set of --encrypted, 128-bit secure.
    #[arg(long, value_parser = profiles(), default_value = "n16")]
    profile: String,
    #[command(flatten)]
    prices: PricesOption,
    /// Also write the result as JSON here (`--json FILE` does the same); replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// One vector a line.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    outputs.input("--text", &options.text)?;
    let report = outputs.report("--json-file", options.json_file.as_deref())?;
    let loaded = options.model.load()?;
    ensure_embeds(&loaded, "embed")?;
    let text = cipherlm_files::read_text(&options.text, TEXT_BYTES).context("--text")?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        bail!("{} holds no sentence", shown(&options.text));
    }
    let (name, width) = (loaded.model.spec().name.clone(), loaded.model.shape().d_model);
    let mode = if options.polynomial || options.encrypted { Mode::Polynomial } else { Mode::Exact };
    let clock = Instant::now();
    let mut vectors = vectors(&loaded, mode, &lines, options.length)?;
    let mut seconds = clock.elapsed().as_secs_f64();
    let mut value = json!({
        "model": name,
        "machine": machine(),
        "run": if options.encrypted { "encrypted" } else { "clear" },
        "functions": if mode == Mode::Polynomial { "polynomial" } else { "exact" },
    });
    let mut pass = true;
    if options.encrypted {
        let under = encrypted(options, loaded, &lines, as_json)?;
        let cosines = under.vectors.iter().zip(&vectors).map(|(a, b)| dot(a, b));
        let worst = cosines.fold(1.0, |worst: f64, c| if c < worst || c.is_nan() { c } else { worst });
        pass = worst >= LEAST_COSINE;
        value["seconds_keygen"] = json!(under.seconds_keygen);
        value["security_bits"] = json!(under.security_bits);
        value["least_cosine_to_clear"] = json!(worst);
        (vectors, seconds) = (under.vectors, under.seconds);
        if !as_json {
            say!("least cosine to the polynomials in the clear: {worst:.6}, bar {LEAST_COSINE}");
        }
    }
    value["vectors"] = json!(vectors);
    value["seconds"] = json!(seconds);
    if as_json {
        out_json(&value);
    } else {
        let run = if options.encrypted { "encrypted" } else { "clear text" };
        say!("{} vectors of {width} values in {seconds:.2} s, {run} ({})", vectors.len(), machine());
        if report.is_none() {
            for (line, vector) in lines.iter().zip(&vectors) {
                let first: Vec<String> = vector.iter().take(4).map(|x| format!("{x:>8.4}")).collect();
                say!("{} …  {line}", first.join(" "));
            }
        }
    }
    if let Some(report) = report {
        report.write(format!("{value}\n").as_bytes(), Access::Everyone)?;
    }
    Ok(pass)
}

/// Vectors that came out of encrypted runs.
struct Encrypted {
    vectors: Vec<Vec<f64>>,
    seconds: f64,
    seconds_keygen: f64,
    security_bits: f64,
}

/// One plan for the longest line, one run a line.
fn encrypted(options: &Options, loaded: Loaded, lines: &[&str], quiet: bool) -> anyhow::Result<Encrypted> {
    let tokens: Vec<Vec<u32>> =
        lines.iter().map(|line| pieces(&loaded, line, options.length)).collect::<Result<_, _>>()?;
    let need = tokens.iter().map(Vec::len).max().unwrap_or(1);
    let (length, profile) = match options.insecure_ring {
        Some(log_degree) => (Some(need), insecure_profile(log_degree)?),
        None => (None, one_profile(&options.profile)),
    };
    let cost = options.prices.table(profile.insecure)?;
    let setup = Setup::new(loaded, length, need, &Wanted::This(profile), &cost)?;
    let mut console = Console::new(!quiet);
    console.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, false, &mut console)?;
    let clock = Instant::now();
    let vectors =
        tokens.iter().map(|tokens| session.vector(tokens, &mut console)).collect::<Result<_, _>>()?;
    Ok(Encrypted {
        vectors,
        seconds: clock.elapsed().as_secs_f64(),
        seconds_keygen: session.seconds_keygen,
        security_bits: setup.circuits.params().security().bits,
    })
}
