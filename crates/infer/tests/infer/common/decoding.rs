//! A prompt plan and a token plan of one small model on the clear machine, beside what the
//! reference says at every position.

use cipherlm_circuits::slots::{Clear, ClearVector};
use cipherlm_infer::{Options, Plan, Progress, Purpose, Session};
use cipherlm_model::random;

use super::{answers, certified, far, of, plan, small};

pub(crate) struct Decoding {
    pub(crate) tokens: Vec<u32>,
    /// For prompts of up to eight tokens.
    pub(crate) prompt: Plan,
    pub(crate) token: Plan,
    pub(crate) machine: Clear,
    reference: Vec<Vec<f64>>,
}

impl Decoding {
    pub(crate) fn new() -> Self {
        let model = certified(&small(), 1);
        let tokens = random::windows(model.shape(), 12, 1, 5).swap_remove(0);
        let compile = |purpose, tokens| plan(&model, 512, &Options { purpose, ..of(tokens) });
        let (prompt, token) = (compile(Purpose::PromptForSession, 8), compile(Purpose::Token, 1));
        let machine = token.clear_machine();
        let reference = answers(&model, &tokens);
        Self { tokens, prompt, token, machine, reference }
    }

    /// Runs the first `count` tokens as the prompt of a session and compares the last one's logits.
    pub(crate) fn begin(&self, session: &mut Session<Clear>, count: usize) {
        let input = self.prompt_input(count);
        let outputs =
            self.prompt.run_session(&self.machine, input, session, &mut |_: &Progress<'_>| true).unwrap();
        self.check(&self.prompt, &outputs, count - 1, count - 1);
    }

    /// Runs one token after another from `start` to the end and compares the logits of each.
    pub(crate) fn go_on(&self, session: &mut Session<Clear>, start: usize) {
        for position in start..self.tokens.len() {
            let packed = self.token.pack_at(&self.tokens[position..=position], position).unwrap();
            let input = self.place(&self.token, packed);
            let outputs =
                self.token.run_session(&self.machine, input, session, &mut |_: &Progress<'_>| true).unwrap();
            self.check(&self.token, &outputs, position, 0);
        }
    }

    /// The first `count` tokens on the machine.
    pub(crate) fn prompt_input(&self, count: usize) -> Vec<ClearVector> {
        self.place(&self.prompt, self.prompt.pack(&self.tokens[..count]).unwrap())
    }

    fn place(&self, plan: &Plan, packed: Vec<Vec<f64>>) -> Vec<ClearVector> {
        packed.into_iter().map(|v| self.machine.input(v, plan.input_level()).unwrap()).collect()
    }

    fn check(&self, plan: &Plan, outputs: &[ClearVector], position: usize, row: usize) {
        let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
        let logits = plan.logits(&outputs, row).unwrap();
        let error = far(&self.reference[position], &logits);
        assert!(error < 1e-6, "position {position}: {error}");
    }
}
