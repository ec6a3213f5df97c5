//! A client and a server with nothing but bytes between them, in a small ring **without security**:
//! `cargo run --release -p cipherlm-infer --example 1_client_and_server`. At real parameters only
//! the profile differs.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, Client, EncryptedLogits, EncryptedPrompt, Options, Plan, Progress, Server};
use cipherlm_model::{Mode, Positions, Runner, Shape, random};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both sides know the model's shape, the parameters and the plan.
    let model = Arc::new(random::certified("random", &Shape::preset("test").ok_or("no such shape")?, 4)?);
    let circuits = Circuits::new(&Profile { user_levels: 13, ..Profile::insecure(10) })?;
    let plan =
        Plan::compile(Arc::clone(&model), circuits.target()?, &Options { tokens: 8, ..Options::default() })?;
    let (params, rings) = (circuits.params(), circuits.small_rings(&plan)?);

    // Client: keys and an encrypted prompt.
    let client = Client::generate(params)?;
    let keys = circuits.keys(client.secret(), &plan)?;
    let tokens = random::windows(model.shape(), 8, 1, 5).remove(0);
    let question = client.encrypt(&plan, &tokens)?.to_bytes();

    // Server: public keys and bytes, no secret.
    let server = Server::open(&circuits, client.key_id(), &keys)?;
    let prompt = EncryptedPrompt::from_bytes(params, &rings, &question)?;
    let answer = server.run(&plan, prompt, &mut |_: &Progress<'_>| true)?.to_bytes();

    // Client: logits, beside those of the model in the clear.
    let answer = EncryptedLogits::from_bytes(params, &rings, &answer)?;
    let logits = client.decrypt(&plan, &answer, tokens.len() - 1)?;
    let clear = Runner::new(&model, Mode::Polynomial)?.forward(&tokens, Positions::Last)?.remove(0);
    let worst = clear.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!(
        "{} bytes there, {} bytes back; largest error of a logit 2^{:.1}",
        question.len(),
        answer.to_bytes().len(),
        worst.log2()
    );
    assert!(worst < 1.0 / 128.0, "{worst}");
    Ok(())
}
