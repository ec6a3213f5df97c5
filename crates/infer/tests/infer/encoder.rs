//! The encoder path: pooling and classifier, against the reference.

use std::sync::Arc;

use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::Params;
use cipherlm_infer::{Client, Error, Options, Plan, Progress, Purpose, Server, Target};
use cipherlm_model::{Kind, Mode, Model, Runner, Shape, random};

fn encoder() -> Arc<Model> {
    let shape =
        Shape { kind: Kind::Encoder { classes: 3 }, tied_head: false, ..Shape::preset("test").unwrap() };
    Arc::new(random::certified("encoder", &shape, 3).unwrap())
}

#[test]
fn classes_match_the_reference() {
    let model = encoder();
    let target = Target::uniform(512, 14, 40, 60).unwrap();
    let plan =
        Plan::compile(Arc::clone(&model), target, &Options { tokens: 8, ..Options::default() }).unwrap();
    let machine = plan.clear_machine();
    for window in random::windows(model.shape(), 8, 4, 5) {
        let input =
            plan.pack(&window).unwrap().into_iter().map(|v| machine.input(v, plan.input_level()).unwrap());
        let outputs = plan.run(&machine, input.collect(), &mut |_: &Progress<'_>| true).unwrap();
        let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
        let found = plan.logits(&outputs, 0).unwrap();
        let expected = Runner::new(&model, Mode::Polynomial).unwrap().classify(&window, None).unwrap();
        assert_eq!(found.len(), 3);
        let error = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-6, "{error}");
    }
}

#[test]
fn classes_under_encryption_match_the_reference() {
    let shape = Shape {
        kind: Kind::Encoder { classes: 3 },
        layers: 1,
        tied_head: false,
        ..Shape::preset("test").unwrap()
    };
    let model = Arc::new(random::certified("encoder", &shape, 3).unwrap());
    let builder = Params::builder().degree(1 << 10).base(50.0).levels(40.0, 52).special(50, 8);
    let params = Params::insecure_for_tests(builder).unwrap();
    let target = Target::of(&params).unwrap();
    let plan =
        Plan::compile(Arc::clone(&model), target, &Options { tokens: 8, ..Options::default() }).unwrap();
    let client = Client::generate(&params).unwrap();
    let keys = client.secret().key_set(&plan.key_request(&params)).unwrap();
    let server = Server::new(Encrypted::new(&params, client.key_id(), keys).unwrap());
    let window = &random::windows(model.shape(), 8, 1, 5)[0];
    let prompt = client.encrypt(&plan, window).unwrap();
    let logits = server.run(&plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
    let found = client.decrypt(&plan, &logits, 0).unwrap();
    let expected = Runner::new(&model, Mode::Polynomial).unwrap().classify(window, None).unwrap();
    let error = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("worst class logit error 2^{:.1}", error.log2());
    assert!(error < 2f64.powi(-11), "{error}");
}

#[test]
fn an_encoder_has_no_sessions() {
    let target = Target::uniform(512, 14, 40, 60).unwrap();
    let options = Options { tokens: 8, purpose: Purpose::PromptForSession, ..Options::default() };
    let error = Plan::compile(encoder(), target, &options).err().unwrap();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
