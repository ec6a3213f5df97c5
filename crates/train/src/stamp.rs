//! What made a file: hashes of data, and the difference of two configurations field by field.

use serde::Serialize;
use serde_json::Value;

use crate::params::HostParam;

/// BLAKE3 of token ids or text, hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// BLAKE3 of names, dimensions and values, and of a text beside them.
pub(crate) fn hash_params<'a>(params: impl IntoIterator<Item = &'a HostParam>, text: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for param in params {
        hasher.update(format!("{} {:?};", param.name, param.shape).as_bytes());
        let mut bytes = Vec::with_capacity(4 * param.data.len());
        param.data.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        hasher.update(&bytes);
    }
    hasher.update(text.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// A value as JSON, for comparison; `null` where it has no such form.
pub(crate) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Fields in which `found` and `wanted` differ, `path: found, now wanted`, those under `free` left
/// out.
pub(crate) fn differences(found: &Value, wanted: &Value, free: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    compare("", found, wanted, free, &mut out);
    out
}

fn compare(path: &str, found: &Value, wanted: &Value, free: &[&str], out: &mut Vec<String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (found, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys.into_iter().filter(|k| !free.contains(&below(k).as_str())) {
                let [a, b] = [a, b].map(|side| side.get(key).unwrap_or(&Value::Null));
                compare(&below(key), a, b, free, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{i}]"), a, b, free, out);
            }
        }
        _ if found == wanted => {}
        _ => out.push(format!("{path} {found}, now {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let old = json!({ "a": { "b": 1, "log": 2 }, "list": [1, 2], "gone": 3 });
        let new = json!({ "a": { "b": 4, "log": 5 }, "list": [1, 7] });
        let found = differences(&old, &new, &["a.log"]);
        assert_eq!(found, ["a.b 1, now 4", "gone 3, now null", "list[1] 2, now 7"]);
        assert!(differences(&old, &old, &[]).is_empty());
    }
}
