//! `plan` and `doctor`, where no key is made: profiles compared at full size, prices, this machine.

use std::fs;

use crate::common::{Scratch, bare, json, model, refuse, succeed};

#[test]
fn the_cheapest_profile_that_is_good_enough_is_taken_and_the_others_are_shown() {
    let (plan, status) = json(&["plan", "--length", "8"]);
    assert_eq!(status, 0);
    let candidates = plan["candidates"].as_array().unwrap();
    assert!(candidates.len() >= 4, "{plan}");
    let verdict = |wanted: &'static str| candidates.iter().filter(move |c| c["verdict"] == wanted);
    let chosen: Vec<_> = verdict("chosen").collect();
    assert!(chosen.len() == 1 && chosen[0]["profile"] == plan["profile"], "{candidates:?}");
    let seconds = |c: &serde_json::Value| c["seconds"].as_f64().unwrap();
    assert!(verdict("slower").all(|c| seconds(c) >= seconds(chosen[0])), "{candidates:?}");
    assert!(plan["predicted_mse"].as_f64().unwrap() <= 5e-4, "{plan}");
    // By name, the same plan is made again and nothing is compared.
    let (named, _) = json(&["plan", "--length", "8", "--profile", plan["profile"].as_str().unwrap()]);
    assert_eq!((&named["id"], named["candidates"].as_array().unwrap().len()), (&plan["id"], 0));
    let text = succeed(&["plan", "--length", "8", "--explain"]);
    assert!(text.contains("verdict") && text.contains("chosen"), "{text}");
}

#[test]
#[ignore = "half a minute of simulated noise"]
fn slow_more_precision_than_the_cheapest_profile_gives_has_a_price_or_is_refused() {
    let (plan, _) = json(&["plan", "--length", "8"]);
    let mse = plan["predicted_mse"].as_f64().unwrap();
    let (finer, _) = json(&["plan", "--length", "8", "--tolerance", &format!("{:e}", mse / 4.0)]);
    assert_ne!(finer["profile"], plan["profile"]);
    assert!(finer["predicted_mse"].as_f64().unwrap() <= mse / 4.0, "{finer}");
    refuse(&["plan", "--length", "8", "--tolerance", "1e-14"], &["--tolerance", "n16-13"]);
}

#[test]
fn prices_of_another_machine_change_the_time_and_not_the_plan() {
    let dir = Scratch::new("prices");
    let small = ["plan", "--length", "8", "--insecure-ring", "10"];
    let (here, _) = json(&small);
    assert!(here["prices"]["kernel"].is_string(), "{here}");
    // The table of this version with every time doubled.
    let table = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let mut slow = table(include_str!("../../../infer/src/cost/avx2.json"));
    for entries in slow["primitives"].as_object_mut().unwrap().values_mut() {
        for entry in entries.as_object_mut().unwrap().values_mut() {
            entry["seconds"] = (20.0 * entry["seconds"].as_f64().unwrap()).into();
        }
    }
    let file = dir.path("slow.json");
    fs::write(&file, slow.to_string()).unwrap();
    let (there, _) = json(&[&small[..], &["--prices", &file]].concat());
    assert_eq!(here["id"], there["id"]);
    let seconds = |plan: &serde_json::Value| plan["predicted_seconds"].as_f64().unwrap();
    assert!(seconds(&there) > 5.0 * seconds(&here), "{} {}", seconds(&here), seconds(&there));
    fs::write(&file, "{}").unwrap();
    refuse(&["plan", "--length", "8", "--prices", &file], &["--prices", "slow.json"]);
    refuse(&["plan", "--length", "8", "--prices", &dir.path("none.json")], &["--prices", "none.json"]);
}

#[test]
fn doctor_says_what_fits() {
    let (said, _) = json(&["doctor"]);
    for field in ["machine", "kernel"] {
        assert!(said[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {said}");
    }
    assert!(said["kernels"].as_array().unwrap().contains(&said["kernel"]), "{said}");
    let runs = said["runs"].as_array().unwrap();
    let free = said["memory_free_bytes"].as_u64().unwrap();
    for run in runs {
        assert_eq!(run["fits"].as_bool().unwrap(), run["memory_bytes"].as_u64().unwrap() <= free, "{run}");
        assert!(run["predicted_seconds"].as_f64().unwrap() > 0.0, "{run}");
    }
    assert!(!runs.is_empty());
    // A kernel slower than the best is worth a word.
    let slow = bare(&["doctor", "--model", &model(), "--json"]).env("CIPHERLM_KERNEL", "scalar").output();
    let said: serde_json::Value = serde_json::from_slice(&slow.unwrap().stdout).unwrap();
    assert_eq!(said["kernel"], "scalar");
    let advice = said["advice"].to_string();
    assert!(said["kernels"].as_array().unwrap().len() < 3 || advice.contains("CIPHERLM_KERNEL"), "{advice}");
}
