//! Several files in one input: a length of four bytes before each.

/// The first `count` files; what is missing is empty, and a length beyond the input ends with it.
pub(crate) fn split(input: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut rest = input;
    let mut next = || {
        let Some((head, tail)) = rest.split_first_chunk::<4>() else { return Vec::new() };
        let (part, tail) = tail.split_at((u32::from_le_bytes(*head) as usize).min(tail.len()));
        rest = tail;
        part.to_vec()
    };
    (0..count).map(|_| next()).collect()
}

/// The input of these files.
pub(crate) fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend((part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}
