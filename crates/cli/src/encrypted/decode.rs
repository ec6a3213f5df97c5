//! `generate --encrypted`: a prompt at once, then token by token over encrypted keys and values.

use super::outcome::TokenCheck;
use super::run::Console;
use super::setup;
use crate::system::{available_memory, gib, peak_memory, processor, threads};
use crate::clear::{Sampler, argmax};
use crate::flags;
use anyhow::{Context, bail};
use cipherlm_ckks::bootstrap::{BootstrapKeys, Profile};
use cipherlm_ckks::slots::{Encrypted, Machine};
use cipherlm_infer::{Circuits, Client, Geometry, Options, Plan, Profiler, Progress, Purpose, Report, Server, Session};
use cipherlm_spec::{Mode, Model, Positions, Runner};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

type Keys = Arc<BootstrapKeys>;

/// One generated token.
struct Row {
    token: u32,
    position: usize,
    report: Report,
    check: TokenCheck,
}

/// Plans of one conversation, before any key exists.
struct Plans {
    circuits: Circuits,
    prompt: Plan,
    token: Plan,
}

impl Plans {
    fn new(model: &Arc<Model>, length: usize) -> anyhow::Result<Self> {
        let profile = Profile::n16();
        let circuits = Circuits::new(&profile)?;
        let slots = circuits.params().slots();
        let period = Geometry::new(model.shape(), 1, slots)?.period();
        let circuits = circuits.with_sparse(&profile, period)?;
        let plan = |purpose, tokens| {
            Plan::compile(
                Arc::clone(model),
                circuits.target()?,
                &Options { tokens, purpose, ..Options::default() },
            )
        };
        let (prompt, token) = (plan(Purpose::PromptForSession, length)?, plan(Purpose::Token, 1)?);
        Ok(Self { prompt, token, circuits })
    }

    /// A server for one of the plans, with keys for that plan alone: those of the other need not be in memory at the same time.
    fn serve(&self, client: &Client, plan: &Plan) -> anyhow::Result<Server<Keys>> {
        let (_, resident) = self.circuits.key_bytes(plan)?;
        let need = resident + (3 << 30);
        if let Some(have) = available_memory().filter(|have| *have < need) {
            bail!("{:.1} GiB of memory are needed and {:.1} GiB are free: close other programs", gib(need), gib(have));
        }
        let keys = self.circuits.keys(client.secret(), plan)?;
        let machine = Encrypted::new(self.circuits.params(), client.key_id(), Arc::clone(&keys))?;
        Ok(Server::new(machine.with_refresher(self.circuits.refresher(&keys)?)))
    }
}

/// Continues a prompt under encryption; the client decrypts the logits of each token and picks the next one.
pub(crate) fn generate(args: &flags::Generate, as_json: bool) -> anyhow::Result<bool> {
    if args.exact {
        bail!("--exact cannot run under encryption: drop it, or drop --encrypted");
    }
    if args.tokens == 0 {
        bail!("--tokens 0 generates nothing: ask for at least 1");
    }
    let loaded = crate::model::load(args.model.as_deref())?;
    let prompt = loaded.tokens(&args.prompt, args.tokens)?;
    let length = setup::length_for(prompt.len())?;
    let model = Arc::new(loaded.model.clone());
    cipherlm_spec::ensure_certified(&model)?;
    let plans = Plans::new(&model, length)?;
    let params = plans.circuits.params();
    let mut console = Console::new(!as_json);
    console.line(&format!(
        "model       {}\nparameters  N = 2^{}, log QP {:.0}, {:.0}-bit security; {}\nplans       prompt of {length}: about {:.0} s; \
         a token: about {:.0} s, {} bootstraps {:?} a layer",
        model.spec().name,
        params.log_degree(),
        params.log_qp(),
        params.security().bits,
        hardware(params),
        plans.prompt.seconds(),
        plans.token.seconds(),
        plans.token.refreshes().0,
        plans.token.refreshes_by_layer(),
    ));
    let client = Client::generate(params)?;
    let mut sampler = Sampler::new(args.temperature, args.top_k, args.seed)?;
    let mut reference = Runner::new(&model, Mode::Polynomial)?;
    let mut exact = Runner::new(&model, Mode::Exact)?;
    let mut session = plans.prompt.session_of(prompt.len());
    let mut rows: Vec<Row> = vec![];
    let mut fresh = prompt.clone();
    let mut seconds_keygen = vec![];
    let mut server: Option<Server<Keys>> = None;
    while rows.len() < args.tokens {
        let start = session.position();
        let plan = if start == 0 { &plans.prompt } else { &plans.token };
        if start == 0 || rows.len() == 1 {
            // Keys of the prompt leave before those of the tokens come.
            drop(server.take());
            let clock = Instant::now();
            server = Some(plans.serve(&client, plan)?);
            seconds_keygen.push(clock.elapsed().as_secs_f64());
            console.line(&format!("client      keys made in {:.1} s", clock.elapsed().as_secs_f64()));
        }
        let server = server.as_ref().context("no server was started")?;
        let (report, logits) = step(server, &client, plan, &fresh, start, &mut session, &mut console)?;
        let row = |runner: &mut Runner<'_>| -> anyhow::Result<Vec<f64>> {
            runner.append(&fresh, Positions::Last)?.pop().context("the reference returned no logits")
        };
        let (polynomial, exact) = (row(&mut reference)?, row(&mut exact)?);
        let token = sampler.pick(&logits);
        let check = TokenCheck::new(argmax(&logits) as u32, &logits, &polynomial, &exact);
        let text = String::from_utf8_lossy(&loaded.tokenizer.decode_bytes(&[token])?).into_owned();
        console.line(&format!(
            "  position {}: {:.1} s, token {text:?}, same as in the clear: {}, mse {:.1e}",
            session.position(),
            report.seconds_total,
            if check.same_polynomial { "yes" } else { "NO" },
            check.mse
        ));
        rows.push(Row { token, position: session.position(), report, check });
        fresh = vec![token];
        if Some(token) == loaded.tokenizer.end_of_text() {
            break;
        }
    }
    let tokens: Vec<u32> = rows.iter().map(|r| r.token).collect();
    let answer = String::from_utf8_lossy(&loaded.tokenizer.decode_bytes(&tokens)?).into_owned();
    let outcome = Outcome { rows, answer, seconds_keygen };
    if as_json {
        println!("{}", outcome.json(&plans, &args.prompt, length));
    } else {
        outcome.print(&args.prompt);
    }
    Ok(outcome.pass())
}

/// Encrypts at the client, runs at the server, decrypts at the client.
fn step(
    server: &Server<Keys>,
    client: &Client,
    plan: &Plan,
    tokens: &[u32],
    start: usize,
    session: &mut Session<Encrypted<Keys>>,
    console: &mut Console,
) -> anyhow::Result<(Report, Vec<f64>)> {
    let input = client.encrypt_at(plan, tokens, start)?;
    server.machine().log().clear();
    let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
        console.step(p);
        true
    });
    let answer = server.run_session(plan, input, session, &mut profiler)?;
    let report = profiler.finish(server.machine());
    console.done();
    Ok((report, client.decrypt(plan, &answer, tokens.len() - 1)?))
}

struct Outcome {
    rows: Vec<Row>,
    answer: String,
    /// For the prompt, then for the tokens.
    seconds_keygen: Vec<f64>,
}

impl Outcome {
    /// Every token as in the clear, errors below the paper's bound.
    fn pass(&self) -> bool {
        !self.rows.is_empty()
            && self.rows.iter().all(|r| r.check.same_polynomial && r.check.mse <= super::outcome::MSE_BOUND)
    }

    /// Seconds of the tokens after the first, which came with the prompt.
    fn token_seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self.rows.iter().skip(1).map(|r| r.report.seconds_total).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    fn print(&self, prompt: &str) {
        println!("\nprompt   {prompt}\nanswer   {}", self.answer);
        let seconds = self.token_seconds();
        if let (Some(min), Some(max)) = (seconds.first(), seconds.last()) {
            println!("a token  median {:.1} s ({min:.1} - {max:.1}, {} tokens)", middle(&seconds), seconds.len());
        }
        for (name, time) in by_operator(&self.rows) {
            println!("  {name:<20} {time:>7.2} s a token");
        }
        println!("memory   {:.1} GiB at the peak", gib(peak_memory()));
        println!("\n{}", if self.pass() { "PASS" } else { "FAIL" });
    }

    fn json(&self, plans: &Plans, prompt: &str, length: usize) -> serde_json::Value {
        let params = plans.circuits.params();
        let row = |r: &Row| {
            json!({
                "token": r.token,
                "position": r.position,
                "seconds": r.report.seconds_total,
                "bootstraps": r.report.bootstraps,
                "by_operator": r.report.by_operator,
                "by_primitive": r.report.by_primitive,
                "steps": r.report.steps,
                "same_polynomial": r.check.same_polynomial,
                "same_exact": r.check.same_exact,
                "max_abs_error": r.check.max_abs_error,
                "mse": r.check.mse,
            })
        };
        let key_bytes = plans.circuits.key_bytes(&plans.token).unwrap_or_default();
        json!({
            "machine": format!("encrypted on {}", hardware(params)),
            "slot_machine": "encrypted",
            "model": plans.prompt.model().spec().name,
            "prompt": prompt,
            "answer": self.answer,
            "length": length,
            "ring_degree": params.degree(),
            "log_qp": params.log_qp(),
            "security_bits": params.security().bits,
            "threads": threads(),
            "seconds_keygen": self.seconds_keygen,
            "seconds_a_token": middle(&self.token_seconds()),
            "seconds_predicted": plans.token.seconds(),
            "bootstraps_a_token": plans.token.refreshes().0,
            "bootstraps_by_layer": plans.token.refreshes_by_layer(),
            "key_bytes": key_bytes.0,
            "key_bytes_resident": key_bytes.1,
            "peak_rss_bytes": peak_memory(),
            "tokens": self.rows.iter().map(row).collect::<Vec<_>>(),
            "pass": self.pass(),
        })
    }
}

/// Mean seconds by operator of the tokens after the first.
fn by_operator(rows: &[Row]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let later = rows.get(1..).unwrap_or_default();
    for (name, seconds) in later.iter().flat_map(|r| &r.report.by_operator) {
        *sums.entry(name).or_default() += seconds / later.len() as f64;
    }
    let mut list: Vec<_> = sums.into_iter().map(|(n, s)| (n.to_owned(), s)).collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    list
}

/// The median of sorted values.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What runs the computation.
fn hardware(params: &cipherlm_ckks::Params) -> String {
    format!("{}, kernel {}, {} threads", processor(), params.ring().kernel_name(), threads())
}
