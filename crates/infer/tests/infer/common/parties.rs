//! A client and a server for plans of one small model, in a ring without security that is deep
//! enough to need no bootstraps.

use std::sync::Arc;

use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::{KeyRequest, KeySet, Params};
use cipherlm_infer::{Client, EncryptedLogits, Options, Plan, Progress, Server, Target};
use cipherlm_model::Model;

pub(crate) struct Parties {
    pub(crate) plans: Vec<Plan>,
    pub(crate) client: Client,
    pub(crate) server: Server<KeySet>,
    pub(crate) params: Params,
}

pub(crate) fn deep_params() -> Params {
    Params::insecure_for_tests(Params::builder().degree(1 << 10).base(50.0).levels(40.0, 52).special(50, 8))
        .unwrap()
}

impl Parties {
    /// One plan for each of the options, and keys for all of them.
    pub(crate) fn new(model: &Arc<Model>, options: &[Options]) -> Self {
        let params = deep_params();
        let compile =
            |o: &Options| Plan::compile(Arc::clone(model), Target::of(&params).unwrap(), o).unwrap();
        let plans: Vec<Plan> = options.iter().map(compile).collect();
        let client = Client::generate(&params).unwrap();
        let mut request = KeyRequest::new();
        for plan in &plans {
            request.merge(&plan.key_request(&params));
        }
        let keys = client.secret().key_set(&request).unwrap();
        let server = Server::new(Encrypted::new(&params, client.key_id(), keys).unwrap());
        Self { plans, client, server, params }
    }

    /// What a plan answers to a text.
    pub(crate) fn run(&self, plan: usize, text: &[u32]) -> EncryptedLogits {
        let prompt = self.client.encrypt(&self.plans[plan], text).unwrap();
        self.server.run(&self.plans[plan], prompt, &mut |_: &Progress<'_>| true).unwrap()
    }

    /// What the client reads of it at a position.
    pub(crate) fn ask(&self, plan: usize, text: &[u32], position: usize) -> Vec<f64> {
        self.client.decrypt(&self.plans[plan], &self.run(plan, text), position).unwrap()
    }
}
