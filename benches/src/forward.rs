//! Whole forward passes, for the groups that criterion cannot time: it wants ten samples at least,
//! and one takes half a minute.
//!
//! Results are written where and as criterion writes its own, with as many samples as were really
//! taken.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Primitives;
use cipherlm_infer::{
    Circuits, Client, CostModel, EncryptedLogits, Options, Plan, Profiler, Progress, Report, Server,
    Tolerance, choose_profile,
};
use cipherlm_model::{
    Kind, Mode, Model, Positions, Runner, Shape, TOKENIZER_FILE, Tokenizer, difference, random,
};

/// What a bench program was asked for on its command line.
pub struct Request {
    /// Run the bodies once, quickly, and record nothing.
    pub smoke: bool,
    filter: Option<String>,
}

impl Request {
    /// As criterion reads it: `--test`, and the first free argument as a filter.
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let filter = args.iter().enumerate().find(|(i, arg)| {
            let value = *i > 0 && matches!(args[i - 1].as_str(), "--save-baseline" | "--baseline");
            !arg.starts_with('-') && !value
        });
        Self { smoke: args.iter().any(|arg| arg == "--test"), filter: filter.map(|(_, arg)| arg.clone()) }
    }

    /// Whether any benchmark of a group may be wanted.
    pub fn wants_group(&self, group: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.starts_with(group) || group.starts_with(filter.as_str()))
    }

    /// Whether a benchmark is wanted.
    pub fn wants(&self, id: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| id.contains(filter.as_str()))
    }
}

/// Forward passes of one model and what they showed.
pub struct Passes {
    /// One report for each pass.
    pub reports: Vec<Report>,
    /// Bytes of the keys on disk.
    pub key_bytes: u64,
    /// Mean square error of the answer against the polynomial model in the clear.
    pub mse: f64,
    /// Parameters in words.
    pub params: String,
}

/// A model and the prompt that it is timed on.
pub struct Subject {
    /// The model.
    pub model: Model,
    /// The prompt; its length is that of the plan.
    pub prompt: Vec<u32>,
}

/// Where the passes of a model run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// The default profile.
    Default,
    /// The profile that the planner takes by the built-in prices.
    Cheapest,
}

impl Subject {
    /// A shipped model and the first `tokens` tokens of a story: random ones would leave the ranges
    /// it is certified for. `None` for a difference whose base weights are not at hand.
    ///
    /// # Errors
    /// Unreadable files; a story too short.
    pub fn shipped(folder: &str, tokens: usize) -> Result<Option<Self>, Box<dyn Error>> {
        const STORY: &str = "Once upon a time there was a little girl named Lily. She had a red ball and she \
                             liked to play with it in the park. One day, her friend Tom came to the park. \
                             He said, \"Can I play with you?\"";
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(folder);
        let model = match difference::load(&dir) {
            Err(cipherlm_model::Error::NoBase { .. }) => return Ok(None),
            model => model?,
        };
        let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE))?;
        let mut prompt = tokenizer.encode(STORY)?;
        if prompt.len() < tokens {
            return Err(format!("the story has {} tokens, not {tokens}", prompt.len()).into());
        }
        // A closing mark stays.
        let closing = tokenizer.encode("")?.len().saturating_sub(1).min(tokens);
        let end = prompt.split_off(prompt.len() - closing);
        prompt.truncate(tokens - closing);
        prompt.extend(end);
        Ok(Some(Self { model, prompt }))
    }

    /// A model of random weights and random tokens.
    ///
    /// # Errors
    /// A shape that certification refuses.
    pub fn random(name: &str, shape: &Shape, tokens: usize, seed: u64) -> Result<Self, Box<dyn Error>> {
        let model = random::certified(name, shape, seed)?;
        let prompt = random::windows(model.shape(), tokens, 1, 5).swap_remove(0);
        Ok(Self { model, prompt })
    }
}

/// A plan with its circuits.
fn planned(
    model: &Arc<Model>,
    prompt: &[u32],
    parameters: Parameters,
    smoke: bool,
) -> Result<(Profile, Circuits, Plan), Box<dyn Error>> {
    let options = Options { tokens: prompt.len(), ..Options::default() };
    if parameters == Parameters::Cheapest && !smoke {
        let kernel = Circuits::new(&Profile::n16())?.params().ring().kernel_name().to_owned();
        let (family, cost) = (Profile::family(), CostModel::builtin(&kernel));
        let chosen = choose_profile(model, &family, &options, &cost, prompt, Tolerance::default())?;
        return Ok((chosen.profile, chosen.circuits, chosen.plan));
    }
    let full = Profile::n16();
    let profile =
        if smoke { Profile { user_levels: full.user_levels, ..Profile::insecure(10) } } else { full };
    let circuits = Circuits::new(&profile)?;
    let plan = Plan::compile(Arc::clone(model), circuits.target()?, &options)?;
    Ok((profile, circuits, plan))
}

/// Runs `count` encrypted passes at N = 2^16, or in smoke mode one of a small model in a small
/// insecure ring.
///
/// # Errors
/// Whatever planning, key generation or the run refuse; an error above the paper's bound.
pub fn passes(
    subject: Subject,
    parameters: Parameters,
    count: usize,
    smoke: bool,
) -> Result<Passes, Box<dyn Error>> {
    let (Subject { model, prompt: text }, count) = if smoke {
        let shape = Shape { layers: 1, ..Shape::preset("test").ok_or("no test shape")? };
        (Subject::random("smoke", &shape, 8, 4)?, 1)
    } else {
        (subject, count)
    };
    let model = Arc::new(model);
    let (profile, circuits, plan) = planned(&model, &text, parameters, smoke)?;
    let client = Client::generate(circuits.params())?;
    let keys = circuits.keys(client.secret(), &plan)?;
    let server = Server::open(&circuits, client.key_id(), &keys)?;
    let (mut reports, mut mse) = (vec![], 0f64);
    for _ in 0..count {
        let prompt = client.encrypt(&plan, &text)?;
        server.machine().log().clear();
        let mut profiler = Profiler::new(&plan, |_: &Progress<'_>| true);
        let logits = server.run(&plan, prompt, &mut profiler)?;
        reports.push(profiler.finish());
        mse = mse.max(answer_error(&model, &plan, &client, &logits, &text)?);
    }
    if mse.is_nan() || mse > 0.005 {
        return Err(format!("mean square error {mse:.1e} of the answer").into());
    }
    let params = circuits.params();
    let words = format!("{} N=2^{} logQP={:.0}", profile.name, params.log_degree(), params.log_qp());
    Ok(Passes { reports, key_bytes: circuits.key_bytes(&plan)?.0, mse, params: words })
}

/// Mean square error of an answer against the polynomial model in the clear: of all logits, or of
/// the text's vector.
fn answer_error(
    model: &Model,
    plan: &Plan,
    client: &Client,
    logits: &EncryptedLogits,
    text: &[u32],
) -> Result<f64, Box<dyn Error>> {
    let mut runner = Runner::new(model, Mode::Polynomial)?;
    let (reference, found) = if let Kind::Embedder { .. } = model.shape().kind {
        (runner.sentence(text, None)?, client.sentence(plan, logits)?)
    } else {
        let found =
            (0..text.len()).map(|at| client.decrypt(plan, logits, at)).collect::<Result<Vec<_>, _>>()?;
        (runner.forward(text, Positions::All)?.concat(), found.concat())
    };
    let sum: f64 = reference.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum();
    Ok(sum / reference.len() as f64)
}

/// Leaves seconds as samples of one iteration each, for criterion's readers.
///
/// # Errors
/// A folder that cannot be written.
pub fn record(id: &str, seconds: &[f64]) -> std::io::Result<()> {
    let dir = target().join("criterion").join(id.replace('/', "_")).join("new");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("benchmark.json"), format!("{{\"full_id\":\"{id}\"}}"))?;
    let ones = vec!["1.0"; seconds.len()].join(",");
    let times: Vec<String> = seconds.iter().map(|s| format!("{}", s * 1e9)).collect();
    std::fs::write(
        dir.join("sample.json"),
        format!("{{\"iters\":[{ones}],\"times\":[{}]}}", times.join(",")),
    )?;
    println!("{id}: {}", seconds.iter().map(|s| format!("{s:.3} s")).collect::<Vec<_>>().join(", "));
    Ok(())
}

fn target() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}
