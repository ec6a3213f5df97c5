//! Whole forward passes, for the groups that criterion cannot time: it wants ten samples at least,
//! and one takes half a minute.
//!
//! Results are written where and as criterion writes its own, with as many samples as were really
//! taken.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::{Encrypted, Machine};
use cipherlm_infer::{Circuits, Client, Options, Plan, Profiler, Progress, Report, Server};
use cipherlm_model::{Mode, Model, Positions, Runner, Shape, TOKENIZER_FILE, Tokenizer, random};

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
    /// Mean square error of all logits against the polynomial model in the clear.
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

impl Subject {
    /// The shipped model and the first `tokens` tokens of a story: random ones would leave the
    /// ranges it is certified for.
    ///
    /// # Errors
    /// Unreadable files; a story too short.
    pub fn shipped(tokens: usize) -> Result<Self, Box<dyn Error>> {
        const STORY: &str = "Once upon a time there was a little girl named Lily. She had a red ball and she liked to play with it in the \
            park. One day, her friend Tom came to the park. He said, \"Can I play with you?\"";
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-2x128");
        let mut prompt = Tokenizer::load(&dir.join(TOKENIZER_FILE))?.encode(STORY)?;
        if prompt.len() < tokens {
            return Err(format!("the story has {} tokens, not {tokens}", prompt.len()).into());
        }
        prompt.truncate(tokens);
        Ok(Self { model: Model::load(&dir)?, prompt })
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

/// Runs `count` encrypted passes at N = 2^16, or in smoke mode one of a small model in a small
/// insecure ring.
///
/// # Errors
/// Whatever planning, key generation or the run refuse; an error above the paper's bound.
pub fn passes(subject: Subject, count: usize, smoke: bool) -> Result<Passes, Box<dyn Error>> {
    let (Subject { model, prompt: text }, profile, count) = if smoke {
        let shape = Shape { layers: 1, ..Shape::preset("test").ok_or("no test shape")? };
        let full = Profile::n16();
        let small = Profile { user_levels: full.user_levels, ..Profile::insecure(10) };
        (Subject::random("smoke", &shape, 8, 4)?, small, 1)
    } else {
        (subject, Profile::n16(), count)
    };
    let model = Arc::new(model);
    let circuits = Circuits::new(&profile)?;
    let options = Options { tokens: text.len(), ..Options::default() };
    let plan = Plan::compile(Arc::clone(&model), circuits.target()?, &options)?;
    let client = Client::generate(circuits.params())?;
    let keys = circuits.keys(client.secret(), &plan)?;
    let machine = Encrypted::new(circuits.params(), client.key_id(), Arc::clone(&keys))?;
    let server = Server::new(machine.with_refresher(circuits.refresher(&keys)?)?);
    let reference = Runner::new(&model, Mode::Polynomial)?.forward(&text, Positions::All)?;
    let (mut reports, mut mse) = (vec![], 0f64);
    for _ in 0..count {
        let prompt = client.encrypt(&plan, &text)?;
        server.machine().log().clear();
        let mut profiler = Profiler::new(&plan, |_: &Progress<'_>| true);
        let logits = server.run(&plan, prompt, &mut profiler)?;
        reports.push(profiler.finish());
        let (mut sum, mut values) = (0.0, 0);
        for (position, row) in reference.iter().enumerate() {
            let found = client.decrypt(&plan, &logits, position)?;
            sum += row.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            values += row.len();
        }
        mse = mse.max(sum / values as f64);
    }
    if mse.is_nan() || mse > 0.005 {
        return Err(format!("mean square error {mse:.1e} of the logits").into());
    }
    let params = circuits.params();
    let words = format!("{} N=2^{} logQP={:.0}", profile.name, params.log_degree(), params.log_qp());
    Ok(Passes { reports, key_bytes: circuits.key_bytes(&plan)?.0, mse, params: words })
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

/// The process's largest resident set; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
