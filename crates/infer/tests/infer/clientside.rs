//! The client's half made of a client plan alone does what the half with the whole plan does.

use crate::common::world::World;
use crate::common::{certified, of, one_layer};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::{Ciphertext, Complex64, Plaintext};
use cipherlm_infer::{Asked, Client, ClientSide, EncryptedLogits, Error, KeyOrder};
use cipherlm_model::{Norm, Shape, random};
use cipherlm_protocol::{ClientPlan, Digest};

fn world(norm: Norm) -> World {
    World::new(&certified(&Shape { norm, ..one_layer() }, 4), 9, &of(8))
}

fn slots(world: &World, ciphertext: &Ciphertext) -> Vec<Complex64> {
    // A prompt may have a ring of its own.
    let (secret, params) = (world.client.secret(), ciphertext.params());
    let small = (params != secret.params()).then(|| secret.in_subring(params).unwrap());
    small.as_ref().unwrap_or(secret).decrypt(ciphertext).unwrap().decode().as_slice().to_vec()
}

#[test]
fn prompts_and_keys_are_those_of_the_whole_plan() {
    for norm in [Norm::LayerNorm, Norm::RmsNorm] {
        let w = world(norm);
        let (client_plan, embedding) = w.client_plan();
        let side = ClientSide::new(client_plan.clone(), &w.profile, &embedding).unwrap();
        let tokens = &random::windows(w.model().shape(), 8, 1, 5)[0][..6];
        let (one, other) =
            (w.client.encrypt(&w.plan, tokens).unwrap(), side.encrypt(&w.client, tokens).unwrap());
        assert_eq!((&one.plan, &one.lengths), (&other.plan, &other.lengths));
        assert_eq!(one.ciphertexts.len(), other.ciphertexts.len());
        for (one, other) in one.ciphertexts.iter().zip(&other.ciphertexts) {
            assert_eq!((one.level(), one.scale()), (other.level(), other.scale()));
            let (one, other) = (slots(&w, one), slots(&w, other));
            let worst = one.iter().zip(&other).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
            assert!(worst < 2f64.powi(-20) && one.iter().any(|x| x.re.abs() > 0.01), "{norm:?}: {worst}");
        }
        assert_eq!(other.to_bytes().len() as u64, client_plan.costs.prompt_bytes);
        let (own, order) = (KeyOrder::of(&w.circuits, &w.plan).unwrap(), side.key_order().unwrap());
        assert_eq!((own.request, own.plan, own.tokens), (order.request, order.plan, order.tokens));
        assert_eq!((own.small, one.asked), (order.small, other.asked));
    }
}

#[test]
fn answers_are_read_alike_and_garbage_is_seen() {
    let w = world(Norm::LayerNorm);
    let (client_plan, embedding) = w.client_plan();
    let side = ClientSide::new(client_plan.clone(), &w.profile, &embedding).unwrap();
    let answers = client_plan.answers;
    let logits = |level: usize, filled: usize, size: f64| {
        let params = w.circuits.params();
        let vector = |number: usize| {
            let value = |slot: usize| {
                let column = number * answers.features + slot % answers.features;
                if column < filled { size * ((slot * 7 + number) as f64).sin() } else { 0.0 }
            };
            let slots: Vec<_> = (0..params.slots()).map(|slot| Complex64::new(value(slot), 0.0)).collect();
            let scale = params.default_scale(level);
            let plain = Plaintext::encode(params, &slots, slots.len(), scale).unwrap();
            w.client.secret().encrypt(&plain, level).unwrap()
        };
        EncryptedLogits {
            plan: w.plan.id(),
            lengths: vec![8],
            asked: Asked::All,
            ciphertexts: (0..answers.vectors).map(vector).collect(),
        }
    };
    let good = logits(6, answers.results, 0.9);
    let positions = if answers.last { vec![7] } else { vec![0, 5] };
    for position in positions {
        let own = w.client.decrypt(&w.plan, &good, position).unwrap();
        assert_eq!(own.len(), answers.results);
        assert_eq!(side.decrypt(&w.client, &good, position).unwrap(), own);
        let shown = side.decrypt_public(&w.client, &good, position, 8.0, 2f64.powi(-12)).unwrap();
        assert_eq!(shown, w.client.decrypt_public(&w.plan, &good, position, 8.0, 2f64.powi(-12)).unwrap());
    }
    let found = side.decrypt(&w.client, &logits(6, answers.results, 1.5), 7);
    assert!(matches!(found, Err(Error::NotAnAnswer { .. })), "{found:?}");
    let other = EncryptedLogits { plan: "another".into(), ..good };
    assert!(matches!(side.decrypt(&w.client, &other, 0), Err(Error::Mismatch { .. })));
}

#[test]
fn a_plan_that_does_not_fit_the_clients_own_preset_is_refused() {
    let w = world(Norm::LayerNorm);
    let (client_plan, embedding) = w.client_plan();
    let refused = |change: &dyn Fn(&mut ClientPlan)| {
        let mut plan = client_plan.clone();
        change(&mut plan);
        ClientSide::new(plan, &w.profile, &embedding).err().map(|e| e.to_string())
    };
    assert_eq!(refused(&|_| ()), None);
    let top = w.circuits.params().max_level();
    type Change<'a> = &'a dyn Fn(&mut ClientPlan);
    let cases: [(&str, Change); 7] = [
        ("parameters", &|p| p.params = Digest::of(b"others")),
        ("profile", &|p| p.profile = "n16".into()),
        ("embedding", &|p| p.embedding.blake3 = Digest::of(b"others")),
        ("layout", &|p| p.layout.slots *= 2),
        ("layout", &|p| p.layout.level = top + 1),
        ("level", &|p| p.keys[0].level = top + 1),
        ("embed.tokens", &|p| p.model.embedding.vocab += 1),
    ];
    for (word, change) in cases {
        let said = refused(change).unwrap_or_else(|| panic!("{word} was taken"));
        assert!(said.contains(word), "{said}");
    }
    let side = ClientSide::new(client_plan.clone(), &w.profile, &embedding).unwrap();
    let vocab = client_plan.model.embedding.vocab as u32;
    for tokens in [&[][..], &[1; 9], &[vocab]] {
        assert!(side.encrypt(&w.client, tokens).is_err(), "{tokens:?}");
    }
    let mut narrow = client_plan.clone();
    narrow.layout.range = 1e-3;
    let narrow = ClientSide::new(narrow, &w.profile, &embedding).unwrap();
    let found = narrow.encrypt(&w.client, &[1, 2]).err();
    assert!(matches!(found, Some(Error::EmbeddingRange { .. })), "{found:?}");
    let strangers = Client::generate(&Profile::insecure(8).params().unwrap()).unwrap();
    assert!(side.encrypt(&strangers, &[1, 2]).is_err());
}
