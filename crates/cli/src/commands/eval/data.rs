//! Data files of the tasks, with the line of everything that is wrong.

use anyhow::{Context, bail};
use cipherlm_files::shown;
use serde_json::Value;
use std::path::Path;

/// Longest data file, in bytes.
const DATA_BYTES: u64 = 1 << 30;
const XZ: &[u8] = b"\xfd7zXZ";

/// A text file; compressed ones are refused with what unpacks them.
pub(super) fn text(file: &Path) -> anyhow::Result<String> {
    let head = cipherlm_files::head(file, XZ.len() as u64).context("--data")?;
    if head.bytes == XZ {
        bail!("--data {} is compressed: unpack it first, with `xz -dk`", shown(file));
    }
    cipherlm_files::read_text(file, DATA_BYTES).context("--data")
}

/// One line of JSON.
pub(super) struct Item<'f> {
    file: &'f Path,
    line: usize,
    value: Value,
}

/// The lines of JSON of a file, at most `limit`.
pub(super) fn items(file: &Path, limit: Option<usize>) -> anyhow::Result<Vec<Item<'_>>> {
    let mut out = vec![];
    for (at, line) in text(file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line)
            .with_context(|| format!("{} line {}: not JSON", shown(file), at + 1))?;
        out.push(Item { file, line: at + 1, value });
        if limit.is_some_and(|limit| out.len() == limit) {
            break;
        }
    }
    if out.is_empty() {
        bail!("{} holds no item", shown(file));
    }
    Ok(out)
}

impl Item<'_> {
    pub(super) fn text(&self, field: &str) -> anyhow::Result<&str> {
        self.value[field].as_str().with_context(|| self.lacks(field, "a text"))
    }

    pub(super) fn texts(&self, field: &str) -> anyhow::Result<Vec<&str>> {
        let list = self.value[field].as_array().with_context(|| self.lacks(field, "a list of texts"))?;
        list.iter().map(|text| text.as_str().with_context(|| self.lacks(field, "a list of texts"))).collect()
    }

    /// A whole number, also one that is written as a text.
    pub(super) fn number(&self, field: &str) -> anyhow::Result<usize> {
        let value = &self.value[field];
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        number.and_then(|n| usize::try_from(n).ok()).with_context(|| self.lacks(field, "a whole number"))
    }

    pub(super) fn has(&self, field: &str) -> bool {
        !self.value[field].is_null()
    }

    pub(super) fn refuse(&self, reason: &str) -> anyhow::Error {
        anyhow::anyhow!("{} line {}: {reason}", shown(self.file), self.line)
    }

    fn lacks(&self, field: &str, what: &str) -> String {
        format!("{} line {}: field `{field}` is not {what}", shown(self.file), self.line)
    }
}
