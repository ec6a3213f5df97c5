//! A seeded generator of little stories, for machines without a corpus and for models small enough
//! to test with.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NAMES: [(&str, &str); 8] = [
    ("Anna", "she"),
    ("Ben", "he"),
    ("Mia", "she"),
    ("Tom", "he"),
    ("Lena", "she"),
    ("Sam", "he"),
    ("Ida", "she"),
    ("Max", "he"),
];
const ANIMALS: [&str; 8] = ["cat", "dog", "bird", "frog", "duck", "mouse", "fish", "fox"];
const PLACES: [&str; 8] = [
    "in the garden",
    "by the lake",
    "at the park",
    "in the woods",
    "on the hill",
    "near the sea",
    "in the barn",
    "at home",
];
const THINGS: [(&str, &str); 8] = [
    ("ball", "red"),
    ("boat", "small"),
    ("kite", "blue"),
    ("cake", "sweet"),
    ("hat", "green"),
    ("drum", "loud"),
    ("box", "big"),
    ("bell", "shiny"),
];

/// Text of `count` stories separated by the end-of-text mark; the same seed gives the same text
/// everywhere.
pub fn stories(seed: u64, count: usize) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = String::new();
    for _ in 0..count {
        out.push_str(&story(&mut rng));
        out.push_str("<|endoftext|>");
    }
    out
}

fn story(rng: &mut ChaCha8Rng) -> String {
    let pick = |rng: &mut ChaCha8Rng| rng.random_range(0..8usize);
    let (name, pronoun) = NAMES[pick(rng)];
    let (animal, place) = (ANIMALS[pick(rng)], PLACES[pick(rng)]);
    let (thing, kind) = THINGS[pick(rng)];
    let capital = if pronoun == "she" { "She" } else { "He" };
    let mut text = format!("One day, {name} was {place}. {capital} had a {kind} {thing}. ");
    text += &match rng.random_range(0..3) {
        0 => format!("A {animal} came and took the {thing}. {name} was sad. "),
        1 => format!("Then {pronoun} met a {animal}. The {animal} wanted to play with the {thing}. "),
        _ => format!("But the {thing} was lost. A {animal} helped {name} to look for the {thing}. "),
    };
    text += &match rng.random_range(0..3) {
        0 => format!("\"Can I have the {kind} {thing}?\" asked the {animal}. \"Yes,\" said {name}. "),
        1 => format!("{name} said, \"The {thing} is {kind}.\" The {animal} was happy. "),
        _ => format!("They found the {kind} {thing} {place}. "),
    };
    text += &match rng.random_range(0..2) {
        0 => format!("Then {name} and the {animal} went home. The end.\n"),
        _ => format!("{name} and the {animal} were friends. The end.\n"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_and_varied() {
        assert_eq!(stories(7, 20), stories(7, 20));
        assert_ne!(stories(7, 20), stories(8, 20));
        let text = stories(1, 50);
        let unique: std::collections::HashSet<&str> = text.split("<|endoftext|>").collect();
        assert!(unique.len() > 45 && text.is_ascii());
    }
}
