//! The circuit of a search on one of three machines.

use crate::progress::Console;
use crate::session::Session;
use crate::setup::Setup;
use cipherlm_circuits::slots::{Clear, Noise};
use cipherlm_infer::Progress;
use clap::ValueEnum;

/// Seed of the errors that the noise machine adds.
const SEED: u64 = 1;

/// What a circuit runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// Slots as they are.
    Clear,
    /// Slots with the errors that encryption is predicted to add.
    Noise,
    /// Ciphertexts.
    Encrypted,
}

impl Machine {
    /// What the result calls it.
    pub(crate) fn run(self) -> String {
        match self {
            Self::Clear => "clear machine".into(),
            Self::Noise => "noise machine".into(),
            Self::Encrypted => "encrypted".into(),
        }
    }
}

/// A machine, ready to answer.
pub(crate) enum On<'s> {
    Clear(Box<Clear>),
    Noise(Box<Noise>),
    Encrypted(Box<Session<'s>>),
}

impl<'s> On<'s> {
    /// Makes the machine, and the keys where there are some.
    pub(crate) fn start(machine: Machine, setup: &'s Setup, console: &mut Console) -> anyhow::Result<Self> {
        let (plan, circuits) = (&setup.plan, &setup.circuits);
        Ok(match machine {
            Machine::Clear => Self::Clear(Box::new(plan.clear_machine())),
            Machine::Noise => {
                let keys = circuits.key_request(plan);
                Self::Noise(Box::new(plan.noise_machine(circuits.params(), keys, SEED)?))
            }
            Machine::Encrypted => Self::Encrypted(Box::new(Session::start(setup, false, console)?)),
        })
    }

    /// Seconds that the keys took.
    pub(crate) fn seconds_keygen(&self) -> Option<f64> {
        match self {
            Self::Encrypted(session) => Some(session.seconds_keygen),
            _ => None,
        }
    }

    /// The numbers that the owner of a question reads.
    pub(crate) fn answer(
        &self,
        setup: &Setup,
        tokens: &[u32],
        console: &mut Console,
    ) -> anyhow::Result<Vec<f64>> {
        let (plan, position) = (&setup.plan, setup.plan.answer_position(tokens.len()));
        match self {
            Self::Encrypted(session) => session.answer(tokens, console),
            Self::Noise(machine) => {
                plan.ensure_in_range(tokens)?;
                Ok(plan.forecast(machine, tokens)?.noisy_logits(plan, position)?)
            }
            Self::Clear(machine) => {
                plan.ensure_in_range(tokens)?;
                let input = plan.pack(tokens)?.into_iter();
                let input = input.map(|vector| machine.input(vector, plan.input_level()));
                let input = input.collect::<Result<Vec<_>, _>>()?;
                let mut step = |progress: &Progress<'_>| {
                    console.step(progress);
                    true
                };
                let outputs = plan.run_text(&**machine, input, tokens.len(), &mut step)?;
                console.done();
                let outputs: Vec<Vec<f64>> = outputs.iter().map(|vector| vector.real()).collect();
                Ok(plan.logits(&outputs, position)?)
            }
        }
    }
}
