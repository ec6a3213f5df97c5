//! JSON of other parties.

use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// Longest JSON that is read.
pub const JSON_BYTES: usize = 64 << 10;
/// Deepest nesting that is read.
const DEPTH: usize = 32;

/// Reads one JSON value of at most 64 KiB and 32 levels; fields that are unknown or come twice are
/// refused by the types of this crate.
///
/// # Errors
/// `json/limit` and `json/field`; the input is not repeated.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.len() > JSON_BYTES {
        let detail = format!("{} bytes of JSON, at most {JSON_BYTES} are read", bytes.len());
        return Err(Problem::new(Code::JsonLimit, detail));
    }
    let depth = depth(bytes);
    if depth > DEPTH {
        return Err(Problem::new(Code::JsonLimit, format!("nested {depth} deep, at most {DEPTH} are read")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The words of the parser may quote the input: only the place is told.
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::new(Code::JsonField, format!("{place}: not what is expected here"))
    })
}

/// The deepest nesting of brackets outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn long_and_deep_json_is_refused_and_never_quoted() {
        let code = |bytes: &[u8]| read_json::<Value>(bytes).map_err(|p| p.code());
        let deep = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
        assert!(code(&deep(32)).is_ok());
        assert_eq!(code(&deep(33)), Err(Some(Code::JsonLimit)));
        assert_eq!(code(&vec![b' '; JSON_BYTES + 1]), Err(Some(Code::JsonLimit)));
        assert!(code(br#""[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[""#).is_ok(), "strings do not nest");
        let said = read_json::<Value>(b"{\"secret-canary\"").unwrap_err();
        assert_eq!(said.code(), Some(Code::JsonField));
        assert!(!said.to_string().contains("canary"), "{said}");
    }
}
