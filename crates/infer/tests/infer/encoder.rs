//! The encoder path: pooling and classifier, against the reference.

use std::sync::Arc;

use crate::common::parties::Parties;
use crate::common::{answers, certified, far, of, plan, small, worst};
use cipherlm_infer::{Error, Options, Plan, Purpose, Target};
use cipherlm_model::{Kind, Model, Shape, random};

fn encoder(layers: usize) -> Arc<Model> {
    certified(&Shape { kind: Kind::Encoder { classes: 3 }, layers, tied_head: false, ..small() }, 3)
}

#[test]
fn classes_match_the_reference() {
    let model = encoder(2);
    let plan = plan(&model, 512, &of(8));
    for window in random::windows(model.shape(), 8, 4, 5) {
        assert_eq!(answers(&model, &window)[0].len(), 3);
        let error = worst(&plan, &window);
        assert!(error < 1e-6, "{error}");
    }
}

#[test]
fn classes_under_encryption_match_the_reference() {
    let model = encoder(1);
    let parties = Parties::new(&model, &[of(8)]);
    let window = &random::windows(model.shape(), 8, 1, 5)[0];
    let found = parties.ask(0, window, 0);
    let error = far(&answers(&model, window)[0], &found);
    println!("worst class logit error 2^{:.1}", error.log2());
    assert!(error < 2f64.powi(-11), "{error}");
}

#[test]
fn an_encoder_has_no_sessions() {
    let target = Target::uniform(512, 14, 40, 60).unwrap();
    let options = Options { purpose: Purpose::PromptForSession, ..of(8) };
    let error = Plan::compile(encoder(2), target, &options).err().unwrap();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
