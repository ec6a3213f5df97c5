//! `generate --encrypted`: a prompt at once, then token by token over encrypted keys and values.

use super::generate::Options;
use crate::console::{out_json, say};
use crate::exit::usage;
use crate::model::Loaded;
use crate::options::one_profile;
use crate::outcome::{MSE_BOUND, TokenCheck};
use crate::progress::Console;
use crate::sampler::{Sampler, argmax};
use crate::setup;
use crate::system::{available_memory, gib, peak_memory, processor, threads};
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::{BootstrapKeys, Profile};
use cipherlm_circuits::slots::{Encrypted, Primitives};
use cipherlm_infer::{
    Circuits, Client, Geometry, Options as PlanOptions, Plan, Profiler, Progress, Purpose, Report, Server,
    Session, insecure_profile,
};
use cipherlm_model::{Mode, Model, Positions, Runner};
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
    /// `feedback`: logits to be expected, if the server is to go on alone.
    fn new(
        profile: &Profile,
        model: &Arc<Model>,
        length: usize,
        feedback: Option<&[Vec<f64>]>,
    ) -> anyhow::Result<Self> {
        let circuits = Circuits::new(profile)?;
        let slots = circuits.params().slots();
        let period = Geometry::new(model.shape(), 1, slots)?.period();
        let mut circuits = circuits.with_sparse(profile, period)?;
        let choice = model.shape().vocab.next_power_of_two();
        if feedback.is_some() && choice > period {
            circuits = circuits.with_sparse(profile, choice)?;
        }
        let plan = |purpose, tokens| {
            let levels_left = usize::from(purpose == Purpose::Token && feedback.is_some());
            let options = PlanOptions { tokens, purpose, levels_left, ..PlanOptions::default() };
            Plan::compile(Arc::clone(model), circuits.target()?, &options)
        };
        let prompt = plan(Purpose::PromptForSession, length)?;
        let token = plan(Purpose::Token, 1)?;
        let token = match feedback {
            Some(rows) => token.with_feedback(rows)?,
            None => token,
        };
        Ok(Self { prompt, token, circuits })
    }

    fn summary(&self, length: usize) -> String {
        let params = self.circuits.params();
        format!(
            "model       {}\nparameters  N = 2^{}, log QP {:.0}, {:.0}-bit security; {}\nplans       \
             prompt of {length}: about {:.0} s; a token: about {:.0} s, {} bootstraps {:?} a layer",
            cipherlm_files::printable(&self.prompt.model().spec().name),
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            hardware(params),
            self.prompt.seconds(),
            self.token.seconds(),
            self.token.refreshes().0,
            self.token.refreshes_by_layer(),
        )
    }

    /// A server for one of the plans, with keys for that plan alone: those of the other need not be
    /// in memory at the same time.
    fn serve(&self, client: &Client, plan: &Plan) -> anyhow::Result<Server<Keys>> {
        let (_, resident) = self.circuits.key_bytes(plan)?;
        let need = plan.memory(resident).total();
        if let Some(have) = available_memory().filter(|have| *have < need) {
            bail!(
                "{:.1} GiB of memory are needed and {:.1} GiB are free: close other programs",
                gib(need),
                gib(have)
            );
        }
        let keys = self.circuits.keys(client.secret(), plan)?;
        Ok(Server::open(&self.circuits, client.key_id(), &keys)?)
    }
}

/// Continues a prompt under encryption; the client decrypts the logits of each token and picks the
/// next one.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    if options.alone >= options.tokens {
        return Err(usage(format!(
            "--alone {} leaves no token of {} to the client: it picks at least the one after the prompt",
            options.alone, options.tokens
        )));
    }
    let text = options.prompt.read(None)?;
    let loaded = options.model.load()?;
    loaded.ensure_continues("generate")?;
    let (known, all) = (loaded.tokenizer.vocab(), loaded.model.shape().vocab);
    if options.alone > 0 && known < all {
        let choice = format!("the server would choose among {all} ids, the tokenizer knows {known}");
        return Err(usage(format!("--alone: {choice}: leave it out")));
    }
    let prompt = loaded.tokens(&text, options.tokens)?;
    let length = setup::length_for(prompt.len())?;
    let model = Arc::new(loaded.model.clone());
    cipherlm_model::ensure_certified(&model)?;
    let expected = if options.alone > 0 { Some(expected_logits(&loaded, &prompt)?) } else { None };
    let profile = match options.insecure_ring {
        Some(log_degree) => insecure_profile(log_degree)?,
        None => one_profile(&options.profile),
    };
    let plans = Plans::new(&profile, &model, length, expected.as_deref())?;
    let mut console = Console::new(!as_json);
    console.line(&plans.summary(length));
    let mut talk = Talk {
        client: Client::generate(plans.circuits.params())?,
        sampler: Sampler::new(options.temperature, options.top_k, options.seed)?,
        reference: Runner::new(&model, Mode::Polynomial)?,
        exact: Runner::new(&model, Mode::Exact)?,
        session: plans.prompt.session_of(prompt.len()),
        server: None,
        before: vec![],
        fresh: prompt.clone(),
        rows: vec![],
        seconds_keygen: vec![],
        plans: &plans,
        loaded: &loaded,
    };
    while talk.rows.len() < options.tokens - options.alone {
        let token = talk.next(&mut console)?;
        if loaded.tokenizer.is_end(token) {
            break;
        }
    }
    let choices = if options.alone > 0 { talk.alone(options.alone, &mut console)? } else { vec![] };
    let tokens: Vec<u32> = talk.rows.iter().map(|r| r.token).chain(choices.iter().map(|c| c.token)).collect();
    let answer = loaded.continuation(&prompt, &tokens)?;
    let outcome = Outcome { rows: talk.rows, choices, answer, seconds_keygen: talk.seconds_keygen };
    if as_json {
        out_json(&outcome.json(&plans, &text, length));
    } else {
        outcome.print(&text);
    }
    Ok(outcome.pass())
}

/// Both sides of one conversation, and the clear model beside them.
struct Talk<'t> {
    plans: &'t Plans,
    loaded: &'t Loaded,
    client: Client,
    sampler: Sampler,
    reference: Runner<'t>,
    exact: Runner<'t>,
    session: Session<Encrypted<Keys>>,
    server: Option<Server<Keys>>,
    /// Tokens that the server has seen.
    before: Vec<u32>,
    /// Tokens that it has not seen yet.
    fresh: Vec<u32>,
    rows: Vec<Row>,
    /// For the prompt, then for the tokens.
    seconds_keygen: Vec<f64>,
}

impl Talk<'_> {
    /// One step under encryption, checked against clear text; returns the token that the client
    /// picks.
    fn next(&mut self, console: &mut Console) -> anyhow::Result<u32> {
        let start = self.session.position();
        let plan = if start == 0 { &self.plans.prompt } else { &self.plans.token };
        if start == 0 || self.rows.len() == 1 {
            // Keys of the prompt leave before those of the tokens come.
            drop(self.server.take());
            let clock = Instant::now();
            self.server = Some(self.plans.serve(&self.client, plan)?);
            self.seconds_keygen.push(clock.elapsed().as_secs_f64());
            console.line(&format!("client      keys made in {:.1} s", clock.elapsed().as_secs_f64()));
        }
        let server = self.server.as_ref().context("no server was started")?;
        let choices = self.loaded.choices();
        let (polynomial, exact) = (
            last_row(&mut self.reference, &self.fresh, choices)?,
            last_row(&mut self.exact, &self.fresh, choices)?,
        );
        let (report, mut logits) =
            step(server, &self.client, plan, (&self.before, &self.fresh), &mut self.session, console)?;
        logits.truncate(choices);
        let token = self.sampler.pick(&logits);
        let check = TokenCheck::new(argmax(&logits) as u32, &logits, &polynomial, &exact);
        console.line(&format!(
            "  position {}: {:.1} s, token {:?}, same as in the clear: {}, mse {:.1e}",
            self.session.position(),
            report.seconds_total,
            self.loaded.answer(&[token]),
            if check.same_polynomial { "yes" } else { "NO" },
            check.mse
        ));
        self.rows.push(Row { token, position: self.session.position(), report, check });
        self.before.append(&mut self.fresh);
        self.fresh = vec![token];
        Ok(token)
    }

    /// The last `count` tokens, found by the server without the client.
    fn alone(&mut self, count: usize, console: &mut Console) -> anyhow::Result<Vec<Choice>> {
        let server = match self.server.take().filter(|_| self.rows.len() > 1) {
            Some(server) => server,
            None => self.plans.serve(&self.client, &self.plans.token)?,
        };
        let (client, session) = (&self.client, &mut self.session);
        alone(
            &server,
            client,
            self.plans,
            session,
            &mut self.reference,
            (&self.before, &self.fresh, count),
            console,
        )
    }
}

/// Logits after the tokens so far, of those that the tokenizer knows.
fn last_row(runner: &mut Runner<'_>, tokens: &[u32], choices: usize) -> anyhow::Result<Vec<f64>> {
    let mut row =
        runner.append(tokens, Positions::Last)?.pop().context("the model in the clear returned no logits")?;
    row.truncate(choices);
    Ok(row)
}

/// Encrypts at the client, runs at the server, decrypts at the client.
fn step(
    server: &Server<Keys>,
    client: &Client,
    plan: &Plan,
    (before, tokens): (&[u32], &[u32]),
    session: &mut Session<Encrypted<Keys>>,
    console: &mut Console,
) -> anyhow::Result<(Report, Vec<f64>)> {
    let input = client.encrypt_after(plan, before, tokens)?;
    server.machine().log().clear();
    let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
        console.step(p);
        true
    });
    let answer = server.run_session(plan, input, session, &mut profiler)?;
    let report = profiler.finish();
    console.done();
    Ok((report, client.decrypt(plan, &answer, tokens.len() - 1)?))
}

/// A token that the server chose without seeing it.
#[derive(serde::Serialize)]
struct Choice {
    token: u32,
    /// Weight in the one-hot vector.
    weight: f64,
    /// Distance of the two largest logits in the clear.
    gap: f64,
    /// Seconds of the step, argmax and embedding included.
    seconds: f64,
    seconds_argmax: f64,
    same_polynomial: bool,
}

/// Logits of text like that to come, in the clear: greedy and sampled continuations of the prompt.
fn expected_logits(loaded: &Loaded, prompt: &[u32]) -> anyhow::Result<Vec<Vec<f64>>> {
    let model = &loaded.model;
    let mut rows = vec![];
    for seed in 0..12 {
        let mut sampler = Sampler::new(if seed == 0 { 0.0 } else { 0.8 }, 40, seed)?;
        let mut runner = Runner::new(model, Mode::Polynomial)?;
        let mut fresh = prompt.to_vec();
        while runner.position() + fresh.len() <= model.shape().context {
            let mut row = runner.append(&fresh, Positions::Last)?;
            let row = row.pop().context("the reference returned no logits")?;
            fresh = vec![sampler.pick(&row[..loaded.choices().min(row.len())])];
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Steps of the server alone, from the token that the client picked last; the client opens the
/// choices at the end.
fn alone(
    server: &Server<Keys>,
    client: &Client,
    plans: &Plans,
    session: &mut Session<Encrypted<Keys>>,
    reference: &mut Runner<'_>,
    (before, fresh, count): (&[u32], &[u32], usize),
    console: &mut Console,
) -> anyhow::Result<Vec<Choice>> {
    let plan = &plans.token;
    let machine = server.machine();
    let first = client.encrypt_after(plan, before, fresh)?;
    machine.log().clear();
    let clock = Instant::now();
    let mut starts = vec![];
    let mut observer = |p: &Progress<'_>| {
        if p.step <= 1 {
            starts.push(clock.elapsed().as_secs_f64());
        }
        console.step(p);
        true
    };
    let sealed = server.run_alone(plan, first, session, count, &mut observer)?;
    starts.push(clock.elapsed().as_secs_f64());
    console.done();
    let rows = machine.log().rows();
    let argmax: f64 = rows.iter().filter(|r| &*r.label == "argmax").map(|r| r.total.time.as_secs_f64()).sum();
    let mut tokens = fresh.to_vec();
    let mut out = vec![];
    for (index, choice) in sealed.iter().enumerate() {
        let (token, weight) = client.decrypt_choice(plan, choice)?;
        let row =
            reference.append(&tokens, Positions::Last)?.pop().context("the reference returned no logits")?;
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let seconds = starts.get(index + 1).zip(starts.get(index)).map_or(f64::NAN, |(b, a)| b - a);
        out.push(Choice {
            token,
            weight,
            gap: sorted[0] - sorted[1],
            seconds,
            seconds_argmax: argmax / sealed.len() as f64,
            same_polynomial: token == argmax_of(&row),
        });
        // Follow the encrypted text, even where it left the clear one.
        tokens = vec![token];
    }
    Ok(out)
}

fn argmax_of(row: &[f64]) -> u32 {
    argmax(row) as u32
}

struct Outcome {
    rows: Vec<Row>,
    choices: Vec<Choice>,
    answer: String,
    /// For the prompt, then for the tokens.
    seconds_keygen: Vec<f64>,
}

impl Outcome {
    /// Every token as in the clear, errors below the paper's bound.
    fn pass(&self) -> bool {
        !self.rows.is_empty()
            && self.rows.iter().all(|r| r.check.same_polynomial && r.check.mse <= MSE_BOUND)
            && self.choices.iter().all(|c| c.same_polynomial)
    }

    /// Seconds of the tokens after the first, which came with the prompt.
    fn token_seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self.rows.iter().skip(1).map(|r| r.report.seconds_total).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    fn print(&self, prompt: &str) {
        say!("\nprompt   {prompt}\nanswer   {}", self.answer);
        let seconds = self.token_seconds();
        if let (Some(min), Some(max)) = (seconds.first(), seconds.last()) {
            say!("a token  median {:.1} s ({min:.1} - {max:.1}, {} tokens)", middle(&seconds), seconds.len());
        }
        for (name, time) in by_operator(&self.rows) {
            say!("  {name:<20} {time:>7.2} s a token");
        }
        for c in &self.choices {
            say!(
                "alone    token {}, weight {:.4}, gap {:.3}, {:.1} s of which argmax and embedding {:.1} s, \
                 as in the clear: {}",
                c.token,
                c.weight,
                c.gap,
                c.seconds,
                c.seconds_argmax,
                c.same_polynomial
            );
        }
        say!("memory   {:.1} GiB at the peak", gib(peak_memory()));
        say!("\n{}", if self.pass() { "PASS" } else { "FAIL" });
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
            "public_prefix_tokens": plans.prompt.public_prefix().len(),
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
            "alone": self.choices,
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
