//! Private search: the scores of documents under encryption, on all three machines, against the
//! reference.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Encrypted;
use cipherlm_infer::{
    Circuits, Client, ClientSide, EncryptedLogits, Error, Found, Index, Options, Plan, Progress, Server,
    Target,
};
use cipherlm_model::{Mode, Model, Pool, Runner, Shape, random};

fn encoder(pool: Pool) -> Arc<Model> {
    let shape = crate::common::bert(pool);
    Arc::new(random::certified("bert", &shape, 3).unwrap())
}

fn sentence(model: &Model, tokens: &[u32]) -> Vec<f64> {
    Runner::new(model, Mode::Polynomial).unwrap().sentence(tokens, None).unwrap()
}

/// An index of `count` texts of the model's own.
fn index(model: &Model, count: usize) -> Index {
    let texts = random::windows(model.shape(), 7, count, 11);
    let vectors = texts.iter().flat_map(|text| sentence(model, text)).collect();
    Index::new(model.shape().d_model, vectors).unwrap()
}

/// Scores of a question against each document, one by one.
fn cosines(model: &Model, tokens: &[u32], count: usize) -> Vec<f64> {
    let vector = sentence(model, tokens);
    let texts = random::windows(model.shape(), 7, count, 11);
    let dot = |text: &Vec<u32>| sentence(model, text).iter().zip(&vector).map(|(a, b)| a * b).sum();
    texts.iter().map(dot).collect()
}

fn plan(model: &Arc<Model>, target: Target, index: Index) -> Result<Plan, Error> {
    let options = Options { tokens: 8, index: Some(Arc::new(index)), ..Options::default() };
    Plan::compile(Arc::clone(model), target, &options)
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn best(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap()
}

#[test]
fn scores_on_the_clear_machine_are_those_of_the_reference() {
    for (pool, documents) in [(Pool::Mean, 3), (Pool::Mean, 100), (Pool::First, 30), (Pool::Mean, 700)] {
        let model = encoder(pool);
        let target = Target::uniform(512, 14, 40, 60).unwrap();
        let plan = plan(&model, target, index(&model, documents)).unwrap();
        assert!(plan.answers_last());
        let machine = plan.clear_machine();
        for length in [1, 5, 8] {
            let text = random::windows(model.shape(), length, 1, 5).swap_remove(0);
            let packed = plan.pack(&text).unwrap().into_iter();
            let input = packed.map(|v| machine.input(v, plan.input_level()).unwrap()).collect();
            let outputs = plan.run_text(&machine, input, length, &mut |_: &Progress<'_>| true).unwrap();
            let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
            let row = plan.logits(&outputs, plan.answer_position(length)).unwrap();
            let found = Found::of(&row, model.shape().d_model).unwrap();
            let error = worst(&found.scores, &cosines(&model, &text, documents));
            assert!(error < 1e-6, "{pool:?}, {documents} documents, {length} tokens: {error}");
            assert!(worst(&found.vector, &sentence(&model, &text)) < 1e-6);
        }
    }
}

#[test]
fn a_question_text_vector_and_scores_under_encryption() {
    const DOCUMENTS: usize = 60;
    let model = encoder(Pool::Mean);
    let circuits = Circuits::new(&Profile { user_levels: 13, ..Profile::insecure(10) }).unwrap();
    let plan = plan(&model, circuits.target().unwrap(), index(&model, DOCUMENTS)).unwrap();
    let (params, rings) = (circuits.params(), circuits.small_rings(&plan).unwrap());
    let client = Client::generate(params).unwrap();
    let keys = circuits.keys(client.secret(), &plan).unwrap();
    let machine = Encrypted::new(params, client.key_id(), Arc::clone(&keys)).unwrap();
    let server = Server::new(machine.with_refresher(circuits.refresher(&keys).unwrap()).unwrap());
    let noise = plan.noise_machine(params, circuits.key_request(&plan), 3).unwrap();
    for text in random::windows(model.shape(), 5, 2, 5) {
        let reference = cosines(&model, &text, DOCUMENTS);
        let width = model.shape().d_model;
        let forecast = plan.forecast(&noise, &text).unwrap();
        let exact = Found::of(&forecast.exact_logits(&plan, 4).unwrap(), width).unwrap();
        let noisy = Found::of(&forecast.noisy_logits(&plan, 4).unwrap(), width).unwrap();
        assert!(worst(&exact.scores, &reference) < 1e-6);
        let prompt = client.encrypt(&plan, &text).unwrap();
        let answer = server.run(&plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
        let answer = EncryptedLogits::from_bytes(params, &rings, &answer.to_bytes()).unwrap();
        let found = Found::of(&client.decrypt(&plan, &answer, 4).unwrap(), width).unwrap();
        let bits = |scores: &[f64]| -worst(scores, &reference).log2();
        println!("bits of the worst score: {:.1}, forecast {:.1}", bits(&found.scores), bits(&noisy.scores));
        assert!(bits(&found.scores) > 16.0 && bits(&noisy.scores) > 16.0);
        assert_eq!(best(&found.scores), best(&reference));
        assert_eq!(best(&noisy.scores), best(&reference));
        assert!(worst(&client.sentence(&plan, &answer).unwrap(), &sentence(&model, &text)) < 0.01);
        assert!(matches!(client.decrypt(&plan, &answer, 3), Err(Error::Position { .. })));
    }
}

#[test]
fn a_client_without_the_model_knows_how_many_documents_there_are() {
    let model = encoder(Pool::Mean);
    let profile = Profile { user_levels: 13, ..Profile::insecure(10) };
    let circuits = Circuits::new(&profile).unwrap();
    let tokenizer = cipherlm_model::Tokenizer::train("a cat sat on a mat. ", 258).unwrap();
    let side = |plan: &Plan| {
        let (client_plan, [_, embedding]) = plan.client_plan(&circuits, profile.name, &tokenizer).unwrap();
        ClientSide::new(client_plan, &profile, &embedding).unwrap()
    };
    let searching = plan(&model, circuits.target().unwrap(), index(&model, 9)).unwrap();
    assert_eq!((side(&searching).documents(), side(&searching).answer_position(5)), (9, 4));
    let options = Options { tokens: 8, ..Options::default() };
    let embedding = Plan::compile(Arc::clone(&model), circuits.target().unwrap(), &options).unwrap();
    assert_eq!((side(&embedding).documents(), side(&embedding).answer_position(5)), (0, 0));
}

#[test]
fn another_index_is_another_plan_and_what_does_not_fit_is_refused() {
    let model = encoder(Pool::Mean);
    let target = || Target::uniform(512, 14, 40, 60).unwrap();
    let id = |index| plan(&model, target(), index).unwrap().id();
    let mut other: Vec<f64> = vec![0.25; 16 * 5];
    let same = Index::new(16, other.clone()).unwrap();
    other[17] = 0.5;
    assert_eq!(id(same.clone()), id(same.clone()));
    assert_ne!(id(same.clone()), id(Index::new(16, other).unwrap()));
    let narrow = plan(&model, target(), Index::new(8, vec![0.5; 16]).unwrap()).err().unwrap();
    assert!(narrow.to_string().contains("vectors of 8 numbers"), "{narrow}");
    let decoder = Arc::new(random::certified("small", &Shape::preset("test").unwrap(), 1).unwrap());
    let refused = plan(&decoder, target(), same).err().unwrap();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}
