//! Private search: the scores of documents under encryption, on all three machines, against the
//! reference.

use std::sync::Arc;

use crate::common::world::World;
use crate::common::{bert, certified, far, of, polynomial, run, small};
use cipherlm_infer::{Error, Found, Index, Options, Plan, Target};
use cipherlm_model::{Model, Pool, random};

fn encoder(pool: Pool) -> Arc<Model> {
    certified(&bert(pool), 3)
}

fn sentence(model: &Model, tokens: &[u32]) -> Vec<f64> {
    polynomial(model).sentence(tokens, None).unwrap()
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

fn options(index: Index) -> Options {
    Options { index: Some(Arc::new(index)), ..of(8) }
}

fn plan(model: &Arc<Model>, index: Index) -> Result<Plan, Error> {
    Plan::compile(Arc::clone(model), Target::uniform(512, 14, 40, 60).unwrap(), &options(index))
}

fn best(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap()
}

#[test]
fn scores_on_the_clear_machine_are_those_of_the_reference() {
    for (pool, documents) in [(Pool::Mean, 3), (Pool::Mean, 100), (Pool::First, 30), (Pool::Mean, 700)] {
        let model = encoder(pool);
        let plan = plan(&model, index(&model, documents)).unwrap();
        assert!(plan.answers_last());
        for length in [1, 5, 8] {
            let text = random::windows(model.shape(), length, 1, 5).swap_remove(0);
            let outputs = run(&plan, &text, length);
            let row = plan.logits(&outputs, plan.answer_position(length)).unwrap();
            let found = Found::of(&row, model.shape().d_model).unwrap();
            let error = far(&found.scores, &cosines(&model, &text, documents));
            assert!(error < 1e-6, "{pool:?}, {documents} documents, {length} tokens: {error}");
            assert!(far(&found.vector, &sentence(&model, &text)) < 1e-6);
        }
    }
}

#[test]
fn a_question_text_vector_and_scores_under_encryption() {
    const DOCUMENTS: usize = 60;
    let model = encoder(Pool::Mean);
    let w = World::new(&model, 10, &options(index(&model, DOCUMENTS)));
    let (plan, client) = (&w.plan, &w.client);
    let noise = plan.noise_machine(w.circuits.params(), w.circuits.key_request(plan), 3).unwrap();
    for text in random::windows(model.shape(), 5, 2, 5) {
        let reference = cosines(&model, &text, DOCUMENTS);
        let width = model.shape().d_model;
        let forecast = plan.forecast(&noise, &text).unwrap();
        let exact = Found::of(&forecast.exact_logits(plan, 4).unwrap(), width).unwrap();
        let noisy = Found::of(&forecast.noisy_logits(plan, 4).unwrap(), width).unwrap();
        assert!(far(&exact.scores, &reference) < 1e-6);
        let answer = w.run(&client.encrypt(plan, &text).unwrap()).unwrap();
        let found = Found::of(&client.decrypt(plan, &answer, 4).unwrap(), width).unwrap();
        let bits = |scores: &[f64]| -far(scores, &reference).log2();
        println!("bits of the worst score: {:.1}, forecast {:.1}", bits(&found.scores), bits(&noisy.scores));
        assert!(bits(&found.scores) > 16.0 && bits(&noisy.scores) > 16.0);
        assert_eq!(best(&found.scores), best(&reference));
        assert_eq!(best(&noisy.scores), best(&reference));
        assert!(far(&client.sentence(plan, &answer).unwrap(), &sentence(&model, &text)) < 0.01);
        assert!(matches!(client.decrypt(plan, &answer, 3), Err(Error::Position { .. })));
    }
}

#[test]
fn a_client_without_the_model_knows_how_many_documents_there_are() {
    let model = encoder(Pool::Mean);
    let side = |options: &Options| World::new(&model, 10, options).side();
    let searching = side(&options(index(&model, 9)));
    assert_eq!((searching.documents(), searching.answer_position(5)), (9, 4));
    let embedding = side(&of(8));
    assert_eq!((embedding.documents(), embedding.answer_position(5)), (0, 0));
}

#[test]
fn another_index_is_another_plan_and_what_does_not_fit_is_refused() {
    let model = encoder(Pool::Mean);
    let id = |index| plan(&model, index).unwrap().id();
    let mut other: Vec<f64> = vec![0.25; 16 * 5];
    let same = Index::new(16, other.clone()).unwrap();
    other[17] = 0.5;
    assert_eq!(id(same.clone()), id(same.clone()));
    assert_ne!(id(same.clone()), id(Index::new(16, other).unwrap()));
    let narrow = plan(&model, Index::new(8, vec![0.5; 16]).unwrap()).err().unwrap();
    assert!(narrow.to_string().contains("vectors of 8 numbers"), "{narrow}");
    let decoder = certified(&small(), 1);
    let refused = plan(&decoder, same).err().unwrap();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}
