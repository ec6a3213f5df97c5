//! Edits of JSON: fields removed, doubled, of another type, of extreme size.

use serde_json::{Map, Value, json};

use super::{EXTREMES, FLOATS, bytes};
use crate::rng::Rng;

/// One edit of a JSON text; bytes that are no JSON are edited as bytes.
pub(crate) fn json(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    if rng.one_in(8) {
        return text(input, others, rng);
    }
    let Ok(mut root) = serde_json::from_slice::<Value>(input) else { return bytes(input, others, rng) };
    let donor = rng.pick(others).filter(|_| rng.one_in(4));
    let donor = donor.and_then(|other| serde_json::from_slice::<Value>(other).ok());
    edit(&mut root, donor, rng);
    if let Ok(text) = serde_json::to_vec(&root) {
        *input = text;
    }
}

/// Walks down from the root, stopping early more often than at a leaf.
fn walk<'a>(value: &'a mut Value, rng: &mut Rng) -> &'a mut Value {
    let size = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if size == 0 || rng.one_in(5) {
        return value;
    }
    let at = rng.below(size);
    match value {
        Value::Array(list) => walk(&mut list[at], rng),
        Value::Object(map) => match map.values_mut().nth(at) {
            Some(child) => walk(child, rng),
            None => unreachable!("the index is below the length"),
        },
        other => other,
    }
}

fn edit(root: &mut Value, donor: Option<Value>, rng: &mut Rng) {
    if let Some(mut donor) = donor {
        let piece = walk(&mut donor, rng).clone();
        *walk(root, rng) = piece;
        return;
    }
    let node = walk(root, rng);
    match node {
        Value::Array(list) if rng.one_in(2) => array(list, rng),
        Value::Object(map) if !rng.one_in(8) => object(map, rng),
        Value::String(text) if rng.one_in(2) => string(text, rng),
        Value::Number(number) if rng.one_in(4) => {
            let moved = number.as_f64().unwrap_or(0.0) + rng.below(5) as f64 - 2.0;
            *node = if number.is_f64() { json!(moved) } else { json!(moved as i64) };
        }
        _ => *node = replacement(rng),
    }
}

fn array(list: &mut Vec<Value>, rng: &mut Rng) {
    let at = rng.below(list.len());
    match rng.below(4) {
        0 if !list.is_empty() => drop(list.remove(at)),
        1 if !list.is_empty() => list.insert(at, list[at].clone()),
        2 if list.len() > 1 => {
            let other = rng.below(list.len());
            list.swap(at, other);
        }
        _ => list.insert(at.min(list.len()), replacement(rng)),
    }
}

fn object(map: &mut Map<String, Value>, rng: &mut Rng) {
    let Some(key) = map.keys().nth(rng.below(map.len())).cloned() else {
        map.insert("x".into(), replacement(rng));
        return;
    };
    match rng.below(5) {
        0 => drop(map.remove(&key)),
        1 => {
            let value = map.remove(&key).unwrap_or(Value::Null);
            let mut name = key;
            string(&mut name, rng);
            map.insert(name, value);
        }
        2 => {
            let value = map.get(&key).cloned().unwrap_or(Value::Null);
            map.insert(format!("{key}2"), value);
        }
        3 => {
            let other = map.keys().nth(rng.below(map.len())).cloned().unwrap_or_default();
            let (a, b) = (map.get(&key).cloned(), map.get(&other).cloned());
            map.insert(key, b.unwrap_or(Value::Null));
            map.insert(other, a.unwrap_or(Value::Null));
        }
        _ => drop(map.insert(key, replacement(rng))),
    }
}

fn string(text: &mut String, rng: &mut Rng) {
    let cut = text.char_indices().map(|(at, _)| at).nth(rng.below(text.chars().count())).unwrap_or(0);
    match rng.below(6) {
        0 => text.truncate(cut),
        1 => text.insert(cut, char::from(rng.next() as u8)),
        2 => text.insert_str(cut, "\u{1b}]0;x\u{7}"),
        3 => text.insert_str(cut, "\u{10ffff}\u{0}"),
        4 => text.push_str(&"9".repeat(1 + rng.below(300))),
        _ => text.push_str(&text.clone()),
    }
}

fn replacement(rng: &mut Rng) -> Value {
    match rng.below(9) {
        0 => Value::Null,
        1 => json!(rng.one_in(2)),
        2 | 3 => json!(EXTREMES[rng.below(EXTREMES.len())]),
        4 => json!(-(EXTREMES[rng.below(20)] as i64)),
        5 | 6 => json!(FLOATS[rng.below(FLOATS.len())]),
        7 => json!(["", "\u{1b}[2J", "../../etc", "NaN"][rng.below(4)]),
        _ => [json!([]), json!({}), json!([[]]), json!([0, 0])][rng.below(4)].clone(),
    }
}

/// Edits that no value tree can hold.
fn text(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(input.len());
    match rng.below(6) {
        0 => drop(input.splice(0..0, [0xef, 0xbb, 0xbf])),
        1 => drop(input.splice(at..at, std::iter::repeat_n(b'[', 1 << rng.below(14)))),
        2 => drop(input.splice(at..at, *b"1e999")),
        3 => {
            // A field twice: the text from one comma to the next, again.
            let from = input.iter().skip(at).position(|b| *b == b',').map(|p| p + at);
            let end =
                from.and_then(|from| Some(input.iter().skip(from + 1).position(|b| *b == b',')? + from + 1));
            if let (Some(from), Some(end)) = (from, end) {
                let piece = input[from..end].to_vec();
                input.splice(from..from, piece);
            }
        }
        _ => bytes(input, others, rng),
    }
}
