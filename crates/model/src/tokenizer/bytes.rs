//! GPT-2's table between bytes and printable characters.

use crate::error::{Error, Result};

/// Printable character for a byte: the byte itself where it prints, else one from U+0100 on.
pub(super) fn printable(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or('\u{fffd}')
}

pub(super) fn to_printable(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| printable(b)).collect()
}

pub(super) fn from_printable(text: &str) -> Result<Vec<u8>> {
    let unknown = |c: char| Error::malformed("tokenizer", format!("character {c:?} stands for no byte"));
    text.chars()
        .map(|c| match c as u32 {
            0x100..=0x143 => (0..=255u8).find(|&b| printable(b) == c).ok_or_else(|| unknown(c)),
            code => u8::try_from(code).ok().filter(|&b| printable(b) == c).ok_or_else(|| unknown(c)),
        })
        .collect()
}
