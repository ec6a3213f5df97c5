//! A client and a server for a plan of one small model, in a ring without security, with
//! bootstraps and small messages.

use std::sync::{Arc, OnceLock};

use cipherlm_circuits::bootstrap::{BootstrapKeys, Profile};
use cipherlm_infer::{
    Circuits, Client, ClientSide, EncryptedLogits, EncryptedPrompt, Options, Plan, Progress, Server,
    SmallRings,
};
use cipherlm_model::{Model, Tokenizer};
use cipherlm_protocol::ClientPlan;

pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) circuits: Circuits,
    pub(crate) plan: Plan,
    pub(crate) client: Client,
    server: OnceLock<Server<Arc<BootstrapKeys>>>,
}

impl World {
    pub(crate) fn new(model: &Arc<Model>, log_degree: u32, options: &Options) -> Self {
        let profile = Profile { user_levels: 13, ..Profile::insecure(log_degree) };
        let circuits = Circuits::new(&profile).unwrap();
        let plan = Plan::compile(Arc::clone(model), circuits.target().unwrap(), options).unwrap();
        let client = Client::generate(circuits.params()).unwrap();
        Self { profile, circuits, plan, client, server: OnceLock::new() }
    }

    /// The server; its keys are made when it is first asked for.
    pub(crate) fn server(&self) -> &Server<Arc<BootstrapKeys>> {
        self.server.get_or_init(|| {
            let keys = self.circuits.keys(self.client.secret(), &self.plan).unwrap();
            Server::open(&self.circuits, self.client.key_id(), &keys).unwrap()
        })
    }

    pub(crate) fn model(&self) -> &Model {
        self.plan.model()
    }

    pub(crate) fn rings(&self) -> SmallRings {
        self.circuits.small_rings(&self.plan).unwrap()
    }

    /// The client's half of the plan as it is sent, and the embedding.
    pub(crate) fn client_plan(&self) -> (ClientPlan, Vec<u8>) {
        let tokenizer = Tokenizer::train("a cat sat on a mat. ", 258).unwrap();
        let (plan, [_, embedding]) =
            self.plan.client_plan(&self.circuits, self.profile.name, &tokenizer).unwrap();
        (ClientPlan::from_json(&plan.to_json().unwrap()).unwrap(), embedding)
    }

    pub(crate) fn side(&self) -> ClientSide {
        let (plan, embedding) = self.client_plan();
        ClientSide::new(plan, &self.profile, &embedding).unwrap()
    }

    /// Through the bytes of both messages.
    pub(crate) fn run(&self, prompt: &EncryptedPrompt) -> cipherlm_infer::Result<EncryptedLogits> {
        let (params, rings) = (self.circuits.params(), self.rings());
        let prompt = EncryptedPrompt::from_bytes(params, &rings, &prompt.to_bytes()).unwrap();
        let answer = self.server().run(&self.plan, prompt, &mut |_: &Progress<'_>| true)?;
        Ok(EncryptedLogits::from_bytes(params, &rings, &answer.to_bytes()).unwrap())
    }
}
