//! Client and server in one process, with nothing but ciphertexts and public keys between them.

use crate::outcome::{Bits, Outcome, TokenCheck};
use crate::progress::Console;
use crate::sampler::argmax;
use crate::setup::Setup;
use crate::system::current_memory;
use cipherlm_circuits::bootstrap::BootstrapKeys;
use cipherlm_infer::{Audit, Client, EncryptedLogits, Profiler, Progress, Report, Server};
use cipherlm_model::Mode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys made, server up.
pub(crate) struct Session<'s> {
    setup: &'s Setup,
    client: Client,
    server: Server<Arc<BootstrapKeys>>,
    pub(crate) seconds_keygen: f64,
    /// Decrypt after every step and compare with what the noise machine promises.
    precision: bool,
}

/// Takes time out of a report that the run did not need.
fn without(mut report: Report, spent: Duration) -> Report {
    report.seconds_total -= spent.as_secs_f64();
    for split in [&mut report.by_operator, &mut report.bootstrap_attributed] {
        split.entry("other".into()).and_modify(|s| *s = (*s - spent.as_secs_f64()).max(0.0));
    }
    report
}

impl<'s> Session<'s> {
    /// Makes the client's keys and hands the public ones to a server.
    pub(crate) fn start(setup: &'s Setup, precision: bool, console: &mut Console) -> anyhow::Result<Self> {
        let clock = Instant::now();
        let client = Client::generate(setup.circuits.params())?;
        let keys = setup.circuits.keys(client.secret(), &setup.plan)?;
        let server = Server::open(&setup.circuits, client.key_id(), &keys)?;
        let seconds_keygen = clock.elapsed().as_secs_f64();
        console.line(&format!("client      keys made in {seconds_keygen:.1} s"));
        Ok(Self { setup, client, server, seconds_keygen, precision })
    }

    /// The vector of a text by one encrypted pass; the client pools what it decrypts.
    pub(crate) fn vector(&self, tokens: &[u32], console: &mut Console) -> anyhow::Result<Vec<f64>> {
        let answer = self.pass(tokens, console)?;
        Ok(self.client.sentence(&self.setup.plan, &answer)?)
    }

    fn pass(&self, tokens: &[u32], console: &mut Console) -> anyhow::Result<EncryptedLogits> {
        let plan = &self.setup.plan;
        let prompt = self.client.encrypt(plan, tokens)?;
        let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
            console.step(p);
            true
        });
        let answer = self.server.run(plan, prompt, &mut profiler)?;
        console.done();
        Ok(answer)
    }

    /// The numbers that answer a text by one encrypted pass.
    pub(crate) fn answer(&self, tokens: &[u32], console: &mut Console) -> anyhow::Result<Vec<f64>> {
        let (plan, answer) = (&self.setup.plan, self.pass(tokens, console)?);
        Ok(self.client.decrypt(plan, &answer, plan.answer_position(tokens.len()))?)
    }

    /// One encrypted forward pass; returns the most likely next token, checked against clear text.
    pub(crate) fn forward(
        &self,
        tokens: &[u32],
        outcome: &mut Outcome<'_>,
        console: &mut Console,
    ) -> anyhow::Result<u32> {
        Ok(self.forward_each(&[tokens], outcome, console)?.first().copied().unwrap_or_default())
    }

    /// One encrypted forward pass of several prompts; returns the most likely next token of each.
    pub(crate) fn forward_each(
        &self,
        prompts: &[&[u32]],
        outcome: &mut Outcome<'_>,
        console: &mut Console,
    ) -> anyhow::Result<Vec<u32>> {
        let plan = &self.setup.plan;
        let clock = Instant::now();
        let prompt = self.client.encrypt_each(plan, prompts)?;
        outcome.seconds_encrypt += clock.elapsed().as_secs_f64();
        let machine = self.server.machine();
        cipherlm_circuits::slots::Primitives::log(machine).clear();
        let forecast = if self.precision {
            let keys = self.setup.circuits.key_request(plan);
            Some(plan.forecast_steps(&self.client, &keys, prompts)?)
        } else {
            None
        };
        let mut memory = Vec::new();
        let mut profiler = Profiler::new(plan, |p: &Progress<'_>| {
            memory.push((p.name.to_owned(), current_memory()));
            console.step(p);
            true
        });
        let (answer, report) = match &forecast {
            None => (self.server.run(plan, prompt, &mut profiler)?, profiler.finish()),
            Some(forecast) => {
                let mut audit = Audit::new(&self.client, forecast, &mut profiler);
                let answer = self.server.run(plan, prompt, &mut audit)?;
                let spent = audit.spent();
                outcome.bits = audit.finish().iter().map(|row| (row.name.clone(), Bits::from(row))).collect();
                (answer, without(profiler.finish(), spent))
            }
        };
        outcome.memory = memory;
        console.done();
        let clock = Instant::now();
        let loaded = &self.setup.loaded;
        let positions: Vec<usize> =
            prompts.iter().map(|tokens| loaded.answer_position(tokens.len())).collect();
        let mut encrypted = self.client.decrypt_each(plan, &answer, &positions)?;
        encrypted.iter_mut().for_each(|row| row.truncate(loaded.choices()));
        outcome.seconds_decrypt += clock.elapsed().as_secs_f64();
        let check = |(row, tokens): (&Vec<f64>, &&[u32])| -> anyhow::Result<TokenCheck> {
            let (polynomial, exact) =
                (loaded.reference(Mode::Polynomial, tokens)?, loaded.reference(Mode::Exact, tokens)?);
            Ok(TokenCheck::new(argmax(row) as u32, row, &polynomial, &exact))
        };
        let checks = encrypted.iter().zip(prompts).map(check).collect::<anyhow::Result<_>>()?;
        outcome.add(report, checks);
        Ok(encrypted.iter().map(|row| argmax(row) as u32).collect())
    }
}
