//! `eval`, `generate` and `certify` against the model's own forward pass.

use std::fs;
use std::path::Path;

use cipherlm_model::{Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer, ensure_certified};

use crate::common::{PROMPT, Scratch, call, json, model, stories, succeed};

fn parts() -> (Model, Tokenizer) {
    let folder = model();
    let folder = Path::new(&folder);
    (Model::load(folder).unwrap(), Tokenizer::load(&folder.join(TOKENIZER_FILE)).unwrap())
}

#[test]
fn eval_gives_the_perplexity_of_the_forward_pass() {
    let dir = Scratch::new("eval");
    let text = dir.path("text");
    fs::write(&text, stories(0, 60)).unwrap();
    let (said, status) = json(&["eval", "--text", &text, "--window", "16", "--windows", "3"]);
    let (model, tokenizer) = parts();
    let tokens = tokenizer.encode(&stories(0, 60)).unwrap();
    let mut perplexity = [Mode::Exact, Mode::Polynomial].map(|mode| {
        let mut runner = Runner::new(&model, mode).unwrap();
        let mut nats = 0.0;
        for window in tokens.chunks_exact(16).take(3) {
            for (row, next) in runner.forward(window, Positions::All).unwrap().iter().zip(&window[1..]) {
                let sum: f64 = row.iter().map(|x| x.exp()).sum();
                nats += sum.ln() - row[*next as usize];
            }
        }
        (nats / 45.0).exp()
    });
    assert_eq!(said["tokens"], 45);
    for (name, wanted) in ["perplexity_exact", "perplexity_polynomial"].iter().zip(&mut perplexity) {
        let found = said[name].as_f64().unwrap();
        assert!((found / *wanted - 1.0).abs() < 1e-5, "{name}: {found} against {wanted}");
    }
    assert_eq!(status, i32::from(said["violations"].as_u64().unwrap() > 0), "{said}");
    assert!(
        said["top1_agree"].as_f64().unwrap() > 0.9 && said["max_abs_error"].as_f64().unwrap() < 0.1,
        "{said}"
    );
}

#[test]
fn generate_continues_greedily_and_samples_by_seed() {
    let (model, tokenizer) = parts();
    let prompt = tokenizer.encode(PROMPT).unwrap();
    for (flag, mode) in [("--exact", Mode::Exact), ("--json", Mode::Polynomial)] {
        let mut args = vec!["generate", "--prompt", PROMPT, "--tokens", "12", flag];
        args.dedup();
        let out = call(&[args.as_slice(), if flag == "--json" { &[] } else { &["--json"] }].concat());
        let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let (mut runner, mut tokens, mut fresh) =
            (Runner::new(&model, mode).unwrap(), prompt.clone(), prompt.clone());
        for _ in 0..12 {
            let row = runner.append(&fresh, Positions::Last).unwrap().pop().unwrap();
            let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
            if tokenizer.is_end(best) {
                break;
            }
            tokens.push(best);
            fresh = vec![best];
        }
        assert_eq!(said["tokens"], serde_json::json!(tokens), "{flag}");
        assert_eq!(
            said["answer"],
            tokenizer.decode_continuation(&prompt, &tokens[prompt.len()..]).unwrap(),
            "{flag}"
        );
    }
    let sampled = |seed: &str| {
        let args = ["generate", "--prompt", PROMPT, "--tokens", "20", "--temperature", "1", "--seed", seed];
        json(&args).0["answer"].clone()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"), "the seed decides");
    // Without JSON: prompt and answer, in one piece.
    let plain = succeed(&["generate", "--prompt", PROMPT, "--tokens", "3"]);
    assert!(plain.starts_with(PROMPT) && plain.len() > PROMPT.len() + 1, "{plain}");
}

#[test]
fn certify_widens_what_it_saw_and_writes_what_passes() {
    let dir = Scratch::new("certify");
    let (a, b, out) = (dir.path("a"), dir.path("b"), dir.path("out"));
    fs::write(&a, stories(0, 400)).unwrap();
    fs::write(&b, stories(5000, 100)).unwrap();
    let base =
        ["certify", "--calibration", &a, "--held-out", &b, "--windows", "20", "--held-out-windows", "5"];
    let wide = [
        "--margin-variance",
        "4",
        "--margin-denominator",
        "6",
        "--margin-activation",
        "2",
        "--margin-magnitude",
        "3",
    ];
    let loose = ["--error-reciprocal", "1e-2", "--error-inv-sqrt", "1e-2", "--error-activation", "2e-2"];
    let args = [base.as_slice(), &wide, &loose, &["--freeze", "30", "--out", &out]].concat();
    let (said, status) = json(&args);
    assert_eq!((status, &said["violations"]), (0, &0.into()), "{said}");
    assert_eq!((&said["calibration"]["windows"], &said["held_out"]["windows"]), (&20.into(), &5.into()));
    let (_, tokenizer) = parts();
    assert_eq!(
        said["calibration"]["tokens_in_text"],
        tokenizer.encode(&stories(0, 400)).unwrap().len(),
        "the whole text is read"
    );
    let written = Model::load(Path::new(&out)).unwrap();
    ensure_certified(&written).unwrap();
    for site in written.spec().sites.iter().filter(|site| site.margin == 3.0) {
        let wanted = 3.0 * site.observed.max.abs().max(site.observed.min.abs());
        assert!((site.range.hi / wanted - 1.0).abs() < 1e-9, "{}: {:?} of {wanted}", site.name, site.range);
        assert!(site.scheme.is_none());
    }
    let margins: std::collections::BTreeSet<String> =
        written.spec().sites.iter().map(|site| site.margin.to_string()).collect();
    assert_eq!(
        margins.into_iter().collect::<Vec<_>>(),
        ["2", "3", "4", "6"],
        "each option reaches its sites"
    );
    // Tighter targets take higher degrees.
    let degrees = |more: &[&str]| -> u64 {
        let (said, _) = json(&[base.as_slice(), &wide, &["--freeze", "30"], more].concat());
        said["sites"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|s| Some(s["scheme"]["coefficients"].as_array()?.len() as u64))
            .sum()
    };
    assert!(degrees(&loose) < degrees(&[]), "error targets change degrees");
    // Nothing is replaced unasked, and then it is.
    assert_eq!(call(&args).status.code(), Some(2));
    assert_eq!(call(&[args.as_slice(), &["--force"]].concat()).status.code(), Some(0));
}

#[test]
fn a_text_that_leaves_the_ranges_is_status_1_and_nothing_is_written() {
    let dir = Scratch::new("leaves");
    let (a, b, out) = (dir.path("a"), dir.path("b"), dir.path("out"));
    fs::write(&a, "One day a cat saw a dog. ".repeat(60)).unwrap();
    fs::write(&b, "ZQX 7#% \u{1f980} {}[] ~~ 0x9F ".repeat(40)).unwrap();
    let tight = [
        "--margin-variance",
        "1",
        "--margin-denominator",
        "1",
        "--margin-activation",
        "1",
        "--margin-magnitude",
        "1",
    ];
    let base = ["certify", "--calibration", &a, "--held-out", &b, "--windows", "4", "--out", &out];
    let (said, status) = json(&[base.as_slice(), &tight].concat());
    assert_eq!(status, 1, "{said}");
    assert!(said["violations"].as_u64().unwrap() > 0);
    assert!(!Path::new(&out).exists(), "nothing is written");
    let plain = call(&[base.as_slice(), &tight].concat());
    let err = String::from_utf8(plain.stderr).unwrap();
    assert!(err.contains("leave their ranges") && err.contains("--margin"), "{err}");
    let table = String::from_utf8(plain.stdout).unwrap();
    assert!(
        table.contains("4 windows of 64 tokens") && table.contains("few"),
        "it says what it read: {table}"
    );
}
