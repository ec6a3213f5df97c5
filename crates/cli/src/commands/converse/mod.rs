//! `generate --encrypted`: a prompt at once, then token by token over encrypted keys and values, or
//! where those of a context fit no vector, a pass of the whole text for every token.

mod outcome;
mod plans;

use super::generate::Options;
use crate::console::out_json;
use crate::exit::usage;
use crate::model::Loaded;
use crate::options::{named_profile, one_profile};
use crate::outcome::TokenCheck;
use crate::progress::Console;
use crate::sampler::{Sampler, argmax};
use anyhow::Context;
use cipherlm_circuits::slots::{Encrypted, Primitives};
use cipherlm_infer::{Client, Plan, Profiler, Progress, Report, Server, Session, insecure_profile};
use cipherlm_model::{Mode, Positions, Runner};
use outcome::{Choice, Outcome, Row};
use plans::{Conversation, Keys, Plans};
use std::sync::Arc;
use std::time::Instant;

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
    let model = Arc::new(loaded.model.clone());
    cipherlm_model::ensure_certified(&model)?;
    let expected = if options.alone > 0 { Some(expected_logits(&loaded, &prompt)?) } else { None };
    let named = match options.insecure_ring {
        Some(log_degree) => Some(insecure_profile(log_degree)?),
        None if options.alone > 0 => Some(one_profile(&options.profile)),
        None => named_profile(&options.profile),
    };
    let cost = options.prices.table(options.insecure_ring.is_some())?;
    let wanted = Conversation { model: &model, prompt: &prompt, tokens: options.tokens, cost: &cost };
    let plans = match named {
        Some(profile) => wanted.plans(&profile, expected.as_deref())?,
        None => wanted.cheapest()?,
    };
    let mut console = Console::new(!as_json);
    console.line(&plans.summary());
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
        out_json(&outcome.json(&plans, &text));
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
        let first = self.rows.is_empty();
        let plan = if first { &self.plans.prompt } else { self.plans.later() };
        if first || (self.rows.len() == 1 && self.plans.token.is_some()) {
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
        let session = self.plans.token.is_some().then_some(&mut self.session);
        let (report, mut logits) =
            step(server, &self.client, plan, (&self.before, &self.fresh), session, console)?;
        let position = self.before.len() + self.fresh.len();
        logits.truncate(choices);
        let token = self.sampler.pick(&logits);
        let check = TokenCheck::new(argmax(&logits) as u32, &logits, &polynomial, &exact);
        console.line(&format!(
            "  position {}: {:.1} s, token {:?}, same as in the clear: {}, mse {:.1e}",
            position,
            report.seconds_total,
            self.loaded.answer(&[token]),
            if check.same_polynomial { "yes" } else { "NO" },
            check.mse
        ));
        self.rows.push(Row { token, position, report, check });
        self.before.append(&mut self.fresh);
        self.fresh = vec![token];
        Ok(token)
    }

    /// The last `count` tokens, found by the server without the client.
    fn alone(&mut self, count: usize, console: &mut Console) -> anyhow::Result<Vec<Choice>> {
        let server = match self.server.take().filter(|_| self.rows.len() > 1) {
            Some(server) => server,
            None => self.plans.serve(&self.client, self.plans.later())?,
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

/// Encrypts at the client, runs at the server, decrypts at the client. Without a session the whole
/// text goes.
fn step(
    server: &Server<Keys>,
    client: &Client,
    plan: &Plan,
    (before, tokens): (&[u32], &[u32]),
    session: Option<&mut Session<Encrypted<Keys>>>,
    console: &mut Console,
) -> anyhow::Result<(Report, Vec<f64>)> {
    let text = [before, tokens].concat();
    let (input, last) = match session {
        Some(_) => (client.encrypt_after(plan, before, tokens)?, tokens.len() - 1),
        None => (client.encrypt(plan, &text)?, text.len() - 1),
    };
    server.machine().log().clear();
    let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
        console.step(p);
        true
    });
    let answer = match session {
        Some(session) => server.run_session(plan, input, session, &mut profiler)?,
        None => server.run(plan, input, &mut profiler)?,
    };
    let report = profiler.finish();
    console.done();
    Ok((report, client.decrypt(plan, &answer, last)?))
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
    let plan = plans.later();
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
